//! Who gets which jobs, and how many.

use super::desk::{Desk, LEASE, of, options, snapshot};
use super::on_each_store;
use crate::store::fixture::Fixture;
use crate::support::wait;
use minium_protocol::{State, WorkerRef};
use minium_queue::RetryOptions;
use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

on_each_store! {
    a_job_comes_with_its_snapshot_and_its_lease
    nobody_gets_more_than_his_credit
    pullers_of_one_task_are_served_in_turn
    two_nodes_never_give_out_one_job_twice
    only_the_tasks_and_the_queue_that_were_ordered_come
    a_job_that_becomes_ready_later_comes_then
    a_job_whose_session_is_gone_is_given_back_with_its_attempt
    who_leaves_gets_nothing_more_and_keeps_what_he_has
    a_lease_that_ends_gives_the_job_to_another
    a_node_with_pullers_is_a_worker
    arguments_that_break_their_schema_reach_no_puller
}

async fn a_job_comes_with_its_snapshot_and_its_lease(f: Fixture) {
    let desk = Desk::of(&f);
    let mut image = desk.puller("image-7", &["livesys/7"], 1);
    let id = desk.push("livesys/7", "{\"command\":\"uptime\"}").await.unwrap();
    let job = image.job().await;
    let snap = snapshot(&job);
    assert_eq!((job.id, snap.id, snap.state, snap.attempt), (id, id, State::Active, 1));
    assert_eq!(job.task.as_str(), "livesys/7");
    assert_eq!(&*job.args, b"{\"command\":\"uptime\"}");
    let worker = snap.worker.clone().unwrap();
    assert_eq!((worker.host.as_str(), worker.pid), ("image-7", std::process::id()));
    assert!(job.expires > snap.started.unwrap());
    assert_eq!(f.view(id).await.snapshot.get().as_bytes(), &*job.snapshot, "as it stands");
    desk.close().await;
}

async fn nobody_gets_more_than_his_credit(f: Fixture) {
    let desk = Desk::of(&f);
    f.store().enqueue(&vec![of("t"); 10]).await.unwrap();
    let mut modest = desk.puller("modest", &["t"], 3);
    let first = modest.jobs(3).await;
    // as many as are left: had the first one got more, this one would wait in vain
    let mut greedy = desk.puller("greedy", &["t"], 100);
    let rest = greedy.jobs(7).await;
    let ids: HashSet<i64> = first.iter().chain(&rest).map(|job| job.id).collect();
    assert_eq!(ids.len(), 10);
    assert!(modest.try_job().is_none());
    drop(greedy);
    modest.credit(2);
    let more = f.enqueue(of("t")).await;
    assert_eq!(modest.job().await.id, more);
    desk.close().await;
}

async fn pullers_of_one_task_are_served_in_turn(f: Fixture) {
    let desk = Desk::of(&f);
    let mut pullers = [desk.puller("a", &["t"], 4), desk.puller("b", &["t"], 4), desk.puller("c", &["t"], 4)];
    let mut next = 0;
    for _ in 0..6 {
        let id = f.enqueue(of("t")).await;
        assert_eq!(pullers[next].job().await.id, id);
        next = (next + 1) % 3;
    }
    desk.close().await;
}

async fn two_nodes_never_give_out_one_job_twice(f: Fixture) {
    let (one, other) = (Desk::of(&f), Desk::on(f.second().await, options()));
    let mut pullers = Vec::new();
    for n in 0..4 {
        let desk = if n % 2 == 0 { &one } else { &other };
        pullers.push(desk.puller(&format!("p{n}"), &["t"], 1_000));
    }
    let ids = f.store().enqueue(&vec![of("t"); 400]).await.unwrap();
    let mut seen = HashSet::new();
    wait::until("all jobs", async || {
        for puller in &mut pullers {
            while let Some(job) = puller.try_job() {
                assert!(seen.insert(job.id), "job {} came twice", job.id);
            }
        }
        (seen.len() == ids.len()).then_some(())
    })
    .await;
    one.close().await;
    other.close().await;
}

async fn only_the_tasks_and_the_queue_that_were_ordered_come(f: Fixture) {
    let desk = Desk::of(&f);
    let mut elsewhere = of("a");
    elsewhere.options.queue = "other".into();
    f.store().enqueue(&[of("c"), elsewhere, of("a/b")]).await.unwrap();
    let mut both = desk.puller("both", &["a", "b"], 10);
    let (a, b) = (f.enqueue(of("a")).await, f.enqueue(of("b")).await);
    let got: HashSet<i64> = both.jobs(2).await.iter().map(|job| job.id).collect();
    assert_eq!(got, HashSet::from([a, b]));
    let last = f.enqueue(of("a")).await;
    assert_eq!(both.job().await.id, last, "nothing else came before it");
    desk.close().await;
}

async fn a_job_that_becomes_ready_later_comes_then(f: Fixture) {
    let desk = Desk::of(&f);
    let mut puller = desk.puller("p", &["t"], 2);
    let mut delayed = of("t");
    delayed.options.delay = LEASE;
    let id = f.enqueue(delayed).await;
    f.pass(LEASE).await;
    assert_eq!(f.upkeep().await.staged, 1);
    let job = puller.job().await;
    assert_eq!(job.id, id);
    desk.ack(&job, "1").await.unwrap();
    f.store().retry(id, &RetryOptions::default()).await.unwrap();
    assert_eq!(puller.job().await.id, id);
    desk.close().await;
}

