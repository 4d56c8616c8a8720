//! WebSocket upgrades: checked here, answered by the bus.
//!
//! The handler leaves what was asked in the connection's slot and never answers; the connection then takes the socket
//! away from hyper with nothing written ([`super::connection`]), and a shard writes the 101 after it has registered
//! the session. So nobody who saw a 101 can miss a message.

use super::problem::Refusal;
use super::token;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderName, HeaderValue, TRANSFER_ENCODING, UPGRADE};
use http::header::{SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION};
use http::{HeaderMap, Method, Version};
use minium_bus::{Grant, Mode, Permit, Role, Start};
use minium_protocol::{CloseCode, ErrorCode, Filter};
use std::sync::{Arc, Mutex};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// The subprotocols that are spoken, in our own order of preference (the client's decides).
const SUBPROTOCOLS: &[(&str, Mode)] =
    &[("minium.v1", Mode::V1), ("minium.plain", Mode::Plain), ("cloudevents.json", Mode::CloudEvents)];

/// What becomes of a connection whose handshake was checked.
#[derive(Debug)]
pub(crate) enum Asked {
    /// It goes to the bus.
    Session(Box<Session>),
    /// It is answered and closed at once.
    Goodbye(Goodbye),
}

/// A checked upgrade.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) role: Role,
    pub(crate) mode: Mode,
    pub(crate) filter: Filter,
    pub(crate) start: Option<Start>,
    pub(crate) answer: Vec<u8>,
    pub(crate) grant: Option<Arc<Grant>>,
    pub(crate) permit: Permit,
}

/// A 101, and the code that closes at once.
#[derive(Debug)]
pub(crate) struct Goodbye {
    pub(crate) answer: Vec<u8>,
    pub(crate) code: CloseCode,
    pub(crate) reason: String,
}

impl From<Session> for Asked {
    fn from(session: Session) -> Asked {
        Asked::Session(Box::new(session))
    }
}

impl From<Goodbye> for Asked {
    fn from(goodbye: Goodbye) -> Asked {
        Asked::Goodbye(goodbye)
    }
}

/// Where a connection finds the upgrade that its handler has checked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Slot(Arc<Mutex<Option<Asked>>>);

impl Slot {
    /// Leaves an upgrade.
    fn put(&self, asked: Asked) {
        *self.0.lock().expect("nobody panics while holding the slot") = Some(asked);
    }

    /// Takes it.
    pub(crate) fn take(&self) -> Option<Asked> {
        self.0.lock().expect("nobody panics while holding the slot").take()
    }
}

/// Hands the upgrade to the connection. The answer never comes from here.
pub(crate) async fn hand_over(slot: &Slot, asked: impl Into<Asked>) -> std::convert::Infallible {
    slot.put(asked.into());
    std::future::pending().await
}

/// What a valid handshake asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Handshake {
    /// How frames look.
    pub(crate) mode: Mode,
    /// The 101.
    pub(crate) answer: Vec<u8>,
}

/// Has the comma-separated header `name` this token?
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|v| v.to_str().ok());
    values.flat_map(|v| v.split(',')).any(|t| t.trim().eq_ignore_ascii_case(token))
}

/// Does the request ask for a WebSocket at all?
pub(crate) fn is_wanted(headers: &HeaderMap) -> bool {
    has_token(headers, &UPGRADE, "websocket")
}

