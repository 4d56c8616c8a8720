//! Spans that leave the node: real processes, and a collector that reads what they send.

use super::collector::{Collector, Mood, Told};
use super::{OTHER, TELL, TRACE, contexts, enqueue, told};
use crate::support::node::{Node, Options, binary};
use crate::support::{on_both, wait};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use reqwest::Method;
use rustix::process::Signal;
use serde_json::json;
use std::process::Stdio;

on_both! {
    /// A request is the child of who asks, its context goes with the job, and the run links to that and is no child of it.
    from_a_request_to_a_run_that_links_to_it;
    /// What a run enqueues belongs to the run.
    from_a_run_to_the_run_of_what_it_enqueued;
}

/// The environment of whoever is to export there, soon.
fn to(url: &str) -> Vec<(&'static str, String)> {
    vec![("OTEL_EXPORTER_OTLP_ENDPOINT", url.to_owned()), ("OTEL_BSP_SCHEDULE_DELAY", "20".into())]
}

fn is_of(told: &Told, kind: SpanKind, name: &str) -> bool {
    told.span.kind == kind as i32 && told.span.name == name
}

async fn from_a_request_to_a_run_that_links_to_it(options: Options) {
    let collector = Collector::start(Mood::Takes).await;
    let mut env = to(&collector.url());
    env.push(("OTEL_SERVICE_NAME", "plant".into()));
    env.push(("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20x,x-tenant=7".into()));
    let fail = "[tasks.fail]\ncommand = [\"false\"]\n";
    let node = Node::start(Options { env, ..options.config(&format!("{TELL}{fail}")) }).await;
    let headers = [("traceparent", TRACE), ("tracestate", "a=1"), ("content-type", "application/json")];
    let body = json!({ "task": "tell" }).to_string();
    let answer = node.request(Method::POST, "/api/v1/jobs", &headers, body).await;
    let id = answer.expect(201)["id"].as_i64().unwrap();
    let seen_by_command = told_by(&node, id).await;

    let request =
        collector.told("the request's span", |told| is_of(told, SpanKind::Server, "POST /api/v1/jobs")).await;
    assert_eq!((request.trace(), request.parent()), (TRACE[3..35].to_owned(), TRACE[36..52].to_owned()));
    assert_eq!(request.span.trace_state, "a=1");
    let seen = ["http.request.method", "http.route", "http.response.status_code", "url.path", "url.scheme"]
        .map(|key| request.attribute(key));
    assert_eq!(seen, ["POST", "/api/v1/jobs", "201", "/api/v1/jobs", "http"]);
    assert_eq!(contexts(&node, id).await, vec![(json!(request.context()), json!("a=1")); 3]);
    let enqueued =
        collector.told("the enqueue's span", |told| is_of(told, SpanKind::Producer, "enqueue tell")).await;
    assert_eq!(
        (enqueued.trace(), enqueued.span.parent_span_id),
        (request.trace(), request.span.span_id.clone())
    );

    let run = collector.run_of(id).await;
    assert!(is_of(&run, SpanKind::Consumer, "run tell"), "{run:?}");
    assert_eq!((run.links(), run.parent()), (vec![request.context()], String::new()));
    assert_ne!(run.trace(), request.trace());
    assert_eq!(seen_by_command, [run.context(), String::new()], "a run's trace has no state of another's");
    let seen = [
        "messaging.system",
        "messaging.operation.type",
        "messaging.destination.name",
        "attempt",
        "queue",
        "state",
    ]
    .map(|key| run.attribute(key));
    assert_eq!(seen, ["minium", "process", "tell", "1", "default", "finished"]);
    assert_eq!((run.resource("service.name"), run.attribute("traceparent")), ("plant".into(), String::new()));
    let heard = collector.heard()[0].clone();
    assert_eq!(heard.path, "/v1/traces");
    let seen = ["content-type", "authorization", "x-tenant"].map(|name| heard.headers[name].as_str());
    assert_eq!(seen, ["application/x-protobuf", "Bearer x", "7"]);

    let failed = node.enqueue(&json!({ "task": "fail", "traceparent": OTHER })).await;
    let run = collector.run_of(failed).await;
    assert_eq!(run.span.status.as_ref().unwrap().code, StatusCode::Error as i32, "{run:?}");
    assert_eq!((run.attribute("error.type"), run.span.links[0].flags & 1), ("failed".into(), 0), "{run:?}");
    // whoever looks whether the node is well is not told of
    assert!(collector.taken().iter().all(|told| !told.span.name.contains("/readyz")));
}

/// `TRACEPARENT` and `TRACESTATE` as the command of TELL saw them.
async fn told_by(node: &Node, id: i64) -> [String; 2] {
    let words = told(node, id).await;
    let (parent, state) = words.split_once(' ').unwrap();
    [parent.to_owned(), state.to_owned()]
}

async fn from_a_run_to_the_run_of_what_it_enqueued(options: Options) {
    let collector = Collector::start(Mood::Takes).await;
    let more = format!(
        "{TELL}[tasks.more]\ncommand = [\"sh\", \"-c\", \"exec {} job enqueue tell\"]\n",
        binary().display()
    );
    let node = Node::start(Options { env: to(&collector.url()), ..options.config(&more) }).await;
    let id = enqueue(&node, "/api/v1/jobs", &json!({ "task": "more" })).await["id"].as_i64().unwrap();
    let child = node.ended(id).await["result"].as_i64().unwrap();
    let (run, of_child) = (collector.run_of(id).await, collector.run_of(child).await);
    assert_eq!(of_child.links(), [run.context()], "{of_child:?}");
    assert_eq!(run.resource("service.name"), "minium");
}

