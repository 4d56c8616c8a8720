//! Webhooks that come in: signed as GitHub and Standard Webhooks sign, by a second hand; what becomes of them, and what
//! does not.

mod crowded;
mod delivered;
mod mapped;
mod openaddresses;
mod signed;

use crate::support::http::Answer;
use crate::support::node::Node;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use ring::hmac;
use serde_json::Value;

/// The secret of the hooks `git` and `other`, the older of two.
const OLD: &str = "a secret of sixteen bytes or more";
/// The newer one.
const NEW: &str = "another one that will be used next";
/// What the hook `std` shares, without `whsec_`.
const STANDARD_SECRET: &str = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Hooks of both kinds.
const CONFIG: &str = r#"
[hooks.git]
kind = "github"
secrets = ["a secret of sixteen bytes or more", "another one that will be used next"]
task = "hooked"
[hooks.other]
kind = "github"
secrets = ["a secret of sixteen bytes or more"]
task = "hooked"
[hooks.std]
kind = "standard"
secrets = ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]
task = "hooked"
"#;

fn tag(secret: &[u8], text: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), text).as_ref().to_vec()
}

/// GitHub's signature of a body.
fn of_github(secret: &str, body: &[u8]) -> String {
    let digits: String = tag(secret.as_bytes(), body).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256={digits}")
}

/// The signature of a Standard Webhook.
fn of_standard(id: &str, timestamp: &str, body: &[u8]) -> String {
    let secret = STANDARD.decode(STANDARD_SECRET).unwrap();
    let signed = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body].concat();
    format!("v1,{}", STANDARD.encode(tag(&secret, &signed)))
}

/// A push as GitHub delivers it.
async fn push(node: &Node, hook: &str, id: &str, payload: &Value) -> Answer {
    event(node, hook, ("push", id), payload).await
}

/// Any event.
async fn event(node: &Node, hook: &str, (event, id): (&str, &str), payload: &Value) -> Answer {
    let body = payload.to_string();
    let signature = of_github(OLD, body.as_bytes());
    let headers = [
        ("x-hub-signature-256", signature.as_str()),
        ("x-github-event", event),
        ("x-github-delivery", id),
        ("content-type", "application/json"),
    ];
    deliver(node, hook, &headers, body).await
}

async fn deliver(
    node: &Node,
    hook: &str,
    headers: &[(&str, &str)],
    body: impl Into<reqwest::Body>,
) -> Answer {
    node.request(Method::POST, &format!("/hooks/{hook}"), headers, body).await
}

/// How many jobs there are.
async fn jobs(node: &Node) -> usize {
    node.get("/api/v1/jobs").await.expect(200)["jobs"].as_array().unwrap().len()
}

/// What was counted of a hook's deliveries.
async fn received(node: &Node, hook: &str, outcome: &str) -> f64 {
    node.metric(&format!("minium_hooks_received_total{{hook=\"{hook}\",outcome=\"{outcome}\"}}")).await
}
