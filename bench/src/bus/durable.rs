//! Messages that are kept: how many a node acknowledges, and how long after its acknowledgement one arrives.
//!
//! Over `POST /pub/TOPIC`, where one connection waits for each answer: a publisher with many messages under way has as
//! many connections. A node that keeps no channel of one's own says so when it starts, and the scenario is left out.

use super::scenario as figure;
use super::scenario::Store;
use super::wire::{self, Scanner, Stamp};
use crate::machine;
use crate::node::Node;
use crate::report::{Figures, rounded};
use crate::samples::percentile;
use anyhow::{Context, bail, ensure};
use futures::StreamExt;
use memchr::memmem;
use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

const PUBLISHERS: usize = 4;
/// Messages of one publisher that may wait for their acknowledgement.
const UNDER_WAY: usize = 64;
const SIZE: usize = 128;
/// Messages per second in the second part.
const RATE: u64 = 2_000;
const TOPIC: &str = "kept/bench";
/// The configuration that makes it durable.
const SETTING: (&str, &str) = ("MINIUM_CHANNELS__KEPT__DURABLE", "true");
const QUIET: Duration = Duration::from_secs(5);

/// Runs both parts on a node of its own.
pub(super) async fn run(store: Store, database: Option<&str>, time: Duration) -> anyhow::Result<Figures> {
    let files = tempfile::tempdir().context("making a folder for a database")?;
    let url = url(store, database, files.path())?;
    let node = Node::start_with(&url, &[(SETTING.0.into(), SETTING.1.into())]).await;
    let node = node.context("durable channels are not supported by this node")?;
    node.ready().await?;
    let (all, server, us) =
        (machine::cpu_of_machine(), machine::cpu_of(node.pid)?, machine::cpu_of(std::process::id())?);
    let measured = LocalSet::new().run_until(both(&node.address, time)).await;
    let server = machine::cpu_of(node.pid)? - server;
    let us = machine::cpu_of(std::process::id())? - us;
    let database = machine::cpu_of_all("postgres");
    let foreign = machine::cpu_of_machine().saturating_sub(all).saturating_sub(server + us);
    let rss = machine::rss_of(node.pid)?;
    node.stop().await?;
    let mut figures = measured?;
    figures.insert(figure::SERVER_CPU.into(), rounded(server.as_secs_f64()));
    figures.insert(figure::CLIENT_CPU.into(), rounded(us.as_secs_f64()));
    // a database's share is in the foreign one when it is PostgreSQL's
    figures.insert(figure::FOREIGN_CPU.into(), rounded(foreign.as_secs_f64()));
    figures.insert("postgres_cpu_seconds_so_far".into(), rounded(database.as_secs_f64()));
    figures.insert(figure::RSS.into(), rounded(rss as f64));
    Ok(figures)
}

fn url(store: Store, database: Option<&str>, files: &Path) -> anyhow::Result<String> {
    match store {
        Store::SqliteFile => Ok(format!("sqlite:{}", files.join("bench.db").display())),
        Store::Postgres => match database.filter(|url| url.starts_with("postgres")) {
            Some(url) => Ok(url.to_owned()),
            None => bail!("no PostgreSQL was given: --database postgres://…"),
        },
    }
}

async fn both(address: &str, time: Duration) -> anyhow::Result<Figures> {
    let mut figures = Figures::new();
    let (count, seconds) = acknowledged(address, time).await?;
    figures.insert(figure::ACKED.into(), rounded((count as f64 / seconds).round()));
    let (mut delays, lost) = delays(address, time).await?;
    figures.insert(figure::LOST.into(), rounded(lost as f64));
    figures.insert(figure::ACK_TO_ARRIVAL_P50.into(), rounded(percentile(&mut delays, 50.0)));
    figures.insert(figure::ACK_TO_ARRIVAL_P99.into(), rounded(percentile(&mut delays, 99.0)));
    Ok(figures)
}

/// As many as four publishers get acknowledged, and in how many seconds.
async fn acknowledged(address: &str, time: Duration) -> anyhow::Result<(u64, f64)> {
    let began = Instant::now();
    let one = async |publisher: usize| -> anyhow::Result<u64> {
        let mut http = Http::open(address).await?;
        let mut count = 0;
        while began.elapsed() < time {
            http.publish(Stamp { at: 0, publisher: publisher as u16, sequence: count }).await?;
            count += 1;
        }
        Ok(count)
    };
    let all = (0..PUBLISHERS * UNDER_WAY).map(one);
    let counts = futures::future::try_join_all(all).await?;
    Ok((counts.iter().sum(), began.elapsed().as_secs_f64()))
}

