//! What comes into an archive: all of it, once, the same bytes.

use super::{
    Recorder, archive_of, archived, archived_count, assert_as_written, audit_fails, enqueue_idle, journal,
    record_once, until_archived, verdict,
};
use crate::support::disk::SmallDisk;
use crate::support::node::{Node, Options};
use crate::support::{on_both, wait};
use minium_audit::{RecordOptions, SegmentLimits, Writer, record};
use minium_client::{Backoff, Client};
use minium_protocol::After;
use reqwest::Method;
use rustix::process::Signal;
use serde_json::json;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const CONFIG: &str =
    "[tasks.quick]\ncommand = [\"true\"]\n[channels.kept]\ndurable = true\n[channels.more]\ndurable = true\n";

on_both! {
    /// C-20: the archive has what the journal has, to the byte, and a second run adds what came meanwhile.
    an_archive_is_the_journal_byte_for_byte;
    /// What the journal has let go of before it was recorded is put on record, and not passed over.
    a_hole_is_on_record_and_is_not_passed_over;
}

async fn an_archive_is_the_journal_byte_for_byte(options: Options) {
    let node = Node::start(options.config(CONFIG)).await;
    let dir = archive_of(&node);
    record_once(&node, &[]).await;
    assert_eq!(archived(&dir), [] as [&str; 0], "an empty journal is an empty archive");
    let id = node.enqueue(&json!({ "task": "quick", "args": ["grün \" \n"] })).await;
    node.ended(id).await;
    record_once(&node, &[]).await;
    assert_eq!(archived(&dir), journal(&node, "task").await);
    enqueue_idle(&node, 200).await;
    record_once(&node, &[]).await;
    record_once(&node, &[]).await;
    let all = journal(&node, "task").await;
    assert!(all.len() > 200);
    assert_eq!(archived(&dir), all);
    // without a tool of ours
    let segment = dir.join("000001.ndjson.zst");
    let plain = std::process::Command::new("zstdcat").arg(segment).output().unwrap();
    assert_eq!(String::from_utf8(plain.stdout).unwrap(), all.join("\n") + "\n");
    let (found, status) = verdict(&node, &[]).await;
    assert_eq!(status, Some(0));
    // the node knows how far that is
    let known = node.get("/api/v1/recorders").await.expect(200);
    let [recorder] = &known["recorders"].as_array().unwrap()[..] else { panic!("{known}") };
    let end = found["positions"]["task"].as_str().unwrap().split_once(':').unwrap().1;
    assert_eq!(
        (recorder["offset"].to_string().as_str(), &recorder["topics"]),
        (end, &json!(["task"])),
        "{known}"
    );
}

async fn a_hole_is_on_record_and_is_not_passed_over(options: Options) {
    // as it is registered, so much more is kept for it, and no more
    let config = "[channels.task]\nretention = { count = 5 }\n[recorders]\nhold_count = 20\n";
    let node = Node::start(options.config(config)).await;
    let dir = archive_of(&node);
    enqueue_idle(&node, 5).await;
    record_once(&node, &[]).await;
    let before = archived(&dir).len();
    enqueue_idle(&node, 60).await;
    let behind = json!(format!("{}", verdict(&node, &[]).await.0["positions"]["task"].as_str().unwrap()));
    let path = format!("/sub/task?after={}", behind.as_str().unwrap());
    wait::until("retention to have dropped what was not recorded", async || {
        let events = [("accept", "text/event-stream")];
        // a page is refused as a subscription is
        let page =
            node.request(reqwest::Method::GET, &path.replace("/sub/", "/history/"), &events[..0], "").await;
        (page.status == 410).then_some(())
    })
    .await;
    let to = dir.to_str().unwrap();
    for _ in 0..2 {
        let said = audit_fails(&node, &["record", "--once", "--to", to], 1).await;
        assert!(said.contains("a hole in task") && said.contains("--accept-gaps"), "{said}");
    }
    let (found, status) = verdict(&node, &[]).await;
    assert_eq!((status, found["facts"].as_array().unwrap().len()), (Some(0), 1), "{found}");
    assert!(found["facts"][0]["what"].as_str().unwrap().ends_with("; stopped"), "{found}");
    record_once(&node, &["--accept-gaps"]).await;
    let all = archived(&dir);
    let kept = journal(&node, "task").await;
    assert!(kept.len() >= 5 && all.ends_with(&kept[kept.len() - 5..]), "the rest is recorded");
    assert!(node.log().contains("that a recorder has not confirmed"), "the node said what it did");
    assert!(all.len() > before && all.len() < 65, "and the hole is one: {}", all.len());
    let (found, status) = verdict(&node, &[]).await;
    assert_eq!((status, found["facts"].as_array().unwrap().len()), (Some(0), 2), "{found}");
}

