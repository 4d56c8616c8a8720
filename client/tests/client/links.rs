//! Publishers, pushers and peers in plain mode.

use crate::script::{Server, impatient, until_closed};
use futures::{SinkExt, StreamExt};
use minium_client::{Client, ClientError, Message};
use minium_protocol::{ErrorCode, Problem, Topic};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite;

fn topic(text: &str) -> Topic {
    text.parse().unwrap()
}

/// A server that refuses every message that is no digit, and tells what it took.
async fn digits_only() -> (Server, mpsc::UnboundedReceiver<String>) {
    let (taken, took) = mpsc::unbounded_channel();
    let server = Server::start(move |_, incoming| {
        let taken = taken.clone();
        async move {
            let mut session = incoming.accept().await;
            while let Some(Ok(message)) = session.next().await {
                let tungstenite::Message::Text(text) = message else { continue };
                if text.parse::<u64>().is_ok() {
                    taken.send(text.to_string()).unwrap();
                } else {
                    let problem = Problem::new(ErrorCode::SchemaViolation, format!("{text} is no digit"));
                    session.send(tungstenite::Message::text(problem.frame())).await.unwrap();
                }
            }
        }
    })
    .await;
    (server, took)
}

#[tokio::test]
async fn refused_messages_are_told_and_the_others_go_through() {
    let (server, mut took) = digits_only().await;
    let mut publisher = server.client().plain_publisher(&topic("a/b")).await.unwrap();
    for text in ["1", "one", "2", "two"] {
        publisher.send(text).await.unwrap();
    }
    assert_eq!(publisher.refused().await.unwrap().detail.as_deref(), Some("one is no digit"));
    publisher.send("3").await.unwrap();
    let error = publisher.close().await.unwrap_err();
    assert_eq!((error.code(), error.exit_code()), (Some(ErrorCode::SchemaViolation), 6));
    assert!(error.to_string().contains("two is no digit"), "{error}");
    for expected in ["1", "2", "3"] {
        assert_eq!(took.recv().await.unwrap(), expected);
    }
    assert_eq!(server.asked(), ["/pub/a/b"]);
}

#[tokio::test]
async fn closing_sends_what_is_still_on_its_way() {
    let (server, mut took) = digits_only().await;
    let mut pusher = server.client().plain_pusher(&topic("work")).await.unwrap();
    for n in 0..5_000 {
        pusher.send(n.to_string()).await.unwrap();
    }
    pusher.close().await.unwrap();
    for n in 0..5_000 {
        assert_eq!(took.recv().await.unwrap(), n.to_string());
    }
    assert_eq!(server.asked(), ["/push/work"]);
}

