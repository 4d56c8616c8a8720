//! One connection: HTTP until it ends or becomes a WebSocket, and then the bus has the socket.

use super::goodbye;
use super::http2;
use super::limit::Remote;
use super::upgrade::{Asked, Slot};
use crate::auth::ClientIdentity;
use crate::listener::Service;
use crate::tls::{H2, Tls, identity_of};
use axum::body::Body;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use minium_bus::{Opening, Socket};
use minium_protocol::TLS_ONLY;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use tower::ServiceExt;
use tracing::debug;

/// Bounds of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    /// For the TLS handshake, and for the head of each request.
    pub(crate) header_timeout: Duration,
    /// Largest head.
    pub(crate) header_bytes: usize,
}

/// A connection that the bus can take over.
pub(crate) trait Carrier: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// What the bus takes.
    fn into_socket(self) -> io::Result<Socket>;
}

impl Carrier for TcpStream {
    fn into_socket(self) -> io::Result<Socket> {
        Ok(Socket::Plain(self.into_std()?))
    }
}

impl Carrier for TlsStream<TcpStream> {
    fn into_socket(self) -> io::Result<Socket> {
        let (socket, tls) = self.into_inner();
        Ok(Socket::Tls(socket.into_std()?, Box::new(tls)))
    }
}

/// Serves one connection to its end, or to the moment at which the bus takes the socket.
pub(crate) async fn serve(stream: TcpStream, remote: SocketAddr, service: Service) {
    let Some(tls) = service.tls.clone() else {
        return http1(stream, remote, service, None).await;
    };
    // boxed, since a handshake is large and most connections are long behind it
    let handshake = Box::pin(secure(stream, &tls));
    let stream = match timeout(service.options.header_timeout, handshake).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return debug!(%remote, %error, "A TLS handshake failed."),
        Err(_) => return debug!(%remote, "A TLS handshake took too long."),
    };
    let (_, session) = stream.get_ref();
    let certificate = session.peer_certificates().and_then(<[_]>::first);
    let identity = certificate.and_then(identity_of);
    if session.alpn_protocol() == Some(H2) {
        http2::serve(stream, remote, service, identity).await;
    } else {
        http1(stream, remote, service, identity).await;
    }
}

/// The type of the record that begins TLS.
const HANDSHAKE_RECORD: u8 = 22;
/// Read and thrown away of what came to no TLS session, so that its sender reads why.
const STRAY_BYTES_MAX: u64 = 64 * 1024;

/// The handshake. Whoever speaks plain HTTP to this port is told so in plain HTTP.
async fn secure(mut stream: TcpStream, tls: &Tls) -> io::Result<TlsStream<TcpStream>> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let error = if first[0] == HANDSHAKE_RECORD {
        match tls.acceptor().accept(stream).into_fallible().await {
            Ok(session) => return Ok(session),
            Err((error, socket)) => {
                stream = socket;
                error
            }
        }
    } else {
        if first[0].is_ascii_alphabetic() {
            let length = TLS_ONLY.len();
            let answer = format!(
                "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: text/plain\r\n\
                 content-length: {length}\r\n\r\n{TLS_ONLY}"
            );
            stream.write_all(answer.as_bytes()).await?;
        }
        io::Error::new(io::ErrorKind::InvalidData, "it began with something else than TLS")
    };
    // a client that was refused in TLS 1.3 may have sent its request already: unread, that would be a reset which takes
    // our alert along; whoever is gone does not want to read it
    if stream.shutdown().await.is_ok() {
        tokio::io::copy(&mut stream.take(STRAY_BYTES_MAX), &mut tokio::io::sink()).await.ok();
    }
    Err(error)
}

async fn http1(stream: impl Carrier, remote: SocketAddr, service: Service, identity: Option<ClientIdentity>) {
    let served = until_upgrade(stream, remote, &service, identity).await;
    let Some((asked, stream, leftover)) = served else { return };
    let asked = match asked {
        Asked::Session(session) => session,
        Asked::Goodbye(goodbye) => return goodbye::say(goodbye, stream).await,
    };
    match stream.into_socket() {
        Ok(socket) => service.bus.open(Opening {
            socket,
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
async fn until_upgrade<S: Carrier>(
    stream: S,
    remote: SocketAddr,
    Service { router, options, closing, .. }: &Service,
    identity: Option<ClientIdentity>,
) -> Option<(Asked, S, Bytes)> {
    let slot = Slot::default();
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(slot.clone());
        request.extensions_mut().insert(Remote(remote));
        if let Some(identity) = &identity {
            request.extensions_mut().insert(identity.clone());
        }
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
