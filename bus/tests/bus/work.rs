//! Push and pull: strict turns, a bounded wait, nothing lost in silence.

use crate::client::{BINARY, Client, frame};
use crate::node::Node;
use minium_bus::{Message, Options};
use minium_protocol::{ErrorCode, JobOptions};

async fn push(node: &Node, topic: &str, text: String) -> Result<(), ErrorCode> {
    let pushed = node.bus.push(&topic.parse().unwrap(), Message::from(text), JobOptions::default()).await;
    pushed.map(drop).map_err(|p| p.code)
}

#[tokio::test(flavor = "multi_thread")]
async fn work_goes_round_in_order_of_joining_across_shards() {
    let node = Node::start().await;
    // three pullers on two shards
    let mut pullers = [node.open("/pull/w").await, node.open("/pull/w").await, node.open("/pull/w").await];
    let (mut child, mut sub) = (node.open("/pull/w/child").await, node.open("/sub/w").await);
    let mut pusher = node.open("/push/w").await;
    for n in 0..7 {
        pusher.text(&n.to_string()).await;
    }
    for (p, got) in pullers.iter_mut().zip([&["0", "3", "6"][..], &["1", "4"], &["2", "5"]]) {
        for text in got {
            p.expect(text).await;
        }
        p.nothing_else().await;
    }
    child.nothing_else().await;
    sub.nothing_else().await;
    // all pushers share the turns, POST too
    push(&node, "w", "7".into()).await.unwrap();
    pullers[1].expect("7").await;
    pusher.say(&frame(BINARY, &[8])).await;
    assert_eq!(pullers[2].next().await, Some((BINARY, vec![8])));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_turn_is_passed_on_when_whose_it_was_leaves() {
    let node = Node::start().await;
    let (mut a, mut b) = (node.open("/pull/t").await, node.open("/pull/t").await);
    let mut p = node.open("/push/t").await;
    p.text("to a").await;
    a.expect("to a").await;
    a.leave().await;
    for n in 0..3 {
        p.text(&n.to_string()).await;
        b.expect(&n.to_string()).await;
    }
    p.nothing_else().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_pulls_waits_and_goes_to_the_first_who_comes() {
    let node = Node::with(Options { waiting_count_max: 3, ..Options::default() }).await;
    let mut p = node.open("/push/q").await;
    for n in 0..5 {
        p.text(&n.to_string()).await;
    }
    for _ in 3..5 {
        let problem = p.json().await;
        assert_eq!(problem["problem"]["code"], "no_puller");
        assert_eq!(problem["problem"]["retryable"], true);
    }
    assert_eq!(push(&node, "q", "x".into()).await, Err(ErrorCode::NoPuller));
    let mut puller = node.open("/pull/q").await;
    for n in 0..3 {
        puller.expect(&n.to_string()).await;
    }
    p.text("after").await;
    puller.expect("after").await;
    p.nothing_else().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_bounded_in_bytes_too() {
    let node = Node::with(Options { waiting_bytes_max: 1_000, ..Options::default() }).await;
    assert_eq!(push(&node, "b", "x".repeat(900)).await, Ok(()));
    assert_eq!(push(&node, "b", "x".repeat(900)).await, Err(ErrorCode::NoPuller));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_puller_that_takes_nothing_is_passed_by() {
    let node = Node::with(Options { puller_bytes_max: 64 << 10, ..Options::default() }).await;
    let _stalled = node.narrow("/pull/s").await;
    let mut quick = node.open("/pull/s").await;
    let body = "x".repeat(10_000);
    // more than the kernel holds for the stalled one
    let pushing = async {
        for n in 0.. {
            push(&node, "s", format!("{n} {body}")).await.unwrap();
        }
    };
    let pulling = async {
        let (mut last, mut in_a_row) = (None, 0);
        while in_a_row < 1_000 {
            let text = quick.heard().await;
            let n: usize = text.split_once(' ').unwrap().0.parse().unwrap();
            in_a_row = if last == Some(n.wrapping_sub(1)) { in_a_row + 1 } else { 0 };
            assert!(last.is_none_or(|l| l < n));
            last = Some(n);
        }
    };
    tokio::select! { () = pulling => {}, () = pushing => {} }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pusher_that_is_too_fast_is_slowed_and_nothing_is_lost() {
    const COUNT: usize = 30_000;
    let node =
        Node::with(Options { puller_bytes_max: 16 << 10, waiting_bytes_max: 16 << 10, ..Options::default() })
            .await;
    let mut pullers = [node.narrow("/pull/fast").await, node.narrow("/pull/fast").await];
    let mut p = node.open("/push/fast").await;
    let sending = tokio::spawn(async move {
        for n in 0..COUNT {
            p.text(&format!("{n} {}", "y".repeat(n % 200))).await;
        }
        p.nothing_else().await; // above all no refusal
    });
    let mut got = vec![false; COUNT];
    let [a, b] = &mut pullers;
    async fn number(c: &mut Client) -> usize {
        c.heard().await.split_once(' ').unwrap().0.parse().unwrap()
    }
    for _ in 0..COUNT {
        let n = tokio::select! { n = number(a) => n, n = number(b) => n };
        assert!(!std::mem::replace(&mut got[n], true), "{n} came twice");
    }
    sending.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_a_puller_had_not_begun_to_receive_goes_to_another() {
    let node = Node::with(Options { puller_bytes_max: 8 << 20, ..Options::default() }).await;
    let stalled = node.narrow("/pull/g").await;
    let body = "z".repeat(10_000);
    for n in 0..700 {
        push(&node, "g", format!("{n} {body}")).await.unwrap();
    }
    let mut other = node.open("/pull/g").await;
    drop(stalled);
    // what the kernel had taken is gone with its socket; the end of the queue was the bus's
    let mut last = None;
    while last != Some(699) {
        let n: usize = other.heard().await.split_once(' ').unwrap().0.parse().unwrap();
        assert!(last.is_none_or(|l| l < n));
        last = Some(n);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pushed_work_is_judged_by_its_schema_and_told_in_the_pullers_mode() {
    let node = Node::start().await;
    node.schema("push/strict.json", r#"{"type":"object"}"#);
    let mut puller = node.events("/pull/strict").await;
    let mut p = node.open("/push/strict").await;
    p.text("[]").await;
    assert_eq!(p.json().await["problem"]["code"], "schema_violation");
    p.text(r#"{"a":1}"#).await;
    let e = puller.json().await;
    assert_eq!((&e["data"]["a"], &e["subject"]), (&1.into(), &"strict".into()));
    assert_eq!(push(&node, "strict", "x".into()).await, Err(ErrorCode::InvalidJson));
}
