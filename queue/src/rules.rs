//! What may happen to a job, and what follows: the queue's decisions as pure functions.
//!
//! No clock, no await, no database: the same input gives the same answer, so that both stores, and the plain model
//! that the tests hold against them, decide alike. `docs/job-states.md` is the table in words. Times are whole
//! microseconds since 1970 throughout, since that is what both databases keep.

use crate::error::QueueError;
use crate::store::{Annotation, Claim, Ending, Outcome, Pause, Pull, RetryOptions, Verdict};
use crate::workflow;
use minium_protocol::{
    EnqueueRequest, JobOptions, Phase, Progress, State, Unique, check_json, check_log, check_members,
};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::time::Duration;

/// Why a job failed whose lease ran out on its last attempt.
pub const LEASE_EXPIRED: &str = "lease expired: the worker was not heard of in time";
/// No automatic retry waits longer.
pub const BACKOFF_MAX: Duration = Duration::from_secs(30 * 86_400);
/// A longer span is a mistake, and would leave the range of the databases' times.
pub const SPAN_MAX: Duration = Duration::from_secs(100 * 365 * 86_400);
/// One call claims no more jobs: more would hold the database up.
pub const CLAIM_MAX: u32 = 1_000;
/// A page of a list is never longer.
pub const PAGE_MAX: u32 = 1_000;
/// A list is narrowed by so many names of each kind.
pub const FILTER_NAMES_MAX: usize = 100;
/// Of so many jobs at most it is asked at once what they have brought.
pub const RESULTS_MAX: usize = 1_000;
/// So many hours are told.
pub const HOURS_TOLD: i32 = 24;
/// The notes of a job have no more bytes together, as JSON: they stand in each of its events.
pub const NOTES_BYTES_MAX: usize = 256 << 10;
/// The arguments of a job have no more bytes, whoever enqueues it and however much a request may have: they stand in each of its
/// events as well.
pub const ARGS_BYTES_MAX: usize = 64 << 20;
const KEY_TAKEN: &str = "its key is held by another job";

/// How far the default backoff may be off, in either direction.
const JITTER_SHARE: f64 = 0.1;

/// What follows a failure or a loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aftermath {
    /// It waits again.
    Again,
    /// It has failed for good.
    End,
}

/// After a run that failed: attempts left, and the worker has nothing against it.
pub fn after_failure(attempt: i32, attempts: i32, retry: bool) -> Aftermath {
    if retry && attempt < attempts { Aftermath::Again } else { Aftermath::End }
}

/// After a lease that ran out. The run counted as an attempt when it was claimed.
pub fn after_loss(attempt: i32, attempts: i32) -> Aftermath {
    after_failure(attempt, attempts, true)
}

/// The pause before an automatic retry: this run's, else the job's own, exactly, else its task's, else retries⁴ + 15 s.
/// `retries` is the number before this one; `jitter` is -1 to 1 and moves the default by up to a tenth, so that what failed
/// together does not come back together.
pub fn backoff(retries: i32, own: Option<Duration>, pause: Pause, jitter: f64) -> Duration {
    let said = match pause {
        Pause::Run(pause) => Some(pause),
        Pause::Task(usual) => own.or(Some(usual)),
        Pause::Usual => own,
    };
    if let Some(said) = said {
        return said.min(BACKOFF_MAX);
    }
    let seconds = f64::from(retries.max(0)).powi(4) + 15.0;
    let seconds = seconds * (1.0 + JITTER_SHARE * jitter.clamp(-1.0, 1.0));
    Duration::from_secs_f64(seconds.min(BACKOFF_MAX.as_secs_f64()))
}

/// What becomes of a job that runs when a parent has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handler {
    /// No parent has failed, and one may yet.
    Waits,
    /// One has.
    Runs,
    /// All have ended, and none has failed: there is nothing to run for.
    CalledOff,
}

