//! Sinks as recorders: where they begin, that the journal waits for them, and that it lets go of those that are gone.

use super::{Receiver, SOON, enqueue, recorders, registered, webhook};
use crate::support::node::{Node, Options};
use crate::support::on_both;
use crate::support::postgres::connect;
use crate::support::wait;

on_both! {
    /// O-5: a new sink begins now, or with what is kept; a known one where it was.
    a_sink_begins_where_it_is_told_to;
    /// O-5: a sink that no node has any more is let go of, after a while.
    a_sink_that_is_configured_no_more_is_let_go_of;
}

async fn a_sink_begins_where_it_is_told_to(options: Options) {
    let receiver = Receiver::good().await;
    let mut node = Node::start(options.config("")).await;
    let first = enqueue(&node).await;
    wait::until("the first event to be numbered", async || {
        node.get("/history/task").await.text().contains("task.enqueue").then_some(())
    })
    .await;
    node.kill().await;
    let (now, earliest) = (
        webhook("now", &receiver.url("/now"), ""),
        webhook("all", &receiver.url("/all"), "from = \"earliest\""),
    );
    node.reconfigure(&format!("{SOON}{now}{earliest}"));
    node.restart().await;
    registered(&node, &["now", "all"]).await;
    let second = enqueue(&node).await;
    let came = async |path: &str| -> Vec<i64> {
        let heard = receiver.heard().into_iter().filter(|one| one.path == path);
        let mut ids: Vec<i64> = heard.map(|one| one.json()["data"]["id"].as_i64().unwrap()).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    };
    let all = async |path: &str, wanted: &[i64]| {
        wait::until(&format!("{wanted:?} at {path}"), async || (came(path).await == wanted).then_some(()))
            .await;
    };
    all("/all", &[first, second]).await;
    all("/now", &[second]).await;
    // away for a while, it misses nothing, and what it had does not come again
    node.reconfigure(SOON);
    node.kill().await;
    node.restart().await;
    let third = enqueue(&node).await;
    node.reconfigure(&format!("{SOON}{now}{earliest}"));
    node.kill().await;
    node.restart().await;
    all("/now", &[second, third]).await;
    all("/all", &[first, second, third]).await;
    assert_eq!(super::done(&node, 5).await.len(), 5);
}

async fn a_sink_that_is_configured_no_more_is_let_go_of(options: Options) {
    let receiver = Receiver::good().await;
    let stays = webhook("stays", &receiver.url("/"), "");
    let goes = webhook("goes", &receiver.url("/"), "");
    let mut node = Node::start(options.config(&format!("{stays}{goes}"))).await;
    registered(&node, &["stays", "goes"]).await;
    node.reconfigure(&stays);
    node.kill().await;
    node.restart().await;
    wait::until("the node to say that a sink is not its own", async || {
        node.log().contains("The journal waits for a sink that this node does not have").then_some(())
    })
    .await;
    assert_eq!(recorders(&node).await, ["sink/goes", "sink/stays"], "another node may have it");
    node.kill().await;
    silent_since_yesterday(&node, "goes").await;
    node.restart().await;
    wait::until("the sink to be let go of", async || {
        (recorders(&node).await == ["sink/stays"]).then_some(())
    })
    .await;
    wait::until("the log to say so", async || {
        node.log().contains("the journal does not wait for it").then_some(())
    })
    .await;
}

/// As if no node had followed it for a day. Nobody has the database now.
async fn silent_since_yesterday(node: &Node, sink: &str) {
    let name = format!("sink/{sink}");
    let url = node.database();
    let changed = match url.strip_prefix("sqlite:") {
        Some(file) => {
            let conn = rusqlite::Connection::open(file).unwrap();
            let sql = "update recorder set confirmed = confirmed - 86400000000 where name = ?1";
            conn.execute(sql, [&name]).unwrap() as u64
        }
        None => {
            let sql = "update minium.recorder set confirmed = confirmed - interval '1 day' where name = $1";
            connect(&url).await.unwrap().execute(sql, &[&name]).await.unwrap()
        }
    };
    assert_eq!(changed, 1);
}
