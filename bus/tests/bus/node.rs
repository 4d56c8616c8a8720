//! A bus behind a listener, and a journal in memory.

use crate::client::{Client, handshake, within};
use crate::queue::Queue;
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use minium_bus::{
    Backing, Bounds, Bus, Channel, Channels, Draft, History, HistoryError, Options, Page, Relayed,
    SchemaFile, Schemas, Subscription, Work,
};
use minium_protocol::{ErrorCode, Filter, Position, Problem, Topic};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub(crate) const EPOCH: u64 = 7;

/// What the kernel takes for a client that lags as soon as it does not read. Not less: below 64 KiB Linux has no window
/// scaling, rounds the window to what it takes for the sender's segments, and may so offer for ever a little less than
/// the sender wants to send at once; then the persist timer moves 2 KiB in 200 ms, and 3 MiB take five minutes.
const NARROW_BYTES: u32 = 128 << 10;

pub(crate) struct Node {
    pub(crate) bus: Bus,
    pub(crate) address: SocketAddr,
    pub(crate) journal: Arc<Journal>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) schemas: Arc<Schemas>,
    accepting: JoinHandle<()>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Node {
    /// Two shards, so that whatever crosses threads does so on every machine.
    pub(crate) async fn start() -> Node {
        Node::with(Options::default()).await
    }

    pub(crate) async fn with(options: Options) -> Node {
        Node::with_channels(options, Vec::new()).await
    }

    pub(crate) async fn with_channels(options: Options, channels: Vec<Channel>) -> Node {
        let queue = Arc::new(Queue::default());
        Node::with_queue(options, channels, queue.clone(), Some(queue)).await
    }

    pub(crate) async fn without_queue(channels: Vec<Channel>) -> Node {
        Node::with_queue(Options::default(), channels, Arc::default(), None).await
    }

    async fn with_queue(
        options: Options,
        channels: Vec<Channel>,
        queue: Arc<Queue>,
        work: Option<Arc<Queue>>,
    ) -> Node {
        let work = work.map(|w| w as Arc<dyn Work>);
        let options = Options { shards: 2, ..options };
        let channels = Arc::new(Channels::new(channels).unwrap());
        let journal = Arc::new(Journal::default());
        let schemas = Arc::new(Schemas::built_in());
        let history: Arc<dyn History> = journal.clone();
        let backing = Backing { schemas: schemas.clone(), channels, history: Some(history), work };
        let bus = Bus::start(options, backing).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepting = tokio::spawn({
            let bus = bus.clone();
            async move { crate::acceptor::accept(listener, bus, crate::certificate::acceptor()).await.unwrap() }
        });
        Node { bus, address, journal, queue, schemas, accepting }
    }

    pub(crate) fn schema(&self, path: &str, text: &str) {
        let report = self.schemas.replace(vec![SchemaFile::new(path, text)]);
        assert!(report.is_clean(), "{report:?}");
    }

    /// A plain client whose 101 was seen.
    pub(crate) async fn open(&self, path: &str) -> Client {
        self.open_as(path, "", None).await
    }

    pub(crate) async fn events(&self, path: &str) -> Client {
        self.open_as(path, "cloudevents.json", None).await
    }

    /// A client of `minium.v1`.
    pub(crate) async fn v1(&self, path: &str) -> Client {
        self.open_as(path, "minium.v1", None).await
    }

    pub(crate) async fn v1_narrow(&self, path: &str) -> Client {
        self.open_as(path, "minium.v1", Some(NARROW_BYTES)).await
    }

    /// With a small window, so that it lags as soon as it does not read.
    pub(crate) async fn narrow(&self, path: &str) -> Client {
        self.open_as(path, "", Some(NARROW_BYTES)).await
    }

    pub(crate) async fn open_as(&self, path: &str, mode: &str, receive: Option<u32>) -> Client {
        let mut client = Client::connect(self.address, receive).await;
        client.say(&handshake(path, mode)).await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{path}: {head}");
        client
    }

    /// The status line of a handshake that is refused.
    pub(crate) async fn refused(&self, path: &str) -> String {
        let mut client = Client::connect(self.address, None).await;
        client.say(&handshake(path, "")).await;
        let head = client.head().await;
        head.lines().next().unwrap().to_owned()
    }

    pub(crate) async fn sse(&self, filter: &str, after: &str) -> Events {
        let filter: Filter = filter.parse().unwrap();
        let start = self.bus.resolve(&filter, after.parse().unwrap()).await.unwrap();
        let permit = self.bus.admit().unwrap();
        Events::of(self.bus.subscribe(filter, start, None, permit).await.unwrap())
    }

    pub(crate) async fn publish(&self, topic: &str, text: &str) {
        self.bus.publish(&topic.parse().unwrap(), text.to_owned().into(), None).await.unwrap();
    }

    /// The journal begins: its numbering is known from here on.
    pub(crate) async fn begin(&self) {
        self.bus.relay_from(self.journal.position()).await;
    }

    /// The journal begins, and from now on what is kept is relayed.
    pub(crate) async fn keep_relaying(&self) {
        self.begin().await;
        let (bus, journal) = (self.bus.clone(), self.journal.clone());
        let mut relayed = journal.position().offset;
        let mut kept = journal.kept.subscribe();
        tokio::spawn(async move {
            while kept.changed().await.is_ok() {
                let batch = journal.behind(relayed);
                relayed += batch.len() as u64;
                bus.relay(batch).await;
            }
        });
    }

    /// Writes entries to the journal and relays them.
    pub(crate) async fn append(&self, topic: &str, count: u64) {
        let batch = self.journal.append(topic, count);
        self.bus.relay(batch).await;
    }

    /// Awaits what the bus holds.
    pub(crate) async fn until(&self, holds: impl Fn(&minium_bus::Stats) -> bool) {
        within(async {
            while !holds(&self.bus.stats()) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

/// An SSE stream, one event after the other.
pub(crate) struct Events {
    stream: Subscription,
    left: String,
}

impl Events {
    pub(crate) fn of(stream: Subscription) -> Events {
        Events { stream, left: String::new() }
    }

    /// The next block without its empty line; nothing at the end.
    pub(crate) async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.left.find("\n\n") {
                let event = self.left[..end].to_owned();
                self.left.drain(..end + 2);
                return Some(event);
            }
            let chunk = within(self.stream.next()).await?;
            assert!(chunk.ends_with(b"\n\n"), "an event was cut");
            self.left.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    pub(crate) async fn expect(&mut self, event: &str) {
        assert_eq!(self.next().await.as_deref(), Some(event));
    }
}

/// A journal in memory: the whole of it is kept until it is pruned.
pub(crate) struct Journal {
    state: Mutex<State>,
    /// Reads wait while this is false.
    open: watch::Sender<bool>,
    /// Questions for bounds wait while this is false.
    answers: watch::Sender<bool>,
    /// How many such questions there were.
    asked: watch::Sender<u64>,
    /// Messages were kept.
    kept: watch::Sender<()>,
}

impl Default for Journal {
    fn default() -> Journal {
        let (open, answers) = (watch::Sender::new(true), watch::Sender::new(true));
        let (asked, kept) = (watch::Sender::default(), watch::Sender::default());
        Journal { state: Mutex::default(), open, answers, asked, kept }
    }
}

#[derive(Default)]
struct State {
    entries: Vec<Relayed>,
    /// Offsets up to here are gone.
    pruned: u64,
    broken: bool,
    /// The next read panics.
    panics: bool,
    /// It will not keep what comes next.
    refuses: bool,
    /// Positions of what came with an id.
    ids: HashMap<Box<str>, Position>,
    reads: usize,
}

/// The event of an offset: long enough to fill rings in tests about them.
pub(crate) fn event(offset: u64) -> String {
    format!("{{\"sequence\":\"{offset:020}\",\"data\":\"{}\"}}", "x".repeat(offset as usize % 300))
}

/// Which offset an event has.
pub(crate) fn offset_of(event: &str) -> u64 {
    event.strip_prefix("{\"sequence\":\"").unwrap()[..20].parse().unwrap()
}

impl Journal {
    pub(crate) fn append(&self, topic: &str, count: u64) -> Vec<Relayed> {
        let mut st = self.state.lock().unwrap();
        let topic: Topic = topic.parse().unwrap();
        let from = st.entries.len() as u64 + 1;
        let entry = |offset| Relayed {
            position: Position { epoch: EPOCH, offset },
            topic: topic.clone(),
            event: Bytes::from(event(offset)),
            data: None,
        };
        let batch: Vec<Relayed> = (from..from + count).map(entry).collect();
        st.entries.extend_from_slice(&batch);
        batch
    }

    pub(crate) fn position(&self) -> Position {
        Position { epoch: EPOCH, offset: self.state.lock().unwrap().entries.len() as u64 }
    }

    fn behind(&self, offset: u64) -> Vec<Relayed> {
        self.state.lock().unwrap().entries[offset as usize..].to_vec()
    }

    pub(crate) fn prune(&self, up_to: u64) {
        self.state.lock().unwrap().pruned = up_to;
    }

    pub(crate) fn break_down(&self) {
        self.state.lock().unwrap().broken = true;
    }

    /// The next read panics.
    pub(crate) fn panic_once(&self) {
        self.state.lock().unwrap().panics = true;
    }

    /// The next messages are not kept.
    pub(crate) fn refuse_once(&self) {
        self.state.lock().unwrap().refuses = true;
    }

    /// From now on reads wait, or may go on.
    pub(crate) fn set_open(&self, open: bool) {
        self.open.send_replace(open);
    }

    /// From now on questions for bounds wait, or are answered.
    pub(crate) fn set_answering(&self, answers: bool) {
        self.answers.send_replace(answers);
    }

    /// Awaits a question for bounds that comes from now on.
    pub(crate) fn next_question(&self) -> impl Future<Output = ()> + use<> {
        let mut asked = self.asked.subscribe();
        async move { asked.changed().await.unwrap() }
    }

    pub(crate) fn reads(&self) -> usize {
        self.state.lock().unwrap().reads
    }
}

#[async_trait]
impl History for Journal {
    async fn bounds(&self, _filter: &Filter) -> Result<Bounds, HistoryError> {
        self.asked.send_modify(|asked| *asked += 1);
        self.answers.subscribe().wait_for(|answers| *answers).await.unwrap();
        let st = self.state.lock().unwrap();
        Ok(Bounds { epoch: EPOCH, first: st.pruned + 1, last: st.entries.len() as u64 })
    }

    async fn read(
        &self,
        filter: &Filter,
        after: u64,
        to: u64,
        count_max: u32,
        bytes_max: usize,
    ) -> Result<Page, HistoryError> {
        let panics = {
            let mut st = self.state.lock().unwrap();
            st.reads += 1;
            std::mem::take(&mut st.panics)
        };
        assert!(!panics, "as the test asked");
        self.open.subscribe().wait_for(|open| *open).await.unwrap();
        let st = self.state.lock().unwrap();
        if st.broken {
            return Err(HistoryError::Unavailable("it is broken".into()));
        }
        if after < st.pruned {
            return Err(HistoryError::Expired { first: st.pruned + 1 });
        }
        let to = to.min(st.entries.len() as u64);
        let mut page = Page { entries: Vec::new(), scanned_to: to };
        let mut bytes = 0;
        for entry in &st.entries[after as usize..to as usize] {
            if page.entries.len() == count_max as usize || bytes > bytes_max {
                page.scanned_to = entry.position.offset - 1;
                break;
            }
            if filter.matches(&entry.topic) {
                bytes += entry.event.len();
                page.entries.push(entry.clone());
            }
        }
        Ok(page)
    }

    async fn before_last(&self, filter: &Filter, count: u32) -> Result<u64, HistoryError> {
        let st = self.state.lock().unwrap();
        let matching = st.entries.iter().rev().filter(|e| filter.matches(&e.topic));
        let first = matching.take(count as usize).last();
        Ok(first.map_or(st.entries.len() as u64, |e| e.position.offset - 1))
    }

    async fn keep(&self, drafts: Vec<Draft>) -> Result<Vec<Position>, Problem> {
        let mut st = self.state.lock().unwrap();
        if st.broken || std::mem::take(&mut st.refuses) {
            return Err(Problem::new(ErrorCode::Unavailable, "it is broken"));
        }
        let mut positions = Vec::new();
        for draft in drafts {
            let known = draft.id.as_deref().and_then(|id| st.ids.get(id).copied());
            if let Some(position) = known {
                positions.push(position);
                continue;
            }
            let position = Position { epoch: EPOCH, offset: st.entries.len() as u64 + 1 };
            st.ids.extend(draft.id.map(|id| (id, position)));
            let event = Bytes::from(event(position.offset));
            st.entries.push(Relayed { position, topic: draft.topic, event, data: Some(draft.data) });
            positions.push(position);
        }
        drop(st);
        self.kept.send_replace(());
        Ok(positions)
    }
}
