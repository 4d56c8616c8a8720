//! POST on the bus's paths: one message, answered 200 with nothing in it, as Mercury did.

use super::problem::Refusal;
use super::{App, body, json, path, trace};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use minium_bus::Message;
use minium_protocol::{ID_BYTES_MAX, JobOptions, Topic};
use std::sync::Arc;
use tracing::{Instrument, debug_span};

/// POST `/pub/T`: to all subscribers. On a durable channel it is kept first, and the answer says where.
pub(crate) async fn publish(State(app): State<Arc<App>>, request: Request) -> Result<Response, Refusal> {
    let id = idempotency_key(request.headers())?;
    let (topic, message) = read(&app, request).await?;
    let span = debug_span!("publish", %topic, message_id = id);
    let kept = app.bus.publish(&topic, message, id.as_deref()).instrument(span).await?;
    Ok(kept.map_or_else(
        || StatusCode::OK.into_response(),
        |p| json(StatusCode::OK, format!("{{\"epoch\":{},\"offset\":{}}}", p.epoch, p.offset)),
    ))
}

/// POST `/push/T`: to one puller. On a durable channel it becomes a job, and the answer names it.
pub(crate) async fn push(State(app): State<Arc<App>>, request: Request) -> Result<Response, Refusal> {
    let (key, trace) = (idempotency_key(request.headers())?, trace::context(request.headers()));
    let (topic, message) = read(&app, request).await?;
    let options = JobOptions { key, trace, ..JobOptions::default() };
    let job = app.bus.push(&topic, message, options).await?;
    Ok(job.map_or_else(
        || StatusCode::OK.into_response(),
        |job| json(StatusCode::OK, format!("{{\"job\":{job}}}")),
    ))
}

/// POST `/bus/T`: to all peers.
pub(crate) async fn send(State(app): State<Arc<App>>, request: Request) -> Result<StatusCode, Refusal> {
    let (topic, message) = read(&app, request).await?;
    app.bus.send(&topic, message).await?;
    Ok(StatusCode::OK)
}

/// What makes trying again harmless.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let Some(key) = headers.get("idempotency-key") else { return Ok(None) };
    match key.to_str() {
        Ok(key) if !key.is_empty() && key.len() <= ID_BYTES_MAX => Ok(Some(key.to_owned())),
        _ => {
            Err(Refusal::invalid(format!("Idempotency-Key has 1 to {ID_BYTES_MAX} visible ASCII characters")))
        }
    }
}

async fn read(app: &App, request: Request) -> Result<(Topic, Message), Refusal> {
    let (parts, body) = request.into_parts();
    let topic = path::topic(&parts.uri)?;
    let bytes = body::read(body, app.limits.message_bytes, app.limits.patience).await?;
    Ok((topic, body::message(&parts.headers, bytes)?))
}
