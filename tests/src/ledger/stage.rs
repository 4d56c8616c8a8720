//! A run: publishers and readers at work while trouble is made, then the last messages, and all ledgers.

use super::book::{Books, Entry, Inbox, Name, Outbox, Place};
use super::planted::Lie;
use super::publisher::{Course, Publisher, Voice};
use super::reader::{Ear, Pause, Reader, Start, event};
use super::wire::Ways;
use crate::support::node::{Node, Options};
use crate::support::wait;
use futures::future::join_all;
use minium_protocol::{Filter, Position, Topic};
use std::net::SocketAddr;

/// Everything below is kept. One name for all nodes, since it stands in each event.
const CONFIG: &str = "[channels.ledger]\ndurable = true\n[server]\npublic_url = \"http://minium.test\"\n";

/// Topics below that of the run.
const TOPICS: [&str; 4] = ["a", "b", "b/x", "c/x"];

/// Who publishes the last message on each topic.
const LAST: u32 = 1_000;

/// So many more acknowledgements after the last trouble.
const AFTERMATH: u64 = 60;

/// How nodes of these tests are configured.
pub(super) fn options(options: Options) -> Options {
    options.config(CONFIG)
}

/// Where a run takes place.
pub(super) struct Stage<'a> {
    pub(super) seed: u64,
    /// A node that is well when all is over.
    pub(super) node: &'a Node,
    /// How clients reach it, or them.
    pub(super) addresses: Vec<SocketAddr>,
    /// Messages have at least so many bytes, and at most twice as many.
    pub(super) padding: usize,
    /// All readers but the first stop for a while.
    pub(super) pause: Option<Pause>,
    /// The way of the first reader, where it is another.
    pub(super) detour: Option<SocketAddr>,
    /// What the first publisher does in place of an honest one.
    pub(super) lie: Option<Lie>,
}

