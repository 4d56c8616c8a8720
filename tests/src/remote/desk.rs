//! A node's work without its sockets: the real thing on a real store, with pullers that the test holds in its hands.

use super::counted::Counted;
use crate::store::fixture::{Fixture, json};
use crate::support::wait;
use bytes::Bytes;
use minium_bus::{LeasedJob, Order, Puller, Pulling, Pushed, Said, Saying, Word, Work};
use minium_notifier::{StoreSlot, TaskWork, WorkOptions};
use minium_protocol::{EnqueueRequest, ErrorCode, Job, JobOptions, Problem};
use minium_queue::Store;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Long enough that no lease of a test ends by itself.
pub(crate) const LEASE: Duration = Duration::from_secs(1_000);

/// No polls: what is not woken stands still, and the test fails.
pub(crate) fn options() -> WorkOptions {
    WorkOptions {
        host: Some("node1".into()),
        poll: Duration::from_secs(86_400),
        backoff_min: Duration::from_millis(5),
        backoff_max: Duration::from_millis(50),
        ..WorkOptions::default()
    }
}

/// The work of one node.
pub(crate) struct Desk {
    pub(crate) work: TaskWork,
    /// How the store was asked.
    pub(crate) calls: Arc<Calls>,
    stop: CancellationToken,
}

/// How often each operation was called.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    pub(crate) pulls: AtomicUsize,
    /// Pulls that are over.
    pub(crate) pulled: AtomicUsize,
    pub(crate) enqueues: AtomicUsize,
    pub(crate) exchanges: AtomicUsize,
    pub(crate) extends: AtomicUsize,
    pub(crate) releases: AtomicUsize,
}

impl Desk {
    pub(crate) fn of(fixture: &Fixture) -> Desk {
        Desk::on(fixture.shared(), options())
    }

    pub(crate) fn on(store: Arc<dyn Store>, options: WorkOptions) -> Desk {
        let calls = Arc::<Calls>::default();
        let counted: Arc<dyn Store> = Arc::new(Counted { store, calls: calls.clone(), silence: None });
        // nobody else ever changes it: the sender may go
        let slot = watch::channel(Some(counted)).1;
        Desk::start(&slot, options, calls)
    }

    /// A node that nothing ever wakes.
    pub(crate) fn deaf(f: &Fixture, options: WorkOptions) -> Desk {
        let calls = Arc::<Calls>::default();
        let deaf: Arc<dyn Store> = Arc::new(Counted {
            store: f.shared(),
            calls: calls.clone(),
            silence: Some(watch::Sender::new(0)),
        });
        let slot = watch::channel(Some(deaf)).1;
        Desk::start(&slot, options, calls)
    }

    pub(crate) fn start(slot: &StoreSlot, options: WorkOptions, calls: Arc<Calls>) -> Desk {
        let stop = CancellationToken::new();
        #[expect(clippy::result_large_err, reason = "the type is the product's")]
        let check = |task: &str, args: &serde_json::value::RawValue| match (task, args.get()) {
            ("checked", "[]") => Err(Problem::new(ErrorCode::SchemaViolation, "too short")),
            _ => Ok(()),
        };
        Desk { work: TaskWork::start(slot, Arc::new(check), options, &stop), calls, stop }
    }

    /// A puller of these tasks with so much credit.
    pub(crate) fn puller(&self, name: &str, tasks: &[&str], credit: u32) -> Client {
        self.puller_with(name, tasks, credit, LEASE)
    }

    pub(crate) fn puller_with(&self, name: &str, tasks: &[&str], credit: u32, lease: Duration) -> Client {
        self.puller_of(name, None, tasks, credit, lease)
    }

