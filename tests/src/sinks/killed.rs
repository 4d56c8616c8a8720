//! Nodes that are killed, and nodes beside each other: each event is told, by one job.

use super::{Heard, Receiver, SOON, done, registered, started, webhook};
use crate::support::node::{Node, Options};
use crate::support::on_both;
use crate::support::postgres::Database;
use crate::support::wait;
use serde_json::{Value, json};
use std::collections::BTreeSet;

on_both! {
    /// O-2: killed between reading, enqueueing, confirming and sending.
    a_node_that_is_killed_tells_every_event_by_one_job;
}

/// So many jobs, of which each has one event.
const JOBS: usize = 200;

async fn enqueue_many(node: &Node, count: usize) -> BTreeSet<i64> {
    let jobs: Vec<Value> = (0..count).map(|n| json!({ "task": "import", "args": [n] })).collect();
    let ids = node.post_json("/api/v1/jobs", &Value::from(jobs)).await.expect(201)["ids"].clone();
    ids.as_array().unwrap().iter().map(|id| id.as_i64().unwrap()).collect()
}

fn told(heard: &[Heard]) -> BTreeSet<i64> {
    heard.iter().map(|one| one.json()["data"]["id"].as_i64().unwrap()).collect()
}

async fn a_node_that_is_killed_tells_every_event_by_one_job(options: Options) {
    let receiver = Receiver::good().await;
    let config = format!("{SOON}{}", webhook("ops", &receiver.url("/"), ""));
    let node = started(options.config(&config), &["ops"]).await;
    let mut jobs = enqueue_many(&node, JOBS).await;
    for kill in 1..=3 {
        receiver.events(40 * kill).await;
        node.kill().await;
        node.restart().await;
        jobs.extend(enqueue_many(&node, 20).await);
    }
    let heard = receiver.events(jobs.len()).await;
    assert_eq!(told(&heard), jobs);
    let made = done(&node, jobs.len()).await;
    assert_eq!(made.len(), jobs.len(), "one job for each event");
    let ids: BTreeSet<String> = heard.iter().map(Heard::id).collect();
    assert_eq!(ids.len(), jobs.len());
}

/// O-2: two nodes follow one journal, one at a time; the other takes over.
#[tokio::test]
async fn nodes_beside_each_other_make_one_job_for_each_event() {
    let database = Database::create().await;
    let receiver = Receiver::good().await;
    let config = format!("{SOON}{}", webhook("ops", &receiver.url("/"), ""));
    let options = Options::on(database.url()).config(&config);
    let (first, second) = (started(options.clone(), &["ops"]).await, Node::start(options).await);
    let mut jobs = enqueue_many(&first, 50).await;
    jobs.extend(enqueue_many(&second, 50).await);
    receiver.events(100).await;
    first.kill().await;
    jobs.extend(enqueue_many(&second, 50).await);
    let heard = receiver.events(150).await;
    assert_eq!(told(&heard), jobs);
    assert_eq!(done(&second, 150).await.len(), 150);
    // the first is back, and the second goes: nothing is told again
    first.restart().await;
    registered(&first, &["ops"]).await;
    second.kill().await;
    jobs.extend(enqueue_many(&first, 10).await);
    assert_eq!(told(&receiver.events(160).await), jobs);
    assert_eq!(done(&first, 160).await.len(), 160);
    wait::until("all to be confirmed", async || {
        let all = first.get("/api/v1/recorders").await.expect(200);
        let last = all["position"].as_str()?.split_once(':')?.1.parse::<u64>().ok()?;
        (all["recorders"][0]["offset"].as_u64()? >= last).then_some(())
    })
    .await;
}
