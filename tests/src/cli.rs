//! The command line as a script sees it: stdout, stderr, exit status.

use crate::support::node::{Node, Options, binary};
use crate::support::wait;
use serde_json::{Value, json};
use std::process::{Output, Stdio};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout};

const WITH_WORKER: &str = "[tasks.echo]\ncommand = [\"cat\"]\n[tasks.wrong]\ncommand = [\"false\"]\n";

/// Runs `minium …` against the node.
async fn minium(node: &Node, args: &[&str]) -> Output {
    let what = format!("minium {}", args.join(" "));
    wait::within(&what, node.tokio_command().args(args).output()).await.unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

/// Asserts success and gives stdout.
async fn ok(node: &Node, args: &[&str]) -> String {
    let output = minium(node, args).await;
    assert!(output.status.success(), "minium {args:?}: {output:?}");
    stdout(&output).to_owned()
}

/// Asserts the exit status, and that stdout is empty and stderr is not.
async fn fails(node: &Node, args: &[&str], status: i32) {
    let output = minium(node, args).await;
    assert_eq!(output.status.code(), Some(status), "minium {args:?}: {output:?}");
    assert_eq!((stdout(&output), output.stderr.is_empty()), ("", false), "minium {args:?}: {output:?}");
}

/// C-1, C-3, C-4: a job by the command line, from enqueue to removal.
#[tokio::test]
async fn jobs_are_steered_by_commands() {
    let node = Node::start(Options::memory().config(WITH_WORKER)).await;
    let id = ok(&node, &["job", "enqueue", "echo", "[1]", "--note", "who=me", "--priority", "-3"]).await;
    let id = id.trim();
    let shown: Value = serde_json::from_str(&ok(&node, &["job", "show", id, "--json"]).await).unwrap();
    assert_eq!(
        (&shown["task"], &shown["notes"], &shown["priority"]),
        (&json!("echo"), &json!({ "who": "me" }), &json!(-3))
    );
    assert_eq!(ok(&node, &["job", "wait", id, "--timeout", "60s"]).await.trim(), "[1]");
    assert_eq!(ok(&node, &["job", "enqueue", "echo", "{\"a\":2}", "--wait=60s"]).await.trim(), "{\"a\":2}");
    let listed: Value =
        serde_json::from_str(&ok(&node, &["job", "ls", "--state", "finished", "--json"]).await).unwrap();
    assert_eq!(listed["jobs"].as_array().unwrap().len(), 2);
    let idle = ok(&node, &["job", "enqueue", "idle"]).await;
    ok(&node, &["job", "cancel", idle.trim()]).await;
    ok(&node, &["job", "retry", idle.trim(), "--delay", "1h"]).await;
    assert_eq!(node.get(&format!("/api/v1/jobs/{}", idle.trim())).await.json()["phase"], "delayed");
    ok(&node, &["job", "remove", idle.trim()]).await;
    node.get(&format!("/api/v1/jobs/{}", idle.trim())).await.problem(404, "not_found");
}

/// C-1: arguments from a file and from stdin.
#[tokio::test]
async fn arguments_come_from_a_file_or_stdin() {
    let node = Node::start(Options::memory().config(WITH_WORKER)).await;
    std::fs::write(node.dir().join("args.json"), "[\"from a file\"]").unwrap();
    assert_eq!(
        ok(&node, &["job", "enqueue", "echo", "@args.json", "--wait=60s"]).await.trim(),
        "[\"from a file\"]"
    );
    let mut process = node.tokio_command();
    let mut child = process
        .args(["job", "enqueue", "echo", "-", "--wait=60s"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"{\"from\":\"stdin\"}").await.unwrap();
    let output = wait::within("the job", child.wait_with_output()).await.unwrap();
    assert_eq!(stdout(&output).trim(), "{\"from\":\"stdin\"}");
}

/// C-2: the exit status says what kind of failure it was.
#[tokio::test]
async fn the_exit_status_says_why() {
    let node = Node::start(Options::memory().config(WITH_WORKER)).await;
    let done = node.enqueue(&json!({ "task": "echo" })).await.to_string();
    ok(&node, &["job", "wait", &done]).await;
    fails(&node, &["job", "enqueue", "wrong", "--wait=60s"], 1).await;
    fails(&node, &["job", "enqueue", "echo", "no json"], 2).await;
    fails(&node, &["job", "enqueue", "bad task"], 2).await;
    fails(&node, &["no-such-command"], 2).await;
    fails(&node, &["job", "show", "999999"], 3).await;
    fails(&node, &["pub", "task/x", "{}"], 4).await;
    fails(&node, &["job", "show", "1", "--url", "http://127.0.0.1:1"], 5).await;
    fails(&node, &["pub", "livesys/7", "{\"type\":\"status\"}"], 6).await;
    fails(&node, &["job", "enqueue", "livesys/inventory", "[{\"colour\":1}]"], 6).await;
    fails(&node, &["job", "cancel", &done], 7).await;
    let idle = node.enqueue(&json!({ "task": "idle" })).await.to_string();
    fails(&node, &["job", "wait", &idle, "--timeout", "200ms"], 8).await;
}

/// A command that goes on, and its lines.
pub(crate) struct Running {
    lines: Lines<BufReader<ChildStdout>>,
    process: Child,
}

impl Running {
    pub(crate) fn start(node: &Node, args: &[&str]) -> Running {
        let mut process =
            node.tokio_command().args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().expect("stdout is piped")).lines();
        Running { lines, process }
    }

    pub(crate) async fn line(&mut self) -> Value {
        let line = wait::within("a line of a command", self.lines.next_line()).await.unwrap();
        let line = line.expect("the command goes on");
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line:?}"))
    }

    /// Writes a line to its stdin.
    pub(crate) async fn say(&mut self, line: &str) {
        let stdin = self.process.stdin.as_mut().expect("stdin is piped");
        stdin.write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }

    /// There are no more lines for it.
    pub(crate) fn end_of_input(&mut self) {
        self.process.stdin = None;
    }

    pub(crate) async fn ended(mut self) -> i32 {
        wait::within("a command to end", self.process.wait()).await.unwrap().code().unwrap()
    }
}

