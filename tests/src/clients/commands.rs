//! `minium sub`, `pub` and `pull --ack` over durable channels and restarts.

use crate::cli::Running;
use crate::support::node::{Node, Options};
use serde_json::{Value, json};

const DURABLE: &str = "[channels.kept]\ndurable = true\n[channels.import]\ndurable = true\n";

/// C-4: lines that are published go on over a restart of the node, each once.
#[tokio::test]
async fn lines_go_on_over_a_restart() {
    let node = Node::start(Options::file().config(DURABLE)).await;
    let mut reader = Running::start(&node, &["sub", "kept", "--after", "earliest", "--topic", "-n", "4"]);
    let mut writer = Running::start(&node, &["pub", "kept/a", "-"]);
    for (n, line, data) in [(1, "{\"n\": 1}", json!({ "n": 1 })), (2, "zwei", json!("zwei"))] {
        writer.say(line).await;
        let got = reader.line().await;
        assert_eq!((&got["topic"], &got["data"]), (&json!("kept/a"), &data));
        assert!(got["position"].as_str().unwrap().ends_with(&format!(":{n}")), "{got}");
    }
    node.kill().await;
    writer.say("[3]").await;
    node.restart().await;
    writer.say("null").await;
    writer.end_of_input();
    assert_eq!(reader.line().await["data"], json!([3]));
    assert_eq!(reader.line().await["data"], Value::Null);
    assert_eq!((reader.ended().await, writer.ended().await), (0, 0));
}

/// C-4: several topics over one socket, each message once although two of them match it.
#[tokio::test]
async fn several_topics_are_subscribed_over_one_socket() {
    let node = Node::start(Options::memory().config(DURABLE)).await;
    for topic in ["kept/a", "import", "kept/b"] {
        node.post(&format!("/pub/{topic}"), "{\"n\":1}").await.expect(200);
    }
    let topics = ["sub", "kept/a", "import", "kept", "--after", "earliest", "--topic", "-n", "4"];
    let mut reader = Running::start(&node, &topics);
    let mut heard = Vec::new();
    for _ in 0..3 {
        let line = reader.line().await;
        assert_eq!(line["data"], json!({ "n": 1 }));
        heard.push(line["topic"].as_str().unwrap().to_owned());
    }
    heard.sort();
    assert_eq!(heard, ["import", "kept/a", "kept/b"]);
    assert_eq!(node.metric("minium_bus_sessions").await, 1.0);
    node.post("/pub/kept/c", "2").await.expect(200);
    assert_eq!(reader.line().await["topic"], "kept/c");
    assert_eq!(reader.ended().await, 0);
}

/// C-2, C-4: what is pulled with --ack is finished when it was written, and needs a durable channel.
#[tokio::test]
async fn work_is_acknowledged_when_it_is_written() {
    let node = Node::start(Options::memory().config(DURABLE)).await;
    let mut puller = Running::start(&node, &["pull", "import", "--ack", "-n", "2"]);
    let mut pusher = Running::start(&node, &["push", "import", "-"]);
    for file in ["a.csv", "b.csv"] {
        pusher.say(&json!({ "file": file }).to_string()).await;
        assert_eq!(puller.line().await, json!({ "file": file }));
    }
    pusher.end_of_input();
    assert_eq!((pusher.ended().await, puller.ended().await), (0, 0));
    let listed = node.get("/api/v1/jobs?task=import&state=finished").await.expect(200);
    assert_eq!(listed["jobs"].as_array().unwrap().len(), 2);
    let wrong = Running::start(&node, &["pull", "render", "--ack"]);
    assert_eq!(wrong.ended().await, 2, "nothing is acknowledged there, and no message was taken to find out");
}
