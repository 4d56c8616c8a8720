//! Trace contexts, from whoever enqueues to whoever runs, by every road, and on to what a run enqueues.

use crate::support::foreign::Foreign;
use crate::support::node::{Node, Options, binary};
use crate::support::on_both;
use minium_client::{Client, ConnectOptions};
use minium_protocol::EnqueueRequest;
use minium_worker::{ClientSource, Failure, JobContext, Spool, SpoolOptions, Worker, WorkerOptions};
use reqwest::Method;
use serde_json::{Value, json};
use std::process::Stdio;
use tokio_util::sync::CancellationToken;

on_both! {
    /// Q-2, E-2: from a header or an option to the events and to a command.
    from_an_enqueue_to_a_command;
    /// J-2: to whoever pulls, and to a worker without a database.
    from_a_push_to_who_is_elsewhere;
    /// What a run enqueues has the trace of its job, over HTTP, too.
    from_a_run_to_what_it_enqueues;
}

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const OTHER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

/// A task that tells its trace.
const TELL: &str =
    "[tasks.tell]\ncommand = [\"sh\", \"-c\", \"echo \\\"\\\\\\\"$TRACEPARENT\\\\\\\"\\\"\"]\n";

async fn enqueue(node: &Node, path: &str, body: &Value) -> Value {
    let headers = [("traceparent", TRACE), ("content-type", "application/json")];
    let answer = node.request(Method::POST, path, &headers, body.to_string()).await;
    assert!([200, 201].contains(&answer.status), "{answer:?}");
    answer.json()
}

async fn told(node: &Node, id: i64) -> String {
    let job = node.ended(id).await;
    job["result"].as_str().unwrap_or_else(|| panic!("{job}")).to_owned()
}

/// What every event of a job says.
async fn traces(node: &Node, id: i64) -> Vec<Value> {
    let events = node.get(&format!("/api/v1/jobs/{id}/events")).await.expect(200);
    events["events"].as_array().unwrap().iter().map(|event| event["traceparent"].clone()).collect()
}

async fn from_an_enqueue_to_a_command(options: Options) {
    let node = Node::start(options.config(TELL)).await;
    let id = enqueue(&node, "/api/v1/jobs", &json!({ "task": "tell" })).await["id"].as_i64().unwrap();
    assert_eq!(told(&node, id).await, TRACE);
    assert_eq!(traces(&node, id).await, vec![json!(TRACE); 3]);
    // what a job says itself goes before what its request says
    let jobs = json!([{ "task": "tell", "traceparent": OTHER }, { "task": "tell" }]);
    let ids = enqueue(&node, "/api/v1/jobs", &jobs).await["ids"].clone();
    assert_eq!(told(&node, ids[0].as_i64().unwrap()).await, OTHER);
    assert_eq!(told(&node, ids[1].as_i64().unwrap()).await, TRACE);
    let without = node.enqueue(&json!({ "task": "tell" })).await;
    assert_eq!(told(&node, without).await, "");
    assert_eq!(traces(&node, without).await, vec![Value::Null; 3]);
    let wrong = json!({ "task": "tell", "traceparent": "00-abc" });
    node.post_json("/api/v1/jobs", &wrong).await.problem(400, "invalid_request");
}

async fn from_a_push_to_who_is_elsewhere(options: Options) {
    let node =
        Node::start(options.config("[channels.tell]\ndurable = true\n[channels.hand]\ndurable = true\n"))
            .await;
    let mut worker = node.tokio_command();
    worker.args(["worker", "--shell", "--url", &node.ws(""), "--spool"]).arg(node.dir().join("spool"));
    worker.args(["--task", "tell=echo \"\\\"$TRACEPARENT\\\"\""]);
    let _worker = worker.stdin(Stdio::null()).stderr(node.log_file()).kill_on_drop(true).spawn().unwrap();
    let id = enqueue(&node, "/push/tell", &json!([])).await["job"].as_i64().unwrap();
    assert_eq!(told(&node, id).await, TRACE);

    let client = Foreign::python();
    let mut pull = client.open_with(&node.ws("/ws"), json!({ "subprotocols": ["minium.v1"] })).await;
    pull.send(&json!({ "op": "pull", "topic": "hand", "credit": 2 }).to_string()).await;
    let push = json!({ "op": "push", "topic": "hand", "data": [], "options": { "traceparent": OTHER } });
    pull.send(&push.to_string()).await;
    let job = next_job(&mut pull).await;
    assert_eq!(job["traceparent"], OTHER, "{job}");
    node.post("/push/hand", "[]").await.expect(200);
    let job = next_job(&mut pull).await;
    assert!(job.get("traceparent").is_none(), "{job}");
}

async fn next_job(pull: &mut crate::support::foreign::Session) -> Value {
    loop {
        let frame = pull.json().await;
        if frame["op"] == "job" {
            return frame;
        }
    }
}

async fn from_a_run_to_what_it_enqueues(options: Options) {
    let minium = binary();
    let config = format!(
        "{TELL}[tasks.more]\ncommand = [\"sh\", \"-c\", \"exec {} job enqueue tell\"]\n[channels.far]\ndurable = true\n",
        minium.display()
    );
    let node = Node::start(Options { env: vec![], ..options.config(&config) }).await;
    let id = enqueue(&node, "/api/v1/jobs", &json!({ "task": "more" })).await["id"].as_i64().unwrap();
    let job = node.ended(id).await;
    let child = job["result"].as_i64().unwrap_or_else(|| panic!("{job}"));
    assert_eq!(told(&node, child).await, TRACE);

    // a task in Rust that has only a node's URL
    let link = Client::new(&node.http(""), None).unwrap().connect(ConnectOptions::default()).unwrap();
    let spool = Spool::open(&node.dir().join("spool"), &[&node.http("")], SpoolOptions::default()).unwrap();
    let far = |job: JobContext, _: Value| async move {
        let child = EnqueueRequest::new("tell", serde_json::value::to_raw_value(&json!([]))?);
        let child = job.enqueue(child).await?;
        Ok::<_, Failure>(json!({ "trace": job.trace(), "child": child }))
    };
    let stop = CancellationToken::new();
    let options = WorkerOptions { upkeep: None, ..WorkerOptions::default() };
    let worker = Worker::new(ClientSource::new(link, spool, 1), options).task("far", far);
    let work = tokio::spawn(worker.run(stop.clone()));
    let id = enqueue(&node, "/push/far", &json!([])).await["job"].as_i64().unwrap();
    let result = node.ended(id).await["result"].clone();
    assert_eq!(result["trace"], TRACE, "{result}");
    assert_eq!(told(&node, result["child"].as_i64().unwrap()).await, TRACE);
    stop.cancel();
    work.await.unwrap().unwrap();
}