/// A worker without a node in its process exports by itself.
#[tokio::test]
async fn a_worker_exports_its_runs() {
    let collector = Collector::start(Mood::Takes).await;
    let node = Node::start(Options::memory().config("[channels.tell]\ndurable = true\n")).await;
    let mut worker = node.tokio_command();
    worker.args(["worker", "--shell", "--url", &node.ws(""), "--spool"]).arg(node.dir().join("spool"));
    worker.args(["--task", "tell=echo \"\\\"$TRACEPARENT $TRACESTATE\\\"\""]).envs(to(&collector.url()));
    let _worker = worker.stdin(Stdio::null()).stderr(node.log_file()).spawn().unwrap();
    let id = enqueue(&node, "/push/tell", &json!([])).await["job"].as_i64().unwrap();
    let run = collector.run_of(id).await;
    assert_eq!(run.links(), [TRACE]);
    assert_eq!(run.span.links[0].trace_state, "");
    assert_eq!(told_by(&node, id).await, [run.context(), String::new()]);
    assert!(
        collector.taken().iter().all(|told| told.span.kind != SpanKind::Server as i32),
        "the node exports nothing"
    );
}

/// What ended last is sent before the process ends, however long a batch may wait.
#[tokio::test]
async fn what_is_left_at_the_end_is_sent() {
    let collector = Collector::start(Mood::Takes).await;
    let env = vec![
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", format!("{}/otlp", collector.url())),
        ("OTEL_BSP_SCHEDULE_DELAY", "60000".into()),
    ];
    let node = Node::start(Options { env, ..Options::memory().config(TELL) }).await;
    let id = node.enqueue(&json!({ "task": "tell" })).await;
    node.ended(id).await;
    assert_eq!(node.end(Signal::TERM).await.code(), Some(0));
    collector.run_of(id).await;
    assert_eq!(collector.heard()[0].path, "/otlp");
}

/// Nothing waits for a collector that never answers: not the jobs, and not the end, which has a bound of its own below the
/// exporter's.
#[tokio::test]
async fn a_collector_that_hangs_holds_up_nothing() {
    let collector = Collector::start(Mood::Hangs).await;
    let mut env = to(&collector.url());
    env.push(("OTEL_EXPORTER_OTLP_TIMEOUT", "3600000".into()));
    env.push(("OTEL_BSP_MAX_QUEUE_SIZE", "1".into()));
    let node = Node::start(Options { env, ..Options::memory().config(TELL) }).await;
    wait::until("a batch to hang", async || {
        node.get("/api/v1/stats").await.expect(200);
        (!collector.heard().is_empty()).then_some(())
    })
    .await;
    let id = node.enqueue(&json!({ "task": "tell" })).await;
    assert!(told(&node, id).await.starts_with("00-"), "a run is a span whether or not that arrives");
    wait::until("spans to be dropped", async || {
        node.get("/api/v1/stats").await.expect(200);
        (node.metric("minium_trace_spans_total{outcome=\"dropped\"}").await > 2.0).then_some(())
    })
    .await;
    assert_eq!(node.end(Signal::TERM).await.code(), Some(0));
    assert_eq!(collector.taken().len(), 0);
}

/// One that is away is told of once, and so is its return.
#[tokio::test]
async fn a_collector_that_comes_back_gets_what_comes_then() {
    let collector = Collector::start(Mood::Refuses).await;
    let node = Node::start(Options { env: to(&collector.url()), ..Options::memory().config(TELL) }).await;
    let early = node.enqueue(&json!({ "task": "tell" })).await;
    node.ended(early).await;
    wait::until("the log to tell of it", async || {
        node.log().contains("Spans cannot be exported").then_some(())
    })
    .await;
    collector.turn(Mood::Takes);
    wait::until("its return to be told", async || {
        node.get("/api/v1/stats").await.expect(200);
        node.log().contains("Spans are exported again").then_some(())
    })
    .await;
    let late = node.enqueue(&json!({ "task": "tell" })).await;
    collector.run_of(late).await;
    let log = node.log();
    assert_eq!(log.matches("Spans cannot be exported").count(), 1, "{log}");
    assert!(log.contains("503"), "why is told: {log}");
    assert!(node.metric("minium_trace_spans_total{outcome=\"sent\"}").await > 0.0);
}

/// Whoever asks for what is not spoken here, or for nothing, gets a node all the same.
#[tokio::test]
async fn what_cannot_be_exported_is_told_and_the_node_runs() {
    let collector = Collector::start(Mood::Takes).await;
    for (name, value, words) in [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "OTEL_EXPORTER_OTLP_PROTOCOL is grpc"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/no/such/file", "/no/such/file cannot be read"),
        ("OTEL_SDK_DISABLED", "true", ""),
        ("OTEL_TRACES_SAMPLER", "always_off", "Spans are exported."),
    ] {
        let mut env = to(&collector.url());
        env.push((name, value.into()));
        let node = Node::start(Options { env, ..Options::memory().config(TELL) }).await;
        let id = enqueue(&node, "/api/v1/jobs", &json!({ "task": "tell" })).await["id"].as_i64().unwrap();
        let seen = told(&node, id).await;
        let off = value == "always_off";
        assert!(if off { seen.contains("-00 ") } else { seen == format!("{TRACE} ") }, "{name}: {seen}");
        assert!(node.log().contains(words), "{name}: {}", node.log());
        assert_eq!(node.end(Signal::TERM).await.code(), Some(0));
    }
    assert_eq!(collector.heard().len(), 0);
}
