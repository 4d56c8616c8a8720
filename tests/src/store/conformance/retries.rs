//! Retries by hand that change for whom a job waits, and until when.

use crate::store::fixture::*;
use minium_protocol::{Phase, State};
use minium_queue::{QueueError, RetryOptions};

async fn retry(f: &Fixture, id: i64, options: RetryOptions) {
    f.entries().await;
    f.store().retry(id, &options).await.unwrap();
    f.wrote(&[(id, "task.retry")]).await;
}

fn parents(parents: &[i64]) -> RetryOptions {
    RetryOptions { parents: Some(parents.to_vec()), ..RetryOptions::default() }
}

fn lax(lax: bool) -> RetryOptions {
    RetryOptions { lax: Some(lax), ..RetryOptions::default() }
}

async fn refused(f: &Fixture, id: i64, options: RetryOptions, words: &str) {
    let answer = f.store().retry(id, &options).await;
    assert!(matches!(&answer, Err(QueueError::Invalid(w)) if w.contains(words)), "{words}: {answer:?}");
}

pub(crate) async fn a_retry_may_change_for_whom_a_job_waits(f: &Fixture) {
    let (old, new) = (f.failed(plain()).await, f.enqueue(plain()).await);
    let done = f.enqueue(with(|o| o.queue = "other".into())).await;
    f.store().remove(done).await.unwrap();
    let child = f.enqueue(after(&[old])).await;
    assert_eq!(f.phase(child).await, Some(Phase::Blocked));
    retry(f, child, parents(&[done, new, new])).await;
    assert_eq!(f.job(child).await.parents, [done, new], "once each");
    assert_eq!(f.phase(child).await, Some(Phase::Blocked));
    assert_eq!((f.view(old).await.children, f.view(new).await.children), (vec![], vec![child]));
    // the old one holds it no more, the new one does
    f.store().retry(old, &RetryOptions::default()).await.unwrap();
    let leased = f.claim(9).await;
    assert_eq!(leased.len(), 2, "{leased:?}");
    for job in &leased {
        assert_ne!(job.id, child);
        f.accepted(finish(job, "1")).await;
    }
    let run = f.claim_one().await;
    assert_eq!((run.id, run.parents), (child, vec![done, new]));
}

pub(crate) async fn a_retry_may_let_a_job_wait_for_nobody(f: &Fixture) {
    let waiting = f.enqueue(plain()).await;
    let child = f.enqueue(after(&[waiting])).await;
    retry(f, child, parents(&[])).await;
    assert_eq!(f.phase(child).await, Some(Phase::Ready));
    assert!(f.view(waiting).await.children.is_empty());
    let claimed = f.claim(9).await;
    assert_eq!(ids(&claimed), [waiting, child]);
    // what it had waited for moves nothing any more
    f.accepted(fail_for_good(&claimed[0], "no")).await;
    f.accepted(finish(&claimed[1], "1")).await;
    assert_eq!(f.job(child).await.state, State::Finished);
    // an ended job may be given parents, too
    retry(f, child, parents(&[waiting])).await;
    assert_eq!(f.phase(child).await, Some(Phase::Blocked), "it has failed");
    f.store().remove(waiting).await.unwrap();
    assert_eq!(f.claim_one().await.id, child);
}

pub(crate) async fn a_retry_may_make_a_job_lax_or_strict(f: &Fixture) {
    let parent = f.failed(plain()).await;
    let child = f.enqueue(after(&[parent])).await;
    retry(f, child, lax(true)).await;
    assert!(f.job(child).await.lax);
    assert_eq!(f.phase(child).await, Some(Phase::Ready));
    retry(f, child, lax(false)).await;
    assert_eq!(f.phase(child).await, Some(Phase::Blocked));
    let both = RetryOptions { lax: Some(true), ..parents(&[parent]) };
    retry(f, child, both).await;
    assert_eq!(f.claim_one().await.id, child);
}

pub(crate) async fn a_new_parent_that_ends_meanwhile_lets_its_child_run(f: &Fixture) {
    for _ in 0..20 {
        let parent = f.running(plain()).await;
        let child = f.enqueue(with(|o| o.delay = seconds(1_000))).await;
        let (store, options) = (f.shared(), parents(&[parent.id]));
        let retried = async { store.retry(child, &options).await.unwrap() };
        let done = finish(&parent, "1");
        tokio::join!(retried, f.accepted(done));
        f.upkeep().await;
        assert_eq!(f.phase(child).await, Some(Phase::Ready));
        let run = f.claim_one().await;
        f.accepted(finish(&run, "1")).await;
    }
}

pub(crate) async fn a_retry_may_say_until_when_a_job_is_started(f: &Fixture) {
    let id = f.enqueue(with(|o| o.delay = seconds(1_000))).await;
    retry(f, id, RetryOptions { expire: Some(seconds(60)), ..RetryOptions::default() }).await;
    let job = f.job(id).await;
    assert_eq!(job.expires.unwrap().duration_since(job.retried.unwrap()).as_secs(), 60);
    f.pass(seconds(61)).await;
    f.nothing_to_claim().await;
    assert_eq!(f.upkeep().await.expired, 1);
    assert!(f.is_gone(id).await);
}

pub(crate) async fn what_a_retry_cannot_change_is_refused(f: &Fixture) {
    let ran = f.failed(plain()).await;
    let younger = f.enqueue(plain()).await;
    let expire = RetryOptions { expire: Some(seconds(60)), ..RetryOptions::default() };
    let handler = f.enqueue(with(|o| (o.parents, o.on_failure) = (vec![younger], true))).await;
    f.entries().await;
    refused(f, ran, expire, "has run before").await;
    refused(f, ran, parents(&[younger]), "older than itself").await;
    refused(f, ran, parents(&[ran]), "older than itself").await;
    refused(f, handler, lax(true), "on a failure").await;
    refused(f, handler, parents(&[ran]), "on a failure").await;
    f.wrote(&[]).await;
    assert_eq!(f.job(handler).await.parents, [younger]);
}
