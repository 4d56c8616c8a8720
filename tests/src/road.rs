//! The whole road: from an enqueued job to every kind of reader, on both kinds of database.

use crate::support::curl::Stream;
use crate::support::events::{TaskEvent, judge, kinds};
use crate::support::foreign::Foreign;
use crate::support::node::{Node, Options};
use crate::support::on_both;
use serde_json::{Value, json};

/// A worker in the node, with a task that tells of its progress.
const WITH_WORKER: &str = r#"
[tasks.import]
command = ["sh", "-c", "echo '::progress 40 half way' >&2; echo '::note rows=10' >&2; cat"]
[tasks.broken]
command = ["sh", "-c", "echo it broke >&2; exit 3"]
"#;

on_both! {
    /// E-1, E-2, E-3: each transition reaches Python, Perl and curl, as the same bytes, complete by the schema.
    each_transition_reaches_all_three_clients_with_the_full_snapshot;
    /// E-6: what the API says of a job is what its last event said.
    the_job_equals_its_last_event;
    /// E-5: failures, retries, cancelling and removing have their events.
    every_end_of_a_job_has_its_event;
    /// B-13: Minion's notifications on the bus.
    minion_topic_gets_id_and_action;
    /// T-4, T-5: filters on task events, by task, by job and by `+`.
    subscribers_hear_what_their_filter_says;
    /// Q-3: the same key again is the same job and no event.
    a_key_that_is_taken_answers_the_job_that_has_it;
}

async fn each_transition_reaches_all_three_clients_with_the_full_snapshot(options: Options) {
    let node = Node::start(options.config(WITH_WORKER)).await;
    let (python, perl) = (Foreign::python(), Foreign::perl());
    let mut plain = python.open(&node.ws("/sub/task/import")).await;
    let mut wrapped =
        perl.open_with(&node.ws("/sub/task"), json!({ "subprotocols": ["cloudevents.json"] })).await;
    assert_eq!(wrapped.subprotocol.as_deref(), Some("cloudevents.json"));
    let mut curl = Stream::open(&node.http("/sub/task/import"), &[]).await;
    assert_eq!(curl.status, 200);
    let id =
        node.enqueue(&json!({ "task": "import", "args": ["x", {"y": 1}], "notes": {"who": "me"} })).await;

    let mut events = Vec::new();
    while events.last().is_none_or(|e: &TaskEvent| e.kind() != "task.finished") {
        let event = TaskEvent::parse(&plain.text().await);
        assert_eq!(event.job(), id);
        assert_eq!(wrapped.text().await, event.text, "the same bytes in every mode");
        let streamed = curl.event().await;
        assert_eq!((streamed.data.as_str(), streamed.id), (event.text.as_str(), Some(event.position())));
        events.push(event);
    }
    let seen = kinds(&events);
    assert_eq!((seen[0], seen[1], seen[seen.len() - 1]), ("task.enqueue", "task.dequeue", "task.finished"));
    assert!(seen[2..seen.len() - 1].iter().all(|k| *k == "task.progress") && seen.len() > 3, "{seen:?}");
    assert_snapshots(&node, &events, id).await;
}

async fn assert_snapshots(node: &Node, events: &[TaskEvent], id: i64) {
    let last = &events[events.len() - 1].json["data"];
    for event in events {
        let data = &event.json["data"];
        assert_eq!(
            (&data["task"], &data["args"]),
            (&json!("import"), &json!(["x", {"y": 1}])),
            "in every snapshot"
        );
        assert_eq!(data["id"], id);
        assert_eq!(event.json["dataschema"], node.http("/schemas/job.json"));
        assert_eq!(event.json["source"].as_str().unwrap().split('/').nth(1), Some("minium"));
    }
    assert_eq!(
        (&last["state"], &last["result"], &last["attempt"]),
        (&json!("finished"), &json!(["x", {"y": 1}]), &json!(1))
    );
    assert_eq!(last["notes"]["who"], "me");
    assert_eq!((&last["progress"]["percent"], &last["progress"]["text"]), (&json!(40.0), &json!("half way")));
    let whole: Vec<Value> = events.iter().map(|e| e.json.clone()).collect();
    judge(node, "/schemas/sub/task.json", &whole).await.unwrap();
    let data: Vec<Value> = whole.iter().map(|e| e["data"].clone()).collect();
    judge(node, "/schemas/job.json", &data).await.unwrap();
    // the judge is awake: an incomplete snapshot is refused
    let mut incomplete = whole[0].clone();
    incomplete["data"].as_object_mut().unwrap().remove("attempts");
    let verdict = judge(node, "/schemas/sub/task.json", &[incomplete]).await;
    assert!(verdict.unwrap_err().contains("attempts"));
}

async fn the_job_equals_its_last_event(options: Options) {
    let node = Node::start(options.config(WITH_WORKER)).await;
    let python = Foreign::python();
    let mut events = python.open(&node.ws("/sub/task")).await;
    let parent = node.enqueue(&json!({ "task": "idle", "delay": "1h" })).await;
    let child =
        node.enqueue(&json!({ "task": "idle", "parents": [parent], "key": "k", "attempts": 3 })).await;
    let done = node.enqueue(&json!({ "task": "import", "args": [1] })).await;
    let mut last = std::collections::HashMap::new();
    while last.get(&done).is_none_or(|e: &TaskEvent| e.kind() != "task.finished") {
        let event = TaskEvent::parse(&events.text().await);
        last.insert(event.job(), event);
    }
    for (id, phase, children) in [
        (parent, json!("delayed"), json!([child])),
        (child, json!("blocked"), json!([])),
        (done, Value::Null, json!([])),
    ] {
        let mut job = node.get(&format!("/api/v1/jobs/{id}")).await.expect(200);
        let members = job.as_object_mut().unwrap();
        assert_eq!(members.remove("phase"), Some(phase), "{id}");
        assert_eq!(members.remove("children"), Some(children), "{id}");
        assert_eq!(job, last[&id].json["data"], "{id}");
    }
}

