//! The jobs that a job comes from and those that come from it: what its parents brought, and what it enqueues.

use crate::backoff::jittered;
use crate::context::JobContext;
use minium_protocol::{EnqueueRequest, JobResult};
use minium_queue::QueueError;
use std::time::Duration;
use tokio::time::sleep;
use tracing::debug;

/// How long until a source that is away is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(500);

impl JobContext {
    /// The jobs that it waited for, in the order in which they were named.
    pub fn parents(&self) -> &[i64] {
        &self.job.parents
    }

    /// What each of its parents brought, in the order of [`JobContext::parents`]; one that was removed meanwhile has no
    /// `state`. All of it comes into memory. A source that is away is waited for, until the job is told to stop.
    ///
    /// # Errors
    /// What waiting does not help, and [`QueueError::Unavailable`] when the job is told to stop.
    pub async fn parent_results(&self) -> Result<Vec<JobResult>, QueueError> {
        let parents = self.parents();
        let mut results = Vec::with_capacity(parents.len());
        while results.len() < parents.len() {
            let ask = self.source.parent_results(self.id(), self.lease(), parents, results.len());
            match ask.await {
                Ok(some) if some.is_empty() => {
                    let words = format!("what the parents of job {} brought is not told", self.id());
                    return Err(QueueError::Invalid(words));
                }
                Ok(some) => results.extend(some),
                Err(error) if error.is_away() => self.wait_for_source(error).await?,
                Err(error) => return Err(error),
            }
        }
        Ok(results)
    }

    /// Enqueues a job whose `origin` is this one, and answers its number. When this job is cancelled with all that it
    /// enqueued, that one is, too. It has the trace context of this one unless it brings another.
    ///
    /// A run that fails behind this and is tried again enqueues once more: a `key` keeps that from happening twice.
    ///
    /// # Errors
    /// Of the source. When that was away, nobody knows whether the job was enqueued.
    pub async fn enqueue(&self, request: EnqueueRequest) -> Result<i64, QueueError> {
        let ids = self.enqueue_all(vec![request]).await?;
        ids.first().copied().ok_or_else(|| QueueError::Invalid("the job's number is not told".into()))
    }

    /// Enqueues all or none, as [`JobContext::enqueue`] does. Answers their numbers, in order.
    ///
    /// # Errors
    /// As [`JobContext::enqueue`].
    pub async fn enqueue_all(&self, mut requests: Vec<EnqueueRequest>) -> Result<Vec<i64>, QueueError> {
        for request in &mut requests {
            request.options.origin = Some(self.id());
            if request.options.trace.is_none() {
                request.options.trace = self.trace_context().cloned();
            }
        }
        self.source.enqueue(&requests).await
    }

    async fn wait_for_source(&self, error: QueueError) -> Result<(), QueueError> {
        debug!(job_id = self.id(), %error, "What a job asks its source has to wait.");
        tokio::select! {
            () = self.job.stop.cancelled() => Err(error),
            () = sleep(jittered(ASK_AGAIN)) => Ok(()),
        }
    }
}
