//! Tasks that are programs, as a node and as workers run them: what holds them back, and those that live longer than a job.

mod lasting;
mod limits;
mod refusals;
mod walls;

use crate::support::node::Node;
use crate::support::wait;
use serde_json::{Value, json};
use std::process::Output;
use tokio::process::Command;

/// Enqueues a job, and answers its number.
async fn enqueue(node: &Node, task: &str, args: Value) -> i64 {
    node.enqueue(&json!({ "task": task, "args": args })).await
}

async fn run(node: &Node, task: &str) -> Value {
    node.ended(enqueue(node, task, json!([])).await).await
}

/// What a job that has finished brought.
fn result(job: &Value) -> &Value {
    assert_eq!(job["state"], "finished", "{job}");
    &job["result"]
}

/// Why a job has failed.
fn error(job: &Value) -> &str {
    assert_eq!(job["state"], "failed", "{job}");
    job["error"].as_str().unwrap()
}

/// What `minium doctor` says of a part of the machine that sandboxes need: does it work?
async fn machine_has(node: &Node, what: &str) -> bool {
    let output = wait::within("minium doctor", node.tokio_command().arg("doctor").output()).await.unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let line =
        said.lines().find(|line| line.contains(&format!(" {what}: "))).unwrap_or_else(|| panic!("{said}"));
    // which of the two was seen belongs to what the test tells
    eprintln!("{line}");
    !line.contains("no task asks for it")
}

async fn output(command: &mut Command) -> Output {
    wait::within("a command to end", command.kill_on_drop(true).output()).await.unwrap()
}

/// A task that is a line for the shell, as it stands in a configuration.
fn task(name: &str, line: &str, sandbox: &str) -> String {
    format!("[tasks.\"{name}\"]\nshell = true\ncommand = [{line:?}]\nsandbox = {{ {sandbox} }}\n")
}
