//! Frames that break the rules, or keep them and never end.

use super::{Ward, attack};
use crate::support::node::Options;
use crate::support::raw::{Bits, End, Frame, Raw};

/// The default of `server.limits.message_bytes`.
const MESSAGE_BYTES_MAX: usize = 262_144;

/// W-8, W-20: frames that break RFC 6455 end their session with 1002, one by one, and each is counted.
#[tokio::test]
async fn frames_that_break_the_rules_by_the_hundred() {
    const EACH: usize = 100;
    let mut ward = Ward::start(Options::memory()).await;
    let plain = Bits::plain(2);
    let kinds = [
        ("compressed, though nothing was agreed on", Bits { reserved: 4, ..plain }.frame(&[0x4a; 100], 100)),
        ("reserved bit 2", Bits { reserved: 2, ..plain }.frame(b"x", 1)),
        ("without a mask", Bits { masked: false, ..plain }.frame(b"x", 1)),
        ("a ping of 60 KiB", Bits::plain(9).frame(&[0; 60_000], 60_000)),
        ("a close of 126 bytes", Bits::plain(8).frame(&[3; 126], 126)),
        ("a ping without end", Bits { fin: false, ..Bits::plain(9) }.frame(b"", 0)),
    ];
    for (name, bytes) in &kinds {
        let ends = attack(&ward.node, EACH, async |_, mut raw| {
            raw.upgrade(&ward.node, "/pub/witness").await;
            raw.write(bytes).await;
            raw.end().await
        })
        .await;
        assert_eq!(ends, vec![(End::Code(1002), 0); EACH], "{name}");
    }
    ward.closed_by(1002, kinds.len() * EACH).await;
    ward.is_unharmed(24 * 1024).await;
}

/// W-9: a claim of 1 TiB is answered by 1009 at once, and nothing is set aside for it.
#[tokio::test]
async fn claims_of_a_tebibyte_cost_nothing() {
    const ATTACKERS: usize = 500;
    let mut ward = Ward::start(Options::memory()).await;
    let bytes = Bits::plain(2).frame(&[0; 64 * 1024], 1 << 40);
    for path in ["/pub/witness", "/sub/x"] {
        let ends = attack(&ward.node, ATTACKERS, async |_, mut raw| {
            raw.upgrade(&ward.node, path).await;
            raw.write(&bytes).await;
            raw.end().await
        })
        .await;
        assert_eq!(ends, vec![(End::Code(1009), 0); ATTACKERS], "{path}");
    }
    ward.closed_by(1009, 2 * ATTACKERS).await;
    ward.is_unharmed(32 * 1024).await;
}

/// W-7, W-9: a message in a hundred thousand empty pieces is one message; one in too many pieces is too big.
#[tokio::test]
async fn fragments_without_number_are_one_message_or_too_big() {
    let mut ward = Ward::start(Options::memory()).await;
    let piece = |opcode, fin, payload: &[u8]| {
        Bits { fin, ..Bits::plain(opcode) }.frame(payload, payload.len() as u64)
    };
    let mut patient = Raw::connect(&ward.node).await;
    patient.upgrade(&ward.node, "/bus/pieces?echo=1").await;
    let empty = [piece(2, false, b"a"), piece(0, false, b"").repeat(100_000), piece(0, true, b"z")].concat();
    patient.write(&empty).await;
    assert_eq!(patient.frame().await, Some(Frame { opcode: 2, payload: b"az".to_vec() }));
    patient.send(8, &1000_u16.to_be_bytes()).await;
    assert_eq!(patient.end().await, (End::Code(1000), 0));

    let endless = [piece(2, false, b"x"), piece(0, false, b"x").repeat(MESSAGE_BYTES_MAX)].concat();
    let ends = attack(&ward.node, 20, async |_, mut raw| {
        raw.upgrade(&ward.node, "/pub/witness").await;
        raw.write(&endless).await;
        raw.end().await
    })
    .await;
    assert_eq!(ends, vec![(End::Code(1009), 0); 20]);
    ward.closed_by(1009, 20).await;
    ward.is_unharmed(32 * 1024).await;
}

/// B-10, W-7: thousands of messages that were begun and never ended cost what was sent of them, and nothing when their
/// senders are gone.
#[tokio::test]
async fn unfinished_messages_by_the_thousand_are_forgotten() {
    const ATTACKERS: usize = 3_000;
    let mut ward = Ward::start(Options::memory()).await;
    let begun = Bits { fin: false, ..Bits::plain(1) }.frame(&[b'x'; 1_024], 1_024);
    let half = &Bits::plain(1).frame(&[b'x'; 1_024], 1_024)[..512];
    let begin = async |number, mut raw: Raw| {
        raw.upgrade(&ward.node, "/pub/witness").await;
        raw.write(if number % 2 == 0 { &begun } else { half }).await;
        raw
    };
    let open = attack(&ward.node, ATTACKERS, begin).await;
    assert_eq!(ward.node.metric("minium_bus_sessions").await, ATTACKERS as f64 + 1.0);
    // 8 KiB for each: what it sent, its reader, its session
    ward.has_not_grown(8 * ATTACKERS as u64 + 8 * 1024);
    ward.serves_others().await;
    drop(open);
    ward.closed_by(1006, ATTACKERS).await;
    ward.is_unharmed(8 * ATTACKERS as u64 + 8 * 1024).await;
}
