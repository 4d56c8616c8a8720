//! Failover to a standby that is promoted, by streaming replication. The node has both in its URL.

use super::{CONFIG, all_run, assert_one_outcome_per_run, assert_works_on, worker};
use crate::faults::{Enqueuer, is_last};
use crate::support::curl::Stream;
use crate::support::events::{TaskEvent, follow};
use crate::support::foreign::Foreign;
use crate::support::node::{Node, Options};
use crate::support::postgres::{Cluster, ClusterOptions, connect};
use crate::support::wait;
use serde_json::json;
use std::sync::atomic::{AtomicBool, Ordering};

const PRIMARY: ClusterOptions =
    ClusterOptions { fsync: true, tls_port: None, settings: &["wal_level=replica"] };

/// P-4, Q-40: what an asynchronous standby had not yet is gone with the primary. Whoever knows a number of it is told, and no number
/// is given twice within an epoch.
#[tokio::test]
async fn readers_learn_that_an_asynchronous_standby_was_behind() {
    let mut primary = Cluster::start(PRIMARY).await;
    primary.create_database("minium").await;
    let mut standby = primary.standby(ClusterOptions::default()).await;
    let node = Node::start(Options::on(&primary.url_with(&standby, "minium")).config(CONFIG)).await;
    let kept = node.enqueue(&json!({ "task": "kept" })).await;
    follow(&Foreign::perl(), &node, "task", |e| e.job() == kept, |_| ()).await;
    let (sent, replayed) =
        ("select pg_current_wal_flush_lsn()::text", "select pg_last_wal_replay_lsn() >= $1::text::pg_lsn");
    let admin = connect(&primary.url("postgres")).await.unwrap();
    let upto: String = admin.query_one(sent, &[]).await.unwrap().get(0);
    wait::until("the standby to have the first job", async || {
        let follower = connect(&standby.url("postgres")).await.ok()?;
        follower.query_one(replayed, &[&upto]).await.unwrap().get::<_, Option<bool>>(0).filter(|there| *there)
    })
    .await;
    // from here on the standby hears of nothing
    standby.stop();
    let lost: Vec<i64> =
        [node.enqueue(&json!({ "task": "lost" })).await, node.enqueue(&json!({ "task": "lost" })).await]
            .into();
    let before = follow(&Foreign::perl(), &node, "task", |e| e.job() == lost[1], |_| ()).await;
    let known = before.last().unwrap().position();

    primary.kill();
    standby.restart().await;
    standby.promote().await;
    node.whole().await;
    let next = wait::until("an enqueue", async || {
        let answer = node.post_json("/api/v1/jobs", &json!({ "task": "next" })).await;
        (answer.status == 201).then(|| answer.json()["id"].as_i64().unwrap())
    })
    .await;
    node.get(&format!("/api/v1/jobs/{kept}")).await.expect(200);
    // a position of the numbering that is gone is refused, with the first that can be had
    let headers = [("Last-Event-ID", known.as_str()), ("Accept", "text/event-stream")];
    wait::until("the position to be refused", async || {
        let answer = node.request(reqwest::Method::GET, "/sub/task", &headers, "").await;
        (answer.status != 503).then(|| answer.problem(410, "epoch_changed"))
    })
    .await;
    let events = follow(&Foreign::perl(), &node, "task", |e| e.job() == next, |_| ()).await;
    let last = events.last().unwrap();
    assert_eq!((last.epoch(), last.task()), (before[0].epoch() + 1, "next"));
    let offsets: Vec<u64> = events.iter().map(TaskEvent::offset).collect();
    assert_eq!(offsets, (1..=events.len() as u64).collect::<Vec<_>>(), "dense, and upward");
    assert!(events.iter().all(|e| e.task() != "lost"), "what is gone is gone");
    // and the stream goes on where it now is
    let resumed = Stream::try_open(&node.http("/sub/task"), &[("Last-Event-ID", &last.position())]).await;
    assert_eq!(resumed.unwrap().status, 200);
    node.assert_well().await;
}

/// with a synchronous standby nothing that was acknowledged is lost when the primary is killed under load; node and
/// worker go over to it by themselves.
#[tokio::test]
async fn nothing_is_lost_with_a_synchronous_standby() {
    let mut primary = Cluster::start(PRIMARY).await;
    primary.create_database("minium").await;
    let standby = primary.standby(ClusterOptions { fsync: true, ..ClusterOptions::default() }).await;
    let admin = connect(&primary.url("postgres")).await.unwrap();
    admin.batch_execute("alter system set synchronous_standby_names = '*'").await.unwrap();
    admin.batch_execute("select pg_reload_conf()").await.unwrap();
    wait::until("the standby to be synchronous", async || {
        let row =
            admin.query_opt("select from pg_stat_replication where sync_state = 'sync'", &[]).await.unwrap();
        row.map(drop)
    })
    .await;
    let url = primary.url_with(&standby, "minium");
    let node = Node::start(Options::on(&url).config(CONFIG)).await;
    let mut worker = worker(&node, &url, &[]);
    let stop = AtomicBool::new(false);
    let stopped = || stop.load(Ordering::Relaxed);
    let enqueuer = Enqueuer::default();
    let acked = || enqueuer.acknowledged.lock().unwrap().len();
    let failing = async {
        wait::until("jobs before the failover", async || (acked() >= 100).then_some(())).await;
        primary.kill();
        standby.promote().await;
        // what it waits for now is a standby of its own
        let admin = connect(&standby.url("postgres")).await.unwrap();
        admin.batch_execute("alter system set synchronous_standby_names = ''").await.unwrap();
        admin.batch_execute("select pg_reload_conf()").await.unwrap();
        let goal = acked() + 50;
        wait::until("jobs after the failover", async || (acked() >= goal).then_some(())).await;
        stop.store(true, Ordering::Relaxed);
    };
    let enqueuing = async {
        tokio::join!(
            enqueuer.run_batches(&node, "quick", 2, stopped),
            enqueuer.run_batches(&node, "quick", 1, stopped)
        );
        all_run(&node).await;
        enqueuer.end(&node).await;
    };
    tokio::join!(failing, enqueuing);
    let events = follow(&Foreign::perl(), &node, "task", is_last, |_| ()).await;
    enqueuer.assert_all_announced(&events, "perl");
    assert_one_outcome_per_run(&events);
    let offsets: Vec<u64> = events.iter().map(TaskEvent::offset).collect();
    assert_eq!(offsets, (1..=events.len() as u64).collect::<Vec<_>>(), "offsets go on over the failover");
    assert_eq!(events[0].epoch(), 2, "another numbering");
    assert_works_on(&mut worker);
    node.assert_well().await;
}
