//! Each delivery is one job, however often and by how many hands it comes, and whatever is away meanwhile.

use super::{CONFIG, event, jobs, push, received};
use crate::support::http::Answer;
use crate::support::node::{Node, Options};
use crate::support::on_both;
use crate::support::postgres::{Cluster, ClusterOptions};
use crate::support::wait;
use serde_json::{Value, json};

/// With a worker that runs what comes.
fn runs() -> String {
    format!("{CONFIG}[tasks.hooked]\ncommand = [\"cat\"]\n")
}

on_both! {
    /// G-4: sent again it is answered by the same job, while that waits, runs, has ended and was removed; it runs once.
    a_delivery_that_comes_again_is_the_same_job;
    /// G-4: many at the same moment are one job.
    deliveries_at_the_same_moment_are_one_job;
    /// G-4: ids are each hook's own.
    hooks_never_meet;
}

fn job_of(answer: &Answer, status: &str) -> i64 {
    let answer = answer.expect(202);
    assert_eq!(answer["status"], status, "{answer}");
    answer["job"].as_i64().unwrap()
}

async fn a_delivery_that_comes_again_is_the_same_job(options: Options) {
    let node = Node::start(options.config(&runs())).await;
    let payload = json!({ "n": 1 });
    let job = job_of(&push(&node, "git", "one", &payload).await, "enqueued");
    assert_eq!(job_of(&push(&node, "git", "one", &payload).await, "existing"), job);
    let ended = node.ended(job).await;
    assert_eq!((&ended["state"], &ended["attempt"]), (&json!("finished"), &json!(1)));
    // the id alone decides: who sends again may sign anew
    assert_eq!(job_of(&push(&node, "git", "one", &json!({ "n": 2 })).await, "existing"), job);
    let events = node.events(job, "task.finished").await;
    let kinds: Vec<&str> = events.iter().map(|e| e["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["task.enqueue", "task.dequeue", "task.finished"]);
    assert_eq!(node.delete(&format!("/api/v1/jobs/{job}")).await.status, 204);
    assert_eq!(job_of(&push(&node, "git", "one", &payload).await, "existing"), job);
    node.kill().await;
    node.restart().await;
    assert_eq!(job_of(&push(&node, "git", "one", &payload).await, "existing"), job);
    assert!(job_of(&push(&node, "git", "two", &payload).await, "enqueued") > job);
}

async fn deliveries_at_the_same_moment_are_one_job(options: Options) {
    // a head may be late where all of them are at once, and the machine is busy
    let patient = format!("[server.limits]\nhandshake_timeout = \"60s\"\n{CONFIG}");
    let node = Node::start(options.config(&patient)).await;
    let payload = json!({ "n": 1 });
    let answers = futures::future::join_all((0..8).map(|_| push(&node, "git", "same", &payload))).await;
    let all: Vec<Value> = answers.iter().map(|answer| answer.expect(202)).collect();
    let enqueued = all.iter().filter(|answer| answer["status"] == "enqueued").count();
    assert_eq!(enqueued, 1, "{all:?}");
    assert!(all.iter().all(|answer| answer["job"] == all[0]["job"]), "{all:?}");
    assert_eq!(jobs(&node).await, 1);
    let counted = (received(&node, "git", "enqueued").await, received(&node, "git", "existing").await);
    assert_eq!(counted, (1.0, 7.0));
}

async fn hooks_never_meet(options: Options) {
    let node = Node::start(options.config(CONFIG)).await;
    let payload = json!({});
    let one = job_of(&push(&node, "git", "same", &payload).await, "enqueued");
    let other = job_of(&push(&node, "other", "same", &payload).await, "enqueued");
    assert_ne!(one, other);
    assert_eq!(job_of(&push(&node, "git", "same", &payload).await, "existing"), one);
    assert_eq!(node.job(one).await["key"], "hooks/git/same");
}

/// G-3: with the database away it is 503, and the sender's next attempt makes one job of it.
#[tokio::test]
async fn a_delivery_that_finds_no_database_comes_again() {
    let mut cluster = Cluster::start(ClusterOptions::default()).await;
    let url = cluster.create_database("minium").await;
    let node = Node::start(Options::on(&url).config(&runs())).await;
    let payload = json!({ "n": 1 });
    cluster.stop();
    let refused = push(&node, "git", "one", &payload).await;
    refused.problem(503, "unavailable");
    assert!(!refused.header("retry-after").is_empty());
    // what needs no database is answered all the same
    event(&node, "git", ("ping", "0"), &payload).await.expect(200);
    cluster.restart().await;
    node.whole().await;
    let job = wait::until("a delivery that is taken", async || {
        let answer = push(&node, "git", "one", &payload).await;
        (answer.status == 202).then(|| answer.json()["job"].as_i64().unwrap())
    })
    .await;
    assert_eq!(node.ended(job).await["state"], "finished");
    assert_eq!(job_of(&push(&node, "git", "one", &payload).await, "existing"), job);
    assert_eq!(jobs(&node).await, 1);
    assert!(received(&node, "git", "unavailable").await >= 1.0);
}