/// The refusal of a request that asks for no WebSocket where there is nothing else.
pub(crate) fn needed(detail: &str) -> Refusal {
    Refusal::new(ErrorCode::UpgradeRequired, detail)
        .with_header(UPGRADE, HeaderValue::from_static("websocket"))
        .with_header(CONNECTION, HeaderValue::from_static("Upgrade"))
        .with_header(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"))
}

/// Checks a handshake by RFC 6455, section 4.2.1.
pub(crate) fn check(method: &Method, version: Version, headers: &HeaderMap) -> Result<Handshake, Refusal> {
    if !is_wanted(headers) || version < Version::HTTP_11 {
        return Err(needed("this path speaks WebSocket; ask for an upgrade"));
    }
    if method != Method::GET {
        return Err(Refusal::invalid("a WebSocket begins with GET"));
    }
    if !has_token(headers, &CONNECTION, "upgrade") {
        return Err(Refusal::invalid("Connection must name upgrade"));
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|v| v.as_bytes().trim_ascii() != b"13") {
        return Err(needed("Sec-WebSocket-Version must be 13"));
    }
    // What came behind the head is the first frames; a body would be taken for them.
    let has_body = headers.contains_key(TRANSFER_ENCODING)
        || headers.get(CONTENT_LENGTH).is_some_and(|v| v.as_bytes() != b"0");
    if has_body {
        return Err(Refusal::invalid("a request for a WebSocket has no body"));
    }
    let mut keys = headers.get_all(SEC_WEBSOCKET_KEY).iter();
    let key = keys.next().map(|k| k.as_bytes().trim_ascii()).filter(|k| is_key(k));
    let Some(key) = key.filter(|_| keys.next().is_none()) else {
        return Err(Refusal::invalid("Sec-WebSocket-Key must be one base64 text of 16 bytes"));
    };
    let (mode, chosen) = choose(headers)?;
    Ok(Handshake { mode, answer: answer(key, chosen) })
}

/// 16 bytes in base64: 22 characters, of which the last has four zero bits, and `==`.
fn is_key(key: &[u8]) -> bool {
    let base64 = |b: &u8| b.is_ascii_alphanumeric() || *b == b'+' || *b == b'/';
    key.len() == 24
        && key.ends_with(b"==")
        && key[..22].iter().all(base64)
        && matches!(key[21], b'A' | b'Q' | b'g' | b'w')
}

/// The first of the client's subprotocols that is spoken here. One that carries a token is none.
fn choose(headers: &HeaderMap) -> Result<(Mode, Option<&'static str>), Refusal> {
    let mut offered = token::subprotocols(headers).peekable();
    if offered.peek().is_none() {
        return Ok((Mode::Plain, None));
    }
    let found = offered.find_map(|o| SUBPROTOCOLS.iter().find(|(name, _)| *name == o));
    match found {
        Some((name, mode)) => Ok((*mode, Some(name))),
        None => {
            let ours: Vec<_> = SUBPROTOCOLS.iter().map(|(name, _)| *name).collect();
            Err(Refusal::invalid(format!(
                "none of the subprotocols is spoken here; offer {} (beside a token too) or none",
                ours.join(", ")
            )))
        }
    }
}

fn answer(key: &[u8], subprotocol: Option<&str>) -> Vec<u8> {
    let accept = derive_accept_key(key);
    let protocol = subprotocol.map_or(String::new(), |p| format!("Sec-WebSocket-Protocol: {p}\r\n"));
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n{protocol}\r\n"
    )
    .into_bytes()
}

