//! `/sub` as Server-Sent Events. The bus writes the events; here is only the HTTP around them.

use super::limit::Remote;
use super::problem::Refusal;
use super::session::{accepts, begin, granted};
use super::{App, path, query};
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::StreamExt;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::request::Parts;
use minium_protocol::ErrorCode;
use std::convert::Infallible;
use std::sync::Arc;

/// The first bytes: how long a client waits before it comes back. Written at once, so that proxies pass the head on.
const RETRY: &str = "retry: 1000\n\n";

/// Asks the request for an event stream?
pub(crate) fn is_wanted(parts: &Parts) -> bool {
    accepts(parts, "text/event-stream")
}

/// The stream, from the position that `Last-Event-ID`, else the query names.
pub(crate) async fn stream(State(app): State<Arc<App>>, parts: &Parts) -> Response {
    open(&app, parts).await.unwrap_or_else(IntoResponse::into_response)
}

async fn open(app: &App, parts: &Parts) -> Result<Response, Refusal> {
    let filter = path::filter(&parts.uri)?;
    let after = query::after_event(&parts.uri, &parts.headers)?;
    if app.closing.is_cancelled() {
        return Err(Refusal::new(ErrorCode::Unavailable, "the node is going down"));
    }
    let permit = app.bus.admit()?;
    let start = begin(app, &filter, after).await?;
    let remote = parts.extensions.get::<Remote>().map(|remote| remote.0);
    let events = app.bus.subscribe_from(remote, filter, start, granted(parts)?, permit).await?;
    let first = futures::stream::iter([Bytes::from_static(RETRY.as_bytes())]);
    let body = Body::from_stream(first.chain(events).map(Ok::<Bytes, Infallible>));
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // nginx would gather events before it passes them on.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    Ok(response)
}
