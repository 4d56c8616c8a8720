//! The jobs that this worker holds: those that run, and those whose outcome is not handed in yet. And how one run is
//! led from its start to its end.

use crate::backoff::Backoff;
use crate::context::JobContext;
use crate::metrics::{JOB_RUN_SECONDS, STOPPED_TOTAL};
use crate::notes::{Notes, Written, call};
use crate::options::WorkerOptions;
use crate::side;
use crate::signals::Signals;
use crate::source::JobSource;
use crate::task::{ArgsCheck, Failure, Task, violation};
use crate::traced;
use futures::FutureExt;
use minium_protocol::{LeaseToken, TraceContext};
use minium_queue::{Ending, Leased, Outcome, Pause};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::any::Any;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::field::Empty;
use tracing::{Instrument, Span, debug, info, info_span};

/// The error of a run that its worker did not let end.
pub(crate) const WORKER_STOPPED: &str = "the worker was stopped";
/// The error of a run that somebody stopped by hand.
const OPERATOR_STOPPED: &str = "stopped by an operator";
/// After the run, what it said last is offered for so long; the outcome is not held up for ever by a note.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Why a run was told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stopped {
    Cancelled,
    Lost,
    Timeout,
    Shutdown,
    Operator,
}

impl Stopped {
    fn as_str(self) -> &'static str {
        match self {
            Stopped::Cancelled => "cancelled",
            Stopped::Lost => "lost",
            Stopped::Timeout => "timeout",
            Stopped::Shutdown => "shutdown",
            Stopped::Operator => "operator",
        }
    }
}

/// One job that this worker holds.
pub(crate) struct RunningJob {
    pub(crate) id: i64,
    pub(crate) lease: LeaseToken,
    pub(crate) task: String,
    pub(crate) queue: String,
    pub(crate) attempt: i32,
    pub(crate) attempts: i32,
    /// Of who enqueued it.
    trace: Option<TraceContext>,
    /// Of this run, where runs are spans that are exported.
    run_trace: OnceLock<TraceContext>,
    pub(crate) priority: i32,
    /// As they were when it was claimed.
    pub(crate) notes: Map<String, Value>,
    pub(crate) parents: Vec<i64>,
    /// What it says while it runs.
    pub(crate) said: Notes,
    pub(crate) signals: Signals,
    /// Fires once; `reason` says why.
    pub(crate) stop: CancellationToken,
    reason: OnceLock<Stopped>,
    /// The run has ended; the job is held until its outcome is handed in.
    pub(crate) over: AtomicBool,
    /// Until when the lease surely holds, by this machine's steady clock: counted from before the call was made.
    lease_until: Mutex<Instant>,
}

impl RunningJob {
    /// Takes what nobody else of the worker needs.
    fn new(leased: &mut Leased, lease_until: Instant) -> RunningJob {
        RunningJob {
            id: leased.id,
            lease: leased.lease,
            task: leased.task.clone(),
            queue: leased.queue.clone(),
            attempt: leased.attempt,
            attempts: leased.attempts,
            trace: leased.trace.clone(),
            run_trace: OnceLock::new(),
            priority: leased.priority,
            notes: std::mem::take(&mut leased.notes),
            parents: std::mem::take(&mut leased.parents),
            said: Notes::default(),
            signals: Signals::default(),
            stop: CancellationToken::new(),
            reason: OnceLock::new(),
            over: AtomicBool::new(false),
            lease_until: Mutex::new(lease_until),
        }
    }

    /// Tells the run to stop. The first reason stands.
    pub(crate) fn stop(&self, reason: Stopped) {
        if !self.over.load(Ordering::Relaxed) && self.reason.set(reason).is_ok() {
            metrics::counter!(STOPPED_TOTAL, "reason" => reason.as_str()).increment(1);
            info!(job_id = self.id, task = self.task, reason = reason.as_str(), "A job is told to stop.");
            self.stop.cancel();
        }
    }

    /// Where what it does stands: in the trace of its run, else in that of who enqueued it.
    pub(crate) fn trace(&self) -> Option<&TraceContext> {
        self.run_trace.get().or(self.trace.as_ref())
    }

