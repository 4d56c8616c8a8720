//! Connections: all in use, or ended again and again while the server is well.

use super::{CONFIG, all_run, assert_one_outcome_per_run, assert_works_on, metric, said, worker};
use crate::faults::{Enqueuer, is_last};
use crate::support::events::{TaskEvent, assert_dense, follow};
use crate::support::foreign::Foreign;
use crate::support::node::{Node, Options};
use crate::support::postgres::Database;
use crate::support::wait;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde_json::json;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const TERMINATIONS: usize = 8;

/// while every connection is held by a statement that waits, more requests are refused after a while, and the database is
/// not taken to be away; those that held them are answered when it goes on.
#[tokio::test]
async fn exhausted_connections_are_told_from_a_database_that_is_away() {
    let database = Database::create().await;
    let node = Node::start(Options::on(database.url()).config("[database]\npool = 4\n")).await;
    let mut holder = database.connect().await;
    let hold = holder.transaction().await.unwrap();
    hold.batch_execute("lock table minium.job in access exclusive mode").await.unwrap();
    let many: Vec<_> = (0..12).map(|n| json!({ "task": "x", "args": [n] })).collect();
    let mut enqueues: FuturesUnordered<_> =
        many.iter().map(|job| node.post_json("/api/v1/jobs", job)).collect();
    // there are more of them than connections: those that found none are refused, while the others wait for the lock
    let refused = enqueues.next().await.unwrap();
    let problem = refused.problem(503, "unavailable");
    assert!(problem["detail"].as_str().unwrap().contains("in use"), "{problem}");
    assert_eq!(node.get("/healthz").await.status, 200);
    assert_eq!(metric(&node, "minium_queue_database_available").await, Some(1.0));
    hold.rollback().await.unwrap();
    let answers: Vec<_> = enqueues.collect().await;
    let kept: Vec<i64> =
        answers.iter().filter(|a| a.status == 201).map(|a| a.json()["id"].as_i64().unwrap()).collect();
    assert!(!kept.is_empty(), "those that held the connections were answered");
    answers.iter().filter(|a| a.status != 201).for_each(|a| drop(a.problem(503, "unavailable")));
    node.whole().await;
    for id in kept {
        node.get(&format!("/api/v1/jobs/{id}")).await.expect(200);
    }
    assert_eq!(said(&node, "The database is away"), 0);
}

/// P-3: every connection is ended again and again under load: nothing acknowledged is lost, each run has one outcome,
/// and neither the node nor the worker ends.
#[tokio::test]
async fn connections_that_are_ended_all_the_time_cost_nothing() {
    let database = Database::create().await;
    let node = Node::start(Options::on(database.url()).config(CONFIG)).await;
    let mut worker = worker(&node, database.url(), &[]);
    let (client, admin) = (Foreign::perl(), database.connect().await);
    let (seen, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let stopped = || stop.load(Ordering::Relaxed);
    let enqueuer = Enqueuer::default();
    let ending = async {
        let mut second = tokio::time::interval(std::time::Duration::from_secs(1));
        for round in 0..TERMINATIONS {
            let goal = seen.load(Ordering::Relaxed) + 20;
            let what = format!("events before round {round}");
            wait::until(&what, async || (seen.load(Ordering::Relaxed) >= goal).then_some(())).await;
            second.tick().await;
            let end = "select count(pg_terminate_backend(pid)) from pg_stat_activity
                        where datname = current_database() and pid <> pg_backend_pid()";
            // those of the last round may all be gone, and none be back yet
            let ended = async || admin.query_one(end, &[]).await.unwrap().get::<_, i64>(0);
            wait::until("connections to end", async || (ended().await > 0).then_some(())).await;
        }
        let goal = seen.load(Ordering::Relaxed) + 20;
        wait::until("events after the last", async || (seen.load(Ordering::Relaxed) >= goal).then_some(()))
            .await;
        stop.store(true, Ordering::Relaxed);
    };
    let enqueuing = async {
        enqueuer.run_batches(&node, "quick", 2, stopped).await;
        all_run(&node).await;
        enqueuer.end(&node).await;
    };
    let counting = |_: &TaskEvent| _ = seen.fetch_add(1, Ordering::Relaxed);
    let ((), (), events) = tokio::join!(ending, enqueuing, follow(&client, &node, "task", is_last, counting));
    assert_dense(&events, "perl");
    enqueuer.assert_all_announced(&events, "perl");
    assert_one_outcome_per_run(&events);
    assert_works_on(&mut worker);
    node.assert_well().await;
}
