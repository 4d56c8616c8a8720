//! Jobs over one WebSocket connection: no database, only a node's URL.
//!
//! The connection gives out jobs as credit allows, so they arrive by themselves and wait in an inbox until the worker
//! asks. Outcomes go the other way through the [spool](crate::Spool): they are on the disk before the worker is told
//! that they are in good hands, and are reported from there, for as long as it takes.
//!
//! **Invariants.** No more jobs are in hand than the worker has slots; a slot counts as free when its outcome is on the
//! disk, and not while the spool is full. An outcome leaves the spool when the node has answered it, and not before.

mod reports;

use crate::running::WORKER_STOPPED;
use crate::source::JobSource;
use crate::spool::{Spool, SpoolError};
use async_trait::async_trait;
use futures::StreamExt;
use futures::future::try_join_all;
use minium_client::{ClientError, Connection, LeasedJob, PullOptions, State as Link, Work};
use minium_protocol::{EnqueueRequest, ErrorCode, JobResult, LeaseToken, Problem, Topic, WorkerRef};
use minium_queue::{
    Annotation, Claim, Ending, Exchanged, Extension, Leased, Outcome, QueueError, UpkeepRules, Upkept,
    Verdict, WorkerInfo, WorkerStatus,
};
use reports::Reports;
use serde_json::value::RawValue;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tracing::field::display;
use tracing::{info, warn};

/// Cancellations that wait to be taken; one that finds no room is learnt with the next extension.
const CANCELS_MAX: usize = 1_024;

/// Jobs from a node, over WebSocket.
#[derive(Clone)]
pub struct ClientSource {
    inner: Arc<Inner>,
}

struct Inner {
    link: Connection,
    /// So many jobs at once.
    slots: u32,
    hands: Mutex<Hands>,
    reports: Arc<Reports>,
    /// Whoever is spawned ends with its handle, or with the connection.
    tasks: TaskTracker,
    wakeups: watch::Sender<u64>,
    cancels: mpsc::Sender<LeaseToken>,
    cancelled: tokio::sync::Mutex<mpsc::Receiver<LeaseToken>>,
    /// Why nothing more will come.
    failure: watch::Sender<Option<Arc<ClientError>>>,
}

/// A job that is ours, and who listens whether it is cancelled.
struct InHand {
    job: Box<LeasedJob>,
    _listening: AbortOnDropHandle<()>,
}

#[derive(Default)]
struct Hands {
    /// Arrived and not begun.
    inbox: VecDeque<InHand>,
    /// Begun.
    running: HashMap<LeaseToken, InHand>,
    /// Over, and their slots not free yet: the spool is full.
    full: Vec<InHand>,
    pulling: Option<AbortOnDropHandle<()>>,
    /// It was told that leases are short.
    warned: bool,
}

impl ClientSource {
    /// Jobs over this connection, at most `slots` at once. What the spool holds is reported first. To be called on a
    /// tokio runtime.
    pub fn new(link: Connection, spool: Spool, slots: usize) -> ClientSource {
        let (cancels, cancelled) = mpsc::channel(CANCELS_MAX);
        let urls = link.base_urls().collect::<Vec<_>>().join(", ");
        let tasks = TaskTracker::new();
        tasks.spawn(tell_of_outages(link.state(), urls));
        let reports = Reports::start(link.clone(), spool);
        let inner = Arc::new(Inner {
            link,
            slots: u32::try_from(slots).unwrap_or(u32::MAX).clamp(1, minium_protocol::CREDIT_MAX),
            hands: Mutex::default(),
            reports,
            tasks,
            wakeups: watch::Sender::new(0),
            cancels,
            cancelled: tokio::sync::Mutex::new(cancelled),
            failure: watch::Sender::new(None),
        });
        let weak = Arc::downgrade(&inner);
        inner.reports.when_room(move || {
            // what was over while the spool was full makes room now
            if let Some(inner) = weak.upgrade() {
                drop(std::mem::take(&mut inner.hands().full));
                inner.wake();
            }
        });
        ClientSource { inner }
    }

    /// Set when the node said something after which it is no use to come back: a token that is not accepted, a channel
    /// that is none.
    pub fn failure(&self) -> watch::Receiver<Option<Arc<ClientError>>> {
        self.inner.failure.subscribe()
    }

