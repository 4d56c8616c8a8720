//! `minium worker`: runs command tasks over the database, without a node.

use crate::exit::{Exit, fault};
use anyhow::Context;
use clap::Args;
use minium_protocol::parse_duration;
use minium_queue::{Backend, DatabaseUrl};
use minium_worker::{
    CommandTask, StoreSource, UpkeepOptions, Worker as Runner, WorkerError, WorkerOptions, become_command,
};
use std::ffi::OsString;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing::info;

/// Arguments of `minium worker`.
#[derive(Debug, Args)]
#[command(
    after_help = "A command gets the job's arguments as JSON on stdin. What it writes to stdout is the result \
    (JSON if it parses, else text), lines `::progress 40 text` and `::note name=value` on stderr become progress \
    and notes, and an exit code other than 0 is a failure with the end of stderr as its error. Without --shell no \
    shell is involved: the command is split into words by blanks and quotes.

Examples:
  minium worker --database postgres://user@host/db --task import=./import.py
  minium worker --task burn-in='./burn-in.sh --fast' --queue rack3 -j 8
  minium worker --shell --task count='jq length'"
)]
pub(crate) struct Worker {
    /// A task and the command that runs it; may be given several times
    #[arg(long = "task", value_name = "NAME=COMMAND", required = true)]
    tasks: Vec<String>,
    /// Take jobs from this queue; may be given several times
    #[arg(long = "queue", value_name = "QUEUE", default_value = "default", value_delimiter = ',')]
    queues: Vec<String>,
    /// How many jobs to run at once
    #[arg(short = 'j', long, value_name = "N", default_value_t = 4)]
    concurrency: usize,
    /// How long a job stays this worker's when it is heard of no more, as 90s or 5m
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "30s")]
    lease: Duration,
    /// The database: sqlite:FILE or postgres://USER@HOST/NAME
    #[arg(long, value_name = "URL", env = "MINIUM_DATABASE__URL", default_value = "sqlite:minium.db")]
    #[arg(hide_env_values = true)]
    database: String,
    /// Run commands by /bin/sh -c
    #[arg(long)]
    shell: bool,
    /// Not supported yet: work over WebSocket, without a database
    #[arg(long, value_name = "URL")]
    url: Option<String>,
}

impl Worker {
    /// Does it, until a signal says stop.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        if self.url.is_some() {
            let why = "--url is not supported yet: a worker over WebSocket comes later; use --database";
            return Err(fault(Exit::Usage, why));
        }
        let url = self.database_url()?;
        let options = WorkerOptions {
            queues: self.queues,
            concurrency: self.concurrency,
            lease: self.lease,
            upkeep: Some(UpkeepOptions::default()),
            launcher: launcher(),
            ..WorkerOptions::default()
        };
        let tasks: Result<Vec<_>, _> = self.tasks.iter().map(|t| CommandTask::parse(t, self.shell)).collect();
        let backend = Backend::open(&url).await.context("Cannot open the database")?;
        let source = StoreSource::new(backend.store());
        let worker = tasks.map_err(explain)?.into_iter().fold(Runner::new(source, options), Runner::command);
        let stop = CancellationToken::new();
        let mut working = std::pin::pin!(worker.run(stop.clone()));
        tokio::select! {
            ended = &mut working => return ended.map_err(explain),
            () = super::stream::stopped() => info!("Stopping when the running jobs have ended; a second signal kills."),
        }
        stop.cancel();
        tokio::select! {
            ended = working => ended.map_err(explain),
            () = super::stream::insisted() => Err(fault(Exit::Failed, "stopped before the running jobs had ended")),
        }
    }

    fn database_url(&self) -> anyhow::Result<DatabaseUrl> {
        let url: DatabaseUrl =
            self.database.parse().map_err(|e| fault(Exit::Usage, format!("--database: {e}")))?;
        match &url {
            DatabaseUrl::Sqlite(minium_queue::SqlitePlace::Memory) => {
                let why = "--database: sqlite::memory: belongs to one process; nobody else can enqueue there";
                Err(fault(Exit::Usage, why))
            }
            _ => Ok(url),
        }
    }
}

/// What is wrong with how the worker was called, or with its database.
fn explain(error: WorkerError) -> anyhow::Error {
    match error {
        WorkerError::Source(_) => anyhow::Error::new(error),
        mistake => fault(Exit::Usage, mistake.to_string()),
    }
}

/// Makes commands die with the worker, however that dies: this very program, as [`Become`]. Not by its path, since an
/// upgrade may put another program there while this one runs.
pub(crate) fn launcher() -> Vec<String> {
    let parent = std::process::id().to_string();
    ["/proc/self/exe", "become", "--parent", &parent, "--"].map(str::to_owned).into()
}

/// Arguments of `minium become`, which workers put before their commands.
#[derive(Debug, Args)]
pub(crate) struct Become {
    /// The worker's process
    #[arg(long)]
    parent: u32,
    /// The command
    #[arg(required = true, trailing_var_arg = true)]
    words: Vec<OsString>,
}

impl Become {
    /// Becomes the command. Returns only if it cannot.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let error = become_command(Some(self.parent), &self.words);
        let program = self.words.first().map_or_else(String::new, |w| w.to_string_lossy().into_owned());
        Err(fault(Exit::Failed, format!("cannot run {program:?}: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(database: &str, url: Option<&str>) -> Worker {
        Worker {
            tasks: vec!["x=true".into()],
            queues: vec!["default".into()],
            concurrency: 1,
            lease: Duration::from_secs(30),
            database: database.into(),
            shell: false,
            url: url.map(str::to_owned),
        }
    }

    #[tokio::test]
    async fn what_cannot_work_is_a_wrong_call() {
        let says = async |worker: Worker, word: &str| {
            let error = worker.run().await.unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        };
        says(worker("sqlite::memory:", None), "memory").await;
        says(worker("mysql://x", None), "--database").await;
        says(worker("sqlite:x.db", Some("http://h")), "not supported yet").await;
    }
}
