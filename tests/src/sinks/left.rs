//! What is left to be told when a sink is gone: it ends, whether another sink is there or none.

use super::{Receiver, SOON, deliveries, done, enqueue, registered, started, webhook};
use crate::support::node::{Node, Options, free_port};
use crate::support::on_both;
use crate::support::wait;
use jiff::Timestamp;
use rustix::process::Signal;
use serde_json::{Value, json};

on_both! {
    /// O-5: nodes without any sink end what is left, once the sink is let go of, and not before.
    what_is_left_ends_where_no_sink_is;
    /// O-5: so do nodes with another sink.
    what_is_left_ends_where_another_sink_is;
}

/// A node with a delivery whose receiver is never there, and which has been tried.
async fn stuck(options: Options) -> Node {
    let sink = webhook("gone", &format!("http://127.0.0.1:{}/", free_port()), "attempts = 100");
    let node = started(options.config(&format!("{SOON}{sink}")), &["gone"]).await;
    enqueue(&node).await;
    wait::until("a delivery to be tried", async || {
        let all = deliveries(&node).await;
        all.iter().any(|job| job["attempt"].as_i64().unwrap() >= 2).then_some(())
    })
    .await;
    node
}

fn assert_ended(job: &Value, node: &Node) {
    assert_eq!(job["state"], "failed", "{job}");
    assert!(job["error"].as_str().unwrap().contains("no node has a sink named \"gone\" any more"), "{job}");
    assert!(node.log().contains("No node has the sink any more"));
}

async fn what_is_left_ends_where_no_sink_is(options: Options) {
    let mut node = stuck(options).await;
    node.reconfigure(SOON);
    assert!(node.end(Signal::TERM).await.success());
    node.restart().await;
    let job = deliveries(&node).await.remove(0);
    assert!(job["state"] != "failed", "the sink is registered, and a node may have it: {job}");
    assert_eq!(node.delete("/api/v1/recorders/sink%2Fgone").await.status, 204);
    assert_ended(&done(&node, 1).await[0], &node);
    wait::until("who has ended it to go", async || {
        let all = node.get("/api/v1/workers").await.expect(200);
        (all["workers"] == json!([])).then_some(())
    })
    .await;
}

async fn what_is_left_ends_where_another_sink_is(options: Options) {
    let mut node = stuck(options).await;
    let receiver = Receiver::good().await;
    node.reconfigure(&format!("{SOON}{}", webhook("other", &receiver.url("/"), "")));
    node.kill().await;
    node.restart().await;
    registered(&node, &["other"]).await;
    wait::until("a node without the sink to put it off", async || {
        let job = deliveries(&node).await.remove(0);
        assert_ne!(job["state"], "failed", "it is registered");
        let time = |member: &str| job[member].as_str()?.parse::<Timestamp>().ok();
        // for far longer than the pause between its attempts
        (time("delayed")?.duration_since(time("retried")?).as_secs() >= 4).then_some(())
    })
    .await;
    assert_eq!(node.delete("/api/v1/recorders/sink%2Fgone").await.status, 204);
    assert_ended(&done(&node, 1).await[0], &node);
}