/// Says in the 101 where the subscription begins, so that a client can resume even if it is cut before its first
/// event.
pub(crate) fn announcing(mut answer: Vec<u8>, start: Option<Start>) -> Vec<u8> {
    if let Some(Start { epoch, after }) = start {
        answer.truncate(answer.len() - b"\r\n".len());
        answer.extend_from_slice(format!("Minium-Position: {epoch}:{after}\r\n\r\n").as_bytes());
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::response::IntoResponse;

    /// The request of RFC 6455, section 1.3.
    fn good() -> Vec<(&'static str, &'static str)> {
        vec![
            ("upgrade", "websocket"),
            ("connection", "keep-alive, Upgrade"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ]
    }

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    fn status(pairs: &[(&'static str, &'static str)]) -> u16 {
        match check(&Method::GET, Version::HTTP_11, &headers(pairs)) {
            Ok(_) => 101,
            Err(refusal) => refusal.into_response().status().as_u16(),
        }
    }

    fn with(name: &'static str, value: &'static str) -> Vec<(&'static str, &'static str)> {
        let mut pairs = good();
        pairs.retain(|(n, _)| *n != name);
        pairs.push((name, value));
        pairs
    }

    #[test]
    fn the_answer_is_that_of_the_rfc() {
        let done = check(&Method::GET, Version::HTTP_11, &headers(&good())).unwrap();
        let text = String::from_utf8(done.answer).unwrap();
        assert!(text.starts_with("HTTP/1.1 101 "));
        assert!(text.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
        assert!(text.ends_with("\r\n\r\n") && !text.contains("Protocol: "));
        assert_eq!(done.mode, Mode::Plain);
    }

    /// P-8.
    #[test]
    fn the_answer_says_where_a_durable_subscription_begins() {
        let plain = answer(b"dGhlIHNhbXBsZSBub25jZQ==", None);
        assert_eq!(announcing(plain.clone(), None), plain);
        let text = String::from_utf8(announcing(plain, Some(Start { epoch: 2, after: 40 }))).unwrap();
        assert!(text.ends_with("xOo=\r\nMinium-Position: 2:40\r\n\r\n"), "{text}");
    }

    #[test]
    fn what_is_no_handshake_is_told_what_is_needed() {
        assert_eq!(status(&[]), 426);
        assert_eq!(status(&with("upgrade", "h2c")), 426);
        assert_eq!(status(&with("sec-websocket-version", "8")), 426);
        assert_eq!(
            check(&Method::GET, Version::HTTP_10, &headers(&good())).unwrap_err().into_response().status(),
            426
        );
        let response = needed("").into_response();
        assert_eq!(response.headers()[SEC_WEBSOCKET_VERSION], "13");
    }

    #[test]
    fn broken_handshakes_are_refused() {
        assert_eq!(status(&good()), 101);
        assert_eq!(status(&with("connection", "keep-alive")), 400);
        assert_eq!(status(&with("content-length", "5")), 400);
        assert_eq!(status(&with("content-length", "0")), 101);
        assert_eq!(status(&with("transfer-encoding", "chunked")), 400);
        assert_eq!(
            check(&Method::POST, Version::HTTP_11, &headers(&good())).unwrap_err().into_response().status(),
            400
        );
        for key in
            ["", "short", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZR==", "!!!!!!!!!!!!!!!!!!!!!!=="]
        {
            assert_eq!(status(&with("sec-websocket-key", key)), 400, "{key}");
        }
        let mut twice = good();
        twice.push(("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="));
        assert_eq!(status(&twice), 400);
    }

    #[test]
    fn the_first_subprotocol_that_is_spoken_is_chosen_and_echoed() {
        let ask = |offer: &'static str| {
            check(&Method::GET, Version::HTTP_11, &headers(&with("sec-websocket-protocol", offer)))
        };
        let chosen = |offer| {
            let done = ask(offer).unwrap();
            let text = String::from_utf8(done.answer).unwrap();
            let name = text
                .split("Sec-WebSocket-Protocol: ")
                .nth(1)
                .and_then(|t| t.lines().next())
                .unwrap()
                .to_owned();
            (done.mode, name)
        };
        assert_eq!(chosen("minium.plain"), (Mode::Plain, "minium.plain".into()));
        assert_eq!(chosen("cloudevents.json"), (Mode::CloudEvents, "cloudevents.json".into()));
        assert_eq!(chosen("minium.v1, cloudevents.json"), (Mode::V1, "minium.v1".into()));
        assert_eq!(
            chosen("minium.v9, cloudevents.json, minium.plain"),
            (Mode::CloudEvents, "cloudevents.json".into())
        );
        assert_eq!(chosen("minium.bearer.abc, minium.plain"), (Mode::Plain, "minium.plain".into()));
        for none in ["minium.v9", "chat, superchat", ""] {
            assert_eq!(ask(none).unwrap_err().into_response().status(), 400, "{none}");
        }
    }
}
