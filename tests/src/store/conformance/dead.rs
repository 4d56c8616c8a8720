//! What ended badly: why each run failed, the dead in a list of their own, the hours, and how long everything is kept.

use crate::store::fixture::*;
use minium_protocol::State;
use minium_queue::{Ending, JobFilter, Keep, Outcome, Pause, RetryOptions, UpkeepRules};

fn ended(leased: &minium_queue::Leased, pause: Pause) -> Outcome {
    let ending =
        Ending::Failed { error: "no".into(), retry: true, pause, backtrace: Some("at line 3\0".into()) };
    Outcome { job: leased.id, lease: leased.lease, ending }
}

pub(crate) async fn why_each_run_failed_is_kept(f: &Fixture) {
    let id = f.enqueue(with(|o| (o.attempts, o.backoff) = (3, Some(seconds(0))))).await;
    let first = f.claim_one().await;
    f.accepted(fail(&first, "first")).await;
    f.claim_one().await;
    f.pass(LEASE).await;
    assert_eq!(f.upkeep().await.rescued, 1);
    let third = f.claim_one().await;
    f.accepted(ended(&third, Pause::Usual)).await;
    let failures = f.store().failures(id).await.unwrap();
    let seen: Vec<_> = failures.iter().map(|x| (x.attempt, x.error.as_str())).collect();
    assert_eq!(seen, [(1, "first"), (2, "lease expired: the worker was not heard of in time"), (3, "no")]);
    assert_eq!(failures[0].worker, Some(worker()));
    assert_eq!(failures[2].backtrace.as_deref(), Some("at line 3\u{fffd}"));
    assert!(failures[0].at < failures[2].at);
    assert!(f.store().failures(1_000_000).await.unwrap().is_empty());
    f.store().remove(id).await.unwrap();
    assert!(f.store().failures(id).await.unwrap().is_empty(), "gone with the job");
}

pub(crate) async fn the_pause_is_the_run_s_the_job_s_the_task_s(f: &Fixture) {
    let delayed = async |request: minium_protocol::EnqueueRequest, pause: Pause| {
        let leased = f.running(request).await;
        f.accepted(ended(&leased, pause)).await;
        let job = f.job(leased.id).await;
        assert_eq!(job.state, State::Inactive);
        f.store().cancel(leased.id).await.unwrap();
        (job.delayed.duration_since(job.retried.unwrap())).as_secs()
    };
    let own = || with(|o| (o.attempts, o.backoff) = (9, Some(seconds(50))));
    let without = || with(|o| o.attempts = 9);
    assert_eq!(delayed(own(), Pause::Usual).await, 50);
    assert_eq!(delayed(own(), Pause::Task(seconds(70))).await, 50);
    assert_eq!(delayed(own(), Pause::Run(seconds(90))).await, 90);
    assert_eq!(delayed(without(), Pause::Task(seconds(70))).await, 70);
    assert_eq!(delayed(without(), Pause::Run(seconds(90))).await, 90);
    assert_eq!(delayed(without(), Pause::Run(seconds(100 * 86_400))).await, 30 * 86_400, "at most 30 days");
    let usual = delayed(without(), Pause::Usual).await;
    assert!((13..=17).contains(&usual), "{usual}");
}

pub(crate) async fn the_dead_are_listed_by_themselves(f: &Fixture) {
    let mut dead = Vec::new();
    for _ in 0..3 {
        f.finished(plain()).await;
        dead.push(f.failed(plain()).await);
    }
    let filter =
        |limit, before| JobFilter { states: vec![State::Failed], limit, before, ..JobFilter::default() };
    let listed = async |filter: &JobFilter| {
        let page = f.store().list(filter).await.unwrap();
        let id = |job: &serde_json::value::RawValue| {
            serde_json::from_str::<minium_protocol::Job>(job.get()).unwrap().id
        };
        (page.jobs.iter().map(|job| id(job)).collect::<Vec<_>>(), page.next)
    };
    assert_eq!(listed(&filter(2, None)).await, (vec![dead[2], dead[1]], Some(dead[1])));
    assert_eq!(listed(&filter(2, Some(dead[1]))).await, (vec![dead[0]], None));
    f.store().retry(dead[1], &RetryOptions::default()).await.unwrap();
    f.store().remove(dead[2]).await.unwrap();
    assert_eq!(listed(&filter(9, None)).await.0, [dead[0]]);
    let again = f.claim_one().await;
    f.accepted(fail_for_good(&again, "no")).await;
    assert_eq!(listed(&filter(9, None)).await.0, [dead[1], dead[0]]);
    let lost = f.running(plain()).await;
    f.pass(LEASE).await;
    f.upkeep().await;
    assert_eq!(listed(&filter(9, None)).await.0, [lost.id, dead[1], dead[0]]);
}

