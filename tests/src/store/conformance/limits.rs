//! Limits: how many run at once, in all and of each part, and how many are started in a time.

use crate::store::fixture::*;
use minium_protocol::{EnqueueRequest, State};
use minium_queue::{Claim, Leased, Limit, Pull, QueueError, Rate};

fn limit(task: &str) -> Limit {
    Limit { task: task.into(), running: None, per_partition: None, rate: None }
}

fn running(task: &str, most: u32) -> Limit {
    Limit { running: Some(most), ..limit(task) }
}

fn of_part(part: &str) -> EnqueueRequest {
    with(|o| o.partition = Some(part.into()))
}

async fn put(f: &Fixture, limits: &[Limit]) {
    f.store().put_limits(limits).await.unwrap();
}

pub(crate) async fn no_more_run_than_the_limit_lets(f: &Fixture) {
    put(f, &[running("t", 2)]).await;
    let all: Vec<i64> = {
        let mut all = Vec::new();
        for _ in 0..5 {
            all.push(f.enqueue(plain()).await);
        }
        all
    };
    let first = f.claim(10).await;
    assert_eq!(ids(&first), all[..2]);
    f.nothing_to_claim().await;
    assert_eq!(f.store().limits().await.unwrap()[0].active, 2);
    f.accepted(finish(&first[0], "1")).await;
    let third = f.claim_one().await;
    f.accepted(fail_for_good(&first[1], "no")).await;
    let fourth = f.claim_one().await;
    assert_eq!([third.id, fourth.id], all[2..4]);
    f.store().cancel(third.id).await.unwrap();
    assert_eq!(f.claim_one().await.id, all[4], "a cancelled run gives its place back");
}

pub(crate) async fn each_event_is_written_for_jobs_under_limits(f: &Fixture) {
    put(f, &[running("t", 1)]).await;
    let id = f.enqueue(plain()).await;
    let leased = f.claim_one().await;
    f.accepted(finish(&leased, "1")).await;
    f.wrote(&[(id, "task.enqueue"), (id, "task.dequeue"), (id, "task.finished")]).await;
    let stats = f.store().stats().await.unwrap();
    assert_eq!((stats.inactive, stats.active, stats.finished), (0, 0, 1));
}

pub(crate) async fn a_lost_and_a_released_job_give_their_places_back(f: &Fixture) {
    put(f, &[running("t", 1)]).await;
    let request = || with(|o| o.attempts = 5);
    let (a, b) = (f.enqueue(request()).await, f.enqueue(request()).await);
    assert_eq!(f.claim_one().await.id, a);
    f.pass(LEASE).await;
    assert_eq!(f.upkeep().await.rescued, 1);
    let second = f.claim_one().await;
    assert_eq!(second.id, b, "the lost one queues up anew");
    assert_eq!(f.store().release(&[(second.id, second.lease)]).await.unwrap(), 1);
    assert_eq!(f.claim_one().await.id, a);
    f.nothing_to_claim().await;
}

pub(crate) async fn an_automatic_retry_gives_its_place_back(f: &Fixture) {
    put(f, &[running("t", 1)]).await;
    let (a, b) = (
        f.enqueue(with(|o| (o.attempts, o.backoff) = (2, Some(seconds(0))))).await,
        f.enqueue(plain()).await,
    );
    let first = f.claim_one().await;
    f.accepted(fail(&first, "no")).await;
    let second = f.claim_one().await;
    assert_eq!(second.id, b);
    f.accepted(finish(&second, "1")).await;
    assert_eq!(f.claim_one().await.id, a);
}

