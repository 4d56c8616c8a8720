//! Rows 3 to 5 and 16: what becomes of the word of a worker.

use crate::store::fixture::*;
use minium_protocol::{EnqueueRequest, Job, LeaseToken, Phase, State};
use minium_queue::{Ending, Outcome, RetryOptions, Verdict};

fn tried(attempts: i32, backoff: u64) -> EnqueueRequest {
    with(|o| (o.attempts, o.backoff) = (attempts, Some(seconds(backoff))))
}

/// Hands a word in that comes too late, and checks what is left of it.
async fn late(f: &Fixture, outcome: Outcome) {
    f.entries().await;
    let id = outcome.job;
    let before = f.view(id).await;
    let (lease, ending) = (outcome.lease, outcome.ending.clone());
    assert_eq!(f.hand_in(&[outcome]).await, [Verdict::LeaseLost]);
    let entries = f.wrote(&[(id, "task.late_result")]).await;
    assert_eq!(entries[0].data, before.snapshot.get(), "nothing has changed");
    let told: serde_json::Value = serde_json::from_str(entries[0].late.as_deref().unwrap()).unwrap();
    let expected = match ending {
        Ending::Finished(result) => {
            let result: serde_json::Value = serde_json::from_str(result.get()).unwrap();
            serde_json::json!({"state": "finished", "result": result, "lease": lease})
        }
        Ending::Failed { error, .. } => {
            serde_json::json!({"state": "failed", "error": error, "lease": lease})
        }
    };
    assert_eq!(told, expected);
}

