//! Tasks that are programs, run for real.

use crate::harness::{self, Queue, Started, options, request, start, until, with};
use minium_protocol::{Job, State, TraceContext};
use minium_queue::Store;
use minium_worker::{CommandTask, Sandbox, Worker, WorkerError, WorkerOptions};
use serde_json::{Value, json};
use std::process::Stdio;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

fn shell(name: &str, line: &str) -> CommandTask {
    CommandTask { name: name.into(), command: vec![line.into()], shell: true, ..CommandTask::default() }
}

fn worker(queue: &Queue, task: CommandTask) -> Started {
    start(Worker::new(queue.source(), options()).command(task))
}

/// Runs one job of one command to its end.
async fn run(task: CommandTask, args: Value) -> (Queue, Job) {
    let queue = Queue::new().await;
    let name = task.name.clone();
    let worker = worker(&queue, task);
    let id = queue.enqueue(request(&name, &args)).await;
    let job = queue.ended(id).await;
    worker.stop().await;
    (queue, job)
}

async fn result(line: &str, args: Value) -> Value {
    let (_, job) = run(shell("x", line), args).await;
    assert_eq!(job.state, State::Finished, "{job:?}");
    harness::result(&job)
}

async fn error(line: &str) -> String {
    let (_, job) = run(shell("x", line), json!([])).await;
    assert_eq!(job.state, State::Failed, "{job:?}");
    job.error.unwrap()
}

/// Gone, or dead and waiting for a parent that never asks.
pub(crate) fn is_gone(pid: i64) -> bool {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z')),
        Err(_) => true,
    }
}

#[tokio::test]
async fn arguments_come_on_stdin_and_stdout_is_the_result() {
    assert_eq!(result("cat", json!([{"rows": 10}, "ä"])).await, json!([{"rows": 10}, "ä"]));
    assert_eq!(result("echo plain words", json!([])).await, json!("plain words"));
    assert_eq!(result("true", json!([])).await, Value::Null);
    assert_eq!(result("read line; echo \"$line\"", json!([1])).await, json!([1]));
}

#[tokio::test]
async fn output_that_is_not_utf_8_is_kept_readable() {
    assert_eq!(result("printf 'a\\377b'", json!([])).await, json!("a\u{fffd}b"));
}

#[tokio::test]
async fn without_a_shell_the_words_go_to_the_program_as_they_are() {
    let task = CommandTask::parse("x=echo $HOME '; rm' *", false).unwrap();
    let (_, job) = run(task, json!([])).await;
    assert_eq!(job.result.unwrap().get(), "\"$HOME ; rm *\"");
}

#[tokio::test]
async fn a_command_knows_its_job() {
    let queue = Queue::new().await;
    let line =
        r#"echo "[$MINIUM_JOB_ID, \"$MINIUM_TASK\", $MINIUM_ATTEMPT, \"$TRACEPARENT\", \"$TRACESTATE\"]""#;
    let worker = worker(&queue, shell("a/b", line));
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let id = queue
        .enqueue(with(request("a/b", &json!([])), |o| o.trace = TraceContext::new(trace, Some("a=1"))))
        .await;
    assert_eq!(queue.finished(id).await, json!([id, "a/b", 1, trace, "a=1"]));
    worker.stop().await;
}

#[tokio::test]
async fn lines_on_stderr_become_progress_and_notes_before_the_end() {
    let line =
        "echo '::progress 40 half way' >&2; echo '::note disk={\"size\":3}' >&2; echo talk >&2; echo 1";
    let (queue, job) = run(shell("x", line), json!([])).await;
    assert_eq!(job.state, State::Finished);
    let progress = job.progress.unwrap();
    assert_eq!((progress.percent, progress.text.as_deref()), (40.0, Some("half way")));
    assert_eq!(job.notes["disk"]["size"], 3);
    let types = queue.types(job.id).await;
    assert_eq!(types.last().map(String::as_str), Some("task.finished"));
    assert!(types.iter().any(|t| t == "task.progress"), "{types:?}");
}

