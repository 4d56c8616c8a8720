//! Rows 10 and 12, staging, and the bounds of a round.

use crate::store::fixture::*;
use minium_protocol::{Phase, State};
use minium_queue::{QueueError, RetryOptions, UpkeepRules, Upkept, WorkerInfo, WorkerStatus};

fn keeping(span: u64) -> UpkeepRules {
    UpkeepRules { keep: keep(Some(seconds(span))), ..upkeep_rules() }
}

pub(crate) async fn due_jobs_are_staged(f: &Fixture) {
    let soon = f.enqueue(with(|o| o.delay = seconds(100))).await;
    f.enqueue(with(|o| o.delay = seconds(1_000))).await;
    f.enqueue(plain()).await;
    assert_eq!(f.upkeep().await.staged, 0);
    f.pass(seconds(200)).await;
    f.entries().await;
    assert_eq!(f.upkeep().await.staged, 1);
    f.wrote(&[]).await;
    assert_eq!(f.phase(soon).await, Some(Phase::Ready));
    assert_eq!(f.upkeep().await.staged, 0, "once");
}

pub(crate) async fn upkeep_says_when_the_next_is_due(f: &Fixture) {
    assert_eq!(f.upkeep().await, Upkept::default());
    f.enqueue(with(|o| o.delay = seconds(1_000))).await;
    let first = f.enqueue(with(|o| o.delay = seconds(100))).await;
    let due = f.upkeep().await.due_in.unwrap();
    assert!(due <= seconds(100) && due > seconds(90), "{due:?}");
    f.store().cancel(first).await.unwrap();
    let due = f.upkeep().await.due_in.unwrap();
    assert!(due <= seconds(1_000) && due > seconds(990), "{due:?}");
}

pub(crate) async fn jobs_that_were_never_started_expire(f: &Fixture) {
    let expiring = |span| with(|o| o.expire = Some(seconds(span)));
    let first = f.enqueue(expiring(10)).await;
    let blocked = {
        let mut request = expiring(10);
        request.options.parents = vec![f.enqueue(expiring(1_000)).await];
        f.enqueue(request).await
    };
    let delayed = f.enqueue(with(|o| (o.expire, o.delay) = (Some(seconds(10)), seconds(5)))).await;
    let cancelled = f.cancelled(expiring(10)).await;
    let retried = f.enqueue(expiring(10)).await;
    f.store().retry(retried, &RetryOptions::default()).await.unwrap();
    let last = [f.view(first).await, f.view(blocked).await];
    f.pass(seconds(5)).await;
    assert_eq!(f.upkeep().await.expired, 0);
    f.pass(seconds(15)).await;
    f.entries().await;
    assert_eq!(f.upkeep().await.expired, 3);
    let gone = [first, blocked, delayed];
    let entries = f.wrote_by_job(&gone.map(|id| (id, "task.expired"))).await;
    for (view, entry) in last.iter().zip(&entries) {
        let (before, told) = (view.job().unwrap(), entry.job());
        assert_eq!((told.id, told.state, told.attempt), (before.id, State::Inactive, 0));
    }
    for id in gone {
        assert!(f.is_gone(id).await);
    }
    assert!(!f.is_gone(cancelled).await && !f.is_gone(retried).await);
}

pub(crate) async fn old_finished_jobs_are_removed(f: &Fixture) {
    let old = f.finished(plain()).await;
    f.pass(seconds(50)).await;
    let young = f.finished(plain()).await;
    f.pass(seconds(60)).await;
    f.entries().await;
    assert_eq!(f.store().upkeep(&keeping(200)).await.unwrap().removed, 0);
    assert_eq!(f.upkeep().await.removed, 0, "without a limit they are kept");
    let last = f.view(old).await;
    assert_eq!(f.store().upkeep(&keeping(100)).await.unwrap().removed, 1);
    let entries = f.wrote(&[(old, "task.removed")]).await;
    assert_eq!(entries[0].data, last.snapshot.get());
    assert!(f.is_gone(old).await && !f.is_gone(young).await);
}

