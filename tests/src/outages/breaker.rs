//! The database is away, or silent: what needs it is refused at once, and everything else goes on.

use super::{metric_is, said};
use crate::support::foreign::Foreign;
use crate::support::node::{Node, Options};
use crate::support::postgres::{Cluster, ClusterOptions};
use crate::support::wait;
use serde_json::json;

const CONFIG: &str = "[channels.kept]\ndurable = true\n";

/// So many requests, one after the other, are answered within one wait of a test ([`wait::DEADLINE`]): a connection that is waited
/// for takes 3 s at least.
const REQUESTS: usize = 200;

/// Everything that asks the database.
async fn everything_is_refused(node: &Node) {
    for _ in 0..REQUESTS / 5 {
        let answers = [
            node.post_json("/api/v1/jobs", &json!({ "task": "x" })).await,
            node.get("/api/v1/stats").await,
            node.post("/pub/kept/a", "{}").await,
            node.post("/push/kept/a", "{}").await,
            node.get("/history/kept").await,
        ];
        for answer in answers {
            answer.problem(503, "unavailable");
            assert_eq!(answer.header("retry-after"), "2");
        }
    }
}

/// Q-40, H-2: with a server that takes connections and never answers, the first request is given up after a bounded time, all that follow
/// are refused at once, on sockets too; the bus without a database goes on; it is said once, and all comes whole.
#[tokio::test]
async fn a_silent_database_refuses_at_once() {
    let cluster = Cluster::start(ClusterOptions::default()).await;
    let url = cluster.create_database("minium").await;
    let node = Node::start(Options::on(&url).config(CONFIG)).await;
    let client = Foreign::python();
    let mut socket = client.open_with(&node.ws("/ws"), json!({ "subprotocols": ["minium.v1"] })).await;
    let mut subscriber = client.open(&node.ws("/sub/news")).await;
    node.enqueue(&json!({ "task": "x" })).await;

    cluster.freeze();
    // whoever is first waits, but not for ever
    node.post_json("/api/v1/jobs", &json!({ "task": "x" })).await.problem(503, "unavailable");
    wait::within("every request to be refused at once", everything_is_refused(&node)).await;
    let ask = async {
        for n in 0..REQUESTS {
            let frame = json!({"op":"push","topic":"kept/a","data":[n],"ref":n.to_string()});
            socket.send(&frame.to_string()).await;
            let answer = socket.json().await;
            assert_eq!(
                (&answer["ref"], &answer["problem"]["code"]),
                (&json!(n.to_string()), &json!("unavailable")),
                "{answer}"
            );
        }
    };
    wait::within("every push to be refused at once", ask).await;
    // what lies unread behind a publish that failed must fail, too (V-6)
    socket.send(&json!({"op":"pub","topic":"kept/a","data":1,"ref":"p"}).to_string()).await;
    let answer = socket.json().await;
    assert_eq!(
        (&answer["ref"], &answer["problem"]["code"]),
        (&json!("p"), &json!("unavailable")),
        "{answer}"
    );
    assert_eq!(socket.closed().await, 1013);
    assert_eq!(node.post("/pub/news", "all the same").await.status, 200);
    assert_eq!(subscriber.text().await, "all the same");
    metric_is(&node, "minium_queue_database_available", 0.0).await;
    let problem = node.get("/readyz").await.problem(503, "unavailable");
    assert!(problem["down"].as_array().unwrap().contains(&json!("database")), "{problem}");

    cluster.thaw();
    node.whole().await;
    node.enqueue(&json!({ "task": "x" })).await;
    node.post("/pub/kept/a", "{}").await.expect(200);
    metric_is(&node, "minium_queue_database_available", 1.0).await;
    metric_is(&node, "minium_queue_database_outages_total", 1.0).await;
    assert_eq!((said(&node, "The database is away"), said(&node, "The database is back")), (1, 1));
}

/// a database that refuses is told from one that refuses us.
#[tokio::test]
async fn a_database_that_goes_is_told_with_its_reason() {
    let mut cluster = Cluster::start(ClusterOptions::default()).await;
    let url = cluster.create_database("minium").await;
    let node = Node::start(Options::on(&url)).await;
    cluster.stop();
    wait::until("the node to notice", async || (said(&node, "The database is away") == 1).then_some(()))
        .await;
    wait::within("every request to be refused", async {
        for _ in 0..REQUESTS {
            node.post_json("/api/v1/jobs", &json!({ "task": "x" })).await.problem(503, "unavailable");
        }
    })
    .await;
    cluster.restart().await;
    node.whole().await;
    let rename = "alter database minium rename to other";
    let end = "select pg_terminate_backend(pid) from pg_stat_activity where datname = 'minium'";
    let admin = crate::support::postgres::connect(&cluster.url("postgres")).await.unwrap();
    wait::until("the database to be renamed", async || {
        admin.simple_query(end).await.unwrap();
        admin.batch_execute(rename).await.ok()
    })
    .await;
    wait::until("the reason in the log", async || {
        (said(&node, "it is there and does not let us in") > 0).then_some(())
    })
    .await;
    admin.batch_execute("alter database other rename to minium").await.unwrap();
    node.whole().await;
    node.enqueue(&json!({ "task": "x" })).await;
}
