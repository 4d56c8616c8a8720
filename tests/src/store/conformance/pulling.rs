//! Claims for many pullers at once, and jobs that are given back.

use crate::store::fixture::*;
use minium_protocol::{EnqueueRequest, LeaseToken, Phase, State, WorkerRef};
use minium_queue::{Pull, Pulled, Store};
use std::collections::HashSet;
use std::time::Duration;

fn puller(n: i64) -> WorkerRef {
    WorkerRef { id: 7, host: format!("image-{n}"), pid: 411 }
}

fn pull(tasks: &[&str], count: i64) -> Pull {
    Pull {
        queue: "default".into(),
        tasks: tasks.iter().map(|task| (*task).into()).collect(),
        lease: LEASE,
        workers: (0..count).map(puller).collect(),
    }
}

fn of(task: &str) -> EnqueueRequest {
    EnqueueRequest::new(task, json("[\"x\"]"))
}

async fn take(f: &Fixture, pulls: &[Pull]) -> Vec<Pulled> {
    f.store().pull(pulls).await.unwrap()
}

/// Which pull got which job, in order.
fn shares(pulled: &[Pulled]) -> Vec<(usize, i64)> {
    pulled.iter().map(|p| (p.pull, p.job.id)).collect()
}

pub(crate) async fn a_pulled_job_runs_for_its_puller(f: &Fixture) {
    let first = f.enqueue(of("import")).await;
    let second = f.enqueue(of("import")).await;
    f.entries().await;
    let pulled = take(f, &[pull(&["import"], 3)]).await;
    assert_eq!(pulled.iter().map(|p| (p.place, p.job.id)).collect::<Vec<_>>(), [(0, first), (1, second)]);
    let entries = f.wrote(&[(first, "task.dequeue"), (second, "task.dequeue")]).await;
    for (p, entry) in pulled.iter().zip(&entries) {
        assert_eq!(p.snapshot.get(), entry.data, "the snapshot is the event's");
        let job = entry.job();
        assert_eq!((job.state, job.attempt), (State::Active, 1));
        assert_eq!(job.worker, Some(puller(p.place as i64)));
        assert_eq!((p.job.task.as_str(), p.job.queue.as_str()), ("import", "default"));
        assert_eq!((p.job.args.get(), p.job.attempt, p.job.attempts), ("[\"x\"]", 1, 1));
    }
    f.accepted(finish(&pulled[0].job, "1")).await;
    let stats = f.store().stats().await.unwrap();
    assert_eq!((stats.finished, stats.active, stats.inactive), (1, 1, 0));
}

pub(crate) async fn each_pull_gets_jobs_of_its_tasks_only(f: &Fixture) {
    let a = f.enqueue(of("a")).await;
    f.enqueue(of("a/b")).await;
    let c = f.enqueue(of("c")).await;
    let d = f.enqueue(of("d")).await;
    let mut elsewhere = of("a");
    elsewhere.options.queue = "other".into();
    let other = f.enqueue(elsewhere).await;
    let from_other = Pull { queue: "other".into(), ..pull(&["a", "c"], 5) };
    let pulled =
        take(f, &[pull(&["a"], 5), from_other, pull(&["d", "none", "c", "c"], 5), pull(&[], 5)]).await;
    let mut got = shares(&pulled);
    got.sort_unstable();
    assert_eq!(got, [(0, a), (1, other), (2, c), (2, d)]);
    assert!(take(f, &[]).await.is_empty());
}

pub(crate) async fn a_pull_takes_no_more_than_it_has_workers(f: &Fixture) {
    f.store().enqueue(&vec![of("a"); 5]).await.unwrap();
    let pulled = take(f, &[pull(&["a"], 0), pull(&["a"], 2)]).await;
    assert_eq!(pulled.iter().map(|p| (p.pull, p.place)).collect::<Vec<_>>(), [(1, 0), (1, 1)]);
    assert_eq!(take(f, &[pull(&["a"], 9)]).await.len(), 3);
}

pub(crate) async fn a_higher_priority_is_pulled_first(f: &Fixture) {
    let with_priority = |task: &str, priority| {
        let mut request = of(task);
        request.options.priority = priority;
        request
    };
    let low = f.enqueue(with_priority("a", -5)).await;
    let plain = f.enqueue(of("a")).await;
    let later = f.enqueue(of("a")).await;
    let high = f.enqueue(with_priority("b", 5)).await;
    let mut order = Vec::new();
    for _ in 0..4 {
        order.extend(shares(&take(f, &[pull(&["a", "b"], 1)]).await).into_iter().map(|(_, id)| id));
    }
    assert_eq!(order, [high, plain, later, low]);
}

