//! Connections in `minium.v1`: what survives, what ends, and what is said again after a cut.

mod roles;
mod sockets;

use crate::script::{Server, close, impatient, said, say, until_closed};
use futures::{SinkExt, StreamExt};
use minium_client::{
    Backoff, Client, ClientError, ConnectOptions, Connection, Event, PeerEvent, PullOptions, State,
    Subscription, TokenSource, Work,
};
use minium_protocol::{After, CloseCode, ErrorCode, Filter, LeaseToken, Position, Problem, Topic};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_tungstenite::tungstenite::Message;

fn filter(text: &str) -> Filter {
    text.parse().unwrap()
}

fn topic(text: &str) -> Topic {
    text.parse().unwrap()
}

pub(crate) fn at_once() -> ConnectOptions {
    ConnectOptions { backoff: Backoff::none(), ..ConnectOptions::default() }
}

fn connect(server: &Server, options: ConnectOptions) -> Connection {
    server.client().connect(options).unwrap()
}

/// The next message of a subscription, and what was told before it.
async fn message(events: &mut Subscription) -> (Position, Value) {
    loop {
        match events.next().await.expect("it goes on").unwrap() {
            Event::Message(m) => return (m.position.unwrap(), m.payload.parse().unwrap()),
            Event::CaughtUp { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

async fn offsets(events: &mut Subscription, count: usize) -> Vec<u64> {
    let mut offsets = Vec::new();
    for _ in 0..count {
        offsets.push(message(events).await.0.offset);
    }
    offsets
}

fn ok(frame: &Value) -> Value {
    json!({ "op": "ok", "ref": frame["ref"] })
}

fn ok_at(frame: &Value, epoch: u64, offset: u64) -> Value {
    json!({ "op": "ok", "ref": frame["ref"], "epoch": epoch, "offset": offset })
}

fn msg(topic: &str, offset: u64, data: &Value) -> Value {
    json!({ "op": "msg", "topic": topic, "epoch": 1, "offset": offset, "data": data })
}

/// Where a `sub` asks to begin, in a journal that begins at 0.
fn begin(frame: &Value) -> u64 {
    match frame["after"].as_str() {
        Some("earliest") => 0,
        Some(position) => position.parse::<Position>().unwrap().offset,
        None => panic!("{frame} names no position"),
    }
}

/// What a server keeps: messages by offset from 1, each id once.
#[derive(Clone)]
pub(crate) struct Kept {
    messages: Arc<Mutex<Vec<(String, Value)>>>,
    count: watch::Sender<usize>,
}

impl Kept {
    pub(crate) fn new() -> Kept {
        Kept { messages: Arc::default(), count: watch::Sender::new(0) }
    }

    fn keep(&self, frame: &Value) -> u64 {
        let mut messages = self.messages.lock().unwrap();
        let id = frame["id"].as_str().unwrap().to_owned();
        let place = messages.iter().position(|(i, _)| *i == id).unwrap_or_else(|| {
            messages.push((id, frame["data"].clone()));
            messages.len() - 1
        });
        self.count.send_replace(messages.len());
        place as u64 + 1
    }

    /// Serves one session until it breaks.
    pub(crate) async fn serve<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(
        &self,
        mut session: crate::script::Session<S>,
        random: &mut fastrand::Rng,
    ) {
        let mut count = self.count.subscribe();
        let mut sub: Option<u64> = None;
        loop {
            if let Some(told) = &mut sub {
                let all = self.messages.lock().unwrap().clone();
                let new = all.iter().enumerate().skip(*told as usize);
                let frames: Vec<_> = new.map(|(i, (_, data))| msg("kept", i as u64 + 1, data)).collect();
                *told = all.len() as u64;
                if !say(&mut session, frames).await {
                    return;
                }
            }
            let frame = tokio::select! {
                frame = said(&mut session) => frame,
                Ok(()) = count.changed(), if sub.is_some() => continue,
            };
            let Some(frame) = frame else { return };
            let answer = match frame["op"].as_str().unwrap() {
                "pub" => ok_at(&frame, 1, self.keep(&frame)),
                "sub" => {
                    let begin = begin(&frame);
                    // a careless server tells a little of what was told already
                    sub = Some(begin.saturating_sub(random.u64(0..3)));
                    ok_at(&frame, 1, begin)
                }
                other => panic!("{other}"),
            };
            if !say(&mut session, [answer]).await {
                return;
            }
        }
    }
}

/// Publishes to [`Kept`] and reads at the same time, whatever is cut: each message comes once and in order.
pub(crate) async fn all_arrives(connection: &Connection, messages: u64, whose: &str) {
    let mut events = connection.subscribe(&filter("kept"), After::Earliest).await.unwrap();
    let publish = async {
        let mut answers = Vec::new();
        for n in 0..messages {
            answers.push(connection.offer(&topic("kept"), json!(n), None).await.unwrap());
        }
        for (n, answer) in answers.into_iter().enumerate() {
            let receipt = answer.await.unwrap();
            assert_eq!(receipt.position.unwrap().offset, n as u64 + 1, "{whose}");
        }
    };
    let read = async {
        for n in 0..messages {
            let (position, data) = message(&mut events).await;
            assert_eq!((position.offset, data), (n + 1, json!(n)), "{whose}");
        }
    };
    tokio::join!(publish, read);
}

#[tokio::test]
async fn two_hundred_cuts_at_random_bytes_lose_nothing_and_double_nothing() {
    const MESSAGES: u64 = 1_000;
    const CUTS: usize = 200;
    for seed in [1, 2, 3] {
        let cuts = Arc::new(AtomicUsize::new(0));
        let (counted, kept) = (cuts.clone(), Kept::new());
        let server = Server::start(move |n, incoming| {
            let (cuts, kept) = (counted.clone(), kept.clone());
            async move {
                let mut random = fastrand::Rng::with_seed(seed * 1_000 + n as u64);
                let budget = if n < CUTS { random.usize(0..3_000) } else { usize::MAX };
                // every other cut is a reset, which takes along what the client has not read yet
                if let Some((session, _)) = incoming.accept_brittle(budget, n % 2 == 0).await {
                    kept.serve(session, &mut random).await;
                }
                cuts.fetch_add(1, Ordering::Relaxed);
            }
        })
        .await;
        let connection = connect(&server, ConnectOptions { patient: true, ..at_once() });
        all_arrives(&connection, MESSAGES, &format!("seed {seed}")).await;
        // the last cuts need not have come while there was something to cut
        assert!(cuts.load(Ordering::Relaxed) > CUTS / 4, "seed {seed}: {cuts:?} cuts are no test");
    }
}

#[tokio::test]
async fn a_connection_comes_back_exactly_when_the_close_code_says_so() {
    let codes = [1000, 1001, 1003, 1009, 1011, 1012, 1013, 3000, 4000, 4001, 4002, 4029, 4500, 4503, 4504];
    for code in codes {
        let server = Server::start(move |n, incoming| async move {
            let mut session = incoming.accept().await;
            let sub = said(&mut session).await.unwrap();
            assert_eq!(begin(&sub), n as u64 * 7, "{code}");
            say(&mut session, [ok_at(&sub, 1, 0), msg("kept", n as u64 + 7, &json!(1))]).await;
            if n == 0 {
                close(&mut session, code, "because").await;
            } else {
                until_closed(&mut session).await;
            }
        })
        .await;
        let connection = connect(&server, at_once());
        let mut events = connection.subscribe(&filter("kept"), After::Earliest).await.unwrap();
        assert_eq!(offsets(&mut events, 1).await, [7]);
        if CloseCode::reconnect(code) {
            assert_eq!(offsets(&mut events, 1).await, [8], "{code}");
        } else if code == 1000 {
            assert!(events.next().await.is_none(), "{code}");
        } else {
            let error = events.next().await.unwrap().unwrap_err();
            assert!(matches!(&error, ClientError::Closed { code: c, .. } if *c == code), "{code}: {error}");
            assert!(events.next().await.is_none(), "{code}: nothing comes after the error");
        }
        assert_eq!(server.asked().len(), if CloseCode::reconnect(code) { 2 } else { 1 }, "{code}");
        connection.close().await;
        assert_eq!(*connection.state().borrow(), State::Ended);
    }
}

#[tokio::test]
async fn a_token_that_has_expired_is_asked_for_anew() {
    let server = Server::start(|n, incoming| async move {
        let (mut session, token) = incoming.accept_known().await;
        assert_eq!(token, (n > 0).then(|| format!("Bearer token{n}")));
        let sub = said(&mut session).await.unwrap();
        if n < 2 {
            close(&mut session, 4501, "expired").await;
        } else {
            say(&mut session, [ok_at(&sub, 1, 0), msg("kept", 1, &json!(1))]).await;
            close(&mut session, 4501, "expired").await;
        }
    })
    .await;
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let tokens = TokenSource::new(move || {
        let n = counted.fetch_add(1, Ordering::Relaxed) + 1;
        async move { (n < 3).then(|| format!("token{n}")) }
    });
    let connection = connect(&server, ConnectOptions { tokens: Some(tokens), ..at_once() });
    let mut events = connection.subscribe(&filter("kept"), After::Earliest).await.unwrap();
    assert_eq!(offsets(&mut events, 1).await, [1]);
    let error = events.next().await.unwrap().unwrap_err();
    assert_eq!(
        (error.code(), asked.load(Ordering::Relaxed)),
        (Some(ErrorCode::Unauthorized), 3),
        "no more are had"
    );
    assert_eq!(server.asked().len(), 3);
}

#[tokio::test]
async fn a_node_that_goes_down_sends_its_clients_elsewhere() {
    let other = Server::start(|_, incoming| async move {
        let mut session = incoming.accept().await;
        let sub = said(&mut session).await.unwrap();
        assert_eq!(begin(&sub), 1);
        say(&mut session, [ok_at(&sub, 1, 1), msg("kept", 2, &json!(2))]).await;
        until_closed(&mut session).await;
    })
    .await;
    let (codes, mut closed) = mpsc::channel(1);
    let draining = Server::start(move |_, incoming| {
        let codes = codes.clone();
        async move {
            let mut session = incoming.accept().await;
            let sub = said(&mut session).await.unwrap();
            let frames = [ok_at(&sub, 1, 0), msg("kept", 1, &json!(1)), json!({ "op": "drain" })];
            say(&mut session, frames).await;
            codes.send(until_closed(&mut session).await).await.unwrap();
        }
    })
    .await;
    let options = ConnectOptions { elsewhere: vec![other.url.clone()], ..at_once() };
    let connection = connect(&draining, options);
    let mut events = connection.subscribe(&filter("kept"), After::Earliest).await.unwrap();
    assert_eq!(offsets(&mut events, 2).await, [1, 2]);
    assert_eq!(closed.recv().await, Some(Some(1000)), "it was left orderly");
    assert_eq!(draining.asked().len(), 1);
}

#[tokio::test]
async fn a_position_that_is_gone_is_the_programs_to_decide() {
    let server = Server::start(|n, incoming| async move {
        let mut session = incoming.accept().await;
        let sub = said(&mut session).await.unwrap();
        if n == 0 {
            say(&mut session, [ok_at(&sub, 1, 4), msg("kept", 5, &json!(1))]).await;
            return;
        }
        assert_eq!(sub["after"], "1:5");
        let mut problem = Problem::new(ErrorCode::EpochChanged, "begin anew");
        problem.earliest = Some("2:0".into());
        say(&mut session, [json!({ "op": "error", "ref": sub["ref"], "problem": problem })]).await;
        let again = said(&mut session).await.unwrap();
        assert_eq!(again["after"], "earliest");
        let first = json!({ "op": "msg", "topic": "kept", "epoch": 2, "offset": 1, "data": 1 });
        say(&mut session, [ok_at(&again, 2, 0), first]).await;
        until_closed(&mut session).await;
    })
    .await;
    let connection = connect(&server, at_once());
    let mut events = connection.subscribe(&filter("kept"), After::Latest).await.unwrap();
    assert_eq!(events.position(), Some(Position { epoch: 1, offset: 4 }));
    assert_eq!(offsets(&mut events, 1).await, [5]);
    let Some(Ok(Event::Lost(problem))) = events.next().await else { panic!("nothing was said") };
    assert_eq!(problem.earliest.as_deref(), Some("2:0"));
    events.begin(After::Earliest).await.unwrap();
    assert_eq!(message(&mut events).await.0, Position { epoch: 2, offset: 1 });
    assert_eq!(events.position(), Some(Position { epoch: 2, offset: 1 }));
}

#[tokio::test]
async fn the_first_refusal_is_an_error_and_leaves_the_others_alone() {
    let server = Server::start(|_, incoming| async move {
        let mut session = incoming.accept().await;
        while let Some(frame) = said(&mut session).await {
            let answer = if frame["topic"] == "secret" {
                json!({ "op": "error", "ref": frame["ref"], "problem": Problem::new(ErrorCode::Forbidden, "no") })
            } else {
                ok(&frame)
            };
            say(&mut session, [answer]).await;
        }
    })
    .await;
    let connection = connect(&server, at_once());
    let _open = connection.subscribe(&filter("open"), After::Latest).await.unwrap();
    let error = connection.subscribe(&filter("secret"), After::Latest).await.unwrap_err();
    assert_eq!((error.code(), error.exit_code()), (Some(ErrorCode::Forbidden), 4));
    let _other = connection.subscribe(&filter("other"), After::Latest).await.unwrap();
    assert_eq!(server.asked().len(), 1, "all over one socket");
}

#[tokio::test]
async fn nobody_there_is_an_error_unless_one_is_patient() {
    let gone = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let client = Client::new(&format!("http://{gone}"), None).unwrap();
    let connection = client.connect(at_once()).unwrap();
    for error in [
        connection.subscribe(&filter("a"), After::Latest).await.unwrap_err(),
        connection.publish(&topic("a"), "x", None).await.unwrap_err(),
        connection.pull(&topic("a"), PullOptions::default()).await.unwrap_err(),
    ] {
        assert!(matches!(error, ClientError::Connect { .. }), "{error}");
    }
    let backoff = Backoff { failures_max: Some(3), ..Backoff::none() };
    let patient = client.connect(ConnectOptions { patient: true, backoff, ..at_once() }).unwrap();
    let error = patient.subscribe(&filter("a"), After::Latest).await.unwrap_err();
    assert!(matches!(error, ClientError::GaveUp { failures: 3, .. }), "{error}");
    let elsewhere = ConnectOptions { elsewhere: vec!["http://h?x=1".into()], ..at_once() };
    assert!(matches!(client.connect(elsewhere), Err(ClientError::Url { .. })));
}

/// Behind a slow reader a gap that the server tells of stands where it belongs.
#[tokio::test]
async fn a_gap_that_the_server_tells_of_is_not_asked_for_again() {
    let server = Server::start(|n, incoming| async move {
        let mut session = incoming.accept().await;
        let sub = said(&mut session).await.unwrap();
        if n == 0 {
            let gap = json!({ "op": "gap", "topic": "kept", "from": 2, "to": 40 });
            say(&mut session, [ok_at(&sub, 1, 0), msg("kept", 1, &json!(1)), gap]).await;
            return;
        }
        assert_eq!(sub["after"], "1:40");
        say(&mut session, [ok_at(&sub, 1, 40), msg("kept", 41, &json!(1))]).await;
        until_closed(&mut session).await;
    })
    .await;
    let connection = connect(&server, at_once());
    let mut events = connection.subscribe(&filter("kept"), After::Earliest).await.unwrap();
    assert_eq!(offsets(&mut events, 1).await, [1]);
    assert!(matches!(events.next().await, Some(Ok(Event::Gap { from: Some(2), to: Some(40) }))));
    assert_eq!(events.position(), Some(Position { epoch: 1, offset: 40 }));
    assert_eq!(offsets(&mut events, 1).await, [41]);
    tokio::time::timeout(Duration::from_secs(60), connection.close()).await.expect("it closes");
}
