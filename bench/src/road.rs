//! The whole road: jobs enqueued in bulk, run by a worker over the database, and their three events read from one
//! WebSocket at `/sub/task/…`.
//!
//! Throughput is all jobs over the time from the first enqueue to the arrival of the last event. Latency is taken in a
//! second part at a steady rate: from the event's `time` (written inside the transition's statement, so a little
//! before its commit) to the arrival of the frame, by the one clock of this machine.

use crate::node::Node;
use crate::report::{Figures, Report, rounded};
use crate::samples::percentile;
use crate::{Common, machine};
use anyhow::{Context, bail, ensure};
use futures::StreamExt;
use jiff::Timestamp;
use minium_protocol::{CloudEvent, EnqueueRequest};
use minium_queue::{Backend, Store};
use minium_worker::{JobContext, StoreSource, Worker, WorkerOptions};
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, tungstenite::Message};
use tokio_util::sync::CancellationToken;

/// Of a job that nothing disturbs.
pub(crate) const EVENTS_PER_JOB: u64 = 3;
const QUIET: Duration = Duration::from_secs(30);

/// Options of `minium bench road`.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// The database; it is migrated, and the rows stay in it
    #[arg(long, env = "MINIUM_DATABASE__URL", hide_env_values = true, value_name = "URL")]
    database: String,
    /// How many jobs go the road flat out
    #[arg(long, default_value_t = 20_000)]
    jobs: u64,
    /// How many jobs in one enqueue
    #[arg(long, default_value_t = 500)]
    bulk: usize,
    /// How many jobs run at once
    #[arg(long, default_value_t = 500)]
    concurrency: usize,
    /// Events per second in the part that takes latency
    #[arg(long, default_value_t = 500)]
    rate: u64,
    /// How long to take latency
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// How often to run it; medians are told
    #[arg(long, default_value_t = 5)]
    runs: usize,
    #[command(flatten)]
    common: Common,
}

pub(crate) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Runs the bench.
pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    let backend = Backend::open(&options.database.parse()?).await.context("opening the database")?;
    backend.migrate().await.context("migrating the database")?;
    let node = Node::start(&options.database).await?;
    node.ready().await?;
    let settings = json!({ "jobs": options.jobs, "bulk": options.bulk, "concurrency": options.concurrency,
        "rate": options.rate, "seconds": options.seconds });
    let mut report = Report::new("road", settings);
    for round in 0..options.runs {
        report.add(one_run(&backend.store(), &node, options, round).await?);
    }
    node.stop().await?;
    report.finish(&options.common)
}

async fn one_run(
    store: &Arc<dyn Store>,
    node: &Node,
    options: &Options,
    round: usize,
) -> anyhow::Result<Figures> {
    let task = format!("bench/road/{}-{round}", std::process::id());
    let (mut socket, _) = tokio_tungstenite::connect_async(format!("ws://{}/sub/task/{task}", node.address))
        .await
        .context("subscribing")?;
    let stop = CancellationToken::new();
    let worker_options = WorkerOptions { concurrency: options.concurrency, ..WorkerOptions::default() };
    let worker = Worker::new(StoreSource::new(store.clone()), worker_options)
        .task(&task, |_: JobContext, _: serde_json::Value| async { Ok::<_, String>(()) });
    let mut working = JoinSet::new();
    let token = stop.clone();
    working.spawn(async move { worker.run(token).await });

    let (all, serve, database) =
        (machine::cpu_of_machine(), machine::cpu_of(node.pid)?, machine::cpu_of_all("postgres"));
    let us = machine::cpu_of(std::process::id())?;
    let started = Instant::now();
    let events = options.jobs * EVENTS_PER_JOB;
    let (sent, read) =
        tokio::join!(enqueue(store.as_ref(), options, &task), read_events(&mut socket, events));
    sent?;
    read?;
    let seconds = started.elapsed().as_secs_f64();
    let serve = machine::cpu_of(node.pid)? - serve;
    let us = machine::cpu_of(std::process::id())? - us;
    let database = machine::cpu_of_all("postgres").saturating_sub(database);
    let foreign = machine::cpu_of_machine().saturating_sub(all).saturating_sub(serve + us + database);

    let paced = options.rate * options.seconds / EVENTS_PER_JOB;
    let (sent, read) = tokio::join!(
        enqueue_paced(store.as_ref(), &task, options.rate, paced),
        read_events(&mut socket, paced * EVENTS_PER_JOB)
    );
    sent?;
    let mut latencies = read?;
    socket.close(None).await.context("closing the subscription")?;
    stop.cancel();
    while let Some(ended) = working.join_next().await {
        ended.context("the worker")??;
    }

    let jobs = options.jobs as f64;
    let mut figures = Figures::new();
    figures.insert("jobs_per_second".into(), rounded((jobs / seconds).round()));
    figures.insert("events_per_second".into(), rounded((jobs * 3.0 / seconds).round()));
    figures.insert("latency_p50_ms".into(), rounded(percentile(&mut latencies, 50.0)));
    figures.insert("latency_p99_ms".into(), rounded(percentile(&mut latencies, 99.0)));
    figures.insert("serve_cpu_us_per_job".into(), rounded(serve.as_secs_f64() * 1e6 / jobs));
    figures.insert("worker_and_load_cpu_us_per_job".into(), rounded(us.as_secs_f64() * 1e6 / jobs));
    figures.insert("database_cpu_us_per_job".into(), rounded(database.as_secs_f64() * 1e6 / jobs));
    figures.insert("foreign_cpu_seconds".into(), rounded(foreign.as_secs_f64()));
    Ok(figures)
}

