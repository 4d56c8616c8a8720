//! A queue in memory, a worker on it, and ways to wait for what must come.

use async_trait::async_trait;
use minium_protocol::{EnqueueRequest, Job, JobResult, LeaseToken, State, WorkerRef};
use minium_queue::sqlite::SqliteStore;
use minium_queue::{
    Annotation, Claim, Command, Exchanged, Extension, Outcome, QueueError, SqlitePlace, Store, UpkeepRules,
    Upkept, Verdict, WorkerInfo, WorkerStatus,
};
use minium_worker::{JobSource, StoreSource, UpkeepOptions, Worker, WorkerError, WorkerOptions};
use serde_json::Value;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Nothing that is waited for takes long; this only ends a test that would hang.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Queue {
    pub(crate) store: Arc<SqliteStore>,
}

impl Queue {
    pub(crate) async fn new() -> Queue {
        let store = SqliteStore::open(&SqlitePlace::Memory).await.unwrap();
        store.migrate().await.unwrap();
        Queue { store: Arc::new(store) }
    }

    pub(crate) fn source(&self) -> StoreSource {
        StoreSource::new(self.store.clone())
    }

    pub(crate) async fn enqueue(&self, request: EnqueueRequest) -> i64 {
        self.store.enqueue(&[request]).await.unwrap()[0].id
    }

    pub(crate) async fn job(&self, id: i64) -> Job {
        self.store.get(id).await.unwrap().expect("the job exists").job().unwrap()
    }

    pub(crate) async fn until(&self, id: i64, what: impl Fn(&Job) -> bool) -> Job {
        look(async || {
            let job = self.job(id).await;
            if what(&job) { Ok(job) } else { Err(job) }
        })
        .await
    }

    pub(crate) async fn ended(&self, id: i64) -> Job {
        self.until(id, |job| job.state.is_ended()).await
    }

    pub(crate) async fn finished(&self, id: i64) -> Value {
        let job = self.ended(id).await;
        assert_eq!(job.state, State::Finished, "{job:?}");
        result(&job)
    }

    pub(crate) async fn failed(&self, id: i64) -> String {
        let job = self.until(id, |job| job.state.is_ended()).await;
        assert_eq!(job.state, State::Failed, "{job:?}");
        job.error.expect("a failed job says why")
    }

