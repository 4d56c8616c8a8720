//! The queue: bulk enqueue and drain of no-op jobs on any database; and, by rows, everything that is asked of the queue's
//! speed, on PostgreSQL beside peers from package registries.
//!
//! Each row is measured in rounds, in which all contenders take turns (ours, peers, ours …), each on a database of its own
//! that was just made, on the same server. Shares are taken within a round: what else ran on the machine meanwhile then
//! disturbs all alike. How much that was is told, as foreign CPU, beside the CPU of PostgreSQL and of the client. A
//! contender that loses a job or does one twice ends the run.
//!
//! `rows.rs` is the table, `load.rs` the loads that all are under, `ours.rs`, `pgmq.rs` and `peers.rs` those who are.

mod database;
mod driver;
mod flat_out;
mod kept;
mod load;
mod ours;
mod peers;
mod pgmq;
mod plain;
mod results;
mod rows;
mod sqlite;
mod subscriber;
mod wal;

use crate::report::{Figures, circumstances, save, todays};
use crate::{Common, machine};
use anyhow::{Context, bail, ensure};
use database::{Database, Server};
use load::{Contest, Pickups, Work};
use ours::Claims;
use peers::Peer;
use results::{Result, Results};
use rows::{Beside, Contender, Load, ROWS, Row, Who};
use serde_json::{Value, json};
use std::io::Write;
use std::time::Duration;

/// Options of `minium bench queue`.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// The database. Without rows it is migrated, and the jobs stay in it; rows make and drop databases of their own beside it
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
    /// How often to run it, by default once, or 5 rounds of each row; medians are told
    #[arg(long)]
    runs: Option<usize>,
    /// Measure by rows, each beside graphile-worker, pg-boss, the crate graphile_worker, pgmq's SQL and Minion;
    /// `scripts/get-bench-peers` fetches them
    #[arg(long)]
    peers: bool,
    /// Measure only these rows, by name; `--list` tells them
    #[arg(long, value_name = "ROW", value_delimiter = ',')]
    only: Vec<String>,
    /// Measure only these contenders in each row, by name
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    contenders: Vec<String>,
    /// Tell the rows and who takes part, and measure nothing
    #[arg(long)]
    list: bool,
    /// Rows: how many jobs are enqueued one by one
    #[arg(long, default_value_t = 4_000)]
    singles: u64,
    /// Rows: how many single jobs are picked up
    #[arg(long, default_value_t = 200)]
    pickups: usize,
    /// Rows: how long to work flat out; a third of it to read events as a subscriber
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Rows: how many jobs are kept ready flat out
    #[arg(long, default_value_t = 10_000)]
    ready: u64,
    /// Rows: events per second to a subscriber
    #[arg(long, default_value_t = 2_000)]
    rate: u64,
    /// Rows: how many finished jobs are kept
    #[arg(long, default_value_t = 1_000_000)]
    kept: u64,
    #[command(flatten)]
    common: Common,
}

/// Minion is measured with a share of the jobs: it is fifty times slower, and the slower the more there are.
const MINION_SHARE: u64 = 10;

/// Runs the bench.
pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    if options.list {
        let mut out = std::io::stdout().lock();
        return options.rows()?.iter().try_for_each(|row| {
            let names: Vec<_> = row.contenders.iter().map(|c| c.name).collect();
            Ok(writeln!(out, "{:<11} {} ({})", row.name, row.what, names.join("; "))?)
        });
    }
    if !options.peers && options.only.is_empty() {
        return plain::run(options).await;
    }
    let runs = options.runs.unwrap_or(5);
    ensure!(
        runs > 0 && options.seconds > 0 && options.pickups > 0,
        "--runs, --seconds and --pickups start at 1"
    );
    ensure!(options.jobs > 0 && options.singles > 0, "--jobs and --singles start at 1");
    let rows = options.rows()?;
    // what is missing is said before anything is measured
    let mut versions = Vec::new();
    for row in &rows {
        versions.push(options.versions(row).await?);
    }
    let server = match rows.iter().any(|row| row.load != Load::Sqlite) {
        true => Some(Server::open(&options.database).await?),
        false => None,
    };
    let mut all = Vec::new();
    for (row, versions) in rows.iter().zip(versions) {
        let results = options.measure(row, versions, runs, server.as_ref()).await?;
        if !options.common.json {
            write!(std::io::stdout(), "{}", results::text(&results.json()))?;
        }
        all.push(results.json());
    }
    options.finish(&all, runs, server.as_ref()).await
}

