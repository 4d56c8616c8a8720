//! What a worker is told while it works, and what it says of itself.

use crate::harness::{Queue, Started, look, options, request, result, start, until, with};
use minium_protocol::State;
use minium_queue::{Command, JobSignal, Store, WorkerFilter, WorkerState, WorkerView, Workers};
use minium_worker::{CommandTask, Failure, JobContext, Worker, WorkerError, WorkerOptions};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Nothing comes about by itself: leases are extended, and the source is looked at, after the test has long ended.
fn patient() -> WorkerOptions {
    let long = Duration::from_secs(3_000);
    WorkerOptions { lease: long, renew_max: long, poll: long, heartbeat: long, ..options() }
}

/// A task that holds its slot until it gets a permit.
#[derive(Clone)]
struct Held {
    permits: Arc<Semaphore>,
    running: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl Held {
    fn new() -> Held {
        let count = || Arc::new(AtomicUsize::new(0));
        Held { permits: Arc::new(Semaphore::new(0)), running: count(), most: count() }
    }

    fn add_to(&self, worker: Worker, task: &str) -> Worker {
        let held = self.clone();
        worker.task(task, move |job: JobContext, _: Value| {
            let held = held.clone();
            async move { held.run(&job).await }
        })
    }

    async fn run(&self, job: &JobContext) -> Result<(), Failure> {
        let now = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        let stop = job.cancelled();
        tokio::select! {
            permit = self.permits.acquire() => permit?.forget(),
            () = stop.cancelled() => {}
        }
        self.running.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    }

    async fn are_running(&self, n: usize) {
        until(&format!("{n} running"), || self.running.load(Ordering::SeqCst) == n).await;
    }
}

fn hold(queue: &Queue, options: WorkerOptions) -> (Held, Started) {
    let held = Held::new();
    let worker = start(held.add_to(Worker::new(queue.source(), options), "hold"));
    (held, worker)
}

async fn tell(queue: &Queue, command: Command) {
    assert_eq!(queue.store.send_command(None, &command).await.unwrap(), 1);
}

async fn shown(queue: &Queue, what: impl Fn(&WorkerView) -> bool) -> WorkerView {
    look(async || {
        let page = queue.store.workers(&WorkerFilter::default()).await.unwrap();
        match page.workers.into_iter().next() {
            Some(worker) if what(&worker) => Ok(worker),
            other => Err(other),
        }
    })
    .await
}

fn priority(task: &str, priority: i32) -> minium_protocol::EnqueueRequest {
    with(request(task, &json!([])), |o| o.priority = priority)
}

#[tokio::test]
async fn a_cancelled_run_is_stopped_without_waiting_for_its_lease() {
    let queue = Queue::new().await;
    let (held, worker) = hold(&queue, patient());
    let ids = [0; 3].map(|_| request("hold", &json!([])));
    let ids: Vec<i64> = queue.store.enqueue(&ids).await.unwrap().iter().map(|e| e.id).collect();
    held.are_running(3).await;
    for id in &ids[..2] {
        queue.store.cancel(*id).await.unwrap();
    }
    held.are_running(1).await;
    assert_eq!(queue.job(ids[0]).await.state, State::Cancelled);
    assert_eq!(queue.job(ids[2]).await.state, State::Active, "the other one goes on");
    held.permits.add_permits(1);
    queue.finished(ids[2]).await;
    worker.stop().await;
}

/// The claim's answer is under way when the job is cancelled: the worker hears of it before it knows the job.
#[tokio::test]
async fn a_run_that_was_cancelled_before_it_was_known_is_stopped_too() {
    let queue = Queue::new().await;
    let wire = crate::harness::Wire::new(&queue);
    wire.state.held.store(true, Ordering::SeqCst);
    let held = Held::new();
    let worker = start(held.add_to(Worker::new(wire.clone(), patient()), "hold"));
    until("the first look", || wire.state.waiting.load(Ordering::SeqCst) == 1).await;
    wire.state.go_on.notify_one();
    let id = queue.enqueue(request("hold", &json!([]))).await;
    until("the claim", || wire.state.waiting.load(Ordering::SeqCst) == 2).await;
    queue.store.cancel(id).await.unwrap();
    // by now the word has been heard, and brought nothing: a command that was sent later has been obeyed
    tell(&queue, Command::Spare(3)).await;
    shown(&queue, |worker| worker.status.spare == 3).await;
    wire.state.held.store(false, Ordering::SeqCst);
    wire.state.go_on.notify_one();
    until("it has run", || held.most.load(Ordering::SeqCst) == 1).await;
    held.are_running(0).await;
    worker.stop().await;
}

#[tokio::test]
async fn a_paused_worker_leaves_jobs_to_others_until_it_is_told_to_go_on() {
    let queue = Queue::new().await;
    let (_held, paused) = hold(&queue, patient());
    let id = shown(&queue, |_| true).await.id;
    tell(&queue, Command::Pause).await;
    shown(&queue, |worker| worker.status.paused).await;
    let (other, working) = hold(&queue, patient());
    other.permits.add_permits(20);
    let jobs: Vec<i64> = {
        let requests: Vec<_> = (0..20).map(|_| request("hold", &json!([]))).collect();
        queue.store.enqueue(&requests).await.unwrap().iter().map(|e| e.id).collect()
    };
    for job in &jobs {
        let job = queue.ended(*job).await;
        assert_ne!(job.worker.unwrap().id, id, "the paused one took nothing");
    }
    working.stop().await;
    let left = queue.enqueue(request("hold", &json!([]))).await;
    assert_eq!(queue.store.send_command(Some(&[id]), &Command::Resume).await.unwrap(), 1);
    let job = queue.until(left, |job| job.state == State::Active).await;
    assert_eq!(job.worker.unwrap().id, id);
    queue.store.cancel(left).await.unwrap();
    paused.stop().await;
}

#[tokio::test]
async fn concurrency_is_changed_while_it_works() {
    let queue = Queue::new().await;
    let (held, worker) = hold(&queue, WorkerOptions { concurrency: 1, ..patient() });
    for _ in 0..3 {
        queue.enqueue(request("hold", &json!([]))).await;
    }
    held.are_running(1).await;
    tell(&queue, Command::Concurrency(3)).await;
    held.are_running(3).await;
    tell(&queue, Command::Concurrency(0)).await;
    let shown = shown(&queue, |worker| worker.status.paused).await;
    assert_eq!((shown.status.concurrency, shown.status.running), (0, 3), "what runs goes on");
    held.permits.add_permits(3);
    held.are_running(0).await;
    queue.enqueue(request("hold", &json!([]))).await;
    tell(&queue, Command::Resume).await;
    held.are_running(1).await;
    held.permits.add_permits(1);
    worker.stop().await;
}

#[tokio::test]
async fn an_urgent_job_takes_a_spare_slot_when_all_others_are_full() {
    let queue = Queue::new().await;
    let (held, worker) = hold(&queue, WorkerOptions { concurrency: 2, spare: 1, ..patient() });
    for _ in 0..4 {
        queue.enqueue(request("hold", &json!([]))).await;
    }
    held.are_running(2).await;
    let urgent = queue.enqueue(priority("hold", 1)).await;
    held.are_running(3).await;
    assert_eq!(queue.job(urgent).await.state, State::Active);
    let second = queue.enqueue(priority("hold", 9)).await;
    // one that is less urgent than the slot asks for never gets it, and one slot is one
    held.permits.add_permits(6);
    queue.finished(second).await;
    held.are_running(0).await;
    assert_eq!(held.most.load(Ordering::SeqCst), 3);
    worker.stop().await;
}

#[tokio::test]
async fn a_usual_slot_that_gets_free_is_filled_though_a_spare_one_waits() {
    let queue = Queue::new().await;
    let (held, worker) = hold(&queue, WorkerOptions { concurrency: 1, spare: 1, ..patient() });
    let first = queue.enqueue(request("hold", &json!([]))).await;
    held.are_running(1).await;
    let second = queue.enqueue(request("hold", &json!([]))).await;
    held.permits.add_permits(1);
    queue.finished(first).await;
    queue.until(second, |job| job.state == State::Active).await;
    held.permits.add_permits(1);
    queue.finished(second).await;
    assert_eq!(held.most.load(Ordering::SeqCst), 1);
    worker.stop().await;
}

#[tokio::test]
async fn a_task_with_a_limit_leaves_the_other_slots_to_others() {
    let queue = Queue::new().await;
    let (limited, free) = (Held::new(), Held::new());
    let options = WorkerOptions { concurrency: 4, limits: [("a".to_owned(), 1)].into(), ..patient() };
    let worker = Worker::new(queue.source(), options);
    let worker = start(free.add_to(limited.add_to(worker, "a"), "b"));
    let mut jobs = Vec::new();
    for task in ["a", "a", "a", "b", "b", "b", "b"] {
        jobs.push(queue.enqueue(request(task, &json!([]))).await);
    }
    limited.are_running(1).await;
    free.are_running(3).await;
    for job in &jobs[..3] {
        limited.permits.add_permits(1);
        queue.finished(*job).await;
    }
    free.permits.add_permits(4);
    for job in &jobs {
        queue.finished(*job).await;
    }
    assert_eq!(limited.most.load(Ordering::SeqCst), 1, "never two of it");
    worker.stop().await;
}

fn shell(line: &str) -> CommandTask {
    CommandTask { name: "x".into(), command: vec![line.into()], shell: true, ..CommandTask::default() }
}

#[tokio::test]
async fn a_run_is_stopped_by_hand_and_has_failed() {
    let queue = Queue::new().await;
    let worker =
        start(Worker::new(queue.source(), patient()).command(shell("echo '::note pid='$$ >&2; sleep 1000")));
    let id = queue.enqueue(request("x", &json!([]))).await;
    let pid = queue.until(id, |job| job.notes.contains_key("pid")).await.notes["pid"].as_i64().unwrap();
    tell(&queue, Command::Stop(id + 1)).await;
    tell(&queue, Command::Stop(id)).await;
    assert_eq!(queue.failed(id).await, "stopped by an operator: killed by signal 15 (SIGTERM)");
    until("the process is gone", || crate::commands::is_gone(pid)).await;
    worker.stop().await;
}

#[tokio::test]
async fn a_command_gets_the_signal_that_is_meant_for_its_job() {
    let line = "trap 'echo heard; exit 0' USR1; echo '::note ready=1' >&2; while :; do sleep 0.05; done";
    let queue = Queue::new().await;
    let worker = start(Worker::new(queue.source(), patient()).command(shell(line)));
    let id = queue.enqueue(request("x", &json!([]))).await;
    queue.until(id, |job| job.notes.contains_key("ready")).await;
    tell(&queue, Command::Signal(id, JobSignal::Usr1)).await;
    let job = queue.ended(id).await;
    assert_eq!((job.state, result(&job)), (State::Finished, json!("heard")));
    let id = queue.enqueue(request("x", &json!([]))).await;
    queue.until(id, |job| job.notes.contains_key("ready")).await;
    tell(&queue, Command::Signal(id, JobSignal::Kill)).await;
    assert_eq!(queue.failed(id).await, "killed by signal 9 (SIGKILL)");
    worker.stop().await;
}

#[tokio::test]
async fn a_function_is_stopped_by_what_ends_programs_and_by_nothing_else() {
    let queue = Queue::new().await;
    let (held, worker) = hold(&queue, patient());
    let id = queue.enqueue(request("hold", &json!([]))).await;
    held.are_running(1).await;
    tell(&queue, Command::Signal(id, JobSignal::Usr1)).await;
    // obeyed in order: when this one is, the signal has been
    tell(&queue, Command::Spare(2)).await;
    shown(&queue, |worker| worker.status.spare == 2).await;
    assert_eq!(held.running.load(Ordering::SeqCst), 1);
    tell(&queue, Command::Signal(id, JobSignal::Term)).await;
    held.are_running(0).await;
    // it brought a result all the same
    assert_eq!(queue.ended(id).await.state, State::Finished);
    worker.stop().await;
}

#[tokio::test]
async fn a_program_has_commands_of_its_own() {
    let queue = Queue::new().await;
    let heard = Arc::new(std::sync::Mutex::new(Vec::new()));
    let ears = heard.clone();
    let worker = Worker::new(queue.source(), patient())
        .task("x", async |_: JobContext, _: Value| Ok::<_, Failure>(()))
        .on_command("panics", async |_| panic!("on purpose"))
        .on_command("cache/drop", move |args| {
            ears.lock().unwrap().extend(args);
            async {}
        });
    let worker = start(worker);
    shown(&queue, |_| true).await;
    for (name, args) in [("panics", vec![]), ("nobody", vec![]), ("cache/drop", vec![json!({"all": true})])] {
        tell(&queue, Command::Own { name: name.into(), args }).await;
    }
    until("the command", || heard.lock().unwrap().len() == 1).await;
    assert_eq!(heard.lock().unwrap()[0], json!({"all": true}));
    worker.stop().await;
    for name in ["pause", "stop", "no name"] {
        let worker = Worker::new(queue.source(), patient())
            .task("x", async |_: JobContext, _: Value| Ok::<_, Failure>(()))
            .on_command(name, async |_| {});
        let refused = worker.run(tokio_util::sync::CancellationToken::new()).await;
        assert!(matches!(refused, Err(WorkerError::CommandName(_))), "{name}: {refused:?}");
    }
}

#[tokio::test]
async fn a_worker_ends_in_order_when_it_is_told_to() {
    let queue = Queue::new().await;
    let (held, worker) = hold(&queue, patient());
    let id = queue.enqueue(request("hold", &json!([]))).await;
    held.are_running(1).await;
    tell(&queue, Command::Shutdown).await;
    held.permits.add_permits(1);
    queue.finished(id).await;
    worker.ended().await;
    assert_eq!(queue.store.workers(&WorkerFilter::default()).await.unwrap().workers, [], "it signed off");
}

#[tokio::test]
async fn a_worker_says_soon_what_it_runs() {
    let queue = Queue::new().await;
    let options = WorkerOptions {
        concurrency: 3,
        spare_min_priority: 5,
        limits: [("hold".to_owned(), 2)].into(),
        status_interval: Duration::from_millis(1),
        ..patient()
    };
    let (held, worker) = hold(&queue, options);
    let idle = shown(&queue, |_| true).await;
    assert_eq!((idle.state, idle.kind.as_str()), (WorkerState::Idle, "minium"));
    assert_eq!((idle.pid, idle.version.as_str()), (std::process::id(), env!("CARGO_PKG_VERSION")));
    assert_eq!((idle.status.tasks, idle.status.queues), (vec!["hold".into()], vec!["default".into()]));
    assert_eq!((idle.status.concurrency, idle.status.limits["hold"]), (3, 2));
    let id = queue.enqueue(request("hold", &json!([]))).await;
    let busy = shown(&queue, |worker| worker.state == WorkerState::Processing).await;
    assert_eq!((busy.status.running, busy.status.jobs), (1, vec![id]));
    held.permits.add_permits(1);
    let idle = shown(&queue, |worker| worker.status.performed == 1 && worker.status.running == 0).await;
    assert_eq!(idle.state, WorkerState::Idle);
    worker.stop().await;
}
