//! `minium schedule`: work that repeats, looked at, put, paused, run; and when an expression would fire.

use super::job_enqueue::{args, note};
use super::output::{Cell, Colour, Output, quietly};
use super::remote::{Remote, explain};
use crate::exit::{Exit, fault};
use clap::{ArgGroup, Args, Subcommand};
use jiff::Timestamp;
use minium_client::{ScheduleFields, ScheduleInfo};
use minium_protocol::{EnqueueRequest, JobOptions, Missed, ScheduleRequest, format_duration, parse_duration};
use minium_queue::schedules::zone_of;
use minium_queue::{Cron, Schedule as Kept};
use serde_json::{Value, json};
use std::time::Duration;

/// No more firings are told of at once.
const NEXT_MAX: u32 = 1_000;

/// Arguments of `minium schedule`.
#[derive(Debug, Args)]
pub(crate) struct Schedule {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List schedules by name
    Ls(List),
    /// Show one schedule
    Show(One),
    /// Make a schedule, or change one
    Put(Box<Put>),
    /// Remove schedules; what they enqueued stays
    Rm(Several),
    /// Let schedules rest
    Pause(Several),
    /// Let schedules that rest go on with their next times
    Resume(Several),
    /// Enqueue the job of a schedule now, and print its number
    Run(One),
    /// Print when a cron expression fires next; needs no server
    Next(Next),
}

impl Schedule {
    /// Does it.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        quietly(match self.action {
            Action::Ls(list) => list.run().await,
            Action::Show(one) => one.show().await,
            Action::Put(put) => put.run().await,
            Action::Rm(several) => several.run(Word::Remove).await,
            Action::Pause(several) => several.run(Word::Pause).await,
            Action::Resume(several) => several.run(Word::Resume).await,
            Action::Run(one) => one.run().await,
            Action::Next(next) => next.run(),
        })
    }
}

#[derive(Debug, Args)]
struct List {
    /// Only names behind this one: the next page
    #[arg(long, value_name = "NAME")]
    after: Option<String>,
    /// How many at most
    #[arg(long, short = 'n', value_name = "N")]
    limit: Option<u32>,
    /// Print one JSON document
    #[arg(long, display_order = 800)]
    json: bool,
    #[command(flatten)]
    remote: Remote,
}

impl List {
    async fn run(self) -> anyhow::Result<()> {
        let output = Output::new(self.json);
        let page = self.remote.client()?.schedules(self.after.as_deref(), self.limit).await;
        let page = page.map_err(explain)?;
        if output.is_json() {
            return output.json(&page.raw);
        }
        let rows: Vec<_> = page.schedules.iter().map(|info| row(&info.schedule)).collect();
        output.page(&HEAD, &rows, "No schedules.", page.next.map(|next| format!("--after {next:?}")))
    }
}

/// What a line of the list tells.
const HEAD: [&str; 7] = ["NAME", "TASK", "WHEN", "DUE", "FIRED", "JOB", ""];

fn row(schedule: &ScheduleFields) -> Vec<Cell> {
    let time = |at: Option<Timestamp>| at.map_or_else(String::new, |at| format!("{at:.0}"));
    let (state, colour) = match (schedule.paused, schedule.configured) {
        (true, _) => ("paused", Some(Colour::Yellow)),
        (false, true) => ("configured", Some(Colour::Grey)),
        (false, false) => ("", None),
    };
    vec![
        Cell::new(&schedule.name),
        Cell::new(&schedule.task),
        Cell::new(when(schedule)),
        Cell::new(time((!schedule.paused).then_some(schedule.due))),
        Cell::new(time(schedule.fired)),
        Cell::new(schedule.job.map_or_else(String::new, |id| id.to_string())),
        Cell::painted(state, colour),
    ]
}

fn when(schedule: &ScheduleFields) -> String {
    let every = schedule.every.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    match (&schedule.cron, every) {
        (Some(cron), _) if schedule.zone == "UTC" => cron.clone(),
        (Some(cron), _) => format!("{cron} {}", schedule.zone),
        (None, Some(every)) => format!("every {}", format_duration(every)),
        (None, None) => String::new(),
    }
}

/// Shows one schedule: its line for people, its JSON for programs.
fn tell(output: Output, info: &ScheduleInfo) -> anyhow::Result<()> {
    if output.for_people() {
        return output.table(&HEAD, &[row(&info.schedule)]);
    }
    output.json(&info.raw)
}

#[derive(Debug, Args)]
struct One {
    /// The schedule's name
    name: String,
    /// Print one JSON document
    #[arg(long, display_order = 800)]
    json: bool,
    #[command(flatten)]
    remote: Remote,
}

impl One {
    async fn show(self) -> anyhow::Result<()> {
        let info = self.remote.client()?.schedule(&self.name).await.map_err(explain)?;
        tell(Output::new(self.json), &info)
    }

    async fn run(self) -> anyhow::Result<()> {
        let output = Output::new(self.json);
        let job = self.remote.client()?.run_schedule(&self.name).await.map_err(explain)?;
        if job.existing {
            output.notice(&format!("Job {} has its key and lives: nothing was enqueued.", job.id));
        }
        match output.is_json() {
            true => output.json(&job.raw),
            false => output.line(&job.id.to_string()),
        }
    }
}

#[derive(Debug, Args)]
struct Several {
    /// Names of the schedules
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Print one JSON document
    #[arg(long, display_order = 800)]
    json: bool,
    #[command(flatten)]
    remote: Remote,
}

/// What to do with each of several schedules.
#[derive(Clone, Copy)]
enum Word {
    Remove,
    Pause,
    Resume,
}

