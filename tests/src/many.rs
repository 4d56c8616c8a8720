//! Many jobs at once: by filter over HTTP and the command line, by streams of the client; and what else an operator does to a job.

use crate::support::node::{Node, Options};
use crate::support::{on_both, wait};
use futures::TryStreamExt;
use minium_client::{Client, JobQuery, WorkerQuery};
use serde_json::{Value, json};
use std::process::Output;

on_both! {
    /// one action on all that a filter finds.
    a_filter_is_acted_on_in_pieces;
    /// Q-33, C-1: the same by the command line, which asks to be told twice.
    commands_act_on_what_a_filter_finds;
    /// a retry may change for whom a job waits.
    a_retry_changes_for_whom_a_job_waits;
    /// lists by ids, notes and figures by commands.
    jobs_are_listed_noted_and_counted;
    /// whole lists as streams over their pages.
    whole_lists_are_streams;
}

async fn minium(node: &Node, args: &[&str]) -> Output {
    wait::within(&format!("minium {args:?}"), node.tokio_command().args(args).output()).await.unwrap()
}

async fn stdout(node: &Node, args: &[&str]) -> String {
    let output = minium(node, args).await;
    assert!(output.status.success(), "minium {args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// So many jobs that nobody runs, oldest first.
async fn waiting(node: &Node, task: &str, count: usize) -> Vec<i64> {
    let jobs: Vec<Value> = (0..count).map(|n| json!({ "task": task, "args": [n] })).collect();
    let ids = node.post_json("/api/v1/jobs", &json!(jobs)).await.expect(201)["ids"].clone();
    serde_json::from_value(ids).unwrap()
}

async fn state(node: &Node, id: i64) -> Value {
    node.get(&format!("/api/v1/jobs/{id}")).await.json()["state"].clone()
}

async fn a_filter_is_acted_on_in_pieces(options: Options) {
    let node = Node::start(options).await;
    let ids = waiting(&node, "idle", 620).await;
    let other = waiting(&node, "other", 1).await[0];
    let ask = async |body: Value| node.post_json("/api/v1/jobs:bulk", &body).await;
    let dry = json!({ "action": "cancel", "filter": { "task": "idle" }, "dry_run": true });
    let answer = ask(dry).await.expect(200);
    assert_eq!(
        (&answer["matched"], &answer["changed"], &answer["refused"]),
        (&json!(500), &json!(500), &json!(0))
    );
    assert_eq!((&answer["next"], state(&node, ids[619]).await), (&json!(ids[120]), json!("inactive")));
    let cancel = json!({ "action": "cancel", "filter": { "task": ["idle"], "before": ids[120] } });
    let answer = ask(cancel).await.expect(200);
    assert_eq!(
        (&answer["changed"], &answer["next"], &answer["dry_run"]),
        (&json!(120), &Value::Null, &json!(false))
    );
    assert_eq!(
        (state(&node, ids[119]).await, state(&node, ids[120]).await),
        (json!("cancelled"), json!("inactive"))
    );
    let retry =
        json!({ "action": "retry", "filter": { "id": [ids[0], other] }, "options": { "priority": 9 } });
    assert_eq!(ask(retry).await.expect(200)["changed"], 2);
    assert_eq!(node.get(&format!("/api/v1/jobs/{}", ids[0])).await.json()["priority"], 9);
    let again = json!({ "action": "cancel", "filter": { "state": ["cancelled", "inactive"], "id": [ids[1], other] } });
    let answer = ask(again).await.expect(200);
    assert_eq!(
        (&answer["matched"], &answer["changed"], &answer["refused"]),
        (&json!(2), &json!(1), &json!(1))
    );
    for bad in [
        json!({ "action": "remove", "filter": {} }),
        json!({ "action": "burn", "filter": { "id": 1 } }),
        json!({ "action": "retry", "filter": { "id": 1 }, "options": { "colour": 1 } }),
    ] {
        ask(bad).await.problem(400, "invalid_request");
    }
}

async fn commands_act_on_what_a_filter_finds(options: Options) {
    let node = Node::start(options).await;
    let ids = waiting(&node, "idle", 3).await;
    let dry = ["job", "cancel", "--task", "idle", "--dry-run"];
    assert_eq!(stdout(&node, &dry).await, "3 of 3 would be cancelled\n");
    let unsure = minium(&node, &["job", "cancel", "--task", "idle"]).await;
    assert_eq!((unsure.status.code(), unsure.stdout.is_empty()), (Some(2), true));
    let said = String::from_utf8(unsure.stderr).unwrap();
    assert!(said.contains("3 of 3 jobs would be cancelled: say --yes"), "{said}");
    assert_eq!(state(&node, ids[0]).await, "inactive");
    assert_eq!(stdout(&node, &["job", "cancel", "--task", "idle", "--yes"]).await, "3 of 3 cancelled\n");
    let retry =
        ["job", "retry", "--state", "cancelled", "--task", "idle", "--priority", "4", "--yes", "--json"];
    let told: Value = serde_json::from_str(&stdout(&node, &retry).await).unwrap();
    assert_eq!(told, json!({ "matched": 3, "changed": 3, "refused": 0, "dry_run": false }));
    assert_eq!(stdout(&node, &["job", "remove", "--from-queue", "default", "-y"]).await, "3 of 3 removed\n");
    assert_eq!(minium(&node, &["job", "remove"]).await.status.code(), Some(2), "whom?");
    assert_eq!(
        minium(&node, &["job", "remove", "1", "--task", "x"]).await.status.code(),
        Some(2),
        "one or the other"
    );
    node.get(&format!("/api/v1/jobs/{}", ids[2])).await.problem(404, "not_found");
}

async fn a_retry_changes_for_whom_a_job_waits(options: Options) {
    let node = Node::start(options).await;
    let [parent, child] = waiting(&node, "idle", 2).await[..] else { panic!("two") };
    let (p, c) = (parent.to_string(), child.to_string());
    stdout(&node, &["job", "retry", &c, "--parent", &p, "--expire", "1h", "--lax"]).await;
    let shown = node.get(&format!("/api/v1/jobs/{child}")).await.expect(200);
    assert_eq!(
        (&shown["parents"], &shown["phase"], &shown["lax"]),
        (&json!([parent]), &json!("blocked"), &json!(true))
    );
    assert!(shown["expires"].is_string(), "{shown}");
    stdout(&node, &["job", "retry", &c, "--lax=false"]).await;
    assert_eq!(node.get(&format!("/api/v1/jobs/{child}")).await.json()["lax"], false);
    stdout(&node, &["job", "retry", &c, "--no-parents"]).await;
    assert_eq!(node.get(&format!("/api/v1/jobs/{child}")).await.json()["phase"], "ready");
    let path = format!("/api/v1/jobs/{parent}/retry");
    let problem = node.post_json(&path, &json!({ "parents": [child] })).await.problem(400, "invalid_request");
    assert!(problem["detail"].as_str().unwrap().contains("older than itself"), "{problem}");
}

async fn jobs_are_listed_noted_and_counted(options: Options) {
    let node = Node::start(options).await;
    let ids = waiting(&node, "idle", 3).await;
    let named = node.get(&format!("/api/v1/jobs?id={},{}", ids[2], ids[0])).await.expect(200);
    let listed: Vec<_> =
        named["jobs"].as_array().unwrap().iter().map(|job| job["id"].as_i64().unwrap()).collect();
    assert_eq!(listed, [ids[2], ids[0]]);
    node.get("/api/v1/jobs?id=x").await.problem(400, "invalid_request");
    let id = ids[1].to_string();
    assert_eq!(stdout(&node, &["job", "note", &id, "owner=ops", "tries=3"]).await, "");
    stdout(&node, &["job", "note", &id, "tries=null"]).await;
    let shown = stdout(&node, &["job", "ls", "--id", &id, "--json"]).await;
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(
        (&shown["jobs"][0]["notes"], shown["jobs"].as_array().unwrap().len()),
        (&json!({ "owner": "ops" }), 1)
    );
    assert_eq!(minium(&node, &["job", "note", "999999", "a=1"]).await.status.code(), Some(3));
    stdout(&node, &["lock", "take", "door", "--for", "1h"]).await;
    let figures: Value = serde_json::from_str(&stdout(&node, &["queue", "stats", "--json"]).await).unwrap();
    assert_eq!(
        (&figures["inactive"], &figures["active_locks"], &figures["schedules"]),
        (&json!(3), &json!(1), &json!(0))
    );
    let stats = node.get("/api/v1/stats").await.expect(200);
    assert!(stats["uptime"].is_u64() && stats["inactive_schedules"] == 0, "{stats}");
}

async fn whole_lists_are_streams(options: Options) {
    let node = Node::start(options.config("[tasks.echo]\ncommand = [\"cat\"]\n")).await;
    let mut ids = waiting(&node, "idle", 7).await;
    ids.reverse();
    let client = Client::new(&node.http(""), None).unwrap();
    let query = JobQuery { tasks: vec!["idle".into()], limit: Some(3), ..JobQuery::default() };
    let jobs: Vec<_> = client.every_job(query).map_ok(|info| info.job.id).try_collect().await.unwrap();
    assert_eq!(jobs, ids);
    let all = || client.every_worker(WorkerQuery { limit: Some(1), ..WorkerQuery::default() });
    let _second = node
        .tokio_command()
        .args(["worker", "--database", &node.database(), "--task", "echo=cat"])
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let two = wait::until("the node's worker and the second one", async || {
        let workers: Vec<_> = all().map_ok(|worker| worker.id).try_collect().await.unwrap();
        (workers.len() == 2).then_some(workers)
    });
    let workers = two.await;
    let listed = client.workers(&WorkerQuery::default()).await.unwrap();
    assert_eq!(workers, listed.workers.iter().map(|worker| worker.id).collect::<Vec<_>>());
    let nobody = client.every_job(JobQuery { tasks: vec!["none".into()], ..JobQuery::default() });
    assert!(nobody.try_collect::<Vec<_>>().await.unwrap().is_empty());
}
