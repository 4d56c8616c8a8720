//! What a worker can run: typed async functions, and the one trait behind them.

use crate::context::JobContext;
use crate::sandbox::Probe;
use async_trait::async_trait;
use minium_protocol::SchemaFault;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use std::fmt;
use std::future::Future;
use std::time::Duration;

/// Why a run failed, and whether another one may help.
///
/// Every error that can be shown turns into one that is retried while attempts are left; [`Failure::permanent`] says
/// that trying again is useless. It is not `Display` itself, or that conversion could not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// For whoever looks at the job.
    pub error: String,
    /// May it be retried by itself, if attempts are left?
    pub retry: bool,
    /// How long it waits before that, whatever job and task say: a service that was asked too often says so itself.
    pub pause: Option<Duration>,
    /// Where it happened, for whoever mends it; kept with the job's errors, not shown in its events.
    pub backtrace: Option<String>,
    /// It is no failure: the job waits again for `pause`, and the run does not count.
    pub postponed: bool,
}

impl Failure {
    /// Trying again may help.
    pub fn retryable(error: impl Into<String>) -> Failure {
        Failure { error: error.into(), retry: true, pause: None, backtrace: None, postponed: false }
    }

    /// Trying again after so long may help.
    pub fn retry_in(pause: Duration, error: impl Into<String>) -> Failure {
        Failure { pause: Some(pause), ..Failure::retryable(error) }
    }

    /// Not now: the job waits again for so long, at most 30 days, and this run uses no attempt up. Over a source that has no
    /// such word (a client over WebSocket), or that could not be reached while the lease held, the run has failed as by
    /// [`Failure::retry_in`].
    pub fn postpone(pause: Duration) -> Failure {
        let error = format!("put off for {}", minium_protocol::format_duration(pause));
        Failure { postponed: true, ..Failure::retry_in(pause, error) }
    }

    /// Trying again is useless.
    pub fn permanent(error: impl Into<String>) -> Failure {
        Failure { retry: false, ..Failure::retryable(error) }
    }

    /// Keeps where it happened.
    #[must_use]
    pub fn with_backtrace(mut self, backtrace: impl Into<String>) -> Failure {
        self.backtrace = Some(backtrace.into());
        self
    }
}

impl<E: fmt::Display> From<E> for Failure {
    fn from(error: E) -> Failure {
        // the alternate form shows the causes too, where an error has one
        Failure::retryable(format!("{error:#}"))
    }
}

/// Judges the arguments of a job before it runs. Jobs that were enqueued by SQL have passed no other check.
pub trait ArgsCheck: Send + Sync + 'static {
    /// Says where `args` break the schema of `task`.
    fn check(&self, task: &str, args: &RawValue) -> Result<(), Vec<SchemaFault>>;
}

/// Anything that can run a job. A panic in it, or dropping it half way, must leave nothing behind.
#[async_trait]
pub(crate) trait Task: Send + Sync {
    async fn run(&self, context: JobContext, args: Box<RawValue>) -> Result<Box<RawValue>, Failure>;

    /// How long a run may take if the job does not say.
    fn timeout(&self) -> Option<Duration> {
        None
    }

    /// How long a run that was told to stop may take before it is dropped.
    fn stop_grace(&self, usual: Duration) -> Duration {
        usual
    }

    /// What must be found to work before any job is claimed.
    fn probe(&self) -> Option<Probe> {
        None
    }

    /// At most so many runs at once, for now: a task whose processes do not start takes fewer jobs.
    fn room(&self) -> Option<u32> {
        None
    }

    /// The worker ends, and no run is left.
    async fn close(&self) {}
}

/// A function as a task.
pub(crate) struct FunctionTask<F, A, R> {
    function: F,
    types: std::marker::PhantomData<fn(A) -> R>,
}

impl<F, A, R> FunctionTask<F, A, R> {
    pub(crate) fn new(function: F) -> FunctionTask<F, A, R> {
        FunctionTask { function, types: std::marker::PhantomData }
    }
}

#[async_trait]
impl<F, A, R, E, Run> Task for FunctionTask<F, A, R>
where
    F: Fn(JobContext, A) -> Run + Send + Sync,
    Run: Future<Output = Result<R, E>> + Send,
    A: DeserializeOwned + Send,
    R: Serialize + Send,
    E: Into<Failure> + Send,
{
    async fn run(&self, context: JobContext, args: Box<RawValue>) -> Result<Box<RawValue>, Failure> {
        let args = serde_json::from_str(args.get())
            .map_err(|e| Failure::permanent(format!("the arguments do not fit the task: {e}")))?;
        let result = (self.function)(context, args).await.map_err(Into::into)?;
        serde_json::value::to_raw_value(&result)
            .map_err(|e| Failure::permanent(format!("the result cannot be written as JSON: {e}")))
    }
}

/// Stands in for a task that this worker does not have.
pub(crate) struct Unknown;

#[async_trait]
impl Task for Unknown {
    async fn run(&self, context: JobContext, _: Box<RawValue>) -> Result<Box<RawValue>, Failure> {
        Err(Failure::retryable(format!("this worker does not have the task {:?}", context.task())))
    }
}

/// Arguments that break their schema will do so in every attempt.
pub(crate) fn violation(faults: &[SchemaFault]) -> Failure {
    Failure::permanent(SchemaFault::describe(faults))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_error_is_a_failure_that_may_be_retried() {
        fn fail() -> Result<(), Failure> {
            Err(std::io::Error::other("no disk"))?
        }
        assert_eq!(fail(), Err(Failure::retryable("no disk")));
    }

    #[test]
    fn a_violation_names_every_place() {
        let fault = |pointer: &str, detail: &str| SchemaFault {
            pointer: pointer.into(),
            schema: String::new(),
            detail: detail.into(),
        };
        let failure = violation(&[fault("/0/serial", "not a string"), fault("", "too short")]);
        assert_eq!(failure.error, "schema_violation: /0/serial: not a string; the arguments: too short");
        assert!(!failure.retry);
    }
}
