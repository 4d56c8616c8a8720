//! POST `/hooks/{name}`: a delivery of a webhook, which becomes a job.
//!
//! Nobody shows a token here: the signature of the body is the permission, so a body of a stranger has to be read. What
//! strangers can cost is bounded: who signs nothing is not read, bodies are bounded in bytes, in time and in number, over
//! all and for each address ([`super::hook_room`]), and an address in its rate. Nothing of a payload is ever logged.

use super::hook_room::{BODIES, CROWDED, Full};
use super::jobs::check_args;
use super::limit::Remote;
use super::permit::hear_out;
use super::problem::Refusal;
use super::{App, body, json, trace};
use crate::hooks::{Delivery, Hook, Sender, Verdict};
use axum::extract::{Path, Request, State};
use axum::response::Response;
use http::StatusCode;
use http::header::{HeaderValue, WWW_AUTHENTICATE};
use minium_protocol::ErrorCode;
use serde_json::Value;
use serde_json::value::RawValue;
use std::sync::Arc;
use tracing::debug;

/// Deliveries, by `hook` and `outcome`.
const RECEIVED: &str = "minium_hooks_received_total";

/// What GitHub sends when a hook is made.
const PING: &str = "ping";

/// What became of a delivery.
enum Outcome {
    /// It is this job, and maybe was before.
    Job { id: i64, existing: bool },
    /// Nothing is to be done, and why.
    Ignored(&'static str),
    /// Somebody tries whether we are here.
    Pinged,
}

/// The handler.
pub(crate) async fn receive(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    let Some(hook) = app.hooks.find(&name) else {
        let (parts, body) = request.into_parts();
        hear_out(&parts, body).await;
        return Err(Refusal::new(ErrorCode::NotFound, "there is no such hook"));
    };
    let taken = take(&app, &hook, request).await;
    let outcome = match &taken {
        Ok(outcome) => outcome.label(),
        Err(refusal) => refusal.code().as_str(),
    };
    metrics::counter!(RECEIVED, "hook" => hook.name.clone(), "outcome" => outcome).increment(1);
    taken.map(Outcome::answer)
}

/// Says what is counted. Once, at start.
pub(crate) fn describe() {
    metrics::describe_counter!(RECEIVED, "Deliveries of webhooks that came in.");
    metrics::describe_gauge!(BODIES, "Bodies of deliveries that are in memory.");
    metrics::describe_counter!(CROWDED, "Deliveries that found no room for their bodies.");
}

async fn take(app: &App, hook: &Hook, request: Request) -> Result<Outcome, Refusal> {
    let (parts, body) = request.into_parts();
    let Some(heading) = hook.sender.heading(&parts.headers) else {
        hear_out(&parts, body).await;
        return Err(unsigned(hook, &"a header is missing"));
    };
    // kept until the job is: what is made of a body lives as long
    let remote = parts.extensions.get::<Remote>();
    let _room = app.hook_bodies.take(remote, app.limits.patience).await.map_err(crowded)?;
    let body = body::read(body, app.limits.request_bytes, app.limits.patience).await?;
    let now = jiff::Timestamp::now().as_second();
    let believed = hook.sender.believe(heading, &body, now).map_err(|why| unsigned(hook, &why))?;

    let raw: &RawValue = serde_json::from_slice(&body).map_err(|error| not_json(&error))?;
    let payload: Value = serde_json::from_str(raw.get()).map_err(|error| not_json(&error))?;
    let event = believed.event(&payload);
    if event == PING && matches!(hook.sender, Sender::GitHub(_)) {
        return Ok(Outcome::Pinged);
    }
    let delivery = Delivery { payload: &payload, event, id: believed.id.unwrap_or_default() };
    let mut job = match hook.judge(delivery, raw).map_err(Refusal::invalid)? {
        Verdict::Ignored(why) => return Ok(Outcome::Ignored(why)),
        Verdict::Job(job) => job,
    };
    if job.args.get().len() > app.limits.request_bytes {
        let detail = format!("the arguments have more than {} bytes", app.limits.request_bytes);
        return Err(Refusal::new(ErrorCode::PayloadTooLarge, detail));
    }
    job.options.trace = trace::context(&parts.headers);
    check_args(&app.schemas, &job)?;
    let answers = app.database.store()?.enqueue(std::slice::from_ref(&*job)).await?;
    let enqueued = answers.first().expect("a store answers each job");
    Ok(Outcome::Job { id: enqueued.id, existing: enqueued.existing })
}

fn crowded(full: Full) -> Refusal {
    let detail = match full {
        Full::Address => "too many deliveries come from this address at once",
        Full::Node => "too many deliveries come at once",
    };
    Refusal::new(ErrorCode::Unavailable, detail)
}

/// The same words whatever is wrong; the reason is for the log.
fn unsigned(hook: &Hook, why: &dyn std::fmt::Display) -> Refusal {
    debug!(hook = hook.name, %why, "A delivery was not believed.");
    let detail = "the delivery is not signed as this hook asks, or was signed too long ago";
    Refusal::new(ErrorCode::Unauthorized, detail)
        .with_header(WWW_AUTHENTICATE, HeaderValue::from_static("Webhook realm=\"minium\""))
}

/// Where it breaks is told, and nothing of what it says.
fn not_json(error: &serde_json::Error) -> Refusal {
    let place = format!("line {}, column {}", error.line(), error.column());
    let detail = format!("the body is no JSON ({place}); a sender's content type must be application/json");
    Refusal::new(ErrorCode::InvalidJson, detail)
}

impl Outcome {
    fn label(&self) -> &'static str {
        match self {
            Outcome::Job { existing: false, .. } => "enqueued",
            Outcome::Job { existing: true, .. } => "existing",
            Outcome::Ignored(_) => "ignored",
            Outcome::Pinged => "pinged",
        }
    }

    fn answer(self) -> Response {
        match self {
            Outcome::Job { id, .. } => {
                json(StatusCode::ACCEPTED, format!("{{\"job\":{id},\"status\":\"{}\"}}", self.label()))
            }
            Outcome::Ignored(why) => json(StatusCode::ACCEPTED, format!("{{\"ignored\":\"{why}\"}}")),
            Outcome::Pinged => json(StatusCode::OK, "{\"ignored\":\"ping\"}"),
        }
    }
}
