//! Scripted servers: real listeners whose connections do what a test says, one script per connection.

use futures::{SinkExt, StreamExt};
use jiff::Timestamp;
use minium_client::{Client, ClientOptions};
use minium_protocol::Envelope;
use serde_json::Value;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::{WebSocketStream, accept_hdr_async};
use uuid::Uuid;

/// A listener that runs `script(n, socket)` for the n-th connection, from 0. Ends when dropped.
pub(crate) struct Server {
    pub(crate) url: String,
    /// Path and query of each handshake that was read whole.
    pub(crate) asked: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

/// One accepted connection, before anything was said.
pub(crate) struct Incoming {
    pub(crate) socket: TcpStream,
    asked: Arc<Mutex<Vec<String>>>,
}

pub(crate) type Session<S = TcpStream> = WebSocketStream<S>;

impl Server {
    pub(crate) async fn start<F, Fut>(script: F) -> Server
    where
        F: Fn(usize, Incoming) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = JoinSet::new();
        let seen = asked.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            for n in 0.. {
                let (socket, _) = listener.accept().await.unwrap();
                connections.spawn(script(n, Incoming { socket, asked: seen.clone() }));
            }
        });
        Server { url, asked, _tasks: tasks }
    }

    pub(crate) fn client(&self) -> Client {
        Client::with_options(&self.url, None, ClientOptions::default()).unwrap()
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Incoming {
    /// Shakes hands.
    pub(crate) async fn accept(self) -> Session {
        self.accept_with(&[]).await
    }

    /// Shakes hands, with further headers on the 101.
    #[expect(clippy::result_large_err, reason = "the callback's type is tungstenite's")]
    pub(crate) async fn accept_with(self, headers: &[(&'static str, &'static str)]) -> Session {
        let asked = self.asked;
        let answer = |request: &Request, mut response: Response| {
            asked.lock().unwrap().push(request.uri().to_string());
            choose(request, &mut response);
            for (name, value) in headers {
                response.headers_mut().insert(*name, value.parse().unwrap());
            }
            Ok(response)
        };
        accept_hdr_async(self.socket, answer).await.unwrap()
    }

    /// Shakes hands, and tells the token that was brought.
    #[expect(clippy::result_large_err, reason = "the callback's type is tungstenite's")]
    pub(crate) async fn accept_known(self) -> (Session, Option<String>) {
        let mut token = None;
        let asked = self.asked;
        let answer = |request: &Request, mut response: Response| {
            asked.lock().unwrap().push(request.uri().to_string());
            choose(request, &mut response);
            token = request.headers().get("authorization").map(|t| t.to_str().unwrap().to_owned());
            Ok(response)
        };
        let session = accept_hdr_async(self.socket, answer).await.unwrap();
        (session, token)
    }

    /// Shakes hands over a socket that breaks after `budget` bytes were written. `None`: it broke meanwhile.
    pub(crate) async fn accept_brittle(
        self,
        budget: usize,
        reset: bool,
    ) -> Option<(Session<Brittle>, String)> {
        let (session, uri) = shake(Brittle::new(self.socket, budget, reset)).await?;
        self.asked.lock().unwrap().push(uri.clone());
        Some((session, uri))
    }

    /// Reads one HTTP request and answers with these pieces, each in a segment of its own. Answers the request's head.
    pub(crate) async fn http(mut self, pieces: &[&str]) -> String {
        self.socket.set_nodelay(true).unwrap();
        let head = self.head().await;
        for piece in pieces {
            self.socket.write_all(piece.as_bytes()).await.unwrap();
            self.socket.flush().await.unwrap();
            tokio::task::yield_now().await;
        }
        self.socket.shutdown().await.ok();
        // Unread bytes would turn the end into a reset.
        let mut rest = Vec::new();
        self.socket.read_to_end(&mut rest).await.ok();
        head
    }

    /// Reads the head of one HTTP request.
    pub(crate) async fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.socket.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        self.asked.lock().unwrap().push(head.split(' ').nth(1).unwrap().into());
        head
    }
}

