//! What a claim tells of a job's notes and parents, and what those parents brought.

use crate::store::fixture::*;
use minium_protocol::{JobResult, State};
use minium_queue::{Claim, Leased, Limit, Pull, QueueError};
use serde_json::json as value;

/// Every way to get a job.
async fn claimed_each_way(f: &Fixture, request: impl Fn() -> minium_protocol::EnqueueRequest) -> Vec<Leased> {
    let mut jobs = vec![f.running(request()).await];
    f.enqueue(request()).await;
    let capped = Claim { tasks: Some(vec!["t".into()]), caps: [("t".to_owned(), 5)].into(), ..claim(5) };
    jobs.extend(f.exchange(&[], capped).await.jobs);
    let pull =
        Pull { queue: "default".into(), tasks: vec!["t".into()], lease: LEASE, workers: vec![worker()] };
    f.enqueue(request()).await;
    jobs.extend(f.store().pull(std::slice::from_ref(&pull)).await.unwrap().into_iter().map(|p| p.job));
    let limit = Limit { task: "t".into(), running: Some(10), per_partition: None, rate: None };
    f.store().put_limits(&[limit]).await.unwrap();
    jobs.push(f.running(request()).await);
    f.enqueue(request()).await;
    jobs.extend(f.store().pull(&[pull]).await.unwrap().into_iter().map(|p| p.job));
    assert_eq!(jobs.len(), 5, "each way gives one");
    jobs
}

pub(crate) async fn every_claim_tells_notes_parents_and_priority(f: &Fixture) {
    let (a, b) = (f.finished(plain()).await, f.finished(plain()).await);
    let request = || {
        with(|o| {
            o.notes = value!({ "who": "me", "deep": { "n": [1, null] } }).as_object().unwrap().clone();
            (o.parents, o.priority) = (vec![b, a, 999_999], -7);
        })
    };
    for job in claimed_each_way(f, request).await {
        assert_eq!(value!(job.notes), value!({ "who": "me", "deep": { "n": [1, null] } }));
        assert_eq!((job.parents, job.priority), (vec![b, a, 999_999], -7));
    }
}

pub(crate) async fn a_claim_of_a_job_without_them_tells_none(f: &Fixture) {
    for job in claimed_each_way(f, plain).await {
        assert!(job.notes.is_empty() && job.parents.is_empty(), "{job:?}");
        assert_eq!(job.priority, 0);
    }
    let id = f.enqueue(plain()).await;
    f.note(id, None, "{\"late\":1}").await.unwrap();
    assert_eq!(f.claim_one().await.notes["late"], 1, "as they are at the claim");
}

/// Id, state, result, error.
type Told<'a> = (i64, Option<State>, Option<&'a str>, Option<&'a str>);

fn told(results: &[JobResult]) -> Vec<Told<'_>> {
    results
        .iter()
        .map(|r| (r.id, r.state, r.result.as_ref().map(|json| json.get()), r.error.as_deref()))
        .collect()
}

pub(crate) async fn what_jobs_brought_is_told_in_the_order_asked(f: &Fixture) {
    let finished = f.running(plain()).await;
    f.accepted(finish(&finished, "{\"rows\":10}")).await;
    let failed = f.failed(plain()).await;
    let cancelled = f.cancelled(plain()).await;
    let gone = f.finished(plain()).await;
    f.store().remove(gone).await.unwrap();
    let waits = f.enqueue(plain()).await;
    let why = f.job(failed).await.error;
    let asked = [waits, gone, finished.id, cancelled, failed, finished.id];
    let results = f.store().results(&asked, usize::MAX).await.unwrap();
    let rows = (finished.id, Some(State::Finished), Some("{\"rows\":10}"), None);
    assert_eq!(
        told(&results),
        [
            (waits, Some(State::Inactive), None, None),
            (gone, None, None, None),
            rows,
            (cancelled, Some(State::Cancelled), None, None),
            (failed, Some(State::Failed), None, why.as_deref()),
            rows,
        ]
    );
    assert!(f.store().results(&[], 10).await.unwrap().is_empty());
}

pub(crate) async fn what_jobs_brought_comes_in_pieces(f: &Fixture) {
    let mut all = Vec::new();
    for _ in 0..4 {
        let job = f.running(plain()).await;
        f.accepted(finish(&job, &format!("\"{}\"", "x".repeat(98)))).await;
        all.push(job.id);
    }
    for (bytes, expected) in [(0, 1), (1, 1), (100, 1), (101, 2), (300, 3), (301, 4), (usize::MAX, 4)] {
        let results = f.store().results(&all, bytes).await.unwrap();
        assert_eq!(results.len(), expected, "within {bytes} bytes");
        assert!(results.iter().zip(&all).all(|(result, id)| result.id == *id));
    }
    let many = vec![1; minium_queue::rules::RESULTS_MAX + 1];
    assert!(matches!(f.store().results(&many, 1).await, Err(QueueError::Invalid(_))));
    assert_eq!(f.store().results(&many[1..], usize::MAX).await.unwrap().len(), many.len() - 1);
}