#[tokio::test]
async fn a_chatty_command_makes_few_events_and_the_last_word_counts() {
    let line = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); echo \"::note n=$i\" >&2; done";
    let (queue, job) = run(shell("x", line), json!([])).await;
    assert_eq!(job.notes["n"], 20_000);
    let events = queue.types(job.id).await.len();
    assert!(events < 2_000, "{events} events for 20,000 lines");
}

#[tokio::test]
async fn an_exit_code_is_a_failure_with_the_end_of_stderr() {
    assert_eq!(
        error("echo first >&2; echo no such disk >&2; exit 3").await,
        "exited with code 3: first\nno such disk"
    );
    assert_eq!(error("echo '::progress 1' >&2; exit 1").await, "exited with code 1");
    let long = error("i=0; while [ $i -lt 9000 ]; do i=$((i+1)); echo line $i; done >&2; exit 1").await;
    assert!(long.len() <= 8 * 1024 && long.ends_with("line 9000"), "{} bytes", long.len());
}

#[tokio::test]
async fn a_signal_is_a_failure_that_names_it() {
    assert_eq!(error("kill -SEGV $$").await, "killed by signal 11 (SIGSEGV)");
}

#[tokio::test]
async fn a_program_that_is_not_there_is_a_failure_that_names_it() {
    let task = CommandTask::parse("x=/no/such/program -v", false).unwrap();
    let (_, job) = run(task, json!([])).await;
    let error = job.error.unwrap();
    assert!(error.contains("/no/such/program") && error.contains("No such file"), "{error}");
}

#[tokio::test]
async fn too_much_on_stdout_is_a_failure_and_ends_the_command() {
    assert_eq!(error("exec yes").await, "stdout has more than 1048576 bytes");
}

#[tokio::test]
async fn a_program_need_not_read_its_input() {
    let (_, job) = run(shell("x", "exec <&-; echo 1"), json!(["x".repeat(1_000_000)])).await;
    assert_eq!((job.state, job.result.unwrap().get()), (State::Finished, "1"));
}

#[tokio::test]
async fn a_program_that_reads_and_writes_much_does_not_lock_up() {
    let args = json!(["x".repeat(500_000)]);
    let (_, job) = run(shell("x", "tee /dev/stderr"), args.clone()).await;
    assert_eq!(job.state, State::Finished, "{:?}", job.error);
    assert_eq!(job.result.unwrap().get(), args.to_string());
}

/// A command whose child would live on: it says the child's number and waits.
const PARENT: &str = "sleep 1000 & echo \"::note child=$!\" >&2; wait";

async fn child(queue: &Queue, id: i64) -> i64 {
    let job = queue.until(id, |job| job.notes.contains_key("child")).await;
    job.notes["child"].as_i64().unwrap()
}

#[tokio::test]
async fn a_time_out_kills_the_command_with_its_children() {
    let queue = Queue::new().await;
    let worker = worker(&queue, CommandTask { timeout: Some(Duration::from_secs(1)), ..shell("x", PARENT) });
    let id = queue.enqueue(request("x", &json!([]))).await;
    let child = child(&queue, id).await;
    assert_eq!(queue.failed(id).await, "timed out after 1s");
    until("the grandchild is gone", || is_gone(child)).await;
    worker.stop().await;
}

#[tokio::test]
async fn who_ignores_the_polite_signal_gets_the_other_one() {
    let queue = Queue::new().await;
    let stubborn = format!("trap '' TERM; {PARENT}; while :; do sleep 1; done");
    let worker =
        worker(&queue, CommandTask { timeout: Some(Duration::from_secs(1)), ..shell("x", &stubborn) });
    let id = queue.enqueue(request("x", &json!([]))).await;
    let child = child(&queue, id).await;
    assert_eq!(queue.failed(id).await, "timed out after 1s");
    until("the grandchild is gone", || is_gone(child)).await;
    worker.stop().await;
}

