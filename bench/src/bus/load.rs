//! The load: many subscribers on one thread, and one publisher with a window.

use super::wire::{self, Counter};
use anyhow::{Context, ensure};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use std::cell::{Cell, RefCell};
use std::io::ErrorKind::WouldBlock;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::LocalSet;

/// So many handshakes are under way at once.
const OPENING_AT_ONCE: usize = 128;
/// Nothing has arrived for so long: the rest is lost.
const QUIET: Duration = Duration::from_secs(10);
/// Latencies beyond this many are not kept.
const LATENCIES_MAX: usize = 2_000_000;

/// What to publish.
pub(super) struct Flood {
    pub(super) window: u64,
    pub(super) size: usize,
    pub(super) time: Duration,
    /// Messages per second; without it as many as the window lets through.
    pub(super) rate: Option<u64>,
}

/// What arrived.
pub(super) struct Flooded {
    pub(super) deliveries: u64,
    pub(super) seconds: f64,
    pub(super) latencies_ms: Vec<f64>,
}

/// Open subscriptions.
pub(super) struct Subscribers(Vec<(TcpStream, Vec<u8>)>);

#[derive(Default)]
struct Tally {
    deliveries: Cell<u64>,
    latencies_ms: RefCell<Vec<f64>>,
    changed: Notify,
    failed: RefCell<Option<String>>,
}

impl Subscribers {
    pub(super) async fn open(address: &str, path: &str, count: usize) -> anyhow::Result<Subscribers> {
        let mut opened = Vec::with_capacity(count);
        let mut opening = FuturesUnordered::new();
        let mut left = count;
        while left > 0 || !opening.is_empty() {
            while left > 0 && opening.len() < OPENING_AT_ONCE {
                opening.push(wire::open(address, path));
                left -= 1;
            }
            if let Some(socket) = opening.next().await {
                opened.push(socket.context("opening a subscription")?);
            }
        }
        Ok(Subscribers(opened))
    }

    /// Publishes, and waits until every message has reached every subscriber.
    pub(super) async fn flood(
        &mut self,
        address: &str,
        path: &str,
        flood: &Flood,
    ) -> anyhow::Result<Flooded> {
        let (publisher, _) = wire::open(address, path).await.context("opening the publisher")?;
        let epoch = Instant::now();
        let tally = Rc::new(Tally::default());
        let subscribers = self.0.len() as u64;
        let sockets = std::mem::take(&mut self.0);
        let local = LocalSet::new();
        let readers: Vec<_> = sockets
            .into_iter()
            .map(|socket| local.spawn_local(read(socket, tally.clone(), epoch, flood.rate.is_some())))
            .collect();
        let done = local.run_until(publish(publisher, flood, subscribers, &tally, epoch)).await;
        for reader in readers {
            reader.abort();
            // an aborted reader gives its socket up; the subscription ends with it
            local.run_until(reader).await.ok();
        }
        done?;
        let latencies_ms = tally.latencies_ms.take();
        Ok(Flooded {
            deliveries: tally.deliveries.get(),
            seconds: epoch.elapsed().as_secs_f64(),
            latencies_ms,
        })
    }

    pub(super) async fn close(self) {
        for (mut socket, _) in self.0 {
            // the server may have closed first
            socket.shutdown().await.ok();
        }
    }
}

/// Reads one subscription to its end, counting.
async fn read((socket, early): (TcpStream, Vec<u8>), tally: Rc<Tally>, epoch: Instant, timed: bool) {
    let mut counter = Counter::default();
    let mut buffer = vec![0; 64 * 1024];
    let take = |counter: &mut Counter, bytes: &[u8]| {
        let (mut count, now) = (0, epoch.elapsed().as_nanos() as u64);
        counter.advance(bytes, |stamp| {
            count += 1;
            let mut latencies = tally.latencies_ms.borrow_mut();
            if timed && latencies.len() < LATENCIES_MAX {
                latencies.push(now.saturating_sub(stamp) as f64 / 1e6);
            }
        });
        tally.deliveries.set(tally.deliveries.get() + count);
        tally.changed.notify_one();
    };
    take(&mut counter, &early);
    loop {
        match socket.try_read(&mut buffer) {
            Ok(n) if n > 0 => take(&mut counter, &buffer[..n]),
            Err(e) if e.kind() == WouldBlock => {
                if socket.readable().await.is_ok() {
                    continue;
                }
                return;
            }
            end => {
                *tally.failed.borrow_mut() = Some(format!("a subscription ended: {end:?}"));
                tally.changed.notify_one();
                return;
            }
        }
    }
}

async fn publish(
    mut socket: TcpStream,
    flood: &Flood,
    subscribers: u64,
    tally: &Tally,
    epoch: Instant,
) -> anyhow::Result<()> {
    let mut clock = flood.rate.map(|rate| tokio::time::interval(Duration::from_secs_f64(1.0 / rate as f64)));
    let (mut sent, mut bytes) = (0, Vec::new());
    while epoch.elapsed() < flood.time {
        let arrived = tally.deliveries.get() / subscribers;
        let room = match &mut clock {
            Some(clock) => {
                clock.tick().await;
                1
            }
            None => flood.window - (sent - arrived),
        };
        if room == 0 {
            wait(tally, sent, subscribers).await?;
            continue;
        }
        bytes.clear();
        (0..room).for_each(|_| wire::message(&mut bytes, flood.size, epoch));
        socket.write_all(&bytes).await.context("publishing")?;
        sent += room;
    }
    while tally.deliveries.get() < sent * subscribers {
        wait(tally, sent, subscribers).await?;
    }
    ensure!(tally.deliveries.get() == sent * subscribers, "more arrived than was sent");
    Ok(())
}

/// Until something more has arrived.
async fn wait(tally: &Tally, sent: u64, subscribers: u64) -> anyhow::Result<()> {
    let waited = tokio::time::timeout(QUIET, tally.changed.notified()).await;
    let (got, due) = (tally.deliveries.get(), sent * subscribers);
    waited.with_context(|| format!("{got} of {due} deliveries came, then none"))?;
    let failed = tally.failed.borrow_mut().take();
    ensure!(failed.is_none(), "{}", failed.unwrap_or_default());
    Ok(())
}
