//! `/api/v1/queues`, `/api/v1/limits`, `/api/v1/history`: where jobs wait, what holds them back, and what the last day brought.

use super::problem::Refusal;
use super::{App, json};
use axum::extract::{Path, State};
use axum::response::Response;
use http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json as value};
use std::sync::Arc;

/// GET `/api/v1/queues`: those with jobs that are ready, and those that are paused.
pub(crate) async fn list(State(app): State<Arc<App>>) -> Result<Response, Refusal> {
    let queues = app.database.store()?.queues().await?;
    Ok(answer("queues", &queues))
}

/// POST `/api/v1/queues/{queue}/pause`: nothing is claimed from it any more.
pub(crate) async fn pause(
    State(app): State<Arc<App>>,
    Path(queue): Path<String>,
) -> Result<Response, Refusal> {
    let changed = app.database.store()?.pause_queue(&queue).await?;
    Ok(done(&value!({ "queue": queue, "paused": true, "changed": changed })))
}

/// POST `/api/v1/queues/{queue}/resume`.
pub(crate) async fn resume(
    State(app): State<Arc<App>>,
    Path(queue): Path<String>,
) -> Result<Response, Refusal> {
    let changed = app.database.store()?.resume_queue(&queue).await?;
    Ok(done(&value!({ "queue": queue, "paused": false, "changed": changed })))
}

/// GET `/api/v1/limits`: each with how many run under it.
pub(crate) async fn limits(State(app): State<Arc<App>>) -> Result<Response, Refusal> {
    let limits = app.database.store()?.limits().await?;
    let shown: Vec<Value> = limits
        .iter()
        .map(|view| {
            let rate = view.limit.rate;
            value!({
                "task": view.limit.task, "running": view.limit.running,
                "per_partition": view.limit.per_partition, "rate": rate.map(|r| r.count),
                "per": rate.map(|r| r.per.as_secs_f64()), "active": view.active,
            })
        })
        .collect();
    Ok(answer("limits", &shown))
}

/// GET `/api/v1/history`: the last 24 hours, the oldest first.
pub(crate) async fn history(State(app): State<Arc<App>>) -> Result<Response, Refusal> {
    let hours = app.database.store()?.hours().await?;
    Ok(answer("hours", &hours))
}

fn answer(name: &str, items: &impl Serialize) -> Response {
    done(&value!({ name: items }))
}

fn done(value: &Value) -> Response {
    json(StatusCode::OK, value.to_string())
}
