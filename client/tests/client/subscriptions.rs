//! Subscriptions in plain mode: what survives, what ends, and what is asked for after a cut.

use crate::script::{Server, answer, close, event, impatient, send, until_closed};
use futures::StreamExt;
use minium_client::plain::{Status, SubscribeOptions, Subscription};
use minium_client::{Backoff, Client, ClientError, ClientOptions};
use minium_protocol::{After, CloseCode, ErrorCode, Filter, Position, Problem};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

fn filter(text: &str) -> Filter {
    text.parse().unwrap()
}

fn at_once() -> SubscribeOptions {
    SubscribeOptions { backoff: Backoff::none(), ..SubscribeOptions::default() }
}

fn from(after: After) -> SubscribeOptions {
    SubscribeOptions { after, ..at_once() }
}

/// The offsets of the next `count` events.
async fn offsets(events: &mut Subscription, count: usize) -> Vec<u64> {
    let received: Vec<_> = events.take(count).collect().await;
    received.into_iter().map(|r| r.unwrap().position.unwrap().offset).collect()
}

/// Where a request asks to begin, for a journal without a past before 0.
fn begin(uri: &str) -> u64 {
    match uri.split_once("after=").map(|(_, after)| after) {
        Some("earliest") => 0,
        Some(position) => position.replace("%3A", ":").parse::<Position>().unwrap().offset,
        None => panic!("{uri} names no position"),
    }
}

#[tokio::test]
async fn two_hundred_cuts_at_random_bytes_lose_nothing_and_double_nothing() {
    const EVENTS: u64 = 1_500;
    const CUTS: usize = 200;
    for seed in [1, 2, 3] {
        let cuts = Arc::new(AtomicUsize::new(0));
        let counted = cuts.clone();
        let server = Server::start(move |n, incoming| {
            let cuts = counted.clone();
            async move {
                let mut random = fastrand::Rng::with_seed(seed * 1_000 + n as u64);
                let budget = if n < CUTS { random.usize(0..8_000) } else { usize::MAX };
                // Every other cut is a reset, which takes along what the client has not read yet.
                let accepted = incoming.accept_brittle(budget, n % 2 == 0).await;
                if let Some((mut session, uri)) = accepted {
                    let begin = begin(&uri);
                    // A careless server tells a little of what was told already.
                    let begin = begin.saturating_sub(random.u64(0..3));
                    let events = (begin + 1..=EVENTS).map(|offset| {
                        let mut random = fastrand::Rng::with_seed(offset);
                        event(1, offset, &format!("\"{}\"", "x".repeat(random.usize(0..1_500))))
                    });
                    if send(&mut session, events).await {
                        until_closed(&mut session).await;
                    }
                }
                cuts.fetch_add(1, Ordering::Relaxed);
            }
        })
        .await;
        let options = SubscribeOptions { patient: true, ..from(After::Earliest) };
        let mut events = server.client().plain_subscribe(&filter("task"), options).await.unwrap();
        let expected: Vec<_> = (1..=EVENTS).collect();
        assert_eq!(offsets(&mut events, EVENTS as usize).await, expected, "seed {seed}");
        assert_eq!(
            cuts.load(Ordering::Relaxed),
            CUTS,
            "seed {seed}: every cut must have happened before the end"
        );
    }
}

