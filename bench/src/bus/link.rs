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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::conn::{Conn, Phase};
    use crate::bus::dialect::{Dialect, Role};
    use crate::bus::tls;
    use memchr::memmem::Finder;
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use rustls::{ServerConfig, ServerConnection};
    use std::net::TcpListener;

    /// Answers one handshake over TLS and sends `frames` behind it in many small records.
    fn serve(listener: &TcpListener, config: Arc<ServerConfig>, frames: &[u8]) {
        let (socket, _) = listener.accept().unwrap();
        let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), socket);
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\n").unwrap();
        frames.chunks(700).for_each(|piece| stream.write_all(piece).unwrap());
        stream.flush().unwrap();
        // until the client has seen everything
        assert_eq!(stream.read(&mut byte).unwrap_or(0), 0);
    }

    #[test]
    fn what_came_over_tls_is_read_to_its_end() {
        let files = tempfile::tempdir().unwrap();
        let settings = tls::settings(files.path()).unwrap();
        let certificate = CertificateDer::from_pem_file(&settings[0].1).unwrap();
        let key = PrivateKeyDer::from_pem_file(&settings[1].1).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config =
            ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = Arc::new(config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap());

        let mut frames = Vec::new();
        for n in 0..100u8 {
            frames.extend_from_slice(&[0x81, 126, 1, 0]);
            let text = format!("@@{:016x}{:04x}{:012x}", 1, 0, n);
            frames.extend(text.bytes().chain(std::iter::repeat(b'x')).take(256));
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::scope(|threads| {
            threads.spawn(|| serve(&listener, config, &frames));
            let client = tls::client(files.path()).unwrap();
            let link = Link::open(&address, Some(&client)).unwrap();
            let mut conn = Conn::open(link, &address, Dialect::Plain, Role::Subscriber, "x", 0);
            let (mut seen, mut buffer, finder) = (vec![], vec![0; 1 << 16], Finder::new(b"@@"));
            conn.flush();
            while seen.len() < 100 && conn.phase != Phase::Dead {
                conn.readable(&mut buffer, &finder, |stamp, in_order| {
                    assert!(in_order);
                    seen.push(stamp.sequence);
                });
                std::thread::yield_now();
            }
            assert_eq!(seen, (0..100).collect::<Vec<_>>(), "{:?}", conn.last_words);
        });
    }
}
