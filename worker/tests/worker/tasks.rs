//! Typed Rust tasks: arguments, results, failures, notes, time-outs, cancellation.

use crate::harness::{Queue, Wire, options, request, start, until, with, with_upkeep};
use minium_protocol::{SchemaFault, State};
use minium_queue::Store;
use minium_worker::{ArgsCheck, Failure, JobContext, TaskBackoff, Worker, WorkerError, WorkerOptions};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

#[derive(Deserialize)]
struct Rows {
    from: i64,
    to: i64,
}

#[derive(Serialize)]
struct Sum {
    rows: i64,
}

async fn sum(_: JobContext, (rows,): (Rows,)) -> Result<Sum, Infallible> {
    Ok(Sum { rows: (rows.from..=rows.to).sum() })
}

#[tokio::test]
async fn a_task_gets_its_arguments_and_its_result_is_kept() {
    let queue = Queue::new().await;
    let worker = start(Worker::new(queue.source(), options()).task("sum", sum));
    let id = queue.enqueue(request("sum", &json!([{"from": 1, "to": 4}]))).await;
    assert_eq!(queue.finished(id).await, json!({"rows": 10}));
    assert_eq!(queue.types(id).await, ["task.enqueue", "task.dequeue", "task.finished"]);
    let by = queue.job(id).await.worker.unwrap();
    assert_eq!(by.pid, std::process::id());
    worker.stop().await;
    assert_eq!(queue.store.stats().await.unwrap().workers, 0, "it signed off");
}

#[tokio::test]
async fn arguments_that_do_not_fit_fail_the_job_for_good() {
    let queue = Queue::new().await;
    let worker = start(Worker::new(queue.source(), options()).task("sum", sum));
    let id = queue.enqueue(with(request("sum", &json!([{"from": "one"}])), |o| o.attempts = 3)).await;
    let error = queue.failed(id).await;
    assert!(error.contains("arguments do not fit") && error.contains("one"), "{error}");
    worker.stop().await;
    assert_eq!(queue.types(id).await, ["task.enqueue", "task.dequeue", "task.failed"]);
}

#[tokio::test]
async fn a_panic_fails_its_job_and_no_other() {
    let queue = Queue::new().await;
    let boom = |_: JobContext, args: Vec<i64>| async move { Ok::<_, Infallible>(10 / args[0]) };
    let ids = [
        queue.enqueue(request("boom", &json!([0]))).await,
        queue.enqueue(request("boom", &json!([5]))).await,
        queue.enqueue(request("boom", &json!([]))).await,
    ];
    let worker = start(Worker::new(queue.source(), options()).task("boom", boom));
    assert!(queue.failed(ids[0]).await.contains("the task panicked: attempt to divide by zero"));
    assert_eq!(queue.finished(ids[1]).await, json!(2));
    assert!(queue.failed(ids[2]).await.contains("index out of bounds"));
    worker.stop().await;
}

#[tokio::test]
async fn an_error_is_retried_while_attempts_are_left() {
    let queue = Queue::new().await;
    let flaky = |job: JobContext, _: Vec<Value>| async move {
        if job.attempt() < 3 { Err(std::io::Error::other("no luck")) } else { Ok(job.attempt()) }
    };
    let worker = start(Worker::new(queue.source(), with_upkeep()).task("flaky", flaky));
    let quick = |o: &mut minium_protocol::JobOptions| {
        (o.attempts, o.backoff) = (3, Some(Duration::from_millis(1)));
    };
    let id = queue.enqueue(with(request("flaky", &json!([])), quick)).await;
    let job = queue.until(id, |job| job.state == State::Finished).await;
    assert_eq!((job.attempt, job.retries), (3, 2));
    let failures = queue.events(id).await;
    let failures: Vec<_> = failures.iter().filter(|(t, _, _)| t == "task.failed").collect();
    assert_eq!(failures.len(), 2);
    assert_eq!(failures[0].1.error.as_deref(), Some("no luck"));
    worker.stop().await;
}

