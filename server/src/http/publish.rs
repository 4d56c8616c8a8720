//! POST on the bus's paths: one message, answered 200 with nothing in it, as Mercury did.

use super::problem::Refusal;
use super::{App, body, path};
use axum::extract::{Request, State};
use http::StatusCode;
use minium_bus::Message;
use minium_protocol::Topic;
use std::sync::Arc;

/// POST `/pub/T`: to all subscribers.
pub(crate) async fn publish(State(app): State<Arc<App>>, request: Request) -> Result<StatusCode, Refusal> {
    let (topic, message) = read(&app, request).await?;
    app.bus.publish(&topic, message).await?;
    Ok(StatusCode::OK)
}

/// POST `/push/T`: to one puller.
pub(crate) async fn push(State(app): State<Arc<App>>, request: Request) -> Result<StatusCode, Refusal> {
    let (topic, message) = read(&app, request).await?;
    app.bus.push(&topic, message).await?;
    Ok(StatusCode::OK)
}

/// POST `/bus/T`: to all peers.
pub(crate) async fn send(State(app): State<Arc<App>>, request: Request) -> Result<StatusCode, Refusal> {
    let (topic, message) = read(&app, request).await?;
    app.bus.send(&topic, message).await?;
    Ok(StatusCode::OK)
}

async fn read(app: &App, request: Request) -> Result<(Topic, Message), Refusal> {
    let (parts, body) = request.into_parts();
    let topic = path::topic(&parts.uri)?;
    let bytes = body::read(body, app.limits.message_bytes, app.limits.patience).await?;
    Ok((topic, body::message(&parts.headers, bytes)?))
}
