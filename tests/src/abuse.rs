//! Bad input: one table of what no decent client sends, and the documented answer to each. After every row the node
//! must be well: ready, and delivering.

use crate::support::foreign::{Foreign, Session};
use crate::support::node::{Node, Options};
use crate::support::raw::{Bits, End, Frame, Raw};
use crate::support::{on_both, wait};
use reqwest::Method;
use serde_json::{Value, json};

/// Short, so that those who dawdle are met with soon.
const CONFIG: &str = "[server.limits]\nhandshake_timeout = \"1s\"\n";

const MESSAGE_BYTES_MAX: usize = 262_144;

/// What is done to the node.
enum Act {
    /// These bytes on a new connection.
    Bytes(Vec<u8>),
    /// These bytes, and then nothing more until the server has had enough.
    Dawdle(Vec<u8>),
    /// A WebSocket handshake for a path, with further header lines.
    Handshake(String, &'static str),
    /// A request with a body.
    Http(Method, String, Vec<u8>),
    /// These bytes on an open WebSocket.
    Frames(&'static str, Vec<u8>),
}

/// What it must answer.
enum Want {
    /// This status, as a problem with this code.
    Problem(u16, &'static str),
    /// One of these statuses; 0 stands for a connection that is closed without a word.
    Status(&'static [u16]),
    /// The session ends with one of these codes.
    Close(&'static [u16]),
    /// A frame with this problem; the session lives.
    Told(&'static str),
}

use Act::{Bytes, Dawdle, Frames, Handshake, Http};
use Want::{Close, Problem, Status, Told};

type Row = (&'static str, Act, Want);

fn get(path: &str) -> Act {
    Http(Method::GET, path.into(), vec![])
}

fn post(path: &str, body: impl Into<Vec<u8>>) -> Act {
    Http(Method::POST, path.into(), body.into())
}

fn job(body: &Value) -> Act {
    post("/api/v1/jobs", body.to_string())
}

/// Frames on `/pub/abuse`.
fn frame(bits: Bits, payload: &[u8]) -> Act {
    Frames("/pub/abuse", bits.frame(payload, payload.len() as u64))
}

fn text(path: &'static str, payload: &[u8]) -> Act {
    Frames(path, Bits::plain(1).frame(payload, payload.len() as u64))
}

/// H-1, H-3, H-5, H-7, W-4, W-11, L-2.
#[rustfmt::skip] // one row, one line
fn handshakes() -> Vec<Row> {
    let head = |line: &str, more: &str| format!("{line}\r\nHost: 127.0.0.1\r\n{more}\r\n").into_bytes();
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let version_8 = format!("{}{key}", upgrade.replace("13", "8"));
    let no_upgrade = format!("{}{key}", upgrade.replace("Connection: Upgrade", "Connection: keep-alive"));
    vec![
        ("a TLS hello", Bytes(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec()), Status(&[400, 0])),
        ("no HTTP at all", Bytes(b"hello\r\n\r\n".to_vec()), Status(&[400, 0])),
        ("a method alone", Bytes(b"GET\r\n\r\n".to_vec()), Status(&[400, 0])),
        ("a version from the future", Bytes(b"GET / HTTP/7.3\r\n\r\n".to_vec()), Status(&[400, 505, 0])),
        ("a header with a control character", Bytes(head("GET /healthz HTTP/1.1", "X: a\x01b\r\n")), Status(&[400, 0])),
        ("no upgrade", get("/pub/x"), Problem(426, "upgrade_required")),
        ("no upgrade on /sub", get("/sub/x"), Problem(426, "upgrade_required")),
        ("WebSocket version 8", Bytes(head("GET /sub/x HTTP/1.1", &version_8)), Problem(426, "upgrade_required")),
        ("no key", Bytes(head("GET /sub/x HTTP/1.1", upgrade)), Problem(400, "invalid_request")),
        ("a short key", Bytes(head("GET /sub/x HTTP/1.1", &format!("{upgrade}Sec-WebSocket-Key: c2hvcnQ=\r\n"))), Problem(400, "invalid_request")),
        ("two keys", Bytes(head("GET /sub/x HTTP/1.1", &format!("{upgrade}{key}{key}"))), Problem(400, "invalid_request")),
        ("Connection without Upgrade", Bytes(head("GET /sub/x HTTP/1.1", &no_upgrade)), Problem(400, "invalid_request")),
        ("a handshake with a body", Handshake("/sub/x".into(), "Content-Length: 5\r\n"), Problem(400, "invalid_request")),
        ("a handshake by POST", Bytes(head("POST /sub/x HTTP/1.1", &format!("{upgrade}{key}"))), Problem(405, "method_not_allowed")),
        ("unknown subprotocols", Handshake("/sub/x".into(), "Sec-WebSocket-Protocol: mqtt, wamp.2.json\r\n"), Problem(400, "invalid_request")),
        ("an empty subprotocol", Handshake("/sub/x".into(), "Sec-WebSocket-Protocol: ,\r\n"), Problem(400, "invalid_request")),
        ("a foreign origin", Handshake("/sub/x".into(), "Origin: http://evil.net\r\n"), Status(&[401])),
        ("a foreign host", Bytes(b"GET /healthz HTTP/1.1\r\nHost: evil.net\r\n\r\n".to_vec()), Problem(403, "forbidden")),
        ("a header of 20 KiB", Bytes(head("GET /healthz HTTP/1.1", &format!("X: {}\r\n", "x".repeat(20 * 1024)))), Status(&[431, 0])),
        ("1,000 headers", Bytes(head("GET /healthz HTTP/1.1", &"X: y\r\n".repeat(1_000))), Status(&[431, 0])),
        ("a path of 20 KiB", Bytes(head(&format!("GET /sub/{} HTTP/1.1", "x".repeat(20 * 1024)), "")), Status(&[414, 431, 400, 0])),
        ("a head that never ends", Dawdle(b"GET /sub/x HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ".to_vec()), Status(&[408, 0])),
        ("a connection without a word", Dawdle(vec![]), Status(&[408, 0])),
        ("a body that never comes", Dawdle(head("POST /pub/x HTTP/1.1", "Content-Length: 10\r\n")), Problem(408, "timeout")),
        ("a body of 1 TiB is announced", Bytes(head("POST /pub/x HTTP/1.1", "Content-Length: 1099511627776\r\n")), Problem(413, "payload_too_large")),
        ("a length that is no number", Bytes(head("POST /pub/x HTTP/1.1", "Content-Length: ten\r\n")), Status(&[400, 0])),
        ("two lengths", Bytes(head("POST /pub/x HTTP/1.1", "Content-Length: 1\r\nContent-Length: 2\r\n")), Status(&[400, 0])),
        ("a chunk that is none", Bytes([head("POST /pub/x HTTP/1.1", "Transfer-Encoding: chunked\r\n"), b"zz\r\n".to_vec()].concat()), Status(&[400, 0])),
        ("PUT on a topic", Http(Method::PUT, "/pub/x".into(), vec![]), Problem(405, "method_not_allowed")),
        ("DELETE on a topic", Http(Method::DELETE, "/sub/x".into(), vec![]), Problem(405, "method_not_allowed")),
        ("POST on /pull", post("/pull/x", "x"), Problem(405, "method_not_allowed")),
        ("a path that is not there", get("/nothing/here"), Problem(404, "not_found")),
        ("up and out of the schemas", Bytes(head("GET /schemas/../Cargo.toml HTTP/1.1", "")), Problem(404, "not_found")),
        ("the same, encoded", get("/schemas/%2e%2e/%2e%2e/etc/passwd"), Problem(404, "not_found")),
    ]
}

/// T-1, T-2, T-3, T-4.
#[rustfmt::skip] // one row, one line
fn topics() -> Vec<Row> {
    let long = format!("/sub/{}", ["x".repeat(120), "x".repeat(120), "x".repeat(15)].join("/"));
    let deep = format!("/pub/{}", ["a"; 17].join("/"));
    let mut rows: Vec<Row> = vec![
        ("256 bytes", Handshake(long, ""), Problem(400, "topic_invalid")),
        ("129 bytes in a segment", Handshake(format!("/sub/{}", "x".repeat(129)), ""), Problem(400, "topic_invalid")),
        ("17 segments", post(&deep, "x"), Problem(400, "topic_invalid")),
    ];
    for (name, path) in [
        ("no topic", "/sub/"),
        ("two slashes", "/sub/a//b"),
        ("a slash at the end", "/sub/a/"),
        ("a dot segment", "/sub/a/%2e%2e"),
        ("an encoded slash", "/sub/a%2Fb"),
        ("half an escape", "/sub/a%2"),
        ("bytes that are no UTF-8", "/sub/%ff"),
        ("NUL", "/sub/%00"),
        ("a space", "/sub/a%20b"),
        ("a letter beyond ASCII", "/sub/%C3%BC"),
        ("MQTT's wildcard", "/sub/a/%23"),
        ("+ inside of a segment", "/sub/a+b"),
        ("+ where something is published", "/pub/a/+"),
        ("+ where work is handed out", "/push/+"),
        ("+ where work is taken", "/pull/+"),
        ("+ among peers", "/bus/+/x"),
    ] {
        rows.push((name, Handshake(path.into(), ""), Problem(400, "topic_invalid")));
    }
    rows.push(("+ in a POST", post("/pub/+", "x"), Problem(400, "topic_invalid")));
    rows.push(("a position on what is not durable", Handshake("/sub/x?after=1:1".into(), ""), Problem(400, "invalid_request")));
    rows.push(("a position that is none", Handshake("/sub/task?after=x".into(), ""), Problem(400, "invalid_request")));
    rows.push(("two positions", Handshake("/sub/task?after=1&last=1".into(), ""), Problem(400, "invalid_request")));
    rows
}

/// W-5, W-8, W-9.
#[rustfmt::skip] // one row, one line
fn frames() -> Vec<Row> {
    let open = Bits { fin: false, ..Bits::plain(1) };
    let sent = |frames: &[(Bits, &[u8])]| {
        let bytes = frames.iter().flat_map(|(bits, payload)| bits.frame(payload, payload.len() as u64)).collect();
        Frames("/pub/abuse", bytes)
    };
    let half = vec![b'x'; MESSAGE_BYTES_MAX / 2];
    let huge = |claimed| Frames("/pub/abuse", Bits::plain(2).frame(b"", claimed));
    vec![
        ("no mask", frame(Bits { masked: false, ..Bits::plain(1) }, b"x"), Close(&[1002])),
        ("no mask, from a subscriber", Frames("/sub/abuse", Bits { masked: false, ..Bits::plain(1) }.frame(b"x", 1)), Close(&[1002])),
        ("reserved bit 1", frame(Bits { reserved: 4, ..Bits::plain(1) }, b"x"), Close(&[1002])),
        ("reserved bit 3", frame(Bits { reserved: 1, ..Bits::plain(2) }, b"x"), Close(&[1002])),
        ("opcode 3", frame(Bits::plain(3), b"x"), Close(&[1002])),
        ("opcode 11", frame(Bits::plain(11), b"x"), Close(&[1002])),
        ("a continuation of nothing", frame(Bits::plain(0), b"x"), Close(&[1002])),
        ("a message inside of another", sent(&[(open, b"a"), (Bits::plain(1), b"b")]), Close(&[1002])),
        ("a ping of 126 bytes", frame(Bits::plain(9), &[0; 126]), Close(&[1002])),
        ("a ping in pieces", frame(Bits { fin: false, ..Bits::plain(9) }, b"x"), Close(&[1002])),
        ("1 TiB is announced", huge(1 << 40), Close(&[1009])),
        ("1 TiB is announced by a puller", Frames("/pull/abuse", Bits::plain(2).frame(b"", 1 << 40)), Close(&[1009])),
        ("2^63 bytes are announced", huge(1 << 63), Close(&[1002, 1009])),
        ("too much, in pieces", sent(&[(open, &half), (Bits { opcode: 0, ..open }, &half), (Bits::plain(0), b"x")]), Close(&[1009])),
        ("text that is no UTF-8", frame(Bits::plain(1), b"a\xffb"), Close(&[1007])),
        ("a character cut in two", sent(&[(open, b"\xc3"), (Bits::plain(0), b"x")]), Close(&[1007])),
        ("text that ends within a character", frame(Bits::plain(1), b"\xf0\x9f\x98"), Close(&[1007])),
        ("a surrogate", frame(Bits::plain(1), b"\xed\xa0\x80"), Close(&[1007])),
        ("a close with half a code", frame(Bits::plain(8), &[3]), Close(&[1002])),
        ("a close with a code that is none", frame(Bits::plain(8), &999_u16.to_be_bytes()), Close(&[1002])),
        ("a close with 1006", frame(Bits::plain(8), &1006_u16.to_be_bytes()), Close(&[1002])),
        ("a reason that is no UTF-8", frame(Bits::plain(8), b"\x03\xe8\xff\xff"), Close(&[1002, 1007])),
        ("no JSON where a schema is", text("/pub/livesys/7", b"reboot"), Told("invalid_json")),
        ("binary where a schema is", Frames("/pub/livesys/7", Bits::plain(2).frame(b"{}", 2)), Told("invalid_json")),
        ("JSON that does not fit", text("/pub/livesys/7", br#"{"type":"status","state":"lazy"}"#), Told("schema_violation")),
        ("JSON of 100,000 levels", text("/pub/livesys/7", &[b'['; 100_000]), Told("invalid_json")),
        ("a task event of one's own", text("/pub/task/import/1", b"{}"), Told("forbidden")),
    ]
}

/// H-4, B-12, S-2, S-3, S-4, Q-2, Q-4, Q-5, Q-6.
#[rustfmt::skip] // one row, one line
fn requests() -> Vec<Row> {
    let mut rows: Vec<Row> = vec![
        ("a message that is too large", post("/pub/x", vec![b'x'; MESSAGE_BYTES_MAX + 1]), Problem(413, "payload_too_large")),
        ("a message that does not fit", post("/pub/livesys/7", r#"{"type":"status"}"#), Problem(422, "schema_violation")),
        ("a message that is no JSON", post("/pub/livesys/7", "{"), Problem(400, "invalid_json")),
        ("a task event of one's own", post("/pub/task/import", "{}"), Problem(403, "forbidden")),
        ("no job", post("/api/v1/jobs", ""), Problem(400, "invalid_json")),
        ("a job that is no JSON", post("/api/v1/jobs", "{\"task\":"), Problem(400, "invalid_json")),
        ("a job of 100,000 levels", post("/api/v1/jobs", vec![b'['; 100_000]), Problem(400, "invalid_json")),
        ("arguments of 100,000 levels", post("/api/v1/jobs", format!("{{\"task\":\"x\",\"args\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000))), Problem(400, "invalid_request")),
        ("5 MiB of jobs", post("/api/v1/jobs", vec![b' '; 5 << 20]), Problem(413, "payload_too_large")),
        ("a number as job", job(&json!(42)), Problem(400, "invalid_request")),
        ("one bad job among good ones", job(&json!([{ "task": "x" }, { "task": "x", "attempts": 0 }, { "task": "x" }])), Problem(400, "invalid_request")),
        ("arguments that do not fit", job(&json!({ "task": "livesys/inventory", "args": [{ "sections": ["soul"] }] })), Problem(422, "schema_violation")),
        ("one whose arguments do not fit", job(&json!([{ "task": "x" }, { "task": "livesys/inventory", "args": 7 }])), Problem(422, "schema_violation")),
        ("a job that is not there", get("/api/v1/jobs/999999"), Problem(404, "not_found")),
        ("a job that is no number", get("/api/v1/jobs/first"), Problem(400, "invalid_request")),
        ("a negative job", get("/api/v1/jobs/-1"), Problem(400, "invalid_request")),
        ("a job beyond all numbers", get("/api/v1/jobs/99999999999999999999"), Problem(400, "invalid_request")),
        ("the events of a job that is not there", get("/api/v1/jobs/999999/events"), Problem(404, "not_found")),
        ("waiting for a job that is not there", get("/api/v1/jobs/999999/wait"), Problem(404, "not_found")),
        ("waiting for an odd while", get("/api/v1/jobs/1/wait?timeout=soon"), Problem(400, "invalid_request")),
        ("waiting for ever", get("/api/v1/jobs/1/wait?timeout=10d"), Problem(400, "invalid_request")),
        ("retrying a job that is not there", post("/api/v1/jobs/999999/retry", ""), Problem(404, "not_found")),
        ("cancelling a job that is not there", post("/api/v1/jobs/999999/cancel", ""), Problem(404, "not_found")),
        ("removing a job that is not there", Http(Method::DELETE, "/api/v1/jobs/999999".into(), vec![]), Problem(404, "not_found")),
        ("a state that is none", get("/api/v1/jobs?state=done"), Problem(400, "invalid_request")),
        ("a page of nothing", get("/api/v1/jobs?limit=0"), Problem(400, "invalid_request")),
        ("a page of everything", get("/api/v1/jobs?limit=1000000000"), Problem(400, "invalid_request")),
        ("a cursor that is none", get("/api/v1/jobs?before=x"), Problem(400, "invalid_request")),
        ("a filter that is none", get("/api/v1/jobs?colour=red"), Problem(400, "invalid_request")),
        ("a query of broken escapes", get("/api/v1/jobs?state=%ff%zz"), Problem(400, "invalid_request")),
    ];
    for (name, member, value) in [
        ("no attempts", "attempts", json!(0)),
        ("attempts beyond reason", "attempts", json!(1_000_000_000)),
        ("attempts in words", "attempts", json!("three")),
        ("a priority beyond all", "priority", json!(5_000)),
        ("a priority in halves", "priority", json!(1.5)),
        ("a delay into the past", "delay", json!(-1)),
        ("a delay in words", "delay", json!("soon")),
        ("a delay beyond all time", "delay", json!(1e300)),
        ("an expiry in the past", "expire", json!("-5m")),
        ("a time-out of a list", "timeout", json!([1])),
        ("an empty key", "key", json!("")),
        ("a long key", "key", json!("k".repeat(256))),
        ("NUL in a key", "key", json!("a\0b")),
        ("an empty queue", "queue", json!("")),
        ("a queue with a space", "queue", json!("a b")),
        ("notes that are a list", "notes", json!([])),
        ("a parent in words", "parents", json!(["a"])),
        ("a parent beyond all numbers", "parents", json!([1e30])),
        ("laxness in words", "lax", json!("yes")),
        ("a misspelt option", "prority", json!(1)),
        ("an empty task", "task", json!("")),
        ("a task with a space", "task", json!("a b")),
        ("a task of 15 levels", "task", json!(["a"; 15].join("/"))),
        ("a task with a wildcard", "task", json!("a/+")),
    ] {
        let mut body = json!({ "task": "x" });
        body[member] = value;
        rows.push((name, job(&body), Problem(400, "invalid_request")));
    }
    let mut nameless = json!({ "args": [] });
    nameless["queue"] = "q".into();
    rows.push(("no task", job(&nameless), Problem(400, "invalid_request")));
    rows
}

/// Does it, and says how the answer differs from what is wanted.
async fn check(node: &Node, act: Act, want: &Want) -> Result<(), String> {
    let mut raw = Raw::connect(node).await;
    let socket = matches!(act, Frames(..));
    match act {
        Bytes(bytes) | Dawdle(bytes) => raw.write(&bytes).await,
        Handshake(path, more) => raw.write(Raw::handshake(node, &path, more).as_bytes()).await,
        Http(method, path, body) => {
            let head = format!(
                "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\nContent-Type: application/json\r\n\r\n",
                node.address(),
                body.len()
            );
            raw.write(&[head.into_bytes(), body].concat()).await;
        }
        Frames(path, bytes) => {
            raw.upgrade(node, path).await;
            raw.write(&bytes).await;
        }
    }
    if socket { socket_answer(&mut raw, want).await } else { http_answer(&mut raw, want).await }
}

async fn http_answer(raw: &mut Raw, want: &Want) -> Result<(), String> {
    let head = raw.head().await;
    let status = head.as_ref().map_or(0, |h| h.status);
    match want {
        Status(statuses) if statuses.contains(&status) => Ok(()),
        Problem(wanted, code) if status == *wanted => {
            let head = head.expect("there was a status");
            let problem: Value = serde_json::from_str(&head.body).map_err(|e| format!("{e}: {head:?}"))?;
            let complete = problem["code"] == *code
                && problem["type"] == format!("/problems/{code}")
                && problem["status"] == status
                && problem["retryable"].is_boolean()
                && problem["title"].is_string()
                && problem["detail"].as_str().is_some_and(|d| !d.is_empty())
                && head.headers["content-type"] == "application/problem+json";
            let listed = *code != "schema_violation" || problem["errors"][0]["pointer"].is_string();
            let allowed = status != 405 || head.headers.contains_key("allow");
            if complete && listed && allowed { Ok(()) } else { Err(format!("{head:?}")) }
        }
        _ => Err(head.map_or("closed without a word".into(), |h| format!("{h:?}"))),
    }
}

async fn socket_answer(raw: &mut Raw, want: &Want) -> Result<(), String> {
    if let Told(code) = want {
        let Some(Frame { opcode: 1, payload }) = raw.frame().await else {
            return Err("no text frame".into());
        };
        let answer: Value = serde_json::from_slice(&payload).map_err(|e| e.to_string())?;
        if answer["problem"]["code"] != *code {
            return Err(answer.to_string());
        }
        raw.send(9, b"alive?").await;
        let pong = Some(Frame { opcode: 10, payload: b"alive?".to_vec() });
        return if raw.frame().await == pong { Ok(()) } else { Err("the session is dead".into()) };
    }
    match (raw.end().await, want) {
        ((End::Code(code), 0), Close(codes)) if codes.contains(&code) => Ok(()),
        (other, _) => Err(format!("{other:?}")),
    }
}

/// The node is ready, delivers, and nobody heard anything of the abuse.
async fn assert_well(node: &Node, subscriber: &mut Session, round: usize) -> Result<(), String> {
    node.assert_well().await;
    let text = format!("{{\"round\":{round}}}");
    let answer = node.post("/pub/abuse/marker", text.clone()).await;
    let heard = subscriber.text().await;
    if answer.status == 200 && heard == text {
        Ok(())
    } else {
        Err(format!("{} and heard {heard:?}", answer.status))
    }
}

on_both! {
    /// Every row has its documented answer, and the node lives on. The clauses stand at the parts of the table.
    each_bad_input_has_its_documented_answer_and_the_node_lives_on;
    /// Q-1: what was refused left nothing behind.
    refused_jobs_leave_nothing_behind;
    /// Q-1: JSON that databases find hard is either taken whole or refused, never a fault.
    odd_but_valid_json_never_is_a_fault;
}

async fn each_bad_input_has_its_documented_answer_and_the_node_lives_on(options: Options) {
    let node = Node::start(options.config(CONFIG)).await;
    let client = Foreign::python();
    let mut all = client.open(&node.ws("/sub/abuse")).await;
    let rows: Vec<Row> = [handshakes(), topics(), frames(), requests()].into_iter().flatten().collect();
    assert!(rows.len() >= 40, "{}", rows.len());
    let mut wrong = Vec::new();
    for (round, (name, act, want)) in rows.into_iter().enumerate() {
        let row = async {
            check(&node, act, &want).await?;
            assert_well(&node, &mut all, round).await
        };
        if let Err(what) = wait::within(name, row).await {
            wrong.push(format!("{name}: {what}"));
        }
    }
    assert!(wrong.is_empty(), "{} rows were answered otherwise:\n{}", wrong.len(), wrong.join("\n"));
}

async fn refused_jobs_leave_nothing_behind(options: Options) {
    let node = Node::start(options).await;
    for (name, act, want) in requests() {
        if let Http(Method::POST, path, _) = &act
            && path == "/api/v1/jobs"
        {
            check(&node, act, &want).await.unwrap_or_else(|what| panic!("{name}: {what}"));
        }
    }
    assert_eq!(node.get("/api/v1/jobs").await.expect(200)["jobs"], json!([]));
    assert_eq!(
        node.enqueue(&json!({ "task": "x" })).await,
        node.get("/api/v1/jobs").await.json()["jobs"][0]["id"]
    );
}

async fn odd_but_valid_json_never_is_a_fault(options: Options) {
    let node = Node::start(options).await;
    let mut taken = 0;
    for args in [
        r#"["\u0000"]"#,
        r#"["\ud800"]"#,
        r#"[1e400]"#,
        r#"[-0.0,1E+2]"#,
        r#"{"a":1,"a":2}"#,
        r#"["\ud83d\ude00"]"#,
        r#"[123456789012345678901234567890]"#,
        "null",
        "[\"\u{2028}\"]",
        "\"x\"",
    ] {
        let body = format!("{{\"task\":\"odd\",\"args\":{args}}}");
        let answer = node.post("/api/v1/jobs", body).await;
        match answer.status {
            201 => {
                taken += 1;
                let location = answer.header("location").to_owned();
                let again = node.get(&location).await;
                assert_eq!(again.status, 200, "{args}: {again:?}");
                assert!(again.text().contains("\"args\""), "{args}");
            }
            400 => drop(answer.problem(400, "invalid_request")),
            other => panic!("{args}: {other} {answer:?}"),
        }
    }
    assert!(taken >= 4, "only {taken} were taken");
    // the journal is not stuck on any of them
    let last = node.enqueue(&json!({ "task": "odd" })).await;
    let client = Foreign::python();
    let mut session = client.open(&node.ws("/sub/task/odd?after=earliest")).await;
    for _ in 0..taken {
        assert_ne!(session.json().await["data"]["id"], last);
    }
    assert_eq!(session.json().await["data"]["id"], last);
}
