//! The queue alone: bulk enqueue and drain of no-op jobs, every event written.
//!
//! Workers here are bare claim-and-finish loops over the store, as a worker with tasks that do nothing would make
//! them: each exchange hands in the last batch and claims the next, in one commit. The rows stay, for whoever wants
//! to count them.

use crate::Common;
use crate::machine;
use crate::report::{Figures, Report, rounded};
use anyhow::{Context, bail, ensure};
use minium_protocol::EnqueueRequest;
use minium_queue::{Backend, Claim, Ending, Outcome, Store, WorkerInfo};
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// The task's name: one per run, so that each run drains what it enqueued.
const TASK: &str = "bench/noop";

/// Options of `minium bench queue`.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// The database; it is migrated, and the rows stay in it
    #[arg(long, env = "MINIUM_DATABASE__URL", hide_env_values = true, default_value = "sqlite::memory:")]
    database: String,
    /// How many jobs to enqueue and drain
    #[arg(long, default_value_t = 50_000)]
    jobs: u64,
    /// How many jobs in one enqueue
    #[arg(long, default_value_t = 1_000)]
    bulk: usize,
    /// How many jobs in one claim
    #[arg(long, default_value_t = 250)]
    batch: u32,
    /// How many workers claim at once
    #[arg(long, default_value_t = 2)]
    workers: u32,
    /// Bytes of the arguments
    #[arg(long, default_value_t = 60)]
    args_bytes: usize,
    /// How often to run it; each leaves its rows; medians are told
    #[arg(long, default_value_t = 1)]
    runs: usize,
    #[command(flatten)]
    common: Common,
}

/// Runs the bench.
pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    let backend = Backend::open(&options.database.parse()?).await.context("opening the database")?;
    backend.migrate().await.context("migrating the database")?;
    let store = backend.store();
    let settings = json!({ "jobs": options.jobs, "batch": options.batch, "workers": options.workers,
        "args_bytes": options.args_bytes, "bulk": options.bulk });
    let mut report = Report::new("queue", settings);
    for round in 0..options.runs {
        report.add(one_run(&backend, &store, options, round).await?);
    }
    report.finish(&options.common)
}

async fn one_run(
    backend: &Backend,
    store: &Arc<dyn Store>,
    options: &Options,
    round: usize,
) -> anyhow::Result<Figures> {
    let task = format!("{TASK}/{}-{round}", std::process::id());
    let events_before = events(backend).await?;
    let started = Instant::now();
    enqueue(store.as_ref(), options, &task).await?;
    let enqueue_seconds = started.elapsed().as_secs_f64();
    settle(backend).await?;

    let (us, database) = (machine::cpu_of(std::process::id())?, machine::cpu_of_all("postgres"));
    let all = machine::cpu_of_machine();
    let started = Instant::now();
    let drained = drain(store, options, &task).await?;
    let drain_seconds = started.elapsed().as_secs_f64();
    let us = machine::cpu_of(std::process::id())? - us;
    let database = machine::cpu_of_all("postgres").saturating_sub(database);
    let foreign = machine::cpu_of_machine().saturating_sub(all).saturating_sub(us + database);
    ensure!(drained == options.jobs, "{} jobs were enqueued, {drained} were finished", options.jobs);

    let events = events(backend).await? - events_before;
    ensure!(events == 3 * options.jobs, "{} jobs left {events} events, not three each", options.jobs);
    let jobs = options.jobs as f64;
    let mut figures = Figures::new();
    figures.insert("jobs".into(), json!(options.jobs));
    figures.insert("events".into(), json!(events));
    figures.insert("enqueue_seconds".into(), rounded(enqueue_seconds));
    figures.insert("drain_seconds".into(), rounded(drain_seconds));
    figures.insert("enqueue_jobs_per_second".into(), rounded((jobs / enqueue_seconds).round()));
    figures.insert("drain_jobs_per_second".into(), rounded((jobs / drain_seconds).round()));
    figures.insert("client_cpu_us_per_job".into(), rounded(us.as_secs_f64() * 1e6 / jobs));
    figures.insert("database_cpu_us_per_job".into(), rounded(database.as_secs_f64() * 1e6 / jobs));
    figures.insert("foreign_cpu_seconds".into(), rounded(foreign.as_secs_f64()));
    Ok(figures)
}

async fn enqueue(store: &dyn Store, options: &Options, task: &str) -> anyhow::Result<()> {
    let args = serde_json::value::to_raw_value(&["x".repeat(options.args_bytes.saturating_sub(4))])?;
    let mut left = options.jobs;
    while left > 0 {
        let count = left.min(options.bulk as u64);
        let jobs: Vec<_> = (0..count).map(|_| EnqueueRequest::new(task, args.clone())).collect();
        store.enqueue(&jobs).await?;
        left -= count;
    }
    Ok(())
}

/// Finishes and claims until nothing is left; answers how many were finished.
async fn drain(store: &Arc<dyn Store>, options: &Options, task: &str) -> anyhow::Result<u64> {
    let mut workers = JoinSet::new();
    for _ in 0..options.workers {
        let (store, task, batch) = (store.clone(), task.to_owned(), options.batch);
        workers.spawn(async move { drain_one(store.as_ref(), &task, batch).await });
    }
    let mut finished = 0;
    while let Some(done) = workers.join_next().await {
        finished += done??;
    }
    Ok(finished)
}

async fn drain_one(store: &dyn Store, task: &str, batch: u32) -> anyhow::Result<u64> {
    let worker = store.register_worker(&WorkerInfo::new(machine::host(), std::process::id())).await?;
    let claim = Claim {
        worker: worker.clone(),
        queues: vec!["default".into()],
        tasks: Some(vec![task.to_owned()]),
        limit: batch,
        lease: Duration::from_secs(60),
        min_priority: None,
        aged: None,
        caps: std::collections::BTreeMap::new(),
    };
    let result = serde_json::value::to_raw_value(&serde_json::Value::Null)?;
    let (mut outcomes, mut finished) = (Vec::new(), 0);
    loop {
        let reply = store.exchange(&outcomes, &claim).await?;
        if reply.verdicts.iter().any(|v| *v != minium_queue::Verdict::Accepted) {
            bail!("an outcome was not accepted: {:?}", reply.verdicts);
        }
        finished += reply.verdicts.len() as u64;
        if reply.jobs.is_empty() {
            store.unregister_worker(worker.id).await?;
            return Ok(finished);
        }
        let done = |job: &minium_queue::Leased| Outcome {
            job: job.id,
            lease: job.lease,
            ending: Ending::Finished(result.clone()),
        };
        outcomes = reply.jobs.iter().map(done).collect();
    }
}

/// Every drain begins with fresh statistics, as a database that has stood for a minute would have.
async fn settle(backend: &Backend) -> anyhow::Result<()> {
    if let Backend::Postgres(store) = backend {
        let client = store.pool().get().await.context("getting a connection")?;
        // one by one: several in one call would be a transaction, which VACUUM refuses
        for statement in ["vacuum analyze minium.job", "vacuum analyze minium.entry", "checkpoint"] {
            client.batch_execute(statement).await?;
        }
    }
    Ok(())
}

async fn events(backend: &Backend) -> anyhow::Result<u64> {
    let count: i64 = match backend {
        Backend::Postgres(store) => {
            let client = store.pool().get().await.context("getting a connection")?;
            client.query_one("select count(*) from minium.entry", &[]).await?.get(0)
        }
        Backend::Sqlite(store) => {
            store.call(|db| db.query_row("select count(*) from entry", [], |row| row.get(0))).await??
        }
    };
    Ok(u64::try_from(count).unwrap_or(0))
}
