//! Rows 8, 9 and 15: leases hold, are extended, run out.

use crate::store::fixture::*;
use crate::support::wait;
use jiff::Timestamp;
use minium_protocol::{LeaseToken, State};
use minium_queue::{Claim, Extension, UpkeepRules, Verdict, rules};
use std::time::Duration;

pub(crate) async fn an_extended_lease_holds_longer(f: &Fixture) {
    let leased = f.running(plain()).await;
    f.pass(LEASE / 2).await;
    let extended = f.store().extend(&[(leased.id, leased.lease)], LEASE).await.unwrap();
    let [Extension::Until(until)] = extended[..] else { panic!("{extended:?}") };
    let ahead = until.duration_since(Timestamp::now()).as_secs_f64();
    assert!(ahead > LEASE.as_secs_f64() * 0.9 && ahead <= LEASE.as_secs_f64(), "{ahead}");
    f.pass(LEASE * 3 / 4).await;
    assert_eq!(f.upkeep().await.rescued, 0, "the first lease would have ended");
    f.pass(LEASE / 2).await;
    assert_eq!(f.upkeep().await.rescued, 1);
}

pub(crate) async fn a_cancelled_job_s_lease_says_so(f: &Fixture) {
    let leased = f.running(plain()).await;
    f.store().cancel(leased.id).await.unwrap();
    let stranger = (leased.id, LeaseToken::fresh());
    let answers = f.store().extend(&[(leased.id, leased.lease), stranger], LEASE).await.unwrap();
    assert_eq!(answers, [Extension::Cancelled, Extension::Lost]);
}

pub(crate) async fn a_lost_lease_says_so(f: &Fixture) {
    let requests = vec![with(|o| o.attempts = 2); 3];
    f.store().enqueue(&requests).await.unwrap();
    let jobs = f.claim(3).await;
    f.accepted(finish(&jobs[0], "1")).await;
    f.store().extend(&[(jobs[2].id, jobs[2].lease)], LEASE * 3).await.unwrap();
    f.pass(LEASE).await;
    assert_eq!(f.upkeep().await.rescued, 1);
    let again = f.claim_one().await;
    assert_eq!(again.id, jobs[1].id);
    let asked = [
        (jobs[0].id, jobs[0].lease),
        (jobs[1].id, jobs[1].lease),
        (jobs[2].id, jobs[2].lease),
        (jobs[2].id + 1_000, jobs[2].lease),
        (again.id, again.lease),
    ];
    let answers = f.store().extend(&asked, LEASE).await.unwrap();
    let held: Vec<_> = answers.iter().map(|a| matches!(a, Extension::Until(_))).collect();
    assert_eq!(held, [false, false, true, false, true]);
    assert!(answers.iter().all(|a| *a != Extension::Cancelled));
}

pub(crate) async fn extending_writes_no_event(f: &Fixture) {
    let leased = f.running(plain()).await;
    let before = f.view(leased.id).await;
    f.entries().await;
    f.store().extend(&[(leased.id, leased.lease)], LEASE).await.unwrap();
    assert_eq!(f.store().extend(&[], LEASE).await.unwrap(), []);
    f.wrote(&[]).await;
    assert_eq!(f.view(leased.id).await.snapshot.get(), before.snapshot.get());
}

pub(crate) async fn a_lost_job_with_attempts_left_waits_again(f: &Fixture) {
    let leased = f.running(with(|o| o.attempts = 2)).await;
    let before = f.job(leased.id).await;
    f.entries().await;
    f.pass(LEASE).await;
    assert_eq!(f.upkeep().await.rescued, 1);
    f.wrote(&[(leased.id, "task.lost")]).await;
    let job = f.job(leased.id).await;
    assert_eq!((job.state, job.attempt, job.retries), (State::Inactive, 1, 0));
    assert!(job.retried.is_none() && job.finished.is_none() && job.error.is_none());
    assert_eq!(before.delayed.duration_since(job.delayed).as_secs(), LEASE.as_secs() as i64, "as it was");
    assert_eq!(job.worker, Some(worker()), "who ran it last");
    assert_eq!(f.upkeep().await.rescued, 0, "once");
}

pub(crate) async fn a_lost_job_without_attempts_left_has_failed(f: &Fixture) {
    let leased = f.running(plain()).await;
    f.entries().await;
    f.pass(LEASE).await;
    assert_eq!(f.upkeep().await.rescued, 1);
    f.wrote(&[(leased.id, "task.lost")]).await;
    let job = f.job(leased.id).await;
    assert_eq!((job.state, job.error.as_deref()), (State::Failed, Some(rules::LEASE_EXPIRED)));
    assert!(job.finished.is_some() && job.result.is_none());
    f.nothing_to_claim().await;
}

