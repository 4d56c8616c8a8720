//! `/metrics` for Prometheus: what is counted all the time, what is looked up for whoever asks, and the counting of requests.

mod buckets;
mod figures;
mod process;
mod text;

pub(crate) use figures::Figures;

use super::App;
use anyhow::Context;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use std::sync::Arc;
use tokio::time::Instant;

/// Requests answered, by `route` and `status`. Sessions that begin are not among them: the bus answers those.
const REQUESTS: &str = "minium_http_requests_total";
/// How long answering took, up to the answer's head, by `route`.
const REQUEST_SECONDS: &str = "minium_http_request_seconds";
/// Always 1; its labels say what runs.
const BUILD_INFO: &str = "minium_build_info";

/// Starts the counting, and says what the names mean. Once, at start.
pub(crate) fn start() -> anyhow::Result<PrometheusHandle> {
    let builder = buckets::set(PrometheusBuilder::new()).context("Setting up the histograms")?;
    let handle = builder.install_recorder().context("Starting the metrics")?;
    minium_queue::metrics::describe();
    minium_bus::metrics::describe();
    minium_notifier::metrics::describe();
    minium_worker::metrics::describe();
    crate::sinks::describe_metrics();
    super::hooks::describe();
    #[cfg(feature = "otel")]
    crate::telemetry::describe_metrics();
    metrics::describe_counter!(REQUESTS, "HTTP requests answered.");
    metrics::describe_histogram!(REQUEST_SECONDS, metrics::Unit::Seconds, "How long answering them took.");
    metrics::describe_gauge!(BUILD_INFO, "What runs; always 1.");
    metrics::gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    process::started();
    Ok(handle)
}

/// Everything measured, as text.
pub(crate) async fn metrics(State(app): State<Arc<App>>) -> Response {
    let figures = app.figures.text(&app.database).await;
    let mut text = app.metrics.render();
    text.push_str(&figures);
    // the open files of a node with many sessions are a long list
    if let Ok(process) = tokio::task::spawn_blocking(process::text).await {
        text.push_str(&process);
    }
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

/// Counts a request by the route that it took, never by its path: paths are without end.
pub(crate) async fn count(request: Request, next: Next) -> Response {
    let (route, came) = (request.extensions().get::<MatchedPath>().cloned(), Instant::now());
    let response = next.run(request).await;
    let route = route.map_or_else(|| "none".to_owned(), |m| m.as_str().to_owned());
    metrics::histogram!(REQUEST_SECONDS, "route" => route.clone()).record(came.elapsed());
    metrics::counter!(REQUESTS, "route" => route, "status" => response.status().as_str().to_owned())
        .increment(1);
    response
}
