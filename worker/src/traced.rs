//! Runs as spans that leave the process (feature `otel`), through whatever layer of `tracing-opentelemetry` the program has
//! installed; without one, and without the feature, nothing of this does anything.
//!
//! A run is no child of who enqueued it: between the two lie queues, hours and other attempts. Its span begins a trace of its own
//! and links to that context, as OpenTelemetry asks of consumers.

#[cfg(feature = "otel")]
pub use exported::{context_of, span_context};

use minium_protocol::TraceContext;
use tracing::Span;

/// Begins the span of a run that `enqueued` has caused. Answers where the run stands, if the span is one that leaves the process.
#[cfg(feature = "otel")]
pub(crate) fn begin(span: &Span, enqueued: Option<&TraceContext>) -> Option<TraceContext> {
    use opentelemetry::Context;
    use opentelemetry::trace::TraceContextExt;
    use tracing_opentelemetry::OpenTelemetrySpanExt;
    // fails where nothing is exported, and then there is nothing to begin
    span.set_parent(Context::new()).ok()?;
    if let Some(enqueued) = enqueued.and_then(span_context) {
        span.add_link(enqueued);
    }
    context_of(span.context().span().span_context())
}

/// Nothing is exported.
#[cfg(not(feature = "otel"))]
pub(crate) fn begin(_span: &Span, _enqueued: Option<&TraceContext>) -> Option<TraceContext> {
    None
}

#[cfg(feature = "otel")]
mod exported {
    use minium_protocol::TraceContext;
    use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

    /// A context that came from elsewhere, in OpenTelemetry's words.
    pub fn span_context(context: &TraceContext) -> Option<SpanContext> {
        let mut parts = context.traceparent().split('-').skip(1);
        let trace = TraceId::from_hex(parts.next()?).ok()?;
        let span = SpanId::from_hex(parts.next()?).ok()?;
        let flags = TraceFlags::new(u8::from_str_radix(parts.next()?, 16).ok()?);
        let state = context.tracestate().and_then(|state| state.parse::<TraceState>().ok());
        Some(SpanContext::new(trace, span, flags, true, state.unwrap_or_default()))
    }

    /// The same the other way. A span that leaves no process has none.
    pub fn context_of(span: &SpanContext) -> Option<TraceContext> {
        if !span.is_valid() {
            return None;
        }
        let flags = span.trace_flags().to_u8();
        let parent = format!("00-{}-{}-{flags:02x}", span.trace_id(), span.span_id());
        TraceContext::new(&parent, Some(&span.trace_state().header()))
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_context_is_the_same_in_both_languages() {
            let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
            for state in [None, Some("a=1,b@c=2")] {
                let context = TraceContext::new(parent, state).unwrap();
                assert_eq!(context_of(&span_context(&context).unwrap()), Some(context));
            }
            assert_eq!(context_of(&SpanContext::empty_context()), None);
        }
    }
}
