//! A key is one living job of a task.

use crate::store::fixture::*;
use minium_protocol::{EnqueueRequest, State, Unique};
use minium_queue::{Enqueued, Pull, QueueError, RetryOptions};

async fn enqueue_again(f: &Fixture) -> Enqueued {
    f.store().enqueue(&[keyed("k")]).await.unwrap()[0]
}

pub(crate) async fn a_living_key_answers_with_its_job(f: &Fixture) {
    let id = f.enqueue(keyed("k")).await;
    let mut other = keyed("k");
    other.args = json("[2]");
    assert_eq!(f.store().enqueue(&[other]).await.unwrap(), [Enqueued { id, existing: true }]);
    assert_eq!(f.job(id).await.args.get(), "[]", "the job that is there is left alone");
    f.wrote(&[(id, "task.enqueue")]).await;
    assert_eq!(f.store().stats().await.unwrap().inactive, 1);
}

pub(crate) async fn twice_in_one_call_is_one_job(f: &Fixture) {
    let enqueued = f.store().enqueue(&[keyed("k"), plain(), keyed("k"), keyed("l")]).await.unwrap();
    let existing: Vec<_> = enqueued.iter().map(|e| e.existing).collect();
    assert_eq!(existing, [false, false, true, false]);
    assert_eq!(enqueued[0].id, enqueued[2].id);
    assert_eq!(f.entries().await.len(), 3);
}

pub(crate) async fn a_key_belongs_to_its_task(f: &Fixture) {
    f.enqueue(keyed("k")).await;
    let mut other = EnqueueRequest::new("u", json("[]"));
    other.options.key = Some("k".into());
    f.enqueue(other).await;
}

pub(crate) async fn a_key_is_held_while_the_job_lives(f: &Fixture) {
    let mut request = keyed("k");
    request.options.attempts = 3;
    request.options.backoff = Some(seconds(0));
    let id = f.enqueue(request).await;
    let held = Enqueued { id, existing: true };
    let leased = f.claim_one().await;
    assert_eq!(enqueue_again(f).await, held, "while it runs");
    f.accepted(fail(&leased, "no")).await;
    assert_eq!(enqueue_again(f).await, held, "while it waits for its retry");
    f.claim_one().await;
    f.pass(LEASE).await;
    assert_eq!(f.upkeep().await.rescued, 1);
    assert_eq!(enqueue_again(f).await, held, "after it was lost with attempts left");
}

pub(crate) async fn a_key_is_let_go_at_the_end(f: &Fixture) {
    f.finished(keyed("k")).await;
    f.failed(keyed("k")).await;
    f.cancelled(keyed("k")).await;
    let running = f.running(keyed("k")).await;
    f.store().cancel(running.id).await.unwrap();
    f.running(keyed("k")).await;
    f.pass(LEASE).await;
    assert_eq!(f.upkeep().await.rescued, 1, "lost without attempts left");
    let removed = f.enqueue(keyed("k")).await;
    f.store().remove(removed).await.unwrap();
    let mut request = keyed("k");
    request.options.expire = Some(seconds(10));
    f.enqueue(request).await;
    f.pass(seconds(20)).await;
    assert_eq!(f.upkeep().await.expired, 1);
    f.enqueue(keyed("k")).await;
}

pub(crate) async fn a_retry_takes_the_key_again(f: &Fixture) {
    let id = f.finished(keyed("k")).await;
    f.store().retry(id, &RetryOptions::default()).await.unwrap();
    assert_eq!(enqueue_again(f).await, Enqueued { id, existing: true });
}

pub(crate) async fn a_retry_conflicts_when_the_key_is_taken(f: &Fixture) {
    let old = f.failed(keyed("k")).await;
    let new = f.enqueue(keyed("k")).await;
    f.entries().await;
    // whatever else is wrong with what is asked, the key is looked at first
    for attempts in [None, Some(1)] {
        match f.store().retry(old, &RetryOptions { attempts, ..RetryOptions::default() }).await {
            Err(QueueError::Conflict { job, state: State::Failed, reason }) => {
                assert_eq!(job, old);
                assert!(reason.contains("key"), "{reason}");
            }
            other => panic!("{other:?}"),
        }
    }
    f.wrote(&[]).await;
    // the holder itself may be retried, and a removed old one does not take the key along
    f.store().retry(new, &RetryOptions::default()).await.unwrap();
    f.store().remove(old).await.unwrap();
    assert_eq!(enqueue_again(f).await, Enqueued { id: new, existing: true });
}

