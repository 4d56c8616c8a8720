//! What is kept, by the page: GET `/history/T`. And channels that are read again while the node runs.

use crate::support::curl::Stream;
use crate::support::node::{Node, Options};
use crate::support::wait;
use bytes::Bytes;
use minium_bus::{Draft, History};
use minium_notifier::{EnvelopeOptions, Journal};
use minium_protocol::CloudEvent;
use minium_queue::Backend;
use rustix::process::{Signal, kill_process};
use serde_json::Value;
use std::sync::Arc;

const NEWS: &str = "[channels.news]\ndurable = true\n[channels.\"news/short\"]\nretention = { count = 2 }\n";

/// Another process on the node's database, which keeps messages as a node does.
async fn neighbour(node: &Node) -> (Backend, Arc<dyn History>) {
    let backend = Backend::open(&node.database().parse().unwrap()).await.unwrap();
    let history = Journal::open(&backend, EnvelopeOptions::default()).history();
    (backend, history)
}

async fn keep(history: &Arc<dyn History>, topic: &str, count: usize) -> Vec<u64> {
    let draft = |n| Draft { topic: topic.parse().unwrap(), id: None, data: Bytes::from(format!("[{n}]")) };
    let kept = history.keep((0..count).map(draft).collect()).await.unwrap();
    kept.iter().map(|position| position.offset).collect()
}

/// Messages and the next position of a page.
async fn page(node: &Node, path: &str) -> (Vec<Value>, String) {
    let answer = node.get(path).await;
    let page = answer.expect(200);
    let next = page["next"].as_str().unwrap().to_owned();
    assert_eq!(answer.header("minium-next"), next);
    (page["messages"].as_array().unwrap().clone(), next)
}

/// P-9: pages join without a gap, as one document each or one event a line, the same bytes as on a subscription.
#[tokio::test]
async fn what_is_kept_is_read_by_the_page() {
    let node = Node::start(Options::file().config(NEWS)).await;
    let (_backend, history) = neighbour(&node).await;
    let offsets = keep(&history, "news/a", 7).await;
    keep(&history, "news/b", 3).await;
    let (mut next, mut seen) = ("earliest".to_owned(), Vec::new());
    loop {
        let (messages, then) = page(&node, &format!("/history/news/a?after={next}&limit=3")).await;
        next = then;
        if messages.is_empty() {
            break;
        }
        assert!(messages.len() <= 3);
        seen.extend(messages);
    }
    let found: Vec<u64> = seen.iter().map(|m| m["sequence"].as_str().unwrap().parse().unwrap()).collect();
    assert_eq!(found, offsets);
    assert_eq!(
        (&seen[6]["data"][0], &seen[6]["type"], &seen[6]["subject"]),
        (&Value::from(6), &Value::from("message"), &Value::from("news/a"))
    );
    // an empty page is to be asked for again
    let more = keep(&history, "news/a", 1).await;
    let (messages, _) = page(&node, &format!("/history/news/a?after={next}")).await;
    assert_eq!(messages.len(), more.len());

    assert_eq!(page(&node, "/history/news").await.0.len(), 11, "from the oldest, below the topic too");
    assert_eq!(page(&node, "/history/news?last=2").await.0.len(), 2);
    assert_eq!(page(&node, "/history/news?after=latest").await.0.len(), 0);
    assert_eq!(page(&node, "/history/news/+?last=5&limit=4").await.0.len(), 4);

    let lines = node
        .request(reqwest::Method::GET, "/history/news/b", &[("accept", "application/x-ndjson")], "")
        .await;
    assert_eq!((lines.status, lines.header("content-type")), (200, "application/x-ndjson"));
    assert!(lines.header("minium-next").contains(':'));
    let lines: Vec<&str> = lines.text().lines().collect();
    assert_eq!(lines.len(), 3);
    let event: CloudEvent = serde_json::from_str(lines[0]).unwrap();
    assert_eq!(event.data.unwrap().get(), "[0]");
}