/// Judges it by its parents' states; those that do not exist (any more) are left out.
pub fn handler(parents: impl IntoIterator<Item = State>) -> Handler {
    let mut judged = Handler::CalledOff;
    for state in parents {
        match state {
            State::Failed => return Handler::Runs,
            State::Inactive | State::Active => judged = Handler::Waits,
            State::Finished | State::Cancelled => {}
        }
    }
    judged
}

/// Does a parent in this state hold a child back? `None` is a parent that does not exist (any more).
pub fn is_edge_open(parent: Option<State>, lax: bool) -> bool {
    match parent {
        None | Some(State::Finished) => false,
        Some(State::Inactive | State::Active) => true,
        Some(State::Failed | State::Cancelled) => !lax,
    }
}

/// By how much the counter of open edges of a child moves when a parent goes from one state to another.
pub fn edge_step(before: Option<State>, after: Option<State>, lax: bool) -> i64 {
    i64::from(is_edge_open(after, lax)) - i64::from(is_edge_open(before, lax))
}

/// Why a job waits; `None` for one that does not.
pub fn phase(state: State, open_edges: i64, delayed: i64, now: i64) -> Option<Phase> {
    match state {
        State::Inactive if open_edges > 0 => Some(Phase::Blocked),
        State::Inactive if delayed > now => Some(Phase::Delayed),
        State::Inactive => Some(Phase::Ready),
        State::Active | State::Finished | State::Failed | State::Cancelled => None,
    }
}

/// May it be started after this much time? A job that has been started before does not expire any more.
pub fn is_expired(attempt: i32, expires: Option<i64>, now: i64) -> bool {
    attempt == 0 && expires.is_some_and(|at| at <= now)
}

/// What is known of a job when a word about a run comes in.
#[derive(Debug, Clone, Copy)]
pub struct Standing<'a> {
    /// Its state.
    pub state: State,
    /// Does the word come under the token that the job bears?
    pub same_lease: bool,
    /// The result it has, as text.
    pub result: Option<&'a str>,
    /// Why it failed last.
    pub error: Option<&'a str>,
}

/// Judges an outcome. `None` is a job that does not exist.
pub fn judge(standing: Option<Standing<'_>>, ending: &Ending) -> Verdict {
    let Some(s) = standing.filter(|s| s.same_lease) else { return Verdict::LeaseLost };
    let repeated = match (s.state, ending) {
        (State::Active, _) => return Verdict::Accepted,
        (State::Finished, Ending::Finished(result)) => s.result == Some(result_text(result).as_ref()),
        // inactive under the same token: it failed and waits for its automatic retry
        (State::Failed | State::Inactive, Ending::Failed { error, .. }) => {
            s.error == Some(storable(error).as_ref())
        }
        (State::Finished | State::Failed | State::Inactive | State::Cancelled, _) => false,
    };
    if repeated { Verdict::Repeated } else { Verdict::LeaseLost }
}

/// What a late outcome brought, as JSON text for the column `late`.
pub fn late(outcome: &Outcome) -> String {
    let lease = outcome.lease;
    match &outcome.ending {
        Ending::Finished(result) => {
            let result = result_text(result);
            format!("{{\"state\":\"finished\",\"result\":{result},\"lease\":\"{lease}\"}}")
        }
        Ending::Failed { error, .. } => {
            let error = Value::from(storable(error));
            format!("{{\"state\":\"failed\",\"error\":{error},\"lease\":\"{lease}\"}}")
        }
    }
}

/// What a worker is told who wants its lease extended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// It still has the job.
    Held,
    /// The job was cancelled under it.
    Cancelled,
    /// It has lost the job.
    Lost,
}

/// Judges a lease. `None` is a job that does not exist.
pub fn hold(state: Option<State>, same_lease: bool) -> Hold {
    match state {
        Some(State::Active) if same_lease => Hold::Held,
        Some(State::Cancelled) if same_lease => Hold::Cancelled,
        Some(State::Inactive | State::Active | State::Finished | State::Failed | State::Cancelled) | None => {
            Hold::Lost
        }
    }
}

