//! PostgreSQL is stopped at once, killed, or not there yet.

use super::{Enqueuer, is_last};
use crate::support::events::{TaskEvent, assert_dense, follow};
use crate::support::foreign::Foreign;
use crate::support::node::{Node, Options};
use crate::support::postgres::{Cluster, ClusterOptions, Database};
use crate::support::wait;
use rustix::process::Signal;
use serde_json::json;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Q-7, P-3: what was acknowledged before or between immediate stops and kills of PostgreSQL is there, and every
/// subscriber has it once and in order.
#[tokio::test]
async fn nothing_acknowledged_is_lost_when_postgres_is_stopped_or_killed_under_load() {
    let mut cluster = Cluster::start(ClusterOptions { fsync: true, ..ClusterOptions::default() }).await;
    let url = cluster.create_database("minium").await;
    let node = Node::start(Options::on(&url)).await;
    let client = Foreign::python();
    let (seen, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let stopped = || stop.load(Ordering::Relaxed);
    let (one, other) = (Enqueuer::default(), Enqueuer::default());

    let breaking = async {
        let breaks = [Cluster::stop_immediately, Cluster::kill, Cluster::stop_immediately, Cluster::kill];
        for (round, end) in breaks.into_iter().enumerate() {
            let goal = seen.load(Ordering::Relaxed) + 200;
            let what = format!("events before outage {}", round + 1);
            wait::until(&what, async || (seen.load(Ordering::Relaxed) >= goal).then_some(())).await;
            end(&mut cluster);
            let refused = async || {
                let readyz = node.get("/readyz").await;
                (readyz.status == 503).then(|| readyz.problem(503, "unavailable"))
            };
            let problem = wait::until("the node to notice", refused).await;
            assert!(problem["detail"].as_str().unwrap().contains("database"), "{problem}");
            assert_eq!(node.get("/healthz").await.status, 200, "the node lives on");
            cluster.restart().await;
            wait::until("the node to come whole", async || {
                (node.get("/readyz").await.status == 200).then_some(())
            })
            .await;
        }
        let goal = seen.load(Ordering::Relaxed) + 200;
        wait::until("events after the last outage", async || {
            (seen.load(Ordering::Relaxed) >= goal).then_some(())
        })
        .await;
        stop.store(true, Ordering::Relaxed);
    };
    let enqueuing = async {
        // many small ones at once: some are acknowledged in the very moment of each outage
        let small = futures::future::join_all((0..8).map(|_| other.run_batches(&node, "small", 1, stopped)));
        tokio::join!(one.run(&node, "idle", stopped), small);
        one.end(&node).await;
    };
    let counting = |_: &TaskEvent| {
        seen.fetch_add(1, Ordering::Relaxed);
    };
    let following = follow(&client, &node, "task", is_last, counting);
    let ((), (), events) = tokio::join!(breaking, enqueuing, following);
    assert_dense(&events, "python");
    for enqueuer in [&one, &other] {
        enqueuer.assert_all_announced(&events, "python");
        let last = *enqueuer.acknowledged.lock().unwrap().last().unwrap();
        node.get(&format!("/api/v1/jobs/{last}")).await.expect(200);
    }
}

/// Q-13, H-2: without its database the node starts, says what is missing, does what needs none, and comes whole.
#[tokio::test]
async fn serve_starts_without_its_database_and_comes_whole() {
    let mut cluster = Cluster::start(ClusterOptions::default()).await;
    let url = cluster.create_database("minium").await;
    cluster.stop();
    let node = Node::start(Options { await_ready: false, ..Options::on(&url) }).await;
    assert_eq!(node.get("/healthz").await.status, 200);
    let problem = node.get("/readyz").await.problem(503, "unavailable");
    assert!(problem["down"].as_array().unwrap().contains(&json!("database")), "{problem}");
    node.post_json("/api/v1/jobs", &json!({ "task": "x" })).await.problem(503, "unavailable");

    // the bus knows no database
    let client = Foreign::perl();
    let mut subscriber = client.open(&node.ws("/sub/news")).await;
    assert_eq!(node.post("/pub/news", "all the same").await.status, 200);
    assert_eq!(subscriber.text().await, "all the same");

    cluster.restart().await;
    wait::until("the node to come whole", async || (node.get("/readyz").await.status == 200).then_some(()))
        .await;
    let mut events = client.open(&node.ws("/sub/task?after=earliest")).await;
    let id = node.enqueue(&json!({ "task": "x" })).await;
    assert_eq!(events.json().await["data"]["id"], id);
    assert_eq!(node.post("/pub/news", "still here").await.status, 200);
    assert_eq!(subscriber.text().await, "still here", "the session has survived");
    assert!(node.end(Signal::TERM).await.success());
}

/// a newer schema than the program knows is refused, with a clear word.
#[tokio::test]
async fn serve_refuses_a_newer_schema() {
    let database = Database::create().await;
    let node = Node::start(Options::on(database.url())).await;
    assert!(node.end(Signal::TERM).await.success());
    let newer = "insert into minium.migration (number, name, checksum) values (9999, 'of tomorrow', 'x')";
    database.connect().await.batch_execute(newer).await.unwrap();
    for command in ["serve", "migrate", "worker"] {
        let mut process = node.tokio_command();
        process.args([command, "--database", database.url()]);
        match command {
            "serve" => _ = process.args(["--listen", "127.0.0.1:0"]),
            "worker" => _ = process.args(["--task", "x=true"]),
            _ => {}
        }
        let output = wait::within(&format!("{command} to refuse"), process.output()).await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains("9999"), "{command}: {said}");
    }
}

/// a worker waits for a schema that is older than it until somebody has brought it up to date, and changes nothing itself.
#[tokio::test]
async fn a_worker_waits_for_an_older_schema() {
    let database = Database::create().await;
    let node = Node::start(Options::on(database.url())).await;
    let id = node.enqueue(&json!({ "task": "x" })).await;
    let client = database.connect().await;
    let older = "create temp table taken as select * from minium.migration order by number desc limit 1;
                 delete from minium.migration where number = (select number from taken)";
    client.batch_execute(older).await.unwrap();
    let log = node.log_file();
    let mut worker = node.tokio_command();
    worker.args(["worker", "--database", database.url(), "--task", "x=true"]).stderr(log);
    let _worker = worker.spawn().unwrap();
    wait::until("the worker to tell", async || node.log().contains("older than this worker").then_some(()))
        .await;
    assert_eq!(node.get(&format!("/api/v1/jobs/{id}")).await.expect(200)["state"], "inactive");
    client.batch_execute("insert into minium.migration select * from taken").await.unwrap();
    wait::until("the job to finish", async || {
        let job = node.get(&format!("/api/v1/jobs/{id}")).await.expect(200);
        (job["state"] == "finished").then_some(())
    })
    .await;
}