    /// One that names its queue, whatever it is called.
    pub(crate) fn puller_of(
        &self,
        name: &str,
        queue: Option<&str>,
        tasks: &[&str],
        credit: u32,
        lease: Duration,
    ) -> Client {
        let (jobs, taken) = mpsc::channel(10_000);
        let hand = Arc::new(Hand { jobs, gone: AtomicBool::new(false), cancelled: Mutex::default() });
        let order = Order {
            tasks: tasks.iter().map(|task| task.parse().unwrap()).collect(),
            queue: queue.map(String::from),
            lease,
            name: name.into(),
        };
        let place = self.work.join(order, hand.clone());
        let client = Client { place, hand, taken };
        client.credit(credit);
        client
    }

    pub(crate) async fn push(&self, task: &str, data: &str) -> Result<i64, Problem> {
        let pushed = vec![message(data, JobOptions::default())];
        self.work.push(&task.parse().unwrap(), pushed).await.map(|ids| ids[0])
    }

    /// One word, and its answer.
    pub(crate) async fn say(&self, job: &LeasedJob, saying: Saying) -> Result<Said, ErrorCode> {
        let word = Word { job: job.id, lease: job.lease, saying };
        self.work.say(vec![word]).await.remove(0).map_err(|problem| problem.code)
    }

    pub(crate) async fn ack(&self, job: &LeasedJob, result: &str) -> Result<Said, ErrorCode> {
        self.say(job, Saying::Ack { result: Some(json(result)) }).await
    }

    pub(crate) async fn close(self) {
        self.stop.cancel();
        wait::within("the work to end", self.work.close()).await;
    }
}

pub(crate) fn message(data: &str, options: JobOptions) -> Pushed {
    Pushed { data: Bytes::from(data.to_owned()), options }
}

/// A job of this task.
pub(crate) fn of(task: &str) -> EnqueueRequest {
    EnqueueRequest::new(task, json("[\"x\"]"))
}

/// What the work sees of a puller.
#[derive(Debug)]
struct Hand {
    jobs: mpsc::Sender<LeasedJob>,
    /// Its session is gone: it takes nothing.
    gone: AtomicBool,
    cancelled: Mutex<Vec<i64>>,
}

impl Puller for Hand {
    fn take(&self, job: LeasedJob) -> Result<(), Box<LeasedJob>> {
        if self.gone.load(Ordering::SeqCst) {
            return Err(Box::new(job));
        }
        self.jobs.try_send(job).map_err(|e| Box::new(e.into_inner()))
    }

    fn room(&self) -> usize {
        usize::MAX
    }

    fn cancelled(&self, job: i64) {
        self.cancelled.lock().unwrap().push(job);
    }
}

/// A puller. Dropped, its session ends.
pub(crate) struct Client {
    place: Box<dyn Pulling>,
    hand: Arc<Hand>,
    taken: mpsc::Receiver<LeasedJob>,
}

impl Client {
    pub(crate) fn credit(&self, more: u32) {
        self.place.credit(more);
    }

    /// From now on it takes nothing, as a session whose socket broke.
    pub(crate) fn vanish(&self) {
        self.hand.gone.store(true, Ordering::SeqCst);
    }

    /// The next job.
    pub(crate) async fn job(&mut self) -> LeasedJob {
        wait::within("a job", self.taken.recv()).await.expect("the puller holds its own sender")
    }

    pub(crate) async fn jobs(&mut self, count: usize) -> Vec<LeasedJob> {
        let mut jobs = Vec::with_capacity(count);
        for _ in 0..count {
            jobs.push(self.job().await);
        }
        jobs
    }

    /// A job that has come, if one has.
    pub(crate) fn try_job(&mut self) -> Option<LeasedJob> {
        self.taken.try_recv().ok()
    }

    /// Of which jobs it was told that they were cancelled.
    pub(crate) fn told(&self) -> Vec<i64> {
        self.hand.cancelled.lock().unwrap().clone()
    }
}

/// The snapshot that came with a job.
pub(crate) fn snapshot(job: &LeasedJob) -> Job {
    serde_json::from_slice(&job.snapshot).unwrap()
}
