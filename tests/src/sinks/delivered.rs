//! What a receiver gets: the events' bytes, signed, in spite of everything.

use super::{NEXT_SECRET, Receiver, SECRET, deliveries, done, enqueue, started, webhook};
use crate::support::node::{Options, free_port};
use crate::support::on_both;
use crate::support::wait;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;
use tokio::io::AsyncWriteExt;

on_both! {
    /// O-1, O-2: the very bytes of the event, with all signatures, and nothing about deliveries themselves.
    a_receiver_gets_each_event_to_the_byte_and_signed;
    /// O-3: a receiver that is down for a while is told when it is back.
    a_receiver_that_was_down_is_told_when_it_is_back;
}

/// Judges signatures as any receiver could, without a line of ours.
const JUDGE: &str = r#"
import base64, hashlib, hmac, json, sys
for given in json.load(sys.stdin):
    key = base64.b64decode(given["secret"].removeprefix("whsec_"))
    signed = f'{given["id"]}.{given["timestamp"]}.'.encode() + base64.b64decode(given["body"])
    expected = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    if not any(hmac.compare_digest(expected, one) for one in given["signatures"].split(" ")):
        sys.exit("not signed: " + given["id"])
"#;

async fn judge(given: &Value) -> bool {
    let python = std::env::var("MINIUM_TEST_PYTHON")
        .unwrap_or_else(|_| panic!("MINIUM_TEST_PYTHON is not set: run ./scripts/test"));
    let mut child = tokio::process::Command::new(python)
        .args(["-c", JUDGE])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(given.to_string().as_bytes()).await.unwrap();
    drop(stdin);
    wait::within("Python to judge", child.wait()).await.unwrap().success()
}

async fn a_receiver_gets_each_event_to_the_byte_and_signed(options: Options) {
    let receiver = Receiver::good().await;
    let more = format!("secrets = [\"{SECRET}\", \"{NEXT_SECRET}\"]\n");
    let sink =
        webhook("ops", &receiver.url("/hook?a=b"), "").replace(&format!("secrets = [\"{SECRET}\"]\n"), &more);
    let messages = webhook("news", &receiver.url("/news"), "topics = [\"news\"]\nstates = [\"failed\"]");
    let config = format!("[channels.news]\ndurable = true\n{sink}{messages}");
    let node = started(options.config(&config), &["ops", "news"]).await;
    let job = enqueue(&node).await;
    node.post(&format!("/api/v1/jobs/{job}/cancel"), "").await;
    node.post("/pub/news", "{\"n\" : 1.50, \"x\":\"\\u00e9\"}").await;
    let heard = receiver.events(3).await;
    done(&node, 3).await;
    let mut given = Vec::new();
    for one in &heard {
        let event = one.json();
        assert_eq!(one.header("content-type"), "application/cloudevents+json");
        assert_eq!(one.header("webhook-id"), event["id"].as_str().unwrap());
        let kept = match event["type"].as_str().unwrap() {
            "message" => node.get("/history/news").await,
            _ => node.get(&format!("/history/task/import/{job}")).await,
        };
        let body = std::str::from_utf8(&one.body).unwrap();
        assert!(kept.text().contains(body), "{body} is not, to the byte, in {}", kept.text());
        let secrets: &[&str] = if one.path == "/news" { &[SECRET] } else { &[SECRET, NEXT_SECRET] };
        given.extend(secrets.iter().map(|secret| {
            json!({
                "secret": secret, "id": one.header("webhook-id"), "timestamp": one.header("webhook-timestamp"),
                "signatures": one.header("webhook-signature"),
                "body": base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &one.body),
            })
        }));
    }
    assert_eq!(given.len(), 5);
    assert!(judge(&Value::from(given.clone())).await);
    given[0]["timestamp"] = "1".into();
    assert!(!judge(&Value::from(given)).await, "a signature holds for its own time alone");
    // deliveries have written events of their own meanwhile, and nobody was told of them
    let told: BTreeSet<String> =
        heard.iter().map(|one| one.json()["type"].as_str().unwrap().to_owned()).collect();
    assert_eq!(told, BTreeSet::from(["message", "task.cancelled", "task.enqueue"].map(str::to_owned)));
    assert_eq!(deliveries(&node).await.len(), 3);
    assert_eq!(node.metric("minium_sinks_events_total").await, 3.0);
    assert_eq!(node.metric("minium_sinks_deliveries_total").await, 3.0);
    // who tells them is nobody who would run other jobs
    let workers =
        async |state: &str| node.metric(&format!("minium_queue_workers{{state=\"{state}\"}}")).await;
    wait::until("the node's own worker to be counted", async || (workers("own").await == 1.0).then_some(()))
        .await;
    assert_eq!((workers("active").await, workers("inactive").await), (0.0, 0.0));
}

async fn a_receiver_that_was_down_is_told_when_it_is_back(options: Options) {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let sink = webhook("ops", &format!("http://{address}/hook"), "attempts = 100").replace("100ms", "1s");
    let node = started(options.config(&sink), &["ops"]).await;
    enqueue(&node).await;
    wait::until("a delivery to be tried twice", async || {
        let all = deliveries(&node).await;
        all.iter().any(|job| job["attempt"].as_i64().unwrap() >= 2).then_some(())
    })
    .await;
    let receiver = Receiver::on(address, |_, _| "200 OK".into()).await;
    let heard = receiver.events(1).await;
    let jobs = done(&node, 1).await;
    assert_eq!(jobs.len(), 1);
    assert_eq!((&jobs[0]["state"], &jobs[0]["result"]["status"]), (&json!("finished"), &json!(200)));
    let ids: BTreeSet<&str> = heard.iter().map(|one| one.header("webhook-id")).collect();
    assert_eq!(ids.len(), 1, "the id is the same in every attempt");
}

/// O-3: what an answer means stands in its head. A body that does not end has nobody told again.
#[tokio::test]
async fn an_answer_whose_body_does_not_end_counts_once() {
    let receiver = Receiver::start(|_, _| "endless 200 OK".into()).await;
    let sink = webhook("ops", &receiver.url("/hook"), "timeout = \"1s\"");
    let node = started(Options::memory().config(&sink), &["ops"]).await;
    enqueue(&node).await;
    let jobs = done(&node, 1).await;
    assert_eq!((&jobs[0]["state"], &jobs[0]["attempt"]), (&json!("finished"), &json!(1)), "{jobs:?}");
    assert_eq!(jobs[0]["result"]["status"], 200);
    assert_eq!(receiver.heard().len(), 1);
}
