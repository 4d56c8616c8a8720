//! Tests only: messages that make a session panic, to prove that nobody else notices.

/// Read from a client, it panics there.
pub(crate) const IN_READING: &[u8] = b"panic in reading";
/// Read from a client that also receives, its next turn in a walk panics.
pub(crate) const IN_THE_WALK: &[u8] = b"panic in the walk";
/// As [`IN_THE_WALK`], and then it panics when it is to be told goodbye.
pub(crate) const IN_ITS_GOODBYE: &[u8] = b"panic in its goodbye";

use crate::session::tls::tests::pair;
use crate::{Backing, Bus, Mode, Opening, Options, Role, Schemas, Socket};
use bytes::Bytes;
use rustls::StreamOwned;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

trait Stream: Read + Write {}

impl<S: Read + Write> Stream for S {}

/// A client behind the handshakes.
fn client(bus: &Bus, role: Role, tls: bool) -> Box<dyn Stream> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (socket, remote) = listener.accept().unwrap();
    socket.set_nonblocking(true).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let (socket, mut client): (_, Box<dyn Stream>) = if tls {
        let (server, tls) = pair();
        (Socket::Tls(socket, Box::new(server)), Box::new(StreamOwned::new(tls, client)))
    } else {
        (socket.into(), Box::new(client))
    };
    let (filter, permit) = ("x".parse().unwrap(), bus.admit().unwrap());
    let (answer, leftover) = (b"101".to_vec(), Bytes::new());
    bus.open(Opening {
        socket,
        remote,
        role,
        mode: Mode::Plain,
        filter,
        start: None,
        answer,
        leftover,
        grant: None,
        permit,
    });
    let mut answer = [0; 3];
    client.read_exact(&mut answer).unwrap();
    client
}

fn send(client: &mut dyn Stream, body: &[u8]) {
    let mut frame = vec![0x81, 0x80 | body.len() as u8, 0, 0, 0, 0];
    frame.extend_from_slice(body);
    client.write_all(&frame).unwrap();
}

fn receive(client: &mut dyn Stream) -> Vec<u8> {
    let mut head = [0; 2];
    client.read_exact(&mut head).unwrap();
    let mut body = vec![0; usize::from(head[1])];
    client.read_exact(&mut body).unwrap();
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_ends_one_session_with_1011_and_the_shard_lives_on() {
    one_session_ends(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_tls_too_a_panic_ends_one_session() {
    one_session_ends(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_panics_at_its_goodbye_too_is_gone_and_the_walk_goes_on() {
    let bus = bus();
    tokio::task::spawn_blocking(move || {
        let mut peers = [(); 3].map(|()| client(&bus, Role::Peer { echo: true }, false));
        send(&mut *peers[1], IN_ITS_GOODBYE);
        send(&mut *peers[0], b"walk");
        // no Close: the connection ends
        let mut buf = [0; 256];
        let end = loop {
            match peers[1].read(&mut buf) {
                Ok(1..) => {}
                end => break end,
            }
        };
        assert!(!end.is_err_and(|e| e.kind() == ErrorKind::WouldBlock), "it is still there");
        let (left, right) = peers.split_at_mut(2);
        send(&mut *left[0], b"on we go");
        for peer in [&mut left[0], &mut right[0]] {
            while receive(&mut **peer) != b"on we go" {}
        }
    })
    .await
    .unwrap();
}

fn bus() -> Bus {
    let options = Options { shards: 1, ..Options::default() };
    Bus::start(options, Backing { schemas: Arc::new(Schemas::empty()), ..Backing::default() }).unwrap()
}

async fn one_session_ends(tls: bool) {
    let bus = bus();
    tokio::task::spawn_blocking(move || {
        let mut first = client(&bus, Role::Subscribe, tls);
        for fault in [IN_READING, IN_THE_WALK] {
            let mut peers = [(); 3].map(|()| client(&bus, Role::Peer { echo: true }, tls));
            let mut publisher = client(&bus, Role::Publish, tls);
            send(&mut *peers[1], fault);
            if fault == IN_THE_WALK {
                send(&mut *peers[0], b"walk");
            }
            // whatever came before, a Close with 1011 is the last that it hears
            let mut last = receive(&mut *peers[1]);
            while last[..2] != 1011u16.to_be_bytes() {
                last = receive(&mut *peers[1]);
            }
            let (left, right) = peers.split_at_mut(2);
            send(&mut *left[0], b"on we go");
            for peer in [&mut left[0], &mut right[0]] {
                while receive(&mut **peer) != b"on we go" {}
            }
            send(&mut *publisher, b"to the first");
            assert_eq!(receive(&mut *first), b"to the first");
        }
    })
    .await
    .unwrap();
}
