//! Row 1: from a request to an inactive job.

use crate::store::fixture::*;
use jiff::Timestamp;
use minium_protocol::{EnqueueRequest, Phase, State, TraceContext};
use minium_queue::QueueError;
use std::time::Duration;

pub(crate) async fn an_enqueued_job_has_all_that_it_was_given(f: &Fixture) {
    let parent = f.enqueue(plain()).await;
    let mut request = EnqueueRequest::new("livesys/inventory", json(r#"{"a":[1,"x"]}"#));
    request.options = with(|o| {
        o.attempts = 5;
        o.delay = seconds(60);
        o.expire = Some(seconds(3_600));
        o.lax = true;
        o.notes = serde_json::from_str(r#"{"n":{"m":null},"z":1}"#).unwrap();
        o.parents = vec![parent];
        o.priority = -3;
        o.queue = "rack/3".into();
        o.key = Some("k/1 ü".into());
        o.schedule = Some("nightly".into());
        o.origin = Some(parent);
    })
    .options;
    let id = f.enqueue(request).await;
    let job = f.job(id).await;
    assert_eq!((job.id, job.task.as_str(), job.queue.as_str()), (id, "livesys/inventory", "rack/3"));
    assert_eq!((job.state, job.priority, job.args.get()), (State::Inactive, -3, r#"{"a":[1,"x"]}"#));
    assert_eq!(serde_json::Value::Object(job.notes), serde_json::json!({"n": {"m": null}, "z": 1}));
    assert_eq!((job.attempt, job.attempts, job.retries), (0, 5, 0));
    assert_eq!((job.parents, job.lax, job.key.as_deref()), (vec![parent], true, Some("k/1 ü")));
    assert_eq!((job.schedule.as_deref(), job.origin), (Some("nightly"), Some(parent)));
    assert_eq!(job.delayed.duration_since(job.created).as_secs(), 60);
    assert_eq!(job.expires.unwrap().duration_since(job.created).as_secs(), 3_600);
    assert!(job.worker.is_none() && job.result.is_none() && job.error.is_none() && job.progress.is_none());
    assert!(job.started.is_none() && job.finished.is_none() && job.retried.is_none());
    f.wrote(&[(parent, "task.enqueue"), (id, "task.enqueue")]).await;
}

pub(crate) async fn a_job_without_options_has_the_defaults(f: &Fixture) {
    let id = f.enqueue(plain()).await;
    let view = f.view(id).await;
    let job = view.job().unwrap();
    assert_eq!((job.queue.as_str(), job.priority, job.attempts), ("default", 0, 1));
    assert!(job.parents.is_empty() && !job.lax && job.notes.is_empty());
    assert_eq!(job.delayed, job.created);
    assert!(job.key.is_none() && job.schedule.is_none() && job.origin.is_none() && job.expires.is_none());
    assert_eq!((view.phase, view.children), (Some(Phase::Ready), vec![]));
}

pub(crate) async fn the_snapshot_has_the_members_of_the_protocol_in_its_order(f: &Fixture) {
    let id = f.enqueue(plain()).await;
    let text = f.view(id).await.snapshot.get().to_owned();
    let members = [
        "id", "task", "queue", "state", "priority", "args", "notes", "attempt", "attempts", "retries",
        "parents", "lax", "key", "schedule", "worker", "result", "error", "progress", "origin", "created",
        "delayed", "expires", "started", "finished", "retried",
    ];
    let places: Vec<_> = members
        .iter()
        .map(|m| text.find(&format!("\"{m}\":")).unwrap_or_else(|| panic!("{m}: {text}")))
        .collect();
    assert!(places.is_sorted(), "{text}");
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
    assert_eq!(object.len(), members.len(), "{text}");
}

pub(crate) async fn times_are_utc_with_microseconds(f: &Fixture) {
    let before = Timestamp::now();
    let id = f.enqueue(plain()).await;
    let after = Timestamp::now();
    let object: serde_json::Value = serde_json::from_str(f.view(id).await.snapshot.get()).unwrap();
    let created = object["created"].as_str().unwrap();
    assert_eq!(created.len(), "2026-11-22T02:00:00.123456Z".len(), "{created}");
    assert!(created.ends_with('Z'), "{created}");
    let created: Timestamp = created.parse().unwrap();
    assert!(before <= created + Duration::from_micros(1) && created <= after, "{before} {created} {after}");
}

pub(crate) async fn many_are_enqueued_in_order(f: &Fixture) {
    let requests: Vec<_> =
        ["a", "b", "a"].into_iter().map(|task| EnqueueRequest::new(task, json("[]"))).collect();
    let enqueued = f.store().enqueue(&requests).await.unwrap();
    assert!(enqueued.iter().all(|e| !e.existing));
    let ids: Vec<_> = enqueued.iter().map(|e| e.id).collect();
    assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
    for (id, request) in ids.iter().zip(&requests) {
        assert_eq!(f.job(*id).await.task, request.task);
    }
    f.wrote_by_job(&ids.iter().map(|id| (*id, "task.enqueue")).collect::<Vec<_>>()).await;
}

pub(crate) async fn all_or_none_are_enqueued(f: &Fixture) {
    let bad = with(|o| o.attempts = 0);
    let error = f.store().enqueue(&[plain(), plain(), bad]).await.unwrap_err();
    assert!(matches!(&error, QueueError::Invalid(words) if words.contains("attempts")), "{error}");
    f.wrote(&[]).await;
    assert_eq!(f.store().stats().await.unwrap().inactive, 0);
    f.nothing_to_claim().await;
}

pub(crate) async fn an_empty_call_enqueues_nothing(f: &Fixture) {
    assert_eq!(f.store().enqueue(&[]).await.unwrap(), []);
    f.wrote(&[]).await;
}

pub(crate) async fn a_delayed_job_waits_for_its_time(f: &Fixture) {
    let id = f.enqueue(with(|o| o.delay = seconds(100))).await;
    assert_eq!(f.phase(id).await, Some(Phase::Delayed));
    f.nothing_to_claim().await;
    f.upkeep().await;
    f.nothing_to_claim().await;
}

pub(crate) async fn what_breaks_a_rule_is_refused(f: &Fixture) {
    let century = seconds(101 * 365 * 86_400);
    let cases = [
        (EnqueueRequest::new("a b", json("[]")), "task"),
        (with(|o| o.queue = String::new()), "queue"),
        (with(|o| o.priority = 5_000), "priority"),
        (with(|o| o.attempts = 1_001), "attempts"),
        (keyed(""), "key"),
        (keyed("a\0b"), "key"),
        (with(|o| o.delay = century), "delay"),
        (with(|o| o.expire = Some(century)), "expire"),
        (with(|o| o.timeout = Some(century)), "timeout"),
        (with(|o| o.backoff = Some(century)), "backoff"),
    ];
    for (request, word) in cases {
        match f.store().enqueue(&[request]).await {
            Err(QueueError::Invalid(words)) => assert!(words.contains(word), "{word}: {words}"),
            other => panic!("{word}: {other:?}"),
        }
    }
    f.wrote(&[]).await;
}

pub(crate) async fn the_trace_context_goes_along(f: &Fixture) {
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let trace = TraceContext::new(parent, Some("a=1,b@c=2"));
    let leased = f.running(with(|o| o.trace = trace.clone())).await;
    assert_eq!(leased.trace, trace);
    f.accepted(finish(&leased, "1")).await;
    let id = leased.id;
    let entries = f.wrote(&[(id, "task.enqueue"), (id, "task.dequeue"), (id, "task.finished")]).await;
    assert!(entries.iter().all(|e| e.trace.as_deref().and_then(TraceContext::from_text) == trace));
}

pub(crate) async fn thousands_are_enqueued_at_once(f: &Fixture) {
    let enqueued = f.store().enqueue(&vec![plain(); 3_000]).await.unwrap();
    assert_eq!(enqueued.len(), 3_000);
    assert!(enqueued.is_sorted_by(|a, b| a.id < b.id));
    assert_eq!(f.entries().await.len(), 3_000);
    assert_eq!(f.store().stats().await.unwrap().inactive, 3_000);
}

pub(crate) async fn everyone_enqueues_at_once(f: &Fixture) {
    let stores = [f.shared(), f.second().await];
    let callers = (0..40).map(|i| {
        let store = stores[i % 2].clone();
        tokio::spawn(async move { store.enqueue(&[plain(), plain()]).await.unwrap() })
    });
    let mut all = Vec::new();
    for caller in callers.collect::<Vec<_>>() {
        all.extend(caller.await.unwrap().into_iter().map(|e| e.id));
    }
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 80);
    let entries = f.entries().await;
    let mut told: Vec<_> = entries.iter().map(|e| e.id()).collect();
    told.sort_unstable();
    assert_eq!(told, all, "one event each");
    assert!(entries.iter().all(|e| e.kind == "task.enqueue"));
    f.agree(&entries).await;
}
