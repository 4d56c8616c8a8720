//! The queue alone, on any database: bulk enqueue and drain of no-op jobs, every event written. The rows stay, for whoever
//! wants to count them.

use super::Options;
use super::load::Work;
use super::ours::{drain, enqueue};
use crate::machine;
use crate::report::{Figures, Report, rounded};
use anyhow::{Context, ensure};
use minium_queue::{Backend, Store};
use serde_json::json;
use std::sync::Arc;
use std::time::Instant;

/// The task's name: one per run, so that each run drains what it enqueued.
const TASK: &str = "bench/noop";

/// Runs the bench.
pub(super) async fn run(options: &Options) -> anyhow::Result<()> {
    let backend = Backend::open(&options.database.parse()?).await.context("opening the database")?;
    backend.migrate().await.context("migrating the database")?;
    let store = backend.store();
    let settings = json!({ "jobs": options.jobs, "batch": options.batch, "workers": options.workers,
        "args_bytes": options.args_bytes, "bulk": options.bulk });
    let mut report = Report::new("queue", settings);
    for round in 0..options.runs.unwrap_or(1) {
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
    let work = Work { jobs: options.jobs, bytes: options.args_bytes };
    let started = Instant::now();
    enqueue(store.as_ref(), &task, work, options.bulk).await?;
    let enqueue_seconds = started.elapsed().as_secs_f64();
    settle(backend).await?;

    let (us, database) = (machine::cpu_of(std::process::id())?, machine::cpu_of_all("postgres"));
    let all = machine::cpu_of_machine();
    let started = Instant::now();
    let drained = drain(store, &task, options.claims()).await?;
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
