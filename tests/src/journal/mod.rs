//! The journal: numbered without loss, relayed in order, read back to the byte, let go in order.
//!
//! Entries are written here by plain SQL, as the queue's statements write them, so that each test decides when a
//! transaction begins, commits or is rolled back.

/// Ten writers with delays and rollbacks; and a planted reader that must fail the same check.
mod commits;

/// Two sequencers, and sequencers that are killed.
mod leaders;

/// Failover, restored dumps, copies from the past.
mod epochs;

/// Reading back: filters, bounds, the same bytes.
mod replay;

/// Where journals live, for tests that hold on both databases.
mod home;

/// What clients publish, kept: on both databases.
mod keep;

/// How much is kept of each channel: on both databases.
mod channels;

/// Publishers and a PostgreSQL that crashes between commit and number.
mod publishers;

/// What is kept for recorders: on both databases.
mod recorders;

/// What is let go, and partitions.
mod retention;

/// SQLite: offsets without a sequencer.
mod sqlite;

use crate::support::postgres::Database;
use crate::support::wait;
use futures::StreamExt;
use minium_bus::{Backing, Bus, History, Mode, Opening, Options, Relayed, Role, Schemas};
use minium_notifier::{EnvelopeOptions, Journal, Relay, RelayHandle, RelayOptions, RelayState};
use minium_protocol::{Filter, Position, Topic};
use minium_queue::{Backend, DatabaseUrl};
use std::sync::Arc;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_postgres::Client;
use tokio_tungstenite::{WebSocketStream, tungstenite};
use tokio_util::sync::CancellationToken;

/// Where entries of the tests are addressed.
pub(crate) fn topic(job: i64) -> String {
    format!("task/t/{job}")
}

/// The filter that matches every topic.
pub(crate) fn everything() -> Filter {
    "+".parse().unwrap()
}

/// A database with the schema, and a journal on it.
pub(crate) struct Fixture {
    pub(crate) database: Database,
    pub(crate) backend: Backend,
    pub(crate) journal: Journal,
}

impl Fixture {
    pub(crate) async fn new() -> Fixture {
        let database = Database::create().await;
        let (backend, journal) = open(database.url()).await;
        Fixture { database, backend, journal }
    }

    /// A connection of the test's own.
    pub(crate) async fn client(&self) -> Client {
        self.database.connect().await
    }

    /// Another node on the same database.
    pub(crate) async fn another(&self) -> Journal {
        open(self.database.url()).await.1
    }
}

/// Opens the database as a node does.
pub(crate) async fn open(url: &str) -> (Backend, Journal) {
    let url: DatabaseUrl = url.parse().unwrap();
    let backend = Backend::open(&url).await.unwrap();
    backend.migrate().await.unwrap();
    let envelope = EnvelopeOptions {
        dataschema: Some("http://h/schemas/job.json".into()),
        ..EnvelopeOptions::default()
    };
    let journal = Journal::open(&backend, envelope);
    (backend, journal)
}

/// A bus with a relay that feeds it.
pub(crate) struct Node {
    pub(crate) bus: Bus,
    pub(crate) relay: RelayHandle,
    stop: CancellationToken,
}

impl Node {
    pub(crate) fn start(journal: &Journal) -> Node {
        Node::start_with(journal, RelayOptions::default())
    }

    /// With these, but that nothing is too young to be let go of.
    pub(crate) fn start_with(journal: &Journal, options: RelayOptions) -> Node {
        let options = RelayOptions { retention_grace: std::time::Duration::ZERO, ..options };
        Node::start_patient(journal, options)
    }

    pub(crate) fn start_patient(journal: &Journal, options: RelayOptions) -> Node {
        let schemas = Arc::new(Schemas::empty());
        let bus = Bus::start(
            Options::default(),
            Backing { schemas, history: Some(journal.history()), ..Backing::default() },
        )
        .unwrap();
        let stop = CancellationToken::new();
        let relay = Relay::start(journal, bus.clone(), options, stop.clone());
        Node { bus, relay, stop }
    }

    /// Waits until everything up to `offset` is on the bus.
    pub(crate) async fn relayed(&self, offset: u64) -> Position {
        let what = format!("the relay to reach {offset}");
        let mut states = self.relay.states();
        let reached = |state: &RelayState| matches!(state, RelayState::Relaying(p) if p.offset >= offset);
        let state = wait::within(&what, states.wait_for(reached)).await.unwrap().clone();
        match state {
            RelayState::Relaying(position) => position,
            other => panic!("{other:?}"),
        }
    }

    /// Waits until it has begun.
    pub(crate) async fn begun(&self) -> Position {
        self.relayed(0).await
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        wait::within("the relay to stop", self.relay.join()).await;
        self.bus.shutdown(std::time::Duration::from_secs(1)).await;
    }
}

