//! What pages of other origins may ask: nothing, unless their origin is listed.

use crate::clients::sdk::page_script;
use crate::support::node::{Node, Options};
use crate::support::wait;
use reqwest::Method;
use serde_json::json;
use std::process::Stdio;

const LISTED: &str =
    "[auth]\nallowed_origins = [\"https://dash.example\"]\n[auth.anonymous]\nscopes = [\"jobs:write\"]";

/// H-3: a preflight is answered for a listed origin, and the answer may be read; for any other it is 401.
#[tokio::test]
async fn a_listed_origin_is_answered_and_no_other() {
    let (listed, usual) = (Node::start(Options::memory().config(LISTED)).await, Node::memory().await);
    let preflight = async |node: &Node, origin: &str| {
        let headers = [
            ("origin", origin),
            ("access-control-request-method", "DELETE"),
            ("access-control-request-headers", "authorization,if-none-match"),
        ];
        node.request(Method::OPTIONS, "/api/v1/jobs/1", &headers, "").await
    };
    let answer = preflight(&listed, "https://dash.example").await;
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    assert_eq!(answer.header("access-control-allow-origin"), "https://dash.example");
    assert!(answer.header("vary").to_lowercase().contains("origin"));
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        assert!(answer.header("access-control-allow-methods").contains(method), "{answer:?}");
    }
    let allowed = answer.header("access-control-allow-headers").to_lowercase();
    for header in ["authorization", "content-type", "if-none-match", "idempotency-key"] {
        assert!(allowed.contains(header), "{allowed}");
    }
    let id = listed.enqueue(&json!({ "task": "t" })).await;
    let path = format!("/api/v1/jobs/{id}");
    let read = listed.request(Method::GET, &path, &[("origin", "https://dash.example")], "").await;
    assert_eq!((read.status, read.header("access-control-allow-origin")), (200, "https://dash.example"));
    assert!(read.header("access-control-expose-headers").contains("ETag"));
    assert_eq!(read.header("access-control-allow-credentials"), "", "cookies never authenticate");
    let others = ["https://evil.example", "http://dash.example", "https://dash.example.evil.example", "null"];
    for (node, origins) in [(&listed, &others[..]), (&usual, &["https://dash.example"])] {
        for origin in origins {
            for answer in [
                preflight(node, origin).await,
                node.request(Method::GET, "/api/v1/jobs", &[("origin", origin)], "").await,
            ] {
                assert_eq!((answer.status, answer.text()), (401, "Origin check failed"), "{origin}");
                assert_eq!(answer.header("access-control-allow-origin"), "", "{origin}");
            }
        }
    }
    // an own origin needs no list, and OPTIONS is no method of ours without a preflight
    let own = preflight(&usual, &usual.http("")).await;
    assert_eq!(own.header("access-control-allow-origin"), "");
}

/// H-3: the same in Chromium, whose pages are held by it.
#[tokio::test]
async fn a_page_of_another_origin_reads_where_it_is_listed() {
    let home = Node::memory().await;
    let origin = home.http("");
    let config = format!(
        "[auth]\nallowed_origins = [{:?}]\n[auth.anonymous]\nscopes = [\"jobs:write\"]",
        origin.trim_end_matches('/')
    );
    let listed = Node::start(Options::memory().config(&config)).await;
    let other = Node::memory().await;
    let id = listed.enqueue(&json!({ "task": "t" })).await;
    let mut page = page_script("origins.mjs");
    let page = page.args([&origin, &listed.http(""), &other.http("")]).arg(id.to_string());
    let output = wait::within("the page", page.stdin(Stdio::null()).output()).await.unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && output.stdout == b"read\n", "{told}");
}