/// Shakes hands over any kind of socket, and tells path and query. `None`: it broke meanwhile.
#[expect(clippy::result_large_err, reason = "the callback's type is tungstenite's")]
pub(crate) async fn shake<S: AsyncRead + AsyncWrite + Unpin>(socket: S) -> Option<(Session<S>, String)> {
    let mut uri = String::new();
    let answer = |request: &Request, mut response: Response| {
        uri = request.uri().to_string();
        choose(request, &mut response);
        Ok(response)
    };
    let session = accept_hdr_async(socket, answer).await.ok()?;
    Some((session, uri))
}

/// Agrees to the subprotocol that is asked for.
fn choose(request: &Request, response: &mut Response) {
    if let Some(asked) = request.headers().get("sec-websocket-protocol") {
        response.headers_mut().insert("sec-websocket-protocol", asked.clone());
    }
}

/// The next frame of `minium.v1` that a client says, as JSON; `None` when it said goodbye or is gone.
pub(crate) async fn said<S: AsyncRead + AsyncWrite + Unpin>(session: &mut Session<S>) -> Option<Value> {
    loop {
        match session.next().await? {
            Ok(Message::Text(text)) => return Some(serde_json::from_str(text.as_str()).unwrap()),
            Ok(Message::Ping(_) | Message::Pong(_)) => {}
            _ => return None,
        }
    }
}

/// Says frames of `minium.v1`. `false`: the socket broke.
pub(crate) async fn say<S: AsyncRead + AsyncWrite + Unpin>(
    session: &mut Session<S>,
    frames: impl IntoIterator<Item = Value>,
) -> bool {
    send(session, frames.into_iter().map(|f| f.to_string())).await
}

/// An HTTP answer with a body.
pub(crate) fn answer(status: &str, kind: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// The n-th event of a journal, as the relay writes it.
pub(crate) fn event(epoch: u64, offset: u64, data: &str) -> String {
    let mut out = Vec::new();
    let envelope = Envelope {
        id: Uuid::from_u128(offset.into()),
        source: "/minium/test",
        kind: "task.enqueue",
        subject: "1",
        time: Timestamp::UNIX_EPOCH,
        dataschema: None,
        epoch,
        offset,
        trace: None,
        late: None,
        data,
    };
    envelope.write(&mut out);
    String::from_utf8(out).unwrap()
}

/// Sends events, as fast as the socket takes them. `false`: the socket broke.
pub(crate) async fn send<S: AsyncRead + AsyncWrite + Unpin>(
    session: &mut Session<S>,
    events: impl IntoIterator<Item = String>,
) -> bool {
    for event in events {
        if session.send(Message::text(event)).await.is_err() {
            return false;
        }
    }
    true
}

/// Closes with a code and waits for the client's answer.
pub(crate) async fn close(session: &mut Session, code: u16, reason: &'static str) {
    session.close(Some(CloseFrame { code: code.into(), reason: reason.into() })).await.unwrap();
    while let Some(Ok(_)) = session.next().await {}
}

/// Reads until the client closes or breaks; the code of its Close, if it sent one.
pub(crate) async fn until_closed<S: AsyncRead + AsyncWrite + Unpin>(session: &mut Session<S>) -> Option<u16> {
    let mut code = None;
    while let Some(Ok(message)) = session.next().await {
        if let Message::Close(frame) = message {
            code = Some(frame.map_or(1005, |f| f.code.into()));
        }
    }
    code
}

/// Options under which silence is noticed at once.
pub(crate) fn impatient() -> ClientOptions {
    ClientOptions { idle: Duration::from_millis(20), ..ClientOptions::default() }
}

/// A socket that breaks after so many written bytes, wherever that is.
pub(crate) struct Brittle {
    socket: TcpStream,
    budget: usize,
}

impl Brittle {
    /// With `reset`, what the other side has not read yet goes with it.
    pub(crate) fn new(socket: TcpStream, budget: usize, reset: bool) -> Brittle {
        if reset {
            socket.set_zero_linger().unwrap();
        }
        Brittle { socket, budget }
    }
}

impl AsyncRead for Brittle {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl AsyncWrite for Brittle {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let len = buf.len().min(self.budget);
        if len == 0 {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let written = std::task::ready!(Pin::new(&mut self.socket).poll_write(cx, &buf[..len]))?;
        self.budget -= written;
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
