//! Recorders over HTTP: registered, moved, listed, forgotten; and who may.

use crate::support::http::Answer;
use crate::support::node::{Node, Options};
use crate::support::on_both;
use crate::support::wait;
use crate::trust::{Guarded, token};
use reqwest::Method;
use serde_json::{Value, json};

on_both! {
    /// P-12, P-13: registered with the first word, moved with each, forgotten at last.
    a_recorder_is_registered_moved_and_forgotten;
    /// P-12: one that says again and again where it is, and stays there, is seen to stand still.
    a_recorder_that_stands_still_is_seen;
    /// P-12: what cannot hold changes nothing.
    what_a_recorder_says_wrongly_is_refused;
}

async fn say(node: &Node, name: &str, body: &Value) -> Answer {
    say_as(node, name, body, &[]).await
}

async fn say_as(node: &Node, name: &str, body: &Value, headers: &[(&str, &str)]) -> Answer {
    let path = format!("/api/v1/recorders/{name}");
    node.request(Method::PUT, &path, headers, body.to_string()).await
}

/// Where a node's journal stands once it has one entry at least.
async fn position(node: &Node) -> (u64, u64) {
    wait::until("the journal to be relayed", async || {
        let stats = node.get("/api/v1/stats").await.expect(200);
        let (epoch, offset) = stats["position"].as_str()?.split_once(':')?;
        let position: (u64, u64) = (epoch.parse().unwrap(), offset.parse().unwrap());
        (position.1 > 0).then_some(position)
    })
    .await
}

async fn enqueue(node: &Node) {
    let body = json!({ "task": "x", "args": [] }).to_string();
    node.request(Method::POST, "/api/v1/jobs", &[], body).await.expect(201);
}

async fn a_recorder_is_registered_moved_and_forgotten(options: Options) {
    let node = Node::start(options).await;
    enqueue(&node).await;
    let (epoch, last) = position(&node).await;
    let at =
        |offset: u64| json!({ "position": format!("{epoch}:{offset}"), "topics": ["task", "livesys/+"] });
    assert_eq!(say(&node, "vault%2F1", &at(0)).await.status, 201);
    assert_eq!(say(&node, "vault%2F1", &at(last)).await.status, 204);
    let listed = node.get("/api/v1/recorders").await.expect(200);
    let recorders = listed["recorders"].as_array().unwrap();
    assert_eq!(recorders.len(), 1);
    let recorder = &recorders[0];
    assert_eq!(
        (&recorder["name"], &recorder["owner"], &recorder["offset"], &recorder["topics"]),
        (&json!("vault/1"), &json!(""), &json!(last), &json!(["task", "livesys/+"]))
    );
    assert!(recorder["confirmed"].as_str().unwrap() >= recorder["registered"].as_str().unwrap());
    assert_eq!(listed["position"], format!("{epoch}:{last}"));
    wait::until("the next round of retention to tell of it", async || {
        let metrics = String::from_utf8(node.get("/metrics").await.body).unwrap();
        metrics.contains("minium_notifier_recorders 1\n").then_some(())
    })
    .await;
    let forget = async || node.request(Method::DELETE, "/api/v1/recorders/vault%2F1", &[], "").await;
    assert_eq!(forget().await.status, 204);
    forget().await.problem(404, "not_found");
    assert_eq!(node.get("/api/v1/recorders").await.expect(200)["recorders"], json!([]));
}

