//! `minium doctor --url`: a node that runs, from the outside.

use super::Found;
use crate::support::node::{Node, Options};
use crate::support::on_both;
use crate::trust::{Guarded, token};
use serde_json::json;

on_both! {
    /// A message and a job's event come through, and nothing is left but two events.
    a_round_trip_leaves_nothing_behind;
}

async fn a_round_trip_leaves_nothing_behind(options: Options) {
    let node = Node::start(options).await;
    let url = node.http("");
    let found = Found::of(&node, &["--url", &url], &[]).await;
    found.is_well();
    assert!(found.with("warn ").is_empty(), "{:#?}", found.lines);
    found.has("ok node: ", &["is ready"]);
    found.has("ok clock.node: ", &["this machine's"]);
    found.has("ok node.figures: ", &["workers"]);
    found.has("ok node.message: ", &["published after", "received in"]);
    found.has("ok node.job: ", &["enqueued after", "its event came after", "removed in"]);
    let jobs = node.get("/api/v1/jobs").await.expect(200);
    assert_eq!(jobs["jobs"], json!([]));
    let history = node.get("/history/task/minium-doctor").await.expect(200);
    let kinds: Vec<_> = history["messages"].as_array().unwrap().iter().map(|m| m["type"].clone()).collect();
    assert_eq!(kinds, ["task.enqueue", "task.removed"], "{history}");
    assert_eq!(
        node.get("/api/v1/sessions").await.expect(200)["sessions"],
        json!([]),
        "its sessions are closed"
    );
}

/// A node that is away, or not whole.
#[tokio::test]
async fn a_node_that_is_away_or_not_whole_is_told() {
    let node = Node::start(Options { await_ready: false, ..Options::on("postgres://x@127.0.0.1:1/x") }).await;
    let found = Found::of(&node, &["--url", &node.http("")], &[]).await;
    found.has("fail node: ", &["database"]);
    // messages need no database
    found.has("ok node.message: ", &["received"]);
    assert_eq!(found.with("fail node.job: ").len(), 1, "{:#?}", found.lines);
    let found = Found::of(&node, &["--url", "http://127.0.0.1:1"], &[]).await;
    found.has("fail node: ", &["no server at", "→"]);
}

/// What a token may not do is not tried, and the scopes that it lacks are named.
#[tokio::test]
async fn scopes_that_a_token_lacks_are_named() {
    let Guarded { node, .. } = &Guarded::start("").await;
    let url = node.http("");
    let look =
        async |scopes: &str| Found::of(node, &["--url", &url], &[("MINIUM_TOKEN", &token(scopes))]).await;
    let all = look("admin").await;
    all.is_well();
    assert!(all.with("warn ").is_empty(), "{:#?}", all.lines);
    let enough = look("sub:minium-doctor pub:minium-doctor sub:task jobs:write").await;
    assert!(enough.code == Some(0) && enough.with("warn ").is_empty(), "{:#?}", enough.lines);
    let reader = look("jobs:read").await;
    reader.is_well();
    reader.has("warn node.message: ", &["sub:minium-doctor pub:minium-doctor"]);
    reader.has("warn node.job: ", &["jobs:write"]);
    let blind = look("jobs:write").await;
    blind.is_well();
    blind.has("warn node.job: ", &["its events may not be seen", "sub:task"]);
    let talker = look("sub:minium-doctor pub:minium-doctor").await;
    talker.is_well();
    talker.has("ok node.message: ", &["received"]);
    talker.has("warn node.figures: ", &["jobs:read"]);
    let nobody = Found::of(node, &["--url", &url], &[]).await;
    nobody.has("fail node.figures: ", &["MINIUM_TOKEN"]);
    assert_eq!(node.get("/readyz").await.status, 200);
}