pub(crate) async fn parts_are_counted_apart_and_served_by_turns(f: &Fixture) {
    put(f, &[Limit { per_partition: Some(1), running: Some(3), ..limit("t") }]).await;
    for _ in 0..5 {
        f.enqueue(of_part("a")).await;
    }
    let b = f.enqueue(of_part("b")).await;
    let jobs = f.claim(10).await;
    assert_eq!(jobs.len(), 2, "one of each part");
    assert!(ids(&jobs).contains(&b));
    for part in ["c", "d", "e"] {
        f.enqueue(of_part(part)).await;
    }
    assert_eq!(f.claim(10).await.len(), 1, "three in all");
}

pub(crate) async fn a_part_with_a_long_backlog_does_not_keep_others_waiting(f: &Fixture) {
    put(f, &[running("t", 4)]).await;
    for _ in 0..50 {
        f.enqueue(of_part("long")).await;
    }
    let short = f.enqueue(of_part("short")).await;
    let jobs = f.claim(4).await;
    assert!(ids(&jobs).contains(&short), "{:?}", ids(&jobs));
    // one at a time, the turn goes round
    let mut done = jobs;
    let other = f.enqueue(of_part("short")).await;
    let mut seen = Vec::new();
    for _ in 0..2 {
        let leased = done.remove(0);
        f.accepted(finish(&leased, "1")).await;
        seen.push(f.claim(1).await.remove(0).id);
    }
    assert!(seen.contains(&other), "{seen:?}");
}

pub(crate) async fn so_many_are_started_in_a_time(f: &Fixture) {
    let rate = Some(Rate { count: 3, per: seconds(60) });
    put(f, &[Limit { rate, ..limit("t") }]).await;
    for _ in 0..10 {
        f.enqueue(plain()).await;
    }
    let first = f.claim(10).await;
    assert_eq!(first.len(), 3);
    f.hand_in(&first.iter().map(|job| finish(job, "1")).collect::<Vec<_>>()).await;
    f.nothing_to_claim().await;
    f.pass(seconds(20)).await;
    assert_eq!(f.claim(10).await.len(), 1);
    f.pass(seconds(600)).await;
    assert_eq!(f.claim(10).await.len(), 3, "a rest does not gather more than so many");
}

pub(crate) async fn the_nearest_limit_counts(f: &Fixture) {
    put(f, &[running("a", 1), running("a/b", 2)]).await;
    let job = |task: &str| EnqueueRequest::new(task, json("[]"));
    for task in ["a", "a/c", "a/b", "a/b/c", "a/b", "ab", "ab"] {
        f.enqueue(job(task)).await;
    }
    let mut tasks: Vec<_> = f.claim(10).await.into_iter().map(|job| job.task).collect();
    tasks.sort();
    assert_eq!(tasks, ["a", "a/b", "a/b/c", "ab", "ab"]);
}

pub(crate) async fn jobs_without_limits_are_not_kept_waiting(f: &Fixture) {
    put(f, &[running("t", 1)]).await;
    for _ in 0..100 {
        f.enqueue(plain()).await;
    }
    let free = f.enqueue(EnqueueRequest::new("u", json("[]"))).await;
    let mut jobs = ids(&f.claim(5).await);
    jobs.sort_unstable();
    assert_eq!(jobs.len(), 2);
    assert!(jobs.contains(&free));
}

pub(crate) async fn a_more_urgent_job_without_a_limit_goes_first(f: &Fixture) {
    put(f, &[running("t", 5)]).await;
    for _ in 0..5 {
        f.enqueue(plain()).await;
    }
    let mut urgent = EnqueueRequest::new("u", json("[]"));
    urgent.options.priority = 10;
    let urgent = f.enqueue(urgent).await;
    assert_eq!(ids(&f.claim(1).await), [urgent]);
    let mut limited = plain();
    limited.options.priority = 20;
    let limited = f.enqueue(limited).await;
    f.enqueue(EnqueueRequest::new("u", json("[]"))).await;
    assert_eq!(ids(&f.claim(1).await), [limited]);
}

