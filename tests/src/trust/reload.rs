//! SIGHUP: the rules are read again, and who is there is judged anew.

use super::{Guarded, bearer, token};
use crate::support::curl::Stream;
use crate::support::foreign::Foreign;
use crate::support::node::{Node, Options};
use crate::support::wait;
use reqwest::Method;
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

/// Writes a configuration, sends SIGHUP and waits until the log has one line more with `said`.
async fn reload(node: &Node, config: &str, said: &str) {
    let count = |node: &Node| node.log().matches(said).count();
    let before = count(node);
    std::fs::write(node.dir().join("minium.toml"), config).unwrap();
    kill_process(node.pid(), Signal::HUP).unwrap();
    wait::until(said, async || (count(node) > before).then_some(())).await;
}

const READ: &str = "Who may do what was read again.";
const KEPT: &str = "it stays as it was";

async fn end(stream: &mut Stream) -> Value {
    let event = stream.event().await;
    assert_eq!(event.name.as_deref(), Some("close"), "{event:?}");
    let code = serde_json::from_str::<Value>(&event.data).unwrap()["code"].clone();
    assert_eq!(stream.next().await, None);
    code
}

///
#[tokio::test]
async fn sessions_end_whose_key_is_gone_or_whose_scopes_no_longer_suffice() {
    let guarded = Guarded::start("[auth.anonymous]\nscopes = [\"sub:public\"]").await;
    let node = &guarded.node;
    let value = bearer(&token("sub:a pub:public"));
    let client = Foreign::python();
    let headers = json!({ "headers": { "Authorization": value } });
    let mut by_token = Stream::open(&node.http("/sub/a"), &[("authorization", &value)]).await;
    let mut socket_by_token = client.open_with(&node.ws("/sub/a"), headers).await;
    let mut public = Stream::open(&node.http("/sub/public"), &[]).await;
    let mut public_socket = client.open(&node.ws("/sub/public")).await;
    let rules =
        |scopes: &str| Guarded::config(&guarded.secret(), &format!("[auth.anonymous]\nscopes = [{scopes}]"));

    // more for everybody: nobody notices
    reload(node, &rules("\"sub:+\", \"pub:public\""), READ).await;
    assert_eq!(node.post("/pub/public", "hello").await.status, 200);
    assert_eq!((public.event().await.data, public_socket.text().await), ("hello".into(), "hello".into()));

    // less
    reload(node, &rules("\"sub:news\""), READ).await;
    assert_eq!((end(&mut public).await, public_socket.closed().await), (4503.into(), 4503));
    assert_eq!(node.get("/sub/public").await.status, 401);

    // another secret under the same name: tokens of the old one are nobody's
    std::fs::write(guarded.secret(), "another secret of thirty-two bytes").unwrap();
    reload(node, &rules(""), READ).await;
    assert_eq!((end(&mut by_token).await, socket_by_token.closed().await), (4501.into(), 4501));
    let answer = node.request(Method::POST, "/pub/public", &[("authorization", &value)], "x").await;
    assert_eq!(answer.status, 401);
    node.assert_well().await;
}

/// what is wrong changes nothing.
#[tokio::test]
async fn rules_that_cannot_be_read_leave_those_before() {
    let guarded = Guarded::start("").await;
    let node = &guarded.node;
    let value = bearer(&token("sub:a pub:a"));
    let mut stream = Stream::open(&node.http("/sub/a"), &[("authorization", &value)]).await;
    let good = Guarded::config(&guarded.secret(), "");
    for bad in [
        "[auth.keys.ops]\nalgorithm = \"none\"".to_owned(),
        "colour = ".to_owned(),
        good.replace("ops.key", "nowhere.key"),
    ] {
        reload(node, &bad, KEPT).await;
        let answer = node.request(Method::POST, "/pub/a", &[("authorization", &value)], "hello").await;
        assert_eq!(answer.status, 200, "{bad}");
        assert_eq!(stream.event().await.data, "hello");
    }
    assert_eq!(node.get("/api/v1/jobs").await.status, 401);
}

/// an open node begins to ask.
#[tokio::test]
async fn a_node_that_was_open_can_begin_to_ask() {
    let keys = tempfile::tempdir().unwrap();
    let secret = keys.path().join("ops.key");
    std::fs::write(&secret, super::SECRET).unwrap();
    let node = Node::start(Options::memory()).await;
    let mut stream = Stream::open(&node.http("/sub/a"), &[]).await;
    // an open node has no use for a token, and does not look at one
    assert_eq!(
        node.request(Method::GET, "/api/v1/jobs", &[("authorization", "Bearer x")], "").await.status,
        200
    );
    reload(&node, &Guarded::config(&secret, ""), READ).await;
    assert_eq!(end(&mut stream).await, 4503);
    assert_eq!(node.get("/api/v1/jobs").await.status, 401);
    let value = bearer(&token("jobs:write"));
    let body = json!({ "task": "x", "args": [] }).to_string();
    let headers = [("authorization", value.as_str()), ("content-type", "application/json")];
    node.request(Method::POST, "/api/v1/jobs", &headers, body).await.expect(201);
    // and by any name, now that it asks
    let named = [("authorization", value.as_str()), ("host", "minium.example")];
    assert_eq!(node.request(Method::GET, "/api/v1/jobs", &named, "").await.status, 200);
}
