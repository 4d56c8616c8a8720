//! What a task knows of its job, and how it speaks while it runs.

use crate::notes::Notes;
use crate::running::RunningJob;
use crate::signals::Signals;
use crate::source::JobSource;
use minium_protocol::{LeaseToken, LogLevel, Progress, TraceContext};
use serde_json::{Map, Value};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The job, seen from inside its task. Cheap to clone.
#[derive(Clone)]
pub struct JobContext {
    pub(crate) job: Arc<RunningJob>,
    pub(crate) source: Arc<dyn JobSource>,
}

impl JobContext {
    pub(crate) fn new(job: Arc<RunningJob>, source: Arc<dyn JobSource>) -> JobContext {
        JobContext { job, source }
    }

    /// What it says is written by them.
    fn said(&self) -> &Notes {
        &self.job.said
    }

    /// The job's number.
    pub fn id(&self) -> i64 {
        self.job.id
    }

    /// The task's name.
    pub fn task(&self) -> &str {
        &self.job.task
    }

    /// Number of this run, from 1.
    pub fn attempt(&self) -> i32 {
        self.job.attempt
    }

    /// How many runs the job may have.
    pub fn attempts(&self) -> i32 {
        self.job.attempts
    }

    /// The queue that it came from.
    pub fn queue(&self) -> &str {
        &self.job.queue
    }

    /// Its priority; higher runs first.
    pub fn priority(&self) -> i32 {
        self.job.priority
    }

    /// Its notes as they were when it was claimed. What is [noted](JobContext::note) since does not show in them.
    pub fn notes(&self) -> &Map<String, Value> {
        &self.job.notes
    }

    /// The lease under which it runs: for who hands the outcome in by himself, within a transaction.
    pub fn lease(&self) -> LeaseToken {
        self.job.lease
    }

    /// W3C's `traceparent` for what it does: of who enqueued it or, where runs are exported as spans (feature `otel`), of
    /// this run, whose span links to who enqueued it.
    pub fn trace(&self) -> Option<&str> {
        self.trace_context().map(TraceContext::traceparent)
    }

    /// W3C's `tracestate`, which goes with [`JobContext::trace`].
    pub fn tracestate(&self) -> Option<&str> {
        self.trace_context().and_then(TraceContext::tracestate)
    }

    /// Both, for whatever it enqueues or asks for.
    pub fn trace_context(&self) -> Option<&TraceContext> {
        self.job.trace()
    }

    /// Sets a note of the job; `null` deletes it. It never waits: notes are written in the background, at a bounded
    /// rate, and always before the outcome.
    pub fn note(&self, key: impl Into<String>, value: impl Into<Value>) {
        self.said().note(key.into(), value.into());
    }

    /// Says how far the job has come, 0 to 100, and what it is at. Written as notes are.
    pub fn progress(&self, percent: f64, text: impl Into<String>) {
        let text = Some(text.into()).filter(|t: &String| !t.is_empty());
        self.report(Progress { percent, text });
    }

    /// Adds a line to the job's log, for whoever looks on. Written as notes are. When lines are said faster than they can
    /// be written, the oldest that wait are dropped, and a line says how many.
    pub fn log(&self, level: LogLevel, text: impl AsRef<str>) {
        self.said().log(level, text.as_ref());
    }

    /// Names the step that the job has reached: a line of its log. Written as notes are.
    pub fn step(&self, name: impl AsRef<str>) {
        self.log(LogLevel::Step, name);
    }

    pub(crate) fn signals(&self) -> &Signals {
        &self.job.signals
    }

    pub(crate) fn report(&self, progress: Progress) {
        self.said().report(progress);
    }

    /// Waits until what was said so far is written, at once: each step between two flushes is an event of its own.
    /// Returns early when the job is told to stop.
    pub async fn flush(&self) {
        tokio::select! {
            () = self.said().flush() => {}
            () = self.job.stop.cancelled() => {}
        }
    }

    /// Fires when the job should stop: it was cancelled, its lease is lost, its time is up, or the worker shuts
    /// down. A task that does not heed it is dropped at its next await after a grace.
    pub fn cancelled(&self) -> CancellationToken {
        self.job.stop.clone()
    }

    /// For how long the lease holds unless it is extended, which the worker does by itself. A cautious guess: the
    /// database's clock decides.
    pub fn lease_remaining(&self) -> Duration {
        self.job.lease_remaining()
    }
}