#[tokio::test]
async fn a_client_comes_back_exactly_when_the_close_code_says_so() {
    let codes =
        [1000, 1001, 1003, 1007, 1008, 1009, 1011, 1012, 1013, 3000, 4000, 4001, 4002, 4029, 4499, 4500]
            .into_iter()
            .chain([4501, 4503, 4504, 4999]);
    for code in codes {
        let server = Server::start(move |n, incoming| async move {
            let mut session = incoming.accept().await;
            assert!(send(&mut session, [event(1, n as u64 + 1, "{}")]).await);
            if n == 0 {
                close(&mut session, code, "because").await;
            } else {
                until_closed(&mut session).await;
            }
        })
        .await;
        let mut events =
            server.client().plain_subscribe(&filter("task/x"), from(After::Earliest)).await.unwrap();
        assert_eq!(offsets(&mut events, 1).await, [1]);
        let next = events.next().await;
        match code {
            1000 => assert!(next.is_none(), "{code}: {next:?}"),
            _ if CloseCode::reconnect(code) => {
                assert_eq!(next.unwrap().unwrap().position.unwrap().offset, 2, "{code}")
            }
            _ => {
                let error = next.unwrap().unwrap_err();
                assert!(
                    matches!(&error, ClientError::Closed { code: c, reason } if *c == code && reason == "because")
                );
                assert!(events.next().await.is_none(), "{code}: nothing comes after the error");
            }
        }
        let connections = if CloseCode::reconnect(code) { 2 } else { 1 };
        assert_eq!(server.asked().len(), connections, "{code}");
    }
}

#[tokio::test]
async fn after_a_cut_the_last_position_is_asked_for() {
    let server = Server::start(|n, incoming| async move {
        let mut session = incoming.accept().await;
        match n {
            0 => assert!(send(&mut session, [event(4, 7, "{}"), event(4, 9, "{}")]).await),
            1 => {}
            _ => {
                assert!(send(&mut session, [event(5, 10, "{}")]).await);
                until_closed(&mut session).await;
            }
        }
    })
    .await;
    let mut events =
        server.client().plain_subscribe(&filter("task/+/1"), from(After::Last(2))).await.unwrap();
    assert_eq!(offsets(&mut events, 3).await, [7, 9, 10]);
    let wanted = ["/sub/task/+/1?last=2", "/sub/task/+/1?after=4%3A9", "/sub/task/+/1?after=4%3A9"];
    assert_eq!(server.asked(), wanted);
}

#[tokio::test]
async fn a_cut_before_the_first_event_resumes_at_the_announced_start() {
    let server = Server::start(|n, incoming| async move {
        let mut session = incoming.accept_with(&[("minium-position", "2:40")]).await;
        if n == 1 {
            assert!(send(&mut session, [event(2, 41, "{}")]).await);
            until_closed(&mut session).await;
        }
    })
    .await;
    let mut events = server.client().plain_subscribe(&filter("task"), at_once()).await.unwrap();
    let first = events.next().await.unwrap().unwrap();
    assert_eq!((first.position, first.after_gap), (Some(Position { epoch: 2, offset: 41 }), false));
    assert_eq!(server.asked(), ["/sub/task?last=0", "/sub/task?after=2%3A40"]);
}

#[tokio::test]
async fn where_nothing_can_be_resumed_the_gap_is_told() {
    let server = Server::start(|n, incoming| async move {
        let mut session = incoming.accept().await;
        // Looks like an event with a position, but the channel is not durable: it means nothing.
        assert!(send(&mut session, [event(1, 5, "{}"), format!("plain {n}")]).await);
        if n == 1 {
            until_closed(&mut session).await;
        }
    })
    .await;
    let mut messages = server.client().plain_subscribe(&filter("livesys"), at_once()).await.unwrap();
    let mut told = Vec::new();
    for _ in 0..4 {
        let received = messages.next().await.unwrap().unwrap();
        assert_eq!(received.position, None);
        told.push(received.after_gap);
    }
    assert_eq!(told, [false, false, true, false]);
    assert_eq!(server.asked(), ["/sub/livesys", "/sub/livesys"]);
}

#[tokio::test]
async fn a_step_back_ends_the_subscription_with_an_error() {
    let server = Server::start(|_, incoming| async move {
        let mut session = incoming.accept().await;
        assert!(send(&mut session, [event(1, 5, "{}"), event(1, 4, "{}"), event(1, 6, "{}")]).await);
        until_closed(&mut session).await;
    })
    .await;
    let mut events = server.client().plain_subscribe(&filter("task"), at_once()).await.unwrap();
    assert_eq!(offsets(&mut events, 1).await, [5]);
    let error = events.next().await.unwrap().unwrap_err();
    assert!(matches!(error, ClientError::OutOfOrder { got: Position { offset: 4, .. }, .. }), "{error}");
    assert!(events.next().await.is_none());
    assert_eq!(server.asked().len(), 1, "coming back would hide it");
}

