//! The store on a SQLite file with `synchronous=FULL`: one job in each call by one caller, and a drain in batches.

use super::load::Work;
use super::ours::{Claims, TASK, drain, enqueue};
use super::rows;
use crate::machine;
use crate::report::{Figures, rounded};
use anyhow::{Context, ensure};
use minium_queue::{Backend, DatabaseUrl, SqlitePlace};
use std::time::Instant;

pub(super) async fn run(singles: Work, work: Work, batch: u32) -> anyhow::Result<Figures> {
    let files = tempfile::tempdir().context("making a folder for a database")?;
    let url = DatabaseUrl::Sqlite(SqlitePlace::File(files.path().join("bench.db")));
    let backend = Backend::open(&url).await?;
    backend.migrate().await?;
    let (store, mut figures) = (backend.store(), Figures::new());
    let cpu = machine::cpu_of(std::process::id())?;
    let all = machine::cpu_of_machine();

    let began = Instant::now();
    enqueue(store.as_ref(), TASK, singles, 1).await?;
    let seconds = began.elapsed().as_secs_f64();
    figures.insert(rows::ENQUEUED.into(), rounded((singles.jobs as f64 / seconds).round()));
    enqueue(store.as_ref(), TASK, Work { jobs: work.jobs.saturating_sub(singles.jobs), ..work }, rows::BULK)
        .await?;

    let (jobs, before) = (work.jobs.max(singles.jobs), machine::cpu_of(std::process::id())?);
    let began = Instant::now();
    // one writer: a second worker would only wait for the first
    let done = drain(&store, TASK, Claims { workers: 1, batch }).await?;
    let seconds = began.elapsed().as_secs_f64();
    let after = machine::cpu_of(std::process::id())?;
    ensure!(done == jobs, "{jobs} jobs were enqueued, {done} were done");
    let stats = store.stats().await?;
    ensure!(stats.finished == jobs as i64 && stats.inactive + stats.active == 0, "the store says {stats:?}");
    figures.insert("jobs".into(), rounded(jobs as f64));
    figures.insert("seconds".into(), rounded(seconds));
    figures.insert(rows::PER_SECOND.into(), rounded((jobs as f64 / seconds).round()));
    let each = (after.saturating_sub(before)).as_secs_f64() * 1e6 / jobs as f64;
    figures.insert(rows::CLIENT_CPU.into(), rounded(each));
    let foreign = machine::cpu_of_machine().saturating_sub(all).saturating_sub(after.saturating_sub(cpu));
    figures.insert(rows::FOREIGN_CPU.into(), rounded(foreign.as_secs_f64()));
    Ok(figures)
}
