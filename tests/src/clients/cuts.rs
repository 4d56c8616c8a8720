//! A publisher and a subscriber, each behind a proxy that cuts: what was acknowledged arrives, once and in order.

use super::proxy::Cutter;
use super::sdk::{Script, node_script, page_script};
use crate::support::node::{Node, Options};
use crate::support::wait;
use crate::tls::{self, Authority};
use futures::StreamExt;
use futures::stream::FuturesOrdered;
use minium_client::{Backoff, Client, ClientOptions, ConnectOptions, Connection, Event, TlsOptions};
use minium_protocol::{After, Position};
use serde_json::{Value, json};
use std::time::Duration;

/// So many connections are cut on each side.
const CUTS: usize = 200;
/// Over TLS fewer: the machinery is the same, and handshakes cost.
const CUTS_OF_TLS: usize = 60;
/// On the average a connection lives for a few dozen messages.
const BYTES_MAX: usize = 12_000;
const KEPT: &str = "[channels.kept]\ndurable = true\n";

/// What the message says: its number, and something to be cut in.
fn data(n: u64) -> Value {
    json!({ "n": n, "text": "x".repeat((n * 37 % 500) as usize) })
}

fn impatient(url: &str, tls: TlsOptions) -> Connection {
    let first = Duration::from_millis(2);
    let backoff = Backoff { first, max: 10 * first, failures_max: None };
    let options = ConnectOptions { backoff, patient: true, ..ConnectOptions::default() };
    let bounds = ClientOptions { tls, ..ClientOptions::default() };
    Client::with_options(url, None, bounds).unwrap().connect(options).unwrap()
}

/// A node, and a proxy in front of it for each side.
struct Bench {
    node: Node,
    publishing: Cutter,
    subscribing: Cutter,
    cuts: usize,
}

impl Bench {
    async fn start() -> Bench {
        Bench::of(Node::start(Options::file().config(KEPT)).await, CUTS).await
    }

    async fn of(node: Node, cuts: usize) -> Bench {
        let seed = fastrand::u64(..);
        let publishing = Cutter::start(node.address(), seed, BYTES_MAX).await;
        let subscribing = Cutter::start(node.address(), seed.wrapping_add(1), BYTES_MAX).await;
        Bench { node, publishing, subscribing, cuts }
    }

    /// Have there been enough cuts on both sides? Who has had them goes on without.
    fn is_over(&self) -> bool {
        let enough = |proxy: &Cutter| {
            let enough = proxy.cuts() >= self.cuts;
            if enough {
                proxy.calm();
            }
            enough
        };
        enough(&self.publishing) & enough(&self.subscribing)
    }
}

/// Each number that was acknowledged, with its place; in the order in which they were said.
type Acknowledged = Vec<(u64, Position)>;

/// What came must be what was acknowledged.
fn compare(acknowledged: &Acknowledged, came: &Acknowledged) {
    let ordered = |all: &Acknowledged| all.windows(2).all(|w| w[0].1.offset < w[1].1.offset);
    assert!(ordered(came), "the order is broken");
    assert!(ordered(acknowledged), "messages of one connection are committed in order");
    assert_eq!(
        acknowledged.iter().map(|(n, _)| *n).collect::<Vec<_>>(),
        (0..acknowledged.len() as u64).collect::<Vec<_>>()
    );
    let missing: Vec<_> = acknowledged.iter().filter(|a| !came.contains(a)).collect();
    assert!(missing.is_empty(), "lost: {missing:?}");
    let wrong: Vec<_> = came.iter().filter(|c| !acknowledged.contains(c)).collect();
    assert!(wrong.is_empty(), "doubled, or from nowhere: {wrong:?}");
    assert_eq!(acknowledged.len(), came.len());
}

/// Q-7, P-3: the Rust client.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rust_client_survives_two_hundred_cuts() {
    let bench = Bench::start().await;
    let plain = |proxy: &Cutter| impatient(&proxy.url(), TlsOptions::default());
    let (publisher, subscriber) = (plain(&bench.publishing), plain(&bench.subscribing));
    all_that_is_acknowledged_arrives(&bench, &publisher, &subscriber).await;
}