    /// Is the node there?
    fn reach(&self, attempted: &'static str) -> Result<(), QueueError> {
        let state = self.inner.link.state();
        let state = state.borrow();
        match &*state {
            Link::Connecting { last, .. } => {
                let why = last.clone().unwrap_or_else(|| "the node is not connected".into());
                Err(QueueError::Unavailable { attempted, source: why.into() })
            }
            Link::Ended => {
                Err(QueueError::Unavailable { attempted, source: "the connection has ended".into() })
            }
            Link::Idle | Link::Open { .. } => Ok(()),
        }
    }

    /// Begins to pull, with the first claim.
    fn pull(&self, claim: &Claim) -> Result<(), QueueError> {
        let mut hands = self.inner.hands();
        if hands.pulling.is_some() || self.inner.reports.is_full() {
            return Ok(());
        }
        let invalid = |words: String| QueueError::Invalid(words);
        let topics: Result<Vec<Topic>, _> = claim.tasks.iter().flatten().map(|t| t.parse()).collect();
        let mut topics = topics.map_err(|e| invalid(format!("a task is no channel: {e}")))?.into_iter();
        let first = topics.next().ok_or_else(|| invalid("a worker over WebSocket names its tasks".into()))?;
        let [queue] = &claim.queues[..] else {
            return Err(invalid("a worker over WebSocket takes jobs from one queue".into()));
        };
        let options = PullOptions {
            tasks: topics.collect(),
            // said in any case: on a channel that is not durable it is refused, before a message comes
            queue: Some(queue.clone()),
            credit: self.inner.slots,
        };
        let pump = pump(Arc::downgrade(&self.inner), self.inner.link.clone(), first, options, claim.lease);
        hands.pulling = Some(AbortOnDropHandle::new(self.inner.tasks.spawn(pump)));
        Ok(())
    }

    /// Jobs that have arrived.
    fn take(&self, limit: u32) -> Vec<Leased> {
        let mut hands = self.inner.hands();
        let mut jobs = Vec::new();
        while jobs.len() < limit as usize
            && let Some(next) = hands.inbox.pop_front()
        {
            jobs.push(leased(&next.job));
            hands.running.insert(next.job.lease(), next);
        }
        jobs
    }
}

impl Inner {
    fn hands(&self) -> MutexGuard<'_, Hands> {
        self.hands.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        self.wakeups.send_modify(|n| *n += 1);
    }

    /// Nothing more will come. Whoever [watches](ClientSource::failure) for the error tells it; else it is told here.
    fn fail(&self, error: ClientError, gave: bool) {
        let error_here = (self.failure.receiver_count() == 0).then(|| display(&error));
        if gave {
            warn!(error = error_here, "The node gives out no jobs to this worker any more.");
        } else {
            warn!(error = error_here, "The node refuses this worker.");
        }
        self.failure.send_replace(Some(Arc::new(error)));
        self.wake();
    }

    fn arrived(self: &Arc<Self>, job: Box<LeasedJob>, asked_lease: Duration) {
        let (lease, cancelled, inner) = (job.lease(), job.cancelled(), Arc::downgrade(self));
        let listening = self.tasks.spawn(async move {
            cancelled.await;
            let Some(inner) = inner.upgrade() else { return };
            // without room for it, the next extension tells
            inner.cancels.try_send(lease).ok();
            let waited = {
                let mut hands = inner.hands();
                let place = hands.inbox.iter().position(|h| h.job.lease() == lease);
                place.and_then(|i| hands.inbox.remove(i))
            };
            drop(waited);
        });
        let given = job.lease_expires.zip(job.job.started).map(|(until, from)| until.duration_since(from));
        let short = given.is_some_and(|given| given.as_secs_f64() + 0.001 < asked_lease.as_secs_f64());
        let mut hands = self.hands();
        if short && !std::mem::replace(&mut hands.warned, true) {
            warn!(
                "The channel's leases are shorter than this worker's --lease: set it no longer than theirs."
            );
        }
        hands.inbox.push_back(InHand { job, _listening: AbortOnDropHandle::new(listening) });
        drop(hands);
        self.wake();
    }
}