    fn goes_on(&self) -> bool {
        !self.over.load(Ordering::Relaxed)
    }

    fn stopped(&self) -> Option<Stopped> {
        self.reason.get().copied()
    }

    pub(crate) fn lease_until(&self) -> Instant {
        *self.lease_until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn extended(&self, until: Instant) {
        *self.lease_until.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }

    pub(crate) fn lease_remaining(&self) -> Duration {
        self.lease_until().saturating_duration_since(Instant::now())
    }
}

/// All that this worker holds, by lease: after a lost lease it may hold one job twice.
#[derive(Default)]
pub(crate) struct Running {
    jobs: Mutex<HashMap<LeaseToken, Arc<RunningJob>>>,
}

impl Running {
    fn jobs(&self) -> MutexGuard<'_, HashMap<LeaseToken, Arc<RunningJob>>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes claimed jobs over.
    pub(crate) fn begin(&self, leased: &mut Leased, lease_until: Instant) -> Arc<RunningJob> {
        let job = Arc::new(RunningJob::new(leased, lease_until));
        self.jobs().insert(leased.lease, job.clone());
        job
    }

    /// A lease is no longer held.
    pub(crate) fn end(&self, lease: LeaseToken) {
        self.jobs().remove(&lease);
    }

    /// The run under this lease.
    pub(crate) fn get(&self, lease: LeaseToken) -> Option<Arc<RunningJob>> {
        self.jobs().get(&lease).cloned()
    }

    /// What is held, in no order.
    pub(crate) fn all(&self) -> Vec<Arc<RunningJob>> {
        self.jobs().values().cloned().collect()
    }

    /// The runs of a job that go on here.
    pub(crate) fn of(&self, job: i64) -> Vec<Arc<RunningJob>> {
        self.jobs().values().filter(|run| run.id == job && run.goes_on()).cloned().collect()
    }

    /// The jobs that run here, in no order.
    pub(crate) fn ids(&self) -> Vec<i64> {
        self.jobs().values().filter(|run| run.goes_on()).map(|run| run.id).collect()
    }

    /// How many jobs of a task run here.
    pub(crate) fn count(&self, task: &str) -> usize {
        self.jobs().values().filter(|run| run.task == task && run.goes_on()).count()
    }