async fn sessions(node: &Node, count: usize) {
    let what = format!("{count} sessions");
    wait::until(&what, async || (node.metric("minium_bus_sessions").await == count as f64).then_some(()))
        .await;
}

/// C-1, C-4: streams are one JSON document a line in a pipe, and resume when the node comes back.
#[tokio::test]
async fn streams_are_lines_of_json_and_resume() {
    let node = Node::start(Options::file()).await;
    let mut events = Running::start(&node, &["sub", "task", "--after", "earliest", "-n", "3"]);
    let first = node.enqueue(&json!({ "task": "idle" })).await;
    assert_eq!(events.line().await["data"]["id"], first);
    node.kill().await;
    node.restart().await;
    for _ in 0..2 {
        let next = node.enqueue(&json!({ "task": "idle" })).await;
        assert_eq!(events.line().await["data"]["id"], next, "nothing twice, nothing missed");
    }
    assert_eq!(events.ended().await, 0);
}

/// C-4: pub, push, pull and bus.
#[tokio::test]
async fn messages_go_by_commands() {
    let node = Node::memory().await;
    let mut subscriber = Running::start(&node, &["sub", "news", "-n", "2"]);
    let mut puller = Running::start(&node, &["pull", "work", "-n", "2"]);
    let mut peer = Running::start(&node, &["bus", "ops", "-n", "1"]);
    sessions(&node, 3).await;
    for (command, topic, running) in [("pub", "news/today", &mut subscriber), ("push", "work", &mut puller)] {
        ok(&node, &[command, topic, "{\"n\":1}"]).await;
        assert!(running.line().await.to_string().contains("\"n\":1"), "{command}");
        let mut lines = node.tokio_command();
        let mut child = lines.args([command, topic, "-"]).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"\"by a line\"\n").await.unwrap();
        assert!(wait::within(command, child.wait()).await.unwrap().success(), "{command}");
        assert!(running.line().await.to_string().contains("by a line"), "{command}");
    }
    ok(&node, &["bus", "ops", "hear me"]).await;
    assert!(peer.line().await.to_string().contains("hear me"));
    for running in [subscriber, puller, peer] {
        assert_eq!(running.ended().await, 0);
    }
}

/// C-5: all mistakes of a configuration are told at once, and the status is 2.
#[tokio::test]
async fn all_mistakes_of_a_configuration_are_told_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("minium.toml");
    std::fs::write(&file, "[server]\nlisten = \"nowhere\"\ncolour = 1\n[database]\npool = 0\n[schedules.x]\nevery = \"never\"\n").unwrap();
    let mut serve = tokio::process::Command::new(binary());
    serve.current_dir(dir.path()).args(["serve", "--config"]).arg(&file);
    let output = wait::within("serve to refuse", serve.output()).await.unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    for key in ["server.listen", "server.colour", "database.pool", "schedules.x.every"] {
        assert!(said.contains(key), "{key} is not told of in: {said}");
    }
}

/// H-7: a listener that others can reach needs authentication, or the word that none is wanted.
#[tokio::test]
async fn a_listener_beyond_loopback_needs_authentication() {
    let dir = tempfile::tempdir().unwrap();
    let mut serve = tokio::process::Command::new(binary());
    serve.current_dir(dir.path()).args(["serve", "--listen", "0.0.0.0:0", "--database", "sqlite::memory:"]);
    let output = wait::within("serve to refuse", serve.output()).await.unwrap();
    assert!(!output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("auth") && said.contains("--insecure-no-auth"), "{said}");
}