fn requests(task: &str, count: usize) -> Vec<EnqueueRequest> {
    let args = serde_json::value::to_raw_value(&["x".repeat(56)]).expect("an array of strings is JSON");
    (0..count).map(|_| EnqueueRequest::new(task, args.clone())).collect()
}

async fn enqueue(store: &dyn Store, options: &Options, task: &str) -> anyhow::Result<()> {
    let mut left = options.jobs as usize;
    while left > 0 {
        let count = left.min(options.bulk);
        store.enqueue(&requests(task, count)).await?;
        left -= count;
    }
    Ok(())
}

/// One job at a time, so that the events flow at the asked rate.
pub(crate) async fn enqueue_paced(store: &dyn Store, task: &str, rate: u64, jobs: u64) -> anyhow::Result<()> {
    let mut clock = tokio::time::interval(Duration::from_secs_f64(EVENTS_PER_JOB as f64 / rate as f64));
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    for _ in 0..jobs {
        clock.tick().await;
        store.enqueue(&requests(task, 1)).await?;
    }
    Ok(())
}

/// Reads so many events, checks that each job's come once and in order, and answers their latencies in ms.
pub(crate) async fn read_events(socket: &mut Socket, count: u64) -> anyhow::Result<Vec<f64>> {
    const LIFE: [&str; 3] = ["task.enqueue", "task.dequeue", "task.finished"];
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut latencies = Vec::with_capacity(count as usize);
    let mut offset = 0;
    while (latencies.len() as u64) < count {
        let frame = tokio::time::timeout(QUIET, socket.next()).await;
        let frame =
            frame.with_context(|| format!("{} of {count} events came, then none", latencies.len()))?;
        let arrived = Timestamp::now();
        let text = match frame.context("the subscription ended")?? {
            Message::Text(text) => text,
            Message::Ping(_) | Message::Pong(_) => continue,
            other @ (Message::Binary(_) | Message::Close(_) | Message::Frame(_)) => bail!("got {other:?}"),
        };
        let event: CloudEvent = serde_json::from_str(&text).context("reading an event")?;
        let position = event.position().context("an event without position")?;
        ensure!(position.offset > offset, "offset {} came after {offset}", position.offset);
        offset = position.offset;
        let life = seen.entry(event.subject.unwrap_or_default()).or_default();
        ensure!(LIFE.get(*life) == Some(&event.kind.as_str()), "a job's event {life} is {}", event.kind);
        *life += 1;
        let time = event.time.context("an event without time")?;
        latencies.push((arrived - time).total(jiff::Unit::Millisecond)?);
    }
    Ok(latencies)
}
