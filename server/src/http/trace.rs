//! The trace context of whoever asks, as W3C has it. One that cannot be read is as good as none.

use http::HeaderMap;
use minium_protocol::is_traceparent;

/// What the header `traceparent` says.
pub(crate) fn context(headers: &HeaderMap) -> Option<String> {
    let text = headers.get("traceparent")?.to_str().ok()?;
    is_traceparent(text).then(|| text.to_owned())
}
