//! Task events as tests look at them: parsed, placed, and judged by somebody else's validator.

use super::foreign::{Foreign, Received};
use super::node::{Node, checkout};
use super::wait;
use serde_json::Value;
use std::process::Stdio;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// A task event, as text and parsed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TaskEvent {
    pub(crate) text: String,
    pub(crate) json: Value,
}

impl TaskEvent {
    /// Reads it.
    pub(crate) fn parse(text: &str) -> TaskEvent {
        let json: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text:?}"));
        assert_eq!(json["specversion"], "1.0", "this is no event: {text}");
        TaskEvent { text: text.to_owned(), json }
    }

    /// `task.finished` and so on.
    pub(crate) fn kind(&self) -> &str {
        self.json["type"].as_str().unwrap()
    }

    /// Its offset.
    pub(crate) fn offset(&self) -> u64 {
        let sequence = self.json["sequence"].as_str().unwrap();
        assert_eq!(sequence.len(), 20, "{sequence}");
        sequence.parse().unwrap()
    }

    /// Its epoch.
    pub(crate) fn epoch(&self) -> u64 {
        self.json["epoch"].as_str().unwrap().parse().unwrap()
    }

    /// `E:O`.
    pub(crate) fn position(&self) -> String {
        format!("{}:{}", self.epoch(), self.offset())
    }

    /// The job that it is about.
    pub(crate) fn job(&self) -> i64 {
        let id = self.json["data"]["id"].as_i64().unwrap();
        assert_eq!(self.json["subject"], id.to_string());
        id
    }

    /// The job's task.
    pub(crate) fn task(&self) -> &str {
        self.json["data"]["task"].as_str().unwrap()
    }
}

/// The types of events, for comparing with a list.
pub(crate) fn kinds(events: &[TaskEvent]) -> Vec<&str> {
    events.iter().map(TaskEvent::kind).collect()
}

/// Follows `/sub/<filter>` from the oldest entry until `is_last` says so, coming back by position whenever the node
/// closes or is gone.
pub(crate) async fn follow(
    client: &Foreign,
    node: &Node,
    filter: &str,
    is_last: impl Fn(&TaskEvent) -> bool,
    mut seen: impl FnMut(&TaskEvent),
) -> Vec<TaskEvent> {
    let mut events: Vec<TaskEvent> = Vec::new();
    loop {
        let after = events.last().map_or("earliest".into(), TaskEvent::position);
        let url = node.ws(&format!("/sub/{filter}?after={after}"));
        // the node may be down for a moment, or up but without its database
        let mut session = wait::until("a subscription", async || {
            match client.handshake(&url, serde_json::json!({})).await {
                Ok(session) => Some(session),
                Err(refusal) if matches!(refusal.status, 0 | 503) => None,
                Err(refusal) => panic!("{}: {url} was refused: {refusal:?}", client.name),
            }
        })
        .await;
        loop {
            match session.next().await {
                Ok(Received::Text(text)) => {
                    let event = TaskEvent::parse(&text);
                    seen(&event);
                    let last = is_last(&event);
                    events.push(event);
                    if last {
                        return events;
                    }
                }
                Ok(Received::Binary(bytes)) => panic!("a task event is text: {bytes:?}"),
                Err(_code) => break,
            }
        }
    }
}

/// Asserts that these are all entries of the journal, from the first one on, each once and in order.
pub(crate) fn assert_dense(events: &[TaskEvent], who: &str) {
    for (i, event) in events.iter().enumerate() {
        assert_eq!(event.offset(), i as u64 + 1, "{who}: offsets have no gap, no double and no other order");
        assert_eq!(event.epoch(), events[0].epoch(), "{who}: the epoch stays");
    }
}

/// Lets Python's jsonschema judge documents by the schema that the node serves at `path`.
pub(crate) async fn judge(node: &Node, path: &str, documents: &[Value]) -> Result<(), String> {
    let python = std::env::var("MINIUM_TEST_PYTHON")
        .unwrap_or_else(|_| panic!("MINIUM_TEST_PYTHON is not set: run ./scripts/test"));
    let mut process = Command::new(python)
        .arg(checkout().join("tests/clients/validate.py"))
        .arg(node.http(path))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let lines: String = documents.iter().map(|d| format!("{d}\n")).collect();
    let mut stdin = process.stdin.take().expect("stdin is piped");
    let writing = async move { stdin.write_all(lines.as_bytes()).await };
    // a validator that has found a fault reads no further
    let (_, output) =
        wait::within("the validator", async { tokio::join!(writing, process.wait_with_output()) }).await;
    let output = output.unwrap();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), documents.len().to_string());
    Ok(())
}
