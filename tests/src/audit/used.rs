//! What an archive is good for: `show`, `export`, `replay`.

use super::{archive_of, archived, audit, audit_fails, audit_ok, enqueue_idle, record_once};
use crate::cli::Running;
use crate::support::node::{Node, Options};
use crate::support::wait;
use minium_audit::{ReplayOptions, Replayed, Selection, replay};
use minium_client::{Client, ConnectOptions, Payload};
use minium_protocol::Topic;
use rustix::process::{Signal, kill_process};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const CONFIG: &str = "[tasks.quick]\ncommand = [\"cat\"]\n[tasks.wrong]\ncommand = [\"false\"]\n";

/// Three jobs of two tasks, all over, in an archive.
async fn filled() -> (Node, Vec<i64>) {
    let node = Node::start(Options::file().config(CONFIG)).await;
    let mut ids = Vec::new();
    for (task, args) in [("quick", json!(["a, \"b\""])), ("quick", json!([2])), ("wrong", json!([]))] {
        let id = node.enqueue(&json!({ "task": task, "args": args, "attempts": 1 })).await;
        node.ended(id).await;
        ids.push(id);
    }
    record_once(&node, &[]).await;
    (node, ids)
}

/// Events by job, task, topic and time: exactly those, as they were recorded.
#[tokio::test]
async fn events_are_shown_by_job_task_topic_and_time() {
    let (node, ids) = filled().await;
    let (dir, all) = (archive_of(&node), archived(&archive_of(&node)));
    let to = dir.to_str().unwrap();
    let parsed = |line: &String| serde_json::from_str::<Value>(line).unwrap();
    let of = |keep: &dyn Fn(&Value) -> bool| {
        all.iter().filter(|line| keep(&parsed(line))).cloned().collect::<Vec<_>>()
    };
    let shown = async |more: &[&str]| {
        let text = audit_ok(&node, &[&["show", to], more].concat()).await;
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(shown(&[]).await, all);
    let job = ids[1].to_string();
    let expected = of(&|event| event["subject"] == job.as_str());
    assert!(expected.len() >= 3 && expected.len() < all.len());
    assert_eq!(shown(&["--job", &job]).await, expected);
    assert_eq!(shown(&["--topic", &format!("task/quick/{job}")]).await, expected);
    let expected = of(&|event| event["data"]["task"] == "wrong");
    assert_eq!(shown(&["--task", "wrong"]).await, expected);
    assert_eq!(shown(&["--topic", "task/wrong"]).await, expected);
    let middle = parsed(&all[all.len() / 2])["time"].as_str().unwrap().to_owned();
    assert_eq!(
        shown(&["--since", &middle]).await,
        of(&|event| event["time"].as_str().unwrap() >= middle.as_str())
    );
    assert_eq!(
        shown(&["--until", &middle]).await,
        of(&|event| event["time"].as_str().unwrap() < middle.as_str())
    );
    assert_eq!(shown(&["--until", "1h"]).await, [] as [&str; 0]);
    audit_fails(&node, &["show", to, "--since", "yesterday"], 2).await;
    audit_fails(&node, &["show", "/nowhere"], 3).await;
}

/// An export that fails leaves nothing, neither a part of a file nor what stands in the way of the next one.
#[tokio::test]
async fn an_export_is_there_in_whole_or_not_at_all() {
    let node = Node::memory().await;
    let (dir, file) = (archive_of(&node), node.dir().join("events.ndjson"));
    let (to, name) = (dir.to_str().unwrap(), file.to_str().unwrap());
    for _ in 0..2 {
        enqueue_idle(&node, 3).await;
        record_once(&node, &[]).await;
    }
    let segment = dir.join("000001.ndjson.zst");
    let whole = std::fs::read(&segment).unwrap();
    let mut changed = whole.clone();
    let second = whole.windows(4).rposition(|four| four == [0x28, 0xb5, 0x2f, 0xfd]).unwrap();
    changed[second + 20] ^= 1;
    std::fs::write(&segment, changed).unwrap();
    let export = ["export", to, "--format", "ndjson", "--to", name];
    let there = || std::fs::read_dir(node.dir()).unwrap().map(|entry| entry.unwrap().file_name());
    let exported = || there().filter(|name| name.to_string_lossy().starts_with("events")).count();
    let said = audit_fails(&node, &export, 1).await;
    assert!(said.contains("damaged"), "{said}");
    assert_eq!(exported(), 0, "{:?}", there().collect::<Vec<_>>());
    std::fs::write(&segment, whole).unwrap();
    // what one left behind that was killed
    std::fs::write(node.dir().join("events.ndjson.part"), "half").unwrap();
    audit_ok(&node, &export).await;
    assert_eq!(exported(), 1);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), archived(&dir).join("\n") + "\n");
}

