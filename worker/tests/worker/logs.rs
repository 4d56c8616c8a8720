//! What tasks and commands say, line by line, and what is left of it when it is much or the source is away.

use crate::harness::{Queue, Wire, options, request, start, until, with};
use minium_protocol::{Job, KeptLine, LogLevel, State};
use minium_queue::Logs;
use minium_worker::{CommandTask, JobContext, Worker, WorkerOptions};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::Notify;

async fn log(queue: &Queue, id: i64) -> Vec<KeptLine> {
    queue.store.log(id, 0, 1_000).await.unwrap().lines
}

async fn texts(queue: &Queue, id: i64) -> Vec<String> {
    log(queue, id).await.into_iter().map(|line| line.text).collect()
}

#[tokio::test]
async fn lines_are_written_together_and_before_the_end() {
    let queue = Queue::new().await;
    let task = |job: JobContext, _: Value| async move {
        job.step("source downloaded");
        job.log(LogLevel::Warn, format!("disk {}", "full"));
        job.note("rows", 10);
        Ok::<_, Infallible>(())
    };
    let worker = start(Worker::new(queue.source(), options()).task("x", task));
    let id = queue.enqueue(request("x", &json!([]))).await;
    queue.finished(id).await;
    worker.stop().await;
    let types = queue.types(id).await;
    assert_eq!(
        types,
        ["task.enqueue", "task.dequeue", "task.progress", "task.finished"],
        "one event for all"
    );
    let lines = log(&queue, id).await;
    let seen: Vec<_> = lines.iter().map(|line| (line.attempt, line.level, line.text.as_str())).collect();
    assert_eq!(seen, [(1, LogLevel::Step, "source downloaded"), (1, LogLevel::Warn, "disk full")]);
    let job = queue.job(id).await;
    assert!(
        job.started.unwrap() <= lines[0].at && lines[1].at <= job.finished.unwrap(),
        "told when they were said"
    );
}

#[tokio::test]
async fn a_flush_writes_every_line_that_was_said() {
    let queue = Queue::new().await;
    let slow = WorkerOptions { annotation_interval: Duration::from_secs(3_600), ..options() };
    let store = queue.store.clone();
    let task = move |job: JobContext, _: Value| {
        let store = store.clone();
        async move {
            // more than one call takes, and nobody waits an hour between them
            (0..1_000).for_each(|n| job.log(LogLevel::Info, format!("{n} {}", "x".repeat(100))));
            job.flush().await;
            Ok::<_, Infallible>(store.log(job.id(), 0, 1_000).await.unwrap().lines.len())
        }
    };
    let worker = start(Worker::new(queue.source(), slow).task("x", task));
    let id = queue.enqueue(request("x", &json!([]))).await;
    assert_eq!(queue.finished(id).await, json!(1_000));
    worker.stop().await;
    assert!(queue.types(id).await.len() > 4, "in several calls");
}

#[tokio::test]
async fn who_says_more_than_can_be_written_is_told_how_much_is_missing() {
    let queue = Queue::new().await;
    let task = |job: JobContext, _: Value| async move {
        (1..=20_000).for_each(|n| job.log(LogLevel::Info, n.to_string()));
        Ok::<_, Infallible>(())
    };
    let worker = start(Worker::new(queue.source(), options()).task("x", task));
    let id = queue.enqueue(request("x", &json!([]))).await;
    queue.finished(id).await;
    worker.stop().await;
    let events = queue.types(id).await.len();
    assert!(events < 100, "{events} events for 20,000 lines");
    let page = queue.store.log(id, 0, 1_000).await.unwrap();
    let texts: Vec<_> = page.lines.iter().map(|line| line.text.as_str()).collect();
    let notice = "19001 lines were dropped here: more were said than could be written";
    assert_eq!((page.dropped, texts.len(), &texts[..2]), (0, 1_000, &[notice, "19002"][..]));
    assert_eq!((page.lines[0].level, texts.last()), (LogLevel::Warn, Some(&"20000")));
}