/// The pause is what the run says, else what the job says, else what its task has in this worker.
#[tokio::test]
async fn pauses_before_a_retry_are_what_run_job_and_task_say() {
    let queue = Queue::new().await;
    let first = Duration::from_secs(1_000);
    let steady = TaskBackoff { first, jitter: 0.0, ..TaskBackoff::default() };
    let options = WorkerOptions { backoffs: [("fails".to_owned(), steady)].into(), ..options() };
    let fails = |_: JobContext, says: Option<u64>| async move {
        Err::<(), _>(match says {
            Some(says) => Failure::retry_in(Duration::from_secs(says), "not yet"),
            None => Failure::retryable("no luck"),
        })
    };
    let worker = start(
        Worker::new(queue.source(), options)
            .task("fails", fails)
            .task("other", |_, _: Value| async { Err::<(), _>(Failure::retryable("no luck")) }),
    );
    let pause = async |task: &str, run: Value, job: Option<u64>| {
        let demands = |o: &mut minium_protocol::JobOptions| {
            (o.attempts, o.backoff) = (2, job.map(Duration::from_secs));
        };
        let id = queue.enqueue(with(request(task, &run), demands)).await;
        let job = queue.until(id, |job| job.retries == 1).await;
        assert_eq!((job.state, job.attempt), (State::Inactive, 1));
        job.delayed.duration_since(job.retried.unwrap()).as_secs()
    };
    assert_eq!(pause("fails", Value::Null, None).await, 1_000, "its task's");
    assert_eq!(pause("fails", Value::Null, Some(100)).await, 100, "its own");
    assert_eq!(pause("fails", json!(500), None).await, 500, "its run's");
    assert_eq!(pause("fails", json!(500), Some(100)).await, 500, "its run's all the same");
    assert!((13..=17).contains(&pause("other", Value::Null, None).await), "the default");
    worker.stop().await;
}

/// Puts itself off once, for so long, and has finished the next time.
fn not_now(pause: Duration) -> impl Fn(JobContext, Value) -> Puts + Send + Sync + 'static {
    let begun = Arc::new(AtomicBool::new(false));
    move |job, _| {
        let again = begun.swap(true, Ordering::SeqCst);
        Box::pin(async move { if again { Ok(job.attempt()) } else { Err(Failure::postpone(pause)) } })
    }
}

type Puts = std::pin::Pin<Box<dyn Future<Output = Result<i32, Failure>> + Send>>;

#[tokio::test]
async fn a_task_puts_itself_off_without_using_an_attempt_up() {
    let queue = Queue::new().await;
    let task = not_now(Duration::from_millis(1));
    let worker = start(Worker::new(queue.source(), with_upkeep()).task("later", task));
    let id = queue.enqueue(request("later", &json!([]))).await;
    assert_eq!(queue.finished(id).await, json!(1), "the first attempt, and the only one");
    worker.stop().await;
    let told = ["task.enqueue", "task.dequeue", "task.retry", "task.dequeue", "task.finished"];
    assert_eq!(queue.types(id).await, told);
    let events = queue.events(id).await;
    assert_eq!((events[2].1.attempt, events[2].1.state), (0, State::Inactive));
    assert!(queue.store.failures(id).await.unwrap().is_empty(), "it is no failure");
}

/// The word is said until it is heard, and what became of it does not depend on its answer.
#[tokio::test]
async fn a_word_that_puts_a_job_off_is_said_until_it_is_heard() {
    let queue = Queue::new().await;
    let wire = Wire::new(&queue);
    let state = wire.state.clone();
    let cut = state.clone();
    let task = move |_: JobContext, _: Value| {
        cut.cut.store(true, Ordering::SeqCst);
        async { Err::<(), _>(Failure::postpone(Duration::from_secs(1_000))) }
    };
    let worker = start(Worker::new(wire, options()).task("cut", task));
    let id = queue.enqueue(request("cut", &json!([]))).await;
    until("it is said again", || state.postponed.load(Ordering::SeqCst) > 2).await;
    assert_eq!(queue.job(id).await.state, State::Active);
    state.cut.store(false, Ordering::SeqCst);
    queue.until(id, |job| job.state == State::Inactive).await;
    worker.stop().await;
    assert_eq!(queue.types(id).await, ["task.enqueue", "task.dequeue", "task.retry"]);
    assert_eq!(queue.job(id).await.attempt, 0);
}

/// Where the source has no word for it, the run fails, with the same pause.
#[tokio::test]
async fn a_task_that_cannot_be_put_off_has_failed_with_its_pause() {
    let queue = Queue::new().await;
    let wire = Wire::new(&queue);
    wire.state.no_postponing.store(true, Ordering::SeqCst);
    let worker = start(Worker::new(wire, options()).task("later", not_now(Duration::from_secs(500))));
    let id = queue.enqueue(with(request("later", &json!([])), |o| o.attempts = 2)).await;
    let job = queue.until(id, |job| job.retries == 1).await;
    worker.stop().await;
    assert_eq!((job.attempt, job.error.as_deref()), (1, Some("put off for 500s")));
    assert_eq!(job.delayed.duration_since(job.retried.unwrap()).as_secs(), 500);
}

