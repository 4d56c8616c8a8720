//! One connection: HTTP until it ends or becomes a WebSocket, and then the bus has the socket.

use super::goodbye;
use super::limit::Remote;
use super::upgrade::{Asked, Slot};
use axum::body::Body;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use minium_bus::{Bus, Opening};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tracing::debug;

/// Bounds of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    /// For the head of each request.
    pub(crate) header_timeout: Duration,
    /// Largest head.
    pub(crate) header_bytes: usize,
}

/// Serves one connection to its end, or to the moment at which the bus takes the socket.
pub(crate) async fn serve(
    stream: TcpStream,
    remote: SocketAddr,
    router: axum::Router,
    bus: Bus,
    options: Options,
    closing: CancellationToken,
) {
    let served = until_upgrade(stream, remote, router, options, &closing).await;
    let Some((asked, stream, leftover)) = served else { return };
    let asked = match asked {
        Asked::Session(session) => session,
        Asked::Goodbye(goodbye) => return goodbye::say(goodbye, stream).await,
    };
    match stream.into_std() {
        Ok(socket) => bus.open(Opening {
            socket: socket.into(),
            remote,
            role: asked.role,
            mode: asked.mode,
            filter: asked.filter,
            start: asked.start,
            answer: asked.answer,
            leftover,
            grant: asked.grant,
            permit: asked.permit,
        }),
        Err(error) => debug!(%error, "A socket could not be handed over."),
    }
}

/// HTTP until the connection ends (`None`) or a handler has checked an upgrade; then nothing was answered yet.
async fn until_upgrade(
    stream: TcpStream,
    remote: SocketAddr,
    router: axum::Router,
    options: Options,
    closing: &CancellationToken,
) -> Option<(Asked, TcpStream, Bytes)> {
    let slot = Slot::default();
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(slot.clone());
        request.extensions_mut().insert(Remote(remote));
        Box::pin(router.clone().oneshot(request))
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(options.header_timeout)
        .max_buf_size(options.header_bytes)
        .serve_connection(TokioIo::new(stream), service);
    let mut cancelled = std::pin::pin!(closing.cancelled());
    let mut draining = false;
    let asked = poll_fn(|cx| {
        if !draining && cancelled.as_mut().poll(cx).is_ready() {
            draining = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
        if connection.poll_without_shutdown(cx).is_ready() {
            return Poll::Ready(None);
        }
        match slot.take() {
            Some(asked) => Poll::Ready(Some(asked)),
            None => Poll::Pending,
        }
    })
    .await;
    let parts = connection.into_parts();
    let mut stream = parts.io.into_inner();
    match asked {
        // A copy: hyper's buffer must not live as long as the session.
        Some(asked) => Some((asked, stream, Bytes::copy_from_slice(&parts.read_buf))),
        None => {
            // The client may be gone already; then there is nobody to tell.
            stream.shutdown().await.ok();
            None
        }
    }
}
