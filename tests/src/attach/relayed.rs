//! From Perl's workers to the sockets of a node: nothing is missing, and each job's events come in their order.

use super::mapping::{row, snapshot};
use super::minion::Minion;
use crate::support::events::{assert_dense, follow, judge};
use crate::support::foreign::Foreign;
use crate::support::node::{Node, Options};
use crate::support::wait;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What a job of each task goes through.
fn life(task: &str, attempts: i64) -> Vec<&'static str> {
    let run = |end: &[&'static str]| [&["task.dequeue"], end].concat();
    let mut events = vec!["task.enqueue"];
    events.extend(match (task, attempts) {
        ("noted", _) => run(&["task.progress", "task.progress", "task.progress", "task.finished"]),
        ("broken" | "crashed", 2) => [run(&["task.failed", "task.retry"]), run(&["task.failed"])].concat(),
        ("broken" | "crashed", _) => run(&["task.failed"]),
        _ => run(&["task.finished"]),
    });
    events
}

/// M-1, M-7, E-4: hundreds of jobs, four workers of Perl's that fork for each, a subscriber over WebSocket.
#[tokio::test]
async fn forking_workers_lose_no_event() {
    let mut minion = Minion::attached().await;
    let node = Node::start(Options::on(minion.database.url())).await;
    let workers: Vec<_> = (0..4).map(|_| minion.worker()).collect();
    let mut lives: BTreeMap<i64, Vec<&str>> = BTreeMap::new();
    let mut total = 0;
    for i in 0..300 {
        let attempts = 1 + i64::from(i % 10 == 9);
        let task = ["add", "noted", "quiet", "broken", "crashed"][i as usize % 5];
        let parents: Vec<i64> =
            lives.keys().next_back().filter(|_| i % 7 == 0).copied().into_iter().collect();
        let options = json!({ "attempts": attempts, "parents": parents, "lax": 1, "priority": i % 3 });
        let id = minion.enqueue(task, options).await;
        let life = life(task, attempts);
        total += life.len();
        lives.insert(id, life);
    }
    let perl = Foreign::perl();
    let left = std::cell::Cell::new(total);
    let events = follow(
        &perl,
        &node,
        "task",
        |_| {
            left.set(left.get() - 1);
            left.get() == 0
        },
        |_| {},
    )
    .await;
    for worker in &workers {
        kill_process(Pid::from_raw(worker.id().unwrap() as i32).unwrap(), Signal::TERM).unwrap();
    }
    for mut worker in workers {
        assert!(wait::within("a worker's end", worker.wait()).await.unwrap().success());
    }
    assert_dense(&events, "perl");
    let mut seen: BTreeMap<i64, Vec<&str>> = BTreeMap::new();
    let mut last: BTreeMap<i64, &Value> = BTreeMap::new();
    for event in &events {
        assert_eq!(event.json["source"], "/minion/app");
        seen.entry(event.job()).or_default().push(event.kind());
        last.insert(event.job(), &event.json["data"]);
    }
    assert_eq!(seen, lives);
    for (id, data) in last {
        // the worker may have gone since
        let mut now = snapshot(&row(&minion, id).await);
        now["worker"] = data["worker"].clone();
        assert_eq!(*data, now);
        assert!(data["worker"]["pid"].as_i64().unwrap() > 0, "{data}");
    }
    let whole: Vec<Value> = events.iter().map(|e| e.json.clone()).collect();
    judge(&node, "/schemas/sub/task.json", &whole).await.unwrap();
    assert_eq!(minion.entries().await.len(), total, "and nothing came after the last");
    assert_eq!(lives[&1].len(), 3);
    // a job of ours of the same task and number is another
    minion.sql("alter sequence minium.job_id restart with 1").await;
    assert_eq!(node.enqueue(&json!({ "task": "add" })).await, 1);
    let whose = async |path: &str| {
        let events = node.get(path).await.expect(200)["events"].clone();
        let whose = events.as_array().unwrap().iter().map(|e| e["source"].as_str().unwrap().to_owned());
        whose.collect::<Vec<_>>()
    };
    let told = wait::until("the event of our job", async || {
        Some(whose("/api/v1/jobs/1/events").await).filter(|told| !told.is_empty())
    });
    assert_eq!(told.await, ["/minium/default"]);
    let both = ["/minion/app", "/minion/app", "/minion/app", "/minium/default"];
    assert_eq!(whose("/api/v1/jobs/1/events?task=add").await, both);
    let answer = node.get("/history/task/add?limit=1").await.expect(200);
    assert_eq!(answer["messages"][0]["source"], "/minion/app", "history says whose it is");
    let sql = "select count(*) from minium.journal where source = '/minion/app'";
    let count: i64 = minion.admin.query_one(sql, &[]).await.unwrap().get(0);
    assert_eq!(count as usize, total);
}

/// M-7, B-13: what Minion::Notifier told, its listeners go on hearing; and our own jobs live beside Minion's.
#[tokio::test]
async fn listeners_of_minion_notifier_hear_of_it() {
    let mut minion = Minion::attached().await;
    let config = "[notifier]\nminion_topic = \"minion\"\n";
    let node = Node::start(Options::on(minion.database.url()).config(config)).await;
    let perl = Foreign::perl();
    let mut peer = perl.open(&node.ws("/bus/minion")).await;
    let (done, failed) =
        (minion.enqueue("noted", json!({})).await, minion.enqueue("broken", json!({})).await);
    minion.order(json!({ "do": "perform" })).await;
    minion.order(json!({ "do": "retry", "id": done })).await;
    let ours = node.enqueue(&json!({ "task": "ours" })).await;
    let mut said = Vec::new();
    for _ in 0..7 {
        said.push(peer.json().await);
    }
    let expected = [
        json!([done, "enqueue"]),
        json!([failed, "enqueue"]),
        json!([done, "dequeue"]),
        json!([done, "finished"]),
        json!([failed, "dequeue"]),
        json!([failed, "failed"]),
        json!([ours, "enqueue"]),
    ];
    assert_eq!(said, expected);
    let mut all = perl.open(&node.ws("/sub/task?after=earliest")).await;
    let mut sources = Vec::new();
    for _ in 0..11 {
        sources.push(all.json().await["source"].as_str().unwrap().to_owned());
    }
    assert_eq!(sources[..10], ["/minion/app"; 10]);
    assert_eq!(sources[10], "/minium/default");
}
