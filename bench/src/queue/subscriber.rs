//! From an event to a WebSocket subscriber, at a steady rate: jobs enqueued one at a time, run by the real worker, their
//! three events read from one socket of a real node. The clock starts at the event's `time`, which is taken inside the
//! statement, a little before its commit.

use super::database::{Database, Meter};
use super::ours::{Claims, Dress, Ours, TASK};
use super::rows;
use crate::report::{Figures, rounded};
use crate::road::{EVENTS_PER_JOB, enqueue_paced, read_events};
use crate::samples::percentile;
use anyhow::Context;
use minium_queue::Backend;
use minium_worker::{JobContext, StoreSource, Worker, WorkerOptions};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(super) async fn run(rate: u64, time: Duration, database: &Database) -> anyhow::Result<Figures> {
    let minium = Ours::open(Dress::Relayed, Claims { workers: 1, batch: 1 }, database).await?;
    let node = minium.node().context("the node")?;
    let url = format!("ws://{}/sub/task/{TASK}", node.address);
    let (mut socket, _) = tokio_tungstenite::connect_async(url).await.context("subscribing")?;
    let options = WorkerOptions { concurrency: 100, ..WorkerOptions::default() };
    let worker = Worker::new(StoreSource::new(minium.store.clone()), options)
        .task(TASK, |_: JobContext, _: serde_json::Value| async { Ok::<_, String>(()) });
    let (stop, mut working) = (CancellationToken::new(), JoinSet::new());
    let token = stop.clone();
    working.spawn(async move { worker.run(token).await });
    let producer = Backend::open(&database.url.parse()?).await?.store();

    let jobs = ((rate as f64 * time.as_secs_f64()) as u64 / EVENTS_PER_JOB).max(1);
    let (mut figures, meter) = (Figures::new(), Meter::begin(database, vec![], Some(node.pid)));
    let (sent, read) = tokio::join!(
        enqueue_paced(producer.as_ref(), TASK, rate, jobs),
        read_events(&mut socket, jobs * EVENTS_PER_JOB)
    );
    sent?;
    let mut latencies = read?;
    meter.end(jobs, &mut figures);
    socket.close(None).await.context("closing the subscription")?;
    stop.cancel();
    while let Some(ended) = working.join_next().await {
        ended.context("the worker")??;
    }
    minium.check(jobs, "finished", 3, database).await?;
    minium.end().await?;
    figures.insert(rows::ARRIVAL_P50.into(), rounded(percentile(&mut latencies, 50.0)));
    figures.insert(rows::ARRIVAL_P99.into(), rounded(percentile(&mut latencies, 99.0)));
    figures.insert("events_per_second".into(), rounded((jobs * EVENTS_PER_JOB) as f64 / meter.seconds()));
    Ok(figures)
}
