//! Sinks: webhooks and statuses of commits, told by real nodes to a real receiver.

mod behind;
mod delivered;
mod killed;
mod left;
mod refused;
mod registered;
mod secured;
mod statuses;

use crate::support::node::{Node, Options};
use crate::support::wait;
use crate::tls::Authority;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// A secret as Standard Webhooks write it.
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
/// And one that takes its place some day.
const NEXT_SECRET: &str = "whsec_bmV4dCBzZWNyZXQsIHdoaWNoIGlzIGxvbmdlcg==";

/// Events that come within one deadline on any machine.
const STEP: usize = 25;

/// An answer that begins so has a body that does not end.
const ENDLESS: &str = "endless ";
/// An answer that begins so waits at the gate.
const HOLD: &str = "hold ";

/// What a killed node had in hand is taken up soon.
const SOON: &str = "[queue]\nlease_grace = \"1s\"\n[worker]\nlease = \"2s\"\n";

/// A request as it came.
#[derive(Debug, Clone)]
struct Heard {
    path: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Heard {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The events' own id.
    fn id(&self) -> String {
        self.json()["id"].as_str().unwrap().to_owned()
    }
}

/// What a receiver answers to its n-th request, from 0: a status line and headers.
type Answers = dyn Fn(usize, &Heard) -> String + Send + Sync;

/// What a receiver has heard, and what of it is answered.
struct Desk {
    answers: Box<Answers>,
    heard: Mutex<Vec<Heard>>,
    answered: Mutex<Vec<Heard>>,
    /// Lets one go whose answer begins with `hold `.
    gate: Notify,
}

/// An HTTP server of the test's own. It ends when it is dropped.
struct Receiver {
    address: SocketAddr,
    desk: Arc<Desk>,
    _task: JoinSet<()>,
}

impl Receiver {
    async fn start(answers: impl Fn(usize, &Heard) -> String + Send + Sync + 'static) -> Receiver {
        Receiver::on("127.0.0.1:0".parse().unwrap(), answers).await
    }

    /// Takes everything.
    async fn good() -> Receiver {
        Receiver::start(|_, _| "204 No Content".into()).await
    }

    /// Takes everything, over TLS, as one of these hosts.
    async fn secured(authority: &Authority, hosts: &[&str]) -> Receiver {
        let (certificate, key) = authority.issue("receiver", hosts);
        let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Receiver::serve("127.0.0.1:0".parse().unwrap(), Some(acceptor), |_, _| "204 No Content".into()).await
    }

    async fn on(
        address: SocketAddr,
        answers: impl Fn(usize, &Heard) -> String + Send + Sync + 'static,
    ) -> Receiver {
        Receiver::serve(address, None, answers).await
    }

    async fn serve(
        address: SocketAddr,
        tls: Option<TlsAcceptor>,
        answers: impl Fn(usize, &Heard) -> String + Send + Sync + 'static,
    ) -> Receiver {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let desk = Desk {
            answers: Box::new(answers),
            heard: Mutex::default(),
            answered: Mutex::default(),
            gate: Notify::new(),
        };
        let desk = Arc::new(desk);
        let (mut task, shared) = (JoinSet::new(), desk.clone());
        task.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (shared, tls) = (shared.clone(), tls.clone());
                connections.spawn(async move {
                    // whoever was killed while it spoke, or does not believe us, has said nothing
                    match tls {
                        None => drop(answer(stream, &shared).await),
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                drop(answer(stream, &shared).await);
                            }
                        }
                    }
                });
            }
        });
        Receiver { address, desk, _task: task }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn heard(&self) -> Vec<Heard> {
        self.desk.heard.lock().unwrap().clone()
    }

    /// In the order in which they were answered.
    fn answered(&self) -> Vec<Heard> {
        self.desk.answered.lock().unwrap().clone()
    }

    /// Waits until so many different events have come; in steps, so that it is a stop that fails the test, not a slow machine.
    async fn events(&self, count: usize) -> Vec<Heard> {
        let steps = (STEP..count).step_by(STEP).chain([count]);
        for step in steps {
            wait::until(&format!("{step} of {count} events at the receiver"), async || {
                let ids: BTreeSet<String> = self.heard().iter().map(Heard::id).collect();
                (ids.len() >= step).then_some(())
            })
            .await;
        }
        self.heard()
    }
}

async fn answer(stream: impl AsyncRead + AsyncWrite + Unpin, desk: &Desk) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.split("\r\n");
    let path = lines.next().unwrap().split(' ').nth(1).unwrap().to_owned();
    let header = |line: &str| line.split_once(": ").map(|(n, v)| (n.to_lowercase(), v.to_owned()));
    let headers: BTreeMap<String, String> = lines.filter_map(header).collect();
    let mut body = vec![0; headers.get("content-length").map_or(0, |n| n.parse().unwrap())];
    stream.read_exact(&mut body).await?;
    let heard = Heard { path, headers, body };
    let place = {
        let mut kept = desk.heard.lock().unwrap();
        kept.push(heard.clone());
        kept.len() - 1
    };
    let answer = (desk.answers)(place, &heard);
    if answer.starts_with(HOLD) {
        desk.gate.notified().await;
    }
    desk.answered.lock().unwrap().push(heard);
    let status = answer.trim_start_matches(HOLD);
    if let Some(status) = status.strip_prefix(ENDLESS) {
        let text = format!("HTTP/1.1 {status}\r\ncontent-length: 9\r\n\r\nnot");
        stream.write_all(text.as_bytes()).await?;
        // until the other one has had enough
        stream.read_u8().await?;
        return Ok(());
    }
    let text = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await
}

/// A webhook that may reach this machine, and tries again soon.
fn webhook(name: &str, url: &str, more: &str) -> String {
    format!(
        "[sinks.{name}]\nkind = \"webhook\"\nurl = \"{url}\"\nsecrets = [\"{SECRET}\"]\nallow_private = true\n\
         backoff = \"100ms\"\n{more}\n"
    )
}

/// A node whose sinks are registered, so that they are told of what comes from now on.
async fn started(options: Options, sinks: &[&str]) -> Node {
    let node = Node::start(options).await;
    registered(&node, sinks).await;
    node
}

pub(crate) async fn registered(node: &Node, sinks: &[&str]) {
    wait::until("the sinks to be registered", async || {
        let known = recorders(node).await;
        sinks.iter().all(|sink| known.contains(&format!("sink/{sink}"))).then_some(())
    })
    .await;
}

async fn recorders(node: &Node) -> Vec<String> {
    let all = node.get("/api/v1/recorders").await.expect(200);
    all["recorders"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap().to_owned()).collect()
}

/// All deliveries, by the node's own list.
async fn deliveries(node: &Node) -> Vec<Value> {
    let page = node.get("/api/v1/jobs?task=minium/deliver&limit=1000").await.expect(200);
    assert_eq!(page["next"], Value::Null, "the test has fewer than a page of them");
    page["jobs"].as_array().unwrap().clone()
}

/// All deliveries once there are so many and none has anything left to do.
pub(crate) async fn done(node: &Node, count: usize) -> Vec<Value> {
    wait::until(&format!("{count} deliveries to end"), async || {
        let all = deliveries(node).await;
        let ended = |job: &Value| ["finished", "failed"].contains(&job["state"].as_str().unwrap());
        (all.len() >= count && all.iter().all(ended)).then_some(all)
    })
    .await
}

async fn enqueue(node: &Node) -> i64 {
    node.enqueue(&json!({ "task": "import", "args": [{ "n": 1 }] })).await
}