pub(crate) async fn a_finished_job_has_its_result(f: &Fixture) {
    let leased = f.running(plain()).await;
    f.accepted(finish(&leased, r#"{"rows":10}"#)).await;
    let job = f.job(leased.id).await;
    assert_eq!((job.state, job.result.unwrap().get()), (State::Finished, r#"{"rows":10}"#));
    assert!(job.error.is_none() && job.finished.unwrap() >= job.started.unwrap());
    assert_eq!((job.attempt, job.retries, job.worker), (1, 0, Some(worker())));
    let told = [(leased.id, "task.enqueue"), (leased.id, "task.dequeue"), (leased.id, "task.finished")];
    let entries = f.wrote(&told).await;
    assert!(entries.iter().all(|e| e.late.is_none()));
    f.nothing_to_claim().await;
}

pub(crate) async fn a_failure_without_attempts_left_is_the_end(f: &Fixture) {
    let leased = f.running(plain()).await;
    f.entries().await;
    f.accepted(fail(&leased, "disk full")).await;
    let job = f.job(leased.id).await;
    assert_eq!((job.state, job.error.as_deref()), (State::Failed, Some("disk full")));
    assert!(job.result.is_none() && job.finished.is_some() && job.retried.is_none());
    f.wrote(&[(leased.id, "task.failed")]).await;
    f.pass(seconds(86_400)).await;
    f.upkeep().await;
    f.nothing_to_claim().await;
}

pub(crate) async fn a_failure_with_attempts_left_is_retried(f: &Fixture) {
    let first = f.running(tried(2, 100)).await;
    f.entries().await;
    f.accepted(fail(&first, "one")).await;
    let entries = f.wrote(&[(first.id, "task.failed"), (first.id, "task.retry")]).await;
    let (failed, retried) = (entries[0].job(), entries[1].job());
    assert_eq!((failed.state, failed.error.as_deref(), failed.retries), (State::Failed, Some("one"), 0));
    assert!(failed.finished.is_some() && failed.retried.is_none());
    assert_eq!((retried.state, retried.error.as_deref(), retried.retries), (State::Inactive, Some("one"), 1));
    assert_eq!((retried.attempt, retried.attempts), (1, 2));
    assert!(retried.finished.is_none() && retried.result.is_none() && retried.started.is_some());
    assert_eq!(retried.delayed.duration_since(retried.retried.unwrap()).as_secs(), 100);
    assert_eq!(f.phase(first.id).await, Some(Phase::Delayed));
    f.nothing_to_claim().await;
    f.pass(seconds(200)).await;
    assert_eq!(f.upkeep().await.staged, 1);
    let second = f.claim_one().await;
    assert_eq!((second.id, second.attempt), (first.id, 2));
    assert_ne!(second.lease, first.lease);
    f.accepted(fail(&second, "two")).await;
    let told = [(first.id, "task.dequeue"), (first.id, "task.failed")];
    f.wrote(&told).await;
    assert_eq!(f.job(first.id).await.error.as_deref(), Some("two"));
}

pub(crate) async fn a_failure_that_must_not_be_retried_is_the_end(f: &Fixture) {
    let leased = f.running(tried(5, 0)).await;
    f.entries().await;
    f.accepted(fail_for_good(&leased, "no")).await;
    assert_eq!(f.job(leased.id).await.state, State::Failed);
    f.wrote(&[(leased.id, "task.failed")]).await;
}

pub(crate) async fn a_run_that_is_put_off_uses_no_attempt_up(f: &Fixture) {
    let leased = f.running(with(|o| o.attempts = 1)).await;
    let before = f.job(leased.id).await;
    let (id, lease) = (leased.id, leased.lease);
    let stranger = LeaseToken::fresh();
    f.entries().await;
    assert!(!f.store().postpone(id, stranger, seconds(60)).await.unwrap());
    assert_eq!(f.job(id).await.state, State::Active);
    assert!(f.store().postpone(id, lease, seconds(60)).await.unwrap());
    assert!(!f.store().postpone(id, lease, seconds(0)).await.unwrap(), "once");
    f.wrote(&[(id, "task.retry")]).await;
    let job = f.job(id).await;
    assert_eq!((job.state, job.attempt, job.attempts, job.retries), (State::Inactive, 0, 1, 0));
    assert_eq!((job.started, job.error.as_deref(), job.finished), (None, None, None));
    assert!(job.retried >= before.started && job.retried.is_some());
    assert_eq!(job.delayed.duration_since(job.retried.unwrap()).as_secs(), 60);
    assert_eq!(f.phase(id).await, Some(Phase::Delayed));
    f.nothing_to_claim().await;
    f.pass(seconds(61)).await;
    f.upkeep().await;
    // the whole run is there again, and what the first one brings is late
    let again = f.claim_one().await;
    assert_eq!((again.id, again.attempt, again.lease == lease), (id, 1, false));
    assert_eq!(f.hand_in(&[finish(&leased, "1")]).await, [Verdict::LeaseLost]);
    assert_eq!(f.hand_in(&[finish(&again, "2")]).await, [Verdict::Accepted]);
    // without a pause it is ready at once
    let leased = f.running(plain()).await;
    assert!(f.store().postpone(leased.id, leased.lease, seconds(0)).await.unwrap());
    assert_eq!(f.claim_one().await.id, leased.id);
}

pub(crate) async fn the_default_backoff_is_within_its_range(f: &Fixture) {
    const JOBS: usize = 40;
    let pauses = async |retries: i32| {
        let jobs = f.claim(JOBS as u32).await;
        assert_eq!(jobs.len(), JOBS);
        let outcomes: Vec<_> = jobs.iter().map(|job| fail(job, "no")).collect();
        assert_eq!(f.hand_in(&outcomes).await, vec![Verdict::Accepted; JOBS]);
        let mut pauses = Vec::new();
        for leased in &jobs {
            let job: Job = f.job(leased.id).await;
            assert_eq!(job.retries, retries + 1);
            pauses.push(job.delayed.duration_since(job.retried.unwrap()).as_secs_f64());
        }
        pauses
    };
    f.store().enqueue(&vec![with(|o| o.attempts = 9); JOBS]).await.unwrap();
    for (retries, plain) in [(0, 15.0), (1, 16.0), (2, 31.0)] {
        let pauses = pauses(retries).await;
        let range = plain * 0.9 - 0.001..=plain * 1.1 + 0.001;
        assert!(pauses.iter().all(|p| range.contains(p)), "{retries}: {pauses:?}");
        let spread = pauses.iter().fold(0.0f64, |most, p| most.max((p - pauses[0]).abs()));
        assert!(spread > plain * 0.01, "what failed together does not come back together: {pauses:?}");
        f.pass(seconds(60)).await;
        f.upkeep().await;
    }
}

pub(crate) async fn a_success_clears_the_error_of_the_failure_before(f: &Fixture) {
    let first = f.running(tried(2, 0)).await;
    f.accepted(fail(&first, "one")).await;
    let second = f.claim_one().await;
    assert_eq!(f.job(first.id).await.error.as_deref(), Some("one"), "until the next outcome");
    f.accepted(finish(&second, "1")).await;
    let job = f.job(first.id).await;
    assert_eq!((job.state, job.error, job.attempt), (State::Finished, None, 2));
}

pub(crate) async fn the_same_word_again_is_repeated(f: &Fixture) {
    let repeated = async |outcome: Outcome| {
        f.accepted(outcome.clone()).await;
        f.entries().await;
        let before = f.view(outcome.job).await;
        assert_eq!(f.hand_in(&[outcome.clone(), outcome.clone()]).await, [Verdict::Repeated; 2]);
        f.wrote(&[]).await;
        assert_eq!(f.view(outcome.job).await.snapshot.get(), before.snapshot.get());
    };
    repeated(finish(&f.running(plain()).await, r#"{"a": [1]}"#)).await;
    repeated(finish(&f.running(plain()).await, "null")).await;
    repeated(fail(&f.running(plain()).await, "no")).await;
    // its retry waits already
    repeated(fail(&f.running(tried(3, 100)).await, "no")).await;
}

pub(crate) async fn another_word_under_the_same_lease_is_late(f: &Fixture) {
    let leased = f.running(plain()).await;
    f.accepted(finish(&leased, "1")).await;
    late(f, finish(&leased, "[2,\"x\"]")).await;
    late(f, fail(&leased, "1")).await;
    let leased = f.running(plain()).await;
    f.accepted(fail(&leased, "no")).await;
    late(f, fail(&leased, "an \"other\"\n")).await;
    late(f, finish(&leased, "null")).await;
    let leased = f.running(tried(2, 100)).await;
    f.accepted(fail(&leased, "no")).await;
    late(f, finish(&leased, "1")).await;
}

pub(crate) async fn a_word_under_a_lost_lease_is_late(f: &Fixture) {
    let first = f.running(tried(2, 0)).await;
    f.pass(LEASE).await;
    assert_eq!(f.upkeep().await.rescued, 1);
    late(f, finish(&first, "1")).await;
    let second = f.claim_one().await;
    late(f, fail(&first, "no")).await;
    f.accepted(finish(&second, "2")).await;
    late(f, finish(&first, "2")).await;
    let stranger = Outcome { lease: LeaseToken::fresh(), ..finish(&second, "2") };
    late(f, stranger).await;
    assert_eq!(f.job(first.id).await.result.unwrap().get(), "2");
}

pub(crate) async fn a_word_on_a_job_that_is_gone_is_lost(f: &Fixture) {
    let leased = f.running(plain()).await;
    f.accepted(finish(&leased, "1")).await;
    f.store().remove(leased.id).await.unwrap();
    f.entries().await;
    let unknown = Outcome { job: leased.id + 1_000, ..finish(&leased, "1") };
    assert_eq!(f.hand_in(&[finish(&leased, "1"), unknown]).await, [Verdict::LeaseLost; 2]);
    f.wrote(&[]).await;
}

pub(crate) async fn a_word_after_cancelling_is_late(f: &Fixture) {
    let leased = f.running(plain()).await;
    f.store().cancel(leased.id).await.unwrap();
    late(f, finish(&leased, "1")).await;
    assert_eq!(f.job(leased.id).await.state, State::Cancelled);
    // an earlier failure's words do not make the last run's a repetition
    let first = f.running(tried(3, 0)).await;
    f.accepted(fail(&first, "same")).await;
    let second = f.claim_one().await;
    f.store().cancel(second.id).await.unwrap();
    late(f, fail(&second, "same")).await;
}

pub(crate) async fn a_word_after_a_retry_by_hand_is_late(f: &Fixture) {
    for (ended, word) in [("finish", "finish"), ("fail", "fail"), ("cancel", "fail")] {
        let leased = f.running(plain()).await;
        match ended {
            "finish" => f.accepted(finish(&leased, "1")).await,
            "fail" => f.accepted(fail(&leased, "no")).await,
            _ => f.store().cancel(leased.id).await.unwrap(),
        }
        let later = RetryOptions { delay: Some(seconds(100)), ..RetryOptions::default() };
        f.store().retry(leased.id, &later).await.unwrap();
        late(f, if word == "finish" { finish(&leased, "1") } else { fail(&leased, "no") }).await;
    }
}

pub(crate) async fn two_words_in_one_call_are_judged_in_order(f: &Fixture) {
    let leased = f.running(plain()).await;
    f.entries().await;
    let words = [finish(&leased, "1"), finish(&leased, "1"), fail(&leased, "no"), finish(&leased, "2")];
    let expected = [Verdict::Accepted, Verdict::Repeated, Verdict::LeaseLost, Verdict::LeaseLost];
    assert_eq!(f.hand_in(&words).await, expected);
    let id = leased.id;
    f.wrote(&[(id, "task.finished"), (id, "task.late_result"), (id, "task.late_result")]).await;
    let leased = f.running(tried(2, 0)).await;
    f.entries().await;
    assert_eq!(
        f.hand_in(&[fail(&leased, "no"), fail(&leased, "no")]).await,
        [Verdict::Accepted, Verdict::Repeated]
    );
    f.wrote(&[(leased.id, "task.failed"), (leased.id, "task.retry")]).await;
    assert_eq!(f.claim_one().await.id, leased.id, "it is retried once");
}

pub(crate) async fn a_batch_is_judged_one_by_one(f: &Fixture) {
    let requests = [plain(), tried(2, 100), plain(), plain(), plain()];
    f.store().enqueue(&requests).await.unwrap();
    let jobs = f.claim(5).await;
    f.accepted(finish(&jobs[3], "3")).await;
    let next = f.enqueue(plain()).await;
    f.entries().await;
    let unknown = Outcome { job: next + 1_000, ..finish(&jobs[0], "0") };
    let stale = Outcome { lease: LeaseToken::fresh(), ..finish(&jobs[4], "4") };
    let outcomes = [
        fail(&jobs[2], "two"),
        unknown,
        fail(&jobs[1], "one"),
        stale,
        finish(&jobs[0], "0"),
        finish(&jobs[3], "3"),
    ];
    let exchanged = f.exchange(&outcomes, claim(5)).await;
    use Verdict::*;
    assert_eq!(exchanged.verdicts, [Accepted, LeaseLost, Accepted, LeaseLost, Accepted, Repeated]);
    assert_eq!(ids(&exchanged.jobs), [next]);
    let expected = [
        (jobs[2].id, "task.failed"),
        (jobs[1].id, "task.failed"),
        (jobs[1].id, "task.retry"),
        (jobs[4].id, "task.late_result"),
        (jobs[0].id, "task.finished"),
        (next, "task.dequeue"),
    ];
    f.wrote_by_job(&expected).await;
    assert_eq!(f.job(jobs[0].id).await.result.unwrap().get(), "0");
    assert_eq!(f.job(jobs[2].id).await.error.as_deref(), Some("two"));
}

pub(crate) async fn an_outcome_under_a_lease_that_ran_out_counts(f: &Fixture) {
    let leased = f.running(plain()).await;
    f.pass(LEASE * 2).await;
    f.note(leased.id, Some(leased.lease), r#"{"a":1}"#).await.unwrap();
    f.accepted(finish(&leased, "1")).await;
    assert_eq!(f.upkeep().await.rescued, 0);
    assert_eq!(f.job(leased.id).await.state, State::Finished);
}
