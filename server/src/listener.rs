//! The one listener: takes connections, as many as there is room for, until the node goes down.

use crate::exit::{Exit, fault};
use crate::http::connection;
use crate::tls::Tls;
use minium_bus::Bus;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
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

/// What a connection is served with.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) router: axum::Router,
    pub(crate) bus: Bus,
    pub(crate) options: connection::Options,
    /// With it the listener speaks TLS and nothing else.
    pub(crate) tls: Option<Arc<Tls>>,
    /// Connections at one moment.
    pub(crate) connections_max: u32,
    pub(crate) closing: CancellationToken,
}

/// Accepts until `closing`, then waits for what is open, at most `grace`.
pub(crate) async fn run(listener: TcpListener, service: Service, grace: Duration) {
    let room = Arc::new(Semaphore::new(service.connections_max as usize));
    let connections = TaskTracker::new();
    while let Some((stream, remote, permit)) = next(&listener, &room, &service.closing).await {
        let service = service.clone();
        connections.spawn(async move {
            connection::serve(stream, remote, service).await;
            drop(permit);
        });
    }
    drop(listener);
    connections.close();
    // Connections that do not end in time end with the process.
    tokio::time::timeout(grace, connections.wait()).await.ok();
}

type Accepted = (TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit);

async fn next(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
    closing: &CancellationToken,
) -> Option<Accepted> {
    let accepted = async {
        let permit = room.clone().acquire_owned().await.ok()?;
        loop {
            match listener.accept().await {
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
