//! Sessions and topics by the thousand, come and gone.

use super::{Ward, attack};
use crate::support::node::Options;
use crate::support::raw::{End, Frame, Raw};
use crate::support::wait;

/// B-10: thousands that come and go, half of them without a word, leave nothing.
#[tokio::test]
async fn sessions_that_come_and_go_by_the_thousand_leave_nothing() {
    const ATTACKERS: usize = 4_000;
    const PATHS: [&str; 5] = ["/sub/storm", "/sub/+/x", "/pull/storm", "/bus/storm", "/sub/task"];
    let mut ward = Ward::start(Options::memory()).await;
    attack(&ward.node, ATTACKERS, async |number, mut raw| {
        raw.upgrade(&ward.node, PATHS[number % PATHS.len()]).await;
        if number % 2 == 0 {
            raw.send(8, &1000_u16.to_be_bytes()).await;
            assert_eq!(raw.end().await.0, End::Code(1000));
        }
    })
    .await;
    ward.closed_by(1000, ATTACKERS / 2).await;
    ward.closed_by(1006, ATTACKERS / 2).await;
    // a session that is not forgotten costs a KiB, its task and descriptor aside
    ward.is_unharmed(24 * 1024).await;
}

/// B-10: thousands of topics, each used once, leave nothing either.
#[tokio::test]
async fn topics_that_are_used_once_leave_nothing() {
    const ATTACKERS: usize = 4_000;
    let mut ward = Ward::start(Options::memory()).await;
    let body = vec![b'x'; 8 * 1024];
    attack(&ward.node, ATTACKERS, async |number, mut raw| {
        raw.upgrade(&ward.node, &format!("/bus/storm/{}/{number}?echo=1", "x".repeat(100))).await;
        raw.send(2, &body).await;
        assert_eq!(raw.frame().await, Some(Frame { opcode: 2, payload: body.clone() }));
    })
    .await;
    // 8 KiB of each topic's log would be 32 MiB, and another mode would double them
    ward.is_unharmed(24 * 1024).await;
}

/// B-4: work for nobody on thousands of topics is bounded over all of them together, and the rest is refused.
#[tokio::test]
async fn work_for_nobody_is_bounded_over_all_topics() {
    const ATTACKERS: usize = 4_000;
    const BYTES: usize = 32 * 1024;
    let mut ward = Ward::start(Options::memory()).await;
    let host = ward.node.address().to_string();
    let statuses = attack(&ward.node, ATTACKERS, async |number, mut raw| {
        let head =
            format!("POST /push/storm/{number} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {BYTES}\r\n\r\n");
        raw.write(&[head.as_bytes(), &[b'x'; BYTES]].concat()).await;
        let head = raw.head().await.expect("an answer");
        assert!(head.status == 200 || head.body.contains("\"code\":\"no_puller\""), "{head:?}");
        head.status
    })
    .await;
    let taken = statuses.iter().filter(|s| **s == 200).count();
    // `waiting_total_bytes_max` is 64 MiB; 125 MiB were sent
    assert!((1_000..=2_048).contains(&taken), "{taken} were taken");
    let refused =
        ward.node.metric("minium_bus_messages_dropped_total{channel=\"*\",reason=\"no_puller\"}").await;
    assert_eq!(refused, (ATTACKERS - taken) as f64, "the others are counted");
    // what waits, and as much again for the allocator
    ward.is_unharmed(128 * 1024).await;
}

/// L-3: a storm above the room for sessions is refused with 503, and the room is there again when it is over.
#[tokio::test]
async fn a_storm_beyond_the_room_is_refused() {
    const ROOM: usize = 500;
    let config = format!("[server.limits]\nsessions = {ROOM}\n");
    let mut ward = Ward::start(Options::memory().config(&config)).await;
    for _ in 0..2 {
        let handshake = Raw::handshake(&ward.node, "/sub/storm", "");
        let all = attack(&ward.node, 2 * ROOM, async |_, mut raw| {
            raw.write(handshake.as_bytes()).await;
            (raw.head().await.expect("an answer").status, raw)
        })
        .await;
        let count = |status| all.iter().filter(|(s, _)| *s == status).count();
        // one of the room is the witness's
        assert_eq!((count(101), count(503)), (ROOM - 1, ROOM + 1));
        ward.serves_others().await;
        drop(all);
        wait::until("the room to be free", async || {
            (ward.node.metric("minium_bus_sessions").await == 1.0).then_some(())
        })
        .await;
    }
    ward.is_unharmed(24 * 1024).await;
}
