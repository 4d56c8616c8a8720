//! Queues: where jobs wait. A queue is there as soon as a job waits in it; it may be paused before.

use crate::error::QueueError;
use async_trait::async_trait;
use jiff::Timestamp;
use serde::Serialize;
use std::time::Duration;

/// So many jobs that are ready are counted in each queue; more are told as this many.
pub const READY_COUNTED_MAX: i64 = 10_000;

/// So many pairs of queue and priority are looked at when it is asked how long queues wait.
pub(crate) const LANES_MAX: i64 = 10_000;

/// A queue as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QueueView {
    /// Its name.
    pub name: String,
    /// Since when nothing is claimed from it, if it is paused.
    pub paused: Option<Timestamp>,
    /// Jobs that could be claimed at once, counted up to [`READY_COUNTED_MAX`].
    pub ready: i64,
}

/// How long a queue has kept somebody waiting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueWait {
    /// Its name.
    pub name: String,
    /// How long the job that waits longest could have been claimed, by the database's clock. What a lease that ran out took
    /// counts as well.
    pub waited: Duration,
}

/// Looks after queues.
#[async_trait]
pub trait Queues: Send + Sync {
    /// Nothing is claimed from this queue any more. What runs runs on. Answers whether it was not paused before.
    ///
    /// # Errors
    /// [`QueueError::Invalid`] for a name that no queue can have.
    async fn pause_queue(&self, queue: &str) -> Result<bool, QueueError>;

    /// Jobs are claimed from this queue again. Answers whether it was paused.
    async fn resume_queue(&self, queue: &str) -> Result<bool, QueueError>;

    /// Queues in which jobs are ready, and those that are paused, by name. At most
    /// [`rules::PAGE_MAX`](crate::rules::PAGE_MAX).
    async fn queues(&self) -> Result<Vec<QueueView>, QueueError>;

    /// Queues in which jobs are ready, by name, with how long the first of them waits. Jobs under limits do not count: they
    /// are held back on purpose. At most [`rules::PAGE_MAX`](crate::rules::PAGE_MAX).
    async fn queue_waits(&self) -> Result<Vec<QueueWait>, QueueError>;
}