/// P-9: task events too, to the byte.
#[tokio::test]
async fn the_history_of_tasks_is_what_subscribers_got() {
    let node = Node::memory().await;
    let mut stream = Stream::open(&node.http("/sub/task?after=earliest"), &[]).await;
    for _ in 0..3 {
        node.post("/api/v1/jobs", r#"{"task":"idle","args":[]}"#).await.expect(201);
    }
    let mut live = Vec::new();
    while live.len() < 3 {
        live.push(stream.event().await.data);
    }
    let lines =
        node.request(reqwest::Method::GET, "/history/task", &[("accept", "application/x-ndjson")], "").await;
    assert_eq!(lines.text().lines().collect::<Vec<_>>(), live);
}

/// P-10: what a subscription is refused, a page is.
#[tokio::test]
async fn a_page_is_refused_as_a_subscription_is() {
    let node = Node::start(Options::file().config(NEWS)).await;
    for (path, code) in [
        ("/history/other", "invalid_request"),
        ("/history/+", "invalid_request"),
        ("/history/news?after=x", "invalid_request"),
        ("/history/news?after=1&last=1", "invalid_request"),
        ("/history/news?limit=0", "invalid_request"),
        ("/history/news?limit=1001", "invalid_request"),
        ("/history/news?limt=1", "invalid_request"),
        ("/history/", "topic_invalid"),
        ("/history/a%2Fb", "topic_invalid"),
    ] {
        node.get(path).await.problem(400, code);
    }
    let changed = node.get("/history/news?after=99:1").await.problem(410, "epoch_changed");
    assert!(changed["earliest"].is_string());
    let beyond = node.get("/history/news?after=1000").await.problem(410, "epoch_changed");
    assert!(beyond["earliest"].is_string());
    let none = node.request(reqwest::Method::POST, "/history/news", &[], "").await;
    none.problem(405, "method_not_allowed");
}

/// P-11: each channel keeps so much for itself, and what is gone says from where on there is something.
#[tokio::test]
async fn a_channel_keeps_so_much_for_itself() {
    let node = Node::start(Options::file().config(NEWS)).await;
    let (_backend, history) = neighbour(&node).await;
    let long = keep(&history, "news/long", 4).await;
    let short = keep(&history, "news/short/x", 4).await;
    let floor = short[2];
    // nothing that is younger than some seconds is let go of
    let gone = wait::until("the oldest to be let go of", async || {
        let answer = node.get("/history/news/short?after=0").await;
        (answer.status == 410).then_some(answer)
    })
    .await;
    let earliest = gone.problem(410, "offset_expired")["earliest"].as_str().unwrap().to_owned();
    assert!(earliest.ends_with(&format!(":{}", floor - 1)), "{earliest}");
    let (kept, _) = page(&node, &format!("/history/news/short?after={earliest}")).await;
    assert_eq!(kept.len(), 2);
    assert_eq!(page(&node, "/history/news/long?after=0").await.0.len(), long.len());
    let above = node.get("/history/news?after=0").await.problem(410, "offset_expired");
    assert_eq!(
        above["earliest"].as_str(),
        Some(&*earliest),
        "a filter that reaches both begins where both are whole"
    );
}

/// Q-16: a job whose beginning was let go of says from where on its history is whole.
#[tokio::test]
async fn a_job_whose_beginning_is_gone_says_so() {
    let node = Node::start(Options::file().config("[channels.task]\nretention = { count = 2 }\n")).await;
    let id = node.enqueue(&serde_json::json!({ "task": "idle" })).await;
    let path = format!("/api/v1/jobs/{id}/events");
    let earliest = async || node.get(&path).await.header("minium-earliest").to_owned();
    let first = earliest().await;
    for n in 0..3 {
        let body = format!("{{\"notes\":{{\"n\":{n}}}}}");
        node.request(reqwest::Method::PATCH, &format!("/api/v1/jobs/{id}"), &[], body).await.expect(200);
    }
    // nothing that is younger than some seconds is let go of
    wait::until("the oldest to be let go of", async || {
        (node.get(&path).await.expect(200)["events"].as_array()?.len() == 2).then_some(())
    })
    .await;
    let later = earliest().await;
    assert_ne!(first, later, "the two that are left are not the whole history");
    node.get(&format!("{path}?after={first}")).await.problem(410, "offset_expired");
    assert_eq!(
        node.get(&format!("{path}?after={later}")).await.expect(200)["events"].as_array().unwrap().len(),
        2
    );
}

/// C-6: SIGHUP reads the channels again; a file with mistakes changes nothing, and the log names them.
#[tokio::test]
async fn channels_are_read_again_and_a_bad_file_changes_nothing() {
    let node = Node::start(Options::file()).await;
    let configure = |text: &str| {
        std::fs::write(node.dir().join("minium.toml"), text).unwrap();
        kill_process(node.pid(), Signal::HUP).unwrap();
    };
    node.get("/history/news").await.problem(400, "invalid_request");
    configure("[channels.news]\ndurable = true\n");
    let status = async |due: u16| {
        wait::until("the channels to be read", async || {
            (node.get("/history/news").await.status == due).then_some(())
        })
        .await;
    };
    status(200).await;
    configure("[channels.news]\ndurable = false\nretention = { count = 1 }\n[channels.\"a/+\"]\n");
    wait::until("the mistakes to be told", async || {
        let log = node.log();
        let both =
            ["channels.news.retention: nothing is kept here", "channels.\\\"a/+\\\"", "stay as they are"];
        both.iter().all(|words| log.contains(words)).then_some(())
    })
    .await;
    node.get("/history/news").await.expect(200);
    configure("");
    status(400).await;
}
