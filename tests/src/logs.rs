//! Logs of jobs: read by the page, told by events, followed by the command line.

use crate::cli::Running;
use crate::support::events::{TaskEvent, judge};
use crate::support::foreign::Foreign;
use crate::support::node::{Node, Options};
use crate::support::{on_both, wait};
use serde_json::{Value, json};
use std::process::Stdio;
use tokio::process::{Child, Command};

on_both! {
    /// Q-11, Q-24, E-6, E-9: what a command writes to stderr, by the page and in the events, until the job is removed.
    a_log_is_read_by_the_page_and_told_by_events;
    /// C-8: each line once and none left out, over a restart of the node, and the end when the job has ended.
    a_log_is_followed_to_its_end;
    /// J-9: lines over `minium.v1`, from whoever pulls.
    a_puller_adds_lines;
}

const TALK: &str = r#"
[tasks.talk]
command = ["sh", "-c", "echo '::step source downloaded' >&2; echo '  rows: 7' >&2; echo '::log warn odd' >&2; echo 1"]
"#;

async fn log(node: &Node, id: i64, query: &str) -> Value {
    node.get(&format!("/api/v1/jobs/{id}/log{query}")).await.expect(200)
}

/// Level and text of each line.
fn said(page: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    page["lines"].as_array().unwrap().iter().map(|line| (text(&line["level"]), text(&line["text"]))).collect()
}

fn owned(lines: &[(&str, &str)]) -> Vec<(String, String)> {
    lines.iter().map(|(level, text)| ((*level).to_owned(), (*text).to_owned())).collect()
}

async fn a_log_is_read_by_the_page_and_told_by_events(options: Options) {
    let node = Node::start(options.config(TALK)).await;
    let id = node.enqueue(&json!({ "task": "talk" })).await;
    node.get(&format!("/api/v1/jobs/{id}/wait?timeout=60s")).await.expect(200);
    let page = log(&node, id, "").await;
    assert_eq!((&page["next"], &page["dropped"]), (&Value::Null, &json!(0)));
    let expected = [("step", "source downloaded"), ("info", "  rows: 7"), ("warn", "odd")];
    assert_eq!(said(&page), owned(&expected));
    let first = &page["lines"][0];
    assert_eq!((&first["n"], &first["attempt"]), (&json!(1), &json!(1)));
    let second = log(&node, id, "?after=1&limit=1").await;
    assert_eq!((said(&second), &second["next"]), (owned(&expected[1..2]), &json!(2)));
    assert_eq!(log(&node, id, "?after=3").await["lines"], json!([]));

    let events = node.get(&format!("/api/v1/jobs/{id}/events")).await.expect(200);
    let events = events["events"].as_array().unwrap();
    let told: Vec<Value> =
        events.iter().filter_map(|e| e["data"]["log"].as_array().cloned()).flatten().collect();
    assert_eq!(json!(told), page["lines"], "each line by one event, in the same words");
    let brings = |event: &&Value| event["data"].get("log").is_some();
    assert!(events.iter().filter(brings).all(|event| event["type"] == "task.progress"));
    judge(&node, "/schemas/sub/task.json", events).await.unwrap();
    let mut odd = events.iter().find(brings).unwrap().clone();
    odd["data"]["log"][0]["level"] = json!("loud");
    assert!(judge(&node, "/schemas/sub/task.json", &[odd]).await.unwrap_err().contains("loud"));

    node.get(&format!("/api/v1/jobs/{id}/log?limit=0")).await.problem(400, "invalid_request");
    node.get(&format!("/api/v1/jobs/{}/log", id + 1_000)).await.problem(404, "not_found");
    node.delete(&format!("/api/v1/jobs/{id}")).await;
    node.get(&format!("/api/v1/jobs/{id}/log")).await.problem(404, "not_found");
    let silent = node.enqueue(&json!({ "task": "idle" })).await;
    assert_eq!(log(&node, silent, "").await, json!({ "lines": [], "next": null, "dropped": 0 }));
}

