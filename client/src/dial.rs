//! How a connection comes about: TCP, and TLS over it where the URL says so. Requests and WebSockets go this one way.

use crate::address::Address;
use crate::client::ClientOptions;
use crate::error::ClientError;
use crate::tls::{self, TlsFault};
use futures::future::BoxFuture;
use http::{Extensions, Uri};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::error::Error;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Connects to one server. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Connector {
    address: Address,
    /// Nothing where no URL asked for it yet.
    tls: Option<Arc<ClientConfig>>,
    limit: Duration,
}

impl Connector {
    /// Sets TLS up if the address needs it.
    pub(crate) fn new(address: Address, options: &ClientOptions) -> Result<Connector, ClientError> {
        Connector { address: address.clone(), tls: None, limit: options.connect_timeout }.to(address, options)
    }

    /// The same for another server.
    pub(crate) fn to(&self, address: Address, options: &ClientOptions) -> Result<Connector, ClientError> {
        let unusable = |e: tls::Unusable| ClientError::TlsSetup { what: e.what, reason: e.reason };
        let tls = match &self.tls {
            None if address.is_secure() => Some(tls::config(&options.tls).map_err(unusable)?),
            tls => tls.clone(),
        };
        Ok(Connector { address, tls, limit: self.limit })
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// Connects. Takes as long as the network does.
    pub(crate) async fn dial(&self) -> Result<Socket, ClientError> {
        let stream = TcpStream::connect(self.address.host_and_port()).await;
        let stream = stream.map_err(|e| self.failed(e))?;
        // A lost delay is no reason not to talk.
        stream.set_nodelay(true).ok();
        let Some(config) = self.tls.as_ref().filter(|_| self.address.is_secure()) else {
            return Ok(Socket::Plain(stream));
        };
        let (host, _) = self.address.host_and_port();
        let name = ServerName::try_from(host.to_owned()).map_err(|e| ClientError::Url {
            url: self.address.as_str().into(),
            reason: format!("no certificate can be for this host: {e}"),
        })?;
        let stream = TlsConnector::from(config.clone()).connect(name, stream).await;
        stream.map(Socket::secure).map_err(|e| self.failed(e))
    }

    /// What an error before the first answer means.
    pub(crate) fn failed(&self, error: impl Error + Send + Sync + 'static) -> ClientError {
        match TlsFault::of(&error) {
            Some((fault, detail)) => self.fault(fault, &detail),
            None => ClientError::Connect { url: self.address.as_str().into(), source: error.into() },
        }
    }

    fn fault(&self, fault: TlsFault, detail: &str) -> ClientError {
        ClientError::tls(self.address.as_str(), fault, detail)
    }

    /// The time for connecting is over.
    pub(crate) fn late(&self) -> ClientError {
        let words = format!("no answer within {} s", self.limit.as_secs_f64());
        ClientError::Connect { url: self.address.as_str().into(), source: words.into() }
    }
}

/// What the pool of HTTP connections asks. It knows of one server only, so its URL says nothing new.
impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Socket>;
    type Error = ClientError;
    type Future = BoxFuture<'static, Result<TokioIo<Socket>, ClientError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move {
            match timeout(connector.limit, connector.dial()).await {
                Ok(socket) => socket.map(TokioIo::new),
                Err(_) => Err(connector.late()),
            }
        })
    }
}

/// A connection's bytes, plain or through TLS.
pub(crate) enum Socket {
    Plain(TcpStream),
    /// Boxed, since a session is large.
    Tls(Box<TlsStream<TcpStream>>, Fault),
}

/// What ended a TLS session that had come about. In TLS 1.3 a server refuses our certificate when the handshake is over for
/// us, and hyper, if it has no request yet, keeps that to itself.
#[derive(Clone, Default)]
pub(crate) struct Fault(Arc<OnceLock<(TlsFault, String)>>);

/// What TLS says of how a connection of the pool ended.
pub(crate) fn fault_of(connection: &Connected) -> Option<(TlsFault, String)> {
    let mut extras = Extensions::new();
    connection.get_extras(&mut extras);
    extras.get::<Fault>()?.0.get().cloned()
}

impl Socket {
    fn secure(stream: TlsStream<TcpStream>) -> Socket {
        Socket::Tls(Box::new(stream), Fault::default())
    }
}

impl Connection for Socket {
    fn connected(&self) -> Connected {
        match self {
            Socket::Plain(_) => Connected::new(),
            Socket::Tls(_, fault) => Connected::new().extra(fault.clone()),
        }
    }
}

/// Does the same with either kind.
macro_rules! either {
    ($socket:expr, $inner:ident => $done:expr) => {
        match $socket.get_mut() {
            Socket::Plain($inner) => $done,
            Socket::Tls($inner, _) => $done,
        }
    };
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Plain(inner) => Pin::new(inner).poll_read(cx, buf),
            Socket::Tls(inner, fault) => {
                let read = std::task::ready!(Pin::new(inner).poll_read(cx, buf));
                if let Some(found) = read.as_ref().err().and_then(|e| TlsFault::of(e)) {
                    fault.0.get_or_init(|| found);
                }
                Poll::Ready(read)
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        either!(self, inner => Pin::new(inner).poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, inner => Pin::new(inner).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, inner => Pin::new(inner).poll_shutdown(cx))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, inner => Pin::new(inner).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Socket::Plain(inner) => inner.is_write_vectored(),
            Socket::Tls(inner, _) => inner.is_write_vectored(),
        }
    }
}

/// A socket that comes back to its [`Lender`] when whoever has it drops it.
pub(crate) struct Lent {
    /// There until it is dropped.
    socket: Option<Socket>,
    back: Arc<Mutex<Option<Socket>>>,
    taken: u64,
}

/// Where a lent socket comes back to.
pub(crate) struct Lender {
    back: Arc<Mutex<Option<Socket>>>,
}

impl Lender {
    /// Lends it.
    pub(crate) fn lend(socket: Socket) -> (Lent, Lender) {
        let back = Arc::default();
        (Lent { socket: Some(socket), back: Arc::clone(&back), taken: 0 }, Lender { back })
    }

    /// The socket, if it came back.
    pub(crate) fn returned(self) -> Option<Socket> {
        self.back.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Lent {
    /// How many bytes have come on it: a message that takes long is no silence.
    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }

    fn socket(self: Pin<&mut Self>) -> Pin<&mut Socket> {
        Pin::new(self.get_mut().socket.as_mut().expect("it is there until it is dropped"))
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        *self.back.lock().unwrap_or_else(PoisonError::into_inner) = self.socket.take();
    }
}

impl AsyncRead for Lent {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = self.as_mut().socket().poll_read(cx, buf);
        self.taken += (buf.filled().len() - before) as u64;
        read
    }
}

impl AsyncWrite for Lent {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.socket().poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket().poll_shutdown(cx)
    }
}
