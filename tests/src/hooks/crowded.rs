//! Strangers who send slowly: what they hold is their own address's.

use super::{CONFIG, OLD, of_github};
use crate::support::node::{Node, Options};
use crate::support::wait;
use futures::future::join_all;
use std::net::Ipv4Addr;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// A share of one address.
const SHARE: usize = 3;
/// More than all of the room.
const SLOW: usize = 40;

/// A delivery of a stranger whose body has begun and does not go on.
async fn trickle(node: &Node) -> TcpStream {
    let mut stream = TcpStream::connect(node.address()).await.unwrap();
    let head = format!(
        "POST /hooks/git HTTP/1.1\r\nHost: localhost\r\nx-hub-signature-256: sha256={}\r\n\
         x-github-event: push\r\nx-github-delivery: 1\r\ncontent-length: 100\r\n\r\n{{",
        "0".repeat(64)
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

/// The status of a good delivery that comes from this address.
async fn push_from(node: &Node, address: Ipv4Addr, id: &str) -> u16 {
    let client = reqwest::Client::builder().local_address(Some(address.into())).build().unwrap();
    let request = client
        .post(node.http("/hooks/git"))
        .header("x-hub-signature-256", of_github(OLD, b"{}"))
        .header("x-github-event", "push")
        .header("x-github-delivery", id)
        .body("{}");
    wait::within("an answer to a delivery", request.send()).await.unwrap().status().as_u16()
}

/// G-8: one address that sends slowly has its share of the room, and others are served; so is whoever has that address, as
/// soon as it has let go.
#[tokio::test]
async fn who_sends_slowly_keeps_nobody_else_out() {
    // no body of this test is given up by itself
    let limits =
        format!("[server.limits]\nhandshake_timeout = \"10m\"\nhook_bodies_per_address = {SHARE}\n{CONFIG}");
    let node = Node::start(Options::memory().config(&limits)).await;
    let slow = join_all((0..SLOW).map(|_| trickle(&node))).await;
    let held = async || node.metric("minium_hooks_bodies").await;
    wait::until("the share to be held", async || (held().await >= SHARE as f64).then_some(())).await;
    assert_eq!(push_from(&node, Ipv4Addr::new(127, 0, 0, 2), "one").await, 202);
    assert_eq!(held().await, SHARE as f64, "nobody got more than his share");
    let own = push_from(&node, Ipv4Addr::LOCALHOST, "two");
    let leave = async { drop(slow) };
    assert_eq!(tokio::join!(own, leave).0, 202);
    wait::until("the room to be free", async || (held().await == 0.0).then_some(())).await;
}
