//! Everything that speaks HTTP: routes, and what holds for all of them.
//!
//! Every request first passes [`gate`]: is the `Host` one of ours, may this `Origin` ask. Then each route has what it
//! needs checked ([`permit`]). Everything that is refused, by whomever, leaves as a problem document ([`problem`]).

mod asyncapi;
mod body;
pub(crate) mod connection;
mod etag;
mod events;
mod goodbye;
mod health;
mod history;
mod hook_room;
mod hooks;
mod http2;
mod jobs;
pub(crate) mod limit;
mod locks;
mod metrics;
mod openapi;
pub(crate) mod origin;
mod page;
mod path;
mod permit;
pub(crate) mod problem;
mod publish;
mod query;
mod queues;
mod recorders;
mod routes;
mod schedules;
mod schemas;
mod session;
mod sessions;
mod sse;
mod token;
mod topics;
mod trace;
mod upgrade;
mod workers;

pub(crate) use hook_room::{BODIES_MAX as HOOK_BODIES_MAX, BodyRoom};
pub(crate) use jobs::HISTORIES_MAX;
pub(crate) use jobs::bulks::Bulks;
pub(crate) use metrics::{Figures, start as start_metrics};
pub(crate) use routes::router;

use crate::auth::Auth;
use crate::database::Database;
use crate::hooks::Hooks;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, HeaderValue,
    ORIGIN, VARY, X_CONTENT_TYPE_OPTIONS,
};
use http::{Method, StatusCode};
use limit::Limiter;
use minium_bus::{Bus, Channels, Schemas};
use minium_protocol::{ErrorCode, Topic};
use origin::Verdict;
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
    pub(crate) auth: Arc<Auth>,
    pub(crate) limiter: Limiter,
    pub(crate) limits: Limits,
    /// Where clients find the node.
    pub(crate) public_url: String,
    /// Peers of this topic hear of jobs as Minion::Notifier tells it.
    pub(crate) minion_topic: Option<Topic>,
    /// When the node began.
    pub(crate) started: tokio::time::Instant,
    pub(crate) metrics: metrics_exporter_prometheus::PrometheusHandle,
    /// How the queue stands, for scrapes.
    pub(crate) figures: Figures,
    /// Room for waits.
    pub(crate) waits: Semaphore,
    /// Room for histories: each may hold many megabytes until its reader has it.
    pub(crate) histories: Arc<Semaphore>,
    /// Webhooks that come in.
    pub(crate) hooks: Arc<Hooks>,
    /// Room for their bodies.
    pub(crate) hook_bodies: BodyRoom,
    /// Bulk actions that go on behind their requests.
    pub(crate) bulks: Bulks,
    /// The node goes down.
    pub(crate) closing: CancellationToken,
}

/// Host and origin, before anything else is looked at.
async fn gate(State((app, strict)): State<(Arc<App>, bool)>, request: Request, next: Next) -> Response {
    let (uri, headers) = (request.uri(), request.headers());
    let host = origin::host_of(uri, headers);
    let rules = &app.auth.now().origins;
    if !rules.host(host) {
        let detail =
            "this node is open to everybody on its own machine, so it answers to loopback names as Host only";
        return Refusal::new(ErrorCode::Forbidden, detail).into_response();
    }
    if let Err(refusal) = token::not_in_url(uri) {
        return refusal.into_response();
    }
    match rules.origin(headers, host, strict) {
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
    headers.insert(
        ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static(
            "ETag, Location, Minium-Earliest, Minium-Next, Retry-After, WWW-Authenticate",
        ),
    );
    if preflight {
        headers
            .insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, PUT, PATCH, DELETE"));
        let allowed = "Authorization, Content-Type, Idempotency-Key, If-None-Match, Last-Event-ID, Traceparent, Tracestate";
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_another_origin_may_read_the_headers_that_are_ours() {
        let mut response = Response::default();
        share(&mut response, HeaderValue::from_static("https://example.com"), false);
        let exposed = response.headers()[ACCESS_CONTROL_EXPOSE_HEADERS].to_str().unwrap().to_lowercase();
        for name in [history::NEXT.as_str(), jobs::EARLIEST.as_str(), "etag", "location", "www-authenticate"]
        {
            assert!(exposed.split(", ").any(|header| header == name), "{name}: {exposed}");
        }
    }
}
