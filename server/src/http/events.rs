//! Many events as one answer: a document, or one event a line.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use std::convert::Infallible;
use tokio::sync::OwnedSemaphorePermit;

/// The media type of one event a line.
pub(super) const NDJSON: &str = "application/x-ndjson";

/// An answer this small keeps no room while its reader takes it.
const SMALL_BYTES_MAX: usize = 256 << 10;

/// Sent piece by piece from where it was read, so that it is not held twice. A document has `head` and `tail` around
/// the events, lines have nothing.
pub(super) fn answer(
    events: Vec<Bytes>,
    lines: bool,
    room: OwnedSemaphorePermit,
    head: &'static str,
    tail: String,
) -> Response {
    let small = events.iter().map(Bytes::len).sum::<usize>() <= SMALL_BYTES_MAX;
    let room = (!small).then_some(room);
    let (kind, head, between, tail) = match lines {
        true => (NDJSON, "", "\n", if events.is_empty() { String::new() } else { "\n".into() }),
        false => ("application/json", head, ",", tail),
    };
    let pieces = events.into_iter().enumerate().flat_map(move |(i, event)| {
        [Bytes::from_static(if i > 0 { between.as_bytes() } else { b"" }), event]
    });
    let whole = std::iter::once(Bytes::from_static(head.as_bytes()))
        .chain(pieces)
        .chain([Bytes::from(tail)])
        .filter(|piece| !piece.is_empty())
        .map(move |piece| {
            let _held = &room; // until the last piece is taken, or the reader is gone
            Ok::<_, Infallible>(piece)
        });
    let headers = [(CONTENT_TYPE, kind), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (headers, Body::from_stream(futures::stream::iter(whole))).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tokio::sync::Semaphore;

    async fn text(events: &[&'static str], lines: bool) -> (String, usize) {
        let rooms = Arc::new(Semaphore::new(1));
        let room = rooms.clone().acquire_owned().await.unwrap();
        let events = events.iter().map(|e| Bytes::from_static(e.as_bytes())).collect();
        let response = answer(events, lines, room, "{\"events\":[", "]}".into());
        let free = rooms.available_permits();
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        assert_eq!(rooms.available_permits(), 1);
        (String::from_utf8(body.to_vec()).unwrap(), free)
    }

    #[tokio::test]
    async fn events_are_one_document_or_lines() {
        assert_eq!(text(&[], false).await.0, r#"{"events":[]}"#);
        assert_eq!(text(&["{}", "[]"], false).await.0, r#"{"events":[{},[]]}"#);
        assert_eq!(text(&[], true).await.0, "");
        assert_eq!(text(&["{}", "[]"], true).await.0, "{}\n[]\n");
    }

    #[tokio::test]
    async fn a_large_answer_keeps_its_room_until_it_is_taken() {
        assert_eq!(text(&["{}"], false).await.1, 1);
        let large: &'static str = "x".repeat(SMALL_BYTES_MAX + 1).leak();
        assert_eq!(text(&[large], false).await.1, 0);
    }
}