pub(crate) async fn a_claim_of_other_tasks_or_queues_takes_none(f: &Fixture) {
    put(f, &[running("t", 5)]).await;
    let id = f.enqueue(plain()).await;
    let other = Claim { tasks: Some(vec!["u".into()]), ..claim(5) };
    assert!(f.exchange(&[], other).await.jobs.is_empty());
    let other = Claim { queues: vec!["elsewhere".into()], ..claim(5) };
    assert!(f.exchange(&[], other).await.jobs.is_empty());
    let urgent = Claim { min_priority: Some(1), ..claim(5) };
    assert!(f.exchange(&[], urgent).await.jobs.is_empty());
    assert_eq!(f.claim_one().await.id, id);
}

pub(crate) async fn pullers_are_limited_too(f: &Fixture) {
    put(f, &[running("t", 1)]).await;
    f.enqueue(plain()).await;
    f.enqueue(plain()).await;
    let pull = || Pull {
        queue: "default".into(),
        tasks: vec!["t".into()],
        lease: LEASE,
        workers: vec![worker(); 3],
    };
    let pulled = f.store().pull(&[pull()]).await.unwrap();
    assert_eq!(pulled.len(), 1);
    let snapshot: minium_protocol::Job = serde_json::from_str(pulled[0].snapshot.get()).unwrap();
    assert_eq!((snapshot.state, snapshot.attempt), (State::Active, 1));
    assert!(f.store().pull(&[pull()]).await.unwrap().is_empty());
    f.accepted(finish(&pulled[0].job, "1")).await;
    assert_eq!(f.store().pull(&[pull()]).await.unwrap().len(), 1);
}

pub(crate) async fn a_limit_that_is_gone_holds_nothing_back(f: &Fixture) {
    put(f, &[running("t", 1)]).await;
    for _ in 0..3 {
        f.enqueue(plain()).await;
    }
    assert_eq!(f.claim(5).await.len(), 1);
    put(f, &[]).await;
    assert_eq!(f.claim(5).await.len(), 2);
    assert!(f.store().limits().await.unwrap().is_empty());
}

pub(crate) async fn a_limit_of_none_lets_none_run(f: &Fixture) {
    put(f, &[running("t", 0)]).await;
    let id = f.enqueue(plain()).await;
    f.nothing_to_claim().await;
    put(f, &[running("t", 1)]).await;
    assert_eq!(f.claim_one().await.id, id);
}

pub(crate) async fn two_processes_share_a_limit(f: &Fixture) {
    put(f, &[running("t", 3)]).await;
    for _ in 0..200 {
        f.enqueue(plain()).await;
    }
    let stores = [f.shared(), f.second().await, f.second().await];
    let most =
        std::sync::Arc::new((std::sync::atomic::AtomicI64::new(0), std::sync::atomic::AtomicI64::new(0)));
    let mut tasks = tokio::task::JoinSet::new();
    for worker in 0..6 {
        let (store, most) = (stores[worker % 3].clone(), most.clone());
        tasks.spawn(async move {
            use std::sync::atomic::Ordering::SeqCst;
            let mut done = 0;
            let mut idle = 0;
            while idle < 50 {
                let jobs: Vec<Leased> = store.exchange(&[], &claim(2)).await.unwrap().jobs;
                if jobs.is_empty() {
                    idle += 1;
                    tokio::task::yield_now().await;
                    continue;
                }
                idle = 0;
                let now = most.0.fetch_add(jobs.len() as i64, SeqCst) + jobs.len() as i64;
                most.1.fetch_max(now, SeqCst);
                tokio::task::yield_now().await;
                most.0.fetch_sub(jobs.len() as i64, SeqCst);
                let outcomes: Vec<_> = jobs.iter().map(|job| finish(job, "1")).collect();
                done += store.exchange(&outcomes, &claim(0)).await.unwrap().verdicts.len();
            }
            done
        });
    }
    let done: usize = tasks.join_all().await.into_iter().sum();
    assert_eq!(done, 200);
    assert!(most.1.load(std::sync::atomic::Ordering::SeqCst) <= 3, "{most:?}");
}

