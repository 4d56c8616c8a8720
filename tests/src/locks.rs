//! Named locks over HTTP and by the command line, and over a crash of the database.

use crate::support::node::{Node, Options};
use crate::support::on_both;
use crate::support::postgres::{Cluster, ClusterOptions};
use crate::support::wait;
use minium_queue::{Backend, locks};
use reqwest::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::process::{Output, Stdio};
use std::time::Duration;

on_both! {
    /// N-1, N-2, N-3: taken, refused, extended by its token, let go.
    a_lock_is_taken_extended_and_let_go;
    /// N-1: what breaks a rule is told.
    what_breaks_a_rule_of_locks_is_refused;
    /// N-4: what is held is listed by the page, without tokens.
    what_is_held_is_listed;
    /// N-5: a command runs under a lock, and not without it.
    a_command_runs_under_a_lock;
}

async fn patch(node: &Node, path: &str, body: &Value) -> crate::support::http::Answer {
    node.request(Method::PATCH, path, &[("content-type", "application/json")], body.to_string()).await
}

async fn a_lock_is_taken_extended_and_let_go(options: Options) {
    let node = Node::start(options).await;
    let path = "/api/v1/locks/deploy%2Frack%203";
    let held = node.post_json(path, &json!({ "for": "10m", "owner": "me" })).await.expect(201);
    let token = held["token"].as_str().unwrap();
    assert_eq!(held["name"], "deploy/rack 3");
    let problem = node.post_json(path, &json!({ "for": "10m" })).await.problem(409, "conflict");
    assert!(problem["detail"].as_str().unwrap().contains("deploy/rack 3"), "{problem}");
    node.post_json(path, &json!({ "for": 0 })).await.problem(409, "conflict");
    let free = node.post_json(path, &json!({ "for": 0, "limit": 2 })).await.expect(200);
    assert_eq!((&free["token"], &free["until"]), (&Value::Null, &Value::Null));
    let other = node.post_json(path, &json!({ "for": "10m", "limit": 2 })).await.expect(201);
    node.post_json(path, &json!({ "for": "10m", "limit": 2 })).await.problem(409, "conflict");

    let until = |answer: &Value| answer["until"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let longer = patch(&node, path, &json!({ "token": token, "for": "1h" })).await.expect(200);
    assert!(until(&longer) > until(&held), "{longer}");
    let nobody = "6d4bb6a5-4b7f-4a59-a9ab-9d7d3f5f3c1e";
    patch(&node, path, &json!({ "token": nobody, "for": "1h" })).await.problem(409, "conflict");
    node.delete(&format!("{path}?lock_token={nobody}")).await.problem(409, "conflict");
    let released = node.delete(&format!("{path}?lock_token={token}")).await.expect(200);
    assert_eq!(released, json!({ "released": 1 }));
    patch(&node, path, &json!({ "token": token, "for": "1h" })).await.problem(409, "conflict");
    assert_eq!(node.delete(path).await.expect(200), json!({ "released": 1 }), "whoever holds it");
    patch(&node, path, &json!({ "token": other["token"], "for": "1h" })).await.problem(409, "conflict");
    assert_eq!(node.delete(path).await.expect(200), json!({ "released": 0 }));
    node.post_json(path, &json!({ "for": "1h" })).await.expect(201);
}

async fn what_breaks_a_rule_of_locks_is_refused(options: Options) {
    let node = Node::start(options).await;
    let fine = json!({ "for": "1s" });
    for path in ["/api/v1/locks/a%00", &format!("/api/v1/locks/{}", "x".repeat(256))] {
        node.post_json(path, &fine).await.problem(400, "invalid_request");
    }
    for body in [
        json!({}),
        json!({ "for": "soon" }),
        json!({ "for": -1 }),
        json!({ "for": 1, "limit": 0 }),
        json!({ "for": 1, "limit": 1_000_001 }),
        json!({ "for": 1, "colour": 1 }),
        json!({ "for": 1, "owner": "x".repeat(1_025) }),
        json!({ "for": 0.0001 }),
    ] {
        node.post_json("/api/v1/locks/a", &body).await.problem(400, "invalid_request");
    }
    node.post("/api/v1/locks/a", "{").await.problem(400, "invalid_json");
    node.delete("/api/v1/locks/a?lock_token=x").await.problem(400, "invalid_request");
    node.delete("/api/v1/locks/a?colour=x").await.problem(400, "invalid_request");
    patch(&node, "/api/v1/locks/a", &fine).await.problem(400, "invalid_request");
    node.get("/api/v1/locks?limit=0").await.problem(400, "invalid_request");
    assert_eq!(node.get("/api/v1/locks").await.expect(200), json!({ "locks": [], "next": null }));
}

async fn what_is_held_is_listed(options: Options) {
    let node = Node::start(options).await;
    for name in ["a", "b", "a"] {
        let body = json!({ "for": "1h", "limit": 2, "owner": format!("owner of {name}") });
        node.post_json(&format!("/api/v1/locks/{name}"), &body).await.expect(201);
    }
    let page = node.get("/api/v1/locks?limit=2").await.expect(200);
    let names = |page: &Value| -> Vec<String> {
        let name = |lock: &Value| lock["name"].as_str().unwrap().to_owned();
        page["locks"].as_array().unwrap().iter().map(name).collect()
    };
    assert_eq!(names(&page), ["a", "b"]);
    let lock = &page["locks"][0];
    assert_eq!((&lock["owner"], &lock["limit"]), (&json!("owner of a"), &json!(2)));
    assert!(lock["taken"].is_string() && lock["until"].is_string(), "{lock}");
    assert!(!page.to_string().contains("token"), "{page}");
    let next = node.get(&format!("/api/v1/locks?limit=2&after={}", page["next"])).await.expect(200);
    assert_eq!((names(&next), &next["next"]), (vec!["a".to_owned()], &Value::Null));
    assert_eq!(names(&node.get("/api/v1/locks?name=a").await.expect(200)), ["a", "a"]);
}

async fn minium(node: &Node, args: &[&str]) -> Output {
    let what = format!("minium {}", args.join(" "));
    wait::within(&what, node.tokio_command().args(args).output()).await.unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap().trim().to_owned()
}

async fn a_command_runs_under_a_lock(options: Options) {
    let node = Node::start(options).await;
    let run = async |script: &str| minium(&node, &["lock", "run", "a", "--", "sh", "-c", script]).await;
    let listed = "exec \"$0\" lock ls --json";
    let binary = crate::support::node::binary();
    let inside =
        minium(&node, &["lock", "run", "a", "--", "sh", "-c", listed, binary.to_str().unwrap()]).await;
    let held: Value = serde_json::from_str(&stdout(&inside)).unwrap_or_else(|e| panic!("{e}: {inside:?}"));
    assert_eq!(held["locks"].as_array().unwrap().len(), 1, "it was held meanwhile: {held}");
    assert_eq!(node.get("/api/v1/locks").await.expect(200)["locks"], json!([]), "and is not any more");
    assert_eq!(run("exit 42").await.status.code(), Some(42), "the status is the command's");
    assert_eq!(run("kill -9 $$").await.status.code(), Some(128 + 9));

    let token = stdout(&minium(&node, &["lock", "take", "a", "--for", "1h", "--owner", "me"]).await);
    let refused = run("echo never").await;
    assert_eq!((refused.status.code(), stdout(&refused)), (Some(7), String::new()), "{refused:?}");
    assert_eq!(minium(&node, &["lock", "take", "a", "--wait", "200ms"]).await.status.code(), Some(7));
    assert_eq!(
        minium(&node, &["lock", "take", "a", "--for", "0", "--limit", "2"]).await.status.code(),
        Some(0)
    );
    assert!(stdout(&minium(&node, &["lock", "ls", "a"]).await).contains("me"));
    let mut waiting = node.tokio_command();
    waiting.args(["lock", "run", "a", "--wait", "1m", "--", "echo", "at last"]).stdout(Stdio::piped());
    let waiting = waiting.spawn().unwrap();
    let wrong = ["lock", "release", "a", "--lock-token", "6d4bb6a5-4b7f-4a59-a9ab-9d7d3f5f3c1e"];
    assert_eq!(minium(&node, &wrong).await.status.code(), Some(7));
    assert_eq!(
        minium(&node, &["lock", "release", "a"]).await.status.code(),
        Some(2),
        "one of the two is said"
    );
    assert!(minium(&node, &["lock", "release", "a", "--lock-token", &token]).await.status.success());
    let waited = wait::within("the lock to be had", waiting.wait_with_output()).await.unwrap();
    assert_eq!((waited.status.code(), stdout(&waited)), (Some(0), "at last".into()), "{waited:?}");
}

/// N-5: a command whose lock is lost is ended; one that is told to end takes its command along and lets the lock go.
#[tokio::test]
async fn a_command_does_not_outlive_its_lock() {
    let node = Node::memory().await;
    let started = node.dir().join("started");
    let script = format!("echo $$ > {} && exec sleep 1000", started.display());
    let start = |span: &str| {
        let mut command = node.tokio_command();
        command.args(["lock", "run", "a", "--for", span, "--", "sh", "-c", &script]).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let begun = async || {
        let read = async || std::fs::read_to_string(&started).ok()?.trim().parse::<i32>().ok();
        let pid = wait::until("the command to begin", read).await;
        std::fs::remove_file(&started).unwrap();
        Pid::from_raw(pid).unwrap()
    };
    // what is dead and not yet buried is gone as well
    let gone = async |pid: Pid| {
        let state = || std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
        let gone = async || state().map_or(true, |stat| stat.contains(") Z ")).then_some(());
        wait::until("the command to be gone", gone).await;
    };

    let running = start("600ms");
    let pid = begun().await;
    assert_eq!(node.delete("/api/v1/locks/a").await.expect(200)["released"], 1);
    let output = wait::within("the loss to be noticed", running.wait_with_output()).await.unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("lost"), "{output:?}");
    gone(pid).await;

    let running = start("1h");
    let pid = begun().await;
    let runner = Pid::from_raw(i32::try_from(running.id().unwrap()).unwrap()).unwrap();
    kill_process(runner, Signal::TERM).unwrap();
    let output = wait::within("the command to end", running.wait_with_output()).await.unwrap();
    assert_eq!(output.status.code(), Some(128 + 15), "{output:?}");
    gone(pid).await;
    assert_eq!(node.get("/api/v1/locks").await.expect(200)["locks"], json!([]), "it was let go");

    let mut running = start("2s");
    let pid = begun().await;
    running.kill().await.unwrap();
    gone(pid).await;
    let free = async || (node.get("/api/v1/locks").await.expect(200)["locks"] == json!([])).then_some(());
    wait::until("the lock to end by itself", free).await;
}

/// N-2: a crash of the database lets no lock go; its guard keeps it over the outage.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_survives_a_crash_of_the_database() {
    let mut cluster = Cluster::start(ClusterOptions { fsync: true, ..ClusterOptions::default() }).await;
    let url = cluster.create_database("minium").await;
    let backend = Backend::open(&url.parse().unwrap()).await.unwrap();
    backend.migrate().await.unwrap();
    let store = backend.store();
    let hour = Duration::from_secs(3_600);
    let held = store.lock("a", "me", hour, 1).await.unwrap().unwrap();
    let guard = locks::hold(store.clone(), "kept", "me", Duration::from_secs(30), 1).await.unwrap().unwrap();
    cluster.kill();
    cluster.restart().await;
    let asked =
        wait::until("the store to come back", async || store.lock("a", "other", hour, 1).await.ok()).await;
    assert_eq!(asked, None, "it is still held");
    assert!(store.extend_lock("a", held.token, hour).await.unwrap().is_some());
    assert!(store.unlock("a", held.token).await.unwrap());
    assert!(!guard.lost().is_cancelled());
    assert!(guard.release().await);
}
