//! Events that are larger than any buffer: recorded like others, or put on record as missing, and never a recorder that is
//! started again and again.

use super::{
    Recorder, archive_of, archived, assert_as_written, audit, audit_fails, audit_ok, enqueue_idle, journal,
    record_once, until_numbered, verdict,
};
use crate::support::node::{Node, Options};
use crate::support::{on_both, wait};
use rustix::process::Signal;
use serde_json::json;

on_both! {
    /// C-20: one that is larger than a block of several can be is a block by itself.
    a_large_event_is_recorded_like_any_other;
    /// C-20: one that is larger than is taken is on record with its place and its length, and is not passed over in silence.
    an_event_that_is_too_large_is_on_record_and_is_passed_when_that_is_asked_for;
}

/// A job whose arguments have so many bytes.
async fn enqueue_large(node: &Node, bytes: usize) {
    let args = "x".repeat(bytes - 4);
    let body = format!("{{\"task\":\"idle\",\"args\":[\"{args}\"]}}");
    let answer = node.post("/api/v1/jobs", body).await.expect(201);
    until_numbered(node, answer["id"].as_i64().unwrap()).await;
}

/// Waits until the node knows that everything that it has relayed is recorded.
async fn until_all_is_recorded(node: &Node, events: u64) {
    wait::until("everything to be recorded", async || {
        let known = node.get("/api/v1/recorders").await.expect(200);
        let end = known["position"].as_str()?.split_once(':')?.1.parse::<u64>().unwrap();
        let recorded = known["recorders"][0]["offset"].as_u64()?;
        (end >= events && recorded == end).then_some(())
    })
    .await;
}

async fn a_large_event_is_recorded_like_any_other(options: Options) {
    let node = Node::start(options.config("[server.limits]\nrequest_bytes = \"64MiB\"\n")).await;
    let dir = archive_of(&node);
    let mut recorder = Recorder::start(&node, &[]);
    enqueue_idle(&node, 2).await;
    enqueue_large(&node, 20 << 20).await;
    enqueue_idle(&node, 1).await;
    enqueue_large(&node, 40 << 20).await;
    enqueue_idle(&node, 2).await;
    until_all_is_recorded(&node, 7).await;
    recorder.assert_works_on();
    assert_eq!(recorder.end(Signal::TERM).await, Some(0));
    let found = archived(&dir);
    assert_eq!(found.iter().map(String::len).filter(|length| *length > 20 << 20).count(), 2);
    assert!(found == journal(&node, "task").await, "as on the wire, to the byte");
    assert_as_written(&dir);
    // the next start finds its place behind them
    enqueue_idle(&node, 1).await;
    record_once(&node, &[]).await;
    assert_eq!(archived(&dir).len(), 8);
    assert_as_written(&dir);
}

async fn an_event_that_is_too_large_is_on_record_and_is_passed_when_that_is_asked_for(options: Options) {
    let node = Node::start(options).await;
    let dir = archive_of(&node);
    let to = dir.to_str().unwrap();
    // the first of all, and one between others
    enqueue_large(&node, 100 << 10).await;
    enqueue_idle(&node, 2).await;
    enqueue_large(&node, 200 << 10).await;
    enqueue_idle(&node, 1).await;
    let all = journal(&node, "task").await;
    let place = |line: &String| {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        let offset: u64 = event["sequence"].as_str().unwrap().parse().unwrap();
        format!("{}:{offset}", event["epoch"].as_str().unwrap())
    };
    let small = ["record", "--once", "--to", to, "--event-max", "64KiB"];
    for _ in 0..2 {
        let said = audit_fails(&node, &small, 1).await;
        for word in [place(&all[0]), all[0].len().to_string(), "--event-max".into(), "--accept-gaps".into()] {
            assert!(said.contains(&word), "{word} is not in: {said}");
        }
    }
    let facts = async || verdict(&node, &[]).await.0["facts"].as_array().unwrap().clone();
    assert_eq!(facts().await.len(), 1, "told once, whoever starts it again");
    audit_ok(&node, &[&small[..], &["--accept-gaps"]].concat()).await;
    let kept: Vec<_> = all.iter().filter(|line| line.len() < 64 << 10).cloned().collect();
    assert_eq!((kept.len(), archived(&dir)), (3, kept));
    let (found, status) = verdict(&node, &[]).await;
    assert_eq!((status, &found["positions"]), (Some(0), &json!({ "task": place(&all[4]) })), "{found}");
    for (n, line) in [(1, &all[0]), (2, &all[3])] {
        let what = found["facts"][n]["what"].as_str().unwrap();
        assert_eq!(
            what,
            format!(
                "event {} is missing: its {} bytes are more than were taken; recorded on",
                place(line),
                line.len()
            )
        );
    }
    // on stderr, so that a pipe gets events alone
    let shown = audit(&node, &["show", to]).await;
    assert_eq!(String::from_utf8(shown.stdout).unwrap().lines().count(), 3);
    let told = String::from_utf8(shown.stderr).unwrap();
    assert!(told.contains(&place(&all[3])) && told.contains("recorded on"), "{told}");
    // one that is the last of all does not keep a run that ends by itself
    enqueue_large(&node, 100 << 10).await;
    audit_ok(&node, &[&small[..], &["--accept-gaps"]].concat()).await;
    assert_eq!(facts().await.len(), 4);
    record_once(&node, &[]).await;
    assert_eq!(archived(&dir).len(), 3, "what was passed is not asked for again");
}