#[tokio::test]
async fn a_position_that_is_gone_ends_the_subscription_with_the_problem() {
    for code in [ErrorCode::EpochChanged, ErrorCode::OffsetExpired] {
        let server = Server::start(move |n, incoming| async move {
            if n == 0 {
                let mut session = incoming.accept().await;
                assert!(send(&mut session, [event(1, 5, "{}")]).await);
                return;
            }
            let mut problem = Problem::new(code, "begin anew");
            problem.earliest = Some("2:1".into());
            let whole =
                answer("410 Gone", "application/problem+json", &serde_json::to_string(&problem).unwrap());
            // The document comes later than the head, as it may.
            let (head, body) = whole.split_at(whole.len() - 150);
            incoming.http(&[head, body]).await;
        })
        .await;
        let mut events = server.client().plain_subscribe(&filter("task"), at_once()).await.unwrap();
        assert_eq!(offsets(&mut events, 1).await, [5]);
        let error = events.next().await.unwrap().unwrap_err();
        assert_eq!(error.code(), Some(code), "{error}");
        assert_eq!(error.problem().unwrap().earliest.as_deref(), Some("2:1"));
        assert!(events.next().await.is_none());
    }
}

#[tokio::test]
async fn a_server_that_is_starting_is_waited_for_and_no_longer_than_asked() {
    let unavailable = serde_json::to_string(&Problem::new(ErrorCode::Unavailable, "starting")).unwrap();
    let refusal = answer("503 Service Unavailable", "application/problem+json", &unavailable);
    let server = Server::start(move |n, incoming| {
        let refusal = refusal.clone();
        async move {
            match n {
                0 => assert!(send(&mut incoming.accept().await, [event(1, 1, "{}")]).await),
                1..=3 => drop(incoming.http(&[&refusal]).await),
                4 => assert!(send(&mut incoming.accept().await, [event(1, 2, "{}")]).await),
                _ => drop(incoming.http(&[&refusal]).await),
            }
        }
    })
    .await;
    let backoff = Backoff { failures_max: Some(6), ..Backoff::none() };
    let options = SubscribeOptions { backoff, ..SubscribeOptions::default() };
    let mut events = server.client().plain_subscribe(&filter("task"), options).await.unwrap();
    assert_eq!(offsets(&mut events, 2).await, [1, 2]);
    let error = events.next().await.unwrap().unwrap_err();
    assert!(matches!(error, ClientError::GaveUp { failures: 6, .. }), "{error}");
    assert_eq!((error.code(), error.exit_code()), (Some(ErrorCode::Unavailable), 5));
    // Five before the second event; then its cut is the first failure of six, and five attempts follow it.
    assert_eq!(server.asked().len(), 5 + 5);
}

#[tokio::test]
async fn a_first_connection_that_fails_is_an_error_unless_one_is_patient() {
    let gone = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let client = Client::new(&format!("http://{gone}"), None).unwrap();
    let error = client.plain_subscribe(&filter("task"), at_once()).await.unwrap_err();
    assert!(matches!(error, ClientError::Connect { .. }) && error.exit_code() == 5, "{error}");
    let backoff = Backoff { failures_max: Some(3), ..Backoff::none() };
    let options = SubscribeOptions { patient: true, backoff, ..SubscribeOptions::default() };
    let mut events = client.plain_subscribe(&filter("task"), options).await.unwrap();
    let error = events.next().await.unwrap().unwrap_err();
    assert!(matches!(error, ClientError::GaveUp { failures: 3, .. }), "{error}");
}