/// A journal that counts anew: that is on record, and what it has is recorded.
#[tokio::test]
async fn a_new_numbering_is_on_record_and_is_gone_on_with() {
    let node = Node::memory().await;
    let dir = archive_of(&node);
    let mut recorder = Recorder::start(&node, &[]);
    enqueue_idle(&node, 3).await;
    until_archived(&dir, 3).await;
    let first = archived(&dir);
    node.kill().await;
    node.restart().await;
    enqueue_idle(&node, 4).await;
    until_archived(&dir, 7).await;
    recorder.assert_works_on();
    assert_eq!(recorder.end(Signal::TERM).await, Some(0));
    assert_eq!(archived(&dir), [first, journal(&node, "task").await].concat());
    let (found, status) = verdict(&node, &[]).await;
    let facts = found["facts"].as_array().unwrap();
    assert_eq!((status, facts.len()), (Some(0), 1), "{found}");
    assert!(facts[0]["what"].as_str().unwrap().contains("a new numbering"), "{found}");
}

/// A new numbering does not hide that events are missing behind it: they are a hole as any other.
#[tokio::test]
async fn a_hole_behind_a_new_numbering_is_not_passed_over() {
    let node = Node::start(Options::memory().config("[channels.task]\nretention = { count = 5 }\n")).await;
    let dir = archive_of(&node);
    enqueue_idle(&node, 3).await;
    record_once(&node, &[]).await;
    let first = archived(&dir);
    node.kill().await;
    node.restart().await;
    enqueue_idle(&node, 60).await;
    wait::until("retention to have dropped what was not recorded", async || {
        let page = node.get("/history/task?after=3").await;
        (page.status == 410).then_some(())
    })
    .await;
    let to = dir.to_str().unwrap();
    for _ in 0..2 {
        let said = audit_fails(&node, &["record", "--once", "--to", to], 1).await;
        assert!(said.contains("a hole in task") && said.contains("--accept-gaps"), "{said}");
    }
    assert_eq!(archived(&dir), first, "nothing was recorded behind it");
    record_once(&node, &["--accept-gaps"]).await;
    let (all, kept) = (archived(&dir), journal(&node, "task").await);
    assert!(kept.len() >= 5 && all.ends_with(&kept[kept.len() - 5..]) && all.starts_with(&first));
    let (found, status) = verdict(&node, &[]).await;
    let facts = found["facts"].as_array().unwrap();
    let ends = [":3", "; stopped", "; recorded on"];
    assert_eq!((status, facts.len()), (Some(0), ends.len()), "{found}");
    for (fact, end) in facts.iter().zip(ends) {
        let what = fact["what"].as_str().unwrap();
        assert!(what.contains(":3") && what.ends_with(end), "{found}");
    }
}

/// A recorder to which nothing comes is heard of all the same: also by a node that was told to forget it.
#[tokio::test]
async fn a_recorder_is_heard_of_while_nothing_comes() {
    let node = Node::memory().await;
    let dir = archive_of(&node);
    enqueue_idle(&node, 2).await;
    record_once(&node, &["--name", "ours"]).await;
    let client = Client::new(&node.http(""), None).unwrap();
    let writer = Writer::open(&dir, &["task".into()], None, SegmentLimits::default()).unwrap();
    let options = RecordOptions {
        topics: vec!["task".parse().unwrap()],
        after: After::Earliest,
        flush: Duration::from_millis(20),
        accept_gaps: false,
        once: false,
        name: "ours".into(),
        heartbeat: Duration::from_millis(50),
        backoff: Backoff::default(),
        uploaded: None,
    };
    let stop = CancellationToken::new();
    let forgetting = async {
        for _ in 0..4 {
            wait::until("the recorder to be registered", async || {
                let answer = node.request(Method::DELETE, "/api/v1/recorders/ours", &[], "").await;
                (answer.status == 204).then_some(())
            })
            .await;
        }
        stop.cancel();
    };
    let (recorded, ()) = tokio::join!(record(&client, writer, options, stop.clone()), forgetting);
    assert_eq!(recorded.unwrap().events, 0);
    client.close().await;
}

