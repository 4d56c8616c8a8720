//! Durable push/pull: jobs over `minium.v1`, and over plain sockets with and without acknowledgement.

use crate::client::{Client, within};
use crate::node::Node;
use minium_bus::{Channel, Options};
use minium_protocol::JobOptions;
use serde_json::{Value, json};
use std::time::Duration;

async fn start() -> Node {
    start_with(Options::default()).await
}

async fn start_with(options: Options) -> Node {
    Node::with_channels(options, vec![Channel::durable("work".parse().unwrap())]).await
}

/// For pullers that get far more than the kernel takes.
fn roomy() -> Options {
    Options { puller_bytes_max: 1 << 30, ..Options::default() }
}

async fn ask(c: &mut Client, frame: Value) -> Value {
    c.text(&frame.to_string()).await;
    c.json().await
}

async fn push(node: &Node, data: &str) -> Option<i64> {
    let pushed = node.bus.push(&"work".parse().unwrap(), data.to_owned().into(), JobOptions::default()).await;
    pushed.unwrap()
}

/// Gives credit for so many large jobs, and pushes them: far more than its bound and the kernel take together.
async fn ask_and_flood(node: &Node, c: &mut Client, jobs: i64) {
    let pull = json!({"op":"pull","topic":"work","credit":jobs});
    assert_eq!(ask(c, pull).await, json!({"op":"ok"}));
    let data = format!("\"{}\"", "x".repeat(200_000));
    for _ in 0..jobs {
        push(node, &data).await;
    }
}

