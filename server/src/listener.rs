//! The listeners: connections are taken, as many as there is room for, until the node goes down.
//!
//! Usually there is one, and it is bound here. Whoever starts the node may hand over sockets that listen already: then
//! connections wait in them while the node is restarted, and nobody is refused.

use crate::exit::{Exit, fault};
use crate::http::connection;
use crate::tls::Tls;
use listenfd::ListenFd;
use minium_bus::Bus;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

/// Connections that the kernel holds until they are accepted.
const BACKLOG: u32 = 4_096;
/// After an accept that failed for want of descriptors or memory.
const PAUSE: Duration = Duration::from_millis(50);

/// Binds.
pub(crate) fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Binds, or says in words what is in the way.
pub(crate) fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    open(address).map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "something listens there already; stop it, or choose another port by --listen 127.0.0.1:PORT (0 takes a free one)".to_owned()
            }
            io::ErrorKind::PermissionDenied => "ports below 1024 need rights; choose a higher one by --listen".to_owned(),
            io::ErrorKind::AddrNotAvailable => "this machine has no such address".to_owned(),
            _ => error.to_string(),
        };
        fault(Exit::Failed, format!("Cannot listen on {address}: {hint}"))
    })
}

/// Sockets that listen already, from whoever started this process. To be called before there are threads: the variables
/// that tell of them are taken out of the environment, so that no command finds them there.
pub(crate) fn handed_over() -> anyhow::Result<Vec<std::net::TcpListener>> {
    let mut handed = ListenFd::from_env();
    let count = handed.len();
    let take = |i| {
        handed.take_tcp_listener(i).map_err(|error| {
            fault(Exit::Usage, format!("LISTEN_FDS: what was handed over is not all TCP: {error}"))
        })
    };
    (0..count).map(take).filter_map(Result::transpose).collect()
}

/// The same as the runtime knows them.
pub(crate) fn adopt(handed: Vec<std::net::TcpListener>) -> anyhow::Result<Vec<TcpListener>> {
    let adopt = |listener: std::net::TcpListener| {
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    };
    let adopted: io::Result<Vec<_>> = handed.into_iter().map(adopt).collect();
    adopted.map_err(|error| {
        fault(Exit::Failed, format!("The sockets that were handed over cannot be used: {error}"))
    })
}

/// Of all addresses the one by which most can come: one that is not loopback, if there is any.
pub(crate) fn most_open(listeners: &[TcpListener]) -> Option<SocketAddr> {
    let addresses: Vec<SocketAddr> = listeners.iter().filter_map(|l| l.local_addr().ok()).collect();
    let open = addresses.iter().find(|address| !address.ip().is_loopback());
    open.or(addresses.first()).copied()
}

/// What a connection is served with.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) router: axum::Router,
    pub(crate) bus: Bus,
    pub(crate) options: connection::Options,
    /// With it the listener speaks TLS and nothing else.
    pub(crate) tls: Option<Arc<Tls>>,
    /// For connections at one moment, over all listeners.
    pub(crate) room: Arc<Semaphore>,
    pub(crate) closing: CancellationToken,
}

/// Accepts until `closing`, then waits for what is open, at most `grace`.
pub(crate) async fn run(listeners: Vec<TcpListener>, service: Service, grace: Duration) {
    let connections = TaskTracker::new();
    let mut doors = Doors { listeners, first: 0 };
    while let Some((stream, remote, permit)) = next(&mut doors, &service.room, &service.closing).await {
        let service = service.clone();
        connections.spawn(async move {
            connection::serve(stream, remote, service).await;
            drop(permit);
        });
    }
    drop(doors);
    connections.close();
    // Connections that do not end in time end with the process.
    tokio::time::timeout(grace, connections.wait()).await.ok();
}

/// All listeners of a node. Room for one connection is enough to wait at all of them: with room for each, those where
/// nobody comes would take it from the others.
struct Doors {
    listeners: Vec<TcpListener>,
    /// Where it is looked first, so that a busy one keeps nobody waiting at the others.
    first: usize,
}

impl Doors {
    /// The next connection at any of them. May be given up at any time.
    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        poll_fn(|cx| {
            let count = self.listeners.len();
            for nth in 0..count {
                let at = (self.first + nth) % count;
                if let Poll::Ready(accepted) = self.listeners[at].poll_accept(cx) {
                    self.first = (at + 1) % count;
                    return Poll::Ready(accepted);
                }
            }
            Poll::Pending
        })
        .await
    }
}

type Accepted = (TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit);

async fn next(doors: &mut Doors, room: &Arc<Semaphore>, closing: &CancellationToken) -> Option<Accepted> {
    let accepted = async {
        let permit = room.clone().acquire_owned().await.ok()?;
        loop {
            match doors.accept().await {
                Ok((stream, remote)) => {
                    // A small frame must not wait for the acknowledgement of the one before; what fails here is gone.
                    stream.set_nodelay(true).ok();
                    return Some((stream, remote, permit));
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    warn!(%error, "A connection could not be accepted.");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        biased;
        () = closing.cancelled() => None,
        accepted = accepted => accepted,
    }
}

/// The client was gone before it was accepted.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
