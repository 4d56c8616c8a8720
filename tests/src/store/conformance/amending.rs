//! Row 13a: what is changed by hand of a job that waits.

use super::operations::{conflicts, not_found};
use crate::store::fixture::*;
use minium_protocol::{Phase, State};
use minium_queue::{Amendment, Claim, QueueError};
use serde_json::{Map, Value, json};
use std::time::Duration;

fn notes(value: Value) -> Map<String, Value> {
    serde_json::from_value(value).unwrap()
}

fn prior(priority: i32) -> Amendment {
    Amendment { priority: Some(priority), ..Amendment::default() }
}

fn later(delay: Duration) -> Amendment {
    Amendment { delay: Some(delay), ..Amendment::default() }
}

/// All of it is one event, and nothing else of the job is touched.
pub(crate) async fn an_amendment_changes_when_how_urgently_and_where_a_job_runs(f: &Fixture) {
    let id = f.enqueue(with(|o| (o.notes, o.attempts) = (notes(json!({ "a": 1, "b": 2 })), 4))).await;
    let before = f.job(id).await;
    f.entries().await;
    let amendment = Amendment {
        delay: Some(seconds(100)),
        priority: Some(9),
        queue: Some("other".into()),
        notes: notes(json!({ "a": null, "c": 3 })),
    };
    f.store().amend(id, &amendment).await.unwrap();
    f.wrote(&[(id, "task.changed")]).await;
    let job = f.job(id).await;
    assert_eq!((job.priority, job.queue.as_str(), job.retries, job.attempts), (9, "other", 0, 4));
    assert_eq!(serde_json::to_value(&job.notes).unwrap(), json!({ "b": 2, "c": 3 }));
    assert_eq!((job.created, job.retried), (before.created, None));
    assert!(job.delayed.duration_since(before.delayed).as_secs() >= 100, "{job:?}");
    assert_eq!(f.phase(id).await, Some(Phase::Delayed));
    f.nothing_to_claim().await;
    f.pass(seconds(200)).await;
    assert_eq!(f.upkeep().await.staged, 1);
    f.nothing_to_claim().await;
    let asked = Claim { queues: vec!["other".into()], min_priority: Some(9), ..claim(5) };
    assert_eq!(ids(&f.exchange(&[], asked).await.jobs), [id]);
}

pub(crate) async fn an_amended_job_queues_up_anew(f: &Fixture) {
    let (first, second, third) =
        (f.enqueue(plain()).await, f.enqueue(plain()).await, f.enqueue(plain()).await);
    f.store().amend(third, &prior(1)).await.unwrap();
    f.store().amend(first, &prior(0)).await.unwrap();
    for id in [third, second, first] {
        assert_eq!(ids(&f.exchange(&[], claim(1)).await.jobs), [id]);
    }
}

pub(crate) async fn an_amended_delay_may_end_a_wait(f: &Fixture) {
    let id = f.enqueue(with(|o| o.delay = seconds(100))).await;
    f.store().amend(id, &prior(3)).await.unwrap();
    assert_eq!(f.phase(id).await, Some(Phase::Delayed), "a priority leaves its time");
    f.store().amend(id, &later(seconds(0))).await.unwrap();
    assert_eq!(f.phase(id).await, Some(Phase::Ready));
    let leased = f.claim_one().await;
    assert_eq!((leased.id, leased.attempt), (id, 1));
    f.pass(seconds(200)).await;
    assert_eq!(f.upkeep().await.staged, 0, "its old time is forgotten");
}

pub(crate) async fn an_amendment_leaves_parents_to_be_waited_for(f: &Fixture) {
    let parent = f.running(plain()).await;
    let child = f.enqueue(with(|o| (o.parents, o.delay) = (vec![parent.id], seconds(100)))).await;
    f.store().amend(child, &later(seconds(0))).await.unwrap();
    assert_eq!(f.phase(child).await, Some(Phase::Blocked));
    f.nothing_to_claim().await;
    f.accepted(finish(&parent, "1")).await;
    assert_eq!(f.claim_one().await.id, child);
}

pub(crate) async fn a_job_that_does_not_wait_cannot_be_amended(f: &Fixture) {
    let cases = [
        (f.finished(plain()).await, State::Finished),
        (f.failed(plain()).await, State::Failed),
        (f.cancelled(plain()).await, State::Cancelled),
        (f.running(plain()).await.id, State::Active),
    ];
    f.entries().await;
    for (id, state) in cases {
        conflicts(f.store().amend(id, &prior(1)).await, id, state);
        assert_eq!(f.job(id).await.priority, 0);
    }
    not_found(f.store().amend(1_000_000, &prior(1)).await, 1_000_000);
    f.wrote(&[]).await;
}

pub(crate) async fn an_amendment_that_breaks_a_rule_changes_nothing(f: &Fixture) {
    let id = f.enqueue(plain()).await;
    f.entries().await;
    let large = notes(json!({ "large": "x".repeat(300_000) }));
    let only_notes = Amendment { notes: notes(json!({ "a": 1 })), ..Amendment::default() };
    let no_queue = Amendment { queue: Some("no queue!".into()), ..Amendment::default() };
    for wrong in [prior(1_001), only_notes, no_queue, Amendment::default()] {
        let refused = f.store().amend(id, &wrong).await;
        assert!(matches!(refused, Err(QueueError::Invalid(_))), "{wrong:?}: {refused:?}");
    }
    let refused = f.store().amend(id, &Amendment { notes: large, ..prior(5) }).await;
    assert!(matches!(refused, Err(QueueError::TooLarge(_))), "{refused:?}");
    f.wrote(&[]).await;
    assert_eq!(f.job(id).await.priority, 0);
}
