//! Rates over HTTP.

use super::{Guarded, bearer, signed, token};
use crate::support::foreign::Foreign;
use crate::support::node::{Node, Options};
use crate::support::raw::Raw;
use reqwest::Method;
use serde_json::json;

///
#[tokio::test]
async fn a_token_that_sends_too_fast_is_told_to_wait_and_nobody_else() {
    let guarded = Guarded::start("[auth.limits]\nmessages_per_second = 1\nmessages_burst = 3").await;
    let node = &guarded.node;
    let (busy, other) = (
        bearer(&token("pub:a jobs:write")),
        bearer(&signed(&json!({ "sub": "other", "exp": super::now() + 60, "scope": "pub:a" }))),
    );
    let send =
        async |value: &str| node.request(Method::POST, "/pub/a", &[("authorization", value)], "x").await;
    let mut refused = None;
    for _ in 0..100 {
        let answer = send(&busy).await;
        if answer.status != 200 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("a hundred are more than three and what comes back meanwhile");
    let problem = refused.problem(429, "rate_limited");
    assert!(problem["retryable"].as_bool().unwrap());
    assert!(refused.header("retry-after").parse::<u32>().unwrap() >= 1);
    assert_eq!(send(&other).await.status, 200);
    // to look costs nothing
    assert_eq!(node.request(Method::GET, "/api/v1/jobs", &[("authorization", &busy)], "").await.status, 200);
    assert_eq!(node.request(Method::POST, "/pub/b", &[("authorization", &busy)], "x").await.status, 403);
}

/// sockets and requests of one token share its rate.
#[tokio::test]
async fn a_socket_that_sends_too_fast_is_told_and_lives() {
    let guarded = Guarded::start("[auth.limits]\nmessages_per_second = 1\nmessages_burst = 3").await;
    let node = &guarded.node;
    let value = bearer(&token("pub:a"));
    for client in Foreign::each() {
        let with = json!({ "headers": { "Authorization": value } });
        let mut session = client.open_with(&node.ws("/pub/a"), with).await;
        for _ in 0..20 {
            session.send("x").await;
        }
        let problem = session.json().await["problem"].clone();
        assert_eq!(
            (&problem["code"], &problem["retryable"]),
            (&"rate_limited".into(), &true.into()),
            "{problem}"
        );
    }
    node.assert_well().await;
}

///
#[tokio::test]
async fn an_address_that_opens_or_sends_too_fast_is_told_to_wait() {
    let config = "[server.limits]\nopenings_per_second = 1\nopenings_burst = 2\nsession_messages_per_second = 1\nsession_messages_burst = 2";
    let node = Node::start(Options::memory().config(config)).await;
    let mut open = Vec::new();
    let refused = loop {
        let mut raw = Raw::connect(&node).await;
        raw.write(Raw::handshake(&node, "/sub/a", "").as_bytes()).await;
        let head = raw.head().await.unwrap();
        match head.status {
            101 => open.push(raw),
            _ => break head,
        }
        assert!(open.len() < 100, "a hundred are more than two and what comes back meanwhile");
    };
    assert_eq!((refused.status, refused.headers.contains_key("retry-after")), (429, true), "{refused:?}");
    assert!(open.len() >= 2);
    for _ in 0..20 {
        assert_eq!(node.get("/history/task").await.status, 200, "it opens no session");
    }
    let mut sent = 0;
    while node.post("/pub/a", "x").await.status == 200 {
        sent += 1;
        assert!(sent < 100);
    }
    node.post("/pub/a", "x").await.problem(429, "rate_limited");
    assert!(sent >= 2);
    // the probes of whoever looks after it are never refused
    node.assert_well().await;
}