pub(crate) async fn hours_tell_what_the_last_day_brought(f: &Fixture) {
    f.finished(plain()).await;
    f.pass(seconds(2 * 3_600)).await;
    f.finished(plain()).await;
    f.finished(plain()).await;
    f.failed(plain()).await;
    let retried = f.running(with(|o| (o.attempts, o.backoff) = (2, Some(seconds(0))))).await;
    f.accepted(fail(&retried, "no")).await;
    let again = f.claim_one().await;
    f.accepted(finish(&again, "1")).await;
    f.cancelled(plain()).await;
    let sums = async || {
        let hours = f.store().hours().await.unwrap();
        assert_eq!(hours.len(), 24);
        assert!(hours.windows(2).all(|two| two[1].hour.duration_since(two[0].hour).as_secs() == 3_600));
        let sum = |of: &[minium_queue::Hour]| {
            let total = |each: fn(&minium_queue::Hour) -> i64| of.iter().map(each).sum::<i64>();
            (total(|h| h.finished), total(|h| h.failed), total(|h| h.cancelled))
        };
        // the last hour may have begun within this test
        (sum(&hours[..22]), sum(&hours[22..]))
    };
    let expected = ((1, 0, 0), (3, 2, 1));
    assert_eq!(sums().await, expected);
    for _ in 0..3 {
        f.upkeep().await;
        assert_eq!(sums().await, expected, "added up or not");
    }
}

pub(crate) async fn each_state_and_queue_is_kept_as_long_as_is_said(f: &Fixture) {
    let mut keep = keep(Some(seconds(100)));
    keep.usual.failed = Some(seconds(200));
    let audit = Keep { finished: None, failed: None, cancelled: Some(seconds(100)) };
    keep.queues.insert("audit".into(), audit);
    let rules = UpkeepRules { keep, ..upkeep_rules() };
    let in_queue = async |queue: &str, how: &str| {
        let id = f.enqueue(with(|o| o.queue = queue.into())).await;
        if how == "cancelled" {
            f.store().cancel(id).await.unwrap();
            return id;
        }
        let claim = minium_queue::Claim { queues: vec![queue.into()], ..claim(1) };
        let leased = f.exchange(&[], claim).await.jobs.remove(0);
        let outcome = if how == "finished" { finish(&leased, "1") } else { fail_for_good(&leased, "no") };
        f.accepted(outcome).await;
        id
    };
    let mut jobs = Vec::new();
    for queue in ["default", "audit"] {
        for how in ["finished", "failed", "cancelled"] {
            jobs.push((queue, how, in_queue(queue, how).await));
        }
    }
    let left = async || {
        let mut left = Vec::new();
        for (queue, how, id) in &jobs {
            if !f.is_gone(*id).await {
                left.push((*queue, *how));
            }
        }
        left
    };
    f.pass(seconds(99)).await;
    f.store().upkeep(&rules).await.unwrap();
    assert_eq!(left().await.len(), 6);
    f.pass(seconds(1)).await;
    f.store().upkeep(&rules).await.unwrap();
    assert_eq!(
        left().await,
        [("default", "failed"), ("default", "cancelled"), ("audit", "finished"), ("audit", "failed")]
    );
    f.pass(seconds(100)).await;
    f.store().upkeep(&rules).await.unwrap();
    f.store().upkeep(&rules).await.unwrap();
    assert_eq!(left().await, [("default", "cancelled"), ("audit", "finished"), ("audit", "failed")]);
}

pub(crate) async fn figures_tell_how_many_were_enqueued(f: &Fixture) {
    assert_eq!(f.store().stats().await.unwrap().enqueued, 0);
    f.finished(plain()).await;
    let id = f.enqueue(plain()).await;
    f.store().remove(id).await.unwrap();
    assert_eq!(f.store().stats().await.unwrap().enqueued, 2);
}
