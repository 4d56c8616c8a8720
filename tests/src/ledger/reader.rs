//! Readers in every mode: they write down what comes on each connection, and come back by position after each cut.
//!
//! Where a reader comes back to is what a careful client would know: for each of its filters the last position that came
//! and that it matches, also where several filters of one socket overlap. In plain mode, where messages come bare, it is
//! what the 101 said.

use super::book::{Arrival, Inbox, Name, Place, Socket, Sub};
use super::publisher::Course;
use super::wire::{self, Opening, Ways};
use crate::support::wait;
use futures::SinkExt;
use minium_protocol::{CloudEvent, Filter, Position, Topic};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::cell::Cell;
use std::collections::BTreeSet;
use tokio_tungstenite::tungstenite::Message;

/// How a reader listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ear {
    /// `minium.v1`, all filters on one socket.
    Frames,
    /// Bare messages.
    Plain,
    /// CloudEvents.
    Events,
    /// Server-sent events.
    Stream,
}

/// Where a reader begins.
#[derive(Debug, Clone, Copy)]
pub(super) enum Start {
    /// With what comes from now on.
    Now,
    /// Behind a position.
    Behind(Place),
}

/// A reader that stops reading after some messages, until it is told to go on.
#[derive(Debug, Default)]
pub(super) struct Pause {
    pub(super) after: usize,
    pub(super) goes_on: Cell<bool>,
}

/// A reader at work.
pub(super) struct Reader<'a> {
    pub(super) ear: Ear,
    pub(super) filters: Vec<Filter>,
    pub(super) ways: Ways,
    pub(super) course: &'a Course,
    /// Where it comes back to, for each filter.
    pub(super) resume: Vec<Start>,
    /// The last messages, one for each topic that it hears: then it has all.
    pub(super) last: BTreeSet<Name>,
    pub(super) pause: Option<&'a Pause>,
    pub(super) inbox: Inbox,
}

/// A frame of `minium.v1`, of whichever kind.
#[derive(Deserialize)]
struct Frame<'a> {
    op: &'a str,
    #[serde(rename = "ref")]
    reference: Option<&'a str>,
    topic: Option<&'a str>,
    epoch: Option<u64>,
    offset: Option<u64>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    problem: Option<serde_json::Value>,
}

