//! The sockets of a connection: how many it takes, when it gives one up, and how it ends them.

use super::*;

/// Answers every frame, tells what was subscribed over which socket.
async fn agreeable(told: mpsc::UnboundedSender<(usize, Value)>) -> Server {
    Server::start(move |n, incoming| {
        let told = told.clone();
        async move {
            let mut session = incoming.accept().await;
            while let Some(frame) = said(&mut session).await {
                say(&mut session, [ok(&frame)]).await;
                told.send((n, frame)).unwrap();
            }
        }
    })
    .await
}

#[tokio::test]
async fn filters_that_meet_go_to_sockets_of_their_own() {
    let (told, mut subscribed) = mpsc::unbounded_channel();
    let server = agreeable(told).await;
    let connection = connect(&server, at_once());
    let mut kept = Vec::new();
    for (text, socket) in [("a/b", 0), ("c", 0), ("a", 1), ("+/b/x", 2), ("d", 0)] {
        kept.push(connection.subscribe(&filter(text), After::Latest).await.unwrap());
        let (n, frame) = subscribed.recv().await.unwrap();
        assert_eq!((n, frame["topic"].as_str().unwrap()), (socket, text));
    }
    drop(kept.remove(0));
    let (n, frame) = subscribed.recv().await.unwrap();
    assert_eq!((n, &frame["op"]), (0, &json!("unsub")));
    let _again = connection.subscribe(&filter("a/b"), After::Latest).await.unwrap();
    assert_eq!(subscribed.recv().await.unwrap().0, 0, "its place is free again");
    connection.close().await;
}

#[tokio::test]
async fn a_slow_program_stops_its_server_but_not_its_own_words_and_is_not_taken_for_dead() {
    const MESSAGES: u64 = 300;
    let (told, mut heard) = mpsc::unbounded_channel();
    let server = Server::start(move |_, incoming| {
        let told = told.clone();
        async move {
            let mut session = incoming.accept().await;
            let frame = said(&mut session).await.unwrap();
            if frame["op"] == "pub" {
                say(&mut session, [ok_at(&frame, 1, 999)]).await;
                until_closed(&mut session).await;
                return;
            }
            say(&mut session, [ok_at(&frame, 1, 0)]).await;
            let (mut sink, mut stream) = session.split();
            let write = async {
                for n in 1..=MESSAGES {
                    let text = msg("kept", n, &json!("x".repeat(100_000))).to_string();
                    sink.send(Message::text(text)).await.unwrap();
                    told.send(None).unwrap();
                }
            };
            let listen = async {
                while let Some(Ok(message)) = stream.next().await {
                    if message.is_pong() {
                        told.send(Some(())).ok();
                    }
                }
            };
            tokio::join!(write, listen);
        }
    })
    .await;
    let client = Client::with_options(&server.url, None, impatient()).unwrap();
    let connection = client.connect(at_once()).unwrap();
    let mut events = connection.subscribe(&filter("kept"), After::Earliest).await.unwrap();
    // only pongs come any more: the server has come to a halt
    let (mut sent, mut pongs) = (0, 0);
    while pongs < 5 {
        match heard.recv().await.unwrap() {
            None => (sent, pongs) = (sent + 1, 0),
            Some(()) => pongs += 1,
        }
    }
    assert!(sent < MESSAGES, "all {sent} messages of 100 KB left the server although nobody read");
    // whoever works on a message may say what came of it, while nothing more is read
    assert_eq!(message(&mut events).await.0.offset, 1);
    let receipt = connection.publish(&topic("results"), "done", None).await.unwrap();
    assert_eq!(receipt.position, Some(Position { epoch: 1, offset: 999 }));
    assert_eq!(offsets(&mut events, MESSAGES as usize - 1).await, (2..=MESSAGES).collect::<Vec<_>>());
    assert_eq!(server.asked().len(), 2);
}

#[tokio::test]
async fn a_silent_server_is_pinged_and_then_left() {
    let (pings, mut pinged) = mpsc::channel(8);
    let server = Server::start(move |n, incoming| {
        let pings = pings.clone();
        async move {
            let mut session = incoming.accept().await;
            let sub = said(&mut session).await.unwrap();
            say(&mut session, [ok_at(&sub, 1, 0)]).await;
            if n == 0 {
                // holds the socket open and never reads it: only a missing pong can tell
                std::future::pending::<()>().await;
            }
            while let Some(Ok(message)) = session.next().await {
                if message.is_ping() && pings.send(()).await.is_err() {
                    return;
                }
            }
        }
    })
    .await;
    let client = Client::with_options(&server.url, None, impatient()).unwrap();
    let connection = client.connect(at_once()).unwrap();
    let _events = connection.subscribe(&filter("kept"), After::Earliest).await.unwrap();
    for _ in 0..4 {
        pinged.recv().await.unwrap();
    }
    assert_eq!(*connection.state().borrow(), State::Open { opened: 2 });
    assert_eq!(server.asked().len(), 2, "answered pings keep the second socket");
}

#[tokio::test]
async fn dropping_and_closing_end_sockets_orderly() {
    let (codes, mut closed) = mpsc::channel(8);
    let server = Server::start(move |_, incoming| {
        let codes = codes.clone();
        async move {
            let mut session = incoming.accept().await;
            let frame = said(&mut session).await.unwrap();
            let frames = (1..=500).map(|n| msg("kept", n, &json!(n)));
            say(&mut session, std::iter::once(ok_at(&frame, 1, 0)).chain(frames)).await;
            codes.send(until_closed(&mut session).await).await.unwrap();
        }
    })
    .await;
    let client = server.client();
    let connection = client.connect(at_once()).unwrap();
    drop(connection.subscribe(&filter("kept"), After::Earliest).await.unwrap());
    assert_eq!(closed.recv().await, Some(Some(1000)), "the last subscription takes its socket along");
    let mut half_read = connection.subscribe(&filter("kept"), After::Earliest).await.unwrap();
    assert_eq!(offsets(&mut half_read, 3).await, [1, 2, 3]);
    connection.close().await;
    assert_eq!(closed.recv().await, Some(Some(1000)));
    while let Some(event) = half_read.next().await {
        event.unwrap();
    }
    let again = connection.subscribe(&filter("kept"), After::Earliest).await;
    assert!(matches!(again, Err(ClientError::ClientClosed)));
    let other = client.connect(at_once()).unwrap();
    let _kept = other.subscribe(&filter("kept"), After::Earliest).await.unwrap();
    client.close().await;
    assert_eq!(closed.recv().await, Some(Some(1000)), "a client closes its connections");
}

#[tokio::test]
async fn closing_waits_for_the_answers_to_what_was_said() {
    let kept = Kept::new();
    let keeper = kept.clone();
    let server = Server::start(move |_, incoming| {
        let kept = keeper.clone();
        async move {
            let session = incoming.accept().await;
            kept.serve(session, &mut fastrand::Rng::with_seed(1)).await;
        }
    })
    .await;
    let connection = connect(&server, at_once());
    let mut answers = Vec::new();
    for n in 0..500 {
        answers.push(connection.offer(&topic("kept"), json!(n), Some(&n.to_string())).await.unwrap());
    }
    connection.close().await;
    for (n, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer.await.unwrap().position.unwrap().offset, n as u64 + 1);
    }
    assert!(matches!(connection.publish(&topic("kept"), "x", None).await, Err(ClientError::ClientClosed)));
}
