//! A checked upgrade: all that a shard needs to begin a session and to answer 101.

use crate::grant::Grant;
use crate::hub::Hub;
use bytes::Bytes;
use minium_protocol::Filter;
use rustls::ServerConnection;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// What a session does on its topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Publishes to subscribers of the topic and of its parents.
    Publish,
    /// Receives what is published on what the filter matches.
    Subscribe,
    /// Hands out work: each message to one puller.
    Push,
    /// Takes work.
    Pull {
        /// Of a durable channel: says how each job ended. Without it a job counts as done when it was written.
        acks: bool,
    },
    /// Receives what the other peers of the topic send, and sends to them.
    Peer {
        /// Receives what it sends itself, too.
        echo: bool,
    },
    /// `minium.v1` on no topic of its own: `/ws`.
    Talk,
}

/// How messages look on a WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// A frame is one message, bare.
    #[default]
    Plain,
    /// A frame is one CloudEvent in JSON.
    CloudEvents,
    /// `minium.v1`: JSON frames with acknowledgements, many topics on one socket.
    V1,
}

/// A position that [`Bus::resolve`](crate::Bus::resolve) found good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// Generation of the numbering.
    pub epoch: u64,
    /// The first entry wanted is the first behind this offset.
    pub after: u64,
}

/// A connected socket, set to non-blocking.
#[derive(Debug)]
pub enum Socket {
    /// As it is.
    Plain(TcpStream),
    /// With TLS, whose handshake is over.
    Tls(TcpStream, Box<ServerConnection>),
}

impl From<TcpStream> for Socket {
    fn from(socket: TcpStream) -> Socket {
        Socket::Plain(socket)
    }
}

/// A checked upgrade, nothing of it answered yet. The shard that takes the socket writes `answer` once the session is
/// registered: a message sent by someone who saw the 101 arrives.
#[derive(Debug)]
pub struct Opening {
    /// Where the client is.
    pub socket: Socket,
    /// Who it is, for logs.
    pub remote: SocketAddr,
    /// What the session does.
    pub role: Role,
    /// How its messages look.
    pub mode: Mode,
    /// Its topic; only subscribers may have a `+` in it. Without a meaning for [`Role::Talk`].
    pub filter: Filter,
    /// Where it begins; nothing means with what comes from now on.
    pub start: Option<Start>,
    /// The whole answer to the upgrade.
    pub answer: Vec<u8>,
    /// What the client sent behind its request.
    pub leftover: Bytes,
    /// Whose it is and what it may do; nothing where everybody may do everything.
    pub grant: Option<Arc<Grant>>,
    /// Counts it.
    pub permit: Permit,
}

/// Room for one session. Given back when dropped.
#[derive(Debug)]
pub struct Permit(Arc<Hub>);

impl Permit {
    /// Nothing when `max` sessions are there.
    pub(crate) fn take(hub: &Arc<Hub>, max: usize) -> Option<Permit> {
        let more = |n: usize| (n < max).then_some(n + 1);
        let had = hub.sessions.fetch_update(Relaxed, Relaxed, more).ok()?;
        crate::metrics::sessions(had + 1);
        Some(Permit(hub.clone()))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let had = self.0.sessions.fetch_sub(1, Relaxed);
        crate::metrics::sessions(had - 1);
    }
}
