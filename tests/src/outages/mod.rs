//! The database away, silent, busy, full, promoted, or behind a pooler, and a relay that cannot follow, on real servers. Whatever
//! happens: nothing that was acknowledged is missing, each run has one outcome, neither node nor worker ends, and all comes
//! whole without a restart.

mod behind;
mod breaker;
mod connections;
mod disks;
mod failover;
mod pooler;
mod spool;

use crate::support::events::TaskEvent;
use crate::support::node::Node;
use crate::support::wait;
use std::collections::BTreeMap;
use tokio::process::Child;

/// Runs that are lost go on soon.
const CONFIG: &str = "[queue]\nlease_grace = \"0s\"\n";

/// A worker over `url` that runs `quick`, in the node's directory.
fn worker(node: &Node, url: &str, more: &[&str]) -> Child {
    let log = node.log_file();
    node.tokio_command()
        .args(["worker", "--database", url, "--lease", "2s", "-j", "4", "--task", "quick=true"])
        .args(more)
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// It has not ended, whatever happened.
fn assert_works_on(worker: &mut Child) {
    assert!(worker.try_wait().unwrap().is_none(), "the worker has ended by itself");
}

/// Waits until no job of the task `quick` is left to be run.
async fn all_run(node: &Node) {
    wait::until("all jobs to be run", async || {
        let answer = node.get("/api/v1/jobs?task=quick&state=inactive,active&limit=1").await;
        (answer.status == 200 && answer.json()["jobs"].as_array().unwrap().is_empty()).then_some(())
    })
    .await;
}

/// Each run that was begun has one outcome that counts, and every job of `quick` has finished.
fn assert_one_outcome_per_run(events: &[TaskEvent]) {
    let (mut runs, mut last) = (BTreeMap::<_, Vec<&str>>::new(), BTreeMap::new());
    for event in events.iter().filter(|event| event.task() == "quick") {
        let run = (event.job(), event.json["data"]["attempt"].as_i64().unwrap());
        match event.kind() {
            "task.dequeue" => assert!(runs.insert(run, vec![]).is_none(), "run {run:?} was begun twice"),
            kind @ ("task.finished" | "task.failed" | "task.lost" | "task.cancelled") => {
                runs.get_mut(&run).unwrap_or_else(|| panic!("run {run:?} was never begun")).push(kind);
            }
            _ => {}
        }
        last.insert(event.job(), event.kind());
    }
    assert!(!runs.is_empty(), "nothing was run");
    let odd: Vec<_> = runs.iter().filter(|(_, outcomes)| outcomes.len() != 1).collect();
    assert!(odd.is_empty(), "runs without one outcome: {odd:?}");
    let unfinished: Vec<_> =
        last.iter().filter(|(_, kind)| !matches!(**kind, "task.finished" | "task.late_result")).collect();
    assert!(unfinished.is_empty(), "jobs that have not finished: {unfinished:?}");
}

/// One figure of `/metrics`, without labels.
async fn metric(node: &Node, name: &str) -> Option<f64> {
    let metrics = node.get("/metrics").await;
    let line =
        metrics.text().lines().find_map(|line| line.strip_prefix(&format!("{name} ")).map(str::to_owned));
    line.map(|value| value.parse().unwrap())
}

async fn metric_is(node: &Node, name: &str, value: f64) {
    let what = format!("{name} to be {value}");
    wait::until(&what, async || (metric(node, name).await == Some(value)).then_some(())).await;
}

/// How often the node's log says this.
fn said(node: &Node, words: &str) -> usize {
    node.log().matches(words).count()
}