/// May a job be called off?
///
/// # Errors
/// [`QueueError::Conflict`] when it has ended.
pub fn may_cancel(job: i64, state: State) -> Result<(), QueueError> {
    if state.is_ended() {
        return Err(QueueError::Conflict { job, state, reason: "it has ended already" });
    }
    Ok(())
}

/// May a job be made to wait again? `key_taken` says that another living job holds its key.
///
/// # Errors
/// [`QueueError::Conflict`] while it runs, or when its key is taken.
pub fn may_retry(job: i64, state: State, key_taken: bool) -> Result<(), QueueError> {
    match state {
        State::Active => Err(QueueError::Conflict { job, state, reason: "it is running" }),
        State::Inactive | State::Finished | State::Failed | State::Cancelled if key_taken => {
            Err(QueueError::Conflict { job, state, reason: KEY_TAKEN })
        }
        State::Inactive | State::Finished | State::Failed | State::Cancelled => Ok(()),
    }
}

/// May a job be deleted?
///
/// # Errors
/// [`QueueError::Conflict`] while it runs.
pub fn may_remove(job: i64, state: State) -> Result<(), QueueError> {
    if state == State::Active {
        return Err(QueueError::Conflict { job, state, reason: "it is running" });
    }
    Ok(())
}

/// How many runs a job may have after a retry by hand.
///
/// # Errors
/// [`QueueError::Invalid`] for a number that grants no further run.
pub fn attempts_after_retry(attempt: i32, attempts: i32, given: Option<i32>) -> Result<i32, QueueError> {
    match given {
        Some(n) if n <= attempt => {
            Err(QueueError::Invalid(format!("attempts is {n}, the job has had {attempt} already")))
        }
        Some(n) => Ok(n),
        None => Ok(attempts.max(attempt.saturating_add(1))),
    }
}

/// Merges notes member by member; a null deletes one.
pub fn merge_notes(notes: &mut Map<String, Value>, change: &Map<String, Value>) {
    for (name, value) in change {
        if value.is_null() {
            notes.remove(name);
        } else {
            notes.insert(name.clone(), value.clone());
        }
    }
}

/// May a job have notes of so many bytes? What only takes notes away is not asked.
///
/// # Errors
/// [`QueueError::TooLarge`].
pub fn check_notes_bytes(bytes: usize) -> Result<(), QueueError> {
    if bytes <= NOTES_BYTES_MAX {
        return Ok(());
    }
    let words =
        format!("the notes of a job would have {bytes} bytes together, at most {NOTES_BYTES_MAX} are kept");
    Err(QueueError::TooLarge(words))
}

/// May a job have arguments of so many bytes?
///
/// # Errors
/// [`QueueError::TooLarge`].
pub fn check_args_bytes(bytes: usize) -> Result<(), QueueError> {
    if bytes <= ARGS_BYTES_MAX {
        return Ok(());
    }
    let words = format!("the arguments of a job would have {bytes} bytes, at most {ARGS_BYTES_MAX} are kept");
    Err(QueueError::TooLarge(words))
}

/// Checks what is to be noted, before it is looked at who may note it.
///
/// # Errors
/// [`QueueError::Invalid`].
pub fn check_annotation(annotation: &Annotation) -> Result<(), QueueError> {
    let checked = annotation.progress.as_ref().map_or(Ok(()), Progress::check);
    let checked = checked.and_then(|()| check_log(&annotation.log));
    let notes = || check_members(&annotation.notes).map_err(|e| format!("notes: {e}"));
    checked.and_then(|()| notes()).map_err(QueueError::Invalid)
}

/// Is it asked of no more jobs than are looked up at once?
///
/// # Errors
/// [`QueueError::Invalid`].
pub fn check_results(jobs: &[i64]) -> Result<(), QueueError> {
    match jobs.len() {
        ..=RESULTS_MAX => Ok(()),
        n => Err(QueueError::Invalid(format!(
            "what {n} jobs have brought is asked for, at most {RESULTS_MAX} may be"
        ))),
    }
}

