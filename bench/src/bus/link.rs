//! A connection's bytes, plain or through TLS, without blocking.

use anyhow::Context;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

/// A socket to the server under load.
pub(super) enum Link {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Link {
    pub(super) fn open(address: &str, tls: Option<&Arc<ClientConfig>>) -> anyhow::Result<Link> {
        let socket = TcpStream::connect(address).with_context(|| format!("connecting to {address}"))?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let Some(config) = tls else { return Ok(Link::Plain(socket)) };
        let name = ServerName::try_from("localhost").context("naming the server")?;
        let session = ClientConnection::new(config.clone(), name).context("beginning TLS")?;
        Ok(Link::Tls(Box::new(StreamOwned::new(session, socket))))
    }

    /// Reads what is there. May leave something behind that epoll does not know of: see [`Link::is_buffered`].
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Link::Plain(socket) => socket.read(buffer),
            Link::Tls(stream) => stream.read(buffer),
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Link::Plain(socket) => socket.write(bytes),
            Link::Tls(stream) => stream.write(bytes),
        }
    }

    /// Hands on what TLS still holds.
    pub(super) fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Link::Plain(_) => Ok(()),
            Link::Tls(stream) => stream.flush(),
        }
    }

    /// Must it be read until nothing comes, since records are decrypted ahead of what was asked for?
    pub(super) fn is_buffered(&self) -> bool {
        matches!(self, Link::Tls(_))
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Link::Plain(socket) => socket.as_fd(),
            Link::Tls(stream) => stream.sock.as_fd(),
        }
    }
}
