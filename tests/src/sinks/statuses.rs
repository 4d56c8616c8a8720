//! Statuses of commits: the last one that is said is what the job is.

use super::{HOLD, Heard, Receiver, done, started};
use crate::support::node::{Node, Options};
use crate::support::on_both;
use crate::support::wait;
use serde_json::{Value, json};

on_both! {
    /// O-6: pending, then what came of it, at the commit that the job names.
    a_commit_has_the_status_of_its_job;
}

const SHA: &str = "0123456789abcdef0123456789abcdef01234567";

fn sink(receiver: &Receiver, more: &str) -> String {
    let url = receiver.url("/api/v3");
    format!(
        "[sinks.ci]\nkind = \"github-status\"\nbase_url = \"{url}\"\ntoken = \"tok\"\nallow_private = true\n\
         tasks = [\"ci\"]\nrepository = \"/args/0/repository\"\nsha = \"/notes/sha\"\nbackoff = \"100ms\"\n\
         target_url = \"https://minium.example/#/jobs/{{job}}\"\n{more}\n"
    )
}

async fn build(node: &Node, task: &str, notes: Value) -> i64 {
    node.enqueue(&json!({ "task": task, "args": [{ "repository": "acme/rocket" }], "notes": notes })).await
}

fn state(heard: &Heard) -> String {
    heard.json()["state"].as_str().unwrap().to_owned()
}

async fn states(receiver: &Receiver, count: usize) -> Vec<String> {
    wait::until(&format!("{count} statuses"), async || {
        let heard = receiver.heard();
        (heard.len() >= count).then(|| heard.iter().map(state).collect())
    })
    .await
}

async fn a_commit_has_the_status_of_its_job(options: Options) {
    let receiver = Receiver::start(|_, _| "201 Created".into()).await;
    let tasks = "[tasks.\"ci/build\"]\ncommand = [\"sh\", \"-c\", \"echo broken >&2; exit 1\"]\n";
    let config = format!("{}{tasks}", sink(&receiver, ""));
    let node = started(options.config(&config), &["ci"]).await;
    // none of these is told of: no commit, no good one, another task
    build(&node, "ci/none", json!({})).await;
    build(&node, "ci/none", json!({ "sha": "main" })).await;
    build(&node, "other", json!({ "sha": SHA })).await;
    let job = build(&node, "ci/wait", json!({ "sha": SHA })).await;
    assert_eq!(states(&receiver, 1).await, ["pending"]);
    let said = receiver.heard().remove(0);
    assert_eq!(said.path, format!("/api/v3/repos/acme/rocket/statuses/{SHA}"));
    assert_eq!(said.header("authorization"), "Bearer tok");
    let expected = json!({
        "state": "pending", "context": "ci/wait", "description": "waiting",
        "target_url": format!("https://minium.example/#/jobs/{job}"),
    });
    assert_eq!(said.json(), expected);
    node.post(&format!("/api/v1/jobs/{job}/cancel"), "").await;
    assert_eq!(states(&receiver, 2).await.last().unwrap(), "error");
    done(&node, 2).await;
    build(&node, "ci/build", json!({ "sha": SHA })).await;
    done(&node, 4).await;
    let last = receiver.heard().pop().unwrap();
    assert_eq!(state(&last), "failure");
    assert!(last.json()["description"].as_str().unwrap().contains("broken"), "{:?}", last.json());
}

/// O-6: a status that was sent early and comes late is put right by whoever sent it.
#[tokio::test]
async fn a_late_pending_does_not_stay() {
    let late = |place: usize, _: &Heard| format!("{}201 Created", if place == 0 { HOLD } else { "" });
    let receiver = Receiver::start(late).await;
    let node = started(Options::memory().config(&sink(&receiver, "timeout = \"2m\"")), &["ci"]).await;
    let job = build(&node, "ci", json!({ "sha": SHA })).await;
    states(&receiver, 1).await;
    node.post(&format!("/api/v1/jobs/{job}/cancel"), "").await;
    wait::until("the end to be told", async || (receiver.answered().len() == 1).then_some(())).await;
    receiver.desk.gate.notify_one();
    done(&node, 2).await;
    let taken: Vec<String> = receiver.answered().iter().map(state).collect();
    assert_eq!(taken, ["error", "pending", "error"]);
}

/// O-6: a job that is gone has the status of its end, and an API that does not know the commit is not asked again.
#[tokio::test]
async fn what_is_gone_and_what_is_unknown_ends_there() {
    let unknown = |place: usize, _: &Heard| -> String {
        if place == 0 { "422 Unprocessable Entity".into() } else { "201 Created".into() }
    };
    let receiver = Receiver::start(unknown).await;
    let node = started(Options::memory().config(&sink(&receiver, "")), &["ci"]).await;
    let job = build(&node, "ci", json!({ "sha": SHA })).await;
    let refused = done(&node, 1).await.remove(0);
    assert_eq!((&refused["state"], &refused["attempt"]), (&json!("failed"), &json!(1)));
    assert_eq!(node.delete(&format!("/api/v1/jobs/{job}")).await.status, 204);
    done(&node, 2).await;
    let said = receiver.heard().pop().unwrap().json();
    assert_eq!((&said["state"], &said["description"]), (&json!("error"), &json!("removed")));
}
