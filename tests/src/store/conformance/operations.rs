//! Rows 6, 7, 11, 13 and 14: what users and workers do to one job.

use crate::store::fixture::*;
use minium_protocol::{LeaseToken, Phase, Progress, State};
use minium_queue::{Annotation, QueueError, RetryOptions, rules};

fn progress(percent: f64, text: Option<&str>) -> Annotation {
    let progress = Some(Progress { percent, text: text.map(Into::into) });
    Annotation { progress, ..Annotation::default() }
}

#[track_caller]
pub(super) fn conflicts<T: std::fmt::Debug>(answer: Result<T, QueueError>, id: i64, in_state: State) {
    match answer {
        Err(QueueError::Conflict { job, state, .. }) => assert_eq!((job, state), (id, in_state)),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
pub(super) fn not_found<T: std::fmt::Debug>(answer: Result<T, QueueError>, id: i64) {
    match answer {
        Err(QueueError::NotFound(job)) => assert_eq!(job, id),
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn cancelling_ends_a_waiting_job(f: &Fixture) {
    for request in [plain(), with(|o| o.delay = seconds(10))] {
        let id = f.enqueue(request).await;
        f.entries().await;
        f.store().cancel(id).await.unwrap();
        f.wrote(&[(id, "task.cancelled")]).await;
        let job = f.job(id).await;
        assert_eq!((job.state, job.attempt), (State::Cancelled, 0));
        assert!(job.finished.is_some() && job.started.is_none() && job.result.is_none());
        f.nothing_to_claim().await;
        f.pass(seconds(20)).await;
        assert_eq!(f.upkeep().await.staged, 0);
        f.nothing_to_claim().await;
    }
}

pub(crate) async fn cancelling_ends_a_running_job(f: &Fixture) {
    let first = f.running(with(|o| (o.attempts, o.backoff) = (5, Some(seconds(0))))).await;
    f.accepted(fail(&first, "one")).await;
    let leased = f.claim_one().await;
    f.entries().await;
    f.store().cancel(leased.id).await.unwrap();
    f.wrote(&[(leased.id, "task.cancelled")]).await;
    let job = f.job(leased.id).await;
    assert_eq!((job.state, job.attempt, job.error.as_deref()), (State::Cancelled, 2, Some("one")));
    assert!(job.finished.is_some() && job.result.is_none());
    f.pass(LEASE).await;
    assert_eq!(f.upkeep().await.rescued, 0, "its lease has gone with it");
}

pub(crate) async fn an_ended_job_cannot_be_cancelled(f: &Fixture) {
    let ended = [f.finished(plain()).await, f.failed(plain()).await, f.cancelled(plain()).await];
    f.entries().await;
    for (id, state) in ended.into_iter().zip([State::Finished, State::Failed, State::Cancelled]) {
        conflicts(f.store().cancel(id).await, id, state);
    }
    f.wrote(&[]).await;
}

pub(crate) async fn a_retry_makes_every_ended_job_wait_again(f: &Fixture) {
    for state in [State::Finished, State::Failed, State::Cancelled] {
        let leased = f.running(plain()).await;
        let id = leased.id;
        match state {
            State::Finished => f.accepted(finish(&leased, "1")).await,
            State::Failed => f.accepted(fail(&leased, "no")).await,
            _ => f.store().cancel(id).await.unwrap(),
        }
        f.entries().await;
        f.store().retry(id, &RetryOptions::default()).await.unwrap();
        f.wrote(&[(id, "task.retry")]).await;
        let job = f.job(id).await;
        assert_eq!((job.state, job.retries, job.attempt, job.attempts), (State::Inactive, 1, 1, 2));
        assert_eq!(job.error.as_deref(), (state == State::Failed).then_some("no"));
        assert!(job.result.is_none() && job.finished.is_none());
        assert_eq!(Some(job.delayed), job.retried);
        let again = f.claim_one().await;
        assert_eq!((again.id, again.attempt), (id, 2));
        f.accepted(finish(&again, "2")).await;
        f.store().retry(id, &RetryOptions::default()).await.unwrap();
        let job = f.job(id).await;
        assert_eq!((job.retries, job.attempt, job.attempts), (2, 2, 3));
        f.store().remove(id).await.unwrap();
    }
}

pub(crate) async fn a_retry_makes_a_delayed_job_ready(f: &Fixture) {
    let id = f.enqueue(with(|o| (o.delay, o.attempts) = (seconds(100), 4))).await;
    f.store().retry(id, &RetryOptions::default()).await.unwrap();
    let job = f.job(id).await;
    assert_eq!((job.state, job.retries, job.attempt, job.attempts), (State::Inactive, 1, 0, 4));
    assert_eq!(f.phase(id).await, Some(Phase::Ready));
    assert_eq!(f.claim_one().await.id, id);
    f.pass(seconds(200)).await;
    assert_eq!(f.upkeep().await.staged, 0, "its old time is forgotten");
}

pub(crate) async fn a_retry_may_change_options(f: &Fixture) {
    let id = f.failed(with(|o| o.attempts = 2)).await;
    let options = RetryOptions {
        delay: Some(seconds(100)),
        priority: Some(9),
        queue: Some("other".into()),
        attempts: Some(7),
        ..RetryOptions::default()
    };
    f.store().retry(id, &options).await.unwrap();
    let job = f.job(id).await;
    assert_eq!((job.priority, job.queue.as_str(), job.attempts), (9, "other", 7));
    assert_eq!(job.delayed.duration_since(job.retried.unwrap()).as_secs(), 100);
    assert_eq!(f.phase(id).await, Some(Phase::Delayed));
    f.pass(seconds(200)).await;
    assert_eq!(f.upkeep().await.staged, 1);
    f.nothing_to_claim().await;
    let asked = minium_queue::Claim { queues: vec!["other".into()], min_priority: Some(9), ..claim(5) };
    assert_eq!(ids(&f.exchange(&[], asked).await.jobs), [id]);
}

pub(crate) async fn a_running_job_cannot_be_retried(f: &Fixture) {
    let leased = f.running(plain()).await;
    f.entries().await;
    conflicts(f.store().retry(leased.id, &RetryOptions::default()).await, leased.id, State::Active);
    f.wrote(&[]).await;
    f.accepted(finish(&leased, "1")).await;
}

pub(crate) async fn a_retry_must_grant_an_attempt(f: &Fixture) {
    let id = f.failed(plain()).await;
    f.entries().await;
    for attempts in [0, 1, 1_001] {
        let options = RetryOptions { attempts: Some(attempts), ..RetryOptions::default() };
        let answer = f.store().retry(id, &options).await;
        assert!(matches!(&answer, Err(QueueError::Invalid(w)) if w.contains("attempts")), "{answer:?}");
    }
    for (options, word) in [
        (RetryOptions { priority: Some(1_001), ..RetryOptions::default() }, "priority"),
        (RetryOptions { queue: Some("a b".into()), ..RetryOptions::default() }, "queue"),
        (RetryOptions { delay: Some(seconds(u64::MAX)), ..RetryOptions::default() }, "delay"),
    ] {
        let answer = f.store().retry(id, &options).await;
        assert!(matches!(&answer, Err(QueueError::Invalid(w)) if w.contains(word)), "{answer:?}");
    }
    f.wrote(&[]).await;
    assert_eq!(f.job(id).await.state, State::Failed);
}

pub(crate) async fn a_retry_forgets_when_the_job_was_to_expire(f: &Fixture) {
    let id = f.cancelled(with(|o| o.expire = Some(seconds(10)))).await;
    f.pass(seconds(20)).await;
    f.store().retry(id, &RetryOptions::default()).await.unwrap();
    assert!(f.job(id).await.expires.is_none());
    assert_eq!(f.upkeep().await.expired, 0);
    assert_eq!(f.claim_one().await.id, id);
}

pub(crate) async fn every_job_that_does_not_run_can_be_removed(f: &Fixture) {
    let jobs = [
        f.finished(plain()).await,
        f.failed(plain()).await,
        f.cancelled(plain()).await,
        f.enqueue(plain()).await,
        f.enqueue(with(|o| o.delay = seconds(10))).await,
    ];
    for id in jobs {
        let last = f.view(id).await;
        f.entries().await;
        f.store().remove(id).await.unwrap();
        let entries = f.wrote(&[(id, "task.removed")]).await;
        assert_eq!(entries[0].data, last.snapshot.get());
        assert!(f.is_gone(id).await);
        not_found(f.store().remove(id).await, id);
    }
    f.nothing_to_claim().await;
    let next = f.enqueue(plain()).await;
    assert!(next > jobs[4], "no id is given twice");
}

pub(crate) async fn a_running_job_cannot_be_removed(f: &Fixture) {
    let leased = f.running(plain()).await;
    f.entries().await;
    conflicts(f.store().remove(leased.id).await, leased.id, State::Active);
    f.wrote(&[]).await;
    assert!(!f.is_gone(leased.id).await);
}

pub(crate) async fn what_is_not_there_is_not_found(f: &Fixture) {
    for id in [1, 0, -1, i64::MAX] {
        not_found(f.store().cancel(id).await, id);
        not_found(f.store().retry(id, &RetryOptions::default()).await, id);
        not_found(f.store().remove(id).await, id);
        not_found(f.note(id, None, r#"{"a":1}"#).await, id);
        not_found(f.note(id, None, "{}").await, id);
        not_found(f.note(id, Some(LeaseToken::fresh()), r#"{"a":1}"#).await, id);
        assert!(f.is_gone(id).await);
    }
    f.wrote(&[]).await;
}

pub(crate) async fn notes_are_merged_member_by_member(f: &Fixture) {
    let notes = serde_json::from_str(r#"{"a":1,"b":{"x":1}}"#).unwrap();
    let id = f.enqueue(with(|o| o.notes = notes)).await;
    f.entries().await;
    f.note(id, None, r#"{"b":{"y":null},"a":null,"z":null,"ü":"世"}"#).await.unwrap();
    f.wrote(&[(id, "task.progress")]).await;
    let notes = serde_json::Value::Object(f.job(id).await.notes);
    assert_eq!(notes, serde_json::json!({"b": {"y": null}, "ü": "世"}));
    f.note(id, None, r#"{"b":null,"ü":null}"#).await.unwrap();
    assert!(f.job(id).await.notes.is_empty());
}

pub(crate) async fn notes_have_a_bound_together(f: &Fixture) {
    let id = f.enqueue(plain()).await;
    f.entries().await;
    let piece = "x".repeat(rules::NOTES_BYTES_MAX / 2);
    let note = async |name: &str| f.note(id, None, &format!("{{\"{name}\":\"{piece}\"}}")).await;
    note("a").await.unwrap();
    for _ in 0..2 {
        let refused = note("b").await.unwrap_err();
        assert!(matches!(refused, QueueError::TooLarge(_)), "{refused:?}");
        assert_eq!((refused.code().as_str(), refused.problem().retryable), ("payload_too_large", false));
    }
    note("a").await.unwrap();
    f.note(id, None, r#"{"small":1}"#).await.unwrap();
    f.wrote(&[(id, "task.progress"); 3]).await;
    let names: Vec<_> = f.job(id).await.notes.into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["a", "small"], "what was refused has changed nothing");
    f.note(id, None, r#"{"a":null}"#).await.unwrap();
    note("b").await.unwrap();
    let large = serde_json::from_str(&format!("{{\"a\":\"{piece}\",\"b\":\"{piece}\"}}")).unwrap();
    let refused = f.store().enqueue(&[plain(), with(|o| o.notes = large)]).await.unwrap_err();
    assert!(matches!(&refused, QueueError::TooLarge(words) if words.contains("job 1")), "{refused:?}");
}

pub(crate) async fn progress_is_replaced_and_emptied_by_the_next_claim(f: &Fixture) {
    let leased = f.running(with(|o| (o.attempts, o.backoff) = (2, Some(seconds(0))))).await;
    let (id, lease) = (leased.id, Some(leased.lease));
    f.entries().await;
    f.store().annotate(id, lease, &progress(12.5, Some("reading"))).await.unwrap();
    f.note(id, lease, r#"{"a":1}"#).await.unwrap();
    let told = f.job(id).await.progress.unwrap();
    assert_eq!((told.percent, told.text.as_deref()), (12.5, Some("reading")), "notes leave it alone");
    f.store().annotate(id, lease, &progress(40.0, None)).await.unwrap();
    f.wrote(&[(id, "task.progress"); 3]).await;
    let told = f.job(id).await.progress.unwrap();
    assert_eq!((told.percent, told.text), (40.0, None));
    f.accepted(fail(&leased, "no")).await;
    assert!(f.job(id).await.progress.is_some());
    f.claim_one().await;
    let job = f.job(id).await;
    assert!(job.progress.is_none() && job.notes["a"] == 1);
}

pub(crate) async fn a_progress_is_0_to_100_and_short(f: &Fixture) {
    let id = f.enqueue(plain()).await;
    f.entries().await;
    let long = "x".repeat(minium_protocol::PROGRESS_TEXT_BYTES_MAX + 1);
    for (percent, text) in [(-5.0, None), (100.1, None), (1e300, None), (f64::NAN, None), (1.0, Some(&*long))]
    {
        let refused = f.store().annotate(id, None, &progress(percent, text)).await;
        assert!(matches!(&refused, Err(QueueError::Invalid(w)) if w.contains("progress")), "{refused:?}");
    }
    f.wrote(&[]).await;
    f.store().annotate(id, None, &progress(100.0, Some(&long[1..]))).await.unwrap();
    f.wrote(&[(id, "task.progress")]).await;
}

pub(crate) async fn a_worker_annotates_under_its_lease_only(f: &Fixture) {
    let refused = async |id: i64, lease: LeaseToken| {
        let answer = f.note(id, Some(lease), r#"{"a":1}"#).await;
        assert!(matches!(answer, Err(QueueError::LeaseLost(job)) if job == id), "{answer:?}");
        let answer = f.note(id, Some(lease), "{}").await;
        assert!(matches!(answer, Err(QueueError::LeaseLost(job)) if job == id), "{answer:?}");
    };
    let leased = f.running(with(|o| o.attempts = 9)).await;
    refused(leased.id, LeaseToken::fresh()).await;
    f.pass(LEASE).await;
    f.upkeep().await;
    refused(leased.id, leased.lease).await;
    let leased = f.claim_one().await;
    f.accepted(finish(&leased, "1")).await;
    refused(leased.id, leased.lease).await;
    let leased = f.running(plain()).await;
    f.store().cancel(leased.id).await.unwrap();
    refused(leased.id, leased.lease).await;
    let kinds: Vec<_> = f.entries().await.into_iter().map(|e| e.kind).collect();
    assert!(!kinds.contains(&"task.progress".to_owned()), "{kinds:?}");
}

pub(crate) async fn an_annotation_of_nothing_writes_nothing(f: &Fixture) {
    let leased = f.running(plain()).await;
    f.entries().await;
    f.note(leased.id, None, "{}").await.unwrap();
    f.note(leased.id, Some(leased.lease), "{}").await.unwrap();
    f.wrote(&[]).await;
}

pub(crate) async fn an_ended_job_can_be_annotated(f: &Fixture) {
    let jobs = [f.finished(plain()).await, f.failed(plain()).await, f.cancelled(plain()).await];
    for id in jobs {
        let state = f.job(id).await.state;
        f.entries().await;
        f.note(id, None, r#"{"seen":true}"#).await.unwrap();
        f.wrote(&[(id, "task.progress")]).await;
        let job = f.job(id).await;
        assert_eq!((job.state, &job.notes["seen"]), (state, &serde_json::json!(true)));
    }
}
