//! A worker with a spool: what it has done outlives it, on the disk, and is handed in by the next.

use crate::harness::{Queue, Wire, options, request, start, until};
use minium_protocol::State;
use minium_queue::Store;
use minium_worker::{JobContext, Spool, SpoolOptions, Worker, WorkerOptions};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

fn spool(dir: &Path) -> Spool {
    Spool::open(dir, &["sqlite:here"], SpoolOptions::default()).unwrap()
}

/// What stands in the spool, as another process would find it.
fn on_disk(dir: &Path) -> String {
    let files = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    let spools = files.filter(|p| p.extension().is_some_and(|e| e == "spool"));
    spools.map(|p| String::from_utf8_lossy(&std::fs::read(p).unwrap()).into_owned()).collect()
}

async fn said(job: JobContext, _: Value) -> Result<String, Infallible> {
    Ok(format!("the result of {}", job.id()))
}

/// The outcome of one job on disk and nowhere else: its worker was killed while the source was away. The job waits on.
async fn left_behind(queue: &Queue, dir: &Path) -> i64 {
    let wire = Wire::new(queue);
    let state = wire.state.clone();
    let cut = Arc::new(AtomicBool::new(false));
    let seen = cut.clone();
    let task = move |job: JobContext, args: Value| {
        let seen = seen.clone();
        async move {
            while !seen.load(Ordering::SeqCst) {
                tokio::task::yield_now().await;
            }
            said(job, args).await
        }
    };
    let worker = start(Worker::new(wire, options()).task("said", task).spool(spool(dir)));
    let id = queue.enqueue(request("said", &json!([]))).await;
    queue.until(id, |job| job.state == State::Active).await;
    state.cut.store(true, Ordering::SeqCst);
    cut.store(true, Ordering::SeqCst);
    until("it offers the result in vain", || state.offered.load(Ordering::SeqCst) > 0).await;
    assert!(on_disk(dir).contains("the result of"));
    worker.kill().await;
    assert_eq!(queue.job(id).await.state, State::Active);
    id
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_worker_loses_no_result() {
    let (queue, dir) = (Queue::new().await, tempfile::tempdir().unwrap());
    let id = left_behind(&queue, dir.path()).await;
    let worker = start(Worker::new(queue.source(), options()).task("other", said).spool(spool(dir.path())));
    assert_eq!(queue.finished(id).await, json!(format!("the result of {id}")));
    worker.stop().await;
    assert_eq!(queue.job(id).await.attempt, 1, "it ran once");
    assert!(spool(dir.path()).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_left_is_handed_in_before_anything_is_claimed() {
    let (queue, dir) = (Queue::new().await, tempfile::tempdir().unwrap());
    let left = left_behind(&queue, dir.path()).await;
    let next = queue.enqueue(request("said", &json!([]))).await;
    let wire = Wire::new(&queue);
    let state = wire.state.clone();
    state.held.store(true, Ordering::SeqCst);
    let worker = start(Worker::new(wire, options()).task("said", said).spool(spool(dir.path())));
    // the first exchange is done, and the worker does not know yet what it brought
    until("the first exchange", || state.waiting.load(Ordering::SeqCst) > 0).await;
    assert_eq!(*state.handed_in.lock().unwrap(), [left]);
    assert_eq!(queue.job(next).await.state, State::Inactive, "nothing was claimed with it");
    state.held.store(false, Ordering::SeqCst);
    state.go_on.notify_one();
    assert_eq!(queue.finished(next).await, json!(format!("the result of {next}")));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_orderly_end_without_the_source_keeps_results_for_the_next_start() {
    let (queue, dir) = (Queue::new().await, tempfile::tempdir().unwrap());
    let wire = Wire::new(&queue);
    let state = wire.state.clone();
    let ends = state.clone();
    let task = move |job: JobContext, args: Value| {
        // from here on nothing gets through
        ends.cut.store(true, Ordering::SeqCst);
        said(job, args)
    };
    let hasty = WorkerOptions { handover_grace: Duration::from_millis(50), ..options() };
    let worker = start(Worker::new(wire, hasty).task("said", task).spool(spool(dir.path())));
    let id = queue.enqueue(request("said", &json!([]))).await;
    until("it has begun", || state.cut.load(Ordering::SeqCst)).await;
    worker.stop().await;
    assert_eq!(queue.job(id).await.state, State::Active);
    let worker = start(Worker::new(queue.source(), options()).task("other", said).spool(spool(dir.path())));
    assert_eq!(queue.finished(id).await, json!(format!("the result of {id}")));
    worker.stop().await;
}

/// On the disk before the first attempt to hand it in: the source is asked, and looks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_outcome_is_handed_in_before_it_is_on_the_disk() {
    let (queue, dir) = (Queue::new().await, tempfile::tempdir().unwrap());
    let wire = Wire::new(&queue);
    let state = wire.state.clone();
    let path = dir.path().to_owned();
    let missing = Arc::new(AtomicUsize::new(0));
    let count = missing.clone();
    *state.look.lock().unwrap() = Some(Box::new(move |outcomes| {
        let kept = on_disk(&path);
        let absent = outcomes.iter().filter(|o| !kept.contains(&o.lease.to_string()));
        count.fetch_add(absent.count(), Ordering::SeqCst);
    }));
    let many = WorkerOptions { concurrency: 10, ..options() };
    let worker = start(Worker::new(wire, many).task("said", said).spool(spool(dir.path())));
    let jobs: Vec<_> = (0..200).map(|i| request("said", &json!([i]))).collect();
    let ids = queue.store.enqueue(&jobs).await.unwrap();
    for job in &ids {
        queue.finished(job.id).await;
    }
    worker.stop().await;
    assert_eq!(state.handed_in.lock().unwrap().len(), 200);
    assert_eq!(missing.load(Ordering::SeqCst), 0);
    assert!(spool(dir.path()).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_spool_stops_claims_until_there_is_room() {
    let (queue, dir) = (Queue::new().await, tempfile::tempdir().unwrap());
    let wire = Wire::new(&queue);
    let state = wire.state.clone();
    let small = SpoolOptions { count_max: 1, ..SpoolOptions::default() };
    let spool = Spool::open(dir.path(), &["sqlite:here"], small).unwrap();
    state.no_outcomes.store(true, Ordering::SeqCst);
    let worker = start(Worker::new(wire, options()).task("said", said).spool(spool));
    let first = queue.enqueue(request("said", &json!([]))).await;
    until("the result on the disk", || on_disk(dir.path()).contains("the result of")).await;
    // what is offered is known to be there, and so that there is no room for more
    until("the result to be offered", || state.offered.load(Ordering::SeqCst) > 0).await;
    let second = queue.enqueue(request("said", &json!([]))).await;
    let before = state.attempts.load(Ordering::SeqCst);
    until("it offered it in vain", || state.attempts.load(Ordering::SeqCst) > before + 5).await;
    assert_eq!(queue.job(second).await.state, State::Inactive);
    state.no_outcomes.store(false, Ordering::SeqCst);
    queue.finished(first).await;
    queue.finished(second).await;
    worker.stop().await;
}
