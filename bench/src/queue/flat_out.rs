//! Flat out: a producer keeps ten thousand jobs ready (`--ready`), a twentieth of them in each call, two workers finish and claim, a node numbers and relays; with or
//! without a transaction that holds back vacuum, so that dead rows and dead index entries pile up.

use super::database::{Connection, Database, Meter};
use super::load::Work;
use super::ours::{self, Claims, Dress, Hands, Ours, TASK};
use super::rows::{self, Beside, Contender};
use crate::report::{Figures, rounded};
use anyhow::Context;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const WINDOWS: u32 = 12;

/// What producer and workers know of each other.
#[derive(Default)]
struct Shared {
    enqueued: AtomicU64,
    claimed: AtomicU64,
    stop: AtomicBool,
}

impl Shared {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

pub(super) async fn run(
    contender: &Contender,
    claims: Claims,
    ready: u64,
    time: Duration,
    database: &Database,
) -> anyhow::Result<Figures> {
    let minium = Ours::open(Dress::Relayed, claims, database).await?;
    minium.bulk(Work { jobs: ready, bytes: contender.bytes }, rows::BULK).await?;
    minium.all_numbered(database).await?;
    database.settle().await?;
    let holder = match contender.beside {
        Beside::Snapshot => Some(hold(database).await?),
        Beside::Nothing | Beside::Finished => None,
    };

    let shared = Arc::new(Shared::default());
    shared.enqueued.store(ready, Ordering::Relaxed);
    let mut tasks: JoinSet<anyhow::Result<()>> = JoinSet::new();
    tasks.spawn(produce(minium.store.clone(), shared.clone(), Work { jobs: ready, bytes: contender.bytes }));
    let (meter, wal) =
        (Meter::begin(database, vec![], minium.node().map(|n| n.pid)), database.wal_position().await?);
    for _ in 0..claims.workers {
        let hands = Hands::register(minium.store.clone(), TASK, claims.batch).await?;
        tasks.spawn(work(hands, shared.clone()));
    }
    let rates = watch(&shared, time, &mut tasks).await?;
    let (mut figures, done) = (Figures::new(), shared.claimed.load(Ordering::Relaxed));
    meter.end(done, &mut figures);
    let wal = database.wal_position().await? - wal;
    shared.stop.store(true, Ordering::Relaxed);
    while let Some(ended) = tasks.join_next().await {
        ended.context("flat out")??;
    }
    drop(holder);
    let behind = minium.all_numbered(database).await?;
    // what the producer was ahead
    minium.drain().await?;
    minium.check(shared.enqueued.load(Ordering::Relaxed), "finished", 3, database).await?;
    minium.end().await?;

    let third = rates.len() / 3;
    let steadiness = mean(&rates[rates.len() - third..]) / mean(&rates[..third]);
    figures.insert(rows::WINDOWS.into(), json!(rates.iter().map(|r| r.round()).collect::<Vec<_>>()));
    figures.insert(rows::STEADINESS.into(), rounded(steadiness));
    figures.insert(rows::BEHIND.into(), rounded(behind as f64));
    figures.insert(rows::WAL.into(), rounded((wal as f64 / done as f64).round()));
    Ok(figures)
}

fn mean(rates: &[f64]) -> f64 {
    rates.iter().sum::<f64>() / rates.len() as f64
}

/// A transaction that sees the database as it is now, until it is dropped.
async fn hold(database: &Database) -> anyhow::Result<Connection> {
    let holder = database.connect().await?;
    let begin = "begin isolation level repeatable read; select count(*) from minium.worker";
    holder.client.batch_execute(begin).await.context("holding a snapshot")?;
    Ok(holder)
}

async fn produce(store: Arc<dyn minium_queue::Store>, shared: Arc<Shared>, kept: Work) -> anyhow::Result<()> {
    let call = Work { jobs: (kept.jobs / 20).max(1), ..kept };
    while !shared.stopped() {
        let ready = shared.enqueued.load(Ordering::Relaxed) - shared.claimed.load(Ordering::Relaxed);
        if ready + call.jobs > kept.jobs {
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        }
        ours::enqueue(store.as_ref(), TASK, call, rows::BULK).await?;
        shared.enqueued.fetch_add(call.jobs, Ordering::Relaxed);
    }
    Ok(())
}

async fn work(mut hands: Hands, shared: Arc<Shared>) -> anyhow::Result<()> {
    while !shared.stopped() {
        let claimed = hands.turn().await?;
        shared.claimed.fetch_add(claimed as u64, Ordering::Relaxed);
        if claimed == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    hands.leave().await.map(drop)
}

/// Jobs a second in each of the windows, of which the first begins with the first claim: a machine that takes its time to
/// get there has not been slow. Whoever fails meanwhile ends it.
async fn watch(
    shared: &Shared,
    time: Duration,
    tasks: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<Vec<f64>> {
    while shared.claimed.load(Ordering::Relaxed) == 0 {
        working_until(Instant::now() + Duration::from_millis(1), tasks).await?;
    }
    let began = Instant::now();
    let (mut before, mut rates) = ((began, 0), Vec::new());
    for window in 1..=WINDOWS {
        working_until(began + time * window / WINDOWS, tasks).await?;
        let now = (Instant::now(), shared.claimed.load(Ordering::Relaxed));
        rates.push((now.1 - before.1) as f64 / (now.0 - before.0).as_secs_f64());
        before = now;
    }
    Ok(rates)
}

async fn working_until(end: Instant, tasks: &mut JoinSet<anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::select! {
        () = tokio::time::sleep_until(end.into()) => Ok(()),
        Some(ended) = tasks.join_next() => ended.context("flat out")?.and(Err(anyhow::anyhow!("it ended"))),
    }
}
