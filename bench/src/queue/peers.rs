//! The peers that are processes: where `scripts/get-bench-peers` has put them, how many processes of each work, and how
//! their tables tell whether every job was done, and once.

use super::database::Database;
use super::driver::Driver;
use super::load::{Pickups, Work};
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::process::Command;

/// A peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    /// graphile-worker (npm) in so many processes.
    Graphile {
        /// How many.
        processes: usize,
    },
    /// pg-boss (npm).
    PgBoss,
    /// The crate graphile_worker.
    GraphileCrate,
    /// Minion (Perl).
    Minion,
}

const HOW: &str = "./scripts/get-bench-peers gets it";
/// Done is done when the database says so; that is soon after the last handler.
const PATIENCE: Duration = Duration::from_secs(60);

impl Peer {
    /// Which release, or why it cannot be had.
    pub(super) async fn version(self) -> anyhow::Result<String> {
        match self {
            Peer::Graphile { .. } => node_package("graphile-worker"),
            Peer::PgBoss => node_package("pg-boss"),
            Peer::GraphileCrate => {
                let built = place("crate/release/bench-graphile-crate")?;
                ensure!(built.exists(), "the crate graphile_worker is not built: {HOW}");
                Ok("crate graphile_worker 0.14.1".into())
            }
            Peer::Minion => {
                let ask = ["-MMinion", "-MMojo::Pg", "-e", "print $Minion::VERSION"];
                let output = Command::new("perl").args(ask).output().await;
                let output = output.ok().filter(|o| o.status.success());
                let output = output.with_context(|| format!("Minion for PostgreSQL is not here: {HOW}"))?;
                Ok(format!("Minion {}", String::from_utf8_lossy(&output.stdout)))
            }
        }
    }

    fn processes(self) -> usize {
        match self {
            Peer::Graphile { processes } => processes,
            Peer::PgBoss | Peer::GraphileCrate | Peer::Minion => 1,
        }
    }

    /// Its driver, as a command; the files are written where it finds its library.
    fn command(self, files: &TempDir) -> anyhow::Result<Command> {
        let write = |name: &str, text: &str| -> anyhow::Result<PathBuf> {
            let path = files.path().join(name);
            std::fs::write(&path, text).with_context(|| format!("writing {name}"))?;
            Ok(path)
        };
        let node = |name: &str, text: &str| -> anyhow::Result<Command> {
            write("peer.mjs", include_str!("../../peers/queue/peer.mjs"))?;
            let modules = files.path().join("node_modules");
            if !modules.exists() {
                std::os::unix::fs::symlink(place("node/node_modules")?, modules)
                    .context("finding the packages")?;
            }
            let own = place("node/node_modules/node/bin/node")?;
            let program = if own.exists() { own } else { "node".into() };
            let mut command = Command::new(program);
            command.arg(write(name, text)?);
            Ok(command)
        };
        match self {
            Peer::Graphile { .. } => node("graphile.mjs", include_str!("../../peers/queue/graphile.mjs")),
            Peer::PgBoss => node("pgboss.mjs", include_str!("../../peers/queue/pgboss.mjs")),
            Peer::GraphileCrate => Ok(Command::new(place("crate/release/bench-graphile-crate")?)),
            Peer::Minion => {
                let mut command = Command::new("perl");
                command.arg(write("minion.pl", include_str!("../../peers/queue/minion.pl"))?);
                Ok(command)
            }
        }
    }

    /// Is nothing left to do?
    fn nothing_left(self) -> &'static str {
        match self {
            Peer::Graphile { .. } | Peer::GraphileCrate => {
                "select not exists (select from graphile_worker._private_jobs)"
            }
            Peer::PgBoss => {
                "select not exists (select from pgboss.job where name = 'noop' and state < 'completed')"
            }
            Peer::Minion => {
                "select not exists (select from minion_jobs where state in ('inactive', 'active'))"
            }
        }
    }

    /// How many its tables say were done well. What deletes them can say only that none is left, or has failed.
    fn done(self) -> Option<&'static str> {
        match self {
            Peer::Graphile { .. } | Peer::GraphileCrate => None,
            Peer::PgBoss => {
                Some("select count(*) from pgboss.job where name = 'noop' and state = 'completed'")
            }
            Peer::Minion => Some("select count(*) from minion_jobs where state = 'finished'"),
        }
    }

    /// How many its tables hold, whatever became of them.
    fn kept(self) -> &'static str {
        match self {
            Peer::Graphile { .. } | Peer::GraphileCrate => {
                "select count(*) from graphile_worker._private_jobs"
            }
            Peer::PgBoss => "select count(*) from pgboss.job where name = 'noop'",
            Peer::Minion => "select count(*) from minion_jobs",
        }
    }
}

/// A peer at work in a database.
pub(super) struct Drivers {
    peer: Peer,
    drivers: Vec<Driver>,
    _files: TempDir,
}