#[tokio::test]
async fn cancelling_a_job_kills_its_command_with_its_children() {
    let queue = Queue::new().await;
    let worker = worker(&queue, shell("x", PARENT));
    let id = queue.enqueue(request("x", &json!([]))).await;
    let child = child(&queue, id).await;
    queue.store.cancel(id).await.unwrap();
    until("the grandchild is gone", || is_gone(child)).await;
    worker.stop().await;
    assert_eq!(queue.job(id).await.state, State::Cancelled);
}

#[tokio::test]
async fn shutdown_kills_commands_that_do_not_end_within_the_grace() {
    let queue = Queue::new().await;
    let hasty = WorkerOptions { grace: Duration::ZERO, ..options() };
    let worker = start(Worker::new(queue.source(), hasty).command(shell("x", PARENT)));
    let id = queue.enqueue(request("x", &json!([]))).await;
    let child = child(&queue, id).await;
    worker.stop().await;
    until("the grandchild is gone", || is_gone(child)).await;
    assert_eq!(queue.failed(id).await, "the worker was stopped: killed by signal 15 (SIGTERM)");
}

#[tokio::test]
async fn what_a_command_leaves_behind_ends_with_it_and_holds_nothing_up() {
    let queue = Queue::new().await;
    let worker = worker(&queue, shell("x", "sleep 1000 & echo \"::note child=$!\" >&2; echo 7"));
    let id = queue.enqueue(request("x", &json!([]))).await;
    let child = child(&queue, id).await;
    assert_eq!(queue.finished(id).await, json!(7));
    until("it is gone", || is_gone(child)).await;
    worker.stop().await;
}

/// Not a test of its own: the test below starts this binary again, to become a command.
#[test]
fn becoming_a_command() {
    if let Some(line) = std::env::var_os("MINIUM_TEST_BECOME") {
        let words = ["/bin/sh".into(), "-c".into(), line];
        panic!("it did not become the command: {}", minium_worker::become_command(None, None, &words));
    }
}

#[tokio::test]
async fn a_command_that_is_launched_for_it_dies_with_a_worker_that_is_killed() {
    let me = std::env::current_exe().unwrap();
    // the shell stands for the worker
    let line = format!("{me:?} --exact commands::becoming_a_command --nocapture & wait");
    let mut parent = tokio::process::Command::new("/bin/sh")
        .args(["-c", &line])
        .env("MINIUM_TEST_BECOME", "echo pid=$$; exec sleep 1000")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = {
        use tokio::io::{AsyncBufReadExt, BufReader};
        BufReader::new(parent.stdout.take().unwrap()).lines()
    };
    let pid: i64 = loop {
        let line = lines.next_line().await.unwrap().expect("the command says its number");
        if let Some(pid) = line.rsplit("pid=").next().and_then(|n| n.parse().ok()) {
            break pid;
        }
    };
    assert!(!is_gone(pid));
    parent.kill().await.unwrap();
    until("the command is gone too", || is_gone(pid)).await;
}

#[tokio::test]
async fn a_sandbox_without_a_launcher_is_refused_before_anything_is_claimed() {
    let queue = Queue::new().await;
    let id = queue.enqueue(request("x", &json!([]))).await;
    let held = WorkerOptions { sandbox: Some(Sandbox::default()), ..options() };
    let worker = Worker::new(queue.source(), held).command(shell("x", "true"));
    let error = worker.run(CancellationToken::new()).await.unwrap_err();
    assert!(matches!(error, WorkerError::Sandbox(_)), "{error}");
    assert!(error.to_string().starts_with("sandbox_unavailable: this worker has no launcher"), "{error}");
    let task =
        CommandTask { sandbox: Some(Sandbox { alone: true, ..Sandbox::default() }), ..shell("x", "true") };
    let error =
        Worker::new(queue.source(), options()).command(task).run(CancellationToken::new()).await.unwrap_err();
    assert!(matches!(error, WorkerError::SandboxField { field: "alone", .. }), "{error}");
    assert_eq!(queue.job(id).await.state, State::Inactive);
}