    /// The job's events in order: type, snapshot, what came late.
    pub(crate) async fn events(&self, id: i64) -> Vec<(String, Job, Option<String>)> {
        let rows: Vec<(String, String, Option<String>)> = self
            .store
            .call(move |conn| {
                let mut read = conn
                    .prepare("select type, data, late from entry where subject = ?1 order by seq")
                    .unwrap();
                let rows =
                    read.query_map([id.to_string()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
                rows.unwrap().map(Result::unwrap).collect()
            })
            .await
            .unwrap();
        rows.into_iter().map(|(t, data, late)| (t, serde_json::from_str(&data).unwrap(), late)).collect()
    }

    pub(crate) async fn types(&self, id: i64) -> Vec<String> {
        self.events(id).await.into_iter().map(|(t, _, _)| t).collect()
    }
}

pub(crate) fn result(job: &Job) -> Value {
    // null reads as no result
    job.result.as_ref().map_or(Value::Null, |raw| serde_json::from_str(raw.get()).unwrap())
}

/// Looks until it is there; else what was seen last is told.
pub(crate) async fn look<T, S: std::fmt::Debug>(mut look: impl AsyncFnMut() -> Result<T, S>) -> T {
    let mut seen = None;
    let wait = async {
        loop {
            match look().await {
                Ok(found) => return found,
                Err(other) => seen = Some(other),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let found = tokio::time::timeout(PATIENCE, wait).await;
    found.unwrap_or_else(|_| panic!("it never came; last seen: {seen:?}"))
}

/// Waits for something outside the queue.
pub(crate) async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let wait = async {
        while !is() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("it never came: {what}"));
}

pub(crate) fn request(task: &str, args: &Value) -> EnqueueRequest {
    EnqueueRequest::new(task, serde_json::value::to_raw_value(args).unwrap())
}

pub(crate) fn with(
    mut request: EnqueueRequest,
    change: impl FnOnce(&mut minium_protocol::JobOptions),
) -> EnqueueRequest {
    change(&mut request.options);
    request
}

/// Quick paces, so that tests need not wait; no upkeep that would disturb.
pub(crate) fn options() -> WorkerOptions {
    WorkerOptions {
        lease: Duration::from_secs(30),
        renew_max: Duration::from_millis(50),
        stop_grace: Duration::from_millis(200),
        retry_min: Duration::from_millis(5),
        retry_max: Duration::from_millis(20),
        ..WorkerOptions::default()
    }
}

pub(crate) fn with_upkeep() -> WorkerOptions {
    let upkeep = UpkeepOptions { every: Duration::from_millis(20), ..UpkeepOptions::default() };
    WorkerOptions { upkeep: Some(upkeep), ..options() }
}

pub(crate) struct Started {
    stop: CancellationToken,
    worker: JoinHandle<Result<(), WorkerError>>,
}

pub(crate) fn start(worker: Worker) -> Started {
    let stop = CancellationToken::new();
    let worker = tokio::spawn(worker.run(stop.clone()));
    Started { stop, worker }
}

impl Started {
    pub(crate) fn tell_to_stop(&self) {
        self.stop.cancel();
    }

    /// Dropped where it stands, as if the process were killed.
    pub(crate) async fn kill(self) {
        self.worker.abort();
        assert!(self.worker.await.unwrap_err().is_cancelled());
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.ended().await;
    }

    /// Waits for its end.
    pub(crate) async fn ended(self) {
        tokio::time::timeout(PATIENCE, self.worker).await.expect("it ends").unwrap().unwrap();
    }
}

/// The real source, with a wire that can be cut.
#[derive(Clone)]
pub(crate) struct Wire {
    inner: StoreSource,
    pub(crate) state: Arc<WireState>,
}

pub(crate) type Look = Box<dyn Fn(&[Outcome]) + Send>;

#[derive(Default)]
pub(crate) struct WireState {
    /// Nothing gets through.
    pub(crate) cut: AtomicBool,
    /// So many notes did not get through.
    pub(crate) unheard: AtomicUsize,
    /// Only leases cannot be extended.
    pub(crate) no_extension: AtomicBool,
    /// No outcome can be written.
    pub(crate) full: AtomicBool,
    /// Exchanges and notes are done, but their answers are lost.
    pub(crate) deaf: AtomicBool,
    /// Exchanges are done, and their answers wait for the word to go on.
    pub(crate) held: AtomicBool,
    pub(crate) go_on: Notify,
    /// Exchanges whose answers wait.
    pub(crate) waiting: AtomicUsize,
    /// Outcomes are left open, and claims get through.
    pub(crate) no_outcomes: AtomicBool,
    /// Sees what is handed in, before it is.
    pub(crate) look: Mutex<Option<Look>>,
    /// Outcomes that were to be handed in, in vain or not.
    pub(crate) offered: AtomicUsize,
    /// Outcomes that were handed in, each time.
    pub(crate) handed_in: Mutex<Vec<i64>>,
    /// How often a job was to be put off, in vain or not.
    pub(crate) postponed: AtomicUsize,
    /// It has no word for that.
    pub(crate) no_postponing: AtomicBool,
    /// Of each claim, after what time those go first that have waited.
    pub(crate) aged: Mutex<Vec<Option<Duration>>>,
    /// How often it was asked what parents have brought.
    pub(crate) questions: AtomicUsize,
    /// Nothing wakes.
    pub(crate) silent: bool,
    pub(crate) exchanges: AtomicUsize,
    pub(crate) attempts: AtomicUsize,
    /// Notes and lines that got through, whether the answer did or not.
    pub(crate) annotations: AtomicUsize,
}

impl Wire {
    pub(crate) fn new(queue: &Queue) -> Wire {
        Wire { inner: queue.source(), state: Arc::default() }
    }

    pub(crate) fn silent(queue: &Queue) -> Wire {
        Wire { inner: queue.source(), state: Arc::new(WireState { silent: true, ..WireState::default() }) }
    }

    fn through(&self) -> Result<(), QueueError> {
        if self.state.cut.load(Ordering::SeqCst) { Err(cut()) } else { Ok(()) }
    }
}

fn cut() -> QueueError {
    QueueError::Unavailable { attempted: "reach it", source: "the wire is cut".into() }
}

#[async_trait]
impl JobSource for Wire {
    async fn register(&self, worker: &WorkerInfo) -> Result<WorkerRef, QueueError> {
        self.state.attempts.fetch_add(1, Ordering::SeqCst);
        self.through()?;
        self.inner.register(worker).await
    }

    async fn heartbeat(&self, worker: i64, status: &WorkerStatus) -> Result<(), QueueError> {
        self.through()?;
        self.inner.heartbeat(worker, status).await
    }

    async fn commands(&self, worker: i64) -> Result<Vec<Command>, QueueError> {
        self.through()?;
        self.inner.commands(worker).await
    }

    fn controls(&self) -> watch::Receiver<u64> {
        if self.state.silent { watch::channel(0).1 } else { self.inner.controls() }
    }

    async fn unregister(&self, worker: i64) -> Result<(), QueueError> {
        self.through()?;
        self.inner.unregister(worker).await
    }

    async fn exchange(&self, outcomes: &[Outcome], claim: &Claim) -> Result<Exchanged, QueueError> {
        self.state.attempts.fetch_add(1, Ordering::SeqCst);
        self.state.offered.fetch_add(outcomes.len(), Ordering::SeqCst);
        if let Some(look) = self.state.look.lock().unwrap().as_ref() {
            look(outcomes);
        }
        if claim.limit > 0 {
            self.state.aged.lock().unwrap().push(claim.aged);
        }
        self.through()?;
        if self.state.no_outcomes.load(Ordering::SeqCst) {
            let claimed = self.inner.exchange(&[], claim).await?;
            return Ok(Exchanged { verdicts: vec![Verdict::Unjudged; outcomes.len()], ..claimed });
        }
        if self.state.full.load(Ordering::SeqCst) {
            let attempted = "hand in outcomes";
            return Err(QueueError::StorageFull { attempted, source: "no space left".into() });
        }
        self.state.exchanges.fetch_add(1, Ordering::SeqCst);
        self.state.handed_in.lock().unwrap().extend(outcomes.iter().map(|outcome| outcome.job));
        let answer = self.inner.exchange(outcomes, claim).await;
        if self.state.held.load(Ordering::SeqCst) {
            self.state.waiting.fetch_add(1, Ordering::SeqCst);
            self.state.go_on.notified().await;
        }
        if self.state.deaf.load(Ordering::SeqCst) { Err(cut()) } else { answer }
    }

    async fn extend(
        &self,
        leases: &[(i64, LeaseToken)],
        lease: Duration,
    ) -> Result<Vec<Extension>, QueueError> {
        self.through()?;
        if self.state.no_extension.load(Ordering::SeqCst) {
            return Err(cut());
        }
        self.inner.extend(leases, lease).await
    }

    async fn release(&self, leases: &[(i64, LeaseToken)]) -> Result<(), QueueError> {
        self.through()?;
        self.inner.release(leases).await
    }

    async fn postpone(&self, job: i64, lease: LeaseToken, pause: Duration) -> Result<bool, QueueError> {
        self.state.postponed.fetch_add(1, Ordering::SeqCst);
        self.through()?;
        if self.state.no_postponing.load(Ordering::SeqCst) {
            return Ok(false);
        }
        let answer = self.inner.postpone(job, lease, pause).await;
        if self.state.deaf.load(Ordering::SeqCst) { Err(cut()) } else { answer }
    }

    async fn annotate(&self, job: i64, lease: LeaseToken, annotation: &Annotation) -> Result<(), QueueError> {
        self.through().inspect_err(|_| _ = self.state.unheard.fetch_add(1, Ordering::SeqCst))?;
        let answer = self.inner.annotate(job, lease, annotation).await;
        self.state.annotations.fetch_add(1, Ordering::SeqCst);
        if self.state.deaf.load(Ordering::SeqCst) { Err(cut()) } else { answer }
    }

    async fn parent_results(
        &self,
        job: i64,
        lease: LeaseToken,
        parents: &[i64],
        from: usize,
    ) -> Result<Vec<JobResult>, QueueError> {
        self.state.questions.fetch_add(1, Ordering::SeqCst);
        self.through()?;
        self.inner.parent_results(job, lease, parents, from).await
    }

    async fn enqueue(&self, jobs: &[EnqueueRequest]) -> Result<Vec<i64>, QueueError> {
        self.through()?;
        self.inner.enqueue(jobs).await
    }

    fn wakeups(&self) -> watch::Receiver<u64> {
        if self.state.silent { watch::channel(0).1 } else { self.inner.wakeups() }
    }

    async fn upkeep(&self, rules: &UpkeepRules) -> Result<Upkept, QueueError> {
        self.through()?;
        self.inner.upkeep(rules).await
    }
}