impl Options {
    fn claims(&self) -> Claims {
        Claims { workers: self.workers, batch: self.batch }
    }

    fn rows(&self) -> anyhow::Result<Vec<&'static Row>> {
        if let Some(name) = self.only.iter().find(|n| ROWS.iter().all(|row| row.name != **n)) {
            let names: Vec<_> = ROWS.iter().map(|row| row.name).collect();
            bail!("there is no row {name}; there are {}", names.join(", "));
        }
        let wanted = |row: &&Row| self.only.is_empty() || self.only.iter().any(|n| n == row.name);
        Ok(ROWS.iter().filter(wanted).collect())
    }

    fn contenders(&self, row: &'static Row) -> impl Iterator<Item = &'static Contender> {
        let named =
            |c: &&Contender| self.contenders.is_empty() || self.contenders.iter().any(|n| n == c.name);
        row.contenders.iter().filter(move |c| (self.peers || !c.who.is_peer()) && named(c))
    }

    /// What each contender is. A peer that cannot be had is an error.
    async fn versions(&self, row: &'static Row) -> anyhow::Result<Vec<String>> {
        let mut versions = Vec::new();
        for contender in self.contenders(row) {
            versions.push(match contender.who {
                Who::Minium(_) => env!("CARGO_PKG_VERSION").into(),
                Who::Pgmq => "pgmq's SQL as plain statements".into(),
                Who::Peer(peer) => peer.version().await?,
            });
        }
        Ok(versions)
    }

    async fn measure(
        &self,
        row: &'static Row,
        versions: Vec<String>,
        runs: usize,
        server: Option<&Server>,
    ) -> anyhow::Result<Results> {
        let results = self.contenders(row).zip(versions).map(|(contender, version)| {
            let is_peer = contender.who.is_peer();
            (contender, Result { contender: contender.name, version, is_peer, rounds: Vec::new() })
        });
        let mut results: Vec<_> = results.collect();
        // the million is made once
        let mut filled = None;
        if let Some(server) = server
            && results.iter().any(|(c, _)| c.beside == Beside::Finished)
        {
            let database = server.create("filled").await?;
            kept::fill(self.kept, self.claims(), &database).await.context("filling a database")?;
            filled = Some(database);
        }
        for _ in 0..runs {
            for (contender, result) in &mut results {
                let round = self.round(row, contender, server, filled.as_ref()).await;
                result.rounds.push(round.with_context(|| format!("{}: {}", row.name, contender.name))?);
            }
        }
        if let (Some(server), Some(filled)) = (server, filled) {
            server.remove(filled).await?;
        }
        Ok(Results { row, contenders: results.into_iter().map(|(_, result)| result).collect() })
    }

    /// One contender, once.
    async fn round(
        &self,
        row: &Row,
        contender: &Contender,
        server: Option<&Server>,
        filled: Option<&Database>,
    ) -> anyhow::Result<Figures> {
        let Some(server) = server else {
            return self.on_sqlite(contender).await;
        };
        if row.load == Load::Sqlite {
            return self.on_sqlite(contender).await;
        }
        if let (Beside::Finished, Some(filled)) = (contender.beside, filled) {
            return kept::run(self.work(contender), self.claims(), filled).await;
        }
        let database = server.create(row.name).await?;
        let figures = self.on_database(row, contender, &database).await;
        server.remove(database).await?;
        figures
    }

    fn work(&self, contender: &Contender) -> Work {
        let share = if contender.who == Who::Peer(Peer::Minion) { MINION_SHARE } else { 1 };
        Work { jobs: (self.jobs / share).max(1), bytes: contender.bytes }
    }

    async fn on_sqlite(&self, contender: &Contender) -> anyhow::Result<Figures> {
        let singles = Work { jobs: self.singles, bytes: contender.bytes };
        sqlite::run(singles, self.work(contender), self.batch).await
    }

    async fn on_database(
        &self,
        row: &Row,
        contender: &Contender,
        database: &Database,
    ) -> anyhow::Result<Figures> {
        let (work, claims) = (self.work(contender), self.claims());
        let time = Duration::from_secs(self.seconds.into());
        match row.load {
            Load::Subscriber => return subscriber::run(self.rate, time / 3, database).await,
            Load::FlatOut => return flat_out::run(contender, claims, self.ready, time, database).await,
            Load::Kept => return kept::run(work, claims, database).await,
            Load::Wal => return wal::run(work, claims, database).await,
            Load::Sqlite => unreachable!("it has a file of its own"),
            Load::Drain | Load::Singles { .. } | Load::Bulk | Load::Pickup => {}
        }
        let mut contest = Contest::open(contender.who, claims, database).await?;
        let figures = match row.load {
            Load::Singles { connections } => {
                let singles = Work { jobs: self.singles, bytes: contender.bytes };
                contest.measure_singles(singles, connections).await?
            }
            Load::Bulk => contest.measure_bulk(work, rows::BULK).await?,
            Load::Pickup => {
                let every = Duration::from_millis(50);
                contest.measure_pickup(Pickups { jobs: self.pickups, every, bytes: contender.bytes }).await?
            }
            _ => contest.measure_drain(work).await?,
        };
        contest.end().await?;
        Ok(figures)
    }

    async fn finish(&self, all: &[Value], runs: usize, server: Option<&Server>) -> anyhow::Result<()> {
        let mut settings = json!({ "runs": runs, "peers": self.peers, "jobs": self.jobs, "batch": self.batch,
            "workers": self.workers, "singles": self.singles, "pickups": self.pickups, "seconds": self.seconds,
            "ready": self.ready, "rate": self.rate, "kept": self.kept });
        if let Some(server) = server {
            settings["database"] = json!(server.version().await?);
            for (name, value) in server.settings().await? {
                settings[name] = json!(value);
            }
        }
        let mut document = circumstances("queue-peers", &settings);
        document.insert("rows".into(), json!(all));
        if self.common.json {
            writeln!(std::io::stdout(), "{}", json!(document))?;
        }
        let Some(dir) = &self.common.save else { return Ok(()) };
        let dir = todays(dir)?;
        // what was measured today and not again stays: a long run may be made in pieces
        let earlier: Value = match std::fs::read_to_string(dir.join("queue-peers.json")) {
            Ok(text) => {
                serde_json::from_str(&text).context("reading the queue-peers.json of an earlier run")?
            }
            Err(_) => Value::Null,
        };
        let rows = merged(&earlier["rows"], all.to_vec());
        let tables: String = rows.iter().map(results::markdown).collect();
        document.insert("rows".into(), json!(rows));
        save(&dir, "queue-peers.json", &(serde_json::to_string_pretty(&document)? + "\n"))?;
        let head = format!("# `minium bench queue --peers`, medians\n\n{}\n", machine::description());
        save(&dir, "queue-peers.md", &(head + &tables))
    }
}

/// What was measured now, and of what was measured earlier that which has no successor; in the order of the table.
fn merged(earlier: &Value, mut new: Vec<Value>) -> Vec<Value> {
    let earlier = earlier.as_array().into_iter().flatten();
    let kept: Vec<Value> = earlier.filter(|e| new.iter().all(|n| n["name"] != e["name"])).cloned().collect();
    new.extend(kept);
    new.sort_by_key(|v| ROWS.iter().position(|row| v["name"] == row.name));
    new
}
