//! Trace contexts, from whoever enqueues to whoever runs, by every road, and on to what a run enqueues.

#[cfg(feature = "otel")]
mod collector;
#[cfg(feature = "otel")]
mod exported;

use crate::support::foreign::Foreign;
use crate::support::node::{Node, Options, binary};
use crate::support::postgres::Database;
use crate::support::{on_both, wait};
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
    /// Q-2, E-2: `tracestate` by header and option, to the events and to a command.
    a_state_goes_with_its_trace_and_never_alone;
}

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const OTHER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
/// What goes with TRACE.
const STATE: &str = "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7";

/// A task that tells its trace, and the state of that behind a blank.
const TELL: &str =
    "[tasks.tell]\ncommand = [\"sh\", \"-c\", \"echo \\\"\\\\\\\"$TRACEPARENT $TRACESTATE\\\\\\\"\\\"\"]\n";

async fn enqueue(node: &Node, path: &str, body: &Value) -> Value {
    enqueue_with(node, path, body, &[("traceparent", TRACE)]).await
}

async fn enqueue_with(node: &Node, path: &str, body: &Value, headers: &[(&str, &str)]) -> Value {
    let headers = [headers, &[("content-type", "application/json")]].concat();
    let answer = node.request(Method::POST, path, &headers, body.to_string()).await;
    assert!([200, 201].contains(&answer.status), "{answer:?}");
    answer.json()
}

async fn told(node: &Node, id: i64) -> String {
    let job = node.ended(id).await;
    job["result"].as_str().unwrap_or_else(|| panic!("{job}")).to_owned()
}

/// What every event of a job says that has ended, `traceparent` and `tracestate`. The journal numbers them a moment later.
async fn contexts(node: &Node, id: i64) -> Vec<(Value, Value)> {
    let events = wait::until(&format!("the events of job {id}"), async || {
        let events = node.get(&format!("/api/v1/jobs/{id}/events")).await.expect(200)["events"].clone();
        let events = events.as_array().unwrap().clone();
        events.iter().any(|event| event["type"] == "task.finished").then_some(events)
    })
    .await;
    events.iter().map(|event| (event["traceparent"].clone(), event["tracestate"].clone())).collect()
}

async fn from_an_enqueue_to_a_command(options: Options) {
    let node = Node::start(options.config(TELL)).await;
    let id = enqueue(&node, "/api/v1/jobs", &json!({ "task": "tell" })).await["id"].as_i64().unwrap();
    assert_eq!(told(&node, id).await, format!("{TRACE} "));
    assert_eq!(contexts(&node, id).await, vec![(json!(TRACE), Value::Null); 3]);
    // what a job says itself goes before what its request says
    let jobs = json!([{ "task": "tell", "traceparent": OTHER }, { "task": "tell" }]);
    let ids = enqueue(&node, "/api/v1/jobs", &jobs).await["ids"].clone();
    assert_eq!(told(&node, ids[0].as_i64().unwrap()).await, format!("{OTHER} "));
    assert_eq!(told(&node, ids[1].as_i64().unwrap()).await, format!("{TRACE} "));
    let without = node.enqueue(&json!({ "task": "tell" })).await;
    assert_eq!(told(&node, without).await, " ");
    assert_eq!(contexts(&node, without).await, vec![(Value::Null, Value::Null); 3]);
    let wrong = json!({ "task": "tell", "traceparent": "00-abc" });
    node.post_json("/api/v1/jobs", &wrong).await.problem(400, "invalid_request");
}

async fn a_state_goes_with_its_trace_and_never_alone(options: Options) {
    let node = Node::start(options.config(TELL)).await;
    let tell = json!({ "task": "tell" });
    let run = async |body: &Value, headers: &[(&str, &str)]| {
        let id = enqueue_with(&node, "/api/v1/jobs", body, headers).await["id"].as_i64().unwrap();
        let words = told(&node, id).await;
        let (parent, state) = words.split_once(' ').unwrap();
        let kept = |text: &str| if text.is_empty() { Value::Null } else { json!(text) };
        assert_eq!(contexts(&node, id).await, vec![(kept(parent), kept(state)); 3]);
        words
    };
    let both = [("traceparent", TRACE), ("tracestate", STATE)];
    let whole = format!("{TRACE} {STATE}");
    assert_eq!(run(&tell, &both).await, whole);
    // one list over several headers, as W3C allows it
    let parts = [
        ("traceparent", TRACE),
        ("tracestate", "congo=t61rcWkgMzE"),
        ("tracestate", "rojo=00f067aa0ba902b7"),
    ];
    assert_eq!(run(&tell, &parts).await, whole);
    let said = json!({ "task": "tell", "traceparent": TRACE, "tracestate": STATE });
    assert_eq!(run(&said, &[]).await, whole);
    // one that is none is dropped, and the trace goes on
    assert_eq!(
        run(&tell, &[("traceparent", TRACE), ("tracestate", "Not=A,List")]).await,
        format!("{TRACE} ")
    );
    assert_eq!(run(&tell, &[("tracestate", STATE)]).await, " ");
    // a job's own trace is not that of its request, and has not its state
    assert_eq!(run(&json!({ "task": "tell", "traceparent": OTHER }), &both).await, format!("{OTHER} "));
}

