//! What was granted to a session: what it allows, and its end.

use crate::client::{Client, within};
use crate::node::Node;
use minium_bus::{Allowance, Grant, Mode, Opening, Rate, Revoked, Role};
use serde_json::{Value, json};
use std::num::NonZero;
use std::sync::Arc;

/// A session of `/ws` with a grant.
async fn granted(node: &Node, grant: Grant) -> Client {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (mut client, accepted) = tokio::join!(Client::connect(address, None), listener.accept());
    let (socket, remote) = accepted.unwrap();
    node.bus.open(Opening {
        socket: socket.into_std().unwrap().into(),
        remote,
        role: Role::Talk,
        mode: Mode::V1,
        filter: "ws".parse().unwrap(),
        start: None,
        answer: b"101\r\n\r\n".to_vec(),
        leftover: bytes::Bytes::new(),
        grant: Some(Arc::new(grant)),
        permit: node.bus.admit().unwrap(),
    });
    client.head().await;
    client
}

async fn ask(c: &mut Client, frame: Value) -> Value {
    c.text(&frame.to_string()).await;
    c.json().await
}

fn grant(key: Option<&str>) -> Grant {
    let scopes = minium_protocol::Scopes::all();
    Grant { subject: "t".into(), key: key.map(str::to_owned), scopes, expires: None, allowance: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_grant_does_not_allow_is_refused_and_its_end_ends_the_session() {
    let node = Node::start().await;
    let scopes = ["sub:a", "pub:a/x", "pull:w"].iter().map(|s| s.parse().unwrap()).collect();
    let expires = Some(jiff::Timestamp::now() + std::time::Duration::from_secs(2));
    let grant = minium_bus::Grant { subject: "t".into(), key: None, scopes, expires, allowance: None };
    let mut c = granted(&node, grant).await;
    assert_eq!(ask(&mut c, json!({"op":"sub","topic":"a/+"})).await, json!({"op":"ok"}));
    assert_eq!(ask(&mut c, json!({"op":"pub","topic":"a/x","data":1})).await, json!({"op":"ok"}));
    assert_eq!(c.json().await, json!({"op":"msg","topic":"a/x","data":1}));
    for frame in [
        json!({"op":"sub","topic":"+"}),
        json!({"op":"pub","topic":"a","data":1}),
        json!({"op":"bus","topic":"a"}),
        json!({"op":"push","topic":"w","data":1}),
        json!({"op":"pull","topic":"v"}),
    ] {
        assert_eq!(ask(&mut c, frame.clone()).await["problem"]["code"], "forbidden", "{frame}");
    }
    assert_eq!(c.closed().await.0, 4501);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_rules_change_grants_are_judged_anew() {
    let node = Node::start().await;
    let mut clients = Vec::new();
    for key in ["gone", "changed", "good"] {
        clients.push(granted(&node, grant(Some(key))).await);
    }
    let mut free = node.v1("/ws").await;
    node.bus.review(
        &(Arc::new(|g: Option<&Grant>| match g.and_then(|g| g.key.as_deref()) {
            Some("gone") => Err(Revoked::Unauthenticated),
            Some("changed") => Err(Revoked::Changed),
            _ => Ok(()),
        }) as Arc<minium_bus::Review>),
    );
    assert_eq!(clients[0].closed().await.0, 4501);
    assert_eq!(clients[1].closed().await.0, 4503);
    assert_eq!(ask(&mut clients[2], json!({"op":"ping"})).await, json!({"op":"pong"}));
    assert_eq!(ask(&mut free, json!({"op":"ping"})).await, json!({"op":"pong"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_of_one_token_share_what_it_may_send() {
    let node = Node::start().await;
    let rate = Rate { per_second: NonZero::new(1).unwrap(), burst: NonZero::new(2).unwrap() };
    let shared = Some(Arc::new(Allowance::new(rate)));
    let mut first = granted(&node, Grant { allowance: shared.clone(), ..grant(None) }).await;
    let mut second = granted(&node, Grant { allowance: shared, ..grant(None) }).await;
    let ping = || json!({"op":"ping"});
    let mut refused = 0;
    within(async {
        while refused == 0 {
            for c in [&mut first, &mut second] {
                refused += u32::from(ask(c, ping()).await["problem"]["code"] == "rate_limited");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_bus_turns_while_each_of_its_shards_does() {
    let node = Node::start().await;
    assert!(within(node.bus.turn()).await);
    let _client = granted(&node, grant(Some("a"))).await;
    let (let_go, held) = std::sync::mpsc::sync_channel::<()>(0);
    let held = std::sync::Mutex::new(held);
    // a judge who does not come to an end holds the shard of the session that he judges
    node.bus.review(
        &(Arc::new(move |_: Option<&Grant>| {
            // an error: the other end is gone
            held.lock().unwrap().recv().ok();
            Ok(())
        }) as Arc<minium_bus::Review>),
    );
    let mut turn = std::pin::pin!(node.bus.turn());
    assert!(futures::poll!(&mut turn).is_pending());
    assert!(tokio::time::timeout(std::time::Duration::from_millis(200), &mut turn).await.is_err());
    drop(let_go);
    assert!(within(turn).await);
    within(node.bus.shutdown(std::time::Duration::from_secs(1))).await;
    assert!(!within(node.bus.turn()).await, "its shards have ended");
}
