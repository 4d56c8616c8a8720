//! A relay that cannot follow slows the claims, never the enqueues; without a relay nothing is slowed.

use super::{metric, metric_is, said, worker};
use crate::support::node::{Node, Options};
use crate::support::postgres::Database;
use crate::support::wait;
use rustix::process::Signal;
use serde_json::json;
use tokio_postgres::{Client, Transaction};

const CONFIG: &str = "[notifier]\nlag_events = 200\n[queue]\nlease_grace = \"0s\"\n";

/// The lock of `minium.journal_step`: who holds it numbers.
const HOLD: &str = "select pg_advisory_xact_lock(29958897753022828)";

/// A node that cannot follow its journal until the transaction is over.
async fn behind<'h>(database: &Database, holder: &'h mut Client) -> (Node, Transaction<'h>) {
    let node = Node::start(Options::on(database.url()).config(CONFIG)).await;
    let hold = holder.transaction().await.unwrap();
    hold.batch_execute(HOLD).await.unwrap();
    node.post("/api/v1/jobs", jobs(300)).await.expect(201);
    metric_is(&node, "minium_notifier_relay_behind", 1.0).await;
    (node, hold)
}

/// while the numbering is held up, the node says so, claims of its worker become few, and enqueues go on as they did; when it is
/// let go, claims are whole again.
#[tokio::test]
async fn a_relay_that_is_held_back_slows_claims_until_it_follows() {
    let database = Database::create().await;
    let mut holder = database.connect().await;
    let (node, hold) = behind(&database, &mut holder).await;
    assert!(metric(&node, "minium_notifier_journal_lag_events").await.is_some_and(|lag| lag > 200.0));
    // who claims now has heard of it with the first look
    let worker = worker(&node, database.url(), &[]);
    wait::until("the worker to be slowed", async || (said(&node, "claims are slowed.") > 0).then_some(()))
        .await;
    // enqueues are as many as before, and it is not they that wait
    for _ in 0..2 {
        node.post("/api/v1/jobs", jobs(50)).await.expect(201);
    }
    let figures = node.get("/api/v1/stats").await.expect(200);
    assert!(figures["inactive"].as_i64().unwrap() > 350, "claims are few: {figures}");

    hold.rollback().await.unwrap();
    metric_is(&node, "minium_notifier_relay_behind", 0.0).await;
    // at one a second they would not be so many in time
    wait::until("claims to be whole", async || {
        let jobs = node.get("/api/v1/jobs?state=finished&limit=100").await.expect(200);
        (jobs["jobs"].as_array().unwrap().len() == 100).then_some(())
    })
    .await;
    assert!(
        said(&node, "This node follows the journal again") == 1
            && said(&node, "cannot follow the journal") == 1
    );
    drop(worker);
}

/// nobody relays, so nobody is behind: a worker alone claims as fast as it can, though nothing is numbered.
#[tokio::test]
async fn without_a_relay_nothing_is_slowed() {
    let database = Database::create().await;
    let mut holder = database.connect().await;
    let (node, hold) = behind(&database, &mut holder).await;
    // it goes, and what it has said goes with it
    assert!(node.end(Signal::TERM).await.success());
    let _worker = worker(&node, database.url(), &[]);
    // at one a second they would not be so many in time
    wait::until("jobs to be run", async || {
        let run = "select count(*) from minium.job where state = 'finished'";
        let run: i64 = hold.query_one(run, &[]).await.unwrap().get(0);
        (run >= 100).then_some(())
    })
    .await;
    assert_eq!(said(&node, "claims are slowed."), 0);
}

fn jobs(count: usize) -> String {
    json!((0..count).map(|_| json!({ "task": "quick" })).collect::<Vec<_>>()).to_string()
}