async fn every_end_of_a_job_has_its_event(options: Options) {
    let node = Node::start(options.config(WITH_WORKER)).await;
    let python = Foreign::python();
    let mut session = python.open(&node.ws("/sub/task")).await;
    let mut upto = async |kind: &str| {
        let mut seen = Vec::new();
        loop {
            let event = TaskEvent::parse(&session.text().await);
            seen.push(event.kind().to_owned());
            if event.kind() == kind {
                return (seen, event.json["data"].clone());
            }
        }
    };
    let id = node.enqueue(&json!({ "task": "broken" })).await;
    let (seen, data) = upto("task.failed").await;
    assert_eq!(
        seen,
        ["task.enqueue", "task.dequeue", "task.progress", "task.failed"],
        "it says why in its log"
    );
    assert_eq!(data["state"], "failed");
    assert!(data["error"].as_str().unwrap().contains("it broke"), "{data}");
    node.post(&format!("/api/v1/jobs/{id}/retry"), "").await.expect(200);
    let (seen, data) = upto("task.failed").await;
    assert_eq!(seen, ["task.retry", "task.dequeue", "task.progress", "task.failed"]);
    assert_eq!((&data["attempt"], &data["retries"]), (&json!(2), &json!(1)));
    assert_eq!(node.delete(&format!("/api/v1/jobs/{id}")).await.status / 100, 2);
    let (seen, data) = upto("task.removed").await;
    assert_eq!((seen.len(), &data["state"]), (1, &json!("failed")), "the last snapshot");

    // with attempts left it is retried by itself, in the same transaction
    let again = node.enqueue(&json!({ "task": "broken", "attempts": 2, "backoff": "1h" })).await;
    let (seen, data) = upto("task.retry").await;
    assert_eq!(seen, ["task.enqueue", "task.dequeue", "task.progress", "task.failed", "task.retry"]);
    assert_eq!((&data["state"], &data["attempt"]), (&json!("inactive"), &json!(1)));
    node.post(&format!("/api/v1/jobs/{again}/cancel"), "").await.expect(200);
    let (seen, data) = upto("task.cancelled").await;
    assert_eq!((seen.len(), &data["state"]), (1, &json!("cancelled")));
}

async fn minion_topic_gets_id_and_action(options: Options) {
    let config = format!("{WITH_WORKER}\n[notifier]\nminion_topic = \"minion\"\n");
    let node = Node::start(options.config(&config)).await;
    let perl = Foreign::perl();
    let mut peer = perl.open(&node.ws("/bus/minion")).await;
    let done = node.enqueue(&json!({ "task": "import" })).await;
    for action in ["enqueue", "dequeue", "finished"] {
        assert_eq!(peer.json().await, json!([done, action]));
    }
    let failed = node.enqueue(&json!({ "task": "broken" })).await;
    for action in ["enqueue", "dequeue", "failed"] {
        assert_eq!(peer.json().await, json!([failed, action]));
    }
}

async fn subscribers_hear_what_their_filter_says(options: Options) {
    let node = Node::start(options).await;
    let perl = Foreign::perl();
    let mut all = perl.open(&node.ws("/sub/task")).await;
    let mut imports = perl.open(&node.ws("/sub/task/import")).await;
    let mut children = perl.open(&node.ws("/sub/task/+/child")).await;
    let mut everything = perl.open(&node.ws("/sub/+")).await;
    let mut jobs = Vec::new();
    for task in ["import", "import/child", "importer", "export/child", "import"] {
        jobs.push((task, node.enqueue(&json!({ "task": task })).await));
    }
    for (session, hears) in [
        (&mut all, [0, 1, 2, 3, 4].as_slice()),
        (&mut everything, &[0, 1, 2, 3, 4]),
        (&mut imports, &[0, 1, 4]),
        (&mut children, &[1, 3]),
    ] {
        for i in hears {
            let event = TaskEvent::parse(&session.text().await);
            assert_eq!((event.task(), event.job()), jobs[*i]);
        }
    }
    let (_, one) = jobs[0];
    let mut single = perl.open(&node.ws(&format!("/sub/task/import/{one}?after=earliest"))).await;
    assert_eq!(TaskEvent::parse(&single.text().await).job(), one);
    node.post(&format!("/api/v1/jobs/{}/cancel", jobs[4].1), "").await.expect(200);
    node.post(&format!("/api/v1/jobs/{one}/cancel"), "").await.expect(200);
    let event = TaskEvent::parse(&single.text().await);
    assert_eq!((event.kind(), event.job()), ("task.cancelled", one));
}

async fn a_key_that_is_taken_answers_the_job_that_has_it(options: Options) {
    let node = Node::start(options).await;
    let perl = Foreign::perl();
    let mut session = perl.open(&node.ws("/sub/task")).await;
    let job = json!({ "task": "once", "key": "k" });
    let first = node.enqueue(&job).await;
    let again = node.post_json("/api/v1/jobs", &job).await;
    assert_eq!(again.json()["id"], first, "{again:?}");
    let by_header = node.request(
        reqwest::Method::POST,
        "/api/v1/jobs",
        &[("content-type", "application/json"), ("idempotency-key", "k")],
        json!({ "task": "once" }).to_string(),
    );
    assert_eq!(by_header.await.json()["id"], first);
    let other = node.enqueue(&json!({ "task": "other", "key": "k" })).await;
    let seen = [TaskEvent::parse(&session.text().await).job(), TaskEvent::parse(&session.text().await).job()];
    assert_eq!(seen, [first, other], "no event for what existed");
}
