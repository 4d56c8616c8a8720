//! What a job knows of those that it comes from, and those that come from it: over HTTP, by commands, and for a worker that has
//! nothing but a WebSocket.

use crate::support::node::{Node, Options};
use crate::support::{on_both, wait};
use crate::trust::{Guarded, token};
use futures::StreamExt;
use minium_client::{Client, ConnectOptions, PullOptions, Work};
use minium_protocol::{EnqueueRequest, ErrorCode, LeaseToken, State};
use minium_worker::{ClientSource, Failure, JobContext, Spool, SpoolOptions, Worker, WorkerOptions};
use serde_json::{Value, json};
use std::process::Stdio;
use tokio_util::sync::CancellationToken;

on_both! {
    /// what parents brought, in their order, by the page.
    what_parents_brought_is_told;
    /// a command over WebSocket reads what its parents brought, and enqueues with its origin.
    a_command_knows_its_kin;
    /// so does a Rust task over WebSocket.
    a_rust_task_over_websocket_knows_its_kin;
}

async fn ended(node: &Node, id: i64, wanted: &str) -> Value {
    wait::until(&format!("job {id} is {wanted}"), async || {
        let job = node.job(id).await;
        (job["state"] == wanted).then_some(job)
    })
    .await
}

const TASKS: &str = "
[tasks.echo]
command = [\"cat\"]
[tasks.wrong]
command = [\"sh\", \"-c\", \"echo why >&2; exit 7\"]
";

/// Three parents, of which one has failed and one is gone.
async fn parents(node: &Node) -> [i64; 3] {
    let good = node.enqueue(&json!({ "task": "echo", "args": [{ "rows": 10 }] })).await;
    let bad = node.enqueue(&json!({ "task": "wrong" })).await;
    let gone = node.enqueue(&json!({ "task": "echo" })).await;
    ended(node, good, "finished").await;
    ended(node, bad, "failed").await;
    ended(node, gone, "finished").await;
    node.delete(&format!("/api/v1/jobs/{gone}")).await;
    [good, gone, bad]
}

async fn what_parents_brought_is_told(options: Options) {
    let node = Node::start(options.config(TASKS)).await;
    let [good, gone, bad] = parents(&node).await;
    let child = node.enqueue(&json!({ "task": "idle", "parents": [good, gone, bad], "lax": true })).await;
    let told = node.get(&format!("/api/v1/jobs/{child}/parents")).await.expect(200);
    assert_eq!(
        told["parents"][0],
        json!({ "id": good, "state": "finished", "result": [{ "rows": 10 }], "error": null })
    );
    assert_eq!(told["parents"][1], json!({ "id": gone, "state": null, "result": null, "error": null }));
    assert_eq!((&told["parents"][2]["state"], &told["next"]), (&json!("failed"), &Value::Null));
    assert!(told["parents"][2]["error"].as_str().unwrap().contains("why"), "{told}");
    let rest = node.get(&format!("/api/v1/jobs/{child}/parents?from=2")).await.expect(200);
    assert_eq!(rest["parents"], json!([told["parents"][2]]));
    let behind = node.get(&format!("/api/v1/jobs/{child}/parents?from=7")).await.expect(200);
    assert_eq!(behind, json!({ "parents": [], "next": null }));
    node.get("/api/v1/jobs/999999/parents").await.problem(404, "not_found");
    for bad in ["from=x", "lease=x", "colour=red"] {
        node.get(&format!("/api/v1/jobs/{child}/parents?{bad}")).await.problem(400, "invalid_request");
    }
    let output = node.tokio_command().args(["job", "parents", &child.to_string()]).output().await.unwrap();
    let lines: Vec<Value> =
        String::from_utf8(output.stdout).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(json!(lines), told["parents"]);
    // more than one page has room for
    let many: Vec<i64> = (0..1_003).map(|n| 2_000_000 + n).collect();
    let child = node.enqueue(&json!({ "task": "idle", "parents": many })).await;
    let page = node.get(&format!("/api/v1/jobs/{child}/parents")).await.expect(200);
    assert_eq!((page["parents"].as_array().unwrap().len(), &page["next"]), (1_000, &json!(1_000)));
    let all = Client::new(&node.http(""), None).unwrap().parents(child).await.unwrap();
    assert_eq!(all.iter().map(|parent| parent.id).collect::<Vec<_>>(), many);
}

async fn a_command_knows_its_kin(options: Options) {
    let node = Node::start(options.config(&format!("{TASKS}[channels.gather]\ndurable = true\n"))).await;
    let [good, gone, bad] = parents(&node).await;
    let program = node.dir().join("gather.sh");
    let minium = crate::support::node::binary();
    let script = format!(
        "#!/bin/sh\nexport MINIUM_URL={}\n{} job parents --json > kin\n{} job enqueue leaf > leaf\n\
         echo \"{{\\\"ids\\\":[$MINIUM_PARENTS],\\\"leaf\\\":$(cat leaf),\\\"kin\\\":$(cat kin)}}\"\n",
        node.http(""),
        minium.display(),
        minium.display(),
    );
    std::fs::write(&program, script).unwrap();
    let mut worker = node.tokio_command();
    worker.args(["worker", "--url", &node.ws(""), "--spool"]).arg(node.dir().join("spool"));
    worker.args(["--task", &format!("gather=sh {}", program.display())]);
    let log = node.log_file();
    let _worker = worker.stdin(Stdio::null()).stderr(log).kill_on_drop(true).spawn().unwrap();
    let child = node.enqueue(&json!({ "task": "gather", "parents": [good, gone, bad], "lax": true })).await;
    let result = ended(&node, child, "finished").await["result"].clone();
    assert_eq!(result["ids"], json!([good, gone, bad]));
    let told = node.get(&format!("/api/v1/jobs/{child}/parents")).await.expect(200);
    assert_eq!(result["kin"]["parents"], told["parents"]);
    let leaf = result["leaf"].as_i64().unwrap();
    assert_eq!(node.job(leaf).await["origin"], child);
    let cascade = node.post_json(&format!("/api/v1/jobs/{child}/cancel"), &json!({ "cascade": true })).await;
    assert_eq!(cascade.expect(200)["cancelled"], 1);
    assert_eq!(node.job(leaf).await["state"], "cancelled");
}

async fn a_rust_task_over_websocket_knows_its_kin(options: Options) {
    let node = Node::start(options.config(&format!("{TASKS}[channels.gather]\ndurable = true\n"))).await;
    let parents = parents(&node).await;
    let link = Client::new(&node.http(""), None).unwrap().connect(ConnectOptions::default()).unwrap();
    let spool = Spool::open(&node.dir().join("spool"), &[&node.http("")], SpoolOptions::default()).unwrap();
    let gather = |job: JobContext, _: Value| async move {
        let told = job.parent_results().await?;
        let leaf = EnqueueRequest::new("leaf", serde_json::value::to_raw_value(&[job.priority()])?);
        let leaves = job.enqueue_all(vec![leaf.clone(), leaf]).await?;
        Ok::<_, Failure>(json!({ "told": told, "leaves": leaves, "notes": job.notes() }))
    };
    let stop = CancellationToken::new();
    let options = WorkerOptions { upkeep: None, ..WorkerOptions::default() };
    let worker = Worker::new(ClientSource::new(link, spool, 1), options).task("gather", gather);
    let work = tokio::spawn(worker.run(stop.clone()));
    let request =
        json!({ "task": "gather", "parents": parents, "lax": true, "priority": 4, "notes": { "who": "me" } });
    let child = node.enqueue(&request).await;
    let result = ended(&node, child, "finished").await["result"].clone();
    let told = node.get(&format!("/api/v1/jobs/{child}/parents")).await.expect(200);
    assert_eq!((&result["told"], &result["notes"]), (&told["parents"], &json!({ "who": "me" })));
    for leaf in result["leaves"].as_array().unwrap() {
        let leaf = node.job(leaf.as_i64().unwrap()).await;
        assert_eq!((&leaf["origin"], &leaf["args"]), (&json!(child), &json!([4])));
    }
    stop.cancel();
    wait::within("the worker to end", work).await.unwrap().unwrap();
}

/// who pulls a job reads what its parents brought by the job's lease alone, and nothing of others.
#[tokio::test]
async fn a_lease_opens_the_parents_of_its_job_and_no_more() {
    let guarded =
        Guarded::start("[channels.gather]\ndurable = true\n[channels.part]\ndurable = true\n").await;
    let client = |scopes: &str| Client::new(&guarded.node.http(""), Some(token(scopes))).unwrap();
    let admin = client("admin");
    let args = || serde_json::value::to_raw_value(&[1]).unwrap();
    let part = admin.enqueue(&EnqueueRequest::new("part", args())).await.unwrap().id;
    let parts = admin.connect(ConnectOptions::default()).unwrap();
    let pull = |credit| PullOptions { tasks: Vec::new(), queue: None, credit };
    let mut puller = parts.pull(&"part".parse().unwrap(), pull(1)).await.unwrap();
    let Work::Job(job) = wait::within("the part", puller.next()).await.unwrap().unwrap() else {
        panic!("a job")
    };
    job.ack(Some(serde_json::value::to_raw_value(&7).unwrap())).await.unwrap();
    let mut child = EnqueueRequest::new("gather", args());
    child.options.parents = vec![part];
    let child = admin.enqueue(&child).await.unwrap().id;

    let link = client("pull:gather").connect(ConnectOptions::default()).unwrap();
    let mut puller = link.pull(&"gather".parse().unwrap(), pull(1)).await.unwrap();
    let Work::Job(job) = wait::within("the child", puller.next()).await.unwrap().unwrap() else {
        panic!("a job")
    };
    assert_eq!((job.job.id, &job.job.parents), (child, &vec![part]));
    let page = link.parent_results(child, job.lease(), 0).await.unwrap();
    assert_eq!(
        (page.parents.len(), page.parents[0].id, page.parents[0].state),
        (1, part, Some(State::Finished))
    );
    assert_eq!(page.parents[0].result.as_ref().unwrap().get(), "7");

    let code = |refused: minium_client::ClientError| refused.code().unwrap();
    let strange = link.parent_results(child, LeaseToken::fresh(), 0).await.unwrap_err();
    assert_eq!(code(strange), ErrorCode::LeaseLost);
    let elsewhere = client("pull:part").connect(ConnectOptions::default()).unwrap();
    assert_eq!(
        code(elsewhere.parent_results(child, job.lease(), 0).await.unwrap_err()),
        ErrorCode::Forbidden
    );
    let without = Client::new(&guarded.node.http(""), Some(token("pull:gather"))).unwrap();
    assert_eq!(code(without.parents(child).await.unwrap_err()), ErrorCode::Forbidden, "without a lease");
    assert_eq!(client("jobs:read").parents(child).await.unwrap()[0].id, part);

    let leaf = [EnqueueRequest::new("leaf", args()), EnqueueRequest::new("leaf", args())];
    assert_eq!(code(link.enqueue_all(&leaf).await.unwrap_err()), ErrorCode::Forbidden);
    let writer = client("pull:gather jobs:write").connect(ConnectOptions::default()).unwrap();
    let ids = writer.enqueue_all(&leaf).await.unwrap();
    assert_eq!(admin.get(ids[1]).await.unwrap().job.task, "leaf");
    job.ack(None).await.unwrap();
    let late = link.parent_results(child, LeaseToken::fresh(), 0).await.unwrap_err();
    assert_eq!(code(late), ErrorCode::LeaseLost);
}
