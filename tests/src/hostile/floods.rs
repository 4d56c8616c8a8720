//! Control frames without measure.

use super::Ward;
use crate::support::node::Options;
use crate::support::raw::{Bits, End, Frame, Raw};

/// W-7, W-21: someone who pings without reading the pongs is not read any more, so that they do not pile up; whoever reads
/// them then gets all of them, in order.
#[tokio::test]
async fn pings_without_number_pile_up_with_their_sender() {
    const PINGS: usize = 400_000;
    let mut ward = Ward::start(Options::memory()).await;
    let payload = |n: usize| format!("{n:0>120}").into_bytes();
    let pings: Vec<u8> = (0..PINGS).flat_map(|n| Bits::plain(9).frame(&payload(n), 120)).collect();
    let pong = Bits { masked: false, ..Bits::plain(10) };
    let pongs: Vec<u8> = (0..PINGS).flat_map(|n| pong.frame(&payload(n), 120)).collect();
    for path in ["/sub/x", "/pub/x"] {
        let mut raw = Raw::connect_narrow(&ward.node).await;
        raw.upgrade(&ward.node, path).await;
        let unread = async {
            for _ in 0..10 {
                ward.serves_others().await;
            }
            // 46 MiB of pongs, of which the node may hold `control_bytes_max`, 256 KiB; heaps of threads come on top
            ward.has_not_grown(24 * 1024);
        };
        let answers = Box::pin(raw.flood(&pings, unread, pongs.len())).await;
        assert!(answers == pongs, "{path}: each ping has its pong, in order");
        raw.send(8, &1000_u16.to_be_bytes()).await;
        assert_eq!(raw.end().await, (End::Code(1000), 0), "{path}: the session lives until it ends itself");
    }
    ward.closed_by(1000, 2).await;
    ward.is_unharmed(24 * 1024).await;
}

/// W-7: pongs that nobody asked for, and closes on top of closes, are nothing.
#[tokio::test]
async fn pongs_and_closes_without_number_are_swallowed() {
    let mut ward = Ward::start(Options::memory()).await;
    let mut raw = Raw::connect(&ward.node).await;
    raw.upgrade(&ward.node, "/pub/x").await;
    raw.write(&Bits::plain(10).frame(b"unasked", 7).repeat(100_000)).await;
    raw.send(9, b"alive?").await;
    assert_eq!(raw.frame().await, Some(Frame { opcode: 10, payload: b"alive?".to_vec() }));
    raw.write(&Bits::plain(8).frame(&1000_u16.to_be_bytes(), 2).repeat(10_000)).await;
    assert_eq!(raw.end().await, (End::Code(1000), 0));
    assert_eq!(raw.frame().await, None, "one Close is the answer to all");
    ward.closed_by(1000, 1).await;
    ward.is_unharmed(24 * 1024).await;
}
