//! `minium job`: enqueue jobs, look at them, steer them, wait for them.

use super::job_enqueue::{Enqueue, note};
use super::job_log::Log;
use super::job_many::Targets;
use super::job_run::Run;
use super::job_show::{List, Show};
use super::output::{Output, quietly};
use super::remote::{Remote, explain};
use crate::exit::{Exit, fault};
use clap::{Args, Subcommand};
use minium_client::{AmendRequest, BulkAction, Client, ClientError, JobInfo, RetryRequest};
use minium_protocol::{JobResult, State, parse_duration};
use serde_json::Value;
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
    /// Change when a job that waits runs, how urgently and where
    Change(Change),
    /// Call jobs off, waiting or running
    Cancel(Cancel),
    /// Delete jobs that do not run
    Remove(Targets),
    /// Set notes of a job, or delete them
    Note(Note),
    /// Tell what those brought that a job waited for
    Parents(Parents),
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
            Action::Change(change) => change.run().await,
            Action::Cancel(cancel) => cancel.run().await,
            Action::Remove(jobs) => jobs.run(Word::Remove).await,
            Action::Note(note) => note.run().await,
            Action::Parents(parents) => parents.run().await,
            Action::Run(run) => run.run().await,
            Action::Wait(wait) => wait.run().await,
        })
    }
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  minium job change 42 --priority 10\n  minium job change 42 --delay 0s --queue slow"
)]
struct Change {
    /// The job's number
    id: i64,
    /// Not before so long from now, as 90s or 5m; 0s is at once
    #[arg(long, value_name = "TIME", value_parser = parse_duration, required_unless_present_any = ["priority", "queue"])]
    delay: Option<Duration>,
    /// A new priority, -1000 to 1000; higher runs first
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    priority: Option<i32>,
    /// Another queue
    #[arg(long)]
    queue: Option<String>,
    #[command(flatten)]
    remote: Remote,
}

impl Change {
    async fn run(self) -> anyhow::Result<()> {
        let Change { id, delay, priority, queue, remote } = self;
        let amendment = AmendRequest { delay, priority, queue, ..AmendRequest::default() };
        remote.client()?.amend(id, &amendment).await.map_err(explain)
    }
}

#[derive(Debug, Args)]
struct Cancel {
    #[command(flatten)]
    jobs: Targets,
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
#[command(
    after_help = "Examples:\n  minium job retry 42\n  minium job retry 42 43 --delay 5m --priority 10\n  \
    minium job retry --state failed --task import --dry-run\n  minium job retry --state failed --task import --yes"
)]
struct Retry {
    #[command(flatten)]
    jobs: Targets,
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
    /// Remove it if it has not been started within this time; only for one that never ran
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    expire: Option<Duration>,
    /// Let it run after failed and cancelled parents too, or (false) no more
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    lax: Option<bool>,
    /// A job that it waits for from now on, in place of those that it had; may be given several times
    #[arg(long, value_name = "ID", value_delimiter = ',', conflicts_with = "no_parents")]
    parent: Vec<i64>,
    /// Let it wait for no other job any more
    #[arg(long)]
    no_parents: bool,
}

/// What to do with each of several jobs.
pub(super) enum Word {
    Cancel,
    CancelCascade,
    Remove,
    Retry(RetryRequest),
}

impl Word {
    pub(super) async fn act(&self, client: &Client, id: i64) -> Result<(), ClientError> {
        match self {
            Word::Cancel => client.cancel(id).await,
            Word::CancelCascade => client.cancel_cascade(id).await.map(drop),
            Word::Remove => client.remove(id).await,
            Word::Retry(options) => client.retry(id, options).await,
        }
    }

    /// The same for all that a filter finds, where there is such a thing.
    pub(super) fn bulk(&self) -> Option<BulkAction> {
        match self {
            Word::Cancel => Some(BulkAction::Cancel),
            Word::CancelCascade => None,
            Word::Remove => Some(BulkAction::Remove),
            Word::Retry(options) => Some(BulkAction::Retry(options.clone())),
        }
    }

    pub(super) fn done(&self) -> &'static str {
        match self {
            Word::Cancel | Word::CancelCascade => "cancelled",
            Word::Remove => "removed",
            Word::Retry(_) => "retried",
        }
    }
}

impl Retry {
    async fn run(self) -> anyhow::Result<()> {
        let Retry { jobs, delay, priority, queue, attempts, expire, lax, parent, no_parents } = self;
        let parents = (no_parents || !parent.is_empty()).then_some(parent);
        let options = RetryRequest { delay, priority, queue, attempts, expire, lax, parents };
        jobs.run(Word::Retry(options)).await
    }
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  minium job note 42 owner=ops tries=3\n  minium job note 42 owner=null")]
struct Note {
    /// The job's number
    id: i64,
    /// A note; the value is JSON if it reads as such, else text. null deletes it
    #[arg(required = true, value_name = "NAME=VALUE", value_parser = note)]
    notes: Vec<(String, Value)>,
    #[command(flatten)]
    remote: Remote,
}

impl Note {
    async fn run(self) -> anyhow::Result<()> {
        let notes = self.notes.into_iter().collect();
        self.remote.client()?.note(self.id, &notes).await.map_err(explain)
    }
}

#[derive(Debug, Args)]
#[command(
    after_help = "Within a job's command it is that job. One line of JSON for each parent, in the order in which they \
    were named.\n\nExamples:\n  minium job parents 42\n  minium job parents | jq -s 'map(.result) | add'"
)]
struct Parents {
    /// The job's number
    #[arg(env = "MINIUM_JOB_ID", hide_env_values = true)]
    id: i64,
    /// Print one JSON document
    #[arg(long, display_order = 800)]
    json: bool,
    #[command(flatten)]
    remote: Remote,
}

impl Parents {
    async fn run(self) -> anyhow::Result<()> {
        let output = Output::new(self.json);
        let parents = self.remote.client()?.parents(self.id).await.map_err(explain)?;
        let text = |value: &JobResult| serde_json::to_string(value).expect("a result is JSON");
        if output.is_json() {
            let all: Vec<String> = parents.iter().map(text).collect();
            return output.line(&format!("{{\"parents\":[{}]}}", all.join(",")));
        }
        parents.iter().try_for_each(|parent| output.line(&text(parent)))
    }
}

#[derive(Debug, Args)]
#[command(
    after_help = "The exit code is 0 when all have finished, 1 when one has failed or was cancelled, 8 when \
    the time is up.\n\nExamples:\n  minium job wait 42 --timeout 5m\n  minium job wait $(minium job enqueue report)"
)]
struct Wait {
    /// Numbers of the jobs
    #[arg(required = true, value_name = "ID")]
    ids: Vec<i64>,
    /// How long to wait at most, as 90s or 5m
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    timeout: Option<Duration>,
    /// Print one JSON document
    #[arg(long, display_order = 800)]
    json: bool,
    #[command(flatten)]
    remote: Remote,
}

impl Wait {
    async fn run(self) -> anyhow::Result<()> {
        let output = Output::new(self.json);
        let client = self.remote.client()?;
        let deadline = self.timeout.map(|limit| tokio::time::Instant::now() + limit);
        let mut first = None;
        for id in self.ids {
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
