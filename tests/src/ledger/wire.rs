//! Connections of the ledger's own clients: each may fail at any moment, and all of them come back.

use crate::support::raw::NARROW_BYTES;
use crate::support::wait;
use std::cell::Cell;
use std::net::SocketAddr;
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Response;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{Error, Message};

pub(super) type WebSocket = WebSocketStream<TcpStream>;

/// Where a client finds the server: whenever one way is closed it tries the next.
#[derive(Debug, Clone)]
pub(super) struct Ways {
    addresses: Vec<SocketAddr>,
    now: Cell<usize>,
}

impl Ways {
    /// Begins with the `first`.
    pub(super) fn new(addresses: &[SocketAddr], first: usize) -> Ways {
        Ways { addresses: addresses.to_vec(), now: Cell::new(first) }
    }

    /// The way that is tried now.
    pub(super) fn address(&self) -> SocketAddr {
        self.addresses[self.now.get() % self.addresses.len()]
    }

    /// That one was closed.
    pub(super) fn turn(&self) {
        self.now.set(self.now.get() + 1);
    }
}

/// How a WebSocket is opened.
#[derive(Debug, Clone, Copy)]
pub(super) struct Opening<'a> {
    pub(super) path: &'a str,
    pub(super) mode: &'a str,
    /// With little room for what is not read.
    pub(super) narrow: bool,
}

/// Opens a WebSocket, as soon as there is somebody to open it to.
pub(super) async fn open(ways: &Ways, opening: Opening<'_>) -> (WebSocket, Response) {
    wait::until(&format!("a WebSocket to {}", opening.path), async || {
        let opened = try_open(ways.address(), opening).await;
        if opened.is_none() {
            ways.turn();
        }
        opened
    })
    .await
}

/// Waits until a server that could be asked again says that it is ready; whoever was refused does not ask in vain.
pub(super) async fn ready(ways: &Ways) {
    let http = reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap();
    wait::until("a server that is ready", async || {
        let answer = http.get(format!("http://{}/readyz", ways.address())).send().await;
        let ready = answer.is_ok_and(|a| a.status() == 200);
        if !ready {
            ways.turn();
        }
        ready.then_some(())
    })
    .await;
}

/// Tries once. What can pass passes; a refusal that no coming back mends fails the test.
async fn try_open(address: SocketAddr, opening: Opening<'_>) -> Option<(WebSocket, Response)> {
    let socket = TcpSocket::new_v4().unwrap();
    if opening.narrow {
        socket.set_recv_buffer_size(NARROW_BYTES).unwrap();
    }
    let stream = socket.connect(address).await.ok()?;
    stream.set_nodelay(true).ok();
    let url = format!("ws://{address}{}", opening.path);
    let mut request = url.into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_str(opening.mode).unwrap());
    match tokio_tungstenite::client_async(request, stream).await {
        Ok(opened) => Some(opened),
        Err(Error::Http(refusal)) => {
            let body = String::from_utf8_lossy(refusal.body().as_deref().unwrap_or_default()).into_owned();
            assert_eq!(refusal.status(), 503, "{} was refused for good: {body}", opening.path);
            None
        }
        // cut in the midst of the handshake
        Err(_) => None,
    }
}

/// The next text frame; nothing when the connection has ended, however it did. Only ends that ask to come back are
/// taken for granted.
pub(super) async fn next_text(socket: &mut WebSocket) -> Option<String> {
    use futures::StreamExt;
    loop {
        match wait::within("a frame", socket.next()).await? {
            Ok(Message::Text(text)) => return Some(text.as_str().to_owned()),
            Ok(Message::Close(frame)) => {
                let code = frame.as_ref().map_or(1005, |f| u16::from(f.code));
                assert!(matches!(code, 1001 | 1011..=1013 | 4000..=4499), "closed for good: {frame:?}");
                return None;
            }
            Ok(Message::Binary(_)) => panic!("nobody sent binary"),
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
            Err(_) => return None,
        }
    }
}
