//! Workers as processes: the list, what they are told over the command line, and their signals.

use crate::support::node::{Node, Options};
use crate::support::postgres::connect;
use crate::support::{on_both, wait};
use minium_queue::{Backend, DatabaseUrl};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::{Value, json};
use std::process::{ExitStatus, Output};
use tokio::process::Child;

on_both! {
    /// R-1, R-2, C-4: workers are listed, and one that was stopped from outside is stale.
    a_worker_that_is_not_heard_of_is_shown_as_stale;
    /// R-3, R-4: a worker is told to pause, to go on and to end.
    workers_are_steered_by_commands;
    /// R-5: whoever cancels a job or stops its run ends its process.
    a_cancelled_job_s_process_is_gone;
    /// R-4: and is told at once, by its database and not with its heartbeat.
    a_command_does_not_wait_for_a_heartbeat;
    /// A worker that is to end when nothing is left does, and leaves what is for later.
    a_worker_ends_when_nothing_is_left;
    /// R-7: a job is run in the foreground, by nobody else.
    a_job_is_run_in_the_foreground;
}

/// A program that writes its number into `pid`, and waits.
const HOLD: &str = "hold=sh -c 'echo $$ > pid; exec sleep 1000'";

fn start(node: &Node, args: &[&str]) -> Child {
    let log = node.log_file();
    let mut command = node.tokio_command();
    command.args(["worker", "--database", &node.database()]).args(args).stderr(log);
    command.spawn().unwrap()
}

async fn minium(node: &Node, args: &[&str]) -> Output {
    wait::within(&format!("minium {args:?}"), node.tokio_command().args(args).output()).await.unwrap()
}

