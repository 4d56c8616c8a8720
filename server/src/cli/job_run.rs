//! `minium job run`: one job, here and now, with what its command writes in sight.
//!
//! The job is retried into a queue of its own, so that nobody else can take it, and this process is that queue's only worker.
//! It has one attempt more than it has had: how this run ends is how the job ends.

use super::output::Output;
use super::worker::{database_url, launcher};
use crate::config::{Flags, SANDBOXES_ARE_CHECKED, Worker as WorkerConfig, load};
use crate::exit::{Exit, fault};
use crate::node::open_backend;
use anyhow::Context;
use clap::Args;
use minium_protocol::{Job, Phase, State};
use minium_queue::{DatabaseUrl, QueueError, RetryOptions, SqlitePlace, Store};
use minium_worker::{CommandTask, Output as Lines, StoreSource, Worker, WorkerOptions};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

#[derive(Debug, Args)]
#[command(
    after_help = "The job keeps the queue that it is given for this, so that nobody else takes it: to let workers run it \
    once more, `minium job retry ID --queue QUEUE`. What the command writes to stderr is shown as it comes, its result \
    goes to stdout. The exit code is 0 when the job has finished, 1 when it has failed or was cancelled, 7 when it runs \
    somewhere or waits for other jobs.

Examples:
  minium job run 42 --task import=./import.py
  minium job run 42 --config minium.toml"
)]
pub(super) struct Run {
    /// The job's number
    id: i64,
    /// A task and the command that runs it, besides those of the configuration; may be given several times
    #[arg(long = "task", value_name = "NAME=COMMAND")]
    tasks: Vec<String>,
    /// Run the commands of --task by /bin/sh -c
    #[arg(long)]
    shell: bool,
    /// Configuration file; without it ./minium.toml, else /etc/minium/minium.toml, else defaults
    #[arg(long, value_name = "FILE", env = "MINIUM_CONFIG", hide_env = true)]
    config: Option<PathBuf>,
    /// Database: sqlite:FILE or postgres://USER@HOST/NAME
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// Print the whole job as one JSON document
    #[arg(long, display_order = 800)]
    json: bool,
}

impl Run {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let output = Output::new(self.json);
        let flags =
            Flags { config: self.config.clone(), database: self.database.clone(), ..Flags::default() };
        let config = load(&flags)?.config;
        let url = database_url(&config.database.url)?;
        if let DatabaseUrl::Sqlite(SqlitePlace::File(path)) = &url
            && !path.exists()
        {
            return Err(fault(Exit::NotFound, format!("there is no database {}", path.display())));
        }
        let store = open_backend(&config, &url).await.context("Cannot open the database")?.store();
        let view = store.get(self.id).await?.ok_or(QueueError::NotFound(self.id))?;
        let (job, phase) = (view.job()?, view.phase);
        if phase == Some(Phase::Blocked) {
            return Err(fault(Exit::Conflict, format!("job {} waits for other jobs", self.id)));
        }
        let configured = config.tasks.get(&job.task).map(|task| task.command(&job.task, &config.worker));
        // what holds the node's commands back holds this one, too
        let sandbox = config.worker.sandbox.build().expect(SANDBOXES_ARE_CHECKED);
        let given = self.task(&job.task)?.map(|task| CommandTask { sandbox, ..task });
        let task = given.or(configured).ok_or_else(|| {
            let task = &job.task;
            fault(Exit::Usage, format!("job {} is of the task {task}: say --task {task}=COMMAND", self.id))
        })?;
        let queue = format!("foreground/{}", uuid::Uuid::new_v4().simple());
        let options = RetryOptions {
            queue: Some(queue.clone()),
            attempts: Some(job.attempt.saturating_add(1)),
            ..RetryOptions::default()
        };
        store.retry(self.id, &options).await?;
        perform(&store, task, queue, &config.worker, self.id).await?;
        let view = store.get(self.id).await?.ok_or(QueueError::NotFound(self.id))?;
        if output.is_json() {
            output.json(&view.snapshot)?;
        }
        tell(output, &view.job()?)
    }

    /// The command for a task that was given by flag.
    fn task(&self, name: &str) -> anyhow::Result<Option<CommandTask>> {
        for text in &self.tasks {
            let task = CommandTask::parse(text, self.shell).map_err(super::worker::explain)?;
            if task.name == name {
                return Ok(Some(task));
            }
        }
        Ok(None)
    }
}

/// Runs the one job of a queue to its end, or until a signal says stop.
async fn perform(
    store: &Arc<dyn Store>,
    task: CommandTask,
    queue: String,
    config: &WorkerConfig,
    id: i64,
) -> anyhow::Result<()> {
    let options = WorkerOptions {
        queues: vec![queue],
        concurrency: 1,
        lease: config.lease,
        log_stderr: config.log_stderr,
        launcher: launcher(),
        // whoever sits before it and says stop means at once
        grace: Duration::ZERO,
        output: Some(Lines::new(|line| {
            // a closed stderr is no reason to stop
            writeln!(std::io::stderr(), "{line}").ok();
        })),
        ..WorkerOptions::default()
    };
    let stop = CancellationToken::new();
    let worker = Worker::new(StoreSource::new(store.clone()), options).command(task);
    let mut working = std::pin::pin!(worker.run(stop.clone()));
    tokio::select! {
        ended = &mut working => return ended.map_err(super::worker::explain),
        () = ended(store.as_ref(), id) => {}
        () = super::stream::stopped() => {}
    }
    stop.cancel();
    working.await.map_err(super::worker::explain)
}

/// Waits until the job has ended, or is gone.
async fn ended(store: &dyn Store, id: i64) {
    const LOOK: Duration = Duration::from_millis(50);
    let mut looks = tokio::time::interval(LOOK);
    loop {
        looks.tick().await;
        match store.get(id).await {
            Ok(Some(view)) if view.job().is_ok_and(|job| !job.state.is_ended()) => {}
            Ok(_) => return,
            // the worker waits for the database as well
            Err(_) => {}
        }
    }
}

fn tell(output: Output, job: &Job) -> anyhow::Result<()> {
    match job.state {
        State::Finished if output.is_json() => Ok(()),
        State::Finished => match &job.result {
            Some(result) => output.json(result),
            None => output.line("null"),
        },
        State::Inactive | State::Active | State::Failed | State::Cancelled => {
            let why =
                job.error.as_deref().map_or(String::new(), |e| format!(": {}", super::output::clean(e)));
            Err(fault(Exit::Failed, format!("job {} is {}{why}", job.id, job.state)))
        }
    }
}
