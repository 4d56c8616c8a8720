//! Schedules fire once, whoever calls and however late.

use crate::store::fixture::*;
use minium_protocol::JobOptions;
use minium_queue::{QueueError, Schedule};
use std::time::Duration;

fn every(span: Duration) -> Schedule {
    Schedule { name: "inventory".into(), request: plain(), every: span }
}

async fn fire(f: &Fixture, schedule: Schedule) -> Duration {
    f.store().fire_schedules(&[schedule]).await.unwrap().unwrap()
}

/// Is the next firing in so long, as far as a test can tell?
#[track_caller]
fn is_about(next: Duration, expected: u64) {
    assert!(next <= seconds(expected) && next > seconds(expected - 10), "{next:?}");
}

async fn fired(f: &Fixture) -> usize {
    let entries = f.entries().await;
    assert!(entries.iter().all(|e| e.kind == "task.enqueue"));
    entries.len()
}

pub(crate) async fn a_new_schedule_fires_at_once(f: &Fixture) {
    let mut schedule = every(seconds(100));
    schedule.request.args = json(r#"["x"]"#);
    is_about(fire(f, schedule).await, 100);
    let leased = f.claim_one().await;
    let job = f.job(leased.id).await;
    assert_eq!((job.schedule.as_deref(), job.args.get()), (Some("inventory"), r#"["x"]"#));
    f.wrote(&[(job.id, "task.enqueue"), (job.id, "task.dequeue")]).await;
}

pub(crate) async fn a_schedule_fires_once_from_two_stores(f: &Fixture) {
    let stores = [f.shared(), f.second().await];
    for round in 0..8 {
        let callers: Vec<_> = (0..6)
            .map(|i| {
                let store = stores[i % 2].clone();
                tokio::spawn(async move { store.fire_schedules(&[every(seconds(100))]).await.unwrap() })
            })
            .collect();
        for caller in callers {
            assert!(caller.await.unwrap().is_some());
        }
        assert_eq!(fired(f).await, 1, "round {round}");
        f.pass(seconds(100)).await;
    }
}

pub(crate) async fn missed_firings_are_made_up_by_one(f: &Fixture) {
    fire(f, every(seconds(100))).await;
    assert_eq!(fired(f).await, 1);
    f.pass(seconds(90)).await;
    fire(f, every(seconds(100))).await;
    assert_eq!(fired(f).await, 0, "not yet");
    f.pass(seconds(500 + 30)).await;
    // 620 s after the first: six were due, the next stays in step
    is_about(fire(f, every(seconds(100))).await, 80);
    assert_eq!(fired(f).await, 1);
    fire(f, every(seconds(100))).await;
    assert_eq!(fired(f).await, 0);
}

pub(crate) async fn a_shorter_interval_brings_the_next_firing_nearer(f: &Fixture) {
    fire(f, every(seconds(1_000))).await;
    is_about(fire(f, every(seconds(100))).await, 100);
    is_about(fire(f, every(seconds(1_000))).await, 100);
    assert_eq!(fired(f).await, 1);
    let mut other = every(seconds(50));
    other.name = "other".into();
    let next = f.store().fire_schedules(&[every(seconds(100)), other]).await.unwrap().unwrap();
    is_about(next, 50);
    assert_eq!(fired(f).await, 1, "each has a time of its own");
}

pub(crate) async fn a_key_keeps_firings_from_piling_up(f: &Fixture) {
    let mut schedule = every(seconds(100));
    schedule.request.options = JobOptions { key: Some("one".into()), ..JobOptions::default() };
    fire(f, schedule.clone()).await;
    f.pass(seconds(100)).await;
    is_about(fire(f, schedule.clone()).await, 100);
    assert_eq!(fired(f).await, 1);
    let leased = f.claim_one().await;
    f.accepted(finish(&leased, "1")).await;
    f.entries().await;
    f.pass(seconds(100)).await;
    fire(f, schedule).await;
    assert_eq!(fired(f).await, 1);
}

pub(crate) async fn a_bad_schedule_fires_nothing(f: &Fixture) {
    let mut bad = every(seconds(100));
    bad.request.options.attempts = 0;
    let named = |name: &str| Schedule { name: name.into(), ..every(seconds(100)) };
    let cases =
        [(bad, "attempts"), (every(seconds(0)), "every"), (named(""), "name"), (named("a\0"), "name")];
    for (schedule, word) in cases {
        let answer = f.store().fire_schedules(&[every(seconds(100)), schedule]).await;
        assert!(matches!(&answer, Err(QueueError::Invalid(w)) if w.contains(word)), "{answer:?}");
    }
    assert_eq!(fired(f).await, 0);
    f.nothing_to_claim().await;
}

pub(crate) async fn no_schedules_are_never_due(f: &Fixture) {
    assert_eq!(f.store().fire_schedules(&[]).await.unwrap(), None);
}
