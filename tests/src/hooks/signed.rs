//! Who is believed: a right signature of just this body, in time, under one of the secrets.

use super::{CONFIG, NEW, OLD, deliver, jobs, of_github, of_standard, received};
use crate::support::http::Answer;
use crate::support::node::{Node, Options};
use crate::support::on_both;
use serde_json::json;

const BODY: &[u8] = br#"{"type":"made","n":1}"#;

on_both! {
    /// G-1, G-2: GitHub's signature under either secret is enough.
    github_is_believed_under_each_secret;
    /// G-1, G-2: so is a Standard Webhook.
    a_standard_webhook_is_believed;
}

async fn github_is_believed_under_each_secret(options: Options) {
    let node = Node::start(options.config(CONFIG)).await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    for (n, secret) in [OLD, NEW].into_iter().enumerate() {
        let (signature, id) = (of_github(secret, BODY), format!("delivery-{n}"));
        let headers = [
            ("x-hub-signature-256", signature.as_str()),
            ("x-github-event", "push"),
            ("x-github-delivery", &id),
            ("traceparent", trace),
        ];
        let answer = deliver(&node, "git", &headers, BODY).await.expect(202);
        let job = node.job(answer["job"].as_i64().unwrap()).await;
        assert_eq!(answer, json!({ "job": job["id"], "status": "enqueued" }));
        assert_eq!((&job["task"], &job["args"]), (&json!("hooked"), &json!([{ "type": "made", "n": 1 }])));
        let events = node.events(job["id"].as_i64().unwrap(), "task.enqueue").await;
        assert_eq!(events[0]["traceparent"], trace, "{events:?}");
    }
    assert_eq!(received(&node, "git", "enqueued").await, 2.0);
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

async fn standard(node: &Node, sent: i64, body: &'static [u8]) -> Answer {
    let timestamp = sent.to_string();
    let signature = format!("v1,AAAA {}", of_standard("msg_1", &timestamp, BODY));
    let headers =
        [("webhook-id", "msg_1"), ("webhook-timestamp", &timestamp), ("webhook-signature", &signature)];
    deliver(node, "std", &headers, body).await
}

async fn a_standard_webhook_is_believed(options: Options) {
    let node = Node::start(options.config(CONFIG)).await;
    let answer = standard(&node, now(), BODY).await.expect(202);
    assert_eq!(answer["status"], "enqueued");
    assert_eq!(jobs(&node).await, 1);
    // a ping is GitHub's alone: here it is an event like any other
    let (ping, timestamp) = ("{\"type\":\"ping\"}", now().to_string());
    let signature = of_standard("msg_2", &timestamp, ping.as_bytes());
    let headers =
        [("webhook-id", "msg_2"), ("webhook-timestamp", &timestamp), ("webhook-signature", &signature)];
    assert_eq!(deliver(&node, "std", &headers, ping).await.expect(202)["status"], "enqueued");
}

/// G-3: everything else is 401 in the same words, makes no job, and is counted.
#[tokio::test]
async fn nobody_else_is_believed() {
    let node = Node::start(Options::memory().config(CONFIG)).await;
    let good = of_github(OLD, BODY);
    let (changed, wrong) = (of_github(OLD, b"{}"), of_github("some other secret", BODY));
    let stranger = of_standard("msg_1", &now().to_string(), BODY);
    let mut answers = Vec::new();
    for signature in
        [&changed, &wrong, "", "sha256=", good.trim_start_matches("sha256="), &good[..70], &stranger]
    {
        let headers = [
            ("x-hub-signature-256", signature),
            ("x-github-event", "push"),
            ("x-github-delivery", "1"),
            ("authorization", "Bearer a.b.c"),
        ];
        answers.push(deliver(&node, "git", &headers, BODY).await);
    }
    answers
        .push(deliver(&node, "git", &[("x-github-event", "push"), ("x-github-delivery", "1")], BODY).await);
    answers.push(deliver(&node, "std", &[("x-hub-signature-256", &good)], BODY).await);
    let tries = answers.len();
    // tolerance is five minutes, and a test may be slow
    for sent in [now() - 400, now() + 900, 0] {
        answers.push(standard(&node, sent, BODY).await);
    }
    answers.push(standard(&node, now(), b"{\"type\":\"made\",\"n\":2}").await);
    for answer in &answers {
        let problem = answer.problem(401, "unauthorized");
        let words = "the delivery is not signed as this hook asks, or was signed too long ago";
        assert_eq!(problem["detail"], words);
        assert!(answer.header("www-authenticate").starts_with("Webhook"), "{answer:?}");
    }
    assert_eq!(jobs(&node).await, 0);
    assert_eq!(received(&node, "git", "unauthorized").await, (tries - 1) as f64);
    assert_eq!(received(&node, "std", "unauthorized").await, (answers.len() - tries + 1) as f64);
    assert!(!node.log().contains("\"made\""), "nothing of a payload is logged");
    // and what was refused can still come in
    standard(&node, now(), BODY).await.expect(202);
}

/// G-1, A-9: no token is needed where tokens are, none is looked at, and an address has its rate.
#[tokio::test]
async fn a_signature_is_the_permission() {
    let config = format!(
        "[auth.anonymous]\nscopes = []\n[server.limits]\nsession_messages_per_second = 1\n\
         session_messages_burst = 3\n{CONFIG}"
    );
    let node = Node::start(Options::memory().config(&config)).await;
    node.post_json("/api/v1/jobs", &json!({ "task": "x" })).await.problem(401, "unauthorized");
    let signature = of_github(OLD, BODY);
    let headers = [
        ("x-hub-signature-256", signature.as_str()),
        ("x-github-event", "push"),
        ("x-github-delivery", "1"),
        ("authorization", "Bearer a.b.c"),
    ];
    deliver(&node, "git", &headers, BODY).await.expect(202);
    let many = futures::future::join_all((0..100).map(|_| deliver(&node, "git", &headers, BODY))).await;
    let refused = many.iter().find(|answer| answer.status != 202).expect("a hundred at once are too fast");
    refused.problem(429, "rate_limited");
    assert!(!refused.header("retry-after").is_empty());
}
