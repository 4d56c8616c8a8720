//! One WebSocket: connected within a time, with limits, and every failure turned into a [`ClientError`].

use crate::client::{Client, Mode};
use crate::dial::{Lender, Lent};
use crate::error::ClientError;
use crate::http::refusal;
use minium_protocol::Position;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
use tokio_tungstenite::tungstenite::handshake::client::{Request, Response};
use tokio_tungstenite::tungstenite::http::header::{
    AUTHORIZATION, HeaderValue, RETRY_AFTER, SEC_WEBSOCKET_PROTOCOL,
};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Error};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

/// tungstenite allocates this much for each socket at once; its default of 128 KiB suits few, busy sockets.
const READ_BUFFER_BYTES: usize = 16 * 1024;
/// Enough to join small frames into one write.
const WRITE_BUFFER_BYTES: usize = 16 * 1024;
/// No problem document is longer.
const REFUSAL_BYTES_MAX: usize = 64 * 1024;

pub(crate) type Stream = WebSocketStream<Lent>;

/// What to open.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    /// As `sub/livesys/7`.
    pub(crate) path: String,
    /// As `after=1:2`.
    pub(crate) query: Vec<(&'static str, String)>,
    /// What the session speaks.
    pub(crate) mode: Mode,
}

/// A session that is open.
pub(crate) struct Opened {
    pub(crate) stream: Stream,
    /// Where a durable subscription begins, if the server says so.
    pub(crate) start: Option<Position>,
}

/// A session that is not, and how long the server asks to stay away.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) error: ClientError,
    pub(crate) wait: Option<Duration>,
}

impl From<ClientError> for Refused {
    fn from(error: ClientError) -> Refused {
        Refused { error, wait: None }
    }
}

/// Connects and shakes hands, within the time that the client's options set.
pub(crate) async fn open(client: &Client, route: &Route) -> Result<Opened, Refused> {
    let limit = client.options().connect_timeout;
    match timeout(limit, Box::pin(connect(client, route))).await {
        Ok(result) => result,
        Err(_) => Err(client.connector().late().into()),
    }
}

async fn connect(client: &Client, route: &Route) -> Result<Opened, Refused> {
    let request = request(client, route)?;
    // tungstenite drops the socket of a refused handshake with whatever of the problem document it has not read yet.
    let (stream, lender) = Lender::lend(client.connector().dial().await?);
    let limit = client.options().message_bytes_max;
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_write_buffer_size(limit.saturating_add(WRITE_BUFFER_BYTES))
        .max_message_size(Some(limit))
        .max_frame_size(Some(limit));
    match client_async_with_config(request, stream, Some(config)).await {
        Ok((stream, answer)) => Ok(Opened { stream, start: start_of(&answer) }),
        Err(Error::Http(answer)) => Err(refused(client, *answer, lender).await),
        Err(error) => Err(failed_handshake(client, error).into()),
    }
}

fn request(client: &Client, route: &Route) -> Result<Request, ClientError> {
    let fault = |reason: String| ClientError::Url { url: client.base_url().into(), reason };
    let mut url = client.address().url(&route.path, &route.query);
    let scheme = if client.address().is_secure() { "wss" } else { "ws" };
    url.set_scheme(scheme).map_err(|()| fault("it cannot be made the URL of a WebSocket".into()))?;
    let mut request = url.as_str().into_client_request().map_err(|e| fault(e.to_string()))?;
    let headers = request.headers_mut();
    if let Some(token) = client.token() {
        let mut value =
            HeaderValue::from_str(&format!("Bearer {token}")).map_err(|e| fault(e.to_string()))?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    if let Some(name) = route.mode.subprotocol() {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(name));
    }
    Ok(request)
}

/// `Minium-Position` on the 101: behind it, everything that matches will be delivered.
fn start_of(answer: &Response) -> Option<Position> {
    answer.headers().get("minium-position")?.to_str().ok()?.parse().ok()
}

async fn refused(
    client: &Client,
    answer: tungstenite::http::Response<Option<Vec<u8>>>,
    lender: Lender,
) -> Refused {
    let (head, body) = answer.into_parts();
    let header = |name| head.headers.get(name).and_then(|v: &HeaderValue| v.to_str().ok());
    let wait = header(RETRY_AFTER).and_then(|v| v.parse().ok()).map(Duration::from_secs);
    let length = header(tungstenite::http::header::CONTENT_LENGTH).and_then(|v| v.parse().ok()).unwrap_or(0);
    let mut body = body.unwrap_or_default();
    let missing = usize::min(length, REFUSAL_BYTES_MAX).saturating_sub(body.len());
    if missing > 0
        && let Some(stream) = lender.returned()
    {
        let mut rest = Vec::new();
        // What can be read is better than nothing: the status alone is an answer too.
        stream.take(missing as u64).read_to_end(&mut rest).await.ok();
        body.extend_from_slice(&rest);
    }
    Refused { error: refusal(client.base_url(), head.status.as_u16(), &body), wait }
}

fn no_server(client: &Client, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ClientError {
    ClientError::Connect { url: client.base_url().into(), source: source.into() }
}

fn failed_handshake(client: &Client, error: Error) -> ClientError {
    match error {
        Error::Io(error) => client.connector().failed(error),
        Error::Protocol(ProtocolError::HandshakeIncomplete) => {
            no_server(client, "the connection ended within the handshake")
        }
        other => ClientError::Answer { what: "the WebSocket handshake".into(), reason: other.to_string() },
    }
}

/// What an error on an open session means.
pub(crate) fn failed(client: &Client, error: &Error) -> ClientError {
    let reason = error.to_string();
    match error {
        Error::Capacity(CapacityError::MessageTooLong { size, max_size }) => {
            ClientError::TooLong { what: "a message".into(), bytes: *size, limit: *max_size, behind: None }
        }
        Error::Capacity(_) => ClientError::Answer { what: "a subscription".into(), reason },
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) | Error::Io(_) => cut(client, reason),
        Error::Protocol(_) | Error::Utf8(_) | Error::AttackAttempt => {
            ClientError::Answer { what: "a WebSocket session".into(), reason }
        }
        _ => cut(client, reason),
    }
}

/// The connection is gone.
pub(crate) fn cut(client: &Client, reason: impl Into<String>) -> ClientError {
    ClientError::Cut { url: client.base_url().into(), reason: reason.into() }
}

/// The server's Close as an error. A Close without a code counts as 1005.
pub(crate) fn closed(frame: Option<CloseFrame>) -> ClientError {
    match frame {
        Some(frame) => ClientError::Closed { code: frame.code.into(), reason: frame.reason.as_str().into() },
        None => ClientError::Closed { code: 1005, reason: String::new() },
    }
}

/// Our own orderly Close.
pub(crate) fn goodbye() -> tungstenite::Message {
    tungstenite::Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() }))
}

/// Reads an answered Close to its end, so that the answer is written and the socket ends cleanly.
pub(crate) async fn drain(stream: &mut Stream, limit: Duration) {
    use futures::StreamExt;
    timeout(limit, async { while let Some(Ok(_)) = stream.next().await {} }).await.ok();
}