/// Tells the log when the node is away, once, and when it is back.
async fn tell_of_outages(mut state: watch::Receiver<Link>, url: String) {
    let mut away = false;
    state.mark_changed();
    while state.changed().await.is_ok() {
        match &*state.borrow_and_update() {
            Link::Connecting { last: Some(error), .. } if !away => {
                away = true;
                warn!(url, error, "The node is away; trying again until it is there.");
            }
            Link::Open { .. } if std::mem::take(&mut away) => info!(url, "The node is back."),
            Link::Ended => return,
            Link::Connecting { .. } | Link::Open { .. } | Link::Idle => {}
        }
    }
}

/// Takes jobs until the connection is over for good.
async fn pump(
    inner: std::sync::Weak<Inner>,
    link: Connection,
    topic: Topic,
    options: PullOptions,
    lease: Duration,
) {
    let mut puller = match link.pull(&topic, options).await {
        Ok(puller) => puller,
        Err(error) => return inner.upgrade().map_or((), |inner| inner.fail(error, false)),
    };
    while let Some(work) = puller.next().await {
        let Some(inner) = inner.upgrade() else { return };
        match work {
            Ok(Work::Job(job)) => inner.arrived(job, lease),
            Ok(_) => {
                let words = format!("{topic} is not durable: what is pushed there is no job");
                return inner.fail(Problem::new(ErrorCode::InvalidRequest, words).into(), true);
            }
            Err(error) => return inner.fail(error, true),
        }
    }
}

fn leased(job: &LeasedJob) -> Leased {
    let snapshot = &job.job;
    Leased {
        id: snapshot.id,
        task: snapshot.task.clone(),
        args: snapshot.args.clone(),
        attempt: snapshot.attempt,
        attempts: snapshot.attempts,
        lease: job.lease(),
        lease_expires: job.lease_expires.unwrap_or(jiff::Timestamp::MAX),
        // no part of a snapshot
        timeout: None,
        trace: job.trace.clone(),
        queue: snapshot.queue.clone(),
        priority: snapshot.priority,
        notes: snapshot.notes.clone(),
        parents: snapshot.parents.clone(),
    }
}

fn failed(attempted: &'static str, error: ClientError, job: i64) -> QueueError {
    match error.code() {
        Some(ErrorCode::LeaseLost) => QueueError::LeaseLost(job),
        Some(ErrorCode::NotFound) => QueueError::NotFound(job),
        Some(ErrorCode::InvalidRequest | ErrorCode::PayloadTooLarge | ErrorCode::InvalidJson) => {
            QueueError::Refused { attempted, source: Box::new(error) }
        }
        _ => QueueError::Unavailable { attempted, source: Box::new(error) },
    }
}

/// Why a task's own question to the node got no answer. A refusal is told in its own words: the task fails with them.
fn not_given(attempted: &'static str, error: ClientError, job: i64) -> QueueError {
    match error.problem() {
        Some(problem) if !problem.retryable => match problem.code {
            ErrorCode::LeaseLost | ErrorCode::NotFound => failed(attempted, error, job),
            _ => QueueError::Invalid(format!("the node does not {attempted}: {error}")),
        },
        _ => failed(attempted, error, job),
    }
}

#[async_trait]
impl JobSource for ClientSource {
    /// The node registers pullers; this worker's name is its token's subject, or its address.
    async fn register(&self, worker: &WorkerInfo) -> Result<WorkerRef, QueueError> {
        Ok(WorkerRef { id: 0, host: worker.host.clone(), pid: worker.pid })
    }

    async fn heartbeat(&self, _: i64, _: &WorkerStatus) -> Result<(), QueueError> {
        self.reach("tell that the worker is alive")
    }

    /// Waits until everything has been reported; whoever does not wait finds it in the spool.
    async fn unregister(&self, _: i64) -> Result<(), QueueError> {
        drop(self.inner.hands().pulling.take());
        // what came when nothing was taken any more
        let waiting: Vec<InHand> = self.inner.hands().inbox.drain(..).collect();
        let leases: Vec<_> = waiting.iter().map(|w| (w.job.job.id, w.job.lease())).collect();
        self.release(&leases).await?;
        self.inner.reports.all_reported().await;
        self.inner.link.close().await;
        Ok(())
    }