#[tokio::test]
async fn a_permanent_failure_is_not_retried() {
    let queue = Queue::new().await;
    let never = |_: JobContext, _: Value| async { Err::<(), _>(Failure::permanent("not here")) };
    let worker = start(Worker::new(queue.source(), with_upkeep()).task("never", never));
    let id = queue.enqueue(with(request("never", &json!([])), |o| o.attempts = 5)).await;
    assert_eq!(queue.failed(id).await, "not here");
    worker.stop().await;
    assert_eq!(queue.job(id).await.attempt, 1);
}

#[tokio::test]
async fn steps_between_flushes_are_events_of_their_own_and_come_before_the_end() {
    let queue = Queue::new().await;
    let steps = |job: JobContext, _: Value| async move {
        for step in 1..=3 {
            job.progress(f64::from(step) * 25.0, format!("step {step}"));
            job.note("step", step);
            job.flush().await;
        }
        job.note("last", "said and not flushed");
        Ok::<_, Infallible>(())
    };
    let worker = start(Worker::new(queue.source(), options()).task("steps", steps));
    let id = queue.enqueue(request("steps", &json!([]))).await;
    queue.finished(id).await;
    worker.stop().await;
    let events = queue.events(id).await;
    let types: Vec<_> = events.iter().map(|(t, _, _)| t.as_str()).collect();
    let p = "task.progress";
    assert_eq!(types, ["task.enqueue", "task.dequeue", p, p, p, p, "task.finished"]);
    let percents: Vec<_> =
        events[2..5].iter().map(|(_, job, _)| job.progress.as_ref().unwrap().percent).collect();
    assert_eq!(percents, [25.0, 50.0, 75.0]);
    assert_eq!(events[6].1.notes["step"], 3);
    assert_eq!(events[6].1.notes["last"], "said and not flushed");
}

#[tokio::test]
async fn what_is_said_in_quick_succession_is_merged_and_the_last_word_counts() {
    let queue = Queue::new().await;
    let chatty = |job: JobContext, _: Value| async move {
        for n in 0..10_000 {
            job.note("n", n);
            job.progress(f64::from(n) / 100.0, "");
            tokio::task::yield_now().await;
        }
        Ok::<_, Infallible>(())
    };
    let slow = WorkerOptions { annotation_interval: Duration::from_secs(3600), ..options() };
    let worker = start(Worker::new(queue.source(), slow).task("chatty", chatty));
    let id = queue.enqueue(request("chatty", &json!([]))).await;
    queue.finished(id).await;
    worker.stop().await;
    let said = queue.types(id).await.iter().filter(|t| *t == "task.progress").count();
    assert!((1..=2).contains(&said), "the first at once, the rest at the end: {said}");
    let job = queue.job(id).await;
    assert_eq!(job.notes["n"], 9_999);
    assert_eq!(job.progress.unwrap().percent, 99.99);
}

struct NoStrings;

impl ArgsCheck for NoStrings {
    fn check(&self, task: &str, args: &RawValue) -> Result<(), Vec<SchemaFault>> {
        assert_eq!(task, "sum");
        if !args.get().contains("one") {
            return Ok(());
        }
        let detail = "the value is not of type \"integer\"".into();
        Err(vec![SchemaFault { pointer: "/0/from".into(), schema: "/items".into(), detail }])
    }
}

#[tokio::test]
async fn arguments_that_break_their_schema_fail_without_a_run_and_without_a_retry() {
    let queue = Queue::new().await;
    let worker = Worker::new(queue.source(), options()).task("sum", sum).check(Arc::new(NoStrings));
    let worker = start(worker);
    let bad =
        queue.enqueue(with(request("sum", &json!([{"from": "one", "to": 2}])), |o| o.attempts = 3)).await;
    let good = queue.enqueue(request("sum", &json!([{"from": 1, "to": 2}]))).await;
    assert_eq!(queue.failed(bad).await, "schema_violation: /0/from: the value is not of type \"integer\"");
    assert_eq!(queue.finished(good).await, json!({"rows": 3}));
    worker.stop().await;
    assert_eq!(queue.types(bad).await, ["task.enqueue", "task.dequeue", "task.failed"]);
}

struct Panics;

impl ArgsCheck for Panics {
    fn check(&self, _: &str, args: &RawValue) -> Result<(), Vec<SchemaFault>> {
        assert!(!args.get().contains("odd"), "an odd argument");
        Ok(())
    }
}

/// What a program gives beside its tasks may fall over too.
#[tokio::test]
async fn a_check_that_panics_fails_the_job_it_looked_at() {
    let queue = Queue::new().await;
    let one = WorkerOptions { concurrency: 1, ..options() };
    let worker = start(Worker::new(queue.source(), one).task("sum", sum).check(Arc::new(Panics)));
    let bad = queue.enqueue(request("sum", &json!(["odd"]))).await;
    assert!(queue.failed(bad).await.contains("an odd argument"));
    let good = queue.enqueue(request("sum", &json!([{"from": 1, "to": 2}]))).await;
    assert_eq!(queue.finished(good).await, json!({"rows": 3}));
    worker.stop().await;
}