pub(crate) async fn a_lease_that_holds_is_left_alone(f: &Fixture) {
    let leased = f.running(with(|o| o.attempts = 2)).await;
    f.pass(LEASE / 2).await;
    assert_eq!(f.upkeep().await.rescued, 0);
    f.accepted(finish(&leased, "1")).await;
    f.pass(LEASE * 2).await;
    assert_eq!(f.upkeep().await.rescued, 0, "an ended job has no lease to lose");
}

pub(crate) async fn a_lost_job_is_found_behind_many_that_run_on_under_extended_leases(f: &Fixture) {
    f.store().enqueue(&[plain(), plain(), plain()]).await.unwrap();
    let held: Vec<_> = f.claim(3).await.iter().map(|job| (job.id, job.lease)).collect();
    f.pass(seconds(1)).await;
    let dead = f.running(plain()).await;
    f.store().extend(&held, LEASE * 9).await.unwrap();
    f.pass(LEASE).await;
    let small = UpkeepRules { batch: 2, ..upkeep_rules() };
    let mut rescued = 0;
    for _ in 0..3 {
        rescued += f.store().upkeep(&small).await.unwrap().rescued;
    }
    assert_eq!(rescued, 1, "the three that are older are not in its way");
    assert_eq!(f.job(dead.id).await.state, State::Failed);
    for (id, _) in held {
        assert_eq!(f.job(id).await.state, State::Active);
    }
}

pub(crate) async fn nothing_is_rescued_within_the_grace(f: &Fixture) {
    let leased = f.running(plain()).await;
    f.pass(LEASE * 2).await;
    f.entries().await;
    // whatever the database is: it has not been up for a hundred years
    let patient = UpkeepRules { grace: rules::SPAN_MAX, ..upkeep_rules() };
    assert_eq!(f.store().upkeep(&patient).await.unwrap().rescued, 0);
    f.wrote(&[]).await;
    f.accepted(finish(&leased, "1")).await;
}

pub(crate) async fn leases_have_their_grace_anew_when_nobody_has_looked_after_the_queue(f: &Fixture) {
    f.upkeep().await;
    let leased = f.running(plain()).await;
    f.pass(LEASE * 2).await;
    f.entries().await;
    // whatever lies between two rounds is an absence, and any grace ends later than it begins
    let back = UpkeepRules { absence: seconds(0), grace: Duration::from_millis(1), ..upkeep_rules() };
    assert_eq!(f.store().upkeep(&back).await.unwrap().rescued, 0);
    f.wrote(&[]).await;
    assert_eq!(f.job(leased.id).await.state, State::Active, "its worker had nobody to extend it with");
    let there = UpkeepRules { absence: seconds(1_000), ..back };
    wait::until("the grace to be over", async || {
        (f.store().upkeep(&there).await.unwrap().rescued == 1).then_some(())
    })
    .await;
}

pub(crate) async fn a_rescued_job_runs_once_again(f: &Fixture) {
    let request = with(|o| (o.attempts, o.backoff) = (2, Some(seconds(0))));
    let first = f.running(request).await;
    f.pass(LEASE).await;
    f.upkeep().await;
    let second = f.claim_one().await;
    assert_eq!((second.id, second.attempt), (first.id, 2));
    assert_ne!(second.lease, first.lease);
    f.nothing_to_claim().await;
    f.accepted(fail(&second, "no")).await;
    assert_eq!(f.job(first.id).await.state, State::Failed, "both attempts were had");
    assert_eq!(f.hand_in(&[finish(&first, "1")]).await, [Verdict::LeaseLost]);
}

/// A clock that went ahead and is put back: a lease ends when that clock says so, and no sooner.
pub(crate) async fn leases_end_by_the_database_s_clock_wherever_that_is_put(f: &Fixture) {
    let leased = f.running(with(|o| o.attempts = 2)).await;
    let hour = seconds(3_600);
    f.pass_back(hour).await;
    f.pass(hour).await;
    assert_eq!(f.upkeep().await.rescued, 0);
    f.pass_back(hour).await;
    f.pass(LEASE + seconds(1)).await;
    assert_eq!(f.upkeep().await.rescued, 0, "most of an hour is left of it");
    // what is extended counts from the clock as it then is
    let extended = f.store().extend(&[(leased.id, leased.lease)], LEASE).await.unwrap();
    assert!(matches!(extended[..], [Extension::Until(_)]), "{extended:?}");
    f.pass(LEASE + seconds(1)).await;
    assert_eq!(f.upkeep().await.rescued, 1);
}

pub(crate) async fn a_lease_of_no_length_has_ended_when_somebody_looks(f: &Fixture) {
    f.enqueue(with(|o| o.attempts = 2)).await;
    let asked = Claim { lease: seconds(0), ..claim(1) };
    let leased = f.exchange(&[], asked).await.jobs.remove(0);
    // a lease of no length has ended when it begins; the job is lost as soon as somebody looks
    assert_eq!(f.upkeep().await.rescued, 1);
    assert_eq!(f.store().extend(&[(leased.id, leased.lease)], LEASE).await.unwrap(), [Extension::Lost]);
}
