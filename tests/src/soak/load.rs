//! Clients of every kind that come and go. One turn of a client opens what it needs and gives it back, one way or
//! another; a client takes its turns until the run ends. What the node refuses as documented is no fault.

use super::Fault;
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// The kinds of clients; each has a figure of its own in the report.
pub(crate) const KINDS: [&str; 10] = [
    "visitors",
    "listeners",
    "publishers",
    "posts",
    "deaf",
    "pushers",
    "pullers",
    "resumes",
    "jobs",
    "refusals",
];

/// How many there are of each.
const CLIENTS: [usize; KINDS.len()] = [16, 8, 4, 2, 2, 2, 3, 4, 2, 2];

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// What all clients know.
pub(crate) struct Ground {
    address: SocketAddr,
    http: reqwest::Client,
    done: [AtomicU64; KINDS.len()],
}

impl Ground {
    pub(crate) fn new(address: SocketAddr) -> Arc<Ground> {
        Arc::new(Ground { address, http: reqwest::Client::new(), done: Default::default() })
    }

    /// How much each kind has done so far.
    pub(crate) fn done(&self) -> [u64; KINDS.len()] {
        std::array::from_fn(|kind| self.done[kind].load(Ordering::Relaxed))
    }

    /// Starts all clients. A task that ends has met with a fault.
    pub(crate) fn start(self: &Arc<Ground>) -> JoinSet<Fault> {
        let mut clients = JoinSet::new();
        for (kind, count) in CLIENTS.into_iter().enumerate() {
            for _ in 0..count {
                let ground = self.clone();
                clients.spawn(async move {
                    let mut position = None;
                    loop {
                        match ground.turn(kind, &mut position).await {
                            Ok(done) => _ = ground.done[kind].fetch_add(done, Ordering::Relaxed),
                            Err(fault) => return format!("{}: {fault}", KINDS[kind]).into(),
                        }
                    }
                });
            }
        }
        clients
    }

    /// One turn; gives how much was done.
    async fn turn(&self, kind: usize, position: &mut Option<String>) -> Result<u64, Fault> {
        match KINDS[kind] {
            "visitors" => self.visit().await,
            "listeners" => self.listen().await,
            "publishers" => self.speak("/pub/soak", 100, 10).await,
            "posts" => self.post().await,
            "deaf" => self.be_deaf().await,
            "pushers" => self.speak("/push/soak", 100, 20).await,
            "pullers" => self.pull().await,
            "resumes" => self.resume(position).await,
            "jobs" => self.enqueue().await,
            _ => self.offend().await,
        }
    }

