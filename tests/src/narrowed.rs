//! Lists that look into what jobs say (how far they walk, Q-36, is `store::conformance::narrowed`), tags of jobs, and bulk actions that go on behind their requests.

use crate::support::node::{Node, Options};
use crate::support::{on_both, wait};
use reqwest::Method;
use serde_json::{Value, json};

on_both! {
    /// every condition of a list, over HTTP and by the command line.
    lists_are_narrowed_by_what_jobs_say;
    /// a job that has not changed is not sent again.
    a_job_has_a_tag;
    /// all that a filter finds, with progress on a topic.
    all_are_acted_on_behind_the_request;
    /// few at once, and each can be stopped.
    few_run_at_once_and_each_can_be_stopped;
}

async fn ids(node: &Node, query: &str) -> Vec<i64> {
    let page = node.get(&format!("/api/v1/jobs?{query}")).await.expect(200);
    page["jobs"].as_array().unwrap().iter().map(|job| job["id"].as_i64().unwrap()).collect()
}

async fn lists_are_narrowed_by_what_jobs_say(options: Options) {
    let node = Node::start(options).await;
    let a =
        node.enqueue(&json!({ "task": "t", "args": [{ "serial": "A,B=C" }], "notes": { "rack": 3 } })).await;
    let b =
        node.enqueue(&json!({ "task": "t", "args": ["x"], "notes": { "rack": "r,s" }, "delay": "1h" })).await;
    let c = node.enqueue(&json!({ "task": "t", "args": ["Y"], "parents": [a] })).await;
    assert_eq!(ids(&node, "phase=ready").await, [a]);
    assert_eq!(ids(&node, "phase=delayed,blocked").await, [c, b]);
    assert_eq!(ids(&node, "note=rack").await, [b, a]);
    assert_eq!(ids(&node, "note=rack=3").await, [a]);
    assert_eq!(ids(&node, "note=rack=r,s").await, [b]);
    assert_eq!(ids(&node, "arg=/0/serial=A,B=C").await, [a]);
    assert_eq!(ids(&node, "arg=/0=x&phase=delayed").await, [b]);
    assert_eq!(ids(&node, "q=y").await, [c]);
    let created = node.job(b).await["created"].as_str().unwrap().to_owned();
    assert_eq!(ids(&node, &format!("enqueued_after={created}")).await, [c, b]);
    assert_eq!(ids(&node, &format!("enqueued_before={created}")).await, [a]);
    assert!(ids(&node, "ended_after=1970-01-01T00:00:00Z").await.is_empty());
    for bad in ["phase=active", "arg=x", "q=", "enqueued_after=soon"] {
        node.get(&format!("/api/v1/jobs?{bad}")).await.problem(400, "invalid_request");
    }
    let list = |args: &'static [&'static str]| {
        let mut command = node.tokio_command();
        command.args(["job", "ls", "--json"]).args(args);
        async move {
            let output = wait::within("minium job ls", command.output()).await.unwrap();
            assert!(output.status.success(), "{output:?}");
            let page: Value = serde_json::from_slice(&output.stdout).unwrap();
            page["jobs"].as_array().unwrap().iter().map(|job| job["id"].as_i64().unwrap()).collect::<Vec<_>>()
        }
    };
    assert_eq!(list(&["--phase", "ready,blocked", "-q", "y"]).await, [c]);
    assert_eq!(list(&["--note", "rack=r,s"]).await, [b]);
    assert_eq!(list(&["--arg", "/0/serial=A,B=C"]).await, [a]);
}

async fn a_job_has_a_tag(options: Options) {
    let node = Node::start(options).await;
    let id = node.enqueue(&json!({ "task": "t" })).await;
    let path = format!("/api/v1/jobs/{id}");
    let ask = async |tag: &str| node.request(Method::GET, &path, &[("if-none-match", tag)], "").await;
    let first = node.get(&path).await;
    let tag = first.header("etag").to_owned();
    assert!(tag.starts_with('"') && tag.len() > 10, "{tag}");
    let again = ask(&tag).await;
    assert_eq!((again.status, again.body.len(), again.header("etag")), (304, 0, tag.as_str()));
    assert_eq!(ask("\"other\"").await.body, first.body);
    node.post_json(&format!("{path}/cancel"), &json!({})).await.expect(200);
    let changed = ask(&tag).await;
    assert_eq!((changed.status, &changed.json()["state"]), (200, &json!("cancelled")));
    assert_ne!(changed.header("etag"), tag);
}

/// So many jobs that nobody runs.
async fn waiting(node: &Node, count: usize) {
    let jobs = vec![json!({ "task": "idle" }); count];
    node.post_json("/api/v1/jobs", &json!(jobs)).await.expect(201);
}

async fn ended(node: &Node, id: &str) -> Value {
    wait::until(&format!("bulk action {id} to end"), async || {
        let told = node.get(&format!("/api/v1/bulk/{id}")).await.expect(200);
        (told["done"] == true).then_some(told)
    })
    .await
}