/// Does this change only take notes away?
pub fn only_takes(change: &Map<String, Value>) -> bool {
    change.values().all(Value::is_null)
}

/// Notes as the text that is kept.
pub fn notes_text(notes: &Map<String, Value>) -> String {
    serde_json::to_string(notes).expect("a map of JSON values is JSON")
}

/// Parents once each, in the order given.
pub fn distinct_parents(parents: &[i64]) -> Vec<i64> {
    let mut seen = std::collections::HashSet::with_capacity(parents.len());
    parents.iter().copied().filter(|p| seen.insert(*p)).collect()
}

/// Text that every database can keep: no outcome may be lost to a NUL character.
pub fn storable(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { text.replace('\0', "\u{fffd}").into() } else { text.into() }
}

/// Notes that every database can keep: names and texts as [`storable`] has them, however deep.
pub fn storable_notes(notes: &Map<String, Value>) -> Cow<'_, Map<String, Value>> {
    if notes.iter().any(|(name, value)| name.contains('\0') || has_nul(value)) {
        let member = |(name, value): (&String, &Value)| (storable(name).into_owned(), without_nul(value));
        return Cow::Owned(notes.iter().map(member).collect());
    }
    Cow::Borrowed(notes)
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(members) => members.iter().any(|(name, value)| name.contains('\0') || has_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

fn without_nul(value: &Value) -> Value {
    match value {
        Value::String(text) => storable(text).into_owned().into(),
        Value::Array(items) => items.iter().map(without_nul).collect(),
        Value::Object(members) => Value::Object(storable_notes(members).into_owned()),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

/// JSON text on one line, else as it came: an event must fit into a line of a stream. Inside of strings JSON has no
/// bare line breaks, so all that are found stand between tokens.
pub fn one_line(json: &str) -> Cow<'_, str> {
    if json.contains(['\n', '\r']) { json.replace(['\n', '\r'], " ").into() } else { json.into() }
}

/// A result as it is kept: on one line, as it came. What some reader would choke on (nested too deep, half a
/// surrogate, a number beyond all floats) is kept as a JSON string of that text: it must neither be lost nor go to
/// every subscriber.
pub fn result_text(result: &RawValue) -> Cow<'_, str> {
    let text = one_line(result.get());
    if check_json(&text).is_ok() { text } else { Value::from(text).to_string().into() }
}

/// Whole microseconds of a span that `check_span` has seen.
pub fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

fn check_span(what: &str, span: Option<Duration>) -> Result<(), QueueError> {
    if span.is_some_and(|s| s > SPAN_MAX) {
        return Err(QueueError::Invalid(format!("{what} is longer than 100 years")));
    }
    Ok(())
}

/// Checks requests before any of them is written.
///
/// # Errors
/// [`QueueError::Invalid`] or [`QueueError::TooLarge`], which names the mistake, and for several requests the place of the one that has it.
pub fn check_requests(requests: &[EnqueueRequest]) -> Result<(), QueueError> {
    for (i, request) in requests.iter().enumerate() {
        let o = &request.options;
        let unique = match o.unique {
            Unique::For(span) => Some(span),
            Unique::Alive | Unique::Waiting => None,
        };
        let spans = [
            ("delay", Some(o.delay)),
            ("expire", o.expire),
            ("timeout", o.timeout),
            ("backoff", o.backoff),
            ("unique", unique),
        ];
        let checked = request
            .check()
            .map_err(QueueError::Invalid)
            .and_then(|()| spans.into_iter().try_for_each(|(what, span)| check_span(what, span)))
            .and_then(|()| match &o.schedule {
                Some(name) if name.contains('\0') => {
                    Err(QueueError::Invalid("schedule has a NUL character".into()))
                }
                _ => Ok(()),
            })
            .and_then(|()| check_args_bytes(request.args.get().len()))
            .and_then(|()| check_notes_bytes(notes_text(&o.notes).len()));
        checked.map_err(|e| match e {
            QueueError::Invalid(words) if requests.len() > 1 => {
                QueueError::Invalid(format!("job {i}: {words}"))
            }
            QueueError::TooLarge(words) if requests.len() > 1 => {
                QueueError::TooLarge(format!("job {i}: {words}"))
            }
            other => other,
        })?;
    }
    workflow::order(requests).map(drop)
}

/// Checks the name of a queue.
///
/// # Errors
/// [`QueueError::Invalid`].
pub fn check_queue(name: &str) -> Result<(), QueueError> {
    minium_protocol::check_queue(name).map_err(QueueError::Invalid)
}

/// Checks what a claim asks for.
///
/// # Errors
/// [`QueueError::Invalid`].
pub fn check_claim(claim: &Claim) -> Result<(), QueueError> {
    let mut names = claim.queues.iter().chain(claim.tasks.iter().flatten());
    if names.any(|name| name.contains('\0')) {
        return Err(QueueError::Invalid("a claimed queue or task has a NUL character".into()));
    }
    if !claim.caps.is_empty() && claim.tasks.is_none() {
        return Err(QueueError::Invalid("a claim with bounds for single tasks must name its tasks".into()));
    }
    check_span("lease", Some(claim.lease))
}

/// Checks what pullers ask for.
///
/// # Errors
/// [`QueueError::Invalid`].
pub fn check_pulls(pulls: &[Pull]) -> Result<(), QueueError> {
    for pull in pulls {
        if pull.queue.contains('\0') || pull.tasks.iter().any(|task| task.contains('\0')) {
            return Err(QueueError::Invalid("a pulled queue or task has a NUL character".into()));
        }
        check_span("lease", Some(pull.lease))?;
    }
    Ok(())
}

/// How many jobs each pull may take, so that together they take no more than [`CLAIM_MAX`].
pub fn pull_limits(pulls: &[Pull]) -> Vec<usize> {
    let mut left = CLAIM_MAX as usize;
    let share = |pull: &Pull| {
        let limit = pull.workers.len().min(left);
        left -= limit;
        limit
    };
    pulls.iter().map(share).collect()
}

/// Checks how long a lease is to be extended.
///
/// # Errors
/// [`QueueError::Invalid`].
pub fn check_lease(lease: Duration) -> Result<(), QueueError> {
    check_span("lease", Some(lease))
}

/// Checks the options of a retry by hand, by the rules of an enqueue.
///
/// # Errors
/// [`QueueError::Invalid`].
pub fn check_retry(options: &RetryOptions) -> Result<(), QueueError> {
    let usual = JobOptions::default();
    let mut like = EnqueueRequest::new("retry", empty_array());
    like.options = JobOptions {
        delay: options.delay.unwrap_or_default(),
        priority: options.priority.unwrap_or(usual.priority),
        queue: options.queue.clone().unwrap_or(usual.queue),
        attempts: options.attempts.unwrap_or(usual.attempts),
        expire: options.expire,
        ..JobOptions::default()
    };
    check_requests(std::slice::from_ref(&like))
}

/// May a retry change these options of this job? `on_failure`: it runs when a parent has failed.
///
/// # Errors
/// [`QueueError::Invalid`].
pub fn check_retry_of(
    job: i64,
    attempt: i32,
    on_failure: bool,
    options: &RetryOptions,
) -> Result<(), QueueError> {
    let refuse = |words: String| Err(QueueError::Invalid(words));
    if options.expire.is_some() && attempt > 0 {
        return refuse(format!("job {job} has run before, so that it does not expire any more"));
    }
    if on_failure && (options.lax.is_some() || options.parents.is_some()) {
        return refuse(format!("job {job} runs on a failure: neither its parents nor lax can be changed"));
    }
    match options.parents.iter().flatten().find(|parent| **parent >= job) {
        Some(parent) => {
            refuse(format!("job {job} can only wait for jobs that are older than itself, not for {parent}"))
        }
        None => Ok(()),
    }
}

fn empty_array() -> Box<RawValue> {
    RawValue::from_string("[]".into()).expect("an empty array is JSON")
}

#[cfg(test)]
mod tests;