/// As NDJSON and as CSV, to a file and to stdout; a file that is there is not overwritten.
#[tokio::test]
async fn events_are_exported_as_ndjson_and_csv() {
    let (node, ids) = filled().await;
    let (dir, all) = (archive_of(&node), archived(&archive_of(&node)));
    let to = dir.to_str().unwrap();
    assert_eq!(audit_ok(&node, &["export", to, "--format", "ndjson"]).await, all.join("\n") + "\n");
    let file = node.dir().join("events.csv");
    let name = file.to_str().unwrap();
    audit_ok(&node, &["export", to, "--format", "csv", "--to", name]).await;
    audit_fails(&node, &["export", to, "--format", "csv", "--to", name], 1).await;
    assert!(!node.dir().join("events.csv.part").exists());
    // read by somebody else's reader
    let python = std::env::var("MINIUM_TEST_PYTHON").unwrap();
    let script =
        "import csv, json, sys\nprint(json.dumps(list(csv.DictReader(open(sys.argv[1], newline='')))))";
    let output = tokio::process::Command::new(python).args(["-c", script, name]).output().await.unwrap();
    let rows: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(rows.len(), all.len());
    for (row, line) in rows.iter().zip(&all) {
        let event: Value = serde_json::from_str(line).unwrap();
        assert_eq!((&row["type"], &row["job"]), (&event["type"], &event["subject"]));
        assert_eq!(serde_json::from_str::<Value>(row["data"].as_str().unwrap()).unwrap(), event["data"]);
        assert_eq!((&row["task"], &row["state"]), (&event["data"]["task"], &event["data"]["state"]));
    }
    let of_job = audit_ok(&node, &["export", to, "--format", "csv", "--job", &ids[2].to_string()]).await;
    assert!(of_job.starts_with("position,time,type,topic,job,") && of_job.lines().count() < rows.len());
}

/// What happened is said once more, below a prefix, in order.
#[tokio::test]
async fn events_are_replayed_below_a_prefix() {
    let (node, _) = filled().await;
    let (dir, all) = (archive_of(&node), archived(&archive_of(&node)));
    let to = dir.to_str().unwrap();
    let events: Vec<Value> = all.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (prefix, how) in
        [("replay", &["--fast"][..]), ("again/x", &["--speed", "1000", "--topic-prefix", "again/x"])]
    {
        let count = all.len().to_string();
        let mut reader = Running::start(&node, &["sub", prefix, "--topic", "-n", &count]);
        wait::until("the reader", async || (node.metric("minium_bus_sessions").await >= 1.0).then_some(()))
            .await;
        audit_ok(&node, &[&["replay", to], how].concat()).await;
        for event in &events {
            let line = reader.line().await;
            let (task, job) = (event["data"]["task"].as_str().unwrap(), event["subject"].as_str().unwrap());
            assert_eq!(line["topic"], format!("{prefix}/task/{task}/{job}"));
            assert_eq!(line["data"], event["data"]);
        }
        assert_eq!(reader.ended().await, 0);
    }
    let refused = audit(&node, &["replay", to, "--fast", "--topic-prefix", "task"]).await;
    assert_eq!(refused.status.code(), Some(4), "nobody makes task events: {refused:?}");
}

