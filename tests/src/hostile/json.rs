//! JSON that is deep, wide or long, by the hundred. What a parser does with it stands at the parser: the levels in
//! `protocol/src/readable.rs`, the bounds on what is told of a message in `bus/src/schemas/schema.rs`.

use super::{Ward, attack};
use crate::support::node::Options;
use crate::support::raw::{Frame, Raw};
use serde_json::Value;

const BYTES: usize = 250_000;

fn request(path: &str, host: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\nContent-Type: application/json\r\n\r\n{body}")
        .into_bytes()
}

/// S-2, S-3, H-1, Q-2: deep and wide JSON is refused with its code, on a schema channel as in the API, again and again.
#[tokio::test]
async fn deep_and_wide_json_is_refused_wherever_it_comes() {
    const EACH: usize = 50;
    // what is asked here is what becomes of a body, not how long it may take
    let patient = "[server.limits]\nhandshake_timeout = \"60s\"\n";
    let mut ward = Ward::start(Options::memory().config(patient)).await;
    let deep = "[".repeat(BYTES);
    let balanced = format!("{}{}", "[".repeat(BYTES / 2), "]".repeat(BYTES / 2));
    let objects = format!("{}1{}", "{\"a\":".repeat(BYTES / 6), "}".repeat(BYTES / 6));
    let wide = format!("[{}0]", "0,".repeat(BYTES / 2 - 2));
    let keys =
        format!("{{{}\"host\":0}}", (0..BYTES / 12).map(|n| format!("\"{n:06}\":0,")).collect::<String>());
    let args = |json: &str| format!("{{\"task\":\"x\",\"args\":{json}}}");
    // what the parser of a body still follows, and readers of events may not
    let noted = format!("{{\"task\":\"x\",\"notes\":{{\"n\":{}1{}}}}}", "[".repeat(105), "]".repeat(105));
    let rows = [
        ("/pub/livesys/7", deep.clone(), 400, "invalid_json"),
        ("/pub/livesys/7", balanced.clone(), 400, "invalid_json"),
        ("/pub/livesys/7", objects.clone(), 400, "invalid_json"),
        ("/pub/livesys/7", wide, 422, "schema_violation"),
        ("/pub/livesys/7", keys, 422, "schema_violation"),
        ("/api/v1/jobs", deep, 400, "invalid_json"),
        ("/api/v1/jobs", args(&balanced), 400, "invalid_request"),
        ("/api/v1/jobs", args(&objects), 400, "invalid_request"),
        ("/api/v1/jobs", noted, 400, "invalid_request"),
    ];
    let host = ward.node.address().to_string();
    for (path, body, status, code) in rows {
        let bytes = request(path, &host, &body);
        let answers = attack(&ward.node, EACH, async |_, mut raw| {
            raw.write(&bytes).await;
            let head = raw.head().await.expect("an answer");
            assert!(head.body.len() < 16 * 1024, "an answer of {} bytes", head.body.len());
            let problem: Value = serde_json::from_str(&head.body).unwrap_or_else(|e| panic!("{e}: {head:?}"));
            (head.status, problem["code"].as_str().unwrap_or_default().to_owned())
        })
        .await;
        let wanted = (status, code.to_owned());
        let other = answers.iter().find(|answer| **answer != wanted);
        assert_eq!(other, None, "{path} {body:.20}");
    }
    // 64 bodies at once, and a parsed tree of each, are some 40 MiB; the sum of all would be 300 MiB and more
    ward.is_unharmed(96 * 1024).await;
}

/// S-3, W-5: the same on a socket: the sender is told each time, and lives.
#[tokio::test]
async fn deep_json_on_a_socket_is_told_each_time() {
    const TIMES: usize = 100;
    let mut ward = Ward::start(Options::memory()).await;
    let mut raw = Raw::connect(&ward.node).await;
    raw.upgrade(&ward.node, "/pub/livesys/7").await;
    for n in 0..TIMES {
        raw.send(1, &[b'['; BYTES]).await;
        let Some(Frame { opcode: 1, payload }) = raw.frame().await else { panic!("it is not told, {n}") };
        let answer: Value = serde_json::from_slice(&payload).unwrap();
        assert_eq!(answer["problem"]["code"], "invalid_json");
    }
    let refused =
        ward.node.metric("minium_bus_messages_dropped_total{channel=\"*\",reason=\"invalid_json\"}").await;
    assert_eq!(refused, TIMES as f64, "each is counted");
    drop(raw);
    ward.is_unharmed(24 * 1024).await;
}