/// A database file in a directory that is not there is told of once, before anything listens.
#[tokio::test]
async fn a_database_without_its_directory_is_told_of_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut serve = tokio::process::Command::new(binary());
    serve.current_dir(dir.path()).args(["serve", "--listen", "127.0.0.1:0", "--database", "sqlite:no/x.db"]);
    let output = wait::within("serve to refuse", serve.output()).await.unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said, "minium: The database no/x.db cannot be made: the directory no does not exist\n");
}

/// A worker waits for the schema, and makes no database of its own where there is none.
#[tokio::test]
async fn a_worker_waits_for_a_schema() {
    let dir = tempfile::tempdir().unwrap();
    let minium = |args: &[&str]| {
        let mut command = tokio::process::Command::new(binary());
        command.current_dir(dir.path()).env("XDG_STATE_HOME", dir.path().join("state")).args(args);
        command.kill_on_drop(true);
        command
    };
    std::fs::write(dir.path().join("empty.db"), "").unwrap();
    for file in ["none.db", "empty.db"] {
        let database = format!("sqlite:{file}");
        let log = dir.path().join(format!("{file}.log"));
        let mut worker = minium(&["worker", "--database", &database, "--task", "x=true"]);
        let mut worker = worker.stderr(std::fs::File::create(&log).unwrap()).spawn().unwrap();
        let said = |words: &str| std::fs::read_to_string(&log).unwrap().matches(words).count();
        wait::until("the warning", async || (said("has no schema of Minium yet") > 0).then_some(())).await;
        assert_eq!(dir.path().join(file).exists(), file == "empty.db");
        assert!(worker.try_wait().unwrap().is_none(), "it goes on");
        let migrated = minium(&["migrate", "--database", &database]).output();
        assert!(wait::within("migrate", migrated).await.unwrap().status.success());
        wait::until("the worker to begin", async || (said("The worker waits for jobs.") > 0).then_some(()))
            .await;
        assert_eq!((said("has no schema"), said("no such table")), (1, 0));
    }
}

/// A misspelt level must not be taken for the usual one in silence.
#[tokio::test]
async fn what_is_to_be_logged_and_cannot_be_read_is_told() {
    let mut command = tokio::process::Command::new(binary());
    let command = command.args(["completions", "bash"]).env("MINIUM_LOG", "minium=loud").kill_on_drop(true);
    let output = wait::within("completions", command.output()).await.unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && told.contains("MINIUM_LOG"), "{told}");
}

/// H-2, H-5, H-6: what machines ask a node.
#[tokio::test]
async fn probes_and_figures_are_there() {
    let node = Node::start(Options::memory().config(WITH_WORKER)).await;
    assert_eq!(node.get("/healthz").await.status, 200);
    assert_eq!(node.get("/readyz").await.status, 200);
    node.get("/no/such/path").await.problem(404, "not_found");
    let wrong = node.delete("/healthz").await;
    wrong.problem(405, "method_not_allowed");
    assert!(wrong.header("allow").contains("GET"), "{wrong:?}");
    assert_eq!(node.post("/pub/x", "y").await.status, 200);
    let id = node.enqueue(&json!({ "task": "echo" })).await;
    node.get(&format!("/api/v1/jobs/{id}/wait?timeout=60s")).await.expect(200);
    let metrics = node.get("/metrics").await;
    assert!(metrics.header("content-type").starts_with("text/plain"), "{metrics:?}");
    for name in [
        "minium_bus_messages_published_total",
        "minium_queue_jobs_enqueued_total",
        "minium_queue_jobs_finished_total",
    ] {
        assert!(node.metric(name).await >= 1.0, "{name} in {}", metrics.text());
    }
}

/// Q-13, C-4: `migrate` makes a database, and tells what it did and would do.
#[tokio::test]
async fn migrate_tells_what_it_does() {
    let database = crate::support::postgres::Database::create().await;
    let node = Node::memory().await;
    for url in [database.url(), "sqlite:other.db"] {
        let migrate =
            async |more: &[&str]| ok(&node, &[&["migrate", "--database", url], more].concat()).await;
        if url.starts_with("postgres") {
            assert!(migrate(&["--status"]).await.contains("pending"), "{url}");
            assert!(migrate(&["--dry-run"]).await.to_lowercase().contains("create table"), "{url}");
            assert!(migrate(&["--status"]).await.contains("pending"), "{url}: a dry run does nothing");
        }
        assert!(migrate(&[]).await.contains("applied"), "{url}");
        assert!(migrate(&[]).await.contains("nothing to do"), "{url}");
        let status = migrate(&["--status"]).await;
        assert!(status.contains("applied") && !status.contains("pending"), "{url}: {status}");
    }
}
