//! Publishers: they number their messages, write down what they send and what is acknowledged, and send the same again
//! under the same id until it is.

use super::book::{Acked, Name, Outbox, Place, Sent};
use super::planted::{self, Lie};
use super::wire::{self, Opening, Ways, WebSocket};
use crate::support::wait;
use futures::SinkExt;
use minium_protocol::{Position, Topic};
use serde::Deserialize;
use serde_json::Value;
use std::cell::Cell;
use std::collections::VecDeque;
use tokio_tungstenite::tungstenite::Message;

/// Messages of one publisher that are on their way at once.
const WINDOW: usize = 16;

/// How a publisher speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Voice {
    /// `minium.v1`, many messages on their way.
    Frames,
    /// POST, one after the other, with `Idempotency-Key`.
    Posts,
    /// A plain WebSocket, where nothing is acknowledged.
    Plain,
    /// As if the server were broken.
    Lying(Lie),
}

/// What all who take part know of how far it is.
#[derive(Debug, Default)]
pub(super) struct Course {
    /// Acknowledgements, of all publishers.
    pub(super) acked: Cell<u64>,
    /// Messages that came, to all readers.
    pub(super) arrived: Cell<u64>,
    /// Nothing new is published any more.
    pub(super) over: Cell<bool>,
}

impl Course {
    /// Waits until so many more are acknowledged.
    pub(super) async fn acks(&self, more: u64) {
        let goal = self.acked.get() + more;
        wait::until(&format!("{more} more acknowledgements"), async || {
            (self.acked.get() >= goal).then_some(())
        })
        .await;
    }
}

/// A publisher at work.
pub(super) struct Publisher<'a> {
    pub(super) number: u32,
    pub(super) ways: Ways,
    pub(super) topics: &'a [Topic],
    pub(super) course: &'a Course,
    /// The size of its messages beyond what must be.
    pub(super) padding: usize,
    pub(super) random: fastrand::Rng,
    pub(super) outbox: Outbox,
}

/// A frame that a publisher over `minium.v1` gets.
#[derive(Deserialize)]
struct Answer {
    op: String,
    #[serde(rename = "ref")]
    reference: Option<String>,
    epoch: Option<u64>,
    offset: Option<u64>,
    problem: Option<Value>,
}