pub(crate) async fn pulls_that_share_a_task_never_share_a_job(f: &Fixture) {
    f.store().enqueue(&vec![of("a"); 7]).await.unwrap();
    f.store().enqueue(&vec![of("b"); 7]).await.unwrap();
    let pulls = [pull(&["a"], 3), pull(&["a", "b"], 3), pull(&["b", "a"], 3)];
    let mut seen = HashSet::new();
    while seen.len() < 14 {
        let pulled = take(f, &pulls).await;
        assert!(!pulled.is_empty(), "each round brings some");
        for p in pulled {
            assert!(seen.insert(p.job.id), "job {} was given twice", p.job.id);
            assert!(pulls[p.pull].tasks.contains(&p.job.task));
        }
    }
}

pub(crate) async fn two_processes_that_pull_never_share_a_job(f: &Fixture) {
    let ids = f.store().enqueue(&vec![of("a"); 200]).await.unwrap();
    let other = f.second().await;
    let drain = async |store: &dyn Store| {
        let mut got = Vec::new();
        loop {
            let pulled = store.pull(&[pull(&["a"], 7)]).await.unwrap();
            if pulled.is_empty() {
                return got;
            }
            got.extend(pulled.iter().map(|p| p.job.id));
        }
    };
    let (mut all, more) = tokio::join!(drain(f.store()), drain(other.as_ref()));
    all.extend(more);
    // what one of them passed over because the other held it
    all.extend(drain(f.store()).await);
    all.sort_unstable();
    assert_eq!(all, ids.iter().map(|e| e.id).collect::<Vec<_>>(), "each once");
}

pub(crate) async fn what_is_not_ready_is_not_pulled(f: &Fixture) {
    let parent = f.enqueue(of("parent")).await;
    let mut delayed = of("a");
    delayed.options.delay = LEASE;
    f.enqueue(delayed).await;
    let mut child = of("a");
    child.options.parents = vec![parent];
    f.enqueue(child).await;
    let mut late = of("a");
    late.options.expire = Some(Duration::from_secs(10));
    f.enqueue(late).await;
    f.pass(Duration::from_secs(20)).await;
    assert!(take(f, &[pull(&["a"], 5)]).await.is_empty());
}

pub(crate) async fn a_thousand_pulls_are_served_at_once(f: &Fixture) {
    let tasks: Vec<String> = (0..1_200).map(|n| format!("livesys/{n}")).collect();
    let pulls: Vec<Pull> = tasks.iter().map(|task| pull(&[task], 1)).collect();
    f.store().enqueue(&vec![of("foreign"); 300]).await.unwrap();
    assert!(take(f, &pulls).await.is_empty());
    f.store().enqueue(&tasks.iter().map(|task| of(task)).collect::<Vec<_>>()).await.unwrap();
    let pulled = take(f, &pulls).await;
    assert_eq!(pulled.len(), 1_000, "no more at once");
    assert!(pulled.iter().all(|p| pulls[p.pull].tasks == [p.job.task.clone()]));
    assert_eq!(take(f, &pulls).await.len(), 0, "the first thousand have all they wanted");
    assert_eq!(take(f, &pulls[1_000..]).await.len(), 200);
}

pub(crate) async fn a_released_job_waits_again_with_its_attempt(f: &Fixture) {
    let leased = f.running(with(|o| o.attempts = 1)).await;
    f.entries().await;
    assert_eq!(f.store().release(&[(leased.id, leased.lease)]).await.unwrap(), 1);
    f.wrote(&[(leased.id, "task.lost")]).await;
    let job = f.job(leased.id).await;
    assert_eq!((job.state, job.attempt, job.retries), (State::Inactive, 0, 0));
    assert!(job.started.is_none());
    assert_eq!(job.worker, Some(worker()), "who had it");
    assert_eq!(f.phase(leased.id).await, Some(Phase::Ready));
    let again = f.claim_one().await;
    assert_eq!((again.id, again.attempt), (leased.id, 1), "its one attempt");
    assert_ne!(again.lease, leased.lease);
    f.accepted(finish(&again, "1")).await;
    let stats = f.store().stats().await.unwrap();
    assert_eq!((stats.finished, stats.active, stats.inactive), (1, 0, 0));
}

pub(crate) async fn a_released_job_that_never_ran_may_still_expire(f: &Fixture) {
    let leased = f.running(with(|o| o.expire = Some(LEASE))).await;
    f.store().release(&[(leased.id, leased.lease)]).await.unwrap();
    f.pass(LEASE).await;
    f.nothing_to_claim().await;
    assert_eq!(f.upkeep().await.expired, 1);
    assert!(f.is_gone(leased.id).await);
}

pub(crate) async fn only_who_holds_the_lease_can_release(f: &Fixture) {
    let leased = f.running(with(|o| o.attempts = 2)).await;
    let ended = f.running(plain()).await;
    f.accepted(finish(&ended, "1")).await;
    f.entries().await;
    let strangers = [(leased.id, LeaseToken::fresh()), (ended.id, ended.lease), (ended.id + 9, leased.lease)];
    assert_eq!(f.store().release(&strangers).await.unwrap(), 0);
    assert_eq!(f.store().release(&[]).await.unwrap(), 0);
    f.wrote(&[]).await;
    assert_eq!(f.job(leased.id).await.state, State::Active);
}
