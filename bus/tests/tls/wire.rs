//! What only TLS can break: bytes that rustls holds, its own messages, and ends of two kinds.

use crate::certificate;
use crate::client::{CLOSE, Client, PING, PONG, TEXT, frame, handshake, within};
use crate::node::Node;
use minium_bus::Options;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// A client whose TLS the test can see; its session is open.
async fn open(node: &Node, path: &str) -> TlsStream<TcpStream> {
    let tcp = TcpStream::connect(node.address).await.unwrap();
    let name = "localhost".try_into().unwrap();
    let mut tls = within(certificate::connector().unwrap().connect(name, tcp)).await.unwrap();
    tls.write_all(&handshake(path, "")).await.unwrap();
    tls.flush().await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within(tls.read_u8()).await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "));
    tls
}

async fn say(tls: &mut TlsStream<TcpStream>, bytes: &[u8]) {
    tls.write_all(bytes).await.unwrap();
    tls.flush().await.unwrap();
}

/// The next short frame.
async fn next(tls: &mut TlsStream<TcpStream>) -> (u8, Vec<u8>) {
    let opcode = within(tls.read_u8()).await.unwrap() & 15;
    let mut body = vec![0; usize::from(tls.read_u8().await.unwrap())];
    tls.read_exact(&mut body).await.unwrap();
    (opcode, body)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_rustls_holds_arrives_though_nothing_more_is_said() {
    // one write of which the kernel takes a part only
    for size in [20_000, 60_000, 200_000] {
        let node = Node::start().await;
        let mut s = node.open_as("/sub/held", "", Some(4_096)).await;
        let text = "h".repeat(size);
        node.publish("held", &text).await;
        s.expect(&text).await;
        s.nothing_else().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_came_with_the_handshake_are_not_lost_inside_rustls() {
    let node = Node::start().await;
    let mut s = node.open("/sub/early").await;
    for count in [3, 300] {
        let mut bytes = handshake("/pub/early", "");
        let texts: Vec<String> = (0..count).map(|n| format!("{n}{}", "e".repeat(1_000))).collect();
        texts.iter().for_each(|t| bytes.extend(frame(TEXT, t.as_bytes())));
        let mut p = Client::connect(node.address, None).await;
        p.say(&bytes).await;
        for text in texts {
            s.expect(&text).await;
        }
        assert!(p.head().await.starts_with("HTTP/1.1 101 "));
        p.nothing_else().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn new_keys_change_nothing() {
    let node = Node::start().await;
    let mut s = open(&node, "/sub/keys").await;
    let mut p = open(&node, "/pub/keys").await;
    for n in 0..20 {
        for tls in [&mut s, &mut p] {
            tls.get_mut().1.refresh_traffic_keys().unwrap();
        }
        let text = format!("under new keys {n}");
        say(&mut p, &frame(TEXT, text.as_bytes())).await;
        assert_eq!(next(&mut s).await, (TEXT, text.into_bytes()));
        say(&mut s, &frame(PING, b"?")).await;
        assert_eq!(next(&mut s).await, (PONG, b"?".to_vec()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn our_side_ends_with_close_notify() {
    let node = Node::start().await;
    let mut s = open(&node, "/sub/end").await;
    say(&mut s, &frame(CLOSE, &1000u16.to_be_bytes())).await;
    assert_eq!(next(&mut s).await, (CLOSE, 1000u16.to_be_bytes().to_vec()));
    // without it this is an error
    assert_eq!(within(s.read(&mut [0])).await.unwrap(), 0);
    within(s.shutdown()).await.unwrap();
    node.until(|stats| stats.sessions == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn our_side_ends_with_close_notify_behind_all_that_a_slow_client_has_not_read() {
    let node = Node::start().await;
    let mut s = open(&node, "/sub/slowly").await;
    for n in 0..40 {
        node.publish("slowly", &format!("{n:03}{}", "s".repeat(100_000))).await;
    }
    say(&mut s, &frame(CLOSE, &1000u16.to_be_bytes())).await;
    node.until(|stats| stats.sessions == 1).await;
    let mut all = Vec::new();
    within(s.read_to_end(&mut all)).await.unwrap();
    assert_eq!(all[all.len() - 4..], [0x88, 2, 0x03, 0xe8]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_may_end_with_close_notify_alone_or_with_nothing_at_all() {
    let node = Node::start().await;
    let mut s = open(&node, "/sub/alone").await;
    s.shutdown().await.unwrap();
    node.until(|stats| stats.sessions == 0).await;
    let s = open(&node, "/sub/cut").await;
    drop(s.into_inner().0);
    node.until(|stats| stats.sessions == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_tls_ends_one_session_with_an_alert_after_what_was_good() {
    // no ping shall end it in the place of the alert
    let node = Node::with(Options { ping_interval: Duration::from_secs(3_600), ..Options::default() }).await;
    let mut other = node.open("/sub/broken").await;
    let mut p = open(&node, "/pub/broken").await;
    p.write_all(&frame(TEXT, b"still good")).await.unwrap();
    p.flush().await.unwrap();
    p.get_mut().0.write_all(b"\x17\x03\x03\x00\x05 what").await.unwrap();
    let end = within(p.read(&mut [0])).await.unwrap_err();
    assert_eq!(end.kind(), io::ErrorKind::InvalidData, "{end}");
    assert!(end.to_string().contains("alert"), "{end}");
    other.expect("still good").await;
    node.until(|stats| stats.sessions == 1).await;
    node.publish("broken", "on we go").await;
    other.expect("on we go").await;
}