/// Q-7, P-3, H-9: the Rust client over TLS, cut in handshakes and within records.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rust_client_survives_cuts_of_tls() {
    let authority = Authority::new("ours");
    let node = tls::start_on(Options::file(), &authority, KEPT, &[]).await;
    let bench = Bench::of(node, CUTS_OF_TLS).await;
    let ca = std::fs::read(authority.path("ca.pem")).unwrap();
    let secure = |proxy: &Cutter| {
        impatient(&proxy.https(), TlsOptions { authorities: Some(ca.clone()), identity: None })
    };
    let (publisher, subscriber) = (secure(&bench.publishing), secure(&bench.subscribing));
    all_that_is_acknowledged_arrives(&bench, &publisher, &subscriber).await;
}

async fn all_that_is_acknowledged_arrives(bench: &Bench, publisher: &Connection, subscriber: &Connection) {
    let mut events = subscriber.subscribe(&"kept".parse().unwrap(), After::Earliest).await.unwrap();
    let publish = async {
        let topic = "kept/here".parse().unwrap();
        let (mut answers, mut acknowledged, mut n) = (FuturesOrdered::new(), Vec::new(), 0);
        while !bench.is_over() {
            let answer = publisher.offer(&topic, data(n), None).await.unwrap();
            let number = n;
            answers.push_back(async move { (number, answer.await.unwrap().position.unwrap()) });
            n += 1;
            if answers.len() >= 16 {
                acknowledged.extend(answers.next().await);
            }
        }
        acknowledged.extend(answers.collect::<Vec<_>>().await);
        let last = publisher.publish(&topic, json!("last"), None).await.unwrap().position.unwrap();
        (acknowledged, last)
    };
    let read = async {
        let mut came = Vec::new();
        while let Some(event) = events.next().await {
            let Event::Message(message) = event.unwrap() else { continue };
            let said: Value = message.payload.parse().unwrap();
            if said == "last" {
                return (came, message.position.unwrap());
            }
            let n = said["n"].as_u64().unwrap();
            assert_eq!(said, data(n), "a message is whole or not there");
            came.push((n, message.position.unwrap()));
        }
        panic!("the subscription ended");
    };
    let both = async { tokio::join!(publish, read) };
    let ((acknowledged, last), (came, last_came)) = wait::within("the cuts on each side", both).await;
    assert_eq!(last, last_came);
    compare(&acknowledged, &came);
    bench.node.assert_alive();
}

fn position(line: &Value) -> Position {
    line["position"].as_str().unwrap().parse().unwrap()
}

/// Q-7, P-3: sdk.js in Node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_javascript_client_survives_two_hundred_cuts() {
    survive_two_hundred_cuts(node_script).await;
}

/// Q-7, P-3: sdk.js in Chromium.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_javascript_client_survives_two_hundred_cuts_in_a_page() {
    survive_two_hundred_cuts(page_script).await;
}

async fn survive_two_hundred_cuts(script: fn(&str) -> tokio::process::Command) {
    let bench = Bench::start().await;
    let mut subscriber =
        Script::start(&mut script("sdk_cuts.mjs"), &["subscribe", &bench.subscribing.url(), "kept"]);
    let mut publisher =
        Script::start(&mut script("sdk_cuts.mjs"), &["publish", &bench.publishing.url(), "kept/here"]);
    let both = async {
        let (mut acknowledged, mut came) = (Vec::new(), Vec::new());
        let (mut said_stop, mut last) = (false, None);
        loop {
            if !said_stop && bench.is_over() {
                publisher.say("stop").await;
                said_stop = true;
            }
            tokio::select! {
                line = publisher.line(), if last.is_none() => {
                    let n = line["n"].as_u64();
                    match n {
                        Some(n) => acknowledged.push((n, position(&line))),
                        None => last = Some(position(&line)),
                    }
                }
                line = subscriber.line() => {
                    let Some(n) = line["data"]["n"].as_u64() else {
                        assert_eq!(Some(position(&line)), last.or(Some(position(&line))));
                        break;
                    };
                    assert_eq!(line["data"], data(n), "a message is whole or not there");
                    came.push((n, position(&line)));
                }
            }
        }
        while last.is_none() {
            let line = publisher.line().await;
            match line["n"].as_u64() {
                Some(n) => acknowledged.push((n, position(&line))),
                None => last = Some(position(&line)),
            }
        }
        (acknowledged, came)
    };
    let (acknowledged, came) = wait::within("200 cuts on each side", both).await;
    compare(&acknowledged, &came);
}
