//! Sinks that nobody follows, since somebody else has their lock: what they have not had is kept, and said.

use super::{Receiver, done, enqueue, registered, started, webhook};
use crate::support::node::{Node, Options};
use crate::support::on_both;
use crate::support::wait;
use rustix::process::Signal;
use serde_json::json;

on_both! {
    /// How far a sink is behind is told although no node follows it.
    a_sink_that_nobody_follows_says_how_far_it_is_behind;
    /// O-5: retention waits for a sink that is behind, and for no longer.
    what_a_sink_has_not_had_is_kept;
}

const LOCK: &str = "/api/v1/locks/minium%2Fsink%2Fops";

/// A node whose sink is known and whose lock an operator has.
async fn held_back(options: Options, rest: &str, receiver: &Receiver) -> Node {
    let with = format!("{rest}{}", webhook("ops", &receiver.url("/"), ""));
    let mut node = started(options.config(&with), &["ops"]).await;
    anew(&mut node, rest).await;
    node.post_json(LOCK, &json!({ "owner": "an operator", "for": "1h" })).await.expect(201);
    anew(&mut node, &with).await;
    registered(&node, &["ops"]).await;
    node
}

/// Ends the node in order, which lets go of its lock, and starts it with another configuration.
async fn anew(node: &mut Node, config: &str) {
    node.reconfigure(config);
    assert!(node.end(Signal::TERM).await.success());
    node.restart().await;
}

async fn lag(node: &Node) -> f64 {
    node.metric("minium_sinks_lag_seconds").await
}

async fn a_sink_that_nobody_follows_says_how_far_it_is_behind(options: Options) {
    let receiver = Receiver::good().await;
    let node = held_back(options, "", &receiver).await;
    enqueue(&node).await;
    wait::until("the sink to be behind", async || (lag(&node).await > 0.0).then_some(())).await;
    assert!(receiver.heard().is_empty(), "the operator has the lock");
    node.delete(LOCK).await.expect(200);
    receiver.events(1).await;
    wait::until("the sink to have caught up", async || (lag(&node).await == 0.0).then_some(())).await;
}

/// So many events, and so many are kept of each channel.
const EVENTS: usize = 20;
const KEPT: usize = 5;

async fn what_a_sink_has_not_had_is_kept(options: Options) {
    let receiver = Receiver::good().await;
    let few = format!("retention = {{ count = {KEPT} }}\n");
    let config = format!("[channels.task]\n{few}[channels.other]\ndurable = true\n{few}");
    let node = held_back(options, &config, &receiver).await;
    for n in 0..EVENTS {
        enqueue(&node).await;
        node.post("/pub/other", json!({ "n": n }).to_string()).await;
    }
    let kept = async |topic: &str| {
        let text = node.get(&format!("/history/{topic}")).await;
        text.text().matches("\"specversion\"").count()
    };
    // rounds of retention are made meanwhile: nobody follows this one
    wait::until("the other channel to be trimmed", async || (kept("other").await == KEPT).then_some(()))
        .await;
    assert_eq!(kept("task/import").await, EVENTS);
    node.delete(LOCK).await.expect(200);
    receiver.events(EVENTS).await;
    assert_eq!(done(&node, EVENTS).await.len(), EVENTS);
    wait::until("what the sink has had to go", async || (kept("task/import").await <= KEPT).then_some(()))
        .await;
}
