//! The workers of `examples/`, as they stand. The images' walk-through is run by `documents`.

use crate::support::node::{Node, Options, checkout};
use crate::support::wait;
use serde_json::{Value, json};
use std::process::Stdio;
use tokio::process::Command;

fn example(name: &str) -> Command {
    let file = checkout().join("examples").join(name);
    let mut command = match file.extension().and_then(|e| e.to_str()) {
        Some("py") => Command::new(std::env::var_os("MINIUM_TEST_PYTHON").expect("run ./scripts/test")),
        Some("pl") => Command::new("perl"),
        _ => {
            let mut node = Command::new("node");
            node.args(["--no-warnings", "--experimental-websocket"]);
            node
        }
    };
    command.arg(file).kill_on_drop(true);
    command
}

/// J-2, J-3, J-4: each pulls with credit, notes its progress, extends its lease, acks and nacks, and hears of a
/// cancellation.
#[tokio::test]
async fn workers_in_three_languages() {
    let node = Node::start(Options::file().config("[channels.\"example\"]\ndurable = true\n")).await;
    for name in ["python/worker.py", "perl/worker.pl", "javascript/worker.mjs"] {
        let task = format!("example/{}", name.split('/').next().unwrap());
        let push = async |data: Value| {
            let answer = node.post(&format!("/push/{task}"), data.to_string()).await;
            answer.expect(200)["job"].as_i64().unwrap()
        };
        let good = push(json!({ "steps": 3 })).await;
        let bad = push(json!({ "steps": 1, "fail": "no disk" })).await;
        // as `minium job enqueue TASK` has it, and what is no object either
        let (bare, null) = (push(json!([])).await, push(json!(null)).await);
        let long = push(json!({ "steps": 100_000 })).await;
        let child = example(name)
            .args([&node.http(""), &task, "--count", "5"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let good = node.ended(good).await;
        assert_eq!((&good["state"], &good["result"]), (&json!("finished"), &json!({ "steps": 3 })), "{name}");
        assert_eq!(good["progress"], json!({ "percent": 100.0, "text": "step 3" }), "{name}");
        assert_eq!(good["notes"]["by"], name.split('/').next().unwrap());
        let bad = node.ended(bad).await;
        assert_eq!((&bad["state"], &bad["error"]), (&json!("failed"), &json!("no disk")), "{name}");
        for id in [bare, null] {
            assert_eq!(node.ended(id).await["state"], "finished", "{name}");
        }
        wait::until("the long job to run", async || {
            (!node.job(long).await["progress"].is_null()).then_some(())
        })
        .await;
        node.post(&format!("/api/v1/jobs/{long}/cancel"), "").await.expect(200);
        // not before, or it might be over first and the worker with it
        let last = push(json!({})).await;
        assert_eq!(node.ended(last).await["state"], "finished", "{name}");
        let output = wait::within(name, child.wait_with_output()).await.unwrap();
        assert!(output.status.success(), "{name}: {output:?}");
        let said = String::from_utf8(output.stdout).unwrap();
        let said: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(said.iter().filter(|s| s["answer"] == "ok").count(), 5, "{name}: {said:?}");
    }
}

/// a cut costs no run. Whoever works goes on, and says how it ended over the next socket.
#[tokio::test]
async fn workers_in_three_languages_go_on_over_a_cut() {
    let node = Node::start(Options::file().config("[channels.\"example\"]\ndurable = true\n")).await;
    for name in ["python/worker.py", "perl/worker.pl", "javascript/worker.mjs"] {
        let task = format!("example/{}", name.split('/').next().unwrap());
        let answer = node.post(&format!("/push/{task}"), json!({ "steps": 60 }).to_string()).await;
        let id = answer.expect(200)["job"].as_i64().unwrap();
        let child = example(name)
            .args([&node.http(""), &task, "--count", "1"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        wait::until("the job to run", async || (!node.job(id).await["progress"].is_null()).then_some(()))
            .await;
        node.kill().await;
        node.restart().await;
        let job = node.ended(id).await;
        assert_eq!((&job["state"], &job["attempt"]), (&json!("finished"), &json!(1)), "{name}: {job}");
        assert_eq!(job["result"], json!({ "steps": 60 }), "{name}");
        let output = wait::within(name, child.wait_with_output()).await.unwrap();
        assert!(output.status.success(), "{name}: {output:?}");
    }
}