    async fn open(&self, path: &str) -> Result<Socket, Fault> {
        let url = format!("ws://{}{path}", self.address);
        Ok(tokio_tungstenite::connect_async(url).await.map_err(|e| format!("{path}: {e}"))?.0)
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Comes to one topic for a moment.
    async fn visit(&self) -> Result<u64, Fault> {
        let mut socket = self.open(&format!("/sub/soak/{}", fastrand::u32(..200))).await?;
        read_for(&mut socket, fastrand::u64(50..1_500)).await?;
        leave(socket).await;
        Ok(1)
    }

    /// Hears everything for a while.
    async fn listen(&self) -> Result<u64, Fault> {
        let mode = ["/sub/soak", "/sub/+/7"][fastrand::usize(..2)];
        let mut socket = self.open(mode).await?;
        let heard = read_for(&mut socket, 10_000).await?;
        leave(socket).await;
        Ok(heard)
    }

    /// Sends messages of all sizes at a steady pace.
    async fn speak(&self, path: &str, count: u64, pause_ms: u64) -> Result<u64, Fault> {
        let topic =
            if path.starts_with("/pub") { format!("{path}/{}", fastrand::u32(..200)) } else { path.into() };
        let mut socket = self.open(&topic).await?;
        let mut pace = tokio::time::interval(Duration::from_millis(pause_ms));
        for _ in 0..count {
            pace.tick().await;
            let size = 1 << fastrand::u32(4..15);
            socket.send(Message::binary(vec![b'x'; size])).await?;
        }
        // what was refused (no puller, the buffer full) is told by now
        read_for(&mut socket, 10).await?;
        leave(socket).await;
        Ok(count)
    }

    async fn post(&self) -> Result<u64, Fault> {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let url = self.url(&format!("/pub/soak/{}", fastrand::u32(..200)));
        let answer = self.http.post(url).body("y".repeat(fastrand::usize(1..60_000))).send().await?;
        expect(&answer, &[200])?;
        Ok(1)
    }

    /// Subscribes to everything, reads nothing, and goes without a word.
    async fn be_deaf(&self) -> Result<u64, Fault> {
        let socket = self.open("/sub/soak").await?;
        tokio::time::sleep(Duration::from_secs(5)).await;
        drop(socket);
        Ok(1)
    }

    async fn pull(&self) -> Result<u64, Fault> {
        let mut socket = self.open("/pull/soak").await?;
        let taken = read_for(&mut socket, fastrand::u64(200..4_000)).await?;
        leave(socket).await;
        Ok(taken)
    }

    /// Reads on where it left off, each time on a new connection.
    async fn resume(&self, position: &mut Option<String>) -> Result<u64, Fault> {
        let from = position.as_ref().map_or("last=50".into(), |p| format!("after={p}"));
        let url = format!("ws://{}/sub/task/soak?{from}", self.address);
        let mut socket = match tokio_tungstenite::connect_async(url).await {
            Ok((socket, _)) => socket,
            // let go in the meantime, as it may be
            Err(Error::Http(answer)) if answer.status() == 410 => {
                *position = None;
                return Ok(0);
            }
            Err(fault) => return Err(fault.into()),
        };
        let until = tokio::time::Instant::now() + Duration::from_millis(fastrand::u64(100..2_000));
        let mut heard = 0;
        while let Ok(Some(message)) = tokio::time::timeout_at(until, socket.next()).await {
            let Message::Text(text) = message? else { continue };
            let event: Value = serde_json::from_str(&text)?;
            let offset: u64 = event["sequence"].as_str().ok_or("no sequence")?.parse()?;
            *position = Some(format!("{}:{offset}", event["epoch"].as_str().ok_or("no epoch")?));
            heard += 1;
        }
        leave(socket).await;
        Ok(heard)
    }

    /// Enqueues for the worker in the node, and looks at what there is.
    async fn enqueue(&self) -> Result<u64, Fault> {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let job = json!({ "task": "soak", "args": ["x".repeat(fastrand::usize(..2_000))] });
        let answer = self.http.post(self.url("/api/v1/jobs")).json(&json!([job, job, job])).send().await?;
        expect(&answer, &[201])?;
        for path in ["/api/v1/jobs?limit=50", "/api/v1/stats", "/metrics"] {
            let answer = self.http.get(self.url(path)).send().await?;
            expect(&answer, &[200])?;
            answer.bytes().await?;
        }
        Ok(3)
    }

    /// Does what is refused, in four ways.
    async fn offend(&self) -> Result<u64, Fault> {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let answer = self.http.post(self.url("/pub/livesys/7")).body("{").send().await?;
        expect(&answer, &[400])?;
        let answer = self.http.get(self.url("/sub/soak")).header("Origin", "http://evil.net").send().await?;
        expect(&answer, &[401])?;
        let url = format!("ws://{}/sub/a//b", self.address);
        match tokio_tungstenite::connect_async(url).await {
            Err(Error::Http(answer)) if answer.status() == 400 => {}
            other => return Err(format!("a bad topic: {other:?}").into()),
        }
        let mut socket = self.open("/pub/soak/7").await?;
        socket.send(Message::binary(vec![0; 300_000])).await.ok();
        while socket.next().await.is_some_and(|m| m.is_ok()) {}
        Ok(4)
    }
}

fn expect(answer: &reqwest::Response, statuses: &[u16]) -> Result<(), Fault> {
    let status = answer.status().as_u16();
    if statuses.contains(&status) { Ok(()) } else { Err(format!("{}: {status}", answer.url()).into()) }
}

/// Reads for so long and counts messages. A session that is closed as too slow has ended by itself.
async fn read_for(socket: &mut Socket, ms: u64) -> Result<u64, Fault> {
    let until = tokio::time::Instant::now() + Duration::from_millis(ms);
    let mut heard = 0;
    while let Ok(Some(message)) = tokio::time::timeout_at(until, socket.next()).await {
        match message? {
            Message::Close(Some(close)) if u16::from(close.code) != 4000 => {
                return Err(format!("closed with {close:?}").into());
            }
            message if message.is_text() || message.is_binary() => heard += 1,
            _ => {}
        }
    }
    Ok(heard)
}

/// Half of them say goodbye and wait for the answer, half just go.
async fn leave(mut socket: Socket) {
    if fastrand::bool() {
        // it may be closed already
        socket.close(None).await.ok();
        while socket.next().await.is_some_and(|m| m.is_ok()) {}
    }
}