/// Writes entries of jobs in one statement, in the caller's transaction.
pub(crate) async fn write(client: &Client, jobs: &[i64], kind: &str) {
    let sql = "insert into minium.entry (topic, type, subject, data)
               select 'task/t/' || j, $2, j::text, json_build_object('id', j) from unnest($1::bigint[]) j";
    client.execute(sql, &[&jobs, &kind]).await.unwrap();
}

/// One step by hand: what it did, and which offsets it gave.
pub(crate) async fn step(client: &Client, count_max: i32) -> Result<Stepped, tokio_postgres::Error> {
    client.batch_execute("begin isolation level repeatable read").await?;
    let answer = step_inside(client, count_max).await;
    let end = client.batch_execute(if answer.is_ok() { "commit" } else { "rollback" }).await;
    let stepped = answer?;
    end.map(|()| stepped)
}

/// As [`step`], in a transaction that the caller begins and ends.
pub(crate) async fn step_inside(client: &Client, count_max: i32) -> Result<Stepped, tokio_postgres::Error> {
    let sql =
        "select outcome, first_offset, last_offset, more from minium.journal_step($1, 0, 0, interval '0')";
    let row = client.query_one(sql, &[&count_max]).await?;
    Ok(Stepped { outcome: row.get(0), first: row.get(1), last: row.get(2), more: row.get(3) })
}

/// What a step did.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stepped {
    pub(crate) outcome: String,
    pub(crate) first: i64,
    pub(crate) last: i64,
    pub(crate) more: bool,
}

/// Steps until there is nothing left to number.
pub(crate) async fn number_all(client: &Client) {
    while step(client, 50_000).await.unwrap().outcome == "numbered" {}
}

/// All that a filter finds, in pages of `count_max`.
pub(crate) async fn read_all(history: &dyn History, filter: &str, count_max: u32) -> Vec<Relayed> {
    let filter: Filter = filter.parse().unwrap();
    let bounds = history.bounds(&everything()).await.unwrap();
    let mut after = bounds.first - 1;
    let mut all = Vec::new();
    while after < bounds.last {
        let page = history.read(&filter, after, bounds.last, count_max, 1 << 20).await.unwrap();
        assert!(page.scanned_to > after, "a page goes on, or the reader would never end");
        after = page.scanned_to;
        all.extend(page.entries);
    }
    all
}

/// The offsets that a database has given, ascending.
pub(crate) async fn offsets(client: &Client) -> Vec<i64> {
    let sql = r#"select "offset" from minium.entry_offset order by 1"#;
    client.query(sql, &[]).await.unwrap().iter().map(|r| r.get(0)).collect()
}

/// Asserts that offsets are 1, 2, 3, … and that every entry has exactly one.
pub(crate) async fn assert_dense(client: &Client) {
    let given = offsets(client).await;
    assert_eq!(given, (1..=given.len() as i64).collect::<Vec<_>>(), "offsets are dense");
    let sql =
        "select (select count(*) from minium.entry), (select count(distinct seq) from minium.entry_offset)";
    let row = client.query_one(sql, &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), given.len() as i64, "every entry has an offset");
    assert_eq!(row.get::<_, i64>(1), given.len() as i64, "none has two");
}

/// A peer of a bus topic, over a real socket.
pub(crate) async fn peer(bus: &Bus, topic: &Topic) -> WebSocketStream<TcpStream> {
    session(bus, topic.clone().into(), Role::Peer { echo: false }, Mode::Plain).await
}

/// A subscriber that asks for events, over a real socket.
pub(crate) async fn subscriber(bus: &Bus, filter: &str) -> WebSocketStream<TcpStream> {
    session(bus, filter.parse().unwrap(), Role::Subscribe, Mode::CloudEvents).await
}

async fn session(bus: &Bus, filter: Filter, role: Role, mode: Mode) -> WebSocketStream<TcpStream> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (client, accepted) =
        tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    let (socket, remote) = accepted.unwrap();
    bus.open(Opening {
        socket: socket.into_std().unwrap().into(),
        remote,
        role,
        mode,
        filter,
        start: None,
        answer: b"!".to_vec(),
        leftover: bytes::Bytes::new(),
        grant: None,
        permit: bus.admit().unwrap(),
    });
    let mut client = client.unwrap();
    // it is written once the peer is registered
    assert_eq!(wait::within("the answer", client.read_u8()).await.unwrap(), b'!');
    WebSocketStream::from_raw_socket(client, tungstenite::protocol::Role::Client, None).await
}

/// The next text that a peer hears.
pub(crate) async fn heard(peer: &mut WebSocketStream<TcpStream>) -> String {
    let message = wait::within("a message", peer.next()).await.expect("the socket is open").unwrap();
    message.into_text().unwrap().to_string()
}