pub(crate) async fn a_finished_parent_of_a_living_job_is_kept(f: &Fixture) {
    let parents = [f.finished(plain()).await, f.finished(plain()).await, f.finished(plain()).await];
    let ended = f.finished(after(&[parents[0]])).await;
    let running = f.running(after(&[parents[1], ended])).await;
    let waiting = f.enqueue(after(&[parents[2], running.id])).await;
    f.pass(seconds(200)).await;
    assert_eq!(f.store().upkeep(&keeping(100)).await.unwrap().removed, 1);
    assert!(f.is_gone(parents[0]).await, "its child has ended");
    assert!(!f.is_gone(ended).await && !f.is_gone(parents[1]).await && !f.is_gone(parents[2]).await);
    f.accepted(finish(&running, "1")).await;
    f.store().cancel(waiting).await.unwrap();
    assert_eq!(f.store().upkeep(&keeping(100)).await.unwrap().removed, 3);
}

pub(crate) async fn failed_and_cancelled_jobs_are_kept(f: &Fixture) {
    f.failed(plain()).await;
    f.cancelled(plain()).await;
    f.pass(seconds(1_000_000)).await;
    f.entries().await;
    assert_eq!(f.store().upkeep(&keeping(1)).await.unwrap().removed, 0);
    f.wrote(&[]).await;
}

pub(crate) async fn a_round_has_a_bound(f: &Fixture) {
    let finished = vec![plain(); 5];
    f.store().enqueue(&finished).await.unwrap();
    let jobs = f.claim(5).await;
    f.hand_in(&jobs.iter().map(|job| finish(job, "1")).collect::<Vec<_>>()).await;
    f.store().enqueue(&vec![with(|o| o.attempts = 2); 5]).await.unwrap();
    f.claim(5).await;
    f.store().enqueue(&vec![with(|o| o.delay = seconds(10)); 5]).await.unwrap();
    f.store()
        .enqueue(&vec![with(|o| (o.delay, o.expire) = (seconds(9_000), Some(seconds(10)))); 5])
        .await
        .unwrap();
    f.pass(LEASE * 2).await;
    let small = UpkeepRules { batch: 3, ..keeping(10) };
    for expected in [3, 2, 0] {
        let did = f.store().upkeep(&small).await.unwrap();
        assert_eq!([did.staged, did.rescued, did.expired, did.removed], [expected; 4]);
    }
}

pub(crate) async fn workers_without_heartbeat_are_forgotten(f: &Fixture) {
    let lost = f.store().register_worker(&WorkerInfo::new("rack3", 1)).await.unwrap();
    f.pass(seconds(2_000)).await;
    let there = f.store().register_worker(&WorkerInfo::new("rack3", 2)).await.unwrap();
    let rules = UpkeepRules { worker_missing: seconds(1_000), ..upkeep_rules() };
    f.store().upkeep(&rules).await.unwrap();
    // a forgotten worker's heartbeat does not bring it back: it is told, so that it registers anew
    let told = f.store().heartbeat(lost.id, &WorkerStatus::default()).await;
    assert!(matches!(told, Err(QueueError::Unregistered(id)) if id == lost.id), "{told:?}");
    f.store().heartbeat(there.id, &WorkerStatus::default()).await.unwrap();
    assert_eq!(f.store().stats().await.unwrap().workers, 1);
}

pub(crate) async fn two_rounds_at_once_do_each_thing_once(f: &Fixture) {
    const JOBS: usize = 120;
    let stores = [f.shared(), f.second().await];
    f.store().enqueue(&vec![with(|o| o.attempts = 2); JOBS]).await.unwrap();
    f.claim(JOBS as u32).await;
    f.store().enqueue(&vec![with(|o| o.delay = seconds(10)); JOBS]).await.unwrap();
    f.pass(LEASE).await;
    f.entries().await;
    let rounds: Vec<_> = (0..6)
        .map(|i| {
            let store = stores[i % 2].clone();
            tokio::spawn(async move { store.upkeep(&upkeep_rules()).await.unwrap() })
        })
        .collect();
    let (mut rescued, mut staged) = (0, 0);
    for round in rounds {
        let did = round.await.unwrap();
        (rescued, staged) = (rescued + did.rescued, staged + did.staged);
    }
    assert_eq!((rescued, staged), (JOBS as u64, JOBS as u64));
    let entries = f.entries().await;
    assert_eq!(entries.len(), JOBS);
    assert!(entries.iter().all(|e| e.kind == "task.lost"));
    assert_eq!(f.claim(1_000).await.len(), 2 * JOBS);
}
