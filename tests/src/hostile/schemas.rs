//! Schemas as a weapon: patterns that explode, references that leave the house. The rules themselves are proved in
//! `bus/src/schemas/schema.rs` (`a_pattern_that_explodes_when_backtracking_is_judged_in_linear_time`,
//! `references_that_leave_the_file_are_refused_by_name`); here a whole node keeps them.

use super::{Ward, attack};
use crate::support::node::{Node, Options};
use crate::support::wait;
use rustix::process::{Signal, kill_process};
use serde_json::json;
use std::net::TcpListener;

fn put(node: &Node, path: &str, schema: &str) {
    let file = node.dir().join("schemas").join(path);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, schema).unwrap();
}

async fn reload(node: &Node, awaited: &str) {
    put(node, awaited, "{}");
    kill_process(node.pid(), Signal::HUP).unwrap();
    wait::until("the schemas to be read again", async || {
        (node.get(&format!("/schemas/{awaited}")).await.status == 200).then_some(())
    })
    .await;
}

/// S-2, S-5: what makes a back-tracking engine run for ever is judged in linear time, so that this test ends.
#[tokio::test]
async fn patterns_that_explode_do_not() {
    let mut ward = Ward::start(Options::memory()).await;
    put(&ward.node, "sub/redos.json", r#"{"type":"string","pattern":"^(([a-z])+.)+[A-Z]([a-z])+$"}"#);
    put(&ward.node, "sub/redos/b.json", r#"{"type":"string","pattern":"^(a|aa)+$"}"#);
    put(&ward.node, "sub/redos/c.json", r#"{"type":"string","pattern":"(x+x+)+y"}"#);
    reload(&ward.node, "sub/ready.json").await;
    let bad = json!("ax".repeat(100_000) + "!").to_string();
    for path in ["/pub/redos", "/pub/redos/b", "/pub/redos/c"] {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n\r\n",
            ward.node.address(),
            bad.len()
        );
        let bytes = [head.as_bytes(), bad.as_bytes()].concat();
        let statuses = attack(&ward.node, 20, async |_, mut raw| {
            raw.write(&bytes).await;
            raw.head().await.expect("an answer").status
        })
        .await;
        assert_eq!(statuses, vec![422; 20], "{path}");
        ward.serves_others().await;
    }
    ward.is_unharmed(64 * 1024).await;
}

/// S-5: a reference to elsewhere is refused by name in the log, and nobody goes there.
#[tokio::test]
async fn references_are_not_followed_out_of_the_house() {
    let mut ward = Ward::start(Options::memory()).await;
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    elsewhere.set_nonblocking(true).unwrap();
    let http = format!("http://{}/x.json", elsewhere.local_addr().unwrap());
    let secret = ward.node.dir().join("secret.json");
    std::fs::write(&secret, r#"{"const":"hunter2"}"#).unwrap();
    let file = format!("file://{}", secret.display());
    for (path, keyword, to) in [
        ("sub/away/a.json", "$ref", http.as_str()),
        ("sub/away/b.json", "$dynamicRef", &http),
        ("sub/away/c.json", "$ref", &file),
        ("sub/away/d.json", "$ref", "../secret.json"),
    ] {
        put(&ward.node, path, &json!({ "properties": { "x": { keyword: to } } }).to_string());
    }
    put(&ward.node, "sub/away/e.json", &json!({ "$schema": http }).to_string());
    put(&ward.node, "sub/away/f.json", &json!({ "$id": http, "$ref": "y.json" }).to_string());
    reload(&ward.node, "sub/ready.json").await;
    // they are in force a moment before it is said
    let said = async || Some(ward.node.log()).filter(|log| log.contains("Schemas loaded. added=1"));
    let log = wait::until("the log to tell of the reload", said).await;
    for name in ["a", "b", "c", "d", "e", "f"] {
        let path = format!("sub/away/{name}.json");
        assert!(log.contains(&path), "the log does not name {path}");
        assert_eq!(ward.node.get(&format!("/schemas/{path}")).await.status, 404, "{path} is not in force");
        assert_eq!(ward.node.post(&format!("/pub/away/{name}"), r#"{"x":1}"#).await.status, 200);
    }
    assert!(!log.contains("hunter2"), "what stands in the file is nobody's business");
    let came = elsewhere.accept().map(|(_, from)| from).map_err(|e| e.kind());
    assert_eq!(came, Err(std::io::ErrorKind::WouldBlock), "nobody went there");
    ward.is_unharmed(24 * 1024).await;
}
