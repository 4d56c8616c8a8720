//! One action on all jobs that a filter finds.

use crate::store::fixture::*;
use minium_protocol::State;
use minium_queue::{BulkAction, BulkDone, JobFilter, QueueError, RetryOptions, bulk};

fn in_state(state: State) -> JobFilter {
    JobFilter { states: vec![state], ..JobFilter::default() }
}

pub(crate) async fn all_that_a_filter_finds_are_acted_on(f: &Fixture) {
    let mut failed = Vec::new();
    for _ in 0..5 {
        failed.push(f.failed(plain()).await);
    }
    let finished = f.finished(plain()).await;
    f.entries().await;
    let retry = BulkAction::Retry(RetryOptions { priority: Some(7), ..RetryOptions::default() });
    let mut filter = JobFilter { limit: 2, ..in_state(State::Failed) };
    let mut pieces = Vec::new();
    loop {
        let done = bulk(f.store(), &retry, &filter, false).await.unwrap();
        assert_eq!(done.refused, 0);
        pieces.push((done.matched, done.changed));
        let Some(next) = done.next else { break };
        filter.before = Some(next);
    }
    assert_eq!(pieces, [(2, 2), (2, 2), (1, 1)]);
    let expected: Vec<_> = failed.iter().map(|id| (*id, "task.retry")).collect();
    f.wrote_by_job(&expected).await;
    for id in &failed {
        let job = f.job(*id).await;
        assert_eq!((job.state, job.priority), (State::Inactive, 7));
    }
    let cancel = bulk(f.store(), &BulkAction::Cancel, &in_state(State::Inactive), false).await.unwrap();
    assert_eq!((cancel.matched, cancel.changed, cancel.next), (5, 5, None));
    let named = JobFilter { ids: vec![failed[0], finished], ..JobFilter::default() };
    let removed = bulk(f.store(), &BulkAction::Remove, &named, false).await.unwrap();
    assert_eq!(removed.changed, 2);
    assert!(f.is_gone(failed[0]).await && f.is_gone(finished).await && !f.is_gone(failed[1]).await);
}

pub(crate) async fn whom_the_options_do_not_fit_is_passed_over(f: &Fixture) {
    let ran = f.failed(plain()).await;
    let waiting = f.enqueue(plain()).await;
    let cases = [
        RetryOptions { expire: Some(LEASE), ..RetryOptions::default() },
        RetryOptions { attempts: Some(1), ..RetryOptions::default() },
        RetryOptions { parents: Some(vec![ran]), ..RetryOptions::default() },
    ];
    let all = JobFilter { ids: vec![ran, waiting], ..JobFilter::default() };
    let expected = BulkDone { matched: 2, changed: 1, refused: 1, next: None };
    f.entries().await;
    for options in cases {
        let action = BulkAction::Retry(options);
        for dry_run in [true, false] {
            assert_eq!(bulk(f.store(), &action, &all, dry_run).await.unwrap(), expected, "{action:?}");
        }
        f.wrote(&[(waiting, "task.retry")]).await;
    }
}

pub(crate) async fn what_its_state_forbids_is_passed_over(f: &Fixture) {
    let running = f.running(plain()).await;
    let waiting = f.enqueue(plain()).await;
    let all = JobFilter { tasks: vec!["t".into()], ..JobFilter::default() };
    let expected = BulkDone { matched: 2, changed: 1, refused: 1, next: None };
    f.entries().await;
    for dry_run in [true, false] {
        assert_eq!(bulk(f.store(), &BulkAction::Remove, &all, dry_run).await.unwrap(), expected);
        assert_eq!(f.is_gone(waiting).await, !dry_run, "a dry run changes nothing");
    }
    f.wrote(&[(waiting, "task.removed")]).await;
    assert_eq!(f.job(running.id).await.state, State::Active);
    let bad = BulkAction::Retry(RetryOptions { priority: Some(5_000), ..RetryOptions::default() });
    assert!(matches!(bulk(f.store(), &bad, &all, true).await, Err(QueueError::Invalid(_))));
}