impl Drivers {
    pub(super) async fn open(peer: Peer, database: &Database) -> anyhow::Result<Drivers> {
        let files = tempfile::tempdir().context("making a folder for a driver")?;
        let mut drivers = Vec::new();
        for _ in 0..peer.processes() {
            drivers.push(Driver::start(peer.command(&files)?, database).await?);
        }
        Ok(Drivers { peer, drivers, _files: files })
    }

    pub(super) fn pids(&self) -> Vec<u32> {
        self.drivers.iter().map(|d| d.pid).collect()
    }

    async fn first(&mut self, command: &Value) -> anyhow::Result<Value> {
        self.drivers[0].ask(command).await
    }

    pub(super) async fn bulk(&mut self, work: Work, call: usize) -> anyhow::Result<()> {
        let command = json!({ "do": "bulk", "jobs": work.jobs, "call": call, "bytes": work.bytes });
        self.first(&command).await.map(drop)
    }

    pub(super) async fn singles(&mut self, work: Work, connections: usize) -> anyhow::Result<()> {
        let command =
            json!({ "do": "enqueue", "jobs": work.jobs, "connections": connections, "bytes": work.bytes });
        self.first(&command).await.map(drop)
    }

    /// Works until all jobs are handled and the database knows it. Answers how long it took until the first was handled,
    /// as told within a few milliseconds: connections are there, but a worker has to be made.
    pub(super) async fn drain(&mut self, jobs: u64, database: &Database) -> anyhow::Result<Duration> {
        let (began, mut first) = (Instant::now(), None);
        futures::future::try_join_all(self.drivers.iter_mut().map(|d| d.work(jobs))).await?;
        while self.handled() < jobs {
            let any = self.drivers.iter_mut().map(|d| Box::pin(d.handles()));
            futures::future::select_all(any).await.0?;
            first.get_or_insert_with(|| began.elapsed());
        }
        database.until("the end of all jobs", self.peer.nothing_left(), PATIENCE).await?;
        Ok(first.unwrap_or_default())
    }

    /// Ends the work, and checks that each job was handled once.
    pub(super) async fn rest(&mut self, jobs: u64) -> anyhow::Result<()> {
        for driver in &mut self.drivers {
            driver.rest().await?;
        }
        ensure!(self.handled() == jobs, "{jobs} jobs were handled {} times", self.handled());
        Ok(())
    }

    fn handled(&self) -> u64 {
        self.drivers.iter().map(|d| d.handled).sum()
    }

    pub(super) async fn pickup(&mut self, pickups: Pickups) -> anyhow::Result<(Vec<f64>, Vec<f64>)> {
        let command = json!({ "do": "pickup", "jobs": pickups.jobs, "every_ms": pickups.every.as_millis() as u64,
            "bytes": pickups.bytes });
        let answer = self.first(&command).await?;
        let list = |name: &str| -> anyhow::Result<Vec<f64>> {
            let all: Vec<f64> =
                answer[name].as_array().into_iter().flatten().filter_map(Value::as_f64).collect();
            ensure!(all.len() == pickups.jobs, "{} jobs of {} were picked up", all.len(), pickups.jobs);
            Ok(all)
        };
        Ok((list("from_ack_ms")?, list("from_call_ms")?))
    }

    /// All that were enqueued are there, nothing more.
    pub(super) async fn check_kept(&self, jobs: u64, database: &Database) -> anyhow::Result<()> {
        let kept = database.number(self.peer.kept()).await?;
        ensure!(kept == jobs as i64, "{jobs} jobs were enqueued, {kept} are in the tables");
        Ok(())
    }

    /// All that were enqueued are done.
    pub(super) async fn check_done(&self, jobs: u64, database: &Database) -> anyhow::Result<()> {
        let (done, expected) = match self.peer.done() {
            Some(sql) => (database.number(sql).await?, jobs as i64),
            None => (database.number(self.peer.kept()).await?, 0),
        };
        ensure!(done == expected, "{jobs} jobs were done, the tables say {done} and not {expected}");
        Ok(())
    }

    pub(super) async fn end(self) -> anyhow::Result<()> {
        for driver in self.drivers {
            driver.end().await?;
        }
        Ok(())
    }
}

/// Where the script puts what it gets: beside the folder of this binary, as the target folder has it.
fn place(name: &str) -> anyhow::Result<PathBuf> {
    let exe = std::env::current_exe().context("finding this program")?;
    let target = exe.parent().and_then(Path::parent).context("this program lies in no folder")?;
    Ok(target.join("bench-peers").join(name))
}

fn node_package(name: &str) -> anyhow::Result<String> {
    let manifest = place("node/node_modules")?.join(name).join("package.json");
    let text = std::fs::read_to_string(manifest).with_context(|| format!("{name} is not here: {HOW}"))?;
    let manifest: Value = serde_json::from_str(&text)?;
    Ok(format!("{name} {}", manifest["version"].as_str().unwrap_or("?")))
}
