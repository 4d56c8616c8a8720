//! The real store, which counts how it is asked, and wakes nobody if it is told so.

use super::desk::Calls;
use async_trait::async_trait;
use jiff::Timestamp;
use minium_protocol::{EnqueueRequest, JobResult, JobView, LeaseToken, LockToken, ScheduleView, WorkerRef};
use minium_queue::{
    Amendment, Annotation, ArgsMask, AttemptFailure, Claim, Command, Enqueued, Exchanged, Extension, Hour,
    JobFilter, JobPage, Limit, LimitView, Limits, LockFilter, LockHeld, LockPage, Locks, LogPage, Logs,
    Outcome, Pressure, Pressured, Pull, Pulled, QueueError, QueueView, QueueWait, Queues, RetryOptions,
    Schedule, ScheduleFilter, SchedulePage, Schedules, Stats, Store, UpkeepRules, Upkept, WorkerFilter,
    WorkerInfo, WorkerPage, WorkerStatus, Workers,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use uuid::Uuid;

/// A store that counts how it is asked.
pub(super) struct Counted {
    pub(super) store: Arc<dyn Store>,
    pub(super) calls: Arc<Calls>,
    /// Of a store that wakes nobody.
    pub(super) silence: Option<watch::Sender<u64>>,
}

fn count(calls: &AtomicUsize) {
    calls.fetch_add(1, Ordering::SeqCst);
}

#[async_trait]
impl Limits for Counted {
    async fn put_limits(&self, limits: &[Limit]) -> Result<(), QueueError> {
        self.store.put_limits(limits).await
    }

    async fn limits(&self) -> Result<Vec<LimitView>, QueueError> {
        self.store.limits().await
    }
}

#[async_trait]
impl Logs for Counted {
    async fn log(&self, job: i64, after: i64, limit: u32) -> Result<LogPage, QueueError> {
        self.store.log(job, after, limit).await
    }
}

#[async_trait]
impl Queues for Counted {
    async fn pause_queue(&self, queue: &str) -> Result<bool, QueueError> {
        self.store.pause_queue(queue).await
    }

    async fn resume_queue(&self, queue: &str) -> Result<bool, QueueError> {
        self.store.resume_queue(queue).await
    }

    async fn queues(&self) -> Result<Vec<QueueView>, QueueError> {
        self.store.queues().await
    }

    async fn queue_waits(&self) -> Result<Vec<QueueWait>, QueueError> {
        self.store.queue_waits().await
    }
}

#[async_trait]
impl Locks for Counted {
    async fn lock(
        &self,
        name: &str,
        owner: &str,
        span: Duration,
        limit: u32,
    ) -> Result<Option<LockHeld>, QueueError> {
        self.store.lock(name, owner, span, limit).await
    }

    async fn extend_lock(
        &self,
        name: &str,
        token: LockToken,
        span: Duration,
    ) -> Result<Option<Timestamp>, QueueError> {
        self.store.extend_lock(name, token, span).await
    }

    async fn unlock(&self, name: &str, token: LockToken) -> Result<bool, QueueError> {
        self.store.unlock(name, token).await
    }

    async fn unlock_any(&self, name: &str) -> Result<u64, QueueError> {
        self.store.unlock_any(name).await
    }

    async fn locks(&self, filter: &LockFilter) -> Result<LockPage, QueueError> {
        self.store.locks(filter).await
    }
}

#[async_trait]
impl Schedules for Counted {
    async fn put_schedule(&self, schedule: &Schedule) -> Result<bool, QueueError> {
        self.store.put_schedule(schedule).await
    }

    async fn put_configured_schedules(&self, all: &[Schedule]) -> Result<(), QueueError> {
        self.store.put_configured_schedules(all).await
    }

    async fn remove_schedule(&self, name: &str) -> Result<(), QueueError> {
        self.store.remove_schedule(name).await
    }

    async fn schedule(&self, name: &str) -> Result<Option<ScheduleView>, QueueError> {
        self.store.schedule(name).await
    }

    async fn schedules(&self, filter: &ScheduleFilter) -> Result<SchedulePage, QueueError> {
        self.store.schedules(filter).await
    }

    async fn pause_schedule(&self, name: &str, paused: bool) -> Result<(), QueueError> {
        self.store.pause_schedule(name, paused).await
    }

    async fn run_schedule(&self, name: &str) -> Result<Enqueued, QueueError> {
        self.store.run_schedule(name).await
    }

    async fn fire_schedules(&self) -> Result<Option<Duration>, QueueError> {
        self.store.fire_schedules().await
    }

    fn schedule_changes(&self) -> watch::Receiver<u64> {
        self.store.schedule_changes()
    }
}

#[async_trait]
impl Store for Counted {
    async fn enqueue(&self, jobs: &[EnqueueRequest]) -> Result<Vec<Enqueued>, QueueError> {
        count(&self.calls.enqueues);
        self.store.enqueue(jobs).await
    }

    async fn exchange(&self, outcomes: &[Outcome], claim: &Claim) -> Result<Exchanged, QueueError> {
        count(&self.calls.exchanges);
        self.store.exchange(outcomes, claim).await
    }

    async fn pull(&self, pulls: &[Pull]) -> Result<Vec<Pulled>, QueueError> {
        count(&self.calls.pulls);
        let answer = self.store.pull(pulls).await;
        count(&self.calls.pulled);
        answer
    }

    async fn release(&self, leases: &[(i64, LeaseToken)]) -> Result<u64, QueueError> {
        count(&self.calls.releases);
        self.store.release(leases).await
    }

    async fn postpone(&self, job: i64, lease: LeaseToken, pause: Duration) -> Result<bool, QueueError> {
        self.store.postpone(job, lease, pause).await
    }

    async fn extend(
        &self,
        leases: &[(i64, LeaseToken)],
        lease: Duration,
    ) -> Result<Vec<Extension>, QueueError> {
        count(&self.calls.extends);
        self.store.extend(leases, lease).await
    }

    async fn annotate(&self, job: i64, lease: Option<LeaseToken>, a: &Annotation) -> Result<(), QueueError> {
        self.store.annotate(job, lease, a).await
    }

    async fn amend(&self, job: i64, amendment: &Amendment) -> Result<(), QueueError> {
        self.store.amend(job, amendment).await
    }

    async fn cancel(&self, job: i64) -> Result<(), QueueError> {
        self.store.cancel(job).await
    }

    async fn cancel_cascade(&self, job: i64) -> Result<u64, QueueError> {
        self.store.cancel_cascade(job).await
    }

    async fn retry(&self, job: i64, options: &RetryOptions) -> Result<(), QueueError> {
        self.store.retry(job, options).await
    }

    async fn remove(&self, job: i64) -> Result<(), QueueError> {
        self.store.remove(job).await
    }

    async fn get(&self, job: i64) -> Result<Option<JobView>, QueueError> {
        self.store.get(job).await
    }

    async fn results(&self, jobs: &[i64], bytes_max: usize) -> Result<Vec<JobResult>, QueueError> {
        self.store.results(jobs, bytes_max).await
    }

    async fn failures(&self, job: i64) -> Result<Vec<AttemptFailure>, QueueError> {
        self.store.failures(job).await
    }

    async fn list(&self, filter: &JobFilter) -> Result<JobPage, QueueError> {
        self.store.list(filter).await
    }

    async fn stats(&self) -> Result<Stats, QueueError> {
        self.store.stats().await
    }

    async fn hours(&self) -> Result<Vec<Hour>, QueueError> {
        self.store.hours().await
    }

    async fn put_masks(&self, masks: &[ArgsMask]) -> Result<(), QueueError> {
        self.store.put_masks(masks).await
    }

    async fn upkeep(&self, rules: &UpkeepRules) -> Result<Upkept, QueueError> {
        self.store.upkeep(rules).await
    }

    fn wakeups(&self) -> watch::Receiver<u64> {
        self.silence.as_ref().map_or_else(|| self.store.wakeups(), watch::Sender::subscribe)
    }

    async fn ping(&self) -> Result<(), QueueError> {
        self.store.ping().await
    }
}

#[async_trait]
impl Pressured for Counted {
    async fn press(&self, node: Uuid, pressure: Option<Pressure>) -> Result<(), QueueError> {
        self.store.press(node, pressure).await
    }

    async fn pressure(&self) -> Result<Option<Pressure>, QueueError> {
        self.store.pressure().await
    }
}

#[async_trait]
impl Workers for Counted {
    async fn register_worker(&self, worker: &WorkerInfo) -> Result<WorkerRef, QueueError> {
        self.store.register_worker(worker).await
    }

    async fn heartbeat(&self, worker: i64, status: &WorkerStatus) -> Result<(), QueueError> {
        self.store.heartbeat(worker, status).await
    }

    async fn unregister_worker(&self, worker: i64) -> Result<(), QueueError> {
        self.store.unregister_worker(worker).await
    }

    async fn workers(&self, filter: &WorkerFilter) -> Result<WorkerPage, QueueError> {
        self.store.workers(filter).await
    }

    async fn send_command(&self, to: Option<&[i64]>, command: &Command) -> Result<u64, QueueError> {
        self.store.send_command(to, command).await
    }

    async fn take_commands(&self, worker: i64) -> Result<Vec<Command>, QueueError> {
        self.store.take_commands(worker).await
    }

    fn controls(&self) -> watch::Receiver<u64> {
        self.store.controls()
    }
}
