//! Where a worker's jobs come from: the store, or a client over WebSocket.
//!
//! The words are the store's own, cut to what a worker needs. A source that cannot be reached says
//! [`QueueError::Unavailable`]; the worker then keeps what it has and asks again, for ever.

use async_trait::async_trait;
use minium_protocol::{EnqueueRequest, JobResult, LeaseToken, WorkerRef};
use minium_queue::{
    Annotation, Claim, Command, Exchanged, Extension, Outcome, QueueError, Store, UpkeepRules, Upkept,
    WorkerInfo, WorkerStatus, rules,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// What parents have brought is read in pieces of so many bytes, or of one result.
const RESULTS_BYTES_MAX: usize = 8 << 20;

/// Gives out jobs and takes their outcomes.
#[async_trait]
pub trait JobSource: Send + Sync + 'static {
    /// A number for this process.
    async fn register(&self, worker: &WorkerInfo) -> Result<WorkerRef, QueueError>;

    /// The worker is alive, and fares like this. One that the source has forgotten gets [`QueueError::Unregistered`].
    async fn heartbeat(&self, worker: i64, status: &WorkerStatus) -> Result<(), QueueError>;

    /// The worker goes, orderly.
    async fn unregister(&self, worker: i64) -> Result<(), QueueError>;

    /// Hands outcomes in and claims more. Either part may be empty. Handing in the same outcome again is harmless. A
    /// verdict says that the outcome is the source's affair from now on: it counts, or is kept on disk until it does.
    async fn exchange(&self, outcomes: &[Outcome], claim: &Claim) -> Result<Exchanged, QueueError>;

    /// Extends leases to `lease` from now. One answer per lease, in order.
    async fn extend(
        &self,
        leases: &[(i64, LeaseToken)],
        lease: Duration,
    ) -> Result<Vec<Extension>, QueueError>;

    /// Gives back jobs that were claimed and that nobody has begun, so that others can take them at once. Leases that are
    /// gone are passed over.
    async fn release(&self, leases: &[(i64, LeaseToken)]) -> Result<(), QueueError>;

    /// A run has ended without an outcome, since its lease is gone: it takes no place any more.
    fn gave_up(&self, _lease: LeaseToken) {}

    /// Puts a running job off: it waits again for so long, and the run does not count as an attempt; of a lease that is gone
    /// nothing becomes. Answers whether the source has such a word at all: where it has not, the run fails in its place.
    async fn postpone(&self, _job: i64, _lease: LeaseToken, _pause: Duration) -> Result<bool, QueueError> {
        Ok(false)
    }

    /// Notes, progress and log lines of a running job.
    async fn annotate(&self, job: i64, lease: LeaseToken, annotation: &Annotation) -> Result<(), QueueError>;

    /// What a running job's parents have brought, from the one at this place on: as many as one answer holds, at least one.
    async fn parent_results(
        &self,
        job: i64,
        lease: LeaseToken,
        parents: &[i64],
        from: usize,
    ) -> Result<Vec<JobResult>, QueueError>;

    /// Enqueues jobs, all or none. Answers their numbers, in order.
    async fn enqueue(&self, jobs: &[EnqueueRequest]) -> Result<Vec<i64>, QueueError>;

    /// Changes whenever there may be something to claim.
    fn wakeups(&self) -> watch::Receiver<u64>;

    /// One round of upkeep, if that is a worker's affair at all with this source.
    async fn upkeep(&self, rules: &UpkeepRules) -> Result<Upkept, QueueError>;

    /// How many jobs are claimed already and wait in the source. They are run even when the worker ends, or they would
    /// be lost to their leases.
    fn arrived(&self) -> usize {
        0
    }

    /// What this worker was told since it last asked, each word once. Not every source has commands.
    async fn commands(&self, _worker: i64) -> Result<Vec<Command>, QueueError> {
        Ok(Vec::new())
    }

    /// Changes whenever there may be commands, or a running job may have been cancelled.
    fn controls(&self) -> watch::Receiver<u64> {
        watch::channel(0).1
    }

    /// The next run that was cancelled, where that is told before the lease is extended.
    async fn cancelled(&self) -> LeaseToken {
        std::future::pending().await
    }
}

/// Jobs straight from a store.
#[derive(Clone)]
pub struct StoreSource {
    store: Arc<dyn Store>,
}

impl StoreSource {
    /// Jobs from this store.
    pub fn new(store: Arc<dyn Store>) -> StoreSource {
        StoreSource { store }
    }
}

#[async_trait]
impl JobSource for StoreSource {
    async fn register(&self, worker: &WorkerInfo) -> Result<WorkerRef, QueueError> {
        self.store.register_worker(worker).await
    }

    async fn heartbeat(&self, worker: i64, status: &WorkerStatus) -> Result<(), QueueError> {
        self.store.heartbeat(worker, status).await
    }

    async fn unregister(&self, worker: i64) -> Result<(), QueueError> {
        self.store.unregister_worker(worker).await
    }

    async fn exchange(&self, outcomes: &[Outcome], claim: &Claim) -> Result<Exchanged, QueueError> {
        self.store.exchange(outcomes, claim).await
    }

    async fn extend(
        &self,
        leases: &[(i64, LeaseToken)],
        lease: Duration,
    ) -> Result<Vec<Extension>, QueueError> {
        self.store.extend(leases, lease).await
    }

    async fn release(&self, leases: &[(i64, LeaseToken)]) -> Result<(), QueueError> {
        self.store.release(leases).await.map(drop)
    }

    async fn postpone(&self, job: i64, lease: LeaseToken, pause: Duration) -> Result<bool, QueueError> {
        self.store.postpone(job, lease, pause).await.map(|_| true)
    }

    async fn annotate(&self, job: i64, lease: LeaseToken, annotation: &Annotation) -> Result<(), QueueError> {
        self.store.annotate(job, Some(lease), annotation).await
    }

    async fn parent_results(
        &self,
        _job: i64,
        _lease: LeaseToken,
        parents: &[i64],
        from: usize,
    ) -> Result<Vec<JobResult>, QueueError> {
        let asked = &parents[from.min(parents.len())..];
        self.store.results(&asked[..asked.len().min(rules::RESULTS_MAX)], RESULTS_BYTES_MAX).await
    }

    async fn enqueue(&self, jobs: &[EnqueueRequest]) -> Result<Vec<i64>, QueueError> {
        Ok(self.store.enqueue(jobs).await?.into_iter().map(|enqueued| enqueued.id).collect())
    }

    fn wakeups(&self) -> watch::Receiver<u64> {
        self.store.wakeups()
    }

    async fn commands(&self, worker: i64) -> Result<Vec<Command>, QueueError> {
        self.store.take_commands(worker).await
    }

    fn controls(&self) -> watch::Receiver<u64> {
        self.store.controls()
    }

    async fn upkeep(&self, rules: &UpkeepRules) -> Result<Upkept, QueueError> {
        self.store.upkeep(rules).await
    }
}