async fn a_recorder_that_stands_still_is_seen(options: Options) {
    let node = Node::start(options.config("[recorders]\nhold_count = 1000\n")).await;
    enqueue(&node).await;
    let (epoch, at) = position(&node).await;
    let topics = |offset: u64| json!({ "position": format!("{epoch}:{offset}"), "topics": ["task"] });
    let behind = |entries: f64| {
        let (node, said) = (&node, topics(at));
        let what = format!("the recorder to be {entries} behind");
        async move {
            wait::until(&what, async || {
                // it lives, and does not get on
                say(node, "r", &said).await;
                let found = node.metric("minium_notifier_recorders_behind_entries").await;
                assert!(found <= entries, "{found} are too many");
                (found == entries).then_some(())
            })
            .await;
        }
    };
    say(&node, "r", &topics(at)).await;
    behind(0.0).await;
    enqueue(&node).await;
    behind(1.0).await;
    let first = node.metric("minium_notifier_recorders_behind_seconds").await;
    assert!(first > 0.0, "the event was there before the look");
    enqueue(&node).await;
    enqueue(&node).await;
    behind(3.0).await;
    let then = node.metric("minium_notifier_recorders_behind_seconds").await;
    assert!(then > first, "{then}, and {first} before");
    assert_eq!(node.metric("minium_notifier_recorders_hold_entries").await, 1_000.0);
    say(&node, "r", &topics(at + 3)).await;
    wait::until("nothing to be behind", async || {
        let none = node.metric("minium_notifier_recorders_behind_entries").await == 0.0;
        (none && node.metric("minium_notifier_recorders_behind_seconds").await == 0.0).then_some(())
    })
    .await;
}

async fn what_a_recorder_says_wrongly_is_refused(options: Options) {
    let node = Node::start(options).await;
    enqueue(&node).await;
    let (epoch, last) = position(&node).await;
    let at = |position: String, topics: Value| json!({ "position": position, "topics": topics });
    let here = format!("{epoch}:{last}");
    let refusals = [
        (at(format!("{epoch}:{}", last + 1), json!(["task"])), 400, "invalid_request"),
        (at(format!("{}:{last}", epoch + 1), json!(["task"])), 410, "epoch_changed"),
        (at("earliest".into(), json!(["task"])), 400, "invalid_request"),
        (at(here.clone(), json!([])), 400, "invalid_request"),
        (at(here.clone(), json!(["a//b"])), 400, "invalid_request"),
        (at(here.clone(), json!(vec!["task"; 101])), 400, "invalid_request"),
        (json!({ "position": here, "topics": ["task"], "name": "x" }), 400, "invalid_request"),
    ];
    for (body, status, code) in refusals {
        say(&node, "r", &body).await.problem(status, code);
    }
    let long = "x".repeat(201);
    say(&node, &long, &at(here.clone(), json!(["task"]))).await.problem(400, "invalid_request");
    assert_eq!(node.get("/api/v1/recorders").await.expect(200)["recorders"], json!([]));
}

/// P-14: a name belongs to the token's subject that registered it, who must be allowed to read what it follows.
#[tokio::test]
async fn a_recorder_belongs_to_whoever_registered_it() {
    let guarded = Guarded::start("[auth.anonymous]\nscopes = [\"sub:task\"]\n").await;
    let node = &guarded.node;
    let bearer = |scopes: &str| format!("Bearer {}", token(scopes));
    let (ours, admin) = (bearer("sub:task/import"), bearer("admin"));
    let body = |topic: &str, position: &str| json!({ "position": position, "topics": [topic] });
    let stats =
        node.request(Method::GET, "/api/v1/stats", &[("authorization", &admin)], "").await.expect(200);
    let begin = stats["position"].as_str().unwrap_or("1:0").to_owned();
    say(node, "r", &body("task", &begin)).await.problem(401, "unauthorized");
    say_as(node, "r", &body("task", &begin), &[("authorization", &ours)]).await.problem(403, "forbidden");
    let said = say_as(node, "r", &body("task/import", &begin), &[("authorization", &ours)]).await;
    assert_eq!(said.status, 201);
    let list =
        node.request(Method::GET, "/api/v1/recorders", &[("authorization", &admin)], "").await.expect(200);
    assert_eq!(list["recorders"][0]["owner"], "ops/tester");
    let forget = async |headers: &[(&str, &str)]| {
        node.request(Method::DELETE, "/api/v1/recorders/r", headers, "").await
    };
    forget(&[]).await.problem(401, "unauthorized");
    let none = node.request(Method::DELETE, "/api/v1/recorders/none", &[], "").await;
    none.problem(401, "unauthorized"); // nor whether there is one
    let other = format!("Bearer {}", crate::trust::token_of("another", "sub:task"));
    say_as(node, "r", &body("task", &begin), &[("authorization", &other)]).await.problem(403, "forbidden");
    forget(&[("authorization", &other)]).await.problem(403, "forbidden");
    assert_eq!(forget(&[("authorization", &ours)]).await.status, 204);
}
