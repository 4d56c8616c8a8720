//! How many bytes of write-ahead log a job's whole life takes: enqueued in bulk, claimed and finished in batches, three
//! events, three numbers.
//!
//! Images of whole pages, which the first change of a page after a checkpoint writes, say more about checkpoints than about
//! jobs: the load begins right behind one, and what images there were is told apart where the server can (pg_walinspect,
//! PostgreSQL 15).

use super::database::{Database, Meter};
use super::load::Work;
use super::ours::{Claims, Dress, Ours};
use super::rows;
use crate::report::{Figures, rounded};
use anyhow::ensure;

pub(super) async fn run(work: Work, claims: Claims, database: &Database) -> anyhow::Result<Figures> {
    let minium = Ours::open(Dress::Relayed, claims, database).await?;
    let warm = Work { jobs: (work.jobs / 10).clamp(1, 2_000), ..work };
    minium.bulk(warm, rows::BULK).await?;
    minium.drain().await?;
    minium.all_numbered(database).await?;
    database.settle().await?;
    let (mut figures, before) = (Figures::new(), database.wal_position().await?);
    let meter = Meter::begin(database, vec![], minium.node().map(|n| n.pid));
    minium.bulk(work, rows::BULK).await?;
    let done = minium.drain().await?;
    minium.all_numbered(database).await?;
    meter.end(work.jobs, &mut figures);
    let after = database.wal_position().await?;
    ensure!(done == work.jobs, "{} jobs were enqueued, {done} were done", work.jobs);
    minium.check(warm.jobs + work.jobs, "finished", 3, database).await?;
    minium.end().await?;
    // the rate of enqueue, drain and numbering together is nobody's
    figures.remove(rows::PER_SECOND);
    let each = |bytes: i64| rounded((bytes as f64 / work.jobs as f64).round());
    let pages = page_images(database, before, after).await;
    figures.insert(rows::WAL.into(), each(after - before - pages.unwrap_or(0)));
    if let Some(pages) = pages {
        figures.insert(rows::WAL_PAGES.into(), each(pages));
    }
    Ok(figures)
}

/// Bytes of page images in a part of the log; nothing where the server cannot tell.
async fn page_images(database: &Database, from: i64, to: i64) -> Option<i64> {
    let client = &database.look.client;
    client.batch_execute("create extension if not exists pg_walinspect").await.ok()?;
    let sql = format!(
        "select sum(fpi_size)::bigint from pg_get_wal_stats('0/0'::pg_lsn + {from}::numeric, '0/0'::pg_lsn + {to}::numeric)"
    );
    client.query_one(&sql, &[]).await.ok()?.get(0)
}
