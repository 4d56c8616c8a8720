//! Row 2: who gets which job, and when.

use crate::store::fixture::*;
use crate::support::wait;
use minium_protocol::{EnqueueRequest, State};
use minium_queue::{Claim, RetryOptions, Verdict, rules};
use std::collections::HashSet;
use std::time::Duration;

fn task(name: &str) -> EnqueueRequest {
    EnqueueRequest::new(name, json("[]"))
}

pub(crate) async fn a_claim_starts_the_job(f: &Fixture) {
    let mut request = EnqueueRequest::new("import/csv", json(r#"["x"]"#));
    request.options = with(|o| {
        o.attempts = 3;
        o.timeout = Some(Duration::from_millis(1_500));
        o.queue = "q".into();
    })
    .options;
    let id = f.enqueue(request).await;
    let asked = Claim { queues: vec!["q".into()], ..claim(5) };
    let leased = f.exchange(&[], asked).await.jobs.remove(0);
    assert_eq!((leased.id, leased.task.as_str(), leased.queue.as_str()), (id, "import/csv", "q"));
    assert_eq!((leased.attempt, leased.attempts, leased.args.get()), (1, 3, r#"["x"]"#));
    assert_eq!((leased.timeout, leased.trace), (Some(Duration::from_millis(1_500)), None));
    let job = f.job(id).await;
    assert_eq!((job.state, job.attempt, job.worker), (State::Active, 1, Some(worker())));
    let started = job.started.unwrap();
    assert!(started >= job.created);
    assert_eq!(leased.lease_expires.duration_since(started).as_secs(), LEASE.as_secs() as i64);
    assert_eq!(f.phase(id).await, None);
    f.wrote(&[(id, "task.enqueue"), (id, "task.dequeue")]).await;
}

pub(crate) async fn the_order_is_priority_then_who_became_ready_first(f: &Fixture) {
    let priority = |p| with(|o| o.priority = p);
    let low = f.enqueue(priority(-5)).await;
    let first = f.enqueue(plain()).await;
    let blocked = f.enqueue(after(&[first])).await;
    let second = f.enqueue(plain()).await;
    let high = f.enqueue(priority(10)).await;
    let claimed = f.claim(2).await;
    assert_eq!(ids(&claimed), [high, first]);
    f.entries().await;
    // the child becomes ready only now, behind the second, though its id is lower
    f.accepted(finish(&claimed[1], "1")).await;
    assert_eq!(ids(&f.claim(10).await), [second, blocked, low]);
    let told = [
        (first, "task.finished"),
        (second, "task.dequeue"),
        (blocked, "task.dequeue"),
        (low, "task.dequeue"),
    ];
    f.wrote_by_job(&told).await;
}

/// Far behind what others have waiting, single tasks are found, in order, and several by who has waited longest; a higher
/// priority still goes first, and none is passed over by a worker that always gets all it asks for.
pub(crate) async fn tasks_are_found_far_behind_those_of_others(f: &Fixture) {
    let of = |name: &str, priority: i32| {
        let mut request = with(|o| o.priority = priority);
        request.task = name.into();
        request
    };
    let urgent_others = vec![of("other", 5); 1_200];
    let others = vec![of("other", 0); 1_200];
    f.store().enqueue(&urgent_others).await.unwrap();
    f.store().enqueue(&others).await.unwrap();
    let mut wanted = Vec::new();
    for round in 0..6 {
        for name in ["a", "b"] {
            let id = f.enqueue(of(name, 0)).await;
            wanted.push((name, id));
        }
        if round == 2 {
            f.store().enqueue(&others).await.unwrap();
        }
    }
    let urgent = f.enqueue(of("b", 5)).await;
    let asked = |names: &[&str], limit| Claim {
        tasks: Some(names.iter().map(|n| (*n).to_owned()).collect()),
        ..claim(limit)
    };
    let first = f.exchange(&[], asked(&["b", "a", "none"], 2)).await.jobs;
    assert_eq!(ids(&first), [urgent, wanted[0].1], "the urgent one, then the one that has waited longest");

    let alone = f.exchange(&[], asked(&["b"], 2)).await.jobs;
    assert_eq!(ids(&alone), [wanted[1].1, wanted[3].1], "one task in its order");
    let mut rest: HashSet<i64> = wanted.iter().map(|w| w.1).collect();
    for id in [wanted[0].1, wanted[1].1, wanted[3].1] {
        rest.remove(&id);
    }
    for _ in 0..4 {
        for job in f.exchange(&[], asked(&["b", "a"], 3)).await.jobs {
            assert!(rest.remove(&job.id), "{} was claimed twice, or never enqueued", job.id);
        }
    }
    assert_eq!(rest, HashSet::new(), "three at a time, all are found");
    assert_eq!(f.exchange(&[], asked(&["a", "b"], 3)).await.jobs.len(), 0);
    assert_eq!(f.exchange(&[], asked(&["other"], 5)).await.jobs.len(), 5);
}

pub(crate) async fn a_retried_job_queues_up_anew(f: &Fixture) {
    let old = f.running(with(|o| (o.attempts, o.backoff) = (2, Some(seconds(0))))).await;
    let by_hand = f.enqueue(plain()).await;
    let third = f.enqueue(plain()).await;
    f.accepted(fail(&old, "no")).await;
    f.store().retry(by_hand, &RetryOptions::default()).await.unwrap();
    // one by one, so that the database must know the order
    for id in [third, old.id, by_hand] {
        assert_eq!(ids(&f.claim(1).await), [id]);
    }
}

pub(crate) async fn a_claim_takes_no_more_than_asked(f: &Fixture) {
    let all: Vec<_> = f.store().enqueue(&vec![plain(); 7]).await.unwrap().iter().map(|e| e.id).collect();
    assert_eq!(ids(&f.claim(3).await), all[..3]);
    let rest = f.claim(100).await;
    assert_eq!(ids(&rest), all[3..]);
    let leases: HashSet<_> = rest.iter().map(|job| job.lease).collect();
    assert_eq!(leases.len(), rest.len(), "each job has a lease of its own");
    f.nothing_to_claim().await;
}

pub(crate) async fn a_claim_of_nothing_takes_nothing(f: &Fixture) {
    let id = f.enqueue(plain()).await;
    let none = Claim { queues: vec![], ..claim(5) };
    assert!(f.exchange(&[], none).await.jobs.is_empty());
    let none = Claim { tasks: Some(vec![]), ..claim(5) };
    assert!(f.exchange(&[], none).await.jobs.is_empty());
    assert!(f.claim(0).await.is_empty());
    f.wrote(&[(id, "task.enqueue")]).await;
}

pub(crate) async fn several_queues_are_one_pool(f: &Fixture) {
    let queue = |q: &str, p| with(|o| (o.queue, o.priority) = (q.into(), p));
    let mut low = vec![f.enqueue(queue("b", 0)).await, f.enqueue(queue("a", 0)).await];
    let high = [f.enqueue(queue("b", 5)).await, f.enqueue(queue("a", 5)).await];
    f.enqueue(queue("c", 9)).await;
    let asked = |limit| Claim { queues: vec!["a".into(), "b".into(), "a".into()], ..claim(limit) };
    let first = ids(&f.exchange(&[], asked(3)).await.jobs);
    assert_eq!(first[..2], high, "priority before queue");
    // of equal priority, which queue comes first is not promised
    low.retain(|id| *id != first[2]);
    assert_eq!(low.len(), 1);
    assert_eq!(ids(&f.exchange(&[], asked(3)).await.jobs), low);
}

pub(crate) async fn only_the_tasks_asked_for_are_claimed(f: &Fixture) {
    let a = f.enqueue(task("a")).await;
    f.enqueue(task("b")).await;
    let c = f.enqueue(task("c")).await;
    f.enqueue(task("a/b")).await;
    let asked = || Claim { tasks: Some(vec!["c".into(), "a".into(), "none".into()]), ..claim(10) };
    assert_eq!(ids(&f.exchange(&[], asked()).await.jobs), [a, c]);
    assert!(f.exchange(&[], asked()).await.jobs.is_empty());
}

pub(crate) async fn only_the_priorities_asked_for_are_claimed(f: &Fixture) {
    let priority = |p| with(|o| o.priority = p);
    let low = f.enqueue(priority(-1)).await;
    let mid = f.enqueue(priority(0)).await;
    let high = f.enqueue(priority(1)).await;
    let asked = |least| Claim { min_priority: Some(least), ..claim(10) };
    assert_eq!(ids(&f.exchange(&[], asked(1)).await.jobs), [high]);
    assert_eq!(ids(&f.exchange(&[], asked(-1)).await.jobs), [mid, low]);
}

pub(crate) async fn a_delayed_job_is_claimed_after_it_was_staged(f: &Fixture) {
    let id = f.enqueue(with(|o| o.delay = seconds(100))).await;
    f.pass(seconds(200)).await;
    assert_eq!(f.upkeep().await.staged, 1);
    assert_eq!(f.claim_one().await.id, id);
    f.wrote(&[(id, "task.enqueue"), (id, "task.dequeue")]).await;
}

pub(crate) async fn staged_jobs_queue_up_by_their_time(f: &Fixture) {
    let late = f.enqueue(with(|o| o.delay = seconds(100))).await;
    let early = f.enqueue(with(|o| o.delay = seconds(50))).await;
    let now = f.enqueue(plain()).await;
    f.pass(seconds(200)).await;
    f.upkeep().await;
    assert_eq!(ids(&f.claim(10).await), [now, early, late]);
}

pub(crate) async fn an_expired_job_is_not_claimed(f: &Fixture) {
    f.enqueue(with(|o| o.expire = Some(seconds(10)))).await;
    let other = f.enqueue(plain()).await;
    f.pass(seconds(20)).await;
    assert_eq!(ids(&f.claim(10).await), [other]);
}

pub(crate) async fn a_job_that_was_started_does_not_expire(f: &Fixture) {
    let request = with(|o| (o.expire, o.attempts, o.backoff) = (Some(seconds(10)), 2, Some(seconds(0))));
    let leased = f.running(request).await;
    f.accepted(fail(&leased, "no")).await;
    f.pass(seconds(20)).await;
    assert_eq!(f.upkeep().await.expired, 0);
    let again = f.claim_one().await;
    assert_eq!((again.id, again.attempt), (leased.id, 2));
}

pub(crate) async fn two_claimers_never_share_a_job(f: &Fixture) {
    const JOBS: usize = 600;
    let stores = [f.shared(), f.second().await];
    f.store().enqueue(&vec![plain(); JOBS]).await.unwrap();
    let claimers: Vec<_> = (0..8)
        .map(|i| {
            let store = stores[i % 2].clone();
            tokio::spawn(async move {
                let (mut mine, mut outcomes) = (Vec::new(), Vec::new());
                let deadline = tokio::time::Instant::now() + wait::DEADLINE;
                // two empty answers may come from a race; done is when all have ended
                while store.stats().await.unwrap().finished < JOBS as i64 {
                    assert!(tokio::time::Instant::now() < deadline, "all jobs end");
                    let got = store.exchange(&outcomes, &claim(7)).await.unwrap();
                    assert!(got.verdicts.iter().all(|v| *v == Verdict::Accepted));
                    outcomes = got.jobs.iter().map(|job| finish(job, "1")).collect();
                    mine.extend(ids(&got.jobs));
                }
                mine
            })
        })
        .collect();
    let mut all = Vec::new();
    for claimer in claimers {
        all.extend(claimer.await.unwrap());
    }
    all.sort_unstable();
    let unique: HashSet<_> = all.iter().collect();
    assert_eq!((unique.len(), all.len()), (JOBS, JOBS));
    let entries = f.entries().await;
    assert_eq!(entries.len(), 3 * JOBS);
    for kind in ["task.enqueue", "task.dequeue", "task.finished"] {
        assert_eq!(entries.iter().filter(|e| e.kind == kind).count(), JOBS, "{kind}");
    }
}

pub(crate) async fn what_an_outcome_made_ready_is_claimed_then_or_next(f: &Fixture) {
    let parent = f.running(plain()).await;
    let child = f.enqueue(after(&[parent.id])).await;
    let mut claimed = f.exchange(&[finish(&parent, "1")], claim(10)).await.jobs;
    if claimed.is_empty() {
        claimed = f.claim(10).await;
    }
    assert_eq!(ids(&claimed), [child]);
    let told = [(parent.id, "task.enqueue"), (parent.id, "task.dequeue"), (child, "task.enqueue")];
    f.wrote_by_job(&[&told[..], &[(parent.id, "task.finished"), (child, "task.dequeue")]].concat()).await;
}

pub(crate) async fn thousands_are_claimed_and_finished_at_once(f: &Fixture) {
    let batch = rules::CLAIM_MAX as usize;
    f.store().enqueue(&vec![plain(); 4 * batch]).await.unwrap();
    f.entries().await;
    let mut jobs = f.claim(u32::MAX).await;
    assert_eq!(jobs.len(), batch, "a claim has a bound");
    jobs.extend(f.claim(rules::CLAIM_MAX).await);
    jobs.extend(f.claim(rules::CLAIM_MAX).await);
    assert!(jobs.is_sorted_by_key(|job| job.id) && jobs.len() == 3 * batch);
    // more outcomes than one batch
    let outcomes: Vec<_> = jobs.iter().map(|job| finish(job, "1")).collect();
    let last = f.exchange(&outcomes, claim(rules::CLAIM_MAX)).await;
    assert_eq!(last.verdicts, vec![Verdict::Accepted; 3 * batch]);
    assert_eq!(last.jobs.len(), batch);
    assert_eq!(f.entries().await.len(), 7 * batch);
    let stats = f.store().stats().await.unwrap();
    assert_eq!((stats.active, stats.finished), (batch as i64, 3 * batch as i64));
}

pub(crate) async fn whatever_makes_jobs_ready_wakes_workers(f: &Fixture) {
    let mut wakeups = f.store().wakeups();
    let mut woken = async |what: &str| {
        wait::within(what, wakeups.changed()).await.unwrap();
        wakeups.mark_unchanged();
    };
    let parent = f.enqueue(with(|o| (o.attempts, o.backoff) = (9, Some(seconds(0))))).await;
    woken("an enqueue").await;
    let child = f.enqueue(after(&[parent])).await;
    let leased = f.claim_one().await;
    f.accepted(fail(&leased, "no")).await;
    woken("an automatic retry").await;
    f.claim_one().await;
    f.pass(LEASE).await;
    f.upkeep().await;
    woken("a rescue").await;
    let leased = f.claim_one().await;
    f.accepted(finish(&leased, "1")).await;
    woken("a parent's end").await;
    f.store().cancel(child).await.unwrap();
    f.store().retry(child, &RetryOptions::default()).await.unwrap();
    woken("a retry by hand").await;
    f.enqueue(with(|o| o.delay = seconds(10))).await;
    f.pass(seconds(20)).await;
    f.upkeep().await;
    woken("a staging").await;
    f.store().put_schedule(&every("s", plain(), 10)).await.unwrap();
    f.store().fire_schedules().await.unwrap();
    woken("a schedule").await;
    assert_eq!(f.job(parent).await.state, State::Finished);
}
