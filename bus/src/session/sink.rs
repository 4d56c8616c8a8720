//! Where the bytes of a session go: its socket, or the pipe of an SSE stream.

use crate::subscription::Pipe;
use std::io::{self, ErrorKind};
use std::net::Shutdown;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::Interest;
use tokio::net::TcpStream;

pub(crate) enum Sink {
    Socket(TcpStream),
    Stream(Arc<Pipe>),
}

impl Sink {
    /// A pipe takes all or nothing.
    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Sink::Socket(socket) => socket.try_write(bytes),
            Sink::Stream(pipe) => pipe.try_write(bytes),
        }
    }

    /// A short write or read said that there is no more: tells tokio so without asking the kernel once more.
    pub(super) fn exhausted(&self, interest: Interest) {
        if let Sink::Socket(socket) = self {
            let nothing = || Err::<(), _>(io::Error::from(ErrorKind::WouldBlock));
            // the error is the message
            drop(socket.try_io(interest, nothing));
        }
    }

    pub(super) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Sink::Socket(socket) => socket.poll_write_ready(cx).map(drop),
            Sink::Stream(pipe) => pipe.poll_room(cx),
        }
    }

    /// Ready when the client said something, or is gone.
    pub(super) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Sink::Socket(socket) => socket.poll_read_ready(cx).map(drop),
            Sink::Stream(pipe) => pipe.poll_left(cx),
        }
    }

    /// Nothing at all from a stream means that its reader is gone, as it does from a socket.
    pub(super) fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Sink::Socket(socket) => socket.try_read(buf),
            Sink::Stream(_) => Ok(0),
        }
    }

    /// Ends our side, so that what was written arrives before the end does.
    pub(super) fn finish(&self) {
        match self {
            // if it fails the client is gone, which reading finds out
            Sink::Socket(socket) => drop(socket2::SockRef::from(socket).shutdown(Shutdown::Write)),
            Sink::Stream(pipe) => pipe.end(),
        }
    }

    /// Who it is, for those who look at what it does.
    pub(super) fn peer(&self) -> String {
        match self {
            Sink::Socket(socket) => socket.peer_addr().map_or_else(|_| "gone".into(), |a| a.to_string()),
            Sink::Stream(_) => "stream".into(),
        }
    }

    /// Has the client an end of its own to wait for?
    pub(super) fn is_socket(&self) -> bool {
        matches!(self, Sink::Socket(_))
    }
}
