//! `/bus`: everyone gets what the others send.

use crate::client::{BINARY, frame};
use crate::node::Node;

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_gets_what_the_others_send_in_order_and_never_its_own() {
    const EACH: usize = 300;
    let node = Node::start().await;
    let mut peers = Vec::new();
    for n in 0..6 {
        let mode = if n == 5 { "cloudevents.json" } else { "" };
        peers.push(node.open_as("/bus/room", mode, None).await);
    }
    let mut child = node.open("/bus/room/child").await;
    for i in 0..EACH {
        for (n, peer) in peers.iter_mut().enumerate().take(5) {
            peer.text(&format!("{n} {i}")).await;
        }
    }
    for (me, peer) in peers.iter_mut().enumerate() {
        let mut next = [0; 5];
        let others = if me == 5 { 5 } else { 4 };
        for _ in 0..others * EACH {
            let text = match me {
                5 => peer.json().await["data"].as_str().unwrap().to_owned(),
                _ => peer.heard().await,
            };
            let (from, i) = text.split_once(' ').unwrap();
            let from: usize = from.parse().unwrap();
            assert_ne!(from, me);
            assert_eq!(i.parse(), Ok(next[from]));
            next[from] += 1;
        }
        peer.nothing_else().await;
    }
    child.nothing_else().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_echo_a_peer_gets_its_own_too_among_the_others_in_order() {
    let node = Node::start().await;
    let mut echo = node.open("/bus/e?echo=1").await;
    let mut none = node.open("/bus/e?echo=0").await;
    let mut other = node.open("/bus/e").await;
    for n in 0..100 {
        echo.text(&format!("mine {n}")).await;
    }
    for n in 0..100 {
        echo.expect(&format!("mine {n}")).await;
        other.expect(&format!("mine {n}")).await;
        none.expect(&format!("mine {n}")).await;
    }
    none.text("theirs").await;
    echo.expect("theirs").await;
    other.expect("theirs").await;
    none.nothing_else().await;
    echo.say(&frame(BINARY, &[1])).await;
    assert_eq!(echo.next().await, Some((BINARY, vec![1])));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_post_reaches_all_peers() {
    let node = Node::start().await;
    let mut peers =
        [node.open("/bus/post").await, node.open("/bus/post?echo=1").await, node.open("/bus/post").await];
    node.bus.send(&"post".parse().unwrap(), "[42,\"finished\"]".into()).await.unwrap();
    for p in &mut peers {
        p.expect("[42,\"finished\"]").await;
        p.nothing_else().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_breaks_the_schema_is_told_alone() {
    let node = Node::start().await;
    node.schema("bus/strict.json", r#"{"type":"array"}"#);
    let (mut a, mut b) = (node.open("/bus/strict?echo=1").await, node.open("/bus/strict").await);
    a.text("{}").await;
    assert_eq!(a.json().await["problem"]["code"], "schema_violation");
    a.text("[]").await;
    a.expect("[]").await;
    b.expect("[]").await;
}
