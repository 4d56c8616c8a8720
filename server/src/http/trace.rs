//! The trace context of whoever asks, as W3C has it. One that cannot be read is as good as none.
//!
//! Where spans are exported (feature `otel`) a request is one, the child of whoever asks; then it is its context that goes with
//! what the request enqueues.

use http::HeaderMap;
use minium_protocol::TraceContext;

/// The context of what this request brings about.
pub(crate) fn context(headers: &HeaderMap) -> Option<TraceContext> {
    own().or_else(|| said(headers))
}

/// What the headers `traceparent` and `tracestate` say. The second may stand there more than once, and is one list all the same.
fn said(headers: &HeaderMap) -> Option<TraceContext> {
    let parent = headers.get("traceparent")?.to_str().ok()?;
    let states: Result<Vec<&str>, _> =
        headers.get_all("tracestate").iter().map(|value| value.to_str()).collect();
    TraceContext::new(parent, states.ok().map(|states| states.join(",")).as_deref())
}

#[cfg(not(feature = "otel"))]
fn own() -> Option<TraceContext> {
    None
}

#[cfg(feature = "otel")]
pub(crate) use spans::follow;
#[cfg(feature = "otel")]
use spans::own;

#[cfg(feature = "otel")]
mod spans {
    use super::said;
    use crate::http::App;
    use axum::extract::{MatchedPath, Request, State};
    use axum::middleware::Next;
    use axum::response::Response;
    use http::header::UPGRADE;
    use minium_protocol::TraceContext;
    use minium_worker::{context_of, span_context};
    use opentelemetry::Context;
    use opentelemetry::trace::TraceContextExt;
    use std::sync::Arc;
    use tracing::field::Empty;
    use tracing::{Instrument, Span, debug_span};
    use tracing_opentelemetry::OpenTelemetrySpanExt;

    /// What is asked all day by machines that look whether the node is well.
    const UNTOLD: [&str; 3] = ["/healthz", "/readyz", "/metrics"];
    /// Of a path so much is told.
    const PATH_CHARS_MAX: usize = 512;

    /// The span of the request that is being answered, if it is one that is exported.
    pub(super) fn own() -> Option<TraceContext> {
        context_of(Span::current().context().span().span_context())
    }

    /// Answers a request within a span of its own, up to the answer's head. A session that begins has none: it may last for days.
    pub(crate) async fn follow(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
        let route = request.extensions().get::<MatchedPath>().cloned();
        let route = route.as_ref().map(MatchedPath::as_str);
        if route.is_some_and(|route| UNTOLD.contains(&route)) || request.headers().contains_key(UPGRADE) {
            return next.run(request).await;
        }
        let path: String = request.uri().path().chars().take(PATH_CHARS_MAX).collect();
        let scheme = app.public_url.split(':').next().unwrap_or_default();
        let span = debug_span!(
            "request",
            http.request.method = request.method().as_str(),
            http.route = route,
            http.response.status_code = Empty,
            url.path = path,
            url.scheme = scheme,
        );
        if let Some(asker) = said(request.headers()).as_ref().and_then(span_context) {
            // fails where nothing is exported
            span.set_parent(Context::new().with_remote_span_context(asker)).ok();
        }
        let response = next.run(request).instrument(span.clone()).await;
        // as signed: the layer takes unsigned numbers for text
        span.record("http.response.status_code", i64::from(response.status().as_u16()));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in list {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn headers_of_one_name_are_one_list() {
        let context =
            said(&headers(&[("traceparent", PARENT), ("tracestate", "a=1, b=2"), ("tracestate", "c=3")]));
        assert_eq!(context, TraceContext::new(PARENT, Some("a=1,b=2,c=3")));
        assert_eq!(
            said(&headers(&[("traceparent", PARENT), ("tracestate", "é")])),
            TraceContext::new(PARENT, None)
        );
        assert_eq!(said(&headers(&[("traceparent", "00-x"), ("tracestate", "a=1")])), None);
        assert_eq!(said(&headers(&[("tracestate", "a=1")])), None);
    }
}