/// J-7
async fn a_job_whose_session_is_gone_is_given_back_with_its_attempt(f: Fixture) {
    let desk = Desk::of(&f);
    let ghost = desk.puller("ghost", &["t"], 100);
    ghost.vanish();
    let id = f.enqueue(of("t")).await;
    wait::until("the job to be given back", async || {
        (desk.calls.releases.load(Ordering::SeqCst) > 0).then_some(())
    })
    .await;
    let mut living = desk.puller("living", &["t"], 1);
    let job = living.job().await;
    assert_eq!((job.id, snapshot(&job).attempt), (id, 1), "it may have one attempt, and still has it");
    let kinds: Vec<String> = f.entries().await.into_iter().map(|e| e.kind).collect();
    assert_eq!(kinds, ["task.enqueue", "task.dequeue", "task.lost", "task.dequeue"], "on record");
    drop(ghost);
    desk.close().await;
}

async fn who_leaves_gets_nothing_more_and_keeps_what_he_has(f: Fixture) {
    let desk = Desk::of(&f);
    let mut leaving = desk.puller("leaving", &["t"], 10);
    f.enqueue(of("t")).await;
    let had = leaving.job().await;
    drop(leaving);
    let next = f.enqueue(of("t")).await;
    let mut other = desk.puller("other", &["t"], 10);
    let got = other.job().await;
    // a claim that was on its way for who has gone gives it back
    assert_eq!((got.id, snapshot(&got).attempt), (next, 1));
    assert!(desk.calls.releases.load(Ordering::SeqCst) <= 1, "no other is made for who is gone");
    assert_eq!(f.job(had.id).await.state, State::Active);
    desk.ack(&had, "\"over another session\"").await.unwrap();
    assert_eq!(f.job(had.id).await.state, State::Finished);
    desk.close().await;
}

async fn a_lease_that_ends_gives_the_job_to_another(f: Fixture) {
    let desk = Desk::of(&f);
    let mut slow = desk.puller("slow", &["t"], 1);
    let mut request = of("t");
    request.options.attempts = 2;
    let id = f.enqueue(request).await;
    let late = slow.job().await;
    let mut quick = desk.puller("quick", &["t"], 1);
    f.pass(LEASE).await;
    assert_eq!(f.upkeep().await.rescued, 1);
    let job = quick.job().await;
    assert_eq!((job.id, snapshot(&job).attempt), (id, 2));
    assert_ne!(job.lease, late.lease);
    let again = desk.ack(&late, "\"late\"").await.unwrap_err();
    assert_eq!(again.as_str(), "lease_lost");
    let last = f.entries().await.pop().unwrap();
    assert_eq!(last.kind, "task.late_result");
    assert!(last.late.unwrap().contains("\"late\""), "nobody's work vanishes without a trace");
    desk.ack(&job, "1").await.unwrap();
    assert_eq!(f.job(id).await.worker.unwrap().host, "quick");
    desk.close().await;
}

async fn a_node_with_pullers_is_a_worker(f: Fixture) {
    let quick = minium_notifier::WorkOptions { heartbeat: Duration::from_millis(5), ..options() };
    let desk = Desk::on(f.shared(), quick);
    let workers = async || f.store().stats().await.unwrap().workers;
    assert_eq!(workers().await, 0, "nobody pulls");
    let mut puller = desk.puller("p", &["t"], 2);
    f.enqueue(of("t")).await;
    let WorkerRef { id, .. } = snapshot(&puller.job().await).worker.unwrap();
    assert_eq!(workers().await, 1);
    // forgotten, it registers anew
    f.store().unregister_worker(id).await.unwrap();
    let again = wait::until("another number", async || {
        puller.credit(1);
        f.enqueue(of("t")).await;
        let worker = snapshot(&puller.job().await).worker.unwrap();
        (worker.id != id).then_some(worker.id)
    })
    .await;
    assert!(again > id);
    desk.close().await;
    assert_eq!(workers().await, 0, "it has signed off");
}

/// J-8: what was enqueued by SQL nobody has checked before.
async fn arguments_that_break_their_schema_reach_no_puller(f: Fixture) {
    let desk = Desk::of(&f);
    let enqueue = |args: &str| {
        let mut request = minium_protocol::EnqueueRequest::new("checked", crate::store::fixture::json(args));
        request.options.attempts = 3;
        request
    };
    let bad = f.enqueue(enqueue("[]")).await;
    let good = f.enqueue(enqueue("[1]")).await;
    let mut puller = desk.puller("p", &["checked"], 1);
    // its credit is for this one
    assert_eq!(puller.job().await.id, good);
    let job = wait::until("the other one to fail", async || {
        let job = f.job(bad).await;
        (job.state != State::Active).then_some(job)
    })
    .await;
    assert_eq!((job.state, job.attempt), (State::Failed, 1), "no other attempt would help");
    assert_eq!(job.error.as_deref(), Some("schema_violation: too short"));
    assert_eq!(f.job(good).await.state, State::Active);
    // and no more than it gave credit for
    f.enqueue(enqueue("[2]")).await;
    f.enqueue(enqueue("[]")).await;
    puller.credit(1);
    puller.job().await;
    assert!(puller.try_job().is_none());
    desk.close().await;
}