    /// Tells every run to stop.
    pub(crate) fn stop_all(&self, reason: Stopped) {
        for job in self.all() {
            job.stop(reason);
        }
    }
}

/// What a run needs besides its job.
#[derive(Clone)]
pub(crate) struct Surroundings {
    pub(crate) source: Arc<dyn JobSource>,
    pub(crate) options: Arc<WorkerOptions>,
    pub(crate) check: Option<Arc<dyn ArgsCheck>>,
}

/// A run that is over.
pub(crate) struct Done {
    pub(crate) lease: LeaseToken,
    /// To be handed in. Without one the lease runs out by itself, or is gone already.
    pub(crate) outcome: Option<Outcome>,
}

/// Runs one job to its end. Never panics, whatever the task does. What is logged meanwhile stands in a span with the job.
pub(crate) async fn run(
    around: Surroundings,
    task: Arc<dyn Task>,
    job: Arc<RunningJob>,
    leased: Leased,
) -> Done {
    let span = info_span!(
        "job",
        job_id = job.id,
        task = job.task,
        queue = job.queue,
        attempt = job.attempt,
        traceparent = job.trace.as_ref().map(TraceContext::traceparent),
        state = Empty
    );
    if let Some(own) = traced::begin(&span, job.trace.as_ref()) {
        job.run_trace.set(own).ok();
    }
    run_within(around, task, job, leased).instrument(span).await
}

async fn run_within(around: Surroundings, task: Arc<dyn Task>, job: Arc<RunningJob>, leased: Leased) -> Done {
    let begun = Instant::now();
    let limit = leased.timeout.or(task.timeout()).or(around.options.timeout);
    // what runs for the task beside it (the look at its arguments, the end of what it left behind) may panic too
    let ran = AssertUnwindSafe(lead(&around, task.as_ref(), &job, &leased, limit)).catch_unwind().await;
    let ran = ran.unwrap_or_else(|panic| Ran::Ended(Err(panicked(panic.as_ref()))));
    job.over.store(true, Ordering::Relaxed);
    if let Some(pause) = postponed(&ran, job.stopped())
        && put_off(&around, &job, pause).await
    {
        debug!(job_id = job.id, task = job.task, attempt = job.attempt, "A run has put its job off.");
        return Done { lease: job.lease, outcome: None };
    }
    let ending = judge(ran, job.stopped(), limit, &job, &around.options);
    let state = match &ending {
        Some(Ending::Finished(_)) => "finished",
        Some(Ending::Failed { .. }) => "failed",
        None => "abandoned",
    };
    let labels = [("queue", job.queue.clone()), ("task", job.task.clone()), ("state", state.to_owned())];
    metrics::histogram!(JOB_RUN_SECONDS, &labels).record(begun.elapsed());
    Span::current().record("state", state);
    debug!(job_id = job.id, task = job.task, attempt = job.attempt, state, "A run has ended.");
    let outcome = ending.map(|ending| Outcome { job: job.id, lease: job.lease, ending });
    Done { lease: job.lease, outcome }
}

/// How a run went: by itself, or not at all within the grace that it had to stop.
enum Ran {
    Ended(Result<Box<RawValue>, Failure>),
    Dropped,
}

async fn lead(
    around: &Surroundings,
    task: &dyn Task,
    job: &Arc<RunningJob>,
    leased: &Leased,
    limit: Option<Duration>,
) -> Ran {
    let options = &around.options;
    if let Some(check) = &around.check
        && let Err(faults) = check.check(&leased.task, &leased.args)
    {
        return Ran::Ended(Err(violation(&faults)));
    }
    let context = JobContext::new(job.clone(), around.source.clone());
    let work = AssertUnwindSafe(task.run(context, leased.args.clone())).catch_unwind();
    let work = work.map(|r| r.unwrap_or_else(|panic| Err(panicked(panic.as_ref()))));
    let writer = job.said.write(around.source.as_ref(), job.id, job.lease, options);
    tokio::pin!(work, writer);
    let mut writing = true;
    let ran = tokio::select! {
        ended = &mut work => Some(ended),
        () = job.stop.cancelled() => None,
        () = expire(limit) => {
            job.stop(Stopped::Timeout);
            None
        }
        written = &mut writer => {
            debug_assert_eq!(written, Written::LeaseLost, "it is not closed yet");
            writing = false;
            job.stop(Stopped::Lost);
            None
        }
    };
    let ran = match ran {
        Some(ended) => Ran::Ended(ended),
        None => {
            // a task that stops in an orderly way may still have something to say; if not, it is dropped here
            let grace = timeout(task.stop_grace(options.stop_grace), &mut work);
            tokio::pin!(grace);
            let ended = tokio::select! {
                ended = &mut grace => ended,
                _ = &mut writer, if writing => {
                    writing = false;
                    grace.await
                }
            };
            ended.map_or(Ran::Dropped, Ran::Ended)
        }
    };
    if writing && !matches!(job.stopped(), Some(Stopped::Cancelled | Stopped::Lost)) {
        job.said.close();
        if timeout(LAST_WORDS, writer).await.is_err() {
            debug!(job_id = job.id, "The last notes of a job could not be written in time.");
        }
    }
    ran
}

async fn expire(limit: Option<Duration>) {
    match limit {
        Some(limit) => sleep(limit).await,
        None => std::future::pending().await,
    }
}

/// How long the run wants its job to wait, where nothing speaks against it.
fn postponed(ran: &Ran, stopped: Option<Stopped>) -> Option<Duration> {
    match (ran, stopped) {
        (Ran::Ended(Err(failure)), None | Some(Stopped::Shutdown)) if failure.postponed => failure.pause,
        _ => None,
    }
}

/// Puts the job off, again and again while its lease holds: a word that is lost on its way would cost an attempt. Answers
/// whether that is the source's affair now.
async fn put_off(around: &Surroundings, job: &RunningJob, pause: Duration) -> bool {
    let mut backoff = Backoff::new(&around.options);
    loop {
        let asked = around.source.postpone(job.id, job.lease, pause);
        match call(asked, around.options.call_timeout).await {
            Ok(known) => return known,
            Err(error) => side::failed_call("postpone", &error),
        }
        let pause = backoff.pause();
        if job.lease_remaining() <= pause {
            return false;
        }
        sleep(pause).await;
    }
}

/// What is handed in. A run whose job was cancelled or given to somebody else has nothing to say, unless it brought a
/// result all the same: that goes in, to be kept as a late one, so that nobody's work vanishes without a trace. A run that
/// ended because the worker does, or because somebody stopped it, is a failure: it says nothing about the job, so another attempt may follow at once.
fn judge(
    ran: Ran,
    stopped: Option<Stopped>,
    limit: Option<Duration>,
    job: &RunningJob,
    options: &WorkerOptions,
) -> Option<Ending> {
    match (ran, stopped) {
        (_, Some(Stopped::Timeout)) => {
            let limit = minium_protocol::format_duration(limit.expect("without a limit nothing times out"));
            Some(failed(&Failure::retryable(format!("timed out after {limit}")), job, options))
        }
        (Ran::Ended(Ok(result)), _) if result.get().len() > options.result_bytes_max => {
            let (have, max) = (result.get().len(), options.result_bytes_max);
            let error = format!("the result has {have} bytes, at most {max} are allowed");
            Some(failed(&Failure::permanent(error), job, options))
        }
        (Ran::Ended(Ok(result)), _) => Some(Ending::Finished(result)),
        (Ran::Ended(Err(failure)), None) => Some(failed(&failure, job, options)),
        (Ran::Ended(Err(failure)), Some(Stopped::Shutdown)) => {
            Some(failed(&Failure::retryable(format!("{WORKER_STOPPED}: {}", failure.error)), job, options))
        }
        (Ran::Dropped, Some(Stopped::Shutdown)) => {
            Some(failed(&Failure::retryable(WORKER_STOPPED), job, options))
        }
        (Ran::Ended(Err(failure)), Some(Stopped::Operator)) => {
            Some(failed(&Failure::retryable(format!("{OPERATOR_STOPPED}: {}", failure.error)), job, options))
        }
        (Ran::Dropped, Some(Stopped::Operator)) => {
            Some(failed(&Failure::retryable(OPERATOR_STOPPED), job, options))
        }
        (Ran::Ended(Err(_)) | Ran::Dropped, _) => None,
    }
}

fn failed(failure: &Failure, job: &RunningJob, options: &WorkerOptions) -> Ending {
    let pause = match (failure.pause, options.backoffs.get(&job.task)) {
        (Some(pause), _) => Pause::Run(pause),
        (None, Some(backoff)) => Pause::Task(backoff.pause(job.attempt, fastrand::f64() * 2.0 - 1.0)),
        (None, None) => Pause::Usual,
    };
    Ending::Failed {
        error: cut(&failure.error, options.error_bytes_max),
        retry: failure.retry,
        pause,
        backtrace: failure.backtrace.as_deref().map(|text| cut(text, options.backtrace_bytes_max)),
    }
}

/// Within a bound, and as PostgreSQL keeps texts: without NUL.
fn cut(text: &str, bytes_max: usize) -> String {
    let mut text = text.replace('\0', "\u{fffd}");
    if text.len() > bytes_max {
        text.truncate(text.floor_char_boundary(bytes_max));
        text.push('…');
    }
    text
}

fn panicked(panic: &(dyn Any + Send)) -> Failure {
    let words = panic.downcast_ref::<&str>().copied().or(panic.downcast_ref::<String>().map(String::as_str));
    Failure::retryable(format!("the task panicked: {}", words.unwrap_or("without words")))
}