/// Several topics, each in its own order, and each gone on with where it was.
#[tokio::test]
async fn several_topics_are_recorded_side_by_side() {
    let node = Node::start(Options::file().config(CONFIG)).await;
    let dir = archive_of(&node);
    let topics = ["--topic", "task", "--topic", "kept", "--topic", "more"];
    for round in 0..3 {
        for n in 0..5 {
            node.post("/pub/kept/a", json!({ "round": round, "n": n }).to_string()).await.expect(200);
            node.enqueue(&json!({ "task": "idle" })).await;
        }
        record_once(&node, &topics).await;
    }
    let all = archived(&dir);
    for topic in ["task", "kept", "more"] {
        let of = journal(&node, topic).await;
        let mine: Vec<&String> = all.iter().filter(|line| of.contains(line)).collect();
        assert_eq!(mine, of.iter().collect::<Vec<_>>(), "{topic}");
    }
    assert_eq!(all.len(), 30);
    assert_as_written(&dir);
    let to = dir.to_str().unwrap();
    // what an archive is of stays so, and nothing is recorded twice or with holes
    audit_fails(&node, &["record", "--once", "--to", to], 2).await;
    let other = node.dir().join("other");
    let other = other.to_str().unwrap();
    audit_fails(&node, &["record", "--once", "--to", other, "--topic", "task", "--topic", "task/idle"], 2)
        .await;
    audit_fails(&node, &["record", "--once", "--to", other, "--topic", "news"], 2).await;
}

/// One archive, one recorder.
#[tokio::test]
async fn a_second_recorder_is_refused() {
    let node = Node::memory().await;
    let dir = archive_of(&node);
    let mut recorder = Recorder::start(&node, &[]);
    enqueue_idle(&node, 1).await;
    until_archived(&dir, 1).await;
    let said = audit_fails(&node, &["record", "--once", "--to", dir.to_str().unwrap()], 7).await;
    assert!(said.contains("another recorder"), "{said}");
    recorder.assert_works_on();
}

/// Told to end it writes what it has, however long it might wait for more.
#[tokio::test]
async fn a_recorder_that_is_told_to_end_writes_what_it_has() {
    let node = Node::memory().await;
    let dir = archive_of(&node);
    enqueue_idle(&node, 500).await;
    // a signal may come before anything else does; without the last block none of these would write anything
    wait::until("a recorder to write what it has", async || {
        let recorder = Recorder::start(&node, &["--flush", "1h"]);
        wait::until("its socket", async || (node.metric("minium_bus_sessions").await >= 1.0).then_some(()))
            .await;
        // one that does not listen to signals yet is killed by them
        let status = recorder.end(Signal::INT).await;
        assert!(matches!(status, Some(0) | None), "{status:?}");
        (archived_count(&dir) > 0).then_some(())
    })
    .await;
    let (recorded, all) = (archived(&dir), journal(&node, "task").await);
    assert!(all.starts_with(&recorded), "a prefix of the journal");
    assert_as_written(&dir);
    record_once(&node, &[]).await;
    assert_eq!(archived(&dir), all);
}

/// C-20: a node that is not there yet is waited for, and one that does not know of recorders is lived with.
#[tokio::test]
async fn a_recorder_waits_for_its_node() {
    let node = Node::start(Options::file()).await;
    let dir = archive_of(&node);
    enqueue_idle(&node, 3).await;
    node.kill().await;
    let mut recorder = Recorder::start(&node, &["--name", "ours"]);
    wait::until("the recorder to begin", async || node.log().contains("The recorder begins").then_some(()))
        .await;
    node.restart().await;
    until_archived(&dir, 3).await;
    enqueue_idle(&node, 3).await;
    until_archived(&dir, 6).await;
    recorder.assert_works_on();
    assert_eq!(recorder.end(Signal::TERM).await, Some(0));
    assert_eq!(archived(&dir), journal(&node, "task").await);
}

/// A full disk: nothing is taken that cannot be written, and when there is room nothing is missing.
#[tokio::test]
async fn a_full_disk_costs_no_event() {
    let disk = SmallDisk::mount(512);
    let node = Node::start(Options::file()).await;
    let dir = disk.path("archive");
    let mut recorder = Recorder::start_in(&node, &dir, &[]);
    enqueue_idle(&node, 10).await;
    until_archived(&dir, 10).await;
    disk.fill("filler");
    let noise = |n: usize| -> String { std::iter::repeat_with(fastrand::alphanumeric).take(n).collect() };
    for _ in 0..30 {
        node.enqueue(&json!({ "task": "idle", "args": [noise(4_000)] })).await;
    }
    wait::until("the recorder to tell", async || node.log().contains("The disk is full").then_some(())).await;
    for _ in 0..30 {
        node.enqueue(&json!({ "task": "idle", "args": [noise(4_000)] })).await;
    }
    recorder.assert_works_on();
    assert!(archived_count(&dir) < 70);
    disk.grow(16 << 10);
    until_archived(&dir, 70).await;
    recorder.assert_works_on();
    assert_eq!(recorder.end(Signal::TERM).await, Some(0));
    assert_eq!(archived(&dir), journal(&node, "task").await);
    assert_as_written(&dir);
}
