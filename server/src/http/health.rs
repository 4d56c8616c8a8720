//! Is the process alive, and is everything there that it needs?

use super::problem::Refusal;
use super::{App, json};
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use minium_protocol::ErrorCode;
use std::sync::Arc;

/// 200 while the process lives.
pub(crate) async fn healthz() -> &'static str {
    "ok\n"
}

/// 200 when everything is there; else 503 that names what is not. How the database is may be a second old.
pub(crate) async fn readyz(State(app): State<Arc<App>>) -> Result<Response, Refusal> {
    let mut down = Vec::new();
    if app.closing.is_cancelled() {
        down.push("draining");
    }
    let database = app.database.check().await;
    if database.is_err() {
        down.push("database");
    }
    if !app.database.is_relaying() {
        down.push("relay");
    }
    if down.is_empty() {
        return Ok(json(StatusCode::OK, r#"{"ready":true,"down":[]}"#));
    }
    let why = database.err().map_or(String::new(), |why| format!(" ({why})"));
    let detail = format!("not ready: {}{why}", down.join(", "));
    Err(Refusal::new(ErrorCode::Unavailable, detail).with_member("down", down.into()))
}