/// What a command that succeeds prints, as JSON.
async fn says(node: &Node, args: &[&str]) -> Value {
    let output = minium(node, &[args, &["--json"]].concat()).await;
    assert!(output.status.success(), "minium {args:?}: {output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

async fn code(node: &Node, args: &[&str]) -> Option<i32> {
    minium(node, args).await.status.code()
}

/// The one worker that there is, as soon as it is as is asked for.
async fn worker(node: &Node, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    wait::until(what, async || {
        let listed = says(node, &["worker", "ls"]).await;
        let workers = listed["workers"].as_array().unwrap();
        let fitting = workers.iter().find(|worker| worker["kind"] == "minium" && is(worker));
        fitting.cloned()
    })
    .await
}

fn id(worker: &Value) -> String {
    worker["id"].to_string()
}

async fn state(node: &Node, job: i64, state: &str) -> Value {
    wait::until(&format!("job {job} to be {state}"), async || {
        let job = node.get(&format!("/api/v1/jobs/{job}")).await.expect(200);
        (job["state"] == state).then_some(job)
    })
    .await
}

/// The process that a job of [`HOLD`] is.
async fn held(node: &Node) -> Pid {
    wait::until("the process", async || {
        let text = std::fs::read_to_string(node.dir().join("pid")).ok()?;
        Pid::from_raw(text.trim().parse().ok()?)
    })
    .await
}

async fn gone(node: &Node, pid: Pid) {
    wait::until("the process to be gone", async || test_kill_process(pid).is_err().then_some(())).await;
    std::fs::remove_file(node.dir().join("pid")).unwrap();
}

async fn ended(child: &mut Child) -> ExitStatus {
    wait::within("the worker to end", child.wait()).await.unwrap()
}

fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id().expect("it runs")).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// Moves what the workers said into the past.
async fn two_minutes_later(node: &Node) {
    let url: DatabaseUrl = node.database().parse().unwrap();
    match Backend::open(&url).await.unwrap() {
        Backend::Postgres(_) => {
            let client = connect(&node.database()).await.unwrap();
            let sql = "update minium.worker set heartbeat = heartbeat - interval '2 minutes'";
            client.batch_execute(sql).await.unwrap();
        }
        Backend::Sqlite(store) => {
            let sql = "update worker set heartbeat = heartbeat - 120000000";
            store.call(move |conn| conn.execute_batch(sql)).await.unwrap().unwrap();
        }
    }
}

async fn a_worker_that_is_not_heard_of_is_shown_as_stale(options: Options) {
    let node = Node::start(options).await;
    let mut process = start(&node, &["--task", "x=true", "-j", "3", "--spare", "2", "--limit", "x=1"]);
    let shown = worker(&node, "the worker", |worker| worker["state"] == "idle").await;
    assert_eq!(shown["pid"], process.id().unwrap());
    assert_eq!(
        (&shown["concurrency"], &shown["spare"], &shown["limits"]),
        (&json!(3), &json!(2), &json!({"x": 1}))
    );
    assert_eq!((&shown["tasks"], &shown["queues"]), (&json!(["x"]), &json!(["default"])));
    assert_eq!(says(&node, &["worker", "show", &id(&shown)]).await["id"], shown["id"]);
    assert_eq!(code(&node, &["worker", "show", "123456"]).await, Some(3));
    assert_eq!(code(&node, &["worker", "ls", "--state", "dead"]).await, Some(2));
    let figures = async || node.get("/api/v1/stats").await.expect(200);
    assert_eq!(figures().await["inactive_workers"], 1);
    signal(&process, Signal::STOP);
    two_minutes_later(&node).await;
    let stale = worker(&node, "a stale worker", |worker| worker["state"] == "stale").await;
    assert_eq!(stale["id"], shown["id"]);
    let stats = figures().await;
    assert_eq!((&stats["workers"], &stats["stale_workers"]), (&json!(0), &json!(1)));
    signal(&process, Signal::CONT);
    // it looks what it is told with a heartbeat, or at once when it is woken: then it says how it fares
    says(&node, &["worker", "broadcast", "spare", "1"]).await;
    worker(&node, "it is back", |worker| worker["state"] == "idle" && worker["spare"] == 1).await;
    signal(&process, Signal::TERM);
    assert!(ended(&mut process).await.success());
    assert_eq!(says(&node, &["worker", "ls"]).await["workers"], json!([]));
}

async fn workers_are_steered_by_commands(options: Options) {
    let node = Node::start(options).await;
    let mut process = start(&node, &["--task", "x=true"]);
    let number = id(&worker(&node, "the worker", |_| true).await);
    assert_eq!(says(&node, &["worker", "command", &number, "pause"]).await, json!({ "sent": 1 }));
    worker(&node, "a pause", |worker| worker["paused"] == true).await;
    let job = node.enqueue(&json!({ "task": "x" })).await;
    assert_eq!(says(&node, &["worker", "broadcast", "resume", "--to", &number]).await, json!({ "sent": 1 }));
    state(&node, job, "finished").await;
    assert_eq!(says(&node, &["worker", "broadcast", "pause", "--to", "123456"]).await, json!({ "sent": 0 }));
    assert_eq!(code(&node, &["worker", "command", "123456", "pause"]).await, Some(3));
    for words in [&["concurrency"][..], &["concurrency", "many"], &["signal", "1", "STOP"], &["a b"]] {
        let args = [&["worker", "command", &number], words].concat();
        assert_eq!(code(&node, &args).await, Some(2), "{words:?}");
    }
    let bad = node.post("/api/v1/workers:broadcast", r#"{"command":"pause","to":[1]}"#).await;
    bad.problem(400, "invalid_request");
    says(&node, &["worker", "broadcast", "shutdown"]).await;
    assert!(ended(&mut process).await.success());
}

/// The next heartbeat by itself comes long after the test has ended. One that tells of a change is followed by a look, so that
/// each word is sent after that: what the one before has changed is shown.
async fn a_command_does_not_wait_for_a_heartbeat(options: Options) {
    let node = Node::start(options).await;
    let _process = start(&node, &["--task", "x=true", "--heartbeat", "10h"]);
    let number = id(&worker(&node, "the worker", |_| true).await);
    for slots in [3, 5, 2, 7, 1] {
        says(&node, &["worker", "command", &number, "concurrency", &slots.to_string()]).await;
        worker(&node, "as many slots", |worker| worker["concurrency"] == slots).await;
    }
}

async fn a_worker_ends_when_nothing_is_left(options: Options) {
    let node = Node::start(options).await;
    let mut request = json!({ "task": "x" });
    for _ in 0..5 {
        let parent = node.enqueue(&request).await;
        request["parents"] = json!([parent]);
    }
    let last = node.enqueue(&request).await;
    let again = node.enqueue(&json!({ "task": "bad", "attempts": 2 })).await;
    let later = node.enqueue(&json!({ "task": "x", "delay": "1h" })).await;
    let foreign = node.enqueue(&json!({ "task": "foreign" })).await;
    let mut process =
        start(&node, &["--task", "x=true", "--task", "bad=false", "--backoff", "bad=1000s", "--until-empty"]);
    assert!(ended(&mut process).await.success());
    state(&node, last, "finished").await;
    for id in [again, later, foreign] {
        assert_eq!(node.job(id).await["state"], "inactive");
    }
    let again = node.job(again).await;
    let time = |name: &str| again[name].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let pause = time("delayed").duration_since(time("retried")).as_secs();
    assert!((900..=1_100).contains(&pause), "its task's pause, a tenth more or less: {pause}");
    // there is nothing more to do, and it does not wait for what there may be
    let mut process = start(&node, &["--task", "x=true", "--until-empty"]);
    assert!(ended(&mut process).await.success());
}

async fn a_cancelled_job_s_process_is_gone(options: Options) {
    let node = Node::start(options).await;
    let _process = start(&node, &["--task", HOLD]);
    let job = node.enqueue(&json!({ "task": "hold" })).await;
    let pid = held(&node).await;
    assert!(minium(&node, &["job", "cancel", &job.to_string()]).await.status.success());
    gone(&node, pid).await;
    let job = node.enqueue(&json!({ "task": "hold" })).await;
    let pid = held(&node).await;
    says(&node, &["worker", "broadcast", "stop", &job.to_string()]).await;
    gone(&node, pid).await;
    let failed = state(&node, job, "failed").await;
    assert!(failed["error"].as_str().unwrap().starts_with("stopped by an operator"), "{failed}");
    let job = node.enqueue(&json!({ "task": "hold" })).await;
    let pid = held(&node).await;
    says(&node, &["worker", "broadcast", "signal", &job.to_string(), "KILL"]).await;
    gone(&node, pid).await;
    assert_eq!(state(&node, job, "failed").await["error"], "killed by signal 9 (SIGKILL)");
}

/// R-6: SIGQUIT kills what runs, and the job runs again by its lease.
#[tokio::test]
async fn a_worker_that_quits_kills_its_jobs() {
    let node = Node::start(Options::file().config("[queue]\nlease_grace = \"0s\"\n")).await;
    let mut process = start(&node, &["--task", HOLD, "--lease", "2s"]);
    let job = node.enqueue(&json!({ "task": "hold", "attempts": 2 })).await;
    let pid = held(&node).await;
    signal(&process, Signal::QUIT);
    assert_eq!(ended(&mut process).await.code(), Some(1));
    gone(&node, pid).await;
    let waiting = state(&node, job, "inactive").await;
    assert_eq!((&waiting["attempt"], &waiting["error"]), (&json!(1), &Value::Null));
    let mut process = start(&node, &["--task", HOLD, "--lease", "2s"]);
    let pid = held(&node).await;
    // a first signal lets jobs end, a second one does not; what comes at once is one word
    signal(&process, Signal::INT);
    wait::until("it to end", async || {
        signal(&process, Signal::INT);
        process.try_wait().unwrap()
    })
    .await;
    gone(&node, pid).await;
}

async fn a_job_is_run_in_the_foreground(options: Options) {
    let node =
        Node::start(options.config("[tasks.x]\ncommand = [\"false\"]\n[worker]\nqueues = [\"default\"]\n"))
            .await;
    let database = node.database();
    let run = async |job: i64, task: &str| {
        minium(&node, &["job", "run", &job.to_string(), "--task", task, "--database", &database]).await
    };
    let job = node.enqueue(&json!({ "task": "x", "args": [7] })).await;
    state(&node, job, "failed").await;
    let output = run(job, "x=sh -c 'echo at work >&2; cat'").await;
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "[7]");
    assert!(String::from_utf8_lossy(&output.stderr).contains("at work\n"), "{output:?}");
    let done = state(&node, job, "finished").await;
    assert!(done["queue"].as_str().unwrap().starts_with("foreground/"), "{done}");
    assert_eq!(done["attempt"], 2);
    let output = run(job, "x=sh -c 'echo no such disk >&2; exit 3'").await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let failed = state(&node, job, "failed").await;
    assert_eq!(
        (&failed["error"], &failed["attempts"]),
        (&json!("exited with code 3: no such disk"), &json!(3))
    );
    assert_eq!(run(job + 1_000, "x=true").await.status.code(), Some(3));
    let parent = node.enqueue(&json!({ "task": "idle" })).await;
    assert_eq!(run(parent, "other=true").await.status.code(), Some(2), "its task has no command");
    let child = node.enqueue(&json!({ "task": "x", "parents": [parent] })).await;
    assert_eq!(run(child, "x=true").await.status.code(), Some(7), "it waits for another job");
}