#[tokio::test]
async fn a_program_that_only_writes_never_blocks_a_server_that_only_refuses() {
    let (server, _took) = digits_only().await;
    let mut publisher = server.client().plain_publisher(&topic("a")).await.unwrap();
    let wrong = "x".repeat(10_000);
    // 40 MB each way: far beyond what the kernel would hold for a program that does not read.
    let write = async {
        for _ in 0..4_000 {
            publisher.send(wrong.as_str()).await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(60), write).await.expect("neither waits for the other for ever");
    assert_eq!(publisher.close().await.unwrap_err().code(), Some(ErrorCode::SchemaViolation));
}

#[tokio::test]
async fn a_session_that_the_server_closes_tells_the_sender_why() {
    let server = Server::start(|_, incoming| async move {
        let mut session = incoming.accept().await;
        session.next().await.unwrap().unwrap();
        crate::script::close(&mut session, 1009, "too big").await;
    })
    .await;
    let mut publisher = server.client().plain_publisher(&topic("a")).await.unwrap();
    publisher.send("x").await.unwrap();
    let error = loop {
        // Those that are on their way when the Close comes are lost, as PROTOCOL's "at most once" says.
        if let Err(error) = publisher.send("x").await {
            break error;
        }
        tokio::task::yield_now().await;
    };
    assert!(matches!(error, ClientError::Closed { code: 1009, .. }), "{error}");
    assert_eq!(error.code(), Some(ErrorCode::PayloadTooLarge));
}

#[tokio::test]
async fn a_silent_publisher_answers_pings_and_notices_a_dead_server() {
    let server = Server::start(|_, incoming| async move {
        let mut session = incoming.accept().await;
        session.send(tungstenite::Message::Ping("x".into())).await.unwrap();
        let pong = session.next().await.unwrap().unwrap();
        assert!(pong.is_pong(), "{pong:?}");
        // From here on it is dead.
        std::future::pending::<()>().await;
    })
    .await;
    let client = Client::with_options(&server.url, None, impatient()).unwrap();
    let mut publisher = client.plain_publisher(&topic("a")).await.unwrap();
    assert_eq!(publisher.refused().await, None);
    let error = publisher.send("x").await.unwrap_err();
    assert!(matches!(&error, ClientError::Cut { reason, .. } if reason.contains("ping")), "{error}");
}

#[tokio::test]
async fn peers_hear_and_speak_at_once_and_binary_stays_binary() {
    let server = Server::start(|_, incoming| async move {
        let mut session = incoming.accept().await;
        while let Some(Ok(message)) = session.next().await {
            if message.is_text() || message.is_binary() {
                session.send(message).await.unwrap();
            }
        }
    })
    .await;
    let mut peer = server.client().plain_peer(&topic("chat"), true).await.unwrap();
    let said = [Message::from("grün"), Message::from(bytes::Bytes::from_static(&[0, 255]))];
    for message in said.clone() {
        peer.send(message).await.unwrap();
    }
    peer.finish();
    let heard: Vec<_> = peer.by_ref().map(Result::unwrap).collect().await;
    assert_eq!(heard, said);
    assert_eq!(server.asked(), ["/bus/chat?echo=1"]);
}

#[tokio::test]
async fn a_split_peer_speaks_and_listens_beyond_what_any_buffer_holds() {
    let server = Server::start(|_, incoming| async move {
        let mut session = incoming.accept().await;
        while let Some(Ok(message)) = session.next().await {
            if message.is_text() {
                session.send(message).await.unwrap();
            }
        }
    })
    .await;
    let (speaker, mut peer) = server.client().plain_peer(&topic("chat"), true).await.unwrap().split();
    let speaker = speaker.unwrap();
    let text = "x".repeat(10_000);
    let speak = async move {
        for _ in 0..4_000 {
            assert!(speaker.send(text.as_str()).await);
        }
    };
    let listen = async {
        let mut heard = 0;
        while let Some(message) = peer.next().await {
            assert_eq!(message.unwrap().as_bytes().len(), 10_000);
            heard += 1;
        }
        heard
    };
    let ((), heard) = tokio::join!(speak, listen);
    assert_eq!(heard, 4_000);
}

#[tokio::test]
async fn a_cut_peer_ends_with_the_cut() {
    let server = Server::start(|_, incoming| async move { drop(incoming.accept().await) }).await;
    let mut peer = server.client().plain_peer(&topic("chat"), false).await.unwrap();
    let error = peer.next().await.unwrap().unwrap_err();
    assert_eq!(error.exit_code(), 5, "{error}");
    assert!(peer.next().await.is_none());
}

#[tokio::test]
async fn dropping_a_publisher_closes_it_orderly() {
    let (codes, mut closed) = mpsc::channel(1);
    let server = Server::start(move |_, incoming| {
        let codes = codes.clone();
        async move { codes.send(until_closed(&mut incoming.accept().await).await).await.unwrap() }
    })
    .await;
    let client = server.client();
    drop(client.plain_publisher(&topic("a")).await.unwrap());
    assert_eq!(closed.recv().await, Some(Some(1000)));
    client.close().await;
}