#[tokio::test]
async fn a_refused_subscription_says_why_at_once() {
    let problem = serde_json::to_string(&Problem::new(ErrorCode::Forbidden, "not for you")).unwrap();
    let refusal = answer("403 Forbidden", "application/problem+json", &problem);
    let server = Server::start(move |_, incoming| {
        let refusal = refusal.clone();
        async move { drop(incoming.http(&[&refusal]).await) }
    })
    .await;
    let options = SubscribeOptions { patient: true, ..at_once() };
    let error = server.client().plain_subscribe(&filter("task"), options).await.unwrap_err();
    assert_eq!((error.code(), error.exit_code()), (Some(ErrorCode::Forbidden), 4));
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn a_silent_server_is_pinged_and_then_left() {
    let (pings, mut pinged) = mpsc::channel(8);
    let server = Server::start(move |n, incoming| {
        let pings = pings.clone();
        async move {
            let mut session = incoming.accept().await;
            if n == 0 {
                // Holds the socket open and never reads it: only a missing pong can tell.
                std::future::pending::<()>().await;
            }
            while let Some(Ok(message)) = session.next().await {
                // Reading answers pings, so this session lives on although nothing is ever published.
                if message.is_ping() && pings.send(()).await.is_err() {
                    return;
                }
            }
        }
    })
    .await;
    let client = Client::with_options(&server.url, None, impatient()).unwrap();
    let events = client.plain_subscribe(&filter("task"), from(After::Earliest)).await.unwrap();
    for _ in 0..4 {
        pinged.recv().await.unwrap();
    }
    assert_eq!(*events.status().borrow(), Status::Open { connection: 2 });
    assert_eq!(server.asked().len(), 2, "answered pings keep the second connection");
}

#[tokio::test]
async fn dropping_a_subscription_closes_it_orderly() {
    let (codes, mut closed) = mpsc::channel(8);
    let server = Server::start(move |n, incoming| {
        let codes = codes.clone();
        async move {
            let mut session = incoming.accept().await;
            let events = if n == 0 { 0 } else { 500 };
            assert!(send(&mut session, (1..=events).map(|n| event(1, n, "{}"))).await);
            codes.send(until_closed(&mut session).await).await.unwrap();
        }
    })
    .await;
    let client = server.client();
    let quiet = client.plain_subscribe(&filter("quiet"), at_once()).await.unwrap();
    drop(quiet);
    assert_eq!(closed.recv().await, Some(Some(1000)));
    // Unread messages stand in the way of neither kind of end.
    let unread = client.plain_subscribe(&filter("task"), at_once()).await.unwrap();
    drop(unread);
    assert_eq!(closed.recv().await, Some(Some(1000)));
    let mut half_read = client.plain_subscribe(&filter("task"), at_once()).await.unwrap();
    assert_eq!(offsets(&mut half_read, 3).await, [1, 2, 3]);
    half_read.close().await;
    assert_eq!(closed.recv().await, Some(Some(1000)));
    let mut kept = client.plain_subscribe(&filter("task"), at_once()).await.unwrap();
    client.close().await;
    assert_eq!(closed.recv().await, Some(Some(1000)));
    while let Some(received) = kept.next().await {
        received.unwrap();
    }
    assert_eq!(*kept.status().borrow(), Status::Ended);
    let after = client.plain_subscribe(&filter("task"), at_once()).await.unwrap_err();
    assert!(matches!(after, ClientError::ClientClosed));
}

#[tokio::test]
async fn a_slow_reader_is_not_buffered_for_beyond_the_bound() {
    let (progress, mut reached) = mpsc::unbounded_channel();
    let server = Server::start(move |_, incoming| {
        let progress = progress.clone();
        async move {
            let mut session = incoming.accept().await;
            let data = format!("\"{}\"", "x".repeat(100_000));
            for n in 1..=1_000 {
                assert!(send(&mut session, [event(1, n, &data)]).await);
                progress.send(n).unwrap();
            }
            until_closed(&mut session).await;
        }
    })
    .await;
    let mut events = server.client().plain_subscribe(&filter("task"), at_once()).await.unwrap();
    // 64 messages of the client's and what the kernel holds: the server comes to a halt long before 1,000.
    let mut sent = 0;
    while let Ok(Some(n)) = tokio::time::timeout(Duration::from_millis(500), reached.recv()).await {
        sent = n;
    }
    assert!(sent < 900, "{sent} messages of 100 KB left the server although nobody read");
    assert_eq!(offsets(&mut events, 1_000).await, (1..=1_000).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_message_that_is_too_long_is_told_with_its_place() {
    let server = Server::start(|_, incoming| async move {
        let mut session = incoming.accept().await;
        send(&mut session, [event(1, 7, "1"), event(1, 9, &format!("\"{}\"", "x".repeat(2_000)))]).await;
        until_closed(&mut session).await;
    })
    .await;
    let bounds = ClientOptions { message_bytes_max: 2_000, ..ClientOptions::default() };
    let client = Client::with_options(&server.url, None, bounds).unwrap();
    let mut events = client.plain_subscribe(&filter("task"), from(After::Earliest)).await.unwrap();
    assert_eq!(offsets(&mut events, 1).await, [7]);
    let error = events.next().await.unwrap().unwrap_err();
    let ClientError::TooLong { bytes, limit, behind, .. } = &error else { panic!("{error}") };
    assert!(*bytes > 2_000 && *limit == 2_000, "{error}");
    assert_eq!(*behind, Some(Position { epoch: 1, offset: 7 }));
    assert_eq!(error.code(), Some(ErrorCode::PayloadTooLarge));
    assert!(events.next().await.is_none(), "it does not come back for the same again");
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn messages_that_are_larger_than_the_buffer_come_one_by_one() {
    let server = Server::start(|_, incoming| async move {
        let mut session = incoming.accept().await;
        let data = format!("\"{}\"", "x".repeat(5_000));
        send(&mut session, (1..=20).map(|offset| event(1, offset, &data))).await;
        until_closed(&mut session).await;
    })
    .await;
    let bounds = ClientOptions { buffered_bytes_max: 1, ..ClientOptions::default() };
    let client = Client::with_options(&server.url, None, bounds).unwrap();
    let mut events = client.plain_subscribe(&filter("task"), from(After::Earliest)).await.unwrap();
    assert_eq!(offsets(&mut events, 20).await, (1..=20).collect::<Vec<_>>());
    events.close().await;
}

#[tokio::test]
async fn a_message_that_comes_slowly_is_no_silence() {
    const PIECES: usize = 8;
    const PIECE: usize = 500;
    let server = Server::start(|_, incoming| async move {
        let mut session = incoming.accept().await;
        let text = event(1, 1, &format!("\"{}\"", "x".repeat(PIECES * PIECE)));
        let socket = session.get_mut();
        let length = u16::try_from(text.len()).unwrap().to_be_bytes();
        socket.write_all(&[0x81, 126, length[0], length[1]]).await.unwrap();
        // longer in all than it takes to ask whether anybody is there and to hear nothing
        let mut pace = tokio::time::interval(Duration::from_millis(400));
        for piece in text.as_bytes().chunks(PIECE) {
            pace.tick().await;
            if socket.write_all(piece).await.is_err() {
                return;
            }
        }
        until_closed(&mut session).await;
    })
    .await;
    let bounds = ClientOptions { idle: Duration::from_secs(1), ..ClientOptions::default() };
    let client = Client::with_options(&server.url, None, bounds).unwrap();
    let mut events = client.plain_subscribe(&filter("task"), from(After::Earliest)).await.unwrap();
    assert_eq!(offsets(&mut events, 1).await, [1]);
    assert_eq!(server.asked().len(), 1, "it was waited for, and not begun anew");
    events.close().await;
}
