//! What a job may demand, by SQL; and outcomes that are handed in within somebody's own transaction.

use super::fixture::*;
use super::postgres_only::postgres;
use crate::support::wait;
use minium_protocol::{Phase, State};
use minium_queue::{Limit, Verdict};
use minium_worker::{Failure, JobContext, StoreSource, Worker, WorkerOptions};
use std::sync::Arc;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

async fn enqueue(client: &tokio_postgres::Client, options: &str) -> Result<i64, tokio_postgres::Error> {
    let sql = "select minium.enqueue('t', '[]', $1::text::jsonb)";
    client.query_one(sql, &[&options]).await.map(|row| row.get(0))
}

#[tokio::test]
async fn sql_says_for_how_long_a_key_is_held() {
    let f = Fixture::postgres().await;
    let client = f.client().await;
    let held = enqueue(&client, r#"{"key":"k","unique":"5m"}"#).await.unwrap();
    let leased = f.claim_one().await;
    f.accepted(finish(&leased, "1")).await;
    assert_eq!(enqueue(&client, r#"{"key":"k"}"#).await.unwrap(), held);
    let waiting = enqueue(&client, r#"{"key":"w","unique":"waiting"}"#).await.unwrap();
    assert_eq!(f.claim_one().await.id, waiting);
    assert_ne!(enqueue(&client, r#"{"key":"w","unique":"waiting"}"#).await.unwrap(), waiting);
}

#[tokio::test]
async fn sql_enqueues_handlers_and_parts_of_limits() {
    let f = Fixture::postgres().await;
    let client = f.client().await;
    let parent = f.failed(plain()).await;
    let handler = enqueue(&client, &format!(r#"{{"parents":[{parent}],"when":"failure"}}"#)).await.unwrap();
    assert_eq!(f.phase(handler).await, Some(Phase::Blocked), "upkeep judges it");
    f.upkeep().await;
    assert_eq!(f.claim_one().await.id, handler);
    let limit = Limit { task: "t".into(), running: None, per_partition: Some(1), rate: None };
    f.store().put_limits(&[limit]).await.unwrap();
    for part in ["a", "a", "b"] {
        enqueue(&client, &format!(r#"{{"partition":"{part}"}}"#)).await.unwrap();
    }
    assert_eq!(f.claim(9).await.len(), 2);
}

#[tokio::test]
async fn sql_is_told_what_is_wrong_with_a_demand() {
    let f = Fixture::postgres().await;
    let client = f.client().await;
    for (options, words) in [
        (r#"{"unique":"5m"}"#, "key"),
        (r#"{"key":"k","unique":"soon"}"#, "unique"),
        (r#"{"when":"never"}"#, "when"),
        (r#"{"when":"failure"}"#, "parent"),
        (r#"{"when":"success","lax":true}"#, "when"),
        (r#"{"partition":5}"#, "partition"),
    ] {
        let error = enqueue(&client, options).await.unwrap_err();
        let message = error.as_db_error().unwrap().message().to_owned();
        assert!(message.contains(words), "{options}: {message}");
    }
}

#[tokio::test]
async fn a_run_is_finished_within_the_caller_s_transaction() {
    let f = Fixture::postgres().await;
    let child = {
        let leased = f.running(plain()).await;
        let child = f.enqueue(after(&[leased.id])).await;
        let mut client = f.client().await;
        client.batch_execute("create table mine (n int)").await.unwrap();
        let result = json(r#"{"n":1}"#);
        // rolled back, it has never been
        let transaction = client.transaction().await.unwrap();
        transaction.execute("insert into mine values (1)", &[]).await.unwrap();
        let verdict = postgres(&f).finish_in(&transaction, leased.id, leased.lease, &result).await.unwrap();
        assert_eq!(verdict, Verdict::Accepted);
        transaction.rollback().await.unwrap();
        assert_eq!(f.job(leased.id).await.state, State::Active);
        // committed, both are there
        let transaction = client.transaction().await.unwrap();
        transaction.execute("insert into mine values (2)", &[]).await.unwrap();
        postgres(&f).finish_in(&transaction, leased.id, leased.lease, &result).await.unwrap();
        transaction.commit().await.unwrap();
        assert_eq!(f.job(leased.id).await.state, State::Finished);
        assert_eq!(client.query_one("select n from mine", &[]).await.unwrap().get::<_, i32>(0), 2);
        // what the worker says besides is a repetition, and releases who waits
        assert_eq!(f.hand_in(&[finish(&leased, r#"{"n":1}"#)]).await, [Verdict::Repeated]);
        child
    };
    f.upkeep().await;
    assert_eq!(f.claim_one().await.id, child);
}

/// A task finishes its job within its own transaction and returns: whatever it says then, the job has the one outcome that was
/// committed; and if that was rolled back, the one that it says.
#[tokio::test]
async fn a_task_finishes_its_job_in_its_own_transaction() {
    let f = Fixture::postgres().await;
    let (store, client) = (postgres(&f), Arc::new(Mutex::new(f.client().await)));
    client.lock().await.batch_execute("create table mine (n int)").await.unwrap();
    let mine = move |job: JobContext, n: i32| {
        let (store, client) = (store.clone(), client.clone());
        async move {
            let mut client = client.lock().await;
            let transaction = client.transaction().await?;
            transaction.execute("insert into mine values ($1)", &[&n]).await?;
            store.finish_in(&transaction, job.id(), job.lease(), &json(&n.to_string())).await?;
            match n {
                2 => transaction.rollback().await?,
                _ => transaction.commit().await?,
            }
            if n == 3 { Err(Failure::retryable("too late")) } else { Ok(n) }
        }
    };
    let stop = CancellationToken::new();
    let worker = Worker::new(StoreSource::new(f.shared()), WorkerOptions::default())
        .task("mine", mine)
        .run(stop.clone());
    let worker = tokio::spawn(worker);
    for (n, told) in [
        (1, &["task.enqueue", "task.dequeue", "task.finished"][..]),
        (2, &["task.enqueue", "task.dequeue", "task.finished"]),
        (3, &["task.enqueue", "task.dequeue", "task.finished", "task.late_result"]),
    ] {
        let args = json(&n.to_string());
        let id = f.enqueue(minium_protocol::EnqueueRequest::new("mine", args)).await;
        let mut events = Vec::new();
        wait::until("its events", async || {
            events.extend(f.entries().await.into_iter().map(|entry| (entry.id(), entry.kind)));
            (events.len() >= told.len()).then_some(())
        })
        .await;
        let told: Vec<_> = told.iter().map(|kind| (id, (*kind).to_owned())).collect();
        assert_eq!(events, told);
        let job = f.job(id).await;
        assert_eq!((job.state, job.result.unwrap().get()), (State::Finished, &*n.to_string()));
    }
    stop.cancel();
    wait::within("the worker to end", worker).await.unwrap().unwrap();
    assert!(f.entries().await.is_empty(), "nobody has said anything more");
    let rows = f.client().await.query("select n from mine order by n", &[]).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.get(0)).collect::<Vec<i32>>(), [1, 3]);
}

#[tokio::test]
async fn a_lease_that_is_gone_finishes_nothing_within_a_transaction() {
    let f = Fixture::postgres().await;
    let leased = f.running(plain()).await;
    f.store().cancel(leased.id).await.unwrap();
    let mut client = f.client().await;
    let transaction = client.transaction().await.unwrap();
    let verdict = postgres(&f).finish_in(&transaction, leased.id, leased.lease, &json("1")).await.unwrap();
    assert_eq!(verdict, Verdict::LeaseLost);
}
