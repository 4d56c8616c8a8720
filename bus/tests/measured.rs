//! What the bus says about itself. The recorder is the process's, so this test has one of its own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

const TLS: bool = false;

#[path = "../examples/broker/acceptor.rs"]
mod acceptor;
#[path = "bus/certificate.rs"]
mod certificate;
#[path = "bus/client.rs"]
#[allow(dead_code, reason = "shared with the other tests")]
mod client;
#[path = "bus/node.rs"]
#[allow(dead_code, reason = "shared with the other tests")]
mod node;
#[path = "bus/queue.rs"]
#[allow(dead_code, reason = "shared with the other tests")]
mod queue;

use client::within;
use metrics::{
    Counter, CounterFn, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use minium_bus::{Channel, Options};
use minium_protocol::JobOptions;
use node::Node;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

/// Counters by name and labels.
#[derive(Default)]
struct Counters(Mutex<HashMap<String, Arc<Count>>>);

#[derive(Default)]
struct Count(AtomicU64);

impl CounterFn for Count {
    fn increment(&self, value: u64) {
        self.0.fetch_add(value, Relaxed);
    }

    fn absolute(&self, value: u64) {
        self.0.store(value, Relaxed);
    }
}

/// Of a histogram it is counted how often something was recorded.
impl HistogramFn for Count {
    fn record(&self, value: f64) {
        assert!(value >= 0.0, "{value}");
        self.0.fetch_add(1, Relaxed);
    }
}

struct Recording(Arc<Counters>);

impl Recorder for Recording {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let labels: Vec<String> = key.labels().map(|l| format!("{}={}", l.key(), l.value())).collect();
        let name = format!("{}{{{}}}", key.name(), labels.join(","));
        Counter::from_arc(self.0.0.lock().unwrap().entry(name).or_default().clone())
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        let name = key.name().to_owned();
        Histogram::from_arc(self.0.0.lock().unwrap().entry(name).or_default().clone())
    }
}

impl Counters {
    fn get(&self, name: &str) -> u64 {
        self.0.lock().unwrap().get(name).map_or(0, |c| c.0.load(Relaxed))
    }

    async fn reach(&self, name: &str, count: u64) {
        within(async {
            while self.get(name) < count {
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert_eq!(self.get(name), count, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_delivered_refused_and_closed_is_counted() {
    let counters = Arc::new(Counters::default());
    metrics::set_global_recorder(Recording(counters.clone())).unwrap_or_else(|e| panic!("{e}"));
    let channels = vec![Channel::new("ops".parse().unwrap())];
    let node = Node::with_channels(Options::default(), channels).await;
    let mut subscribers = [node.open("/sub/m").await, node.events("/sub/m").await, node.open("/sub/+").await];
    let mut peers = [node.open("/bus/m").await, node.open("/bus/m").await, node.open("/bus/m?echo=1").await];
    let mut puller = node.open("/pull/m").await;
    let mut p = node.open("/pub/m").await;
    for n in 0..100 {
        p.text(&n.to_string()).await;
        for peer in &mut peers {
            peer.text("hello").await;
        }
        node.bus.push(&"m".parse().unwrap(), "work".into(), JobOptions::default()).await.unwrap();
        puller.expect("work").await;
    }
    for s in &mut subscribers {
        for _ in 0..100 {
            s.heard().await;
        }
    }
    for (peer, hears) in peers.iter_mut().zip([200, 200, 300]) {
        for _ in 0..hears {
            peer.expect("hello").await;
        }
    }
    counters.reach("minium_bus_messages_published_total{pattern=sub,channel=*}", 100).await;
    counters.reach("minium_bus_messages_published_total{pattern=bus,channel=*}", 300).await;
    counters.reach("minium_bus_messages_published_total{pattern=push,channel=*}", 100).await;
    counters.reach("minium_bus_messages_delivered_total{channel=*}", 300 + 700 + 100).await;
    // one for a shard's turn, not one for a message and its receivers; pulled messages do not pass the logs
    let deliveries = counters.get("minium_bus_delivery_seconds");
    assert!((1..=2 * 400).contains(&deliveries), "{deliveries}");
    let mut refused = node.open("/pub/task").await;
    refused.text("{}").await;
    refused.heard().await;
    counters.reach("minium_bus_messages_dropped_total{channel=task,reason=forbidden}", 1).await;
    p.leave().await;
    counters.reach("minium_bus_sessions_closed_total{code=1000}", 1).await;
    drop(puller);
    counters.reach("minium_bus_sessions_closed_total{code=1006}", 1).await;
    of_channels(&node, &counters).await;
    let names: Vec<String> = counters.0.lock().unwrap().keys().cloned().collect();
    let bounded = |name: &String| !name.contains("=m") && !name.contains("ops/");
    assert!(names.iter().all(bounded), "a label holds a topic: {names:?}");
}

/// Topics are counted by the channel that governs them; who follows several at once is counted for none.
async fn of_channels(node: &Node, counters: &Counters) {
    let before = counters.get("minium_bus_messages_delivered_total{channel=*}");
    let mut below = node.open("/sub/ops/7").await;
    let mut all = node.open("/sub/ops").await;
    let mut both = node.v1("/ws").await;
    both.text(r#"{"op":"sub","topic":"ops"}"#).await;
    both.heard().await;
    both.text(r#"{"op":"sub","topic":"elsewhere"}"#).await;
    both.heard().await;
    let mut puller = node.open("/pull/ops/work").await;
    for _ in 0..10 {
        node.publish("ops/7", "{}").await;
        below.heard().await;
        all.heard().await;
        both.heard().await;
    }
    node.bus.push(&"ops/work".parse().unwrap(), "work".into(), JobOptions::default()).await.unwrap();
    puller.expect("work").await;
    counters.reach("minium_bus_messages_published_total{pattern=sub,channel=ops}", 10).await;
    counters.reach("minium_bus_messages_published_total{pattern=push,channel=ops}", 1).await;
    counters.reach("minium_bus_messages_delivered_total{channel=ops}", 20 + 1).await;
    // and who follows everything
    counters.reach("minium_bus_messages_delivered_total{channel=*}", before + 20).await;
}
