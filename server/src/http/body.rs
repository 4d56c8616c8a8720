//! Reading a request's body: bounded in bytes and in time.

use super::problem::Refusal;
use axum::body::Body;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Body as _;
use minium_bus::Message;
use minium_protocol::ErrorCode;
use std::time::Duration;

/// The whole body.
pub(crate) async fn read(body: Body, bytes_max: usize, patience: Duration) -> Result<Bytes, Refusal> {
    let too_large =
        || Refusal::new(ErrorCode::PayloadTooLarge, format!("the body has more than {bytes_max} bytes"));
    // What is announced as too large is not waited for.
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(too_large());
    }
    match tokio::time::timeout(patience, collect(Limited::new(body, bytes_max))).await {
        Ok(Ok(whole)) => Ok(whole),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        // The client has gone or broke off; most likely nobody reads this.
        Ok(Err(_)) => Err(Refusal::invalid("the body ended before it was complete")),
        Err(_) => Err(Refusal::new(ErrorCode::Timeout, "the body did not arrive in time")),
    }
}

/// Copies each piece as it comes: a piece is a view of the buffer that it was read into, and a body that trickles in
/// byte by byte would keep 8 KiB for every byte.
async fn collect(mut body: Limited<Body>) -> Result<Bytes, Box<dyn std::error::Error + Send + Sync>> {
    let mut whole = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(piece) = frame?.into_data() {
            whole.extend_from_slice(&piece);
        }
    }
    Ok(whole.into_boxed_slice().into())
}

/// What a POST brought, as the message that a socket would have brought.
///
/// `application/octet-stream` is binary, everything else is text. Senders that name no type, or the one of HTML forms
/// since their tool does so by itself, mean text.
pub(crate) fn message(headers: &HeaderMap, body: Bytes) -> Result<Message, Refusal> {
    let kind = headers.get(CONTENT_TYPE).map(|v| v.to_str().unwrap_or_default()).unwrap_or_default();
    let mut parts = kind.split(';').map(str::trim);
    if parts.next().is_some_and(|k| k.eq_ignore_ascii_case("application/octet-stream")) {
        return Ok(Message::Binary(body));
    }
    let charset =
        parts.filter_map(|p| p.split_once('=')).find(|(name, _)| name.trim().eq_ignore_ascii_case("charset"));
    if let Some((_, name)) = charset {
        let name = name.trim().trim_matches('"');
        if !["utf-8", "utf8", "us-ascii"].iter().any(|known| name.eq_ignore_ascii_case(known)) {
            return Err(Refusal::invalid(format!("the charset {name:?} is not read here; send UTF-8")));
        }
    }
    if std::str::from_utf8(&body).is_err() {
        let detail = "the body is not valid UTF-8; send application/octet-stream for binary messages";
        return Err(Refusal::invalid(detail));
    }
    Ok(Message::Text(body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::response::IntoResponse;

    fn taken(kind: Option<&'static str>, body: &'static [u8]) -> Result<Message, u16> {
        let mut headers = HeaderMap::new();
        if let Some(kind) = kind {
            headers.insert(CONTENT_TYPE, kind.parse().unwrap());
        }
        message(&headers, Bytes::from_static(body)).map_err(|r| r.into_response().status().as_u16())
    }

    #[test]
    fn the_type_decides_between_text_and_binary() {
        for text in [
            None,
            Some("text/plain"),
            Some("application/json"),
            Some("application/json; charset=UTF-8"),
            Some("application/x-www-form-urlencoded"),
            Some("text/plain;charset=\"utf-8\""),
        ] {
            assert_eq!(
                taken(text, "é".as_bytes()),
                Ok(Message::Text(Bytes::from_static("é".as_bytes()))),
                "{text:?}"
            );
        }
        assert_eq!(
            taken(Some("application/octet-stream"), b"\xff"),
            Ok(Message::Binary(Bytes::from_static(b"\xff")))
        );
    }

    #[test]
    fn text_that_is_no_utf_8_is_refused() {
        assert_eq!(taken(None, b"\xff"), Err(400));
        assert_eq!(taken(Some("text/plain; charset=latin1"), b"a"), Err(400));
    }

    #[tokio::test]
    async fn a_body_above_the_limit_is_refused_and_one_at_the_limit_is_read() {
        let patience = Duration::from_secs(5);
        assert_eq!(read(Body::from("1234"), 4, patience).await.unwrap(), "1234");
        let refusal = read(Body::from("12345"), 4, patience).await.unwrap_err();
        assert_eq!(refusal.into_response().status(), 413);
    }
}
