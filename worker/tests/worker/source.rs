//! The worker and its source: batches, wake-ups, outages, lost leases, shutdown.

use crate::harness::{Queue, Wire, options, request, start, until, with, with_upkeep};
use minium_protocol::{LeaseToken, State};
use minium_queue::{Pressure, Pressured, Store, UpkeepRules, Workers};
use minium_worker::{Failure, JobContext, Worker, WorkerOptions};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::Semaphore;

async fn nothing(_: JobContext, _: Value) -> Result<(), Infallible> {
    Ok(())
}

type Wait = Pin<Box<dyn Future<Output = Result<i32, Infallible>> + Send>>;

/// A task that ends when it is let go, and says which attempt it was.
fn gate() -> (Arc<Semaphore>, impl Fn(JobContext, Value) -> Wait + Send + Sync + 'static) {
    let open = Arc::new(Semaphore::new(0));
    let gate = open.clone();
    let task = move |job: JobContext, _: Value| -> Wait {
        let gate = gate.clone();
        Box::pin(async move {
            gate.acquire().await.unwrap().forget();
            Ok(job.attempt())
        })
    };
    (open, task)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outcomes_and_claims_travel_in_batches() {
    let queue = Queue::new().await;
    let jobs: Vec<_> = (0..2_000).map(|i| request("nothing", &json!([i]))).collect();
    let ids = queue.store.enqueue(&jobs).await.unwrap();
    let wire = Wire::new(&queue);
    let state = wire.state.clone();
    let many = WorkerOptions { concurrency: 200, ..options() };
    let worker = start(Worker::new(wire, many).task("nothing", nothing));
    queue.ended(ids.last().unwrap().id).await;
    worker.stop().await;
    let stats = queue.store.stats().await.unwrap();
    assert_eq!((stats.finished, stats.active, stats.inactive), (2_000, 0, 0));
    let exchanges = state.exchanges.load(Ordering::SeqCst);
    assert!(exchanges < 200, "10 full batches would do, there were {exchanges}");
}

#[tokio::test]
async fn no_more_jobs_run_at_once_than_there_are_slots() {
    let queue = Queue::new().await;
    let (open, task) = gate();
    let three = WorkerOptions { concurrency: 3, ..options() };
    let worker = start(Worker::new(queue.source(), three).task("gate", task));
    let jobs: Vec<_> = (0..10).map(|i| request("gate", &json!([i]))).collect();
    let ids = queue.store.enqueue(&jobs).await.unwrap();
    for i in 0..ids.len() {
        // the next three run, no more, until one of them is let go
        queue.until(ids[(i + 2).min(9)].id, |job| job.state == State::Active).await;
        let stats = queue.store.stats().await.unwrap();
        assert_eq!(stats.active, (ids.len() - i).min(3) as i64, "{stats:?}");
        open.add_permits(1);
        while queue.store.stats().await.unwrap().finished <= i as i64 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    worker.stop().await;
}

#[tokio::test]
async fn an_idle_worker_is_woken_by_an_enqueue() {
    let queue = Queue::new().await;
    let never_polls = WorkerOptions { poll: Duration::from_secs(86_400), ..options() };
    let worker = start(Worker::new(queue.source(), never_polls).task("nothing", nothing));
    for _ in 0..3 {
        let id = queue.enqueue(request("nothing", &json!([]))).await;
        queue.finished(id).await;
    }
    worker.stop().await;
}

#[tokio::test]
async fn a_worker_that_nothing_wakes_finds_its_jobs_by_looking() {
    let queue = Queue::new().await;
    let polls = WorkerOptions { poll: Duration::from_millis(10), ..options() };
    let worker = start(Worker::new(Wire::silent(&queue), polls).task("nothing", nothing));
    for _ in 0..3 {
        let id = queue.enqueue(request("nothing", &json!([]))).await;
        queue.finished(id).await;
    }
    worker.stop().await;
}

/// One claim in sixteen lets those go first that have waited long, so that urgent work never starves the rest.
#[tokio::test]
async fn one_claim_in_sixteen_is_for_what_has_waited_long() {
    let queue = Queue::new().await;
    let wire = Wire::silent(&queue);
    let state = wire.state.clone();
    let polls = WorkerOptions { poll: Duration::from_millis(1), ..options() };
    let long = polls.aged;
    assert!(long.is_some(), "by default");
    let worker = start(Worker::new(wire, polls).task("nothing", nothing));
    until("claims", || state.aged.lock().unwrap().len() >= 64).await;
    worker.stop().await;
    for (n, aged) in (1..).zip(state.aged.lock().unwrap().iter()) {
        assert_eq!(*aged, long.filter(|_| n % 16 == 0), "claim {n}");
    }
}

/// Nobody tells it to stop: it ends when nothing is ready and nothing runs, and not before.
#[tokio::test]
async fn a_worker_ends_by_itself_when_nothing_is_left() {
    let queue = Queue::new().await;
    let until_empty = || WorkerOptions { until_empty: true, ..with_upkeep() };
    // nothing is there at all
    start(Worker::new(queue.source(), until_empty()).task("nothing", nothing)).ended().await;

    let jobs = vec![request("nothing", &json!([])); 30];
    let mut ids: Vec<_> = queue.store.enqueue(&jobs).await.unwrap().iter().map(|e| e.id).collect();
    // what becomes ready only as others end, what a run enqueues, and what has fallen due while nobody looked
    let chain = |parent: i64| with(request("nothing", &json!([])), |o| o.parents = vec![parent]);
    for _ in 0..3 {
        ids.push(queue.enqueue(chain(*ids.last().unwrap())).await);
    }
    let due = with(request("nothing", &json!([])), |o| o.delay = Duration::from_millis(1));
    ids.push(queue.enqueue(due).await);
    ids.push(queue.enqueue(request("more", &json!(5))).await);
    let later = with(request("nothing", &json!([])), |o| o.delay = Duration::from_secs(3_600));
    let later = queue.enqueue(later).await;
    let foreign = queue.enqueue(request("foreign", &json!([]))).await;
    let more = |job: JobContext, left: u64| async move {
        if left > 0 {
            job.enqueue(request("more", &json!(left - 1))).await?;
        }
        Ok::<_, Failure>(())
    };
    start(Worker::new(queue.source(), until_empty()).task("nothing", nothing).task("more", more))
        .ended()
        .await;
    for id in ids {
        assert_eq!(queue.job(id).await.state, State::Finished);
    }
    assert_eq!(queue.store.stats().await.unwrap().finished, 30 + 3 + 1 + 6);
    for id in [later, foreign] {
        assert_eq!(queue.job(id).await.state, State::Inactive);
    }
    assert_eq!(queue.store.stats().await.unwrap().workers, 0, "it signed off");
}

/// A source that is away, or that holds claims back, has not said that there is nothing.
#[tokio::test]
async fn a_worker_that_is_kept_from_its_jobs_does_not_end_before_they_do() {
    let queue = Queue::new().await;
    let wire = Wire::new(&queue);
    let state = wire.state.clone();
    let until_empty = WorkerOptions { until_empty: true, poll: Duration::from_millis(20), ..options() };
    let id = queue.enqueue(request("nothing", &json!([]))).await;
    queue.store.press(LeaseToken::fresh().0, Some(Pressure::Rising)).await.unwrap();
    state.full.store(true, Ordering::SeqCst);
    let worker = start(Worker::new(wire, until_empty).task("nothing", nothing));
    until("it tried several times", || state.attempts.load(Ordering::SeqCst) > 5).await;
    state.full.store(false, Ordering::SeqCst);
    worker.ended().await;
    assert_eq!(queue.job(id).await.state, State::Finished);
}

#[tokio::test]
async fn only_its_own_tasks_and_queues_are_taken() {
    let queue = Queue::new().await;
    let night = WorkerOptions { queues: vec!["night".into()], ..options() };
    let worker = start(Worker::new(queue.source(), night).task("nothing", nothing));
    let foreign_task = queue.enqueue(with(request("other", &json!([])), |o| o.queue = "night".into())).await;
    let foreign_queue = queue.enqueue(request("nothing", &json!([]))).await;
    let own = queue.enqueue(with(request("nothing", &json!([])), |o| o.queue = "night".into())).await;
    queue.finished(own).await;
    worker.stop().await;
    for id in [foreign_task, foreign_queue] {
        assert_eq!(queue.job(id).await.state, State::Inactive);
    }
}

#[tokio::test]
async fn a_worker_waits_for_a_source_that_is_away_at_the_start() {
    let queue = Queue::new().await;
    let wire = Wire::new(&queue);
    let state = wire.state.clone();
    state.cut.store(true, Ordering::SeqCst);
    let worker = start(Worker::new(wire, options()).task("nothing", nothing));
    until("it tried several times", || state.attempts.load(Ordering::SeqCst) > 3).await;
    let id = queue.enqueue(request("nothing", &json!([]))).await;
    state.cut.store(false, Ordering::SeqCst);
    queue.finished(id).await;
    worker.stop().await;
}

#[tokio::test]
async fn a_worker_that_was_forgotten_registers_anew_and_claims_under_its_new_number() {
    let queue = Queue::new().await;
    let quick = WorkerOptions { heartbeat: Duration::from_millis(10), ..options() };
    let worker = start(Worker::new(queue.source(), quick).task("nothing", nothing));
    let first = queue.enqueue(request("nothing", &json!([]))).await;
    let before = queue.ended(first).await.worker.expect("somebody ran it").id;
    queue.store.unregister_worker(before).await.unwrap();
    let again = async {
        while queue.store.stats().await.unwrap().workers == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), again).await.expect("it registers anew");
    // the number is taken up a moment after the source gave it
    let numbers = async {
        loop {
            let id = queue.enqueue(request("nothing", &json!([]))).await;
            let now = queue.ended(id).await.worker.expect("somebody ran it").id;
            if now != before {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), numbers).await.expect("it goes by its new number");
    worker.stop().await;
}

#[tokio::test]
async fn results_wait_while_the_source_is_away_and_none_is_lost() {
    let queue = Queue::new().await;
    let wire = Wire::new(&queue);
    let state = wire.state.clone();
    let (open, task) = gate();
    let worker = start(Worker::new(wire, WorkerOptions { concurrency: 5, ..options() }).task("gate", task));
    let jobs: Vec<_> = (0..5).map(|i| request("gate", &json!([i]))).collect();
    let ids = queue.store.enqueue(&jobs).await.unwrap();
    queue.until(ids[4].id, |job| job.state == State::Active).await;
    state.cut.store(true, Ordering::SeqCst);
    open.add_permits(5);
    let before = state.attempts.load(Ordering::SeqCst);
    until("it offered them in vain", || state.attempts.load(Ordering::SeqCst) > before + 3).await;
    for job in &ids {
        assert_eq!(queue.job(job.id).await.state, State::Active);
    }
    state.cut.store(false, Ordering::SeqCst);
    for job in &ids {
        assert_eq!(queue.finished(job.id).await, json!(1), "the first attempt's own result");
    }
    worker.stop().await;
}

#[tokio::test]
async fn results_wait_while_the_disk_is_full_and_none_becomes_a_failure() {
    let queue = Queue::new().await;
    let wire = Wire::new(&queue);
    let state = wire.state.clone();
    let (open, task) = gate();
    let worker = start(Worker::new(wire, WorkerOptions { concurrency: 5, ..options() }).task("gate", task));
    let jobs: Vec<_> = (0..5).map(|i| request("gate", &json!([i]))).collect();
    let ids = queue.store.enqueue(&jobs).await.unwrap();
    queue.until(ids[4].id, |job| job.state == State::Active).await;
    state.full.store(true, Ordering::SeqCst);
    open.add_permits(5);
    let before = state.attempts.load(Ordering::SeqCst);
    // more than halving a batch and blaming what stands alone in it would take
    until("it offered them in vain", || state.attempts.load(Ordering::SeqCst) > before + 12).await;
    state.full.store(false, Ordering::SeqCst);
    for job in &ids {
        assert_eq!(queue.finished(job.id).await, json!(1), "its own result");
    }
    worker.stop().await;
}

#[tokio::test]
async fn an_outcome_whose_answer_was_lost_is_handed_in_again_and_counts_once() {
    let queue = Queue::new().await;
    let wire = Wire::new(&queue);
    let state = wire.state.clone();
    let (open, task) = gate();
    let worker = start(Worker::new(wire, options()).task("gate", task));
    let id = queue.enqueue(request("gate", &json!([]))).await;
    queue.until(id, |job| job.state == State::Active).await;
    state.deaf.store(true, Ordering::SeqCst);
    open.add_permits(1);
    let before = state.exchanges.load(Ordering::SeqCst);
    until("it was offered again", || state.exchanges.load(Ordering::SeqCst) > before + 3).await;
    state.deaf.store(false, Ordering::SeqCst);
    assert_eq!(queue.finished(id).await, json!(1));
    worker.stop().await;
    assert_eq!(queue.types(id).await, ["task.enqueue", "task.dequeue", "task.finished"]);
}

#[tokio::test]
async fn a_lost_lease_stops_the_run_and_what_it_still_brings_is_kept_as_late() {
    let queue = Queue::new().await;
    let wire = Wire::new(&queue);
    let state = wire.state.clone();
    let task = |job: JobContext, _: Value| async move {
        if job.attempt() == 1 {
            job.cancelled().cancelled().await;
            return Ok::<_, Infallible>("too late");
        }
        Ok("in time")
    };
    let short = WorkerOptions { lease: Duration::from_millis(100), ..options() };
    let worker = start(Worker::new(wire, short).task("slow", task));
    state.no_extension.store(true, Ordering::SeqCst);
    let id = queue.enqueue(with(request("slow", &json!([])), |o| o.attempts = 2)).await;
    // somebody's upkeep finds that the lease has run out
    let rules = UpkeepRules { grace: Duration::ZERO, ..UpkeepRules::default() };
    let rescue = async {
        while queue.store.upkeep(&rules).await.unwrap().rescued == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), rescue).await.expect("the lease runs out");
    state.no_extension.store(false, Ordering::SeqCst);
    assert_eq!(queue.finished(id).await, json!("in time"));
    worker.stop().await;
    let events = queue.events(id).await;
    let late = events.iter().find(|(t, _, _)| t == "task.late_result").expect("it is on record");
    assert!(late.2.as_ref().unwrap().contains("too late"), "{late:?}");
    let job = queue.job(id).await;
    assert_eq!((job.state, job.attempt), (State::Finished, 2));
}

#[tokio::test]
async fn leases_are_extended_while_a_job_runs() {
    let queue = Queue::new().await;
    let (open, task) = gate();
    let short = WorkerOptions { lease: Duration::from_millis(600), ..options() };
    let worker = start(Worker::new(queue.source(), short).task("gate", task));
    let id = queue.enqueue(request("gate", &json!([]))).await;
    queue.until(id, |job| job.state == State::Active).await;
    // far beyond the first lease, upkeep finds nothing to rescue
    let rules = UpkeepRules { grace: Duration::ZERO, ..UpkeepRules::default() };
    let end = tokio::time::Instant::now() + Duration::from_millis(1_800);
    while tokio::time::Instant::now() < end {
        assert_eq!(queue.store.upkeep(&rules).await.unwrap().rescued, 0);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    open.add_permits(1);
    assert_eq!(queue.finished(id).await, json!(1));
    worker.stop().await;
}

#[tokio::test]
async fn shutdown_lets_running_jobs_end_and_claims_no_more() {
    let queue = Queue::new().await;
    let (open, task) = gate();
    let two = WorkerOptions { concurrency: 2, ..options() };
    let worker = start(Worker::new(queue.source(), two).task("gate", task));
    let jobs: Vec<_> = (0..3).map(|i| request("gate", &json!([i]))).collect();
    let ids = queue.store.enqueue(&jobs).await.unwrap();
    queue.until(ids[1].id, |job| job.state == State::Active).await;
    worker.tell_to_stop();
    open.add_permits(3);
    worker.stop().await;
    let states = [
        queue.job(ids[0].id).await.state,
        queue.job(ids[1].id).await.state,
        queue.job(ids[2].id).await.state,
    ];
    assert_eq!(states, [State::Finished, State::Finished, State::Inactive]);
    assert_eq!(queue.store.stats().await.unwrap().workers, 0);
}

/// and whoever is stopped gets his next attempt at once.
#[tokio::test]
async fn shutdown_stops_what_does_not_end_within_the_grace_and_says_so() {
    let queue = Queue::new().await;
    let (_open, task) = gate();
    let heeds = |job: JobContext, _: Value| async move {
        job.cancelled().cancelled().await;
        Err::<(), _>(minium_worker::Failure::permanent("half way"))
    };
    let hasty = WorkerOptions { grace: Duration::ZERO, stop_grace: Duration::from_millis(50), ..options() };
    let worker = start(Worker::new(queue.source(), hasty).task("gate", task).task("heeds", heeds));
    let again = |o: &mut minium_protocol::JobOptions| o.attempts = 2;
    let mut ids = Vec::new();
    for request in [request("gate", &json!([])), with(request("gate", &json!([])), again)] {
        ids.push(queue.enqueue(request).await);
    }
    ids.push(queue.enqueue(with(request("heeds", &json!([])), again)).await);
    for id in &ids {
        queue.until(*id, |job| job.state == State::Active).await;
    }
    worker.stop().await;
    assert_eq!(queue.failed(ids[0]).await, "the worker was stopped");
    // whoever has attempts left gets the next one at once, whatever the task made of the stop
    for (id, error) in [(ids[1], "the worker was stopped"), (ids[2], "the worker was stopped: half way")] {
        let job = queue.job(id).await;
        assert_eq!((job.state, job.attempt, job.error.as_deref()), (State::Inactive, 1, Some(error)));
    }
}

/// The next attempt may go on from there.
#[tokio::test]
async fn what_a_task_says_as_its_worker_ends_is_kept() {
    let queue = Queue::new().await;
    let saves = |job: JobContext, _: Value| async move {
        job.cancelled().cancelled().await;
        job.note("checkpoint", 42);
        Err::<(), _>(minium_worker::Failure::permanent("half way"))
    };
    let hasty = WorkerOptions { grace: Duration::ZERO, ..options() };
    let worker = start(Worker::new(queue.source(), hasty).task("saves", saves));
    let id = queue.enqueue(with(request("saves", &json!([])), |o| o.attempts = 2)).await;
    queue.until(id, |job| job.state == State::Active).await;
    worker.stop().await;
    assert_eq!(queue.job(id).await.notes["checkpoint"], 42);
    let expected = ["task.enqueue", "task.dequeue", "task.progress", "task.failed", "task.retry"];
    assert_eq!(queue.types(id).await, expected);
}

/// a claim whose answer comes when it is too late to begin: the jobs go back with their attempts.
#[tokio::test]
async fn shutdown_gives_back_what_was_claimed_and_not_begun() {
    let queue = Queue::new().await;
    let wire = Wire::new(&queue);
    let state = wire.state.clone();
    let (stopped, mut seen) = tokio::sync::mpsc::channel(1);
    let task = move |job: JobContext, _: Value| {
        let stopped = stopped.clone();
        async move {
            job.cancelled().cancelled().await;
            stopped.send(job.id()).await.unwrap();
            Ok::<_, Infallible>(1)
        }
    };
    let hasty = WorkerOptions { grace: Duration::ZERO, ..options() };
    let worker = start(Worker::new(wire, hasty).task("heeds", task));
    let runs = queue.enqueue(request("heeds", &json!([]))).await;
    queue.until(runs, |job| job.state == State::Active).await;
    state.held.store(true, Ordering::SeqCst);
    let claimed = queue.enqueue(request("heeds", &json!([]))).await;
    queue.until(claimed, |job| job.state == State::Active).await;
    worker.tell_to_stop();
    // the grace is over: nothing is begun any more
    assert_eq!(seen.recv().await, Some(runs));
    state.held.store(false, Ordering::SeqCst);
    state.go_on.notify_one();
    worker.stop().await;
    let job = queue.job(claimed).await;
    assert_eq!((job.state, job.attempt), (State::Inactive, 0), "it may have one attempt, and still has it");
    assert_eq!(queue.types(claimed).await, ["task.enqueue", "task.dequeue", "task.lost"]);
    assert_eq!(queue.job(runs).await.state, State::Finished);
}

#[tokio::test]
async fn shutdown_ends_even_while_the_source_is_away() {
    let queue = Queue::new().await;
    let wire = Wire::new(&queue);
    let state = wire.state.clone();
    let (open, task) = gate();
    let hasty = WorkerOptions { handover_grace: Duration::from_millis(50), ..options() };
    let worker = start(Worker::new(wire, hasty).task("gate", task));
    let id = queue.enqueue(request("gate", &json!([]))).await;
    queue.until(id, |job| job.state == State::Active).await;
    state.cut.store(true, Ordering::SeqCst);
    open.add_permits(1);
    worker.stop().await;
    assert_eq!(queue.job(id).await.state, State::Active);
}
