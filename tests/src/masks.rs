//! Secrets in arguments: `writeOnly` in a task's schema, from the file to whoever may and may not see them.

use crate::support::foreign::Foreign;
use crate::support::node::{Node, Options};
use crate::support::on_both;
use crate::support::wait;
use rustix::process::Signal;
use serde_json::{Value, json};

const SECRET: &str = "hunter2";
const SCHEMA: &str = r#"{"prefixItems":[{"type":"object","properties":
    {"rack":{"type":"integer"},"password":{"type":"string","writeOnly":true}}}]}"#;

fn put(node: &Node, path: &str) {
    let file = node.dir().join("schemas/tasks").join(path);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, SCHEMA).unwrap();
}

fn whole() -> Value {
    json!([{ "rack": 7, "password": SECRET }])
}

fn shown() -> Value {
    json!([{ "rack": 7, "password": "***" }])
}

on_both! {
    /// E-8: the one who pulls the job has all of it; answers, events, lists, history and the log do not.
    a_secret_reaches_the_worker_and_nobody_else;
    /// E-8: a schema that comes while the node runs counts for what is enqueued after it was read.
    a_schema_that_comes_later_hides_from_then_on;
}

async fn a_secret_reaches_the_worker_and_nobody_else(options: Options) {
    let channel = "[channels.rack]\ndurable = true\npatterns = [\"push\"]\n";
    let env = vec![("MINIUM_LOG", "trace".to_owned())];
    let node = Node::start(Options { env, ..options.config(channel) }).await;
    // the schema is there before the node is: not one job may slip through
    node.end(Signal::TERM).await;
    put(&node, "rack.json");
    node.restart().await;
    let client = Foreign::perl();
    let mut watch = client.open(&node.ws("/sub/task/rack/unlock?mode=cloudevents")).await;
    let request = json!({ "task": "rack/unlock", "args": whole() });
    let answer = node.post_json("/api/v1/jobs", &request).await.expect(201);
    assert_eq!(answer["args"], shown(), "{answer}");
    let pushed = node.post("/push/rack/unlock", whole().to_string()).await.expect(200);

    let v1 = json!({ "subprotocols": ["minium.v1"] });
    let mut puller = client.open_with(&node.ws("/pull/rack/unlock"), v1).await;
    assert_eq!(puller.json().await["op"], "ok");
    for id in [&answer["id"], &pushed["job"]] {
        let job = puller.json().await;
        assert_eq!((&job["job"]["id"], &job["job"]["args"]), (id, &whole()), "{job}");
        let ack = json!({ "op": "ack", "job": id, "lease": job["lease"], "result": "open" });
        puller.send(&ack.to_string()).await;
        assert_eq!(puller.json().await["op"], "ok");
        puller.send(&json!({ "op": "pull", "topic": "rack/unlock" }).to_string()).await;
        assert_eq!(puller.json().await["op"], "ok");
    }
    for _ in 0..6 {
        let event = watch.text().await;
        assert!(!event.contains(SECRET), "{event}");
        let event: Value = serde_json::from_str(&event).unwrap();
        assert_eq!(event["data"]["args"], shown(), "{event}");
    }
    let id = &answer["id"];
    for path in [
        format!("/api/v1/jobs/{id}"),
        format!("/api/v1/jobs/{id}/events"),
        format!("/api/v1/jobs/{id}/wait"),
        "/api/v1/jobs".to_owned(),
        "/history/task?last=10".to_owned(),
        "/metrics".to_owned(),
    ] {
        let answer = node.get(&path).await;
        assert_eq!(answer.status, 200, "{path}");
        assert!(!answer.text().contains(SECRET), "{path}: {}", answer.text());
        assert!(path == "/metrics" || answer.text().contains("***"), "{path}: {}", answer.text());
    }
    // what is refused is not repeated either
    let wrong = json!({ "task": "rack/unlock", "args": [{ "rack": SECRET, "password": SECRET }] });
    let problem = node.post_json("/api/v1/jobs", &wrong).await.problem(422, "schema_violation");
    assert!(!problem.to_string().contains(SECRET), "{problem}");
    assert!(!node.log().contains(SECRET), "the log keeps it");
}

async fn a_schema_that_comes_later_hides_from_then_on(options: Options) {
    let node = Node::start(options).await;
    let request = json!({ "task": "door", "args": whole() });
    let before = node.enqueue(&request).await;
    put(&node, "door.json");
    wait::until("arguments to be hidden", async || {
        let answer = node.post_json("/api/v1/jobs", &request).await.expect(201);
        (answer["args"] == shown()).then_some(())
    })
    .await;
    let old = node.get(&format!("/api/v1/jobs/{before}")).await.expect(200);
    assert_eq!(old["args"], whole(), "what was said before was said");
}
