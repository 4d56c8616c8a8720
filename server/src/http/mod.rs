//! Everything that speaks HTTP: routes, and what holds for all of them.
//!
//! Every request first passes [`gate`]: is the `Host` one of ours, may this `Origin` ask. Everything that is refused,
//! by whomever, leaves as a problem document ([`problem`]).

mod body;
pub(crate) mod connection;
mod health;
mod jobs;
mod metrics;
pub(crate) mod origin;
mod page;
mod path;
pub(crate) mod problem;
mod publish;
mod query;
mod schemas;
mod session;
mod sse;
mod upgrade;

pub(crate) use jobs::HISTORIES_MAX;
pub(crate) use metrics::describe as describe_metrics;

use crate::database::Database;
use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, HeaderValue,
    ORIGIN, VARY, X_CONTENT_TYPE_OPTIONS,
};
use http::{Method, StatusCode};
use minium_bus::{Bus, Channels, Schemas};
use minium_protocol::ErrorCode;
use origin::{Rules, Verdict};
use problem::{Plain, Refusal};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Bounds of requests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Body of a message.
    pub(crate) message_bytes: usize,
    /// Body of a request to the API.
    pub(crate) request_bytes: usize,
    /// Until a body has arrived, and until an upgrade is checked.
    pub(crate) patience: Duration,
}

/// What handlers work with.
pub(crate) struct App {
    pub(crate) bus: Bus,
    pub(crate) schemas: Arc<Schemas>,
    pub(crate) channels: Arc<Channels>,
    pub(crate) database: Database,
    pub(crate) rules: Rules,
    pub(crate) limits: Limits,
    pub(crate) metrics: metrics_exporter_prometheus::PrometheusHandle,
    /// Room for waits.
    pub(crate) waits: Semaphore,
    /// Room for histories: each may hold many megabytes until its reader has it.
    pub(crate) histories: Arc<Semaphore>,
    /// The node goes down.
    pub(crate) closing: CancellationToken,
}

/// All routes.
pub(crate) fn router(app: Arc<App>) -> Router {
    // Only what messages and jobs go through asks for an `Origin` where one is required: probes and people who type
    // an address have none.
    let guarded = Router::new()
        .route("/ws", get(session::talk))
        .route("/pub/", get(session::publish).post(publish::publish))
        .route("/pub/{*topic}", get(session::publish).post(publish::publish))
        .route("/sub/", get(session::subscribe))
        .route("/sub/{*topic}", get(session::subscribe))
        .route("/push/", get(session::push).post(publish::push))
        .route("/push/{*topic}", get(session::push).post(publish::push))
        .route("/pull/", get(session::pull))
        .route("/pull/{*topic}", get(session::pull))
        .route("/bus/", get(session::peer).post(publish::send))
        .route("/bus/{*topic}", get(session::peer).post(publish::send))
        .route("/api/v1/jobs", get(jobs::list).post(jobs::enqueue))
        .route("/api/v1/jobs/{id}", get(jobs::show).patch(jobs::change).delete(jobs::remove))
        .route("/api/v1/jobs/{id}/events", get(jobs::events))
        .route("/api/v1/jobs/{id}/wait", get(jobs::wait))
        .route("/api/v1/jobs/{id}/retry", post(jobs::retry))
        .route("/api/v1/jobs/{id}/cancel", post(jobs::cancel))
        .route("/api/v1/stats", get(jobs::stats))
        .layer(from_fn_with_state((app.clone(), true), gate));
    let open = Router::new()
        .route("/", get(page::index))
        .route("/page/{file}", get(page::file))
        .route("/sdk.js", get(page::sdk))
        .route("/favicon.ico", get(page::icon))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(metrics::metrics))
        .route("/schemas/{*path}", get(schemas::schema))
        .route("/problems/{code}", get(problem::page))
        .fallback(nothing_here)
        .layer(from_fn_with_state((app.clone(), false), gate));
    let routes = guarded.merge(open).layer(from_fn(metrics::count)).with_state(app);
    // Around the whole: a router adds `Allow` to its 405 only after its own layers.
    Router::new().fallback_service(routes).layer(from_fn(problem::finish))
}

async fn nothing_here() -> Refusal {
    Refusal::new(ErrorCode::NotFound, "nothing is at this path")
}

/// Host and origin, before anything else is looked at.
async fn gate(State((app, strict)): State<(Arc<App>, bool)>, request: Request, next: Next) -> Response {
    let (uri, headers) = (request.uri(), request.headers());
    let host = origin::host_of(uri, headers);
    if !app.rules.host(host) {
        let detail =
            "this node is open to everybody on its own machine, so it answers to loopback names as Host only";
        return Refusal::new(ErrorCode::Forbidden, detail).into_response();
    }
    match app.rules.origin(headers, host, strict) {
        Verdict::Own => next.run(request).await,
        Verdict::Refused => origin_refused(),
        Verdict::Allowed => {
            let origin = headers.get(ORIGIN).cloned();
            let preflight =
                request.method() == Method::OPTIONS && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
            let mut response =
                if preflight { StatusCode::NO_CONTENT.into_response() } else { next.run(request).await };
            if let Some(origin) = origin {
                share(&mut response, origin, preflight);
            }
            response
        }
    }
}

/// As Mercury said it, to the byte.
fn origin_refused() -> Response {
    let mut response = (StatusCode::UNAUTHORIZED, "Origin check failed").into_response();
    response.extensions_mut().insert(Plain);
    response
}

/// An allowed page of another origin may read the answer.
fn share(response: &mut Response, origin: HeaderValue, preflight: bool) {
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.append(VARY, HeaderValue::from_static("Origin"));
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("Location, Retry-After"));
    if preflight {
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, PATCH, DELETE"));
        let allowed = "Content-Type, Idempotency-Key, Last-Event-ID, Traceparent";
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(allowed));
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    }
}

/// JSON text that is sent as it is.
fn json(status: StatusCode, text: impl Into<axum::body::Body>) -> Response {
    let mut response = Response::new(text.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
