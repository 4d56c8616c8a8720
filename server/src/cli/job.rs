//! `minium job`: enqueue jobs, look at them, steer them, wait for them.

use super::job_enqueue::Enqueue;
use super::job_log::Log;
use super::job_run::Run;
use super::job_show::{List, Show};
use super::output::{Output, quietly};
use super::remote::{Remote, explain};
use crate::exit::{Exit, fault};
use clap::{Args, Subcommand};
use minium_client::{Client, ClientError, JobInfo, RetryRequest};
use minium_protocol::{State, parse_duration};
use serde_json::json;
use std::time::Duration;

/// Arguments of `minium job`.
#[derive(Debug, Args)]
pub(crate) struct Job {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Enqueue a job
    Enqueue(Enqueue),
    /// List jobs, newest first
    Ls(List),
    /// Show one job, or what happened to it
    Show(Show),
    /// Show what one job has said, and follow it
    Log(Log),
    /// Make ended jobs wait again, or waiting ones ready
    Retry(Retry),
    /// Call jobs off, waiting or running
    Cancel(Cancel),
    /// Delete jobs that do not run
    Remove(Ids),
    /// Run one job here and now, over the database, and show what its command writes
    Run(Run),
    /// Wait until jobs have ended, and print their results
    Wait(Wait),
}

impl Job {
    /// Does it.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        quietly(match self.action {
            Action::Enqueue(enqueue) => enqueue.run().await,
            Action::Ls(list) => list.run().await,
            Action::Show(show) => show.run().await,
            Action::Log(log) => log.run().await,
            Action::Retry(retry) => retry.run().await,
            Action::Cancel(cancel) => cancel.run().await,
            Action::Remove(ids) => ids.run(Word::Remove).await,
            Action::Run(run) => run.run().await,
            Action::Wait(wait) => wait.run().await,
        })
    }
}

/// Jobs to act on.
#[derive(Debug, Args)]
struct Ids {
    /// Numbers of the jobs
    #[arg(required = true, value_name = "ID")]
    ids: Vec<i64>,
    /// Print one JSON document
    #[arg(long, display_order = 800)]
    json: bool,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Debug, Args)]
struct Cancel {
    #[command(flatten)]
    jobs: Ids,
    /// And whatever they enqueued, that those enqueued, and so on
    #[arg(long)]
    cascade: bool,
}

impl Cancel {
    async fn run(self) -> anyhow::Result<()> {
        self.jobs.run(if self.cascade { Word::CancelCascade } else { Word::Cancel }).await
    }
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  minium job retry 42\n  minium job retry 42 43 --delay 5m --priority 10")]
struct Retry {
    #[command(flatten)]
    jobs: Ids,
    /// Not before so long from now, as 90s or 5m
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    delay: Option<Duration>,
    /// A new priority, -1000 to 1000; higher runs first
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    priority: Option<i32>,
    /// Another queue
    #[arg(long)]
    queue: Option<String>,
    /// How many runs it may have in all; without it, one more than it has had
    #[arg(long, value_name = "N")]
    attempts: Option<i32>,
}

/// What to do with each of several jobs.
enum Word {
    Cancel,
    CancelCascade,
    Remove,
    Retry(RetryRequest),
}

impl Word {
    async fn act(&self, client: &Client, id: i64) -> Result<(), ClientError> {
        match self {
            Word::Cancel => client.cancel(id).await,
            Word::CancelCascade => client.cancel_cascade(id).await.map(drop),
            Word::Remove => client.remove(id).await,
            Word::Retry(options) => client.retry(id, options).await,
        }
    }

    fn done(&self) -> &'static str {
        match self {
            Word::Cancel | Word::CancelCascade => "cancelled",
            Word::Remove => "removed",
            Word::Retry(_) => "retried",
        }
    }
}

impl Retry {
    async fn run(self) -> anyhow::Result<()> {
        let Retry { jobs, delay, priority, queue, attempts } = self;
        jobs.run(Word::Retry(RetryRequest { delay, priority, queue, attempts })).await
    }
}

impl Ids {
    /// Acts on all of them; one that cannot be acted on does not keep the others from it. The first error decides
    /// the exit code.
    async fn run(self, word: Word) -> anyhow::Result<()> {
        let output = Output::new(self.json);
        let client = self.remote.client()?;
        let (mut done, mut failed, mut first) = (Vec::new(), Vec::new(), None);
        for id in self.ids {
            match word.act(&client, id).await {
                Ok(()) => {
                    if !output.is_json() {
                        output.line(&format!("{id} {}", word.done()))?;
                    }
                    done.push(id);
                }
                // Without a server the others fail for the same reason.
                Err(error) if error.is_connection() => return Err(explain(error)),
                Err(error) => {
                    failed.push(json!({ "id": id, "code": error.code(), "detail": error.to_string() }));
                    let error = explain(error).context(format!("Job {id}"));
                    match &first {
                        None => first = Some(error),
                        Some(_) => output.notice(&format!("minium: {error:#}")),
                    }
                }
            }
        }
        if output.is_json() {
            output.line(&json!({ word.done(): done, "failed": failed }).to_string())?;
        }
        first.map_or(Ok(()), Err)
    }
}

#[derive(Debug, Args)]
#[command(
    after_help = "The exit code is 0 when all have finished, 1 when one has failed or was cancelled, 8 when \
    the time is up.\n\nExamples:\n  minium job wait 42 --timeout 5m\n  minium job wait $(minium job enqueue report)"
)]
struct Wait {
    #[command(flatten)]
    jobs: Ids,
    /// How long to wait at most, as 90s or 5m
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    timeout: Option<Duration>,
}

impl Wait {
    async fn run(self) -> anyhow::Result<()> {
        let output = Output::new(self.jobs.json);
        let client = self.jobs.remote.client()?;
        let deadline = self.timeout.map(|limit| tokio::time::Instant::now() + limit);
        let mut first = None;
        for id in self.jobs.ids {
            let left = deadline.map(|d| d.saturating_duration_since(tokio::time::Instant::now()));
            match wait(&client, id, left, output).await {
                Ok(()) => {}
                Err(error) if first.is_none() => first = Some(error),
                Err(error) => output.notice(&format!("minium: {error:#}")),
            }
        }
        first.map_or(Ok(()), Err)
    }
}

/// Waits for one job and prints what it brought: the result, or with `--json` the whole job. An error unless it has
/// finished.
pub(super) async fn wait(
    client: &Client,
    id: i64,
    limit: Option<Duration>,
    output: Output,
) -> anyhow::Result<()> {
    output.hint(&format!("Waiting for job {id}."));
    let info = client.wait(id, limit).await.map_err(explain)?;
    if output.is_json() {
        output.json(&info.raw)?;
    }
    match info.job.state {
        State::Finished if output.is_json() => Ok(()),
        State::Finished => match &info.job.result {
            Some(result) => output.json(result),
            None => output.line("null"),
        },
        State::Inactive | State::Active | State::Failed | State::Cancelled => Err(ended_badly(&info)),
    }
}

fn ended_badly(info: &JobInfo) -> anyhow::Error {
    let why = info.job.error.as_deref().map_or(String::new(), |e| format!(": {}", super::output::clean(e)));
    fault(Exit::Failed, format!("job {} is {}{why}", info.job.id, info.job.state))
}
