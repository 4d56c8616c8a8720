//! A collector of the test's own: it speaks HTTP, reads OTLP's protobuf, and does what a test tells it to.

use crate::support::wait;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What it does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    Takes,
    Refuses,
    /// It reads and never answers.
    Hangs,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub(super) struct Heard {
    pub(super) path: String,
    pub(super) headers: BTreeMap<String, String>,
}

#[derive(Debug)]
struct Desk {
    mood: Mutex<Mood>,
    heard: Mutex<Vec<Heard>>,
    taken: Mutex<Vec<Told>>,
}

/// A span that was taken, and who told it.
#[derive(Debug, Clone)]
pub(super) struct Told {
    pub(super) span: Span,
    pub(super) resource: Vec<KeyValue>,
}

impl Told {
    /// As a `traceparent` names it.
    pub(super) fn context(&self) -> String {
        format!("00-{}-{}-01", self.trace(), hex(&self.span.span_id))
    }

    pub(super) fn trace(&self) -> String {
        hex(&self.span.trace_id)
    }

    pub(super) fn parent(&self) -> String {
        hex(&self.span.parent_span_id)
    }

    /// Contexts that it links to.
    pub(super) fn links(&self) -> Vec<String> {
        let context = |trace: &[u8], span: &[u8]| format!("00-{}-{}-01", hex(trace), hex(span));
        self.span.links.iter().map(|link| context(&link.trace_id, &link.span_id)).collect()
    }

    /// Nothing for one that is not there.
    pub(super) fn attribute(&self, key: &str) -> String {
        text(&self.span.attributes, key)
    }

    pub(super) fn resource(&self, key: &str) -> String {
        text(&self.resource, key)
    }
}

fn text(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|attribute| attribute.key == key);
    match found.and_then(|attribute| attribute.value.clone()) {
        Some(AnyValue { value: Some(Value::StringValue(text)) }) => text,
        Some(AnyValue { value: Some(Value::IntValue(number)) }) => number.to_string(),
        Some(other) => panic!("{key}: {other:?}"),
        None => String::new(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// It ends when it is dropped.
#[derive(Debug)]
pub(super) struct Collector {
    address: SocketAddr,
    desk: Arc<Desk>,
    _task: JoinSet<()>,
}

impl Collector {
    pub(super) async fn start(mood: Mood) -> Collector {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let desk = Desk { mood: Mutex::new(mood), heard: Mutex::default(), taken: Mutex::default() };
        let desk = Arc::new(desk);
        let (mut task, shared) = (JoinSet::new(), desk.clone());
        task.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let shared = shared.clone();
                connections.spawn(async move {
                    // a node that ends may cut what it says
                    drop(answer(stream, &shared).await);
                });
            }
        });
        Collector { address, desk, _task: task }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn turn(&self, mood: Mood) {
        *self.desk.mood.lock().unwrap() = mood;
    }

    pub(super) fn heard(&self) -> Vec<Heard> {
        self.desk.heard.lock().unwrap().clone()
    }

    pub(super) fn taken(&self) -> Vec<Told> {
        self.desk.taken.lock().unwrap().clone()
    }

    /// Waits for a span.
    pub(super) async fn told(&self, what: &str, is: impl Fn(&Told) -> bool) -> Told {
        wait::until(what, async || self.taken().into_iter().find(&is)).await
    }

    /// Waits for the span of a job's run.
    pub(super) async fn run_of(&self, job: i64) -> Told {
        let id = job.to_string();
        self.told(&format!("the run of job {job}"), |told| told.attribute("messaging.message.id") == id).await
    }
}

async fn answer(stream: TcpStream, desk: &Desk) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.split("\r\n");
    let path = lines.next().unwrap().split(' ').nth(1).unwrap().to_owned();
    let header =
        |line: &str| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()));
    let headers: BTreeMap<String, String> = lines.filter_map(header).collect();
    let mut body = vec![0; headers["content-length"].parse().unwrap()];
    stream.read_exact(&mut body).await?;
    desk.heard.lock().unwrap().push(Heard { path, headers });
    let mood = *desk.mood.lock().unwrap();
    let status = match mood {
        Mood::Takes => {
            let request = ExportTraceServiceRequest::decode(&*body).unwrap();
            desk.taken.lock().unwrap().extend(spans(request));
            "200 OK"
        }
        Mood::Refuses => "503 Service Unavailable",
        Mood::Hangs => {
            // until the other one has had enough
            stream.read_u8().await?;
            return Ok(());
        }
    };
    let text = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await
}

fn spans(request: ExportTraceServiceRequest) -> Vec<Told> {
    let mut told = Vec::new();
    for of_resource in request.resource_spans {
        let resource = of_resource.resource.unwrap().attributes;
        for span in of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            told.push(Told { span, resource: resource.clone() });
        }
    }
    told
}
