//! Being written.
use crate::error::QueueError;
use crate::store::*;
use async_trait::async_trait;
use minium_protocol::{EnqueueRequest, JobView, LeaseToken, WorkerRef};
use std::time::Duration;
use tokio::sync::watch;

#[async_trait]
impl Store for super::PgStore {
    async fn enqueue(&self, _jobs: &[EnqueueRequest]) -> Result<Vec<Enqueued>, QueueError> {
        Err(QueueError::Invalid("being written".into()))
    }
    async fn exchange(&self, _outcomes: &[Outcome], _claim: &Claim) -> Result<Exchanged, QueueError> {
        Err(QueueError::Invalid("being written".into()))
    }
    async fn extend(
        &self,
        _leases: &[(i64, LeaseToken)],
        _lease: Duration,
    ) -> Result<Vec<Extension>, QueueError> {
        Err(QueueError::Invalid("being written".into()))
    }
    async fn annotate(
        &self,
        _job: i64,
        _lease: Option<LeaseToken>,
        _annotation: &Annotation,
    ) -> Result<(), QueueError> {
        Err(QueueError::Invalid("being written".into()))
    }
    async fn cancel(&self, _job: i64) -> Result<(), QueueError> {
        Err(QueueError::Invalid("being written".into()))
    }
    async fn retry(&self, _job: i64, _options: &RetryOptions) -> Result<(), QueueError> {
        Err(QueueError::Invalid("being written".into()))
    }
    async fn remove(&self, _job: i64) -> Result<(), QueueError> {
        Err(QueueError::Invalid("being written".into()))
    }
    async fn get(&self, _job: i64) -> Result<Option<JobView>, QueueError> {
        Err(QueueError::Invalid("being written".into()))
    }
    async fn list(&self, _filter: &JobFilter) -> Result<JobPage, QueueError> {
        Err(QueueError::Invalid("being written".into()))
    }
    async fn stats(&self) -> Result<Stats, QueueError> {
        Err(QueueError::Invalid("being written".into()))
    }
    async fn register_worker(&self, _host: &str, _pid: u32) -> Result<WorkerRef, QueueError> {
        Err(QueueError::Invalid("being written".into()))
    }
    async fn heartbeat(&self, _worker: i64) -> Result<(), QueueError> {
        Err(QueueError::Invalid("being written".into()))
    }
    async fn unregister_worker(&self, _worker: i64) -> Result<(), QueueError> {
        Err(QueueError::Invalid("being written".into()))
    }
    async fn fire_schedules(&self, _schedules: &[Schedule]) -> Result<Option<Duration>, QueueError> {
        Err(QueueError::Invalid("being written".into()))
    }
    async fn upkeep(&self, _rules: &UpkeepRules) -> Result<Upkept, QueueError> {
        Err(QueueError::Invalid("being written".into()))
    }
    fn wakeups(&self) -> watch::Receiver<u64> {
        tokio::sync::watch::Sender::new(0).subscribe()
    }
    async fn ping(&self) -> Result<(), QueueError> {
        Err(QueueError::Invalid("being written".into()))
    }
}
