//! What a node's log holds after hostile input: no token, no payload, and no record that somebody else wrote.

use super::{Guarded, bad_tokens, bearer, signed, subprotocol, token};
use crate::support::node::Options;
use crate::support::raw::Raw;
use reqwest::Method;
use serde_json::json;

///
#[tokio::test]
async fn the_log_holds_no_token_no_payload_and_no_forged_record() {
    for format in ["text", "json"] {
        let env = vec![("MINIUM_LOG", "trace".to_owned()), ("MINIUM_LOG_FORMAT", format.to_owned())];
        let guarded = Guarded::start_on(Options { env, ..Options::memory() }, "").await;
        let node = &guarded.node;
        let forged = "x\u{1b}[2J\n2026-01-01T00:00:00Z ERROR FORGED everything is lost\r\n";
        let mut tokens = vec![
            token("admin"),
            signed(&json!({ "sub": forged, "exp": super::now() + 600, "scope": "admin" })),
            signed(&json!({ "sub": forged, "exp": super::now() + 600, "scope": forged })),
        ];
        tokens.extend(bad_tokens().into_iter().map(|(_, bad)| bad));
        let payload = format!("PAYLOAD{forged}");
        for token in &tokens {
            let value = bearer(token);
            let headers = [("authorization", value.as_str()), ("content-type", "application/json")];
            let body = json!({ "task": "x", "args": [payload] }).to_string();
            node.request(Method::POST, "/api/v1/jobs", &headers, body).await;
            node.request(Method::POST, "/pub/a", &headers, payload.clone()).await;
            node.request(Method::GET, "/sub/a%0aFORGED%1b%5b2J", &headers, "").await;
            let mut raw = Raw::connect(node).await;
            let more = format!(
                "Sec-WebSocket-Protocol: minium.plain, {}\r\nUser-Agent: FORGED\u{1b}[2J\r\n",
                subprotocol(token)
            );
            raw.write(Raw::handshake(node, "/pub/a", &more).as_bytes()).await;
            if raw.head().await.is_some_and(|head| head.status == 101) {
                raw.send(1, payload.as_bytes()).await;
                raw.send(9, b"PAYLOAD").await;
                raw.frame().await;
            }
            node.get(&format!("/sub/a?token={token}")).await;
        }
        let log = node.log();
        assert!(log.contains("A token was refused."), "the reasons are there: {log}");
        for token in &tokens {
            // each part of a token but the usual head is as good as the whole
            for piece in token.split('.').skip(1).filter(|p| p.len() > 8) {
                assert!(!log.contains(piece), "a token is in the log");
            }
            assert!(!log.contains(&subprotocol(token)[14..]), "a token is in the log");
        }
        assert!(!log.contains("PAYLOAD"), "a payload is in the log: {log}");
        assert!(!log.contains(super::SECRET), "the secret is in the log");
        for line in log.lines().filter(|line| !line.starts_with("listening on ")) {
            let begins = if format == "json" { line.starts_with('{') } else { line.starts_with("20") };
            assert!(begins && !line.starts_with("2026-01-01"), "no record of ours: {line:?}");
            assert!(!line.contains(|c: char| c.is_control()), "{line:?}");
        }
    }
}