/// When each message of the second part was acknowledged, and when it arrived.
#[derive(Default)]
struct Times {
    acked: Vec<Option<Instant>>,
    arrived: Vec<Option<Instant>>,
}

/// Milliseconds from acknowledgement to arrival at a steady rate, and how many did not arrive.
async fn delays(address: &str, time: Duration) -> anyhow::Result<(Vec<f64>, usize)> {
    let count = (RATE as f64 * time.as_secs_f64()) as usize;
    let times = Rc::new(RefCell::new(Times { acked: vec![None; count], arrived: vec![None; count] }));
    let (mut socket, _) = tokio_tungstenite::connect_async(format!("ws://{address}/sub/{TOPIC}"))
        .await
        .context("subscribing")?;
    let arrivals = times.clone();
    let reader = async move {
        let (finder, mut scanner, mut left) = (memmem::Finder::new(b"@@"), Scanner::default(), count);
        while left > 0 {
            let Ok(Some(frame)) = tokio::time::timeout(QUIET, socket.next()).await else { break };
            let (now, frame) = (Instant::now(), frame.context("the subscription")?);
            scanner.scan(&frame.into_data(), &finder, |stamp| {
                arrivals.borrow_mut().arrived[stamp.sequence as usize] = Some(now);
                left -= 1;
            });
        }
        Ok(())
    };
    // every connection takes the next message that is due
    let (began, next) = (Instant::now(), RefCell::new(0..count as u64));
    let writer = async |_: usize| -> anyhow::Result<()> {
        let mut http = Http::open(address).await?;
        loop {
            let Some(sequence) = next.borrow_mut().next() else { return Ok(()) };
            let due = Duration::from_secs_f64(sequence as f64 / RATE as f64);
            tokio::time::sleep_until((began + due).into()).await;
            http.publish(Stamp { at: 0, publisher: 0, sequence }).await?;
            times.borrow_mut().acked[sequence as usize] = Some(Instant::now());
        }
    };
    let writers = futures::future::try_join_all((0..PUBLISHERS * UNDER_WAY).map(writer));
    let (read, written) = tokio::join!(reader, writers);
    read.and(written.map(drop))?;
    let times = times.borrow();
    let pairs = times.acked.iter().zip(&times.arrived);
    let delays: Vec<f64> = pairs
        .filter_map(|(acked, arrived)| Some(arrived.as_ref()?.saturating_duration_since((*acked)?)))
        .map(|d| d.as_secs_f64() * 1e3)
        .collect();
    let lost = count - delays.len();
    Ok((delays, lost))
}

/// A connection that is kept.
struct Http {
    socket: TcpStream,
    address: String,
    buffer: Vec<u8>,
    body: Vec<u8>,
}

impl Http {
    async fn open(address: &str) -> anyhow::Result<Http> {
        let socket = TcpStream::connect(address).await.context("connecting")?;
        socket.set_nodelay(true)?;
        Ok(Http { socket, address: address.into(), buffer: Vec::new(), body: Vec::new() })
    }

    /// Publishes one message and waits until it is kept.
    async fn publish(&mut self, stamp: Stamp) -> anyhow::Result<()> {
        self.body.clear();
        wire::payload(&mut self.body, SIZE, stamp);
        let head = format!(
            "POST /pub/{TOPIC} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {SIZE}\r\n\r\n",
            self.address
        );
        self.socket.write_all(&[head.as_bytes(), &self.body].concat()).await?;
        self.buffer.clear();
        let end = loop {
            ensure!(self.socket.read_buf(&mut self.buffer).await? > 0, "the node hung up");
            if let Some(end) = memmem::find(&self.buffer, b"\r\n\r\n") {
                break end + 4;
            }
        };
        let head = String::from_utf8_lossy(&self.buffer[..end]).to_ascii_lowercase();
        let length = head.split("content-length:").nth(1).and_then(|rest| rest.lines().next());
        let length: usize = length.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        while self.buffer.len() < end + length {
            ensure!(self.socket.read_buf(&mut self.buffer).await? > 0, "the node hung up");
        }
        let body = String::from_utf8_lossy(&self.buffer[end..]);
        ensure!(head.starts_with("http/1.1 2"), "a publish was refused: {body}");
        ensure!(
            body.contains("\"offset\""),
            "durable channels are not supported by this node: it answered {body:?}"
        );
        Ok(())
    }
}