pub(crate) async fn one_key_is_one_job_however_many_enqueue(f: &Fixture) {
    let stores = [f.shared(), f.second().await];
    for round in 0..10 {
        let key = format!("k{round}");
        let callers: Vec<_> = (0..8)
            .map(|i| {
                let (store, request) = (stores[i % 2].clone(), keyed(&key));
                tokio::spawn(async move { store.enqueue(&[request]).await.unwrap()[0] })
            })
            .collect();
        let mut answers = Vec::new();
        for caller in callers {
            answers.push(caller.await.unwrap());
        }
        assert_eq!(answers.iter().filter(|a| !a.existing).count(), 1, "{answers:?}");
        assert!(answers.iter().all(|a| a.id == answers[0].id), "{answers:?}");
    }
    assert_eq!(f.entries().await.len(), 10, "one event for each job that was made");
}

fn unique(key: &str, unique: Unique) -> EnqueueRequest {
    with(|o| (o.key, o.unique) = (Some(key.into()), unique))
}

pub(crate) async fn a_key_may_be_unique_while_its_job_waits_only(f: &Fixture) {
    let request = || unique("k", Unique::Waiting);
    let id = f.enqueue(request()).await;
    assert_eq!(f.store().enqueue(&[request()]).await.unwrap(), [Enqueued { id, existing: true }]);
    f.claim_one().await;
    let second = f.enqueue(request()).await;
    assert_eq!(
        f.store().enqueue(&[request()]).await.unwrap(),
        [Enqueued { id: second, existing: true }],
        "the one that waits now holds it"
    );
}

pub(crate) async fn a_pulled_job_lets_go_of_a_key_that_is_held_while_waiting(f: &Fixture) {
    f.enqueue(unique("k", Unique::Waiting)).await;
    let pull =
        Pull { queue: "default".into(), tasks: vec!["t".into()], lease: LEASE, workers: vec![worker()] };
    assert_eq!(f.store().pull(&[pull]).await.unwrap().len(), 1);
    f.enqueue(unique("k", Unique::Waiting)).await;
}

pub(crate) async fn a_key_may_be_unique_for_a_time_whatever_becomes_of_its_job(f: &Fixture) {
    let request = || unique("k", Unique::For(seconds(300)));
    let id = f.finished(request()).await;
    let held = [Enqueued { id, existing: true }];
    assert_eq!(f.store().enqueue(&[request()]).await.unwrap(), held, "finished, but not so long ago");
    f.pass(seconds(299)).await;
    f.upkeep().await;
    assert_eq!(f.store().enqueue(&[request()]).await.unwrap(), held);
    f.pass(seconds(1)).await;
    let second = f.enqueue(request()).await;
    f.pass(seconds(1_000)).await;
    f.upkeep().await;
    let held = [Enqueued { id: second, existing: true }];
    assert_eq!(f.store().enqueue(&[request()]).await.unwrap(), held, "longer while the job lives");
}

pub(crate) async fn a_key_for_a_time_outlives_its_job_and_goes_in_the_end(f: &Fixture) {
    let request = || unique("k", Unique::For(seconds(300)));
    let id = f.finished(request()).await;
    f.store().remove(id).await.unwrap();
    assert_eq!(f.store().enqueue(&[request()]).await.unwrap(), [Enqueued { id, existing: true }]);
    f.pass(seconds(300)).await;
    f.upkeep().await;
    f.enqueue(request()).await;
}

pub(crate) async fn a_retry_keeps_a_key_that_is_held_for_a_time(f: &Fixture) {
    let request = || unique("k", Unique::For(seconds(300)));
    let id = f.failed(request()).await;
    f.store().retry(id, &RetryOptions::default()).await.unwrap();
    f.pass(seconds(400)).await;
    assert_eq!(f.store().enqueue(&[request()]).await.unwrap(), [Enqueued { id, existing: true }]);
}

pub(crate) async fn a_retry_takes_a_key_whose_time_is_over(f: &Fixture) {
    let first = f.failed(keyed("k")).await;
    f.failed(unique("k", Unique::For(seconds(300)))).await;
    let refused = f.store().retry(first, &RetryOptions::default()).await.unwrap_err();
    assert!(matches!(refused, QueueError::Conflict { .. }), "{refused:?}");
    f.pass(seconds(300)).await;
    f.store().retry(first, &RetryOptions::default()).await.unwrap();
    assert_eq!(enqueue_again(f).await, Enqueued { id: first, existing: true });
}
