//! Pushes become jobs.

use super::desk::{Calls, Desk, message, options};
use super::on_each_store;
use crate::store::fixture::Fixture;
use futures::future::join_all;
use minium_bus::Work;
use minium_protocol::{ErrorCode, JobOptions, State};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::watch;

on_each_store! {
    a_push_is_a_job_of_the_task_that_is_named_as_the_topic
    what_breaks_a_rule_or_a_schema_is_refused_and_nothing_is_enqueued
    many_callers_share_a_commit_and_each_has_his_own_ids
    a_caller_whose_jobs_are_refused_hinders_nobody
    a_push_without_a_store_is_unavailable
}

async fn a_push_is_a_job_of_the_task_that_is_named_as_the_topic(f: Fixture) {
    let desk = Desk::of(&f);
    let keyed = JobOptions { key: Some("k".into()), priority: 3, attempts: 5, ..JobOptions::default() };
    let pushed = vec![message("{\"n\": 1}", JobOptions::default()), message("[2]", keyed.clone())];
    let topic = "livesys/7".parse().unwrap();
    let ids = desk.work.push(&topic, pushed).await.unwrap();
    let (first, second) = (f.job(ids[0]).await, f.job(ids[1]).await);
    assert_eq!((first.task.as_str(), first.args.get()), ("livesys/7", "{\"n\": 1}"));
    assert_eq!((second.args.get(), second.priority, second.attempts), ("[2]", 3, 5));
    assert!(ids[0] < ids[1] && first.state == State::Inactive);
    let again = desk.work.push(&topic, vec![message("[3]", keyed)]).await.unwrap();
    assert_eq!(again, [ids[1]], "a living job has the key");
    assert!(desk.work.push(&topic, vec![]).await.unwrap().is_empty());
    desk.close().await;
}

async fn what_breaks_a_rule_or_a_schema_is_refused_and_nothing_is_enqueued(f: Fixture) {
    let desk = Desk::of(&f);
    let refused = async |task: &str, data: &str, options: JobOptions| {
        let pushed = vec![message("[1]", JobOptions::default()), message(data, options)];
        desk.work.push(&task.parse().unwrap(), pushed).await.unwrap_err().code
    };
    assert_eq!(refused("checked", "[]", JobOptions::default()).await, ErrorCode::SchemaViolation);
    assert_eq!(refused("t", "[", JobOptions::default()).await, ErrorCode::InvalidJson);
    let priority = JobOptions { priority: 5_000, ..JobOptions::default() };
    assert_eq!(refused("t", "[]", priority).await, ErrorCode::InvalidRequest);
    let deep = "a/".repeat(15) + "a";
    assert_eq!(refused(&deep, "[]", JobOptions::default()).await, ErrorCode::InvalidRequest);
    assert_eq!(f.store().stats().await.unwrap().inactive, 0);
    desk.push("checked", "[1]").await.unwrap();
    desk.close().await;
}

async fn many_callers_share_a_commit_and_each_has_his_own_ids(f: Fixture) {
    let desk = &Desk::of(&f);
    let push = async |n: usize| {
        let pushed = (0..3).map(|i| message(&format!("[{n},{i}]"), JobOptions::default())).collect();
        (n, desk.work.push(&"t".parse().unwrap(), pushed).await.unwrap())
    };
    let answers = join_all((0..300).map(push)).await;
    let mut seen = HashSet::new();
    for (n, ids) in answers {
        for (i, id) in ids.into_iter().enumerate() {
            assert!(seen.insert(id));
            assert_eq!(f.job(id).await.args.get(), format!("[{n},{i}]"));
        }
    }
    assert_eq!(seen.len(), 900);
    let enqueues = desk.calls.enqueues.load(Ordering::SeqCst);
    assert!(enqueues < 100, "300 callers at once made {enqueues} enqueues");
}

async fn a_caller_whose_jobs_are_refused_hinders_nobody(f: Fixture) {
    let desk = &Desk::of(&f);
    let push = async |n: usize| {
        // only the store refuses this one
        let schedule = (n % 50 == 7).then(|| "a\0b".into());
        let options = JobOptions { schedule, ..JobOptions::default() };
        desk.work.push(&"t".parse().unwrap(), vec![message("[]", options)]).await
    };
    let answers = join_all((0..200).map(push)).await;
    for (n, answer) in answers.iter().enumerate() {
        match answer {
            Ok(_) => assert_ne!(n % 50, 7),
            Err(problem) => assert_eq!((n % 50, problem.code), (7, ErrorCode::InvalidRequest)),
        }
    }
    assert_eq!(f.store().stats().await.unwrap().inactive, 196);
}

async fn a_push_without_a_store_is_unavailable(f: Fixture) {
    let (sender, slot) = watch::channel(None);
    let desk = Desk::start(&slot, options(), Arc::<Calls>::default());
    let mut puller = desk.puller("image", &["t"], 1);
    let problem = desk.push("t", "[]").await.unwrap_err();
    assert_eq!((problem.code, problem.retryable), (ErrorCode::Unavailable, true));
    sender.send_replace(Some(f.shared()));
    let id = desk.push("t", "[]").await.unwrap();
    assert_eq!(puller.job().await.id, id, "who came before the store is served when it is there");
    let work = desk.work.clone();
    desk.close().await;
    let late = work.push(&"t".parse().unwrap(), vec![message("[]", JobOptions::default())]).await;
    assert_eq!(late.unwrap_err().code, ErrorCode::Unavailable);
}
