//! A TLS socket whose kernel takes no more, made so on purpose.

use super::TlsSocket;
use rustls::crypto::ring;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use std::future::poll_fn;
use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};

/// Nothing here takes so long; it only keeps a broken test from hanging.
const GUARD: Duration = Duration::from_secs(20);

async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(GUARD, what).await.expect("nothing happened")
}

/// Both ends of a connection whose handshake is over, without any socket.
pub(crate) fn pair() -> (ServerConnection, ClientConnection) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(ring::default_provider());
    let server = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    let mut client = ClientConnection::new(Arc::new(client), "localhost".try_into().unwrap()).unwrap();
    while client.wants_write() || server.wants_write() {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        take_in(&wire, |wire| server.read_tls(wire));
        server.process_new_packets().unwrap();
        wire.clear();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        take_in(&wire, |wire| client.read_tls(wire));
        client.process_new_packets().unwrap();
    }
    (server, client)
}

fn take_in(mut wire: &[u8], mut read: impl FnMut(&mut &[u8]) -> std::io::Result<usize>) {
    while !wire.is_empty() {
        read(&mut wire).unwrap();
    }
}

/// The other side, which knows how much garbage stands before what was encrypted.
struct Peer {
    socket: TcpStream,
    tls: ClientConnection,
    garbage: usize,
}

impl Peer {
    /// Reads to the end of the connection: the plaintext, and whether `close_notify` came.
    async fn rest(mut self) -> (Vec<u8>, bool) {
        let mut wire = Vec::new();
        within(self.socket.read_to_end(&mut wire)).await.unwrap();
        let (mut wire, mut text) = (&wire[self.garbage..], Vec::new());
        loop {
            match self.tls.reader().read_to_end(&mut text) {
                Ok(_) => return (text, true),
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(e) if e.kind() == ErrorKind::UnexpectedEof => return (text, false),
                Err(e) => panic!("{e}"),
            }
            self.tls.read_tls(&mut wire).unwrap();
            self.tls.process_new_packets().unwrap();
        }
    }
}

async fn stuffed() -> (TlsSocket, Peer) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (client, accepted) =
        tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    let (server, tls) = pair();
    let ours = TlsSocket::new(accepted.unwrap().0, server);
    let mut garbage = 0;
    // the kernel lets go of it for a while, as long as it still finds room on the other side
    while let Poll::Ready(()) = ours.poll_write_ready(&mut Context::from_waker(Waker::noop())) {
        while let Ok(n) = ours.tcp().try_write(&[0; 4096]) {
            garbage += n;
        }
        tokio::task::yield_now().await;
    }
    (ours, Peer { socket: client.unwrap(), tls, garbage })
}

/// Offers as a session does: what is left, whenever the socket is ready.
async fn write(ours: &TlsSocket, bytes: &[u8]) {
    let mut at = 0;
    while at < bytes.len() {
        match ours.try_write(&bytes[at..]) {
            Ok(n) => at += n,
            Err(e) => assert_eq!(e.kind(), ErrorKind::WouldBlock),
        }
        if at < bytes.len() {
            within(poll_fn(|cx| ours.poll_write_ready(cx))).await;
        }
    }
}

#[tokio::test]
async fn all_but_one_byte_of_what_the_kernel_does_not_take_counts_as_written() {
    let (ours, peer) = stuffed().await;
    assert_eq!(ours.try_write(b"one message").unwrap(), 10);
    assert_eq!(ours.try_write(b"e").unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(ours.try_write(b"e and more").unwrap_err().kind(), ErrorKind::WouldBlock);
    let rest = tokio::spawn(peer.rest());
    write(&ours, b"e and more").await;
    ours.finish();
    drop(ours);
    assert_eq!(rest.await.unwrap(), (b"one message and more".to_vec(), true));
}

#[tokio::test]
async fn rustls_holds_no_more_than_its_bound() {
    let (ours, peer) = stuffed().await;
    let bytes: Vec<u8> = (0..10_000_000u32).map(|n| n as u8 ^ (n >> 8) as u8).collect();
    let first = ours.try_write(&bytes).unwrap();
    assert!(first < super::HELD_BYTES_MAX, "{first} bytes were taken");
    let rest = tokio::spawn(peer.rest());
    write(&ours, &bytes[first..]).await;
    ours.finish();
    drop(ours);
    let (text, notified) = rest.await.unwrap();
    assert!(text == bytes && notified, "{} of {} bytes", text.len(), bytes.len());
}

#[tokio::test]
async fn the_last_word_gets_out_when_the_kernel_takes_it_and_the_socket_ends_then() {
    let (ours, peer) = stuffed().await;
    ours.finish();
    let rest = tokio::spawn(peer.rest());
    // a session that has said its last waits for its client to end
    within(poll_fn(|cx| ours.poll_read_ready(cx))).await;
    let ended = async {
        loop {
            match ours.try_read(&mut [0; 64]) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    within(poll_fn(|cx| ours.poll_read_ready(cx))).await
                }
                end => return end,
            }
        }
    };
    assert_eq!(ended.await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
    assert_eq!(rest.await.unwrap(), (vec![], true));
}

#[tokio::test]
async fn plaintext_that_does_not_fit_makes_the_socket_ready_once_more() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (client, accepted) =
        tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    let (server, mut tls) = pair();
    let ours = TlsSocket::new(accepted.unwrap().0, server);
    tls.writer().write_all(b"0123456789").unwrap();
    let mut wire = Vec::new();
    tls.write_tls(&mut wire).unwrap();
    let client = client.unwrap();
    assert_eq!(client.try_write(&wire).unwrap(), wire.len());
    let mut buf = [0; 4];
    for part in [&b"0123"[..], b"4567", b"89"] {
        let n = loop {
            within(poll_fn(|cx| ours.poll_read_ready(cx))).await;
            match ours.try_read(&mut buf) {
                Ok(n) => break n,
                Err(e) => assert_eq!(e.kind(), ErrorKind::WouldBlock),
            }
        };
        assert_eq!(&buf[..n], part);
    }
    let dry = poll_fn(|cx| Poll::Ready(ours.poll_read_ready(cx).is_pending())).await;
    assert!(dry, "nothing is there any more");
}