async fn wait_for_ever(_: JobContext, _: Value) -> Result<(), Infallible> {
    std::future::pending().await
}

#[tokio::test]
async fn a_run_that_takes_longer_than_it_may_fails() {
    let queue = Queue::new().await;
    let hour = WorkerOptions { timeout: Some(Duration::from_secs(3600)), ..options() };
    let worker = start(Worker::new(queue.source(), hour).task("stuck", wait_for_ever));
    let own = |o: &mut minium_protocol::JobOptions| o.timeout = Some(Duration::from_millis(50));
    let id = queue.enqueue(with(request("stuck", &json!([])), own)).await;
    assert_eq!(queue.failed(id).await, "timed out after 50ms");
    worker.stop().await;
}

#[tokio::test]
async fn a_task_that_heeds_its_token_can_still_say_something_when_it_times_out() {
    let queue = Queue::new().await;
    let tidy = |job: JobContext, _: Value| async move {
        job.cancelled().cancelled().await;
        job.note("tidied", true);
        Err::<(), _>("stopped half way")
    };
    let short = WorkerOptions { timeout: Some(Duration::from_millis(50)), ..options() };
    let worker = start(Worker::new(queue.source(), short).task("tidy", tidy));
    let id = queue.enqueue(request("tidy", &json!([]))).await;
    assert_eq!(queue.failed(id).await, "timed out after 50ms");
    assert_eq!(queue.job(id).await.notes["tidied"], true);
    worker.stop().await;
}

#[tokio::test]
async fn cancelling_a_running_job_stops_its_task() {
    let queue = Queue::new().await;
    let (stopped, mut seen) = tokio::sync::mpsc::channel(1);
    let task = move |job: JobContext, _: Value| {
        let stopped = stopped.clone();
        async move {
            job.cancelled().cancelled().await;
            stopped.send(job.id()).await.unwrap();
            Err::<(), _>("cancelled")
        }
    };
    let worker = start(Worker::new(queue.source(), options()).task("long", task));
    let id = queue.enqueue(request("long", &json!([]))).await;
    queue.until(id, |job| job.state == State::Active).await;
    queue.store.cancel(id).await.unwrap();
    assert_eq!(seen.recv().await, Some(id));
    worker.stop().await;
    let job = queue.job(id).await;
    assert_eq!((job.state, job.error), (State::Cancelled, None));
    assert_eq!(queue.types(id).await, ["task.enqueue", "task.dequeue", "task.cancelled"]);
}

#[tokio::test]
async fn a_result_that_is_too_large_is_a_failure_that_says_so() {
    let queue = Queue::new().await;
    let large = |_: JobContext, _: Value| async { Ok::<_, Infallible>("x".repeat(1000)) };
    let small = WorkerOptions { result_bytes_max: 100, ..options() };
    let worker = start(Worker::new(queue.source(), small).task("large", large));
    let id = queue.enqueue(request("large", &json!([]))).await;
    assert_eq!(queue.failed(id).await, "the result has 1002 bytes, at most 100 are allowed");
    worker.stop().await;
}

#[tokio::test]
async fn errors_are_bounded_and_free_of_nul() {
    let queue = Queue::new().await;
    let noisy = |_: JobContext, _: Value| async { Err::<(), _>(format!("a\0{}", "ä".repeat(10_000))) };
    let worker = start(Worker::new(queue.source(), options()).task("noisy", noisy));
    let id = queue.enqueue(request("noisy", &json!([]))).await;
    let error = queue.failed(id).await;
    assert!(
        error.starts_with("a\u{fffd}ä") && error.ends_with('…') && error.len() < 9_000,
        "{}",
        error.len()
    );
    worker.stop().await;
}

#[tokio::test]
async fn mistakes_in_putting_a_worker_together_are_told_when_it_runs() {
    let queue = Queue::new().await;
    let run = |worker: Worker| worker.run(CancellationToken::new());
    let new = || Worker::new(queue.source(), options());
    assert!(matches!(run(new()).await, Err(WorkerError::NoTasks)));
    let twice = new().task("sum", sum).task("sum", sum);
    assert!(matches!(run(twice).await, Err(WorkerError::TaskTwice(name)) if name == "sum"));
    let named = new().task("not a name", sum);
    assert!(matches!(run(named).await, Err(WorkerError::TaskName { name, .. }) if name == "not a name"));
    let idle = Worker::new(queue.source(), WorkerOptions { concurrency: 0, ..options() }).task("sum", sum);
    assert!(matches!(run(idle).await, Err(WorkerError::Option(_))));
}