pub(crate) async fn a_bad_limit_changes_nothing(f: &Fixture) {
    put(f, &[running("t", 1)]).await;
    let refused = f.store().put_limits(&[running("u", 1), limit("v")]).await.unwrap_err();
    assert!(matches!(refused, QueueError::Invalid(_)), "{refused:?}");
    let tasks: Vec<_> = f.store().limits().await.unwrap().into_iter().map(|view| view.limit.task).collect();
    assert_eq!(tasks, ["t"]);
}

pub(crate) async fn the_more_urgent_goes_first_over_all_limits(f: &Fixture) {
    put(f, &[running("a", 100), running("b", 100)]).await;
    let job = |task: &str, priority: i32| {
        let mut job = EnqueueRequest::new(task, json("[]"));
        job.options.priority = priority;
        job
    };
    for _ in 0..20 {
        f.enqueue(job("a", 0)).await;
    }
    let urgent = [f.enqueue(job("b", 9)).await, f.enqueue(job("b", 9)).await];
    let mut first = ids(&f.claim(2).await);
    first.sort_unstable();
    assert_eq!(first, urgent);
}

pub(crate) async fn a_claim_with_bounds_for_tasks_is_limited_too(f: &Fixture) {
    let capped = || Claim {
        tasks: Some(vec!["t".into(), "u".into()]),
        caps: [("u".to_owned(), 1)].into(),
        ..claim(10)
    };
    assert!(f.exchange(&[], capped()).await.jobs.is_empty(), "before there were limits");
    let other = f.second().await;
    other.put_limits(&[running("t", 2)]).await.unwrap();
    for task in ["t", "t", "t", "u", "u"] {
        other.enqueue(&[EnqueueRequest::new(task, json("[]"))]).await.unwrap();
    }
    let mut tasks: Vec<_> = f.exchange(&[], capped()).await.jobs.into_iter().map(|job| job.task).collect();
    tasks.sort();
    assert_eq!(tasks, ["t", "t", "u"]);
}

pub(crate) async fn a_part_with_room_is_found_among_many_that_are_full(f: &Fixture) {
    put(f, &[Limit { per_partition: Some(1), ..limit("t") }]).await;
    let parts: Vec<String> = (0..700).map(|n| format!("{n:04}")).collect();
    let two: Vec<_> = parts.iter().flat_map(|part| [of_part(part), of_part(part)]).collect();
    f.store().enqueue(&two).await.unwrap();
    let mut running = Vec::new();
    loop {
        let jobs = f.claim(1_000).await;
        if jobs.is_empty() && running.len() >= 700 {
            break;
        }
        running.extend(jobs);
    }
    assert_eq!(running.len(), 700, "one of each part");
    f.accepted(finish(&running[350], "1")).await;
    let mut found = Vec::new();
    for _ in 0..5 {
        found.extend(f.claim(10).await);
    }
    assert_eq!(found.len(), 1);
}

pub(crate) async fn a_claim_with_bounds_takes_the_more_urgent_first_under_limits_or_not(f: &Fixture) {
    put(f, &[running("t", 5)]).await;
    let job = |task: &str, priority: i32| {
        let mut job = EnqueueRequest::new(task, json("[]"));
        job.options.priority = priority;
        job
    };
    for _ in 0..3 {
        f.enqueue(job("u", 0)).await;
    }
    let limited = f.enqueue(job("t", 5)).await;
    let urgent = f.enqueue(job("u", 9)).await;
    let one = || Claim {
        tasks: Some(vec!["t".into(), "u".into()]),
        caps: [("v".to_owned(), 1)].into(),
        ..claim(1)
    };
    assert_eq!(ids(&f.exchange(&[], one()).await.jobs), [urgent]);
    assert_eq!(ids(&f.exchange(&[], one()).await.jobs), [limited]);
}
