//! Queues are paused and resumed; what has waited long goes first when a worker asks so.

use crate::store::fixture::*;
use minium_queue::{Claim, Pull, QueueError};

pub(crate) async fn nothing_is_claimed_from_a_paused_queue(f: &Fixture) {
    let running = f.running(plain()).await;
    assert!(f.store().pause_queue("default").await.unwrap());
    assert!(!f.store().pause_queue("default").await.unwrap(), "it was already");
    let id = f.enqueue(plain()).await;
    let other = f.enqueue(with(|o| o.queue = "other".into())).await;
    f.nothing_to_claim().await;
    let pull =
        Pull { queue: "default".into(), tasks: vec!["t".into()], lease: LEASE, workers: vec![worker()] };
    assert!(f.store().pull(std::slice::from_ref(&pull)).await.unwrap().is_empty());
    let both = Claim { queues: vec!["default".into(), "other".into()], ..claim(5) };
    assert_eq!(ids(&f.exchange(&[], both).await.jobs), [other], "other queues go on");
    f.accepted(finish(&running, "1")).await;
    assert!(f.store().resume_queue("default").await.unwrap());
    assert!(!f.store().resume_queue("default").await.unwrap());
    assert_eq!(f.claim_one().await.id, id);
}

pub(crate) async fn jobs_under_limits_wait_in_a_paused_queue_too(f: &Fixture) {
    let limit = minium_queue::Limit { task: "t".into(), running: Some(1), per_partition: None, rate: None };
    f.store().put_limits(&[limit]).await.unwrap();
    f.store().pause_queue("default").await.unwrap();
    let id = f.enqueue(plain()).await;
    f.nothing_to_claim().await;
    f.store().resume_queue("default").await.unwrap();
    assert_eq!(f.claim_one().await.id, id);
}

pub(crate) async fn a_resumed_queue_wakes_workers(f: &Fixture) {
    f.store().pause_queue("default").await.unwrap();
    f.enqueue(plain()).await;
    f.nothing_to_claim().await;
    let store = f.second().await;
    let mut wakeups = store.wakeups();
    wakeups.borrow_and_update();
    f.store().resume_queue("default").await.unwrap();
    tokio::time::timeout(seconds(20), wakeups.changed()).await.expect("woken").unwrap();
}

pub(crate) async fn queues_are_listed(f: &Fixture) {
    assert!(f.store().queues().await.unwrap().is_empty());
    f.enqueue(with(|o| o.queue = "b".into())).await;
    f.enqueue(with(|o| o.queue = "b".into())).await;
    f.enqueue(with(|o| o.queue = "a".into())).await;
    f.store().pause_queue("empty").await.unwrap();
    let queues = f.store().queues().await.unwrap();
    let seen: Vec<_> = queues.iter().map(|q| (q.name.as_str(), q.ready, q.paused.is_some())).collect();
    assert_eq!(seen, [("a", 1, false), ("b", 2, false), ("empty", 0, true)]);
    f.exchange(&[], Claim { queues: vec!["b".into()], ..claim(9) }).await;
    let queues = f.store().queues().await.unwrap();
    let seen: Vec<_> = queues.iter().map(|q| q.name.as_str()).collect();
    assert_eq!(seen, ["a", "empty"], "where nothing is ready any more there is no queue");
    let refused = f.store().pause_queue("a b").await.unwrap_err();
    assert!(matches!(refused, QueueError::Invalid(_)));
}

pub(crate) async fn what_has_waited_long_goes_first_when_asked(f: &Fixture) {
    let batch = f.enqueue(with(|o| o.priority = -10)).await;
    let old = f.enqueue(plain()).await;
    f.pass(seconds(60)).await;
    let urgent = f.enqueue(with(|o| o.priority = 10)).await;
    let aged = |span| Claim { aged: Some(seconds(span)), ..claim(1) };
    assert_eq!(ids(&f.exchange(&[], aged(61)).await.jobs), [urgent], "nothing has waited so long");
    assert_eq!(ids(&f.exchange(&[], aged(30)).await.jobs), [batch], "the longest waiting first");
    let urgent = f.enqueue(with(|o| o.priority = 10)).await;
    let mut both = ids(&f.exchange(&[], Claim { aged: Some(seconds(30)), ..claim(2) }).await.jobs);
    both.sort_unstable();
    assert_eq!(both, [old, urgent], "and then as ever");
}

pub(crate) async fn urgent_work_goes_first_unless_asked(f: &Fixture) {
    let batch = f.enqueue(with(|o| o.priority = -10)).await;
    f.pass(seconds(1_000)).await;
    let urgent = f.enqueue(with(|o| o.priority = 10)).await;
    assert_eq!(ids(&f.claim(1).await), [urgent]);
    assert_eq!(ids(&f.claim(1).await), [batch]);
}