#[tokio::test]
async fn lines_are_there_once_when_the_source_was_away_or_its_answers_were_lost() {
    let queue = Queue::new().await;
    let wire = Wire::new(&queue);
    let (state, go_on, flushed) = (wire.state.clone(), Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (going, flushing) = (go_on.clone(), flushed.clone());
    let task = move |job: JobContext, _: Value| {
        let (going, flushing) = (going.clone(), flushing.clone());
        async move {
            job.log(LogLevel::Info, "before");
            job.flush().await;
            flushing.notify_one();
            going.notified().await;
            (0..5).for_each(|n| job.log(LogLevel::Info, format!("away {n}")));
            going.notified().await;
            job.log(LogLevel::Info, "after");
            Ok::<_, Infallible>(())
        }
    };
    let worker = start(Worker::new(wire, options()).task("x", task));
    let id = queue.enqueue(request("x", &json!([]))).await;
    // its answer is there, too: only what comes from now on is said in vain
    flushed.notified().await;
    assert_eq!(texts(&queue, id).await, ["before"]);
    state.deaf.store(true, Ordering::SeqCst);
    let before = state.annotations.load(Ordering::SeqCst);
    go_on.notify_one();
    until("the lines to be said in vain several times", || {
        state.annotations.load(Ordering::SeqCst) > before + 3
    })
    .await;
    state.deaf.store(false, Ordering::SeqCst);
    state.cut.store(true, Ordering::SeqCst);
    go_on.notify_one();
    until("the last line to be said to nobody", || state.unheard.load(Ordering::SeqCst) > 0).await;
    state.cut.store(false, Ordering::SeqCst);
    queue.finished(id).await;
    worker.stop().await;
    let expected = ["before", "away 0", "away 1", "away 2", "away 3", "away 4", "after"];
    assert_eq!(texts(&queue, id).await, expected);
}

#[tokio::test]
async fn notes_that_are_refused_cost_no_line() {
    let queue = Queue::new().await;
    let task = |job: JobContext, _: Value| async move {
        for n in 0..6 {
            // the fifth is beyond what a job may have
            job.note(format!("note {n}"), "x".repeat(60_000));
            job.log(LogLevel::Info, format!("line {n}"));
            job.flush().await;
        }
        Ok::<_, Infallible>(())
    };
    let worker = start(Worker::new(queue.source(), options()).task("x", task));
    let id = queue.enqueue(request("x", &json!([]))).await;
    queue.finished(id).await;
    worker.stop().await;
    assert_eq!(queue.job(id).await.notes.len(), 4);
    let expected: Vec<_> = (0..6).map(|n| format!("line {n}")).collect();
    assert_eq!(texts(&queue, id).await, expected);
}

/// Runs one command to its end.
async fn run(line: &str, options: WorkerOptions) -> (Queue, Job) {
    let queue = Queue::new().await;
    let command = CommandTask {
        name: "x".into(),
        command: vec![line.into()],
        timeout: None,
        shell: true,
        lasting: None,
        sandbox: None,
    };
    let worker = start(Worker::new(queue.source(), options).command(command));
    let id = queue.enqueue(with(request("x", &json!([])), |o| o.attempts = 1)).await;
    let job = queue.ended(id).await;
    worker.stop().await;
    (queue, job)
}

const TALK: &str = "echo '::step source downloaded' >&2; echo '  talk ' >&2; echo >&2; echo '::log error no disk' >&2; \
                    echo '::log loud words' >&2; exit 3";

#[tokio::test]
async fn what_a_command_writes_to_stderr_is_its_log() {
    let (queue, job) = run(TALK, options()).await;
    let lines: Vec<_> = log(&queue, job.id).await.into_iter().map(|line| (line.level, line.text)).collect();
    let expected = [
        (LogLevel::Step, "source downloaded"),
        (LogLevel::Info, "  talk"),
        (LogLevel::Error, "no disk"),
        (LogLevel::Info, "::log loud words"),
    ];
    assert_eq!(lines, expected.map(|(level, text)| (level, text.to_owned())));
    assert_eq!(job.state, State::Failed);
    let error = job.error.unwrap();
    assert_eq!(
        error, "exited with code 3: talk \n\n::log loud words",
        "what is for the log is not why it failed"
    );
}

#[tokio::test]
async fn ordinary_lines_can_be_kept_out_of_the_log() {
    let (queue, job) = run(TALK, WorkerOptions { log_stderr: false, ..options() }).await;
    assert_eq!(texts(&queue, job.id).await, ["source downloaded", "no disk"]);
    assert!(job.error.unwrap().contains("talk"), "they explain a failure all the same");
}

#[tokio::test]
async fn a_line_that_is_too_long_is_seen_to_be_cut() {
    let (queue, job) = run(
        "head -c 8192 /dev/zero | tr '\\0' x >&2; echo >&2; head -c 8193 /dev/zero | tr '\\0' y >&2",
        options(),
    )
    .await;
    let texts = texts(&queue, job.id).await;
    assert_eq!(texts[0], "x".repeat(8_192));
    assert!(texts[1].len() <= 8_192 && texts[1].ends_with("y…"), "{}", texts[1].len());
}
