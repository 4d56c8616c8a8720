//! What may happen to a job, and what follows: the queue's decisions as pure functions.
//!
//! No clock, no await, no database: the same input gives the same answer, so that both stores, and the plain model
//! that the tests hold against them, decide alike. `docs/job-states.md` is the table in words. Times are whole
//! microseconds since 1970 throughout, since that is what both databases keep.

use crate::error::QueueError;
use crate::store::{Claim, Ending, JobFilter, Outcome, RetryOptions, Schedule, Verdict};
use minium_protocol::{EnqueueRequest, JobOptions, Phase, State, check_json};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::time::Duration;

/// Why a job failed whose lease ran out on its last attempt.
pub const LEASE_EXPIRED: &str = "lease expired: the worker was not heard of in time";
/// A worker counts as alive for so long after its last heartbeat.
pub const HEARTBEAT_FRESH: Duration = Duration::from_secs(2 * 60);
/// No automatic retry waits longer.
pub const BACKOFF_MAX: Duration = Duration::from_secs(30 * 86_400);
/// A longer span is a mistake, and would leave the range of the databases' times.
pub const SPAN_MAX: Duration = Duration::from_secs(100 * 365 * 86_400);
/// One call claims no more jobs: more would hold the database up.
pub const CLAIM_MAX: u32 = 1_000;
/// A page of a list is never longer.
pub const PAGE_MAX: u32 = 1_000;
/// Longer names of schedules are mistakes.
const SCHEDULE_NAME_BYTES_MAX: usize = 255;
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