/// A node that no longer answers is waited for as long as nobody says stop, with few events on their way as with many.
#[tokio::test]
async fn a_replay_can_be_ended_while_the_node_does_not_answer() {
    let node = Node::start(Options::file().config(CONFIG)).await;
    enqueue_idle(&node, 600).await;
    record_once(&node, &[]).await;
    let client = Client::new(&node.http(""), None).unwrap();
    let connection = client.connect(ConnectOptions::default()).unwrap();
    let topic: Topic = "replay/first".parse().unwrap();
    wait::within(
        "the connection",
        connection.publish(&topic, Payload::Json(RawValue::NULL.to_owned()), None),
    )
    .await
    .unwrap();
    kill_process(node.pid(), Signal::STOP).unwrap();
    let event: Value = serde_json::from_str(&archived(&archive_of(&node))[0]).unwrap();
    let one = event["subject"].as_str().unwrap().parse().unwrap();
    for job in [None, Some(one)] {
        let (stop, offered) = (CancellationToken::new(), if job.is_some() { 1 } else { 200 });
        let selection = Selection { job, ..Selection::default() };
        let options = ReplayOptions { selection, speed: None, prefix: "replay".parse().unwrap() };
        let mut tell = |done: Replayed| {
            if done.events == offered {
                stop.cancel();
            }
        };
        let replaying = replay(&connection, archive_of(&node), options, stop.clone(), &mut tell);
        let replayed = wait::within("the replay to end", replaying).await.unwrap();
        assert_eq!(replayed.events, 0, "nothing was acknowledged");
    }
    kill_process(node.pid(), Signal::CONT).unwrap();
    client.close().await;
}

/// Read back by somebody else's reader, row by row.
#[cfg(feature = "parquet")]
#[tokio::test]
async fn events_are_exported_as_parquet() {
    let (node, _) = filled().await;
    let (dir, all) = (archive_of(&node), archived(&archive_of(&node)));
    let file = node.dir().join("events.parquet");
    let (to, name) = (dir.to_str().unwrap(), file.to_str().unwrap());
    audit_ok(&node, &["export", to, "--format", "parquet", "--to", name]).await;
    let python = std::env::var("MINIUM_TEST_PYTHON").unwrap();
    let script = "import json, sys, pyarrow.parquet as p\nt = p.read_table(sys.argv[1])\n\
        print(json.dumps([{**r, 'time': r['time'].isoformat(timespec='microseconds')} for r in t.to_pylist()]))";
    let output = tokio::process::Command::new(python).args(["-c", script, name]).output().await.unwrap();
    let rows: Vec<Value> =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
    assert_eq!(rows.len(), all.len());
    for (row, line) in rows.iter().zip(&all) {
        let event: Value = serde_json::from_str(line).unwrap();
        let (data, same) = (&event["data"], |name: &str| event["data"][name].clone());
        assert_eq!(
            (&row["id"], &row["type"], row["job"].to_string().as_str()),
            (&event["id"], &event["type"], event["subject"].as_str().unwrap())
        );
        assert_eq!(row["time"].as_str().unwrap().replace("+00:00", "Z"), event["time"], "{row}");
        assert_eq!(row["epoch"].to_string(), event["epoch"].as_str().unwrap());
        assert_eq!(row["offset"].as_u64(), event["sequence"].as_str().unwrap().parse().ok());
        assert_eq!(row["topic"], format!("task/{}/{}", data["task"].as_str().unwrap(), row["job"]));
        assert_eq!(serde_json::from_str::<Value>(row["data"].as_str().unwrap()).unwrap(), *data);
        for name in ["task", "queue", "state", "attempt", "error"] {
            assert_eq!(row[name], same(name), "{name}: {row}");
        }
        assert_eq!(row["worker"], data["worker"].get("id").cloned().unwrap_or(Value::Null));
    }
}
