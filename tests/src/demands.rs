//! What a job may demand, over HTTP and the command line: keys for a time, followers, limits, paused queues; and what is told
//! of those that failed.

use crate::support::node::{Node, Options};
use crate::support::on_both;
use crate::support::wait;
use serde_json::json;

const TASKS: &str = r#"
[tasks.good]
command = ["cat"]
[tasks.bad]
command = ["sh", "-c", "echo why >&2; exit 7"]
backoff = "1ms"
[tasks.long]
command = ["sleep", "1000"]
[limits.long]
running = 1
"#;

on_both! {
    /// Q-18: a key is held for as long as is said, and a day for the header.
    keys_are_held_for_as_long_as_is_said;
    /// Q-19: followers come along, and run as their parents end.
    followers_run_as_their_parents_end;
    /// Q-20: a limit of the configuration holds, and is told.
    a_limit_of_the_configuration_holds;
    /// Q-21: nothing is claimed from a paused queue.
    a_paused_queue_rests_until_it_is_resumed;
    /// Q-22: failures of each run and the last day are told.
    failures_and_hours_are_told;
    /// Q-23: a cascade is called off; a command's jobs have its own as origin.
    a_cascade_is_called_off_from_the_command_line;
}

async fn state(node: &Node, id: i64) -> String {
    node.get(&format!("/api/v1/jobs/{id}")).await.expect(200)["state"].as_str().unwrap().to_owned()
}

async fn until(node: &Node, id: i64, wanted: &str) {
    wait::until(&format!("job {id} is {wanted}"), async || (state(node, id).await == wanted).then_some(()))
        .await;
}

async fn keys_are_held_for_as_long_as_is_said(options: Options) {
    let node = Node::start(options.config(TASKS)).await;
    let job = json!({ "task": "good", "key": "k", "unique": "1h" });
    let id = node.enqueue(&job).await;
    until(&node, id, "finished").await;
    let again = node.post_json("/api/v1/jobs", &job).await.expect(200);
    assert_eq!(
        (&again["id"], &again["existing"], &again["state"]),
        (&json!(id), &json!(true), &json!("finished"))
    );
    for bad in [json!({ "task": "x", "unique": "1h" }), json!({ "task": "x", "key": "k", "unique": "soon" })]
    {
        node.post_json("/api/v1/jobs", &bad).await.problem(400, "invalid_request");
    }
    let send = async || {
        let headers = [("idempotency-key", "abc"), ("content-type", "application/json")];
        let body = json!({ "task": "good" }).to_string();
        node.request(reqwest::Method::POST, "/api/v1/jobs", &headers, body).await
    };
    let first = send().await.expect(201)["id"].as_i64().unwrap();
    until(&node, first, "finished").await;
    assert_eq!(send().await.expect(200)["id"], first);
}

async fn followers_run_as_their_parents_end(options: Options) {
    let node = Node::start(options.config(TASKS)).await;
    let tree = |task: &str| {
        json!({ "task": task,
            "on_success": { "task": "good", "args": ["next"], "on_success": { "task": "good", "args": ["last"] } },
            "on_failure": [{ "task": "good", "args": ["told"] }] })
    };
    let children = async |id: i64| -> Vec<i64> {
        let job = node.get(&format!("/api/v1/jobs/{id}")).await.expect(200);
        serde_json::from_value(job["children"].clone()).unwrap()
    };
    let good = node.enqueue(&tree("good")).await;
    let [next, told] = children(good).await[..] else { panic!("two follow") };
    let last = children(next).await[0];
    until(&node, last, "finished").await;
    until(&node, told, "cancelled").await;

    let bad = node.enqueue(&tree("bad")).await;
    let [next, told] = children(bad).await[..] else { panic!("two follow") };
    until(&node, told, "finished").await;
    let waits = node.get(&format!("/api/v1/jobs/{next}")).await.expect(200);
    assert_eq!((&waits["state"], &waits["phase"]), (&json!("inactive"), &json!("blocked")));

    let many =
        json!([{ "task": "good", "after": [1] }, { "task": "good", "on_success": { "task": "good" } }]);
    let ids = node.post_json("/api/v1/jobs", &many).await.expect(201)["ids"].clone();
    let ids: Vec<i64> = serde_json::from_value(ids).unwrap();
    assert_eq!(ids.len(), 2, "followers are not among them");
    let parents = node.get(&format!("/api/v1/jobs/{}", ids[0])).await.expect(200)["parents"].clone();
    assert_eq!(parents, json!([ids[1]]));
    let circle = json!([{ "task": "good", "after": [1] }, { "task": "good", "after": [0] }]);
    let problem = node.post_json("/api/v1/jobs", &circle).await.problem(400, "invalid_request");
    assert!(problem["detail"].as_str().unwrap().contains("circle"), "{problem}");
}

