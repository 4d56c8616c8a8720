//! `/metrics` for Prometheus, and the counting of requests.

use super::App;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use std::sync::Arc;

/// Requests answered, by `route` and `status`. Sessions that begin are not among them: the bus answers those.
const REQUESTS: &str = "minium_http_requests_total";
/// Always 1; its labels say what runs.
const BUILD_INFO: &str = "minium_build_info";

/// Everything measured, as text.
pub(crate) async fn metrics(State(app): State<Arc<App>>) -> Response {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], app.metrics.render()).into_response()
}

/// Says what runs. Once, at start.
pub(crate) fn describe() {
    metrics::describe_counter!(REQUESTS, "HTTP requests answered.");
    super::hooks::describe();
    metrics::describe_gauge!(BUILD_INFO, "What runs; always 1.");
    metrics::gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
}

/// Counts a request by the route that it took, never by its path: paths are without end.
pub(crate) async fn count(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map(|m| m.as_str().to_owned());
    let response = next.run(request).await;
    let route = route.unwrap_or_else(|| "none".into());
    metrics::counter!(REQUESTS, "route" => route, "status" => response.status().as_str().to_owned())
        .increment(1);
    response
}
