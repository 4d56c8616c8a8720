//! Sessions from admission to the end of the node.

use crate::client::{CLOSE, PING, PONG, TEXT, frame, within};
use crate::node::Node;
use minium_bus::{Backing, Bus, BusError, Options};
use minium_protocol::ErrorCode;
use std::time::Duration;

const SOON: Duration = Duration::from_millis(100);

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_answers_pings_stays_and_one_that_does_not_is_closed_with_4001() {
    let node = Node::with(Options { ping_interval: SOON, ..Options::default() }).await;
    let mut silent = node.open("/sub/silent").await;
    let mut alive = node.open("/sub/alive").await;
    for _ in 0..6 {
        let (opcode, body) = alive.next().await.unwrap();
        assert_eq!(opcode, PING);
        alive.say(&frame(PONG, &body)).await;
    }
    for _ in 0..2 {
        assert_eq!(silent.next().await, Some((PING, vec![])));
    }
    let (opcode, body) = silent.next().await.unwrap();
    assert_eq!((opcode, &body[..2]), (CLOSE, &4001u16.to_be_bytes()[..]));
    node.publish("alive", "still").await;
    while alive.next().await != Some((TEXT, b"still".to_vec())) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_never_ends_its_side_is_cut() {
    let node = Node::with(Options { linger: SOON, ..Options::default() }).await;
    let mut c = node.open("/sub/c").await;
    c.say(&frame(CLOSE, b"")).await;
    assert_eq!(c.next().await, Some((CLOSE, vec![])));
    // it keeps its socket open and goes on talking
    node.until(|stats| stats.sessions == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_hear_comments_while_nothing_happens() {
    let node = Node::with(Options { comment_interval: SOON, ..Options::default() }).await;
    let mut s = node.sse("quiet", "latest").await;
    s.expect(": ping").await;
    s.expect(": ping").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_says_1001_to_all_and_waits_for_them() {
    let node = Node::start().await;
    let mut clients = Vec::new();
    for n in 0..40 {
        let path = ["sub", "pub", "push", "pull", "bus"][n % 5];
        clients.push(node.open(&format!("/{path}/d/{n}")).await);
    }
    let mut stream = node.sse("d", "latest").await;
    let closing = tokio::spawn({
        let bus = node.bus.clone();
        async move { bus.shutdown(Duration::from_secs(60)).await }
    });
    for mut c in clients {
        assert_eq!(c.closed().await.0, 1001);
    }
    let last = stream.next().await.unwrap();
    assert!(last.starts_with("event: close\n") && last.contains("1001"), "{last}");
    assert_eq!(stream.next().await, None);
    within(closing).await.unwrap();
    assert_eq!(node.bus.stats().sessions, 0);
    let topic = "d".parse().unwrap();
    assert_eq!(node.bus.publish(&topic, "x".into(), None).await.unwrap_err().code, ErrorCode::Unavailable);
    assert_eq!(node.bus.admit().unwrap_err().code, ErrorCode::Unavailable);
    node.bus.shutdown(Duration::ZERO).await; // once more does no harm
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_does_not_wait_longer_than_its_grace_for_who_does_not_answer() {
    let node = Node::start().await;
    let mut c = node.open("/sub/d").await;
    within(node.bus.shutdown(SOON)).await;
    assert_eq!(c.next().await.map(|(opcode, _)| opcode), Some(CLOSE));
    assert_eq!(c.next().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_end_with_the_last_handle() {
    let node = Node::start().await;
    let mut c = node.open("/sub/x").await;
    drop(node);
    while let Some((opcode, _)) = c.next().await {
        assert_eq!(opcode, CLOSE);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_sessions_than_allowed_are_admitted() {
    let node = Node::with(Options { sessions_max: 3, ..Options::default() }).await;
    let (_a, b, _s) = (node.open("/sub/a").await, node.open("/pub/a").await, node.sse("a", "latest").await);
    assert!(node.refused("/sub/a").await.contains("503"));
    assert_eq!(node.bus.admit().unwrap_err().code, ErrorCode::Unavailable);
    b.leave().await;
    node.until(|stats| stats.sessions == 2).await;
    node.open("/sub/a").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bounds_under_which_nothing_works_are_refused() {
    let start = |options| Bus::start(options, Backing::default()).err();
    let none = Options { shards: 0, ..Options::default() };
    assert!(matches!(start(none), Some(BusError::Option { name: "shards", .. })));
    let many = Options { shards: 65, ..Options::default() };
    assert!(start(many).unwrap().to_string().contains("shards is 65"));
}

#[test]
fn a_bus_is_started_on_a_runtime() {
    let started = Bus::start(Options::default(), Backing::default());
    assert!(matches!(started, Err(BusError::NoRuntime)));
}