/// The pause before an automatic retry: the job's own, exactly, or retries⁴ + 15 s. `retries` is the number before
/// this one; `jitter` is -1 to 1 and moves the default by up to a tenth, so that what failed together does not come
/// back together.
pub fn backoff(retries: i32, own: Option<Duration>, jitter: f64) -> Duration {
    if let Some(own) = own {
        return own.min(BACKOFF_MAX);
    }
    let seconds = f64::from(retries.max(0)).powi(4) + 15.0;
    let seconds = seconds * (1.0 + JITTER_SHARE * jitter.clamp(-1.0, 1.0));
    Duration::from_secs_f64(seconds.min(BACKOFF_MAX.as_secs_f64()))
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

/// A filter that every database can read. No job has a name with a NUL character in it.
pub fn storable_filter(filter: &JobFilter) -> JobFilter {
    let each = |names: &[String]| names.iter().map(|name| storable(name).into_owned()).collect();
    JobFilter {
        tasks: each(&filter.tasks),
        queues: each(&filter.queues),
        notes: each(&filter.notes),
        ..filter.clone()
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

/// Whole microseconds of a span that [`check_span`] has seen.
pub fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

/// What a schedule is to do now, and when it is due next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Firing {
    /// Is it to enqueue its job?
    pub fires: bool,
    /// When it is due next.
    pub next: i64,
}

/// Judges one schedule. `planned` is when it was to fire; `None` for one that nobody has seen before. Any number of
/// missed firings are made up by one, and those that follow stay in step.
pub fn firing(planned: Option<i64>, every: i64, now: i64) -> Firing {
    let every = every.max(1);
    let planned = planned.unwrap_or(now).min(now.saturating_add(every));
    if planned > now {
        return Firing { fires: false, next: planned };
    }
    let missed = (now - planned) / every;
    Firing { fires: true, next: planned + (missed + 1) * every }
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
/// [`QueueError::Invalid`], which names the mistake, and for several requests the place of the one that has it.
pub fn check_requests(requests: &[EnqueueRequest]) -> Result<(), QueueError> {
    for (i, request) in requests.iter().enumerate() {
        let o = &request.options;
        let spans =
            [("delay", Some(o.delay)), ("expire", o.expire), ("timeout", o.timeout), ("backoff", o.backoff)];
        let checked = request
            .check()
            .map_err(QueueError::Invalid)
            .and_then(|()| spans.into_iter().try_for_each(|(what, span)| check_span(what, span)))
            .and_then(|()| match &o.schedule {
                Some(name) if name.contains('\0') => {
                    Err(QueueError::Invalid("schedule has a NUL character".into()))
                }
                _ => Ok(()),
            });
        checked.map_err(|e| match e {
            QueueError::Invalid(words) if requests.len() > 1 => {
                QueueError::Invalid(format!("job {i}: {words}"))
            }
            other => other,
        })?;
    }
    Ok(())
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
    check_span("lease", Some(claim.lease))
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
        ..JobOptions::default()
    };
    check_requests(std::slice::from_ref(&like))
}

/// Checks schedules before any of them fires.
///
/// # Errors
/// [`QueueError::Invalid`], which names the schedule.
pub fn check_schedules(schedules: &[Schedule]) -> Result<(), QueueError> {
    for s in schedules {
        let named = |words: String| QueueError::Invalid(format!("schedule {:?}: {words}", s.name));
        if s.name.is_empty() || s.name.len() > SCHEDULE_NAME_BYTES_MAX || s.name.contains('\0') {
            return Err(named(format!(
                "a name has 1 to {SCHEDULE_NAME_BYTES_MAX} bytes and no NUL character"
            )));
        }
        if s.every < Duration::from_millis(1) {
            return Err(named("every is less than a millisecond".into()));
        }
        check_span("every", Some(s.every))
            .and_then(|()| check_requests(std::slice::from_ref(&s.request)))
            .map_err(|e| named(e.to_string()))?;
    }
    Ok(())
}

fn empty_array() -> Box<RawValue> {
    RawValue::from_string("[]".into()).expect("an empty array is JSON")
}

#[cfg(test)]
mod tests {
    use super::*;
    use minium_protocol::LeaseToken;
    use proptest::prelude::*;

    fn finished(json: &str) -> Ending {
        Ending::Finished(RawValue::from_string(json.into()).unwrap())
    }

    fn failed(error: &str) -> Ending {
        Ending::Failed { error: error.into(), retry: true }
    }

    fn standing(
        state: State,
        result: Option<&'static str>,
        error: Option<&'static str>,
    ) -> Standing<'static> {
        Standing { state, same_lease: true, result, error }
    }

    #[test]
    fn the_default_backoff_is_minions_with_a_tenth_of_jitter() {
        let seconds = |retries, jitter| backoff(retries, None, jitter).as_secs_f64();
        assert_eq!([0, 1, 2, 3, 4, 5].map(|n| seconds(n, 0.0)), [15.0, 16.0, 31.0, 96.0, 271.0, 640.0]);
        assert!((seconds(2, 1.0) - 34.1).abs() < 1e-6);
        assert!((seconds(2, -1.0) - 27.9).abs() < 1e-6);
        assert_eq!(backoff(i32::MAX, None, 1.0), BACKOFF_MAX);
    }

    #[test]
    fn a_job_s_own_backoff_is_taken_exactly() {
        assert_eq!(backoff(9, Some(Duration::from_secs(3)), 1.0), Duration::from_secs(3));
        assert_eq!(backoff(0, Some(SPAN_MAX), 0.0), BACKOFF_MAX);
    }

    #[test]
    fn a_failure_is_retried_while_attempts_are_left_and_the_worker_allows_it() {
        assert_eq!(after_failure(1, 2, true), Aftermath::Again);
        assert_eq!(after_failure(2, 2, true), Aftermath::End);
        assert_eq!(after_failure(1, 2, false), Aftermath::End);
        assert_eq!((after_loss(1, 2), after_loss(2, 2)), (Aftermath::Again, Aftermath::End));
    }

    #[test]
    fn edges_are_open_by_the_parent_s_state_and_laxness() {
        use State::*;
        for lax in [false, true] {
            assert!(is_edge_open(Some(Inactive), lax) && is_edge_open(Some(Active), lax));
            assert!(!is_edge_open(Some(Finished), lax) && !is_edge_open(None, lax));
            assert_eq!(is_edge_open(Some(Failed), lax), !lax);
            assert_eq!(is_edge_open(Some(Cancelled), lax), !lax);
        }
        assert_eq!(edge_step(Some(Active), Some(Finished), false), -1);
        assert_eq!(edge_step(Some(Failed), Some(Inactive), true), 1);
        assert_eq!(edge_step(Some(Failed), Some(Inactive), false), 0);
    }

    #[test]
    fn an_outcome_is_accepted_once_and_repeated_after_that() {
        let job = |s| Some(s);
        assert_eq!(judge(job(standing(State::Active, None, None)), &finished("1")), Verdict::Accepted);
        let done = standing(State::Finished, Some("1"), None);
        assert_eq!(judge(job(done), &finished("1")), Verdict::Repeated);
        assert_eq!(judge(job(done), &finished("2")), Verdict::LeaseLost);
        assert_eq!(judge(job(done), &failed("1")), Verdict::LeaseLost);
        for state in [State::Failed, State::Inactive] {
            let row = standing(state, None, Some("no"));
            assert_eq!(judge(job(row), &failed("no")), Verdict::Repeated);
            assert_eq!(judge(job(row), &failed("other")), Verdict::LeaseLost);
            assert_eq!(judge(job(row), &finished("1")), Verdict::LeaseLost);
        }
        let stranger = Standing { same_lease: false, ..standing(State::Active, None, None) };
        assert_eq!(judge(job(stranger), &finished("1")), Verdict::LeaseLost);
        let off = standing(State::Cancelled, None, Some("no"));
        assert_eq!(judge(job(off), &failed("no")), Verdict::LeaseLost);
        assert_eq!(judge(None, &finished("1")), Verdict::LeaseLost);
    }

    #[test]
    fn notes_with_a_nul_are_stored_without_however_deep() {
        let Value::Object(notes) = serde_json::json!({"a\0": 1, "b": [{"c\0": "\0"}], "d": null}) else {
            panic!()
        };
        let clean = serde_json::json!({"a\u{fffd}": 1, "b": [{"c\u{fffd}": "\u{fffd}"}], "d": null});
        assert_eq!(Value::Object(storable_notes(&notes).into_owned()), clean);
        let Value::Object(clean) = clean else { panic!() };
        assert!(matches!(storable_notes(&clean), Cow::Borrowed(_)));
    }

    #[test]
    fn an_error_with_a_nul_is_stored_without_and_still_known_as_repeated() {
        assert_eq!(storable("a\0b"), "a\u{fffd}b");
        let row = standing(State::Failed, None, Some("a\u{fffd}b"));
        assert_eq!(judge(Some(row), &failed("a\0b")), Verdict::Repeated);
    }

    #[test]
    fn json_is_put_on_one_line_and_otherwise_left_alone() {
        assert_eq!(one_line("[1,\r\n 1e400, \"a\\nb\"]"), "[1,   1e400, \"a\\nb\"]");
        let row = standing(State::Finished, Some("[1, 2]"), None);
        assert_eq!(judge(Some(row), &finished("[1,\n2]")), Verdict::Repeated);
    }

    #[test]
    fn a_result_that_some_reader_would_choke_on_is_kept_as_text() {
        let text = |json: &str| result_text(&RawValue::from_string(json.into()).unwrap()).into_owned();
        assert_eq!(text("[1,\n1e99]"), "[1, 1e99]");
        assert_eq!(text("[1e400]"), r#""[1e400]""#);
        assert_eq!(text(r#"["\ud800"]"#), r#""[\"\\ud800\"]""#);
        let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
        assert_eq!(text(&deep), format!("\"{deep}\""));
        let row = standing(State::Finished, Some(r#""[1e400]""#), None);
        assert_eq!(judge(Some(row), &finished("[1e400]")), Verdict::Repeated);
    }

    #[test]
    fn what_a_late_word_brought_is_kept_as_it_came() {
        let lease = LeaseToken::fresh();
        let late_of = |ending| late(&Outcome { job: 1, lease, ending });
        let expected = format!(r#"{{"state":"finished","result":[1e99],"lease":"{lease}"}}"#);
        assert_eq!(late_of(finished("[1e99]")), expected);
        let expected = format!(r#"{{"state":"failed","error":"a\"\nb","lease":"{lease}"}}"#);
        assert_eq!(late_of(failed("a\"\nb")), expected);
    }

    #[test]
    fn a_worker_learns_whether_its_job_was_cancelled_or_lost() {
        assert_eq!(hold(Some(State::Active), true), Hold::Held);
        assert_eq!(hold(Some(State::Cancelled), true), Hold::Cancelled);
        for (state, same) in [(State::Active, false), (State::Cancelled, false), (State::Finished, true)] {
            assert_eq!(hold(Some(state), same), Hold::Lost);
        }
        assert_eq!(hold(None, true), Hold::Lost);
    }

    #[test]
    fn guards_say_why() {
        let says = |r: Result<(), QueueError>| r.unwrap_err().to_string();
        assert_eq!(says(may_retry(1, State::Active, false)), "job 1 is active: it is running");
        assert_eq!(
            says(may_retry(1, State::Failed, true)),
            "job 1 is failed: its key is held by another job"
        );
        assert_eq!(says(may_cancel(1, State::Finished)), "job 1 is finished: it has ended already");
        assert_eq!(says(may_remove(1, State::Active)), "job 1 is active: it is running");
        for state in [State::Inactive, State::Finished, State::Failed, State::Cancelled] {
            assert!(may_retry(1, state, false).is_ok() && may_remove(1, state).is_ok());
        }
        assert!(may_cancel(1, State::Inactive).is_ok() && may_cancel(1, State::Active).is_ok());
    }

    #[test]
    fn a_retry_by_hand_grants_one_attempt_more() {
        assert_eq!(attempts_after_retry(1, 1, None).unwrap(), 2);
        assert_eq!(attempts_after_retry(1, 5, None).unwrap(), 5);
        assert_eq!(attempts_after_retry(1, 5, Some(2)).unwrap(), 2);
        assert!(attempts_after_retry(2, 5, Some(2)).unwrap_err().to_string().contains("has had 2"));
    }

    #[test]
    fn a_null_deletes_a_note_and_nested_ones_stay() {
        let Value::Object(mut notes) = serde_json::json!({"a": 1, "b": 2}) else { panic!() };
        let Value::Object(change) = serde_json::json!({"a": null, "c": {"d": null}, "x": null}) else {
            panic!()
        };
        merge_notes(&mut notes, &change);
        assert_eq!(Value::Object(notes), serde_json::json!({"b": 2, "c": {"d": null}}));
    }

    #[test]
    fn only_a_job_that_was_never_started_expires() {
        assert!(is_expired(0, Some(5), 5));
        assert!(!is_expired(0, Some(6), 5) && !is_expired(1, Some(5), 5) && !is_expired(0, None, 5));
    }

    #[test]
    fn phases_are_blocked_then_delayed_then_ready() {
        assert_eq!(phase(State::Inactive, 1, 9, 5), Some(Phase::Blocked));
        assert_eq!(phase(State::Inactive, 0, 9, 5), Some(Phase::Delayed));
        assert_eq!(phase(State::Inactive, 0, 5, 5), Some(Phase::Ready));
        assert_eq!(phase(State::Active, 0, 9, 5), None);
    }

    #[test]
    fn spans_and_options_are_checked_before_anything_is_written() {
        let mut long = EnqueueRequest::new("a", empty_array());
        long.options.delay = SPAN_MAX + Duration::from_secs(1);
        let good = EnqueueRequest::new("a", empty_array());
        let e = check_requests(&[good, long]).unwrap_err().to_string();
        assert_eq!(e, "job 1: delay is longer than 100 years");
        let e = check_retry(&RetryOptions { priority: Some(5_000), ..Default::default() });
        assert!(e.unwrap_err().to_string().contains("priority"));
        let e = check_retry(&RetryOptions { queue: Some("a b".into()), ..Default::default() });
        assert!(e.unwrap_err().to_string().contains("queue"));
        let e = check_retry(&RetryOptions { attempts: Some(0), ..Default::default() });
        assert!(e.unwrap_err().to_string().contains("attempts"));
        check_retry(&RetryOptions::default()).unwrap();
    }

    #[test]
    fn a_new_schedule_fires_at_once_and_a_shorter_one_comes_nearer() {
        assert_eq!(firing(None, 10, 100), Firing { fires: true, next: 110 });
        assert_eq!(firing(Some(110), 10, 105), Firing { fires: false, next: 110 });
        assert_eq!(firing(Some(160), 10, 105), Firing { fires: false, next: 115 });
    }

    proptest! {
        #[test]
        fn missed_firings_are_made_up_by_one_and_keep_their_step(
            planned in 0i64..1_000, every in 1i64..50, late in 0i64..500,
        ) {
            let now = planned + late;
            let f = firing(Some(planned), every, now);
            prop_assert!(f.fires && f.next > now && f.next <= now + every);
            prop_assert_eq!((f.next - planned) % every, 0);
        }

        #[test]
        fn backoff_stays_within_a_tenth_and_below_the_cap(retries in 0i32..2_000, jitter in -1.0f64..=1.0) {
            let plain = f64::from(retries).powi(4) + 15.0;
            let got = backoff(retries, None, jitter).as_secs_f64();
            prop_assert!(got <= BACKOFF_MAX.as_secs_f64());
            prop_assert!(got <= plain * 1.1 + 1e-3);
            prop_assert!(got >= (plain * 0.9).min(BACKOFF_MAX.as_secs_f64()) - 1e-3);
        }
    }
}
