//! Where the bytes of a session go: its socket, plain or with TLS, or the pipe of an SSE stream.

use super::tls::{self, TlsSocket};
use crate::opening::Socket;
use crate::subscription::Pipe;
use std::io;
use std::net::Shutdown;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::Interest;
use tokio::net::TcpStream;

pub(crate) enum Sink {
    Socket(TcpStream),
    Tls(Box<TlsSocket>),
    Stream(Arc<Pipe>),
}

impl Sink {
    /// Takes over a socket. Called on the thread that will serve it.
    pub(crate) fn new(socket: Socket) -> io::Result<Sink> {
        Ok(match socket {
            Socket::Plain(socket) => Sink::Socket(TcpStream::from_std(socket)?),
            Socket::Tls(socket, tls) => {
                Sink::Tls(Box::new(TlsSocket::new(TcpStream::from_std(socket)?, *tls)))
            }
        })
    }

    /// The TCP connection, if there is one.
    pub(crate) fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Sink::Socket(socket) => Some(socket),
            Sink::Tls(socket) => Some(socket.tcp()),
            Sink::Stream(_) => None,
        }
    }

    /// A pipe takes all or nothing. Of anything else the rest must be offered again, beginning with the same byte.
    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Sink::Socket(socket) => socket.try_write(bytes),
            Sink::Tls(socket) => socket.try_write(bytes),
            Sink::Stream(pipe) => pipe.try_write(bytes),
        }
    }

    /// Has the first byte that it will be offered gone out already? Then the frame that it begins is partly written.
    pub(super) fn owes(&self) -> bool {
        matches!(self, Sink::Tls(socket) if socket.owes())
    }

    /// A short write or read said that there is no more: tells tokio so without asking the kernel once more. With TLS
    /// it says nothing about the kernel.
    pub(super) fn exhausted(&self, interest: Interest) {
        if let Sink::Socket(socket) = self {
            tls::exhausted(socket, interest);
        }
    }

    pub(super) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Sink::Socket(socket) => socket.poll_write_ready(cx).map(drop),
            Sink::Tls(socket) => socket.poll_write_ready(cx),
            Sink::Stream(pipe) => pipe.poll_room(cx),
        }
    }

    /// Ready when the client said something, or is gone.
    pub(super) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Sink::Socket(socket) => socket.poll_read_ready(cx).map(drop),
            Sink::Tls(socket) => socket.poll_read_ready(cx),
            Sink::Stream(pipe) => pipe.poll_left(cx),
        }
    }

    /// Nothing at all from a stream means that its reader is gone, as it does from a socket.
    pub(super) fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Sink::Socket(socket) => socket.try_read(buf),
            Sink::Tls(socket) => socket.try_read(buf),
            Sink::Stream(_) => Ok(0),
        }
    }

    /// Ends our side, so that what was written arrives before the end does.
    pub(super) fn finish(&self) {
        match self {
            // if it fails the client is gone, which reading finds out
            Sink::Socket(socket) => drop(socket2::SockRef::from(socket).shutdown(Shutdown::Write)),
            Sink::Tls(socket) => socket.finish(),
            Sink::Stream(pipe) => pipe.end(),
        }
    }

    /// Who it is, for those who look at what it does.
    pub(super) fn peer(&self) -> String {
        let address = self.tcp().map(|socket| socket.peer_addr());
        address.map_or_else(|| "stream".into(), |a| a.map_or_else(|_| "gone".into(), |a| a.to_string()))
    }

    /// Has the client an end of its own to wait for?
    pub(super) fn is_socket(&self) -> bool {
        !matches!(self, Sink::Stream(_))
    }
}