async fn a_limit_of_the_configuration_holds(options: Options) {
    let node = Node::start(options.config(TASKS)).await;
    let first = node.enqueue(&json!({ "task": "long" })).await;
    until(&node, first, "active").await;
    let second = node.enqueue(&json!({ "task": "long", "partition": "b" })).await;
    let other = node.enqueue(&json!({ "task": "good" })).await;
    until(&node, other, "finished").await;
    assert_eq!(state(&node, second).await, "inactive", "the others went by");
    let limits = node.get("/api/v1/limits").await.expect(200);
    assert_eq!(
        limits["limits"],
        json!([{ "task": "long", "running": 1, "per_partition": null, "rate": null, "per": null, "active": 1 }])
    );
    node.post(&format!("/api/v1/jobs/{first}/cancel"), "").await.expect(200);
    until(&node, second, "active").await;
}

async fn a_paused_queue_rests_until_it_is_resumed(options: Options) {
    let node = Node::start(options.config(TASKS)).await;
    let paused = node.post("/api/v1/queues/default/pause", "").await.expect(200);
    assert_eq!(paused, json!({ "queue": "default", "paused": true, "changed": true }));
    let id = node.enqueue(&json!({ "task": "good" })).await;
    let queues = node.get("/api/v1/queues").await.expect(200);
    assert_eq!((&queues["queues"][0]["name"], &queues["queues"][0]["ready"]), (&json!("default"), &json!(1)));
    assert!(queues["queues"][0]["paused"].is_string(), "{queues}");
    let listed = stdout(&node, &["queue", "ls"]).await;
    assert!(listed.contains("default") && listed.contains("paused since"), "{listed}");
    assert_eq!(state(&node, id).await, "inactive");
    assert_eq!(stdout(&node, &["queue", "resume", "default"]).await, "default resumed\n");
    until(&node, id, "finished").await;
    node.post("/api/v1/queues/a%20b/pause", "").await.problem(400, "invalid_request");
}

async fn failures_and_hours_are_told(options: Options) {
    let node = Node::start(options.config(TASKS)).await;
    let id = node.enqueue(&json!({ "task": "bad", "attempts": 3 })).await;
    until(&node, id, "failed").await;
    let told = node.get(&format!("/api/v1/jobs/{id}/failures")).await.expect(200);
    let failures = told["failures"].as_array().unwrap();
    let attempts: Vec<_> = failures.iter().map(|f| f["attempt"].as_i64().unwrap()).collect();
    assert_eq!(attempts, [1, 2, 3]);
    assert!(failures.iter().all(|f| f["error"].as_str().unwrap().contains("why")), "{told}");
    node.get("/api/v1/jobs/999999/failures").await.problem(404, "not_found");
    let shown = stdout(&node, &["job", "show", &id.to_string(), "--failures"]).await;
    assert_eq!(shown.lines().count(), 3, "{shown}");
    let hours = node.get("/api/v1/history").await.expect(200)["hours"].clone();
    let hours = hours.as_array().unwrap();
    let failed: i64 = hours.iter().map(|h| h["failed"].as_i64().unwrap()).sum();
    assert_eq!((hours.len(), failed), (24, 3));
    let dead = node.get("/api/v1/jobs?state=failed").await.expect(200);
    assert_eq!(dead["jobs"][0]["id"], id);
}

async fn a_cascade_is_called_off_from_the_command_line(options: Options) {
    let node = Node::start(options.config(TASKS)).await;
    let root = node.enqueue(&json!({ "task": "good" })).await;
    let run = ["job", "enqueue", "long", "--origin", &root.to_string(), "--priority", "3"];
    let below: i64 = stdout(&node, &run).await.trim().parse().unwrap();
    until(&node, below, "active").await;
    let origin = node.get(&format!("/api/v1/jobs/{below}")).await.expect(200)["origin"].clone();
    assert_eq!(origin, json!(root));
    let listed = stdout(&node, &["job", "ls", "--json", "--origin", &root.to_string()]).await;
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!((listed["jobs"].as_array().unwrap().len(), &listed["jobs"][0]["id"]), (1, &json!(below)));
    let counted = json!({ "action": "cancel", "filter": { "origin": root }, "dry_run": true });
    let counted = node.post_json("/api/v1/jobs:bulk", &counted).await.expect(200);
    assert_eq!((&counted["matched"], &counted["changed"]), (&json!(1), &json!(1)));
    let answer = stdout(&node, &["job", "cancel", "--cascade", &root.to_string()]).await;
    assert_eq!(answer, format!("{root} cancelled\n"));
    until(&node, below, "cancelled").await;
    let refused = json!({ "cascade": "yes" });
    let problem = node.post_json(&format!("/api/v1/jobs/{root}/cancel"), &refused).await;
    problem.problem(400, "invalid_request");
}

async fn stdout(node: &Node, args: &[&str]) -> String {
    let output = node.tokio_command().args(args).output().await.unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
