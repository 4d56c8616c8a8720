//! kill -9 of a worker process.

use crate::support::events::{TaskEvent, kinds};
use crate::support::foreign::Foreign;
use crate::support::node::{Node, Options};
use crate::support::postgres::{Cluster, ClusterOptions};
use crate::support::{on_both, wait};
use rustix::process::Signal;
use serde_json::json;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tokio::process::Child;

on_both! {
    /// Q-8, E-7: the job of a killed worker runs again after its lease, and once.
    a_job_runs_again_once_when_its_worker_is_killed;
    /// Q-9: while its worker lives, a long job keeps its lease and nobody else gets it.
    a_living_worker_keeps_its_job_for_longer_than_a_lease;
    /// Q-10: what a worker has done while the node was killed counts.
    a_worker_over_the_database_does_not_need_the_node;
}

const CONFIG: &str = "[queue]\nlease_grace = \"0s\"\n";

/// A program that leaves a line in `runs`, then waits until the file `go` is there.
const PROGRAM: &str = r#"#!/bin/sh
cd "$(dirname "$0")" || exit 1
echo run >> runs
while [ ! -e go ]; do sleep 0.05; done
echo '{"done":true}'
"#;

fn program(dir: &Path) -> String {
    let path = dir.join("hold.sh");
    std::fs::write(&path, PROGRAM).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

fn runs(node: &Node) -> usize {
    std::fs::read_to_string(node.dir().join("runs")).unwrap_or_default().lines().count()
}

async fn wait_for_runs(node: &Node, count: usize) {
    wait::until(&format!("run {count}"), async || (runs(node) == count).then_some(())).await;
}

fn start_worker(node: &Node) -> Child {
    let log = node.log_file();
    node.tokio_command()
        .args(["worker", "--database", &node.database(), "--lease", "2s", "-j", "1"])
        .args(["--task", &format!("hold={}", program(node.dir()))])
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// What the spools of this node's machine hold, as it stands on the disk.
fn spooled(node: &Node) -> String {
    let Ok(files) = std::fs::read_dir(node.dir().join("state/minium")) else { return String::new() };
    let spools = files.map(|e| e.unwrap().path()).filter(|p| p.extension().is_some_and(|e| e == "spool"));
    spools.map(|p| String::from_utf8_lossy(&std::fs::read(p).unwrap()).into_owned()).collect()
}

/// Q-10: a result that came while the database was away survives the worker, which is killed meanwhile.
#[tokio::test]
async fn a_result_survives_the_database_and_the_worker() {
    let mut cluster = Cluster::start(ClusterOptions { fsync: true, ..ClusterOptions::default() }).await;
    for inside in [false, true] {
        let url = cluster.create_database(if inside { "inside" } else { "beside" }).await;
        let tasks = if inside { "[tasks.hold]\ncommand = [\"./hold.sh\"]\n" } else { "" };
        let node = Node::start(Options::on(&url).config(tasks)).await;
        let command = program(node.dir());
        let worker = || {
            let log = node.log_file();
            let mut worker = node.tokio_command();
            worker.args(["worker", "--database", &url, "--task", &format!("hold={command}")]).stderr(log);
            worker.spawn().unwrap()
        };
        let mut first = (!inside).then(worker);
        let id = node.enqueue(&json!({ "task": "hold" })).await;
        wait_for_runs(&node, 1).await;
        cluster.stop_immediately();
        std::fs::write(node.dir().join("go"), "").unwrap();
        wait::until("the result on the disk", async || {
            spooled(&node).contains("{\"done\":true}").then_some(())
        })
        .await;
        match &mut first {
            Some(first) => first.kill().await.unwrap(),
            None => node.kill().await,
        }
        cluster.restart().await;
        let _second = match inside {
            false => {
                node.whole().await;
                Some(worker())
            }
            true => {
                node.restart().await;
                None
            }
        };
        let events = upto_end(&node, id).await;
        assert_eq!(kinds(&events), ["task.enqueue", "task.dequeue", "task.finished"], "inside: {inside}");
        let last = &events[2].json["data"];
        assert_eq!((&last["attempt"], &last["result"]), (&json!(1), &json!({ "done": true })));
        assert_eq!(runs(&node), 1);
    }
}

/// Q-17: a run that the worker's end cuts short is known to be over at once, and tried again.
#[tokio::test]
async fn a_run_that_is_stopped_with_its_worker_says_so() {
    let config = "[server]\nshutdown_grace = \"100ms\"\n[tasks.hold]\ncommand = [\"./hold.sh\"]\n";
    let node = Node::start(Options::file().config(config)).await;
    program(node.dir());
    let last = node.enqueue(&json!({ "task": "hold" })).await;
    let again = node.enqueue(&json!({ "task": "hold", "attempts": 2 })).await;
    wait_for_runs(&node, 2).await;
    assert!(node.end(Signal::TERM).await.success());
    node.restart().await;
    for (id, state) in [(last, "failed"), (again, "inactive")] {
        let job = node.get(&format!("/api/v1/jobs/{id}")).await.expect(200);
        assert_eq!((&job["state"], &job["attempt"]), (&json!(state), &json!(1)), "{job}");
        assert!(job["error"].as_str().unwrap().starts_with("the worker was stopped"), "{job}");
    }
}

/// Q-13: a worker that is started while its database is down, or says nothing, waits, and works as soon as that is there.
#[tokio::test]
async fn a_worker_waits_for_a_database_that_is_down_or_silent() {
    let mut cluster = Cluster::start(ClusterOptions::default()).await;
    let url = cluster.create_database("minium").await;
    let node = Node::start(Options::on(&url)).await;
    for silent in [false, true] {
        let id = node.enqueue(&json!({ "task": "quick" })).await;
        if silent {
            cluster.freeze();
        } else {
            cluster.stop_immediately();
        }
        let log = node.dir().join(format!("worker-{silent}.log"));
        let mut worker = node.tokio_command();
        worker.args(["worker", "--database", &url, "--task", "quick=true"]);
        let mut worker = worker.stderr(std::fs::File::create(&log).unwrap()).spawn().unwrap();
        wait::until("the worker to wait", async || {
            let said = std::fs::read_to_string(&log).unwrap();
            said.contains("The database is not there yet").then_some(())
        })
        .await;
        assert!(worker.try_wait().unwrap().is_none(), "it waits");
        if silent {
            cluster.thaw();
        } else {
            cluster.restart().await;
        }
        node.whole().await;
        assert_eq!(node.ended(id).await["state"], "finished", "silent: {silent}");
        assert!(worker.try_wait().unwrap().is_none(), "it works on");
        worker.kill().await.unwrap();
    }
}

/// Q-10: the same of a result that comes while the database says nothing: it is kept, and counts.
#[tokio::test]
async fn a_result_outlives_a_silent_database() {
    let cluster = Cluster::start(ClusterOptions::default()).await;
    let url = cluster.create_database("minium").await;
    let node = Node::start(Options::on(&url)).await;
    let id = node.enqueue(&json!({ "task": "hold", "attempts": 3 })).await;
    let mut worker = node.tokio_command();
    worker.args(["worker", "--database", &url, "--task", &format!("hold={}", program(node.dir()))]);
    let mut worker = worker.stderr(node.log_file()).spawn().unwrap();
    wait_for_runs(&node, 1).await;
    cluster.freeze();
    std::fs::write(node.dir().join("go"), "").unwrap();
    wait::until("the result on the disk", async || spooled(&node).contains("{\"done\":true}").then_some(()))
        .await;
    cluster.thaw();
    node.whole().await;
    let events = upto_end(&node, id).await;
    assert_eq!(kinds(&events), ["task.enqueue", "task.dequeue", "task.finished"]);
    assert_eq!(runs(&node), 1);
    assert!(worker.try_wait().unwrap().is_none(), "it works on");
}

/// Q-11: whatever tells the worker its settings, tokens and passwords among them, is not for its commands.
#[tokio::test]
async fn a_command_inherits_of_the_workers_settings_where_the_node_is_alone() {
    let node = Node::start(Options::file()).await;
    let id = node.enqueue(&json!({ "task": "env" })).await;
    let _worker = node
        .tokio_command()
        .env("MINIUM_DATABASE__URL", node.database())
        .env("MINIUM_TOKEN", "the.secret.token")
        .env("MINIUM_URL", "http://127.0.0.1:1")
        .env("OTHER", "inherited")
        .args(["worker", "--task", "env=env"])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let job = wait::until("the job to end", async || {
        let job = node.get(&format!("/api/v1/jobs/{id}")).await.expect(200);
        (job["state"] == "finished").then_some(job)
    })
    .await;
    let mut seen: Vec<&str> = job["result"].as_str().unwrap().lines().collect();
    assert!(seen.contains(&"OTHER=inherited"), "{seen:?}");
    seen.retain(|line| line.contains("MINIUM") || line.contains("secret"));
    seen.sort_unstable();
    let url = "MINIUM_URL=http://127.0.0.1:1";
    assert_eq!(seen, ["MINIUM_ATTEMPT=1", &format!("MINIUM_JOB_ID={id}"), "MINIUM_TASK=env", url]);
}

/// The events of one job up to its end.
async fn upto_end(node: &Node, id: i64) -> Vec<TaskEvent> {
    let client = Foreign::perl();
    let mut session = client.open(&node.ws(&format!("/sub/task/hold/{id}?after=earliest"))).await;
    let mut events = Vec::new();
    loop {
        events.push(TaskEvent::parse(&session.text().await));
        if matches!(events[events.len() - 1].kind(), "task.finished" | "task.failed") {
            return events;
        }
    }
}

async fn a_job_runs_again_once_when_its_worker_is_killed(options: Options) {
    let node = Node::start(options.config(CONFIG)).await;
    let id = node.enqueue(&json!({ "task": "hold", "attempts": 3 })).await;
    let mut first = start_worker(&node);
    wait_for_runs(&node, 1).await;
    first.kill().await.unwrap();
    let _second = start_worker(&node);
    wait_for_runs(&node, 2).await;
    std::fs::write(node.dir().join("go"), "").unwrap();
    let events = upto_end(&node, id).await;
    let seen = kinds(&events);
    let times = |kind: &str| seen.iter().filter(|k| **k == kind).count();
    assert_eq!(
        (times("task.enqueue"), times("task.dequeue"), times("task.lost"), times("task.finished")),
        (1, 2, 1, 1),
        "{seen:?}"
    );
    let last = &events[events.len() - 1].json["data"];
    assert_eq!((&last["attempt"], &last["result"]), (&json!(2), &json!({ "done": true })));
    assert_eq!(runs(&node), 2);
}

async fn a_living_worker_keeps_its_job_for_longer_than_a_lease(options: Options) {
    let node = Node::start(options.config(CONFIG)).await;
    let id = node.enqueue(&json!({ "task": "hold", "attempts": 3 })).await;
    let _first = start_worker(&node);
    wait_for_runs(&node, 1).await;
    let _second = start_worker(&node);
    // jobs of 1.5 s each, one after the other, are a clock of the system's own: together longer than the lease
    for _ in 0..3 {
        let tick = node.enqueue(&json!({ "task": "tick", "expire": "1500ms" })).await;
        wait::until("a job to expire", async || {
            (node.get(&format!("/api/v1/jobs/{tick}")).await.status == 404).then_some(())
        })
        .await;
    }
    std::fs::write(node.dir().join("go"), "").unwrap();
    let events = upto_end(&node, id).await;
    assert_eq!(kinds(&events), ["task.enqueue", "task.dequeue", "task.finished"]);
    assert_eq!(runs(&node), 1);
}

async fn a_worker_over_the_database_does_not_need_the_node(options: Options) {
    let node = Node::start(options.config(CONFIG)).await;
    let id = node.enqueue(&json!({ "task": "hold" })).await;
    let _worker = start_worker(&node);
    wait_for_runs(&node, 1).await;
    node.kill().await;
    std::fs::write(node.dir().join("go"), "").unwrap();
    node.restart().await;
    let events = upto_end(&node, id).await;
    assert_eq!(kinds(&events), ["task.enqueue", "task.dequeue", "task.finished"]);
    assert_eq!(runs(&node), 1);
}
