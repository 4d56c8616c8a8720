//! The recorder as a process: what it archives held against the journal, whatever is done to it, to its disk and to the node.

mod killed;
mod large;
mod recorded;
#[cfg(feature = "s3")]
mod stored;
mod used;
mod verified;

use crate::support::node::Node;
use crate::support::wait;
use minium_audit::{Selection, VerifyOptions, read, verify};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Output;
use tokio::process::Child;

/// Enqueues `count` jobs that nobody runs: `count` events, which are numbered when this returns.
async fn enqueue_idle(node: &Node, count: usize) {
    let jobs: Vec<_> = (0..count).map(|n| json!({ "task": "idle", "args": [n] })).collect();
    let answer = node.post_json("/api/v1/jobs", &json!(jobs)).await.expect(201);
    until_numbered(node, answer["ids"][count - 1].as_i64().unwrap()).await;
}

/// Waits until the event of a job that nobody runs is there: a run with `--once` records what is there when it begins.
async fn until_numbered(node: &Node, job: i64) {
    let path = format!("/history/task/idle/{job}?last=1");
    wait::until(&format!("the event of job {job} to have its number"), async || {
        node.get(&path).await.text().contains("\"subject\"").then_some(())
    })
    .await;
}

/// Where a test's archive is.
fn archive_of(node: &Node) -> PathBuf {
    node.dir().join("archive")
}

/// Runs `minium audit …` to its end.
async fn audit(node: &Node, args: &[&str]) -> Output {
    let what = format!("minium audit {}", args.join(" "));
    wait::within(&what, node.tokio_command().arg("audit").args(args).output()).await.unwrap()
}

/// The same, which must go well; its stdout.
async fn audit_ok(node: &Node, args: &[&str]) -> String {
    let output = audit(node, args).await;
    assert!(output.status.success(), "minium audit {args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The same, which must end with this status; its stderr.
async fn audit_fails(node: &Node, args: &[&str], status: i32) -> String {
    let output = audit(node, args).await;
    assert_eq!(output.status.code(), Some(status), "minium audit {args:?}: {output:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// Records what is there now.
async fn record_once(node: &Node, more: &[&str]) {
    let dir = archive_of(node);
    let args = [&["record", "--once", "--to", dir.to_str().unwrap()], more].concat();
    audit_ok(node, &args).await;
}

/// A recorder that goes on.
struct Recorder(Child);

impl Recorder {
    fn start(node: &Node, more: &[&str]) -> Recorder {
        Recorder::start_in(node, &archive_of(node), more)
    }

    fn start_in(node: &Node, dir: &Path, more: &[&str]) -> Recorder {
        let soon = if more.contains(&"--flush") { &[][..] } else { &["--flush", "20ms"] };
        let args = [&["audit", "record", "--to", dir.to_str().unwrap()], soon].concat();
        let log = node.log_file();
        Recorder(node.tokio_command().args(args).args(more).stderr(log).spawn().unwrap())
    }

    fn assert_works_on(&mut self) {
        assert_eq!(self.0.try_wait().unwrap(), None, "the recorder ended by itself");
    }

    /// Sends a signal, awaits the end, gives the exit status where there is one.
    async fn end(mut self, signal: Signal) -> Option<i32> {
        let pid = Pid::from_raw(self.0.id().expect("it runs").cast_signed()).unwrap();
        kill_process(pid, signal).unwrap();
        wait::within("the recorder to end", self.0.wait()).await.unwrap().code()
    }
}

/// All events of an archive.
fn archived(dir: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    read(dir, &Selection::default(), &mut |_, _| (), &mut |entry| {
        lines.push(entry.text.to_owned());
        Ok(ControlFlow::Continue(()))
    })
    .unwrap();
    lines
}

/// How many events an archive has by now; none while there is none.
fn archived_count(dir: &Path) -> u64 {
    let mut count = 0;
    let counted = read(dir, &Selection::default(), &mut |_, _| (), &mut |_| {
        count += 1;
        Ok(ControlFlow::Continue(()))
    });
    counted.map_or(0, |()| count)
}

fn assert_as_written(dir: &Path) {
    let verdict = verify(dir, &VerifyOptions::default(), &mut |_| ()).unwrap();
    assert_eq!(verdict.findings, [], "{verdict:?}");
}

/// Everything that the journal keeps of a topic, by another road: page by page.
async fn journal(node: &Node, topic: &str) -> Vec<String> {
    let (mut lines, mut after) = (Vec::new(), "earliest".to_owned());
    loop {
        let path = format!("/history/{topic}?after={after}&limit=1000");
        let accept = [("accept", "application/x-ndjson")];
        let page = wait::until("a page of the journal", async || {
            let page = node.request(reqwest::Method::GET, &path, &accept, "").await;
            (page.status == 200).then_some(page)
        })
        .await;
        if page.text().is_empty() {
            return lines;
        }
        lines.extend(page.text().lines().map(str::to_owned));
        after = page.header("minium-next").to_owned();
    }
}

/// Waits until the archive has so many events.
async fn until_archived(dir: &Path, count: u64) {
    wait::until(&format!("{count} events in the archive"), async || {
        (archived_count(dir) >= count).then_some(())
    })
    .await;
}

/// What `minium audit verify --json` says.
async fn verdict(node: &Node, more: &[&str]) -> (Value, Option<i32>) {
    let dir = archive_of(node);
    let output = audit(node, &[&["verify", dir.to_str().unwrap(), "--json"], more].concat()).await;
    (serde_json::from_slice(&output.stdout).unwrap_or(Value::Null), output.status.code())
}
