//! A million finished jobs kept: does the drain slow down, and how long do the lists and figures of the API take?
//!
//! The million is made once, by enqueueing and draining, and its database serves all rounds, each of which adds its own
//! jobs to it.

use super::database::{Database, Meter};
use super::load::Work;
use super::ours::{Claims, Dress, Ours, TASK};
use super::rows;
use crate::node::Node;
use crate::report::{Figures, rounded};
use crate::samples::median;
use anyhow::ensure;
use serde_json::json;
use std::time::Instant;

/// So often each path is asked.
const READS: usize = 20;

/// What is asked of the API, with what stands for the newest job's id.
const PATHS: &[(&str, &str)] = &[
    ("list", "/api/v1/jobs?limit=50"),
    ("list finished", "/api/v1/jobs?state=finished&limit=50"),
    ("list failed (none)", "/api/v1/jobs?state=failed&limit=50"),
    ("list by task", "/api/v1/jobs?task=noop&limit=50"),
    ("list from the middle", "/api/v1/jobs?before=MIDDLE&limit=50"),
    ("job", "/api/v1/jobs/MIDDLE"),
    ("its history", "/api/v1/jobs/MIDDLE/events"),
    ("stats", "/api/v1/stats"),
    ("history", "/api/v1/history"),
];

/// So many finished jobs, for all rounds.
pub(super) async fn fill(jobs: u64, claims: Claims, database: &Database) -> anyhow::Result<()> {
    let minium = Ours::open(Dress::Alone, claims, database).await?;
    // in pieces, as a queue that is worked on has it
    let mut left = jobs;
    while left > 0 {
        let piece = Work { jobs: left.min(20_000), bytes: 60 };
        minium.bulk(piece, rows::BULK).await?;
        let done = minium.drain().await?;
        ensure!(done == piece.jobs, "{} jobs were enqueued, {done} were done", piece.jobs);
        left -= done;
    }
    database.settle().await?;
    minium.end().await
}

/// A drain in a database that may hold many, and then reads.
pub(super) async fn run(work: Work, claims: Claims, database: &Database) -> anyhow::Result<Figures> {
    let minium = Ours::open(Dress::Alone, claims, database).await?;
    let before = database.number("select count(*) from minium.job").await? as u64;
    let warm = Work { jobs: (work.jobs / 10).clamp(1, 2_000), ..work };
    minium.bulk(warm, rows::BULK).await?;
    minium.drain().await?;
    minium.bulk(work, rows::BULK).await?;
    database.settle().await?;
    let (mut figures, meter) = (Figures::new(), Meter::begin(database, vec![], None));
    let done = minium.drain().await?;
    meter.end(work.jobs, &mut figures);
    ensure!(done == work.jobs, "{} jobs were enqueued, {done} were done", work.jobs);
    minium.check(before + warm.jobs + work.jobs, "finished", 3, database).await?;
    minium.end().await?;
    reads(database, TASK, &mut figures).await?;
    Ok(figures)
}

/// Medians of what an operator asks, over HTTP, from a node that has numbered everything.
async fn reads(database: &Database, task: &str, figures: &mut Figures) -> anyhow::Result<()> {
    let minium = Ours::open(Dress::Relayed, Claims { workers: 1, batch: 1 }, database).await?;
    minium.all_numbered(database).await?;
    database.settle().await?;
    let middle = database.number("select (min(id) + max(id)) / 2 from minium.job").await?;
    let (mut all, mut slowest) = (Figures::new(), 0_f64);
    if let Some(node) = minium.node() {
        for (name, path) in PATHS {
            let path = path.replace("MIDDLE", &middle.to_string()).replace("noop", task);
            match read(node, &path).await? {
                Some(ms) => {
                    slowest = slowest.max(ms);
                    all.insert((*name).into(), rounded(ms));
                }
                None => drop(all.insert((*name).into(), json!("not there"))),
            }
        }
    }
    minium.end().await?;
    figures.insert(rows::READ.into(), rounded(slowest));
    figures.insert(rows::READS.into(), json!(all));
    Ok(())
}

/// Milliseconds, or nothing when there is no such path.
async fn read(node: &Node, path: &str) -> anyhow::Result<Option<f64>> {
    let mut times = Vec::new();
    for _ in 0..READS {
        let began = Instant::now();
        let status = node.get(path).await?;
        times.push(began.elapsed().as_secs_f64() * 1e3);
        if status == 404 {
            return Ok(None);
        }
        ensure!(status == 200, "GET {path} answered {status}");
    }
    Ok(Some(median(&times)))
}