async fn all_are_acted_on_behind_the_request(options: Options) {
    let node = Node::start(options).await;
    waiting(&node, 1_200).await;
    let other = node.enqueue(&json!({ "task": "other" })).await;
    let stream = reqwest::Client::new().get(node.http("/sub/bulk")).header("accept", "text/event-stream");
    let stream = wait::within("a subscription", stream.send()).await.unwrap();
    let bulk = async |action: &str, dry_run: bool| {
        let asked =
            json!({ "action": action, "filter": { "task": "idle" }, "all": true, "dry_run": dry_run });
        let answer = node.post_json("/api/v1/jobs:bulk", &asked).await;
        let begun = answer.expect(202);
        let id = begun["id"].as_str().unwrap().to_owned();
        assert_eq!(answer.header("location"), format!("/api/v1/bulk/{id}"));
        assert_eq!((&begun["topic"], &begun["action"]), (&json!(format!("bulk/{id}")), &json!(action)));
        ended(&node, &id).await
    };
    let counted = bulk("cancel", true).await;
    assert_eq!((&counted["matched"], &counted["changed"]), (&json!(1_200), &json!(1_200)));
    assert!(ids(&node, "state=cancelled").await.is_empty(), "a dry run changes nothing");
    let done = bulk("cancel", false).await;
    assert_eq!(
        (&done["matched"], &done["changed"], &done["refused"], &done["error"], &done["stopped"]),
        (&json!(1_200), &json!(1_200), &json!(0), &Value::Null, &json!(false))
    );
    assert_eq!(node.get("/api/v1/stats").await.expect(200)["cancelled"], 1_200);
    assert_eq!(node.job(other).await["state"], "inactive");
    let told = followed(stream, done["id"].as_str().unwrap()).await;
    assert_eq!(told.last(), Some(&done), "what is told last is what is answered");
    let matched: Vec<_> = told.iter().map(|progress| progress["matched"].as_u64().unwrap()).collect();
    assert_eq!(matched, [500, 1_000, 1_200], "after each piece");
    // what is wrong is told at once, and nothing is begun
    for bad in [json!({}), json!({ "task": "idle", "note": vec!["x"; 101] })] {
        let asked = json!({ "action": "remove", "filter": bad, "all": true });
        node.post_json("/api/v1/jobs:bulk", &asked).await.problem(400, "invalid_request");
    }
    let all = node.get("/api/v1/bulk").await.expect(200);
    assert_eq!(all["bulks"], json!([done, counted]), "the newest first");
    for path in ["/api/v1/bulk/x", "/api/v1/bulk/00000000-0000-4000-8000-000000000000"] {
        node.get(path).await.problem(404, "not_found");
        node.delete(path).await.problem(404, "not_found");
    }
}

/// What a stream tells of one bulk action, up to its end.
async fn followed(mut stream: reqwest::Response, id: &str) -> Vec<Value> {
    let (mut text, mut told) = (String::new(), Vec::new());
    while told.last().is_none_or(|progress: &Value| progress["done"] == false) {
        let chunk = wait::within("progress", stream.chunk()).await.unwrap().expect("the stream goes on");
        text.push_str(std::str::from_utf8(&chunk).unwrap());
        while let Some((event, rest)) = text.split_once("\n\n") {
            let data = event.lines().find_map(|line| line.strip_prefix("data:"));
            let read = |data: &str| serde_json::from_str::<Value>(data.trim()).ok();
            told.extend(data.and_then(read).filter(|progress| progress["id"] == id));
            text = rest.to_owned();
        }
    }
    told
}

async fn few_run_at_once_and_each_can_be_stopped(options: Options) {
    let node = Node::start(options).await;
    waiting(&node, 3_000).await;
    let begin = async || {
        let asked = json!({ "action": "retry", "filter": { "task": "idle" }, "all": true });
        node.post_json("/api/v1/jobs:bulk", &asked).await
    };
    // each has six pieces before it, and is asked for in less than the time of one
    let mut begun = Vec::new();
    let refused = loop {
        let answer = begin().await;
        if answer.status != 202 {
            break answer;
        }
        begun.push(answer.json()["id"].as_str().unwrap().to_owned());
        assert!(begun.len() <= 100, "there is no bound");
    };
    refused.problem(429, "rate_limited");
    assert!(!refused.header("retry-after").is_empty());
    assert!(begun.len() >= 4, "{begun:?}");
    for id in &begun {
        node.delete(&format!("/api/v1/bulk/{id}")).await.expect(200);
    }
    for id in &begun {
        ended(&node, id).await;
    }
    let last = ended(&node, begun.last().unwrap()).await;
    assert_eq!((&last["stopped"], &last["error"]), (&json!(true), &Value::Null), "{last}");
    assert!(last["matched"].as_u64().unwrap() < 3_000, "{last}");
    let again = begin().await.expect(202)["id"].as_str().unwrap().to_owned();
    node.delete(&format!("/api/v1/bulk/{again}")).await.expect(200);
    ended(&node, &again).await;
}