/// A worker over the database, which does not mind when the node goes.
fn worker(node: &Node, script: &str, more: &[&str]) -> Child {
    let file = node.log_file();
    Command::from(node.command())
        .args(["worker", "--shell", "--task", &format!("talk={script}"), "--database", &node.database()])
        .args(["--spool", "spool"])
        .args(more)
        .stdout(Stdio::null())
        .stderr(file)
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

async fn until_said(node: &Node, id: i64, count: i64) {
    wait::until(&format!("{count} lines"), async || {
        let answer = node.get(&format!("/api/v1/jobs/{id}/log?after={}", count - 1)).await;
        (answer.status == 200 && answer.json()["lines"] != json!([])).then_some(())
    })
    .await;
}

async fn a_log_is_followed_to_its_end(options: Options) {
    let node = Node::start(options).await;
    let id = node.enqueue(&json!({ "task": "talk", "attempts": 2, "backoff": "0s" })).await;
    let script = "say() { for n in $(seq $1 $2); do echo $n >&2; done; }; \
        wait_for() { while [ ! -e $1 ]; do sleep 0.02; done; }; \
        if [ $MINIUM_ATTEMPT = 2 ]; then say 101 110; exit 0; fi; \
        say 1 50; wait_for second; say 51 100; wait_for third; exit 1";
    let worker = worker(&node, script, &[]);
    until_said(&node, id, 50).await;
    let number = id.to_string();
    let mut follower = Running::start(&node, &["job", "log", &number, "--follow"]);
    for n in 1..=50 {
        assert_eq!(follower.line().await["n"], n);
    }
    // what is said while the node is away is read or heard when it is back
    node.kill().await;
    std::fs::write(node.dir().join("second"), "").unwrap();
    node.restart().await;
    for n in 51..=100 {
        let line = follower.line().await;
        assert_eq!((&line["n"], &line["text"]), (&json!(n), &json!(n.to_string())));
    }
    // the first run fails, and the follower stays for the second
    std::fs::write(node.dir().join("third"), "").unwrap();
    for n in 101..=110 {
        let line = follower.line().await;
        assert_eq!((&line["n"], &line["attempt"]), (&json!(n), &json!(2)));
    }
    assert_eq!(follower.ended().await, 0);
    drop(worker);

    let output = node.tokio_command().args(["job", "log", &number, "--json"]).output().await.unwrap();
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((document["lines"].as_array().unwrap().len(), &document["dropped"]), (110, &json!(0)));
    // of a job that has ended all is there at once
    let output = node.tokio_command().args(["job", "log", &number, "--follow"]).output().await.unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 110);
    let output = node.tokio_command().args(["job", "log", "999999", "--follow"]).output().await.unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
}

async fn a_puller_adds_lines(options: Options) {
    let node = Node::start(options.config("[channels.work]\ndurable = true\n")).await;
    let client = Foreign::python();
    let mut events = client.open(&node.ws("/sub/task/work")).await;
    let id = node.post("/push/work", "[]").await.expect(200)["job"].as_i64().unwrap();
    let mut puller = client.open_with(&node.ws("/pull/work"), json!({ "subprotocols": ["minium.v1"] })).await;
    let job = loop {
        let frame = puller.json().await;
        if frame["op"] == "job" {
            break frame;
        }
    };
    let note = |log: Value| json!({ "op": "note", "job": id, "lease": job["lease"], "log": log }).to_string();
    let lines = json!([
        { "at": "2026-11-22T02:00:00.5Z", "level": "step", "text": "half" },
        { "text": "a line" },
    ]);
    puller.send(&note(lines.clone())).await;
    let answer = puller.json().await;
    assert!(answer["lease_expires"].is_string(), "{answer}");
    let many = json!(vec![json!({ "text": "x" }); 1_001]);
    for bad in [json!([{ "text": "x", "level": "loud" }]), json!([{ "level": "info" }]), many] {
        puller.send(&note(bad)).await;
        assert_eq!(puller.json().await["problem"]["code"], "invalid_request");
    }
    let page = log(&node, id, "").await;
    assert_eq!(said(&page), owned(&[("step", "half"), ("info", "a line")]));
    assert_eq!(page["lines"][0]["at"], "2026-11-22T02:00:00.500000Z");
    let event = loop {
        let event = TaskEvent::parse(&events.text().await);
        if event.kind() == "task.progress" {
            break event;
        }
    };
    assert_eq!(event.json["data"]["log"], page["lines"]);
    // a line with its time may be said again: its answer could have been lost
    puller.send(&note(json!([lines[0]]))).await;
    assert!(puller.json().await["lease_expires"].is_string());
    assert_eq!(log(&node, id, "").await, page);
}

/// Q-11: ordinary lines can be kept out of the log, in the node and in a worker.
#[tokio::test]
async fn a_node_and_a_worker_can_keep_stderr_out_of_logs() {
    let node = Node::start(Options::file().config(&format!("[worker]\nlog_stderr = false\n{TALK}"))).await;
    let expected = owned(&[("step", "source downloaded"), ("warn", "odd")]);
    let id = node.enqueue(&json!({ "task": "talk" })).await;
    node.get(&format!("/api/v1/jobs/{id}/wait?timeout=60s")).await.expect(200);
    assert_eq!(said(&log(&node, id, "").await), expected);
    let id = node.enqueue(&json!({ "task": "talk", "queue": "far" })).await;
    let script = "echo '::step source downloaded' >&2; echo talk >&2; echo '::log warn odd' >&2";
    let worker = worker(&node, script, &["--queue", "far", "--no-log-stderr"]);
    node.get(&format!("/api/v1/jobs/{id}/wait?timeout=60s")).await.expect(200);
    assert_eq!(said(&log(&node, id, "").await), expected);
    drop(worker);
}