impl Several {
    /// Acts on one after the other, up to the first that cannot be acted on.
    async fn run(self, word: Word) -> anyhow::Result<()> {
        let output = Output::new(self.json);
        let client = self.remote.client()?;
        let done = match word {
            Word::Remove => "removed",
            Word::Pause => "paused",
            Word::Resume => "resumed",
        };
        for name in &self.names {
            match word {
                Word::Remove => client.remove_schedule(name).await,
                Word::Pause => client.pause_schedule(name, true).await.map(drop),
                Word::Resume => client.pause_schedule(name, false).await.map(drop),
            }
            .map_err(explain)?;
            if !output.is_json() {
                output.line(&format!("{name} {done}"))?;
            }
        }
        if output.is_json() { output.line(&json!({ done: self.names }).to_string()) } else { Ok(()) }
    }
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("when").required(true).args(["every", "cron"])))]
#[command(after_help = "Examples:
  minium schedule put nightly backup '[\"/srv\"]' --cron '0 3 * * *' --zone Europe/Berlin
  minium schedule put pulse livesys/inventory --every 10s --key pulse
  minium schedule put bills bill --cron @monthly --missed all --attempts 5")]
struct Put {
    /// The schedule's name
    name: String,
    /// What to run
    task: String,
    /// What to run it with: JSON, @FILE, or - for stdin
    #[arg(value_name = "ARGS", default_value = "[]", allow_hyphen_values = true)]
    args: String,
    /// How often, as 90s or 5m
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    every: Option<Duration>,
    /// When, in five fields: minute, hour, day of the month, month, day of the week
    #[arg(long, value_name = "FIELDS")]
    cron: Option<String>,
    /// In whose clock time the fields are meant
    #[arg(long, value_name = "ZONE", requires = "cron")]
    zone: Option<String>,
    /// Make up for missed firings by one job (fold) or by one each (all)
    #[arg(long, value_name = "HOW", default_value_t)]
    missed: Missed,
    /// Where its jobs wait
    #[arg(long)]
    queue: Option<String>,
    /// -1000 to 1000; higher runs first
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    priority: Option<i32>,
    /// Remove jobs that have not been started within this time
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    expire: Option<Duration>,
    /// How many runs each job may have
    #[arg(long, value_name = "N")]
    attempts: Option<i32>,
    /// Pause before an automatic retry
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    backoff: Option<Duration>,
    /// How long one run may take
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    timeout: Option<Duration>,
    /// Unique among the living jobs of the task: while one with it lives, no other is enqueued
    #[arg(long)]
    key: Option<String>,
    /// A note of each job; the value is JSON if it reads as such, else text
    #[arg(long, value_name = "NAME=VALUE", value_parser = note)]
    note: Vec<(String, Value)>,
    /// Print one JSON document
    #[arg(long, display_order = 800)]
    json: bool,
    #[command(flatten)]
    remote: Remote,
}

impl Put {
    async fn run(self) -> anyhow::Result<()> {
        let output = Output::new(self.json);
        let client = self.remote.client()?;
        let (name, wanted) = self.wanted().await?;
        // what is wrong is told before anybody is asked; but zones are the server's affair
        if wanted.zone.is_none() {
            Kept::new(name.clone(), wanted.clone()).map_err(|e| fault(Exit::Usage, e.to_string()))?;
        }
        let info = client.put_schedule(&name, &wanted).await.map_err(explain)?;
        tell(output, &info)
    }

    async fn wanted(self) -> anyhow::Result<(String, ScheduleRequest)> {
        let usual = JobOptions::default();
        let request = EnqueueRequest {
            args: args(&self.args).await?,
            task: self.task,
            options: JobOptions {
                attempts: self.attempts.unwrap_or(usual.attempts),
                expire: self.expire,
                notes: self.note.into_iter().collect(),
                priority: self.priority.unwrap_or(usual.priority),
                queue: self.queue.unwrap_or(usual.queue),
                key: self.key,
                timeout: self.timeout,
                backoff: self.backoff,
                ..JobOptions::default()
            },
        };
        let (every, cron, zone, missed) = (self.every, self.cron, self.zone, self.missed);
        Ok((self.name, ScheduleRequest { request, every, cron, zone, missed }))
    }
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  minium schedule next '0 3 * * mon-fri' --zone Europe/Berlin\n  \
    minium schedule next '30 2 * * *' --zone America/New_York --from 2027-03-13T00:00:00Z -n 3")]
struct Next {
    /// The expression: five fields, or @yearly, @monthly, @weekly, @daily, @hourly
    #[arg(value_name = "FIELDS")]
    cron: String,
    /// In whose clock time
    #[arg(long, default_value = "UTC")]
    zone: String,
    /// Firings after this time; now unless something is said
    #[arg(long, value_name = "TIME")]
    from: Option<Timestamp>,
    /// How many
    #[arg(long, short = 'n', value_name = "N", default_value_t = 5)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=i64::from(NEXT_MAX)))]
    count: u32,
    /// Print one JSON document
    #[arg(long, display_order = 800)]
    json: bool,
}

impl Next {
    fn run(self) -> anyhow::Result<()> {
        let output = Output::new(self.json);
        let cron = Cron::parse(&self.cron).map_err(|e| fault(Exit::Usage, e.to_string()))?;
        let zone = zone_of(&self.zone).map_err(|e| fault(Exit::Usage, e.to_string()))?;
        let mut at = self.from.unwrap_or_else(Timestamp::now);
        let mut firings = Vec::new();
        for _ in 0..self.count {
            let Some(next) = cron.next_after(at, &zone) else { break };
            firings.push(next);
            at = next;
        }
        if output.is_json() {
            return output.line(&json!({ "firings": firings }).to_string());
        }
        for firing in firings {
            output.line(&firing.to_zoned(zone.clone()).to_string())?;
        }
        Ok(())
    }
}
