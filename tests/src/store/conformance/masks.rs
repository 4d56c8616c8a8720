//! Arguments that are for nobody but who runs the job.

use crate::store::fixture::*;
use minium_protocol::EnqueueRequest;
use minium_queue::{ArgsMask, JobFilter, Pull, ScheduleFilter};

fn mask(task: &str, paths: &[&[&str]]) -> ArgsMask {
    let paths = paths.iter().map(|path| path.iter().map(|step| (*step).to_owned()).collect()).collect();
    ArgsMask { task: task.into(), paths }
}

/// Puts a mask in force for task `t` that hides passwords and keys.
async fn hide(f: &Fixture) {
    f.store().put_masks(&[mask("t", &[&["0", "password"], &["*", "keys", "*"]])]).await.unwrap();
}

const WHOLE: &str = r#"[{"user":"u","password":"hunter2","keys":["hunter2",{"n":"hunter2"}]}]"#;
const SHOWN: &str = r#"[{"user":"u","password":"***","keys":["***","***"]}]"#;

fn secret(task: &str) -> EnqueueRequest {
    EnqueueRequest::new(task, json(WHOLE))
}

fn same(left: &str, right: &str) -> bool {
    let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    read(left) == read(right)
}

/// What everybody sees of a job's arguments.
async fn shown(f: &Fixture, id: i64) -> String {
    f.job(id).await.args.get().to_owned()
}

pub(crate) async fn nobody_but_the_worker_sees_what_is_hidden(f: &Fixture) {
    hide(f).await;
    let leased = f.running(secret("t")).await;
    assert_eq!(leased.args.get(), WHOLE, "who runs it gets it as it was written");
    f.note(leased.id, Some(leased.lease), r#"{"a":1}"#).await.unwrap();
    f.accepted(fail_for_good(&leased, "no")).await;
    f.store().retry(leased.id, &minium_queue::RetryOptions::default()).await.unwrap();
    let again = f.claim_one().await;
    assert_eq!(again.args.get(), WHOLE, "after a retry as well");
    f.accepted(finish(&again, "1")).await;
    assert!(same(&shown(f, leased.id).await, SHOWN));
    let page = f.store().list(&JobFilter::default()).await.unwrap();
    let listed: minium_protocol::Job = serde_json::from_str(page.jobs[0].get()).unwrap();
    assert!(same(listed.args.get(), SHOWN));
    f.store().remove(leased.id).await.unwrap();
    let entries = f.entries().await;
    assert_eq!(entries.len(), 8, "{entries:?}");
    for entry in entries {
        assert!(same(entry.job().args.get(), SHOWN), "{}: {}", entry.kind, entry.data);
        assert!(!entry.data.contains("hunter2"), "{}: {}", entry.kind, entry.data);
    }
}

pub(crate) async fn a_puller_gets_all_of_it(f: &Fixture) {
    hide(f).await;
    let id = f.enqueue(secret("t")).await;
    let pull =
        Pull { queue: "default".into(), tasks: vec!["t".into()], lease: LEASE, workers: vec![worker()] };
    let pulled = f.store().pull(&[pull]).await.unwrap().remove(0);
    assert_eq!(pulled.job.args.get(), WHOLE);
    let snapshot: minium_protocol::Job = serde_json::from_str(pulled.snapshot.get()).unwrap();
    assert_eq!((snapshot.id, snapshot.attempt), (id, 1));
    assert!(same(snapshot.args.get(), WHOLE));
    for entry in f.entries().await {
        assert!(same(entry.job().args.get(), SHOWN), "{}: {}", entry.kind, entry.data);
    }
}

pub(crate) async fn the_nearest_mask_counts(f: &Fixture) {
    let whole: &[&[&str]] = &[&[]];
    f.store().put_masks(&[mask("a", whole), mask("a/b", &[]), mask("a/b/c", &[&["0"]])]).await.unwrap();
    for (task, expected) in [
        ("a", r#""***""#),
        ("a/x", r#""***""#),
        ("a/b", WHOLE),
        ("a/b/x", WHOLE),
        ("a/b/c/d", r#"["***"]"#),
        ("ab", WHOLE),
        ("b/a", WHOLE),
    ] {
        let id = f.enqueue(secret(task)).await;
        assert!(same(&shown(f, id).await, expected), "{task}");
    }
}

pub(crate) async fn a_mask_counts_from_then_on_until_another_says_otherwise(f: &Fixture) {
    let before = f.enqueue(secret("t")).await;
    hide(f).await;
    let hidden = f.enqueue(secret("t")).await;
    // what other nodes say of other tasks changes nothing
    f.store().put_masks(&[mask("other", &[&["0"]])]).await.unwrap();
    f.store().put_masks(&[]).await.unwrap();
    let still = f.enqueue(secret("t")).await;
    f.store().put_masks(&[mask("t", &[])]).await.unwrap();
    let after = f.enqueue(secret("t")).await;
    for (id, expected) in [(before, WHOLE), (hidden, SHOWN), (still, SHOWN), (after, WHOLE)] {
        assert!(same(&shown(f, id).await, expected), "{id}");
    }
}

pub(crate) async fn arguments_without_anything_to_hide_stay_to_the_byte(f: &Fixture) {
    hide(f).await;
    for args in [r#"[ {"pass": 1.0E+40 } ]"#, "[]", r#"["password", {"user":1}, [[1e2]]]"#, r#"{"0":[]}"#] {
        let id = f.enqueue(EnqueueRequest::new("t", json(args))).await;
        assert_eq!(shown(f, id).await, args);
    }
}

pub(crate) async fn what_a_schedule_enqueues_is_hidden_as_well(f: &Fixture) {
    hide(f).await;
    f.store().put_schedule(&every("nightly", secret("t"), 60)).await.unwrap();
    f.store().fire_schedules().await.unwrap();
    f.pass(seconds(61)).await;
    f.store().fire_schedules().await.unwrap();
    let leased = f.claim(2).await;
    assert!(!leased.is_empty());
    for job in leased {
        assert_eq!(job.args.get(), WHOLE);
        assert!(same(&shown(f, job.id).await, SHOWN));
    }
    let one = f.store().schedule("nightly").await.unwrap().unwrap();
    let listed = f.store().schedules(&ScheduleFilter::default()).await.unwrap().schedules.remove(0);
    for view in [one, listed] {
        let told: serde_json::Value = serde_json::from_str(&view.to_json()).unwrap();
        assert!(same(&told["args"].to_string(), SHOWN), "{told}");
    }
}

pub(crate) async fn masks_may_be_put_by_several_at_once(f: &Fixture) {
    let other = f.second().await;
    let tasks: Vec<String> = (0..50).map(|i| format!("t{i}")).collect();
    let up: Vec<ArgsMask> = tasks.iter().map(|t| mask(t, &[&["0"]])).collect();
    let down: Vec<ArgsMask> = up.iter().rev().cloned().collect();
    for _ in 0..5 {
        let (one, two) = tokio::join!(f.store().put_masks(&up), other.put_masks(&down));
        one.unwrap();
        two.unwrap();
    }
    let id = f.enqueue(secret("t49")).await;
    assert_eq!(shown(f, id).await, r#"["***"]"#);
}
