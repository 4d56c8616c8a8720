//! What an operator is told: figures for Prometheus, the alerts that are made of them, and the spans of log lines.

use crate::support::foreign::Foreign;
use crate::support::node::{Node, Options, checkout};
use crate::support::postgres::{Cluster, ClusterOptions};
use crate::support::{on_both, wait};
use serde_json::{Value, json};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

on_both! {
    /// The depth of a queue, its longest wait and its pause, and how long jobs waited.
    the_queue_is_told_to_whoever_scrapes;
    /// What is logged of a job stands in a span that says which job, of a session and a publish likewise.
    log_lines_have_their_spans;
}

/// One worker that takes one of three queues.
const WORKER: &str = "[worker]\nqueues = [\"worked\"]\n[tasks.quick]\ncommand = [\"true\"]\n[tasks.wrong]\ncommand = [\"false\"]\n";

/// The value of one line of `/metrics`, labels and all.
async fn sample(node: &Node, name: &str) -> Option<f64> {
    let answer = node.get("/metrics").await;
    answer.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

/// Waits until it has such a value: what is looked up in the database is told for some seconds.
async fn until(node: &Node, name: &str, right: impl Fn(f64) -> bool) {
    wait::until(name, async || sample(node, name).await.is_some_and(&right).then_some(())).await;
}

async fn the_queue_is_told_to_whoever_scrapes(options: Options) {
    let node = Node::start(options.config(WORKER)).await;
    for _ in 0..3 {
        node.enqueue(&json!({ "task": "quick", "queue": "idle" })).await;
    }
    until(&node, r#"minium_queue_jobs_ready{queue="idle"}"#, |n| n == 3.0).await;
    until(&node, r#"minium_queue_oldest_ready_seconds{queue="idle"}"#, |seconds| seconds > 0.0).await;
    until(&node, r#"minium_queue_jobs{state="inactive"}"#, |n| n == 3.0).await;
    until(&node, r#"minium_queue_jobs_waiting{phase="ready"}"#, |n| n == 3.0).await;
    assert_eq!(sample(&node, r#"minium_queue_paused{queue="idle"}"#).await, Some(0.0));
    node.post("/api/v1/queues/idle/pause", "").await.expect(200);
    until(&node, r#"minium_queue_paused{queue="idle"}"#, |paused| paused == 1.0).await;
    until(&node, r#"minium_queue_workers{state="inactive"}"#, |n| n == 1.0).await;

    // the first run of a job without parents tells its wait: not the second, nor one that a parent held back
    let parent = node.enqueue(&json!({ "task": "quick", "queue": "worked" })).await;
    let child = node.enqueue(&json!({ "task": "quick", "queue": "worked", "parents": [parent] })).await;
    let again = json!({ "task": "wrong", "queue": "worked", "attempts": 2, "backoff": "0s" });
    let again = node.enqueue(&again).await;
    for id in [parent, child, again] {
        node.ended(id).await;
    }
    assert_eq!(node.job(again).await["attempt"], 2);
    for task in ["quick", "wrong"] {
        let count = format!(r#"minium_queue_job_wait_seconds_count{{queue="worked",task="{task}"}}"#);
        assert_eq!(sample(&node, &count).await, Some(1.0), "{count}");
    }
    let slowest = r#"minium_queue_job_wait_seconds_bucket{queue="worked",task="quick",le="86400"}"#;
    assert_eq!(sample(&node, slowest).await, Some(1.0));
    for id in 1..=3 {
        node.post(&format!("/api/v1/jobs/{id}/cancel"), "").await.expect(200);
    }
    until(&node, r#"minium_queue_jobs_ready{queue="idle"}"#, |n| n == 0.0).await;
}

/// The bus, the process and requests are measured.
#[tokio::test]
async fn what_the_node_does_is_measured() {
    let node = Node::memory().await;
    let client = Foreign::python();
    let mut session = client.open(&node.ws("/sub/measured")).await;
    assert_eq!(node.post("/pub/measured", "x").await.status, 200);
    assert_eq!(session.text().await, "x");
    until(&node, "minium_bus_delivery_seconds_count", |n| n >= 1.0).await;
    until(&node, r#"minium_bus_delivery_seconds_bucket{le="+Inf"}"#, |n| n >= 1.0).await;
    let requests = r#"minium_http_request_seconds_count{route="/pub/{*topic}"}"#;
    assert_eq!(sample(&node, requests).await, Some(1.0));
    let memory = sample(&node, "process_resident_memory_bytes").await.unwrap();
    assert!(memory > 1e6, "{memory}");
    let (open, most) = (sample(&node, "process_open_fds").await, sample(&node, "process_max_fds").await);
    assert!(open > Some(5.0) && open < most, "{open:?} of {most:?}");
    until(&node, "process_cpu_seconds_total", |seconds| seconds > 0.0).await;
    let started = sample(&node, "process_start_time_seconds").await.unwrap();
    assert!(started > 1.7e9, "{started}");
}

/// A database that is away has no figures: old ones would be taken for true.
#[tokio::test]
async fn without_the_database_there_are_no_figures_of_it() {
    let mut cluster = Cluster::start(ClusterOptions::default()).await;
    let url = cluster.create_database("minium").await;
    let node = Node::start(Options::on(&url)).await;
    let inactive = r#"minium_queue_jobs{state="inactive"}"#;
    until(&node, inactive, |n| n == 0.0).await;
    until(&node, r#"minium_queue_database_connections{state="idle"}"#, |n| n >= 1.0).await;
    until(&node, r#"minium_queue_database_seconds_count{operation="count jobs"}"#, |n| n >= 1.0).await;
    cluster.stop();
    wait::until("no figures", async || sample(&node, inactive).await.is_none().then_some(())).await;
    cluster.restart().await;
    until(&node, inactive, |n| n == 0.0).await;
}

/// Prometheus' own tool, in a directory with something on its stdin.
fn promtool(dir: &Path, args: &[&str], stdin: &[u8]) -> String {
    let tool = std::env::var_os("MINIUM_TEST_PROMTOOL").expect("run ./scripts/test");
    let mut child = Command::new(tool)
        .args(args)
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(stdin).unwrap();
    let output = child.wait_with_output().unwrap();
    let told = [output.stdout, output.stderr].concat();
    let told = String::from_utf8(told).unwrap();
    assert!(output.status.success(), "promtool {args:?}: {told}");
    told
}

/// Prometheus reads the alerts, and each goes off when it should; of some it is shown what does not set them off.
#[test]
fn each_alert_goes_off_for_what_it_is_for() {
    let dir = checkout().join("deploy/prometheus");
    promtool(&dir, &["check", "rules", "minium.rules.yml"], b"");
    promtool(&dir, &["test", "rules", "minium.rules.test.yml"], b"");
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
    let (rules, tests) = (read("minium.rules.yml"), read("minium.rules.test.yml"));
    for alert in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        assert!(
            tests.contains(&format!("alertname: {alert}\n        exp_alerts:\n")),
            "{alert} is never seen to go off"
        );
    }
}

/// Prometheus reads `/metrics` and finds nothing to mend: every name has its words, each of them is told once.
#[tokio::test]
async fn prometheus_finds_nothing_to_mend() {
    let node = Node::start(Options::memory().config(WORKER)).await;
    let id = node.enqueue(&json!({ "task": "quick", "queue": "worked" })).await;
    node.ended(id).await;
    assert_eq!(node.post("/pub/x", "y").await.status, 200);
    let paused = node.post("/api/v1/queues/idle/pause", "").await;
    paused.expect(200);
    until(&node, r#"minium_queue_paused{queue="idle"}"#, |paused| paused == 1.0).await;
    let metrics = node.get("/metrics").await;
    let told = promtool(node.dir(), &["check", "metrics"], metrics.text().as_bytes());
    assert_eq!(told, "", "{}", metrics.text());
}

/// The log's records that are JSON.
fn records(node: &Node) -> Vec<Value> {
    node.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// A span with this name around a record.
fn span<'a>(record: &'a Value, name: &str) -> Option<&'a Value> {
    record["spans"].as_array()?.iter().find(|span| span["name"] == name)
}

async fn log_lines_have_their_spans(options: Options) {
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let node = Node::start(Options {
        args: vec!["--log-format".into(), "json".into()],
        env: vec![(
            "MINIUM_LOG",
            "minium=debug,minium_bus=debug,minium_worker=debug,minium_notifier=debug".into(),
        )],
        ..options.config(&format!("{WORKER}[channels.kept]\ndurable = true\n"))
    })
    .await;
    let client = Foreign::python();
    let mut session = client.open(&node.ws("/sub/kept")).await;
    node.post("/pub/kept", "1").await.expect(200);
    assert_eq!(session.text().await, "1");
    let job = json!({ "task": "quick", "queue": "worked", "traceparent": trace });
    let id = node.enqueue(&job).await;
    node.ended(id).await;
    session.close(1000).await;

    let of_job = wait::until("the end of the run in the log", async || {
        let mut records = records(&node).into_iter();
        records.find(|r| r["message"] == "A run has ended.")
    })
    .await;
    let expected = json!({
        "name": "job", "job_id": id, "task": "quick", "queue": "worked", "attempt": 1, "traceparent": trace,
        "state": "finished",
    });
    assert_eq!(span(&of_job, "job"), Some(&expected), "{of_job}");
    let of_session = records(&node).into_iter().find(|r| r["message"] == "A session has begun.").unwrap();
    let session = span(&of_session, "session").unwrap();
    assert!(session["session_id"].is_number(), "{of_session}");
    assert!(session["remote_addr"].as_str().unwrap().starts_with("127.0.0.1:"), "{of_session}");
    wait::until("the end of the session in the log", async || {
        let ended = |r: &Value| r["message"] == "A session has ended." && span(r, "session") == Some(session);
        records(&node).iter().any(ended).then_some(())
    })
    .await;
}