impl<'a> Stage<'a> {
    /// Small messages, straight to the nodes.
    pub(super) fn new(seed: u64, nodes: &'a [Node]) -> Stage<'a> {
        let addresses = nodes.iter().map(Node::address).collect();
        Stage { seed, node: &nodes[0], addresses, padding: 0, pause: None, detour: None, lie: None }
    }

    /// Has everybody at work while `trouble` is made; gives the ledgers.
    pub(super) async fn act(&self, trouble: impl AsyncFnOnce(&Course, &mut fastrand::Rng)) -> Books {
        let course = Course::default();
        let mut random = fastrand::Rng::with_seed(self.seed);
        let topics = self.topics();
        let base = self.position().await;
        let publishers = join_all(self.publishers(&topics, &course, &mut random));
        let readers = join_all(self.readers(base, &course).into_iter().map(Reader::run));
        let plot = async {
            trouble(&course, &mut random).await;
            course.acks(AFTERMATH).await;
            course.over.set(true);
        };
        let publishing = async {
            let (mut outboxes, ()) = tokio::join!(publishers, plot);
            outboxes.push(self.last_messages(&topics, &course).await);
            outboxes
        };
        let (outboxes, mut inboxes) = Box::pin(async { tokio::join!(publishing, readers) }).await;
        if self.pause.is_none() {
            let late = self.late_readers(base, &course).into_iter().map(Reader::run);
            inboxes.extend(Box::pin(join_all(late)).await);
        }
        let journal = self.journal(base).await;
        Books { outboxes, inboxes, journal }
    }

    fn root(&self) -> String {
        format!("ledger/{}", self.seed)
    }

    fn topics(&self) -> Vec<Topic> {
        TOPICS.iter().map(|t| format!("{}/{t}", self.root()).parse().unwrap()).collect()
    }

    /// Where the journal ends now.
    async fn position(&self) -> Place {
        let answer = self.node.get(&format!("/history/{}?after=latest", self.root())).await;
        answer.expect(200)["next"].as_str().unwrap().parse::<Position>().unwrap().into()
    }

    fn publishers<'b>(
        &self,
        topics: &'b [Topic],
        course: &'b Course,
        random: &mut fastrand::Rng,
    ) -> Vec<impl Future<Output = Outbox> + use<'b>> {
        let first = self.lie.map_or(Voice::Frames, Voice::Lying);
        let voices = [first, Voice::Frames, Voice::Posts, Voice::Plain];
        let publisher = |(n, voice): (usize, Voice)| {
            let number = u32::try_from(n).unwrap();
            let ways = Ways::new(&self.addresses, n);
            // the plain one has a socket for one topic
            let topics = if voice == Voice::Plain { &topics[3..] } else { topics };
            let random = random.fork();
            let outbox = Outbox::default();
            Publisher { number, ways, topics, course, padding: self.padding, random, outbox }.run(voice)
        };
        voices.into_iter().enumerate().map(publisher).collect()
    }

    fn readers<'b>(&'b self, base: Place, course: &'b Course) -> Vec<Reader<'b>> {
        let (base, pause) = (Start::Behind(base), self.pause.as_ref());
        let all = [""].as_slice();
        let mut first = self.reader("frames of all", Ear::Frames, all, base, course, None);
        if let Some(detour) = self.detour {
            first.ways = Ways::new(&[detour], 0);
        }
        let mut readers = vec![
            first,
            self.reader("frames from now on", Ear::Frames, &["/b"], Start::Now, course, pause),
            self.reader("frames of many", Ear::Frames, &["/b", "/+/x", "/b/x", "/c"], base, course, pause),
            self.reader("bare messages", Ear::Plain, all, base, course, pause),
            self.reader("bare messages from now on", Ear::Plain, &["/+/x"], Start::Now, course, pause),
            self.reader("events", Ear::Events, all, base, course, pause),
            self.reader("a stream", Ear::Stream, all, base, course, pause),
        ];
        if pause.is_some() {
            // those who hear half of it would never be overtaken
            readers.retain(|reader| reader.last.len() > TOPICS.len() / 2);
        }
        readers
    }

    /// Those who come when all is over, and read everything.
    fn late_readers<'b>(&'b self, base: Place, course: &'b Course) -> Vec<Reader<'b>> {
        let (base, all) = (Start::Behind(base), [""].as_slice());
        vec![
            self.reader("late frames", Ear::Frames, &["/b", "", "/+/x"], base, course, None),
            self.reader("late bare messages", Ear::Plain, all, base, course, None),
            self.reader("late events", Ear::Events, all, base, course, None),
            self.reader("a late stream", Ear::Stream, all, base, course, None),
        ]
    }

    fn reader<'b>(
        &self,
        name: &str,
        ear: Ear,
        filters: &[&str],
        resume: Start,
        course: &'b Course,
        pause: Option<&'b Pause>,
    ) -> Reader<'b> {
        let filters: Vec<Filter> =
            filters.iter().map(|f| format!("{}{f}", self.root()).parse().unwrap()).collect();
        let heard = |(n, topic): (u32, Topic)| {
            filters.iter().any(|f| f.matches(&topic)).then_some(Name { publisher: LAST, n })
        };
        let last = (0..).zip(self.topics()).filter_map(heard).collect();
        let (exact, resume) = (ear != Ear::Plain, vec![resume; filters.len()]);
        let inbox = Inbox { reader: name.into(), exact, subs: vec![], sockets: vec![] };
        let ways = Ways::new(&self.addresses, filters.len());
        Reader { ear, filters, ways, course, resume, last, pause, inbox }
    }

    /// One on each topic: behind everything that was acknowledged before.
    async fn last_messages(&self, topics: &[Topic], course: &Course) -> Outbox {
        let (ways, random) = (Ways::new(&self.addresses, 0), fastrand::Rng::with_seed(0));
        let outbox = Outbox::default();
        let mut publisher = Publisher { number: LAST, ways, topics, course, padding: 0, random, outbox };
        let http = reqwest::Client::new();
        for topic in topics {
            let sent = publisher.next(topic);
            publisher.post(&http, &sent).await;
        }
        publisher.outbox
    }

    /// Everything that stands there, by the page.
    async fn journal(&self, base: Place) -> Vec<Entry> {
        let mut journal = Vec::new();
        let mut next = base.to_string();
        loop {
            let path = format!("/history/{}?after={next}&limit=1000", self.root());
            let accept = [("accept", "application/x-ndjson")];
            let answer = wait::until("a page of history", async || {
                let answer = self.node.request(reqwest::Method::GET, &path, &accept, "").await;
                (answer.status != 503).then_some(answer)
            })
            .await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            if answer.body.is_empty() {
                return journal;
            }
            next = answer.header("minium-next").to_owned();
            journal.extend(answer.text().lines().map(|line| {
                let read = event(line.to_owned());
                Entry {
                    name: read.name,
                    place: read.place.expect("events have positions"),
                    topic: read.topic.expect("events have topics"),
                    body: read.body,
                    event: line.to_owned(),
                }
            }));
        }
    }
}