impl Publisher<'_> {
    /// Publishes until the course is over and all of it is acknowledged.
    pub(super) async fn run(mut self, voice: Voice) -> Outbox {
        match voice {
            Voice::Lying(lie) => return planted::lie(self, lie).await,
            Voice::Frames => self.by_frames().await,
            Voice::Posts => self.by_posts().await,
            Voice::Plain => self.plainly().await,
        }
        self.outbox
    }

    fn next_anywhere(&mut self) -> Sent {
        let topics = self.topics;
        let topic = &topics[self.random.usize(..topics.len())];
        self.next(topic)
    }

    /// The next message, written down as sent before it is.
    pub(super) fn next(&mut self, topic: &Topic) -> Sent {
        let n = u32::try_from(self.outbox.sent.len()).unwrap();
        let (name, topic) = (Name { publisher: self.number, n }, topic.clone());
        let padding = "x".repeat(self.random.usize(..=self.padding) + self.padding);
        let sent = Sent { name, topic, body: name.body(&padding) };
        self.outbox.sent.push(sent.clone());
        sent
    }

    pub(super) fn acked(&mut self, sent: &Sent, place: Place) {
        self.outbox.acked.push(Acked { name: sent.name, topic: sent.topic.clone(), place });
        self.course.acked.set(self.course.acked.get() + 1);
    }

    async fn by_frames(&mut self) {
        let mut waiting: VecDeque<Sent> = VecDeque::new();
        while !(self.course.over.get() && waiting.is_empty()) {
            let opening = Opening { path: "/ws", mode: "minium.v1", narrow: false };
            let (mut socket, _) = wire::open(&self.ways, opening).await;
            self.talk(&mut socket, &mut waiting).await;
            self.ways.turn();
        }
    }

    /// Over one connection, until it ends or nothing is left to say.
    async fn talk(&mut self, socket: &mut WebSocket, waiting: &mut VecDeque<Sent>) {
        // the first of these are on this connection
        let mut out = 0;
        // one was refused: nothing is sent before the others are answered, then all again in their order
        let mut refused = false;
        loop {
            if refused && out == 0 {
                wire::ready(&self.ways).await;
                refused = false;
            }
            while !refused && (out < waiting.len() || waiting.len() < WINDOW && !self.course.over.get()) {
                if out == waiting.len() {
                    let next = self.next_anywhere();
                    waiting.push_back(next);
                }
                if socket.send(Message::text(frame(&waiting[out]))).await.is_err() {
                    return;
                }
                out += 1;
            }
            if waiting.is_empty() {
                return;
            }
            let Some(text) = wire::next_text(socket).await else { return };
            let answer: Answer = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
            let Some(reference) = answer.reference else {
                assert_eq!(answer.op, "drain", "{text}");
                continue;
            };
            out -= 1;
            match (&*answer.op, answer.epoch, answer.offset) {
                ("ok", Some(epoch), Some(offset)) => {
                    let at = waiting.iter().position(|s| s.name.id() == reference);
                    let sent = waiting.remove(at.expect("each is answered once")).expect("it is there");
                    self.acked(&sent, Place { epoch, offset });
                }
                ("error", ..) => {
                    let problem = answer.problem.unwrap_or_default();
                    assert_eq!(problem["retryable"], true, "refused for good: {text}");
                    refused = true;
                }
                _ => panic!("no answer to a pub: {text}"),
            }
        }
    }

    async fn by_posts(&mut self) {
        let http = reqwest::Client::builder().tcp_nodelay(true).build().unwrap();
        while !self.course.over.get() {
            let sent = self.next_anywhere();
            self.post(&http, &sent).await;
        }
    }

    /// Posts it until it is acknowledged.
    pub(super) async fn post(&mut self, http: &reqwest::Client, sent: &Sent) {
        let position = wait::until(&format!("an answer to {}", sent.name), async || {
            let position = try_post(http, &self.ways, sent, &sent.name.id()).await;
            if position.is_none() {
                self.ways.turn();
            }
            position
        })
        .await;
        self.acked(sent, position.into());
    }

    /// On one topic, and only sent: what is on its way when a connection is cut may be lost.
    async fn plainly(&mut self) {
        while !self.course.over.get() {
            let path = format!("/pub/{}", self.topics[0]);
            let opening = Opening { path: &path, mode: "minium.plain", narrow: false };
            let (mut socket, _) = wire::open(&self.ways, opening).await;
            let mut alive = true;
            while alive && !self.course.over.get() {
                let sent = self.next_anywhere();
                alive = socket.send(Message::text(sent.body)).await.is_ok();
                // no faster than the others: there is nothing else that it could wait for
                let goal = self.course.acked.get() + 4;
                wait::until("the others to go on", async || {
                    (self.course.over.get() || self.course.acked.get() >= goal).then_some(())
                })
                .await;
            }
            self.ways.turn();
        }
    }
}

fn frame(sent: &Sent) -> String {
    let (id, topic, body) = (sent.name.id(), &sent.topic, &sent.body);
    format!(r#"{{"op":"pub","ref":"{id}","id":"{id}","topic":"{topic}","data":{body}}}"#)
}

/// Posts it once, under an id; nothing when that failed in a way that passes.
pub(super) async fn try_post(http: &reqwest::Client, ways: &Ways, sent: &Sent, id: &str) -> Option<Position> {
    #[derive(Deserialize)]
    struct Kept {
        epoch: u64,
        offset: u64,
    }
    let url = format!("http://{}/pub/{}", ways.address(), sent.topic);
    let request = http.post(url).header("idempotency-key", id).body(sent.body.clone());
    let answer = request.send().await.ok()?;
    let status = answer.status();
    let text = answer.text().await.ok()?;
    if status == 503 {
        return None;
    }
    assert_eq!(status, 200, "{} was refused for good: {text}", sent.name);
    let Kept { epoch, offset } = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
    Some(Position { epoch, offset })
}