    async fn exchange(&self, outcomes: &[Outcome], claim: &Claim) -> Result<Exchanged, QueueError> {
        if !outcomes.is_empty() {
            self.inner.reports.keep(outcomes.to_vec()).await.map_err(not_kept)?;
            let mut over = Vec::new();
            let mut hands = self.inner.hands();
            // looked at under the lock: who makes room takes what is here afterwards
            let full = self.inner.reports.is_full();
            for outcome in outcomes {
                over.extend(hands.running.remove(&outcome.lease));
            }
            if full {
                hands.full.append(&mut over);
            }
            drop(hands);
            // from here on, more may come for these
            drop(over);
        }
        if claim.limit > 0 {
            self.pull(claim)?;
        }
        Ok(Exchanged {
            verdicts: vec![Verdict::Accepted; outcomes.len()],
            jobs: self.take(claim.limit),
            slowed: false,
        })
    }

    async fn extend(&self, leases: &[(i64, LeaseToken)], _: Duration) -> Result<Vec<Extension>, QueueError> {
        const WHAT: &str = "extend leases";
        self.reach(WHAT)?;
        let extend = |(job, lease): &(i64, LeaseToken)| {
            let (job, lease) = (*job, *lease);
            async move {
                match self.inner.link.extend(job, lease).await {
                    Ok(Some(until)) => Ok(Extension::Until(until)),
                    Ok(None) => Ok(Extension::Cancelled),
                    Err(error) => match failed(WHAT, error, job) {
                        QueueError::LeaseLost(_) | QueueError::NotFound(_) => Ok(Extension::Lost),
                        error => Err(error),
                    },
                }
            }
        };
        try_join_all(leases.iter().map(extend)).await
    }

    /// `minium.v1` has no word for it: they are handed in as failures that may be tried again.
    async fn release(&self, leases: &[(i64, LeaseToken)]) -> Result<(), QueueError> {
        let ending = || Ending::failed(WORKER_STOPPED);
        let outcomes: Vec<Outcome> = leases
            .iter()
            .map(|(job, lease)| Outcome { job: *job, lease: *lease, ending: ending() })
            .collect();
        self.inner.reports.keep(outcomes).await.map_err(not_kept)
    }

    fn gave_up(&self, lease: LeaseToken) {
        let over = self.inner.hands().running.remove(&lease);
        drop(over);
    }

    async fn annotate(&self, job: i64, lease: LeaseToken, annotation: &Annotation) -> Result<(), QueueError> {
        const WHAT: &str = "write notes";
        self.reach(WHAT)?;
        let Annotation { notes, progress, log } = annotation.clone();
        match self
            .inner
            .link
            .note(job, lease, notes, progress, log)
            .await
            .map_err(|error| failed(WHAT, error, job))?
        {
            Some(_) => Ok(()),
            None => {
                self.inner.cancels.try_send(lease).ok();
                Err(QueueError::LeaseLost(job))
            }
        }
    }

    /// Over HTTP, where answers may be large and nothing waits behind them.
    async fn parent_results(
        &self,
        job: i64,
        lease: LeaseToken,
        _parents: &[i64],
        from: usize,
    ) -> Result<Vec<JobResult>, QueueError> {
        let asked = self.inner.link.parent_results(job, lease, from);
        let page = asked.await.map_err(|error| not_given("read what parents have brought", error, job))?;
        Ok(page.parents)
    }

    /// Over HTTP, so that they may be of any task. It needs the scope `jobs:write`.
    async fn enqueue(&self, jobs: &[EnqueueRequest]) -> Result<Vec<i64>, QueueError> {
        self.inner.link.enqueue_all(jobs).await.map_err(|error| not_given("enqueue jobs", error, 0))
    }

    fn wakeups(&self) -> watch::Receiver<u64> {
        self.inner.wakeups.subscribe()
    }

    /// The node looks after its queue itself.
    async fn upkeep(&self, _: &UpkeepRules) -> Result<Upkept, QueueError> {
        Ok(Upkept::default())
    }

    fn arrived(&self) -> usize {
        self.inner.hands().inbox.len()
    }

    async fn cancelled(&self) -> LeaseToken {
        match self.inner.cancelled.lock().await.recv().await {
            Some(lease) => lease,
            None => std::future::pending().await,
        }
    }
}

fn not_kept(error: SpoolError) -> QueueError {
    QueueError::StorageFull { attempted: "keep outcomes in the spool", source: Box::new(error) }
}

/// The result, as the node takes it.
fn result(result: &RawValue) -> Option<Box<RawValue>> {
    Some(result.to_owned()).filter(|r| r.get() != "null")
}
