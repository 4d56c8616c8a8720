//! Measures the sequencer and the relay on a PostgreSQL of one's own:
//! `cargo run --release -p minium-notifier --example measure -- postgres://…`
//!
//! Makes the schema in the database that is named, which should be empty, and prints what it found: how fast a
//! backlog is numbered and relayed, what a look at a silent journal costs, and how long an event is on its way at a
//! steady rate.

#![allow(clippy::print_stdout, reason = "it is what this program is for")]

use futures::StreamExt;
use minium_bus::{Backing, Bus, Options};
use minium_notifier::{EnvelopeOptions, Journal, Relay, RelayHandle, RelayOptions, RelayState};
use minium_queue::Backend;
use std::error::Error;
use std::time::{Duration, Instant};
use tokio_postgres::{Client, NoTls};
use tokio_util::sync::CancellationToken;

type Fault = Box<dyn Error + Send + Sync>;

const BACKLOG: u64 = 100_000;
const RATE: u64 = 500;
const SECONDS: u64 = 10;
const WRITERS: u64 = 4;

struct Node {
    bus: Bus,
    relay: RelayHandle,
    stop: CancellationToken,
}

impl Node {
    fn start(journal: &Journal) -> Result<Node, Fault> {
        let bus = Bus::start(
            Options::default(),
            Backing { history: Some(journal.history()), ..Backing::default() },
        )?;
        let stop = CancellationToken::new();
        let relay = Relay::start(journal, bus.clone(), RelayOptions::default(), stop.clone());
        Ok(Node { bus, relay, stop })
    }

    async fn relayed(&self, offset: u64) -> Result<(), Fault> {
        let reached = |s: &RelayState| matches!(s, RelayState::Relaying(p) if p.offset >= offset);
        self.relay.states().wait_for(reached).await?;
        Ok(())
    }

    async fn stop(self) {
        self.stop.cancel();
        self.relay.join().await;
        self.bus.shutdown(Duration::from_secs(1)).await;
    }
}

async fn connect(url: &str) -> Result<Client, Fault> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    drop(tokio::spawn(connection));
    Ok(client)
}

/// Some hundred bytes to a kilobyte, as snapshots are.
const DATA: &str = "json_build_object('id', i, 'sent', $1::text, 'args', (select array_agg(md5(i::text || n)) from generate_series(1, 30) n))";

/// So that no measured part pays for what came before it.
async fn settle(client: &Client) -> Result<(), Fault> {
    client.batch_execute("vacuum analyze minium.entry, minium.entry_offset, minium.journal_cursor").await?;
    Ok(client.batch_execute("checkpoint").await?)
}

async fn drain(url: &str, journal: &Journal) -> Result<u64, Fault> {
    let client = connect(url).await?;
    let sql = format!(
        "insert into minium.entry (topic, type, subject, data)
         select 'task/import/' || i / 3, 'task.finished', (i / 3)::text, {DATA} from generate_series(1, {BACKLOG}) i"
    );
    client.execute(&sql, &[&""]).await?;
    settle(&client).await?;
    let sql_only = Instant::now();
    client.batch_execute("begin").await?;
    client.batch_execute("rollback; begin isolation level repeatable read").await?;
    let count: i64 = client
        .query_one("select last_offset from minium.journal_step(1000000, 0, 0, interval '0')", &[])
        .await?
        .get(0);
    let seconds = sql_only.elapsed().as_secs_f64();
    client.batch_execute("rollback").await?;
    println!(
        "numbering alone, one step: {:.0} events/s, {:.1} us each",
        count as f64 / seconds,
        seconds * 1e6 / count as f64
    );
    settle(&client).await?;

    let node = Node::start(journal)?;
    let start = Instant::now();
    node.relayed(BACKLOG).await?;
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "backlog of {BACKLOG}, numbered, read and relayed: {:.0} events/s in {seconds:.2} s",
        BACKLOG as f64 / seconds
    );
    node.stop().await;

    let steps = 2_000;
    let start = Instant::now();
    for _ in 0..steps {
        client.batch_execute("begin isolation level repeatable read; select from minium.journal_step(1000, 0, 0, interval '0'); commit").await?;
    }
    let each = start.elapsed().as_secs_f64() / f64::from(steps);
    println!("steps that find nothing: {:.0}/s, {:.0} us each", 1.0 / each, each * 1e6);
    Ok(BACKLOG)
}

fn percentile(sorted: &[f64], p: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * p) as usize]
}

async fn latency(url: &str, journal: &Journal) -> Result<(), Fault> {
    let node = Node::start(journal)?;
    node.relayed(0).await?;
    let mut subscription = node.bus.subscribe("task".parse()?, None, None, node.bus.admit()?).await?;
    let begin = Instant::now();
    let mut writers = tokio::task::JoinSet::new();
    for w in 0..WRITERS {
        let client = connect(url).await?;
        writers.spawn(async move {
            let sql = format!(
                "insert into minium.entry (topic, type, subject, data)
                 select 'task/import/' || i, 'task.enqueue', i::text, {DATA} from generate_series(1, 1) i"
            );
            let statement = client.prepare(&sql).await?;
            let mut acked = Vec::new();
            for n in 0..RATE * SECONDS / WRITERS {
                let due = Duration::from_micros(1_000_000 * (n * WRITERS + w) / RATE);
                tokio::time::sleep_until((begin + due).into()).await;
                let name = format!("{w}-{n}");
                client.execute(&statement, &[&name]).await?;
                acked.push((name, begin.elapsed()));
            }
            Ok::<_, tokio_postgres::Error>(acked)
        });
    }
    let mut arrived = std::collections::HashMap::new();
    let mut rest = String::new();
    while arrived.len() < (RATE * SECONDS) as usize {
        let chunk = subscription.next().await.ok_or("the stream ended")?;
        let now = begin.elapsed();
        rest.push_str(std::str::from_utf8(&chunk)?);
        while let Some(end) = rest.find("\n\n") {
            if let Some((_, name)) = rest[..end].split_once("\"sent\" : \"") {
                arrived.insert(name.split('"').next().unwrap_or_default().to_owned(), now);
            }
            rest.drain(..end + 2);
        }
    }
    let mut ms = Vec::new();
    while let Some(acked) = writers.join_next().await {
        for (name, at) in acked?? {
            ms.push((arrived[&name].as_secs_f64() - at.as_secs_f64()) * 1e3);
        }
    }
    ms.sort_by(f64::total_cmp);
    println!(
        "{RATE} events/s, from commit to subscriber: p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms, {} events",
        percentile(&ms, 0.5),
        percentile(&ms, 0.99),
        percentile(&ms, 1.0),
        ms.len()
    );
    node.stop().await;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Fault> {
    let url = std::env::args().nth(1).ok_or("the URL of an empty database is missing")?;
    let backend = Backend::open(&url.parse()?).await?;
    backend.migrate().await?;
    if !matches!(backend, Backend::Postgres(_)) {
        return Err("this measures PostgreSQL".into());
    }
    let journal = Journal::open(&backend, EnvelopeOptions::default());
    drain(&url, &journal).await?;
    latency(&url, &journal).await
}