async fn until_ended(node: &Node, count: usize) -> Vec<(i64, String)> {
    within(async {
        while node.queue.ended().len() < count {
            tokio::task::yield_now().await;
        }
    })
    .await;
    node.queue.ended()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_pushed_becomes_a_job_that_a_puller_with_credit_gets_and_ends() {
    let node = start().await;
    let mut pusher = node.v1("/push/work").await;
    assert_eq!(
        ask(&mut pusher, json!({"op":"push","data":{"a":1},"ref":"p"})).await,
        json!({"op":"ok","ref":"p","job":1})
    );
    let mut c = node.v1("/ws").await;
    let pull = json!({"op":"pull","topic":"work","credit":2,"ref":"c"});
    assert_eq!(ask(&mut c, pull.clone()).await, json!({"op":"ok","ref":"c"}));
    let job = c.json().await;
    assert_eq!((&job["op"], &job["topic"], &job["job"]["id"]), (&json!("job"), &json!("work"), &json!(1)));
    assert!(job["lease_expires"].is_string());
    for _ in 0..3 {
        push(&node, "[]").await;
    }
    let second = c.json().await;
    c.nothing_else().await; // its credit is used up
    let lease = &job["lease"];
    let note = json!({"op":"note","job":1,"lease":lease,"notes":{"step":"one"},"ref":"n"});
    assert!(ask(&mut c, note).await["lease_expires"].is_string());
    assert!(ask(&mut c, json!({"op":"extend","job":1,"lease":lease})).await["lease_expires"].is_string());
    let ack = json!({"op":"ack","job":1,"lease":lease,"result":{"rows":7},"ref":"a"});
    assert_eq!(ask(&mut c, ack.clone()).await, json!({"op":"ok","ref":"a"}));
    assert_eq!(ask(&mut c, ack).await["problem"]["code"], "lease_lost");
    let nack = json!({"op":"nack","job":2,"lease":second["lease"],"error":"broken","retry":false});
    assert_eq!(ask(&mut c, nack).await, json!({"op":"ok"}));
    assert_eq!(node.queue.ended(), [(1, r#"ack {"rows":7}"#.into()), (2, "nack broken false".into())]);
    assert_eq!(ask(&mut c, pull).await, json!({"op":"ok","ref":"c"}));
    assert_eq!(
        (c.json().await["job"]["id"].as_i64(), c.json().await["job"]["id"].as_i64()),
        (Some(3), Some(4))
    );
    node.queue.cancel(3);
    assert_eq!(c.json().await, json!({"op":"cancel","job":3}));
    node.queue.take_away(4);
    let late = json!({"op":"ack","job":4,"lease":second["lease"]});
    assert_eq!(ask(&mut c, late).await["problem"]["code"], "lease_lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_pulls_its_own_channel_and_more() {
    let work = |name: &str| Channel::durable(name.parse().unwrap());
    let node = Node::with_channels(Options::default(), vec![work("livesys"), work("common")]).await;
    let mut c = node.v1("/ws").await;
    let pull = json!({"op":"pull","topic":"livesys/7","tasks":["common"],"credit":5});
    assert_eq!(ask(&mut c, pull).await, json!({"op":"ok"}));
    for topic in ["livesys/8", "common", "livesys/7"] {
        node.bus.push(&topic.parse().unwrap(), "{}".into(), JobOptions::default()).await.unwrap();
    }
    assert_eq!(
        (c.json().await["topic"].as_str(), c.json().await["topic"].as_str()),
        (Some("common"), Some("livesys/7"))
    );
    let mixed = json!({"op":"pull","topic":"livesys/7","tasks":["free"]});
    assert_eq!(ask(&mut c, mixed).await["problem"]["code"], "invalid_request");
    assert_eq!(node.queue.credit(), 3);
    c.leave().await;
    node.until(|s| s.sessions == 0).await;
    assert_eq!(node.queue.credit(), 0, "who left still pulls");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_away_is_told_and_the_word_may_be_said_again() {
    let node = start().await;
    push(&node, "1").await;
    let mut c = node.v1("/pull/work").await;
    assert_eq!(c.json().await, json!({"op":"ok"}));
    let job = c.json().await;
    node.queue.set_away(true);
    let ack = json!({"op":"ack","job":1,"lease":job["lease"]});
    assert_eq!(ask(&mut c, ack.clone()).await["problem"]["code"], "unavailable");
    assert_eq!(ask(&mut c, json!({"op":"push","data":1})).await["problem"]["code"], "unavailable");
    node.queue.set_away(false);
    assert_eq!(ask(&mut c, ack).await, json!({"op":"ok"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_puller_acknowledges_one_job_at_a_time() {
    let node = start().await;
    for n in 1..=3 {
        push(&node, &n.to_string()).await;
    }
    let mut c = node.open("/pull/work?ack=1").await;
    let first = c.json().await;
    assert_eq!((&first["job"], &first["data"]), (&json!(1), &json!(1)));
    c.nothing_else().await;
    c.text("what?").await;
    assert_eq!(c.json().await["problem"]["code"], "invalid_request");
    c.text(&json!({"ack":1,"lease":first["lease"],"result":"done"}).to_string()).await;
    let second = c.json().await;
    assert_eq!(second["job"], 2);
    c.text(&json!({"nack":2,"lease":second["lease"],"error":"no"}).to_string()).await;
    assert_eq!(c.json().await["job"], 3);
    c.text(&json!({"ack":1,"lease":first["lease"]}).to_string()).await;
    assert_eq!(c.json().await["problem"]["code"], "lease_lost");
    assert_eq!(node.queue.ended(), [(1, "ack \"done\"".into()), (2, "nack no true".into())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_acknowledgement_written_is_done() {
    let node = start().await;
    let mut c = node.open("/pull/work").await;
    let mut p = node.open("/push/work").await;
    for n in 0..200 {
        p.text(&n.to_string()).await;
    }
    for n in 0..200 {
        c.expect(&n.to_string()).await;
    }
    let ended = until_ended(&node, 200).await;
    assert!(ended.iter().all(|(_, how)| how == "ack null"), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_counts_even_when_the_queue_was_away_or_the_puller_left() {
    let node = start().await;
    let mut c = node.open("/pull/work").await;
    node.queue.set_away_for_words(1);
    push(&node, "1").await;
    c.expect("1").await;
    assert_eq!(until_ended(&node, 1).await, [(1, "ack null".into())]);
    c.nothing_else().await; // it was told nothing of that
    push(&node, "2").await;
    c.expect("2").await;
    c.leave().await;
    until_ended(&node, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn so_many_different_orders_and_more_credit_for_each() {
    let node = Node::with_channels(
        Options { session_pulls_max: 2, ..Options::default() },
        vec![Channel::durable("work".parse().unwrap())],
    )
    .await;
    let mut c = node.v1("/ws").await;
    for topic in ["work/1", "work/2", "work/1"] {
        assert_eq!(ask(&mut c, json!({"op":"pull","topic":topic})).await, json!({"op":"ok"}));
    }
    assert_eq!(
        ask(&mut c, json!({"op":"pull","topic":"work/3"})).await["problem"]["code"],
        "invalid_request"
    );
    assert_eq!(node.queue.credit(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_queue_durable_work_is_unavailable() {
    let node = Node::without_queue(vec![Channel::durable("work".parse().unwrap())]).await;
    let mut c = node.v1("/ws").await;
    let answer = ask(&mut c, json!({"op":"pull","topic":"work"})).await;
    assert_eq!(answer["problem"]["code"], "unavailable");
    let mut plain = node.open("/pull/work").await;
    assert_eq!(plain.json().await["problem"]["code"], "unavailable");
    assert_eq!(plain.closed().await.0, 1013);
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_a_session_never_began_to_write_are_given_back_when_it_ends() {
    const JOBS: i64 = 200;
    let node = start_with(roomy()).await;
    let mut c = node.v1_narrow("/ws").await;
    let pull = json!({"op":"pull","topic":"work","credit":JOBS});
    assert_eq!(ask(&mut c, pull).await, json!({"op":"ok"}));
    let data = format!("\"{}\"", "x".repeat(200_000));
    let mut got = 0;
    for _ in 0..JOBS {
        push(&node, &data).await;
    }
    while got < 3 {
        assert_eq!(c.json().await["op"], "job");
        got += 1;
    }
    drop(c);
    let last = within(async {
        loop {
            let returned = node.queue.returned();
            if !returned.is_empty() {
                break returned;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    let first = last[0];
    assert!(first > 3, "what was written stays with who may have read it");
    assert_eq!(last, (first..=JOBS).collect::<Vec<_>>(), "and all behind comes back, in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_cancelled_before_it_was_seen_is_never_heard_of_and_gives_its_credit_back() {
    const JOBS: i64 = 100;
    let node = start_with(roomy()).await;
    let mut c = node.v1_narrow("/ws").await;
    ask_and_flood(&node, &mut c, JOBS).await;
    assert_eq!(c.json().await["job"]["id"], 1);
    node.queue.cancel(JOBS);
    push(&node, "1").await;
    for id in (2..JOBS).chain([JOBS + 1]) {
        let job = c.json().await;
        assert_eq!((&job["op"], &job["job"]["id"]), (&json!("job"), &json!(id)));
    }
    c.nothing_else().await;
    assert_eq!(node.queue.credit(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_credit_of_a_job_that_was_never_seen_comes_back_to_the_queue_it_was_claimed_from() {
    const JOBS: i64 = 100;
    let node = start_with(roomy()).await;
    let mut c = node.v1_narrow("/ws").await;
    // the first takes one job; all others are of the second
    for (queue, credit) in [("a", 1), ("b", JOBS)] {
        let pull = json!({"op":"pull","topic":"work","queue":queue,"credit":credit});
        assert_eq!(ask(&mut c, pull).await, json!({"op":"ok"}));
    }
    // far more than the kernel takes
    let data = format!("\"{}\"", "x".repeat(200_000));
    for _ in 0..=JOBS {
        push(&node, &data).await;
    }
    assert_eq!(c.json().await["job"]["id"], 1);
    node.queue.cancel(JOBS + 1);
    for id in 2..=JOBS {
        assert_eq!(c.json().await["job"]["id"], id);
    }
    c.nothing_else().await;
    assert_eq!((node.queue.credit_of("a"), node.queue.credit_of("b")), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_gets_no_more_than_its_bound_and_all_of_it_later() {
    const JOBS: i64 = 200;
    let node = start().await;
    let mut c = node.v1_narrow("/ws").await;
    ask_and_flood(&node, &mut c, JOBS).await;
    assert!(node.queue.waiting() > 100, "{} wait", node.queue.waiting());
    for id in 1..=JOBS {
        assert_eq!(c.json().await["job"]["id"], id);
    }
    assert_eq!((node.queue.waiting(), node.queue.credit()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_lease_is_over_when_its_turn_comes_is_given_back() {
    let channel = Channel { lease: Duration::ZERO, ..Channel::durable("work".parse().unwrap()) };
    let node = Node::with_channels(Options::default(), vec![channel]).await;
    let mut c = node.v1("/ws").await;
    assert_eq!(ask(&mut c, json!({"op":"pull","topic":"work"})).await, json!({"op":"ok"}));
    push(&node, "1").await;
    within(async {
        while node.queue.returned() != [1] {
            tokio::task::yield_now().await;
        }
    })
    .await;
    c.nothing_else().await;
    assert_eq!(node.queue.credit(), 1, "it may get another");
}