impl Reader<'_> {
    /// Reads until it has everything.
    pub(super) async fn run(mut self) -> Inbox {
        while !self.last.is_empty() {
            self.inbox.sockets.push(Socket::default());
            match self.ear {
                Ear::Frames => self.frames().await,
                Ear::Plain | Ear::Events => self.messages().await,
                Ear::Stream => self.stream().await,
            }
            if self.socket().arrivals.is_empty() {
                wire::ready(&self.ways).await;
            }
            self.ways.turn();
        }
        self.inbox
    }

    /// The server has said where a subscription begins.
    fn begins(&mut self, filter: usize, behind: Place, asked: Start) {
        let from = self.socket().arrivals.len();
        let sub = Sub { filter: self.filters[filter].clone(), behind, from };
        let first = |subs: &[Sub]| subs.iter().all(|s| s.filter != sub.filter);
        if first(&self.inbox.subs) {
            self.inbox.subs.push(sub.clone());
        }
        if let Start::Behind(asked) = asked {
            assert_eq!(behind, asked, "{} begins where it asked to", self.inbox.reader);
        }
        self.socket().subs.push(sub);
        self.resume[filter] = Start::Behind(behind);
    }

    fn socket(&mut self) -> &mut Socket {
        self.inbox.sockets.last_mut().expect("there is one for each connection")
    }

    fn arrives(&mut self, arrival: Arrival) {
        self.course.arrived.set(self.course.arrived.get() + 1);
        self.last.remove(&arrival.name);
        if let Some(place) = arrival.place {
            self.advance(place, arrival.topic.as_ref());
        }
        self.socket().arrivals.push(arrival);
    }

    /// A message is behind those that have begun, that it matches and that stand before it.
    fn advance(&mut self, place: Place, topic: Option<&Topic>) {
        let subs = &self.inbox.sockets.last().expect("there is one for each connection").subs;
        for (filter, resume) in self.filters.iter().zip(&mut self.resume) {
            let has_begun = subs.iter().any(|s| s.filter == *filter);
            let is_new = matches!(resume, Start::Behind(had) if *had < place);
            if has_begun && is_new && topic.is_none_or(|topic| filter.matches(topic)) {
                *resume = Start::Behind(place);
            }
        }
    }

    /// Stops here, if it is one that does.
    async fn read_on(&mut self) {
        let count = self.socket().arrivals.len();
        if let Some(pause) = self.pause.filter(|p| count >= p.after) {
            wait::until("the word to read on", async || pause.goes_on.get().then_some(())).await;
        }
    }

    async fn frames(&mut self) {
        let opening = Opening { path: "/ws", mode: "minium.v1", narrow: self.pause.is_some() };
        let (mut socket, _) = wire::open(&self.ways, opening).await;
        let asked = self.resume.clone();
        for (n, filter) in self.filters.iter().enumerate() {
            let after = match asked[n] {
                Start::Behind(place) => format!(r#","after":"{place}""#),
                Start::Now => String::new(),
            };
            let sub = format!(r#"{{"op":"sub","ref":"{n}","topic":"{filter}"{after}}}"#);
            if socket.send(Message::text(sub)).await.is_err() {
                return;
            }
        }
        let mut caught_up = BTreeSet::new();
        while !(self.last.is_empty() && caught_up.len() == self.filters.len()) {
            self.read_on().await;
            let Some(text) = wire::next_text(&mut socket).await else { break };
            let frame: Frame<'_> = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
            let place = frame.epoch.zip(frame.offset).map(|(epoch, offset)| Place { epoch, offset });
            match (frame.op, frame.topic, place, frame.data) {
                ("msg", Some(topic), Some(place), Some(data)) => self.arrives(Arrival {
                    name: Name::of(data.get()),
                    place: Some(place),
                    topic: Some(topic.parse().unwrap()),
                    body: data.get().to_owned(),
                    event: None,
                }),
                ("ok", None, Some(place), None) => {
                    let n: usize = frame.reference.expect("each sub has one").parse().unwrap();
                    self.begins(n, place, asked[n]);
                    if let Start::Now = asked[n] {
                        caught_up.insert(self.filters[n].to_string());
                    }
                }
                ("caught_up", Some(filter), None, None) => drop(caught_up.insert(filter.to_owned())),
                ("error", ..) => {
                    let problem = frame.problem.unwrap_or_default();
                    assert_eq!(problem["retryable"], true, "{}: {text}", self.inbox.reader);
                    break;
                }
                ("drain", ..) => {}
                _ => panic!("{}: {text}", self.inbox.reader),
            }
        }
    }

    async fn messages(&mut self) {
        let mode = if self.ear == Ear::Plain { "minium.plain" } else { "cloudevents.json" };
        let path = self.path();
        let opening = Opening { path: &path, mode, narrow: self.pause.is_some() };
        let (mut socket, response) = wire::open(&self.ways, opening).await;
        let position = response.headers().get("minium-position").expect("it is durable").to_str().unwrap();
        let position: Position = position.parse().unwrap();
        self.begins(0, position.into(), self.resume[0]);
        while !self.last.is_empty() {
            self.read_on().await;
            let Some(text) = wire::next_text(&mut socket).await else { return };
            self.arrives(match self.ear {
                Ear::Plain => {
                    Arrival { name: Name::of(&text), place: None, topic: None, body: text, event: None }
                }
                _ => event(text),
            });
        }
    }

    async fn stream(&mut self) {
        let Some(mut answer) = self.open_stream().await else { return };
        let (mut buffer, mut searched, mut last) = (Vec::new(), 0, None);
        while !self.last.is_empty() {
            self.read_on().await;
            let chunk = wait::within("more of a stream", answer.chunk()).await;
            let Ok(Some(chunk)) = chunk else { return };
            buffer.extend_from_slice(&chunk);
            // an event counts when the empty line behind it is there
            while let Some(end) = buffer[searched..].windows(2).position(|w| w == b"\n\n") {
                let block: Vec<u8> = buffer.drain(..searched + end + 2).collect();
                searched = 0;
                let Some(block) = Block::read(std::str::from_utf8(&block).unwrap()) else { return };
                last = block.id.or(last);
                self.take(block.data, last);
            }
            searched = buffer.len().saturating_sub(1);
        }
    }

    /// An event, or, before the first, the word where the stream begins.
    fn take(&mut self, data: Option<String>, place: Option<Place>) {
        match (data, place) {
            (Some(body), Some(_)) => {
                self.arrives(Arrival { name: Name::of(&body), place, topic: None, body, event: None })
            }
            (None, Some(place)) if self.socket().subs.is_empty() => {
                self.begins(0, place, self.resume[0]);
            }
            (None, _) => {}
            (Some(body), None) => panic!("an event without a position: {body}"),
        }
    }

    async fn open_stream(&self) -> Option<reqwest::Response> {
        let http = reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap();
        let path = self.path();
        let answer = wait::until(&format!("a stream of {path}"), async || {
            let url = format!("http://{}{path}", self.ways.address());
            let sent = http.get(url).header("accept", "text/event-stream").send().await.ok();
            if sent.as_ref().is_none_or(|a| a.status() == 503) {
                self.ways.turn();
                return None;
            }
            sent
        })
        .await;
        assert_eq!(answer.status(), 200, "{}: {:?}", self.inbox.reader, answer.text().await);
        Some(answer)
    }

    fn path(&self) -> String {
        let from = match self.resume[0] {
            Start::Behind(place) => format!("after={place}"),
            // from now on, too, but as a position that is told
            Start::Now => "last=0".into(),
        };
        format!("/sub/{}?{from}", self.filters[0])
    }
}

/// What stands before an empty line of a stream.
#[derive(Default)]
struct Block {
    id: Option<Place>,
    data: Option<String>,
}

impl Block {
    /// Reads it; nothing when it says that the stream ends.
    fn read(text: &str) -> Option<Block> {
        let mut block = Block::default();
        for line in text.lines().filter(|l| !l.is_empty() && !l.starts_with(':')) {
            match line.split_once(": ") {
                Some(("id", position)) => block.id = Some(position.parse::<Position>().unwrap().into()),
                Some(("data", data)) => block.data = Some(data.to_owned()),
                Some(("event", "close")) => return None,
                _ => assert!(line.starts_with("retry:"), "{text}"),
            }
        }
        Some(block)
    }
}

/// A message as an event.
pub(super) fn event(text: String) -> Arrival {
    let event: CloudEvent = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
    let number = |text: &Option<String>| text.as_ref().expect("it is kept").parse::<u64>().unwrap();
    let body = event.data.expect("messages are JSON").get().to_owned();
    Arrival {
        name: Name::of(&body),
        place: Some(Place { epoch: number(&event.epoch), offset: number(&event.sequence) }),
        topic: Some(event.subject.expect("the topic").parse().unwrap()),
        body,
        event: Some(text),
    }
}