async fn from_a_push_to_who_is_elsewhere(options: Options) {
    let node =
        Node::start(options.config("[channels.tell]\ndurable = true\n[channels.hand]\ndurable = true\n"))
            .await;
    let mut worker = node.tokio_command();
    worker.args(["worker", "--shell", "--url", &node.ws(""), "--spool"]).arg(node.dir().join("spool"));
    worker.args(["--task", "tell=echo \"\\\"$TRACEPARENT $TRACESTATE\\\"\""]);
    let _worker = worker.stdin(Stdio::null()).stderr(node.log_file()).kill_on_drop(true).spawn().unwrap();
    let both = [("traceparent", TRACE), ("tracestate", STATE)];
    let id = enqueue_with(&node, "/push/tell", &json!([]), &both).await["job"].as_i64().unwrap();
    assert_eq!(told(&node, id).await, format!("{TRACE} {STATE}"));

    let client = Foreign::python();
    let mut pull = client.open_with(&node.ws("/ws"), json!({ "subprotocols": ["minium.v1"] })).await;
    pull.send(&json!({ "op": "pull", "topic": "hand", "credit": 2 }).to_string()).await;
    let push = json!({ "op": "push", "topic": "hand", "data": [], "options": { "traceparent": OTHER, "tracestate": STATE } });
    pull.send(&push.to_string()).await;
    let job = next_job(&mut pull).await;
    assert_eq!((&job["traceparent"], &job["tracestate"]), (&json!(OTHER), &json!(STATE)), "{job}");
    node.post("/push/hand", "[]").await.expect(200);
    let job = next_job(&mut pull).await;
    assert!(job.get("traceparent").is_none() && job.get("tracestate").is_none(), "{job}");
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
    let both = [("traceparent", TRACE), ("tracestate", STATE)];
    let more = json!({ "task": "more" });
    let id = enqueue_with(&node, "/api/v1/jobs", &more, &both).await["id"].as_i64().unwrap();
    let job = node.ended(id).await;
    let child = job["result"].as_i64().unwrap_or_else(|| panic!("{job}"));
    assert_eq!(told(&node, child).await, format!("{TRACE} {STATE}"));
    // a trace that is named has no state of the environment's
    let mut other = node.tokio_command();
    other.args(["job", "enqueue", "tell", "--traceparent", OTHER]);
    let other = other.envs([("TRACEPARENT", TRACE), ("TRACESTATE", STATE)]).output().await.unwrap();
    let other: i64 = String::from_utf8(other.stdout).unwrap().trim().parse().unwrap();
    assert_eq!(told(&node, other).await, format!("{OTHER} "));

    // a task in Rust that has only a node's URL
    let link = Client::new(&node.http(""), None).unwrap().connect(ConnectOptions::default()).unwrap();
    let spool = Spool::open(&node.dir().join("spool"), &[&node.http("")], SpoolOptions::default()).unwrap();
    let far = |job: JobContext, _: Value| async move {
        let child = EnqueueRequest::new("tell", serde_json::value::to_raw_value(&json!([]))?);
        let child = job.enqueue(child).await?;
        Ok::<_, Failure>(json!({ "trace": job.trace(), "state": job.tracestate(), "child": child }))
    };
    let stop = CancellationToken::new();
    let options = WorkerOptions { upkeep: None, ..WorkerOptions::default() };
    let worker = Worker::new(ClientSource::new(link, spool, 1), options).task("far", far);
    let work = tokio::spawn(worker.run(stop.clone()));
    let id = enqueue_with(&node, "/push/far", &json!([]), &both).await["job"].as_i64().unwrap();
    let result = node.ended(id).await["result"].clone();
    assert_eq!((&result["trace"], &result["state"]), (&json!(TRACE), &json!(STATE)), "{result}");
    assert_eq!(told(&node, result["child"].as_i64().unwrap()).await, format!("{TRACE} {STATE}"));
    stop.cancel();
    work.await.unwrap().unwrap();
}

/// SQL says whose trace a job belongs to, one by one and by COPY.
#[tokio::test]
async fn from_sql_to_a_command() {
    let database = Database::create().await;
    let node = Node::start(Options::on(database.url()).config(TELL)).await;
    let sql = database.connect().await;
    let options = json!({ "traceparent": TRACE, "tracestate": STATE }).to_string();
    let row =
        sql.query_one("select minium.enqueue('tell', '[]', $1::text::jsonb)", &[&options]).await.unwrap();
    let id: i64 = row.get(0);
    assert_eq!(told(&node, id).await, format!("{TRACE} {STATE}"));
    assert_eq!(contexts(&node, id).await, vec![(json!(TRACE), json!(STATE)); 3]);
    let line = "insert into minium.bulk (task, options) values ('tell', $1::text::jsonb), ('tell', '{}')";
    sql.execute(line, &[&options]).await.unwrap();
    assert_eq!(told(&node, id + 1).await, format!("{TRACE} {STATE}"));
    assert_eq!(told(&node, id + 2).await, " ");
}

/// An endpoint that nobody sends to is told of, once.
#[cfg(not(feature = "otel"))]
#[tokio::test]
async fn an_export_that_is_not_built_in_is_told() {
    let env = vec![("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9".to_owned())];
    let node = Node::start(Options { env, ..Options::memory().config(TELL) }).await;
    let id = enqueue(&node, "/api/v1/jobs", &json!({ "task": "tell" })).await["id"].as_i64().unwrap();
    assert_eq!(told(&node, id).await, format!("{TRACE} "));
    let log = node.log();
    assert_eq!(log.matches("built without the feature otel").count(), 1, "{log}");
}
