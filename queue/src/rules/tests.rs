//! The rules, one by one.

use super::*;
use minium_protocol::LeaseToken;
use proptest::prelude::*;

fn finished(json: &str) -> Ending {
    Ending::Finished(RawValue::from_string(json.into()).unwrap())
}

fn failed(error: &str) -> Ending {
    Ending::failed(error)
}

fn standing(state: State, result: Option<&'static str>, error: Option<&'static str>) -> Standing<'static> {
    Standing { state, same_lease: true, result, error }
}

#[test]
fn the_default_backoff_is_minions_with_a_tenth_of_jitter() {
    let seconds = |retries, jitter| backoff(retries, None, Pause::Usual, jitter).as_secs_f64();
    assert_eq!([0, 1, 2, 3, 4, 5].map(|n| seconds(n, 0.0)), [15.0, 16.0, 31.0, 96.0, 271.0, 640.0]);
    assert!((seconds(2, 1.0) - 34.1).abs() < 1e-6);
    assert!((seconds(2, -1.0) - 27.9).abs() < 1e-6);
    assert_eq!(backoff(i32::MAX, None, Pause::Usual, 1.0), BACKOFF_MAX);
}

#[test]
fn a_job_s_own_backoff_is_taken_exactly() {
    assert_eq!(backoff(9, Some(Duration::from_secs(3)), Pause::Usual, 1.0), Duration::from_secs(3));
    assert_eq!(backoff(0, Some(SPAN_MAX), Pause::Usual, 0.0), BACKOFF_MAX);
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
    assert_eq!(says(may_retry(1, State::Failed, true)), "job 1 is failed: its key is held by another job");
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
    let Value::Object(change) = serde_json::json!({"a": null, "c": {"d": null}, "x": null}) else { panic!() };
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
fn arguments_are_bounded_whoever_enqueues() {
    let of = |bytes: usize| {
        let text = format!("[\"{}\"]", "x".repeat(bytes - 4));
        EnqueueRequest::new("a", RawValue::from_string(text).unwrap())
    };
    check_requests(&[of(ARGS_BYTES_MAX)]).unwrap();
    let refused = check_requests(&[of(10), of(ARGS_BYTES_MAX + 1)]).unwrap_err();
    assert!(matches!(&refused, QueueError::TooLarge(why) if why.starts_with("job 1: ")), "{refused}");
}

proptest! {
    #[test]
    fn backoff_stays_within_a_tenth_and_below_the_cap(retries in 0i32..2_000, jitter in -1.0f64..=1.0) {
        let plain = f64::from(retries).powi(4) + 15.0;
        let got = backoff(retries, None, Pause::Usual, jitter).as_secs_f64();
        prop_assert!(got <= BACKOFF_MAX.as_secs_f64());
        prop_assert!(got <= plain * 1.1 + 1e-3);
        prop_assert!(got >= (plain * 0.9).min(BACKOFF_MAX.as_secs_f64()) - 1e-3);
    }
}
