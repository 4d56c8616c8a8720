//! pgbouncer in transaction mode: each transaction has another session of the server, whoever asks.

use super::{CONFIG, all_run, assert_one_outcome_per_run, assert_works_on, worker};
use crate::faults::{Enqueuer, is_last};
use crate::support::events::{TaskEvent, assert_dense, follow};
use crate::support::foreign::Foreign;
use crate::support::node::{Node, Options};
use crate::support::pooler::Pooler;
use crate::support::postgres::{Cluster, ClusterOptions};
use crate::support::wait;
use serde_json::json;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// P-3: the whole road through it, also over a restart of the server behind it: two nodes and a worker share three sessions. Enqueued,
/// claimed, run, told to subscribers, handed in.
#[tokio::test]
async fn the_whole_road_goes_through_pgbouncer() {
    let mut cluster = Cluster::start(ClusterOptions { fsync: true, ..ClusterOptions::default() }).await;
    cluster.create_database("minium").await;
    let pooler = Pooler::start(cluster.socket_dir(), "minium", 3).await;
    let config =
        format!("{CONFIG}[server]\npublic_url = \"http://minium.test\"\n[channels.kept]\ndurable = true\n");
    let options = Options::on(&pooler.url()).config(&config);
    let (node, other) = (Node::start(options.clone()).await, Node::start(options).await);
    let mut worker = worker(&node, &pooler.url(), &[]);
    let (seen, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let stopped = || stop.load(Ordering::Relaxed);
    let enqueuer = Enqueuer::default();
    let upto = async |count: u64| {
        let goal = seen.load(Ordering::Relaxed) + count;
        wait::until("more events", async || (seen.load(Ordering::Relaxed) >= goal).then_some(())).await;
    };
    let breaking = async {
        upto(200).await;
        cluster.stop_immediately();
        wait::until("the node to notice", async || (node.get("/readyz").await.status == 503).then_some(()))
            .await;
        cluster.restart().await;
        node.whole().await;
        upto(200).await;
        stop.store(true, Ordering::Relaxed);
    };
    let enqueuing = async {
        tokio::join!(
            enqueuer.run_batches(&node, "quick", 2, stopped),
            enqueuer.run_batches(&other, "quick", 1, stopped)
        );
        all_run(&node).await;
        enqueuer.end(&node).await;
    };
    let counting = |_: &TaskEvent| _ = seen.fetch_add(1, Ordering::Relaxed);
    let (perl, python) = (Foreign::perl(), Foreign::python());
    let all = async {
        tokio::join!(
            breaking,
            enqueuing,
            follow(&perl, &node, "task", is_last, counting),
            follow(&python, &other, "task", is_last, |_| ()),
        )
    };
    let ((), (), by_perl, by_python) = Box::pin(all).await;
    for (who, events) in [("perl", &by_perl), ("python", &by_python)] {
        assert_dense(events, who);
        enqueuer.assert_all_announced(events, who);
        assert_one_outcome_per_run(events);
    }
    // what clients publish, and jobs that have more to them
    node.whole().await;
    node.post("/pub/kept/a", "{}").await.expect(200);
    let parent = node.enqueue(&json!({ "task": "quick" })).await;
    let child = node.enqueue(&json!({ "task": "quick", "parents": [parent], "key": "one" })).await;
    wait::until("the child to finish", async || {
        let job = node.get(&format!("/api/v1/jobs/{child}")).await.expect(200);
        (job["state"] == "finished").then_some(())
    })
    .await;
    node.get("/api/v1/stats").await.expect(200);
    assert_works_on(&mut worker);
    node.assert_well().await;
    other.assert_well().await;
}
