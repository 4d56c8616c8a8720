//! What survives when processes are killed: the node, one of several nodes, a worker, the database. After each kill, nothing that was
//! acknowledged may be missing, and nobody may hear anything twice.

mod database;
mod nodes;
mod serve;
mod worker;

use crate::support::node::Node;
use crate::support::{events::TaskEvent, wait};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Mutex;

/// The task of the job that ends a test.
const LAST_TASK: &str = "last";

/// Enqueues jobs until it is told to stop, through kills and outages, and remembers what was acknowledged.
#[derive(Debug, Default)]
pub(crate) struct Enqueuer {
    pub(crate) acknowledged: Mutex<Vec<i64>>,
}

impl Enqueuer {
    /// Enqueues batches of 10 jobs, one after the other, until `done`.
    pub(crate) async fn run(&self, node: &Node, task: &str, done: impl Fn() -> bool) {
        self.run_batches(node, task, 10, done).await;
    }

    /// The same with `count` jobs at once.
    pub(crate) async fn run_batches(&self, node: &Node, task: &str, count: usize, done: impl Fn() -> bool) {
        let http = reqwest::Client::new();
        let batch: Vec<Value> =
            (0..count).map(|n| json!({ "task": task, "args": [n], "attempts": 100 })).collect();
        while !done() {
            // what is refused or not answered may have been enqueued or not: nothing is promised about it
            let Ok(answer) = http.post(node.http("/api/v1/jobs")).body(json!(batch).to_string()).send().await
            else {
                tokio::task::yield_now().await;
                continue;
            };
            if answer.status() != 201 {
                assert_eq!(answer.status(), 503, "{:?}", answer.text().await);
                continue;
            }
            if let Ok(answer) = answer.json::<Value>().await {
                let ids = answer["ids"].as_array().unwrap().iter().map(|id| id.as_i64().unwrap());
                self.acknowledged.lock().unwrap().extend(ids);
            }
        }
    }

    /// The job that tells the readers that nothing follows; enqueued for sure.
    pub(crate) async fn end(&self, node: &Node) {
        let body = json!({ "task": LAST_TASK, "key": "the last one" });
        wait::until("the last job to be taken", async || {
            let answer =
                reqwest::Client::new().post(node.http("/api/v1/jobs")).body(body.to_string()).send().await;
            answer.is_ok_and(|a| a.status().is_success()).then_some(())
        })
        .await;
    }

    /// Every job that was acknowledged was announced exactly once, and so was every other.
    pub(crate) fn assert_all_announced(&self, events: &[TaskEvent], who: &str) {
        let mut announced: BTreeMap<i64, usize> = BTreeMap::new();
        for event in events.iter().filter(|e| e.kind() == "task.enqueue") {
            *announced.entry(event.job()).or_default() += 1;
        }
        assert!(announced.values().all(|times| *times == 1), "{who}: a job was announced twice");
        let acknowledged = self.acknowledged.lock().unwrap();
        assert!(!acknowledged.is_empty(), "{who}: nothing was acknowledged");
        let missing: Vec<_> = acknowledged.iter().filter(|id| !announced.contains_key(id)).collect();
        assert!(missing.is_empty(), "{who}: acknowledged and gone: {missing:?}");
    }
}

/// Is it the event that ends a test?
pub(crate) fn is_last(event: &TaskEvent) -> bool {
    event.kind() == "task.enqueue" && event.task() == LAST_TASK
}
