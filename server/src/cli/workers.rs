//! `minium worker ls|show|command|broadcast`: looks at the workers of a node's database, and steers them.

use super::output::{Cell, Colour, Output, quietly};
use super::remote::{Remote, explain};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use minium_client::{WorkerInfo, WorkerQuery};
use serde_json::{Value, json};

#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// List workers, those that came last first
    Ls(List),
    /// Show one worker
    Show(Show),
    /// Tell one worker to do something
    Command(Tell),
    /// Tell all workers, or some, to do something
    Broadcast(Broadcast),
}

impl Action {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        quietly(match self {
            Action::Ls(list) => list.run().await,
            Action::Show(show) => show.run().await,
            Action::Command(tell) => tell.run().await,
            Action::Broadcast(broadcast) => broadcast.run().await,
        })
    }
}

#[derive(Debug, Args)]
#[command(
    after_help = "A worker that was not heard of for a minute is stale: killed, stopped, or cut off. It is \
    forgotten after half an hour.\n\nExamples:\n  minium worker ls\n  minium worker ls --state stale --json"
)]
pub(super) struct List {
    /// Only workers in this state: idle, processing or stale; may be given several times
    #[arg(long, value_delimiter = ',', value_name = "STATE")]
    state: Vec<String>,
    /// Only workers with lower numbers: the next page
    #[arg(long, value_name = "ID")]
    before: Option<i64>,
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
        let query = WorkerQuery { states: self.state, before: self.before, limit: self.limit };
        let page = self.remote.client()?.workers(&query).await.map_err(explain)?;
        if output.is_json() {
            return output.json(&page.raw);
        }
        let now = Timestamp::now();
        let rows: Vec<_> = page.workers.iter().map(|worker| row(worker, now)).collect();
        let head = ["ID", "STATE", "HOST", "PID", "KIND", "JOBS", "DONE", "HEARD", "TASKS"];
        output.page(&head, &rows, "No workers.", page.next.map(|next| format!("--before {next}")))
    }
}

fn row(worker: &WorkerInfo, now: Timestamp) -> Vec<Cell> {
    let colour = match worker.state.as_str() {
        "processing" => Some(Colour::Cyan),
        "stale" => Some(Colour::Red),
        _ => None,
    };
    let paused = if worker.paused { " (paused)" } else { "" };
    let spare = if worker.spare > 0 { format!("+{}", worker.spare) } else { String::new() };
    let heard = now.duration_since(worker.heartbeat).as_secs().max(0);
    vec![
        Cell::new(worker.id.to_string()),
        Cell::painted(format!("{}{paused}", worker.state), colour),
        Cell::new(&worker.host),
        Cell::new(worker.pid.to_string()),
        Cell::new(&worker.kind),
        Cell::new(format!("{}/{}{spare}", worker.running, worker.concurrency)),
        Cell::new(worker.performed.to_string()),
        Cell::new(format!("{heard}s")),
        Cell::new(super::output::shortened(&worker.tasks.join(" "), 60)),
    ]
}

#[derive(Debug, Args)]
pub(super) struct Show {
    /// The worker's number
    id: i64,
    /// Print one JSON document
    #[arg(long, display_order = 800)]
    json: bool,
    #[command(flatten)]
    remote: Remote,
}

impl Show {
    async fn run(self) -> anyhow::Result<()> {
        let output = Output::new(self.json);
        let (worker, raw) = self.remote.client()?.worker(self.id).await.map_err(explain)?;
        if !output.for_people() {
            return output.json(&raw);
        }
        let words = |words: &[String]| words.join(" ");
        let jobs = worker.jobs.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        let limits: Vec<_> = worker.limits.iter().map(|(task, n)| format!("{task}={n}")).collect();
        let paused = if worker.paused { " (paused)" } else { "" };
        for (name, value) in [
            ("id", worker.id.to_string()),
            ("state", format!("{}{paused}", worker.state)),
            ("host", worker.host.clone()),
            ("pid", worker.pid.to_string()),
            ("kind", format!("{} {}", worker.kind, worker.version)),
            ("started", worker.started.to_string()),
            ("heartbeat", worker.heartbeat.to_string()),
            ("queues", words(&worker.queues)),
            ("tasks", words(&worker.tasks)),
            ("concurrency", worker.concurrency.to_string()),
            ("spare", worker.spare.to_string()),
            ("limits", words(&limits)),
            ("running", format!("{} {jobs}", worker.running)),
            ("performed", worker.performed.to_string()),
        ] {
            output.line(&super::output::clean(format!("{name:<12} {value}").trim_end()))?;
        }
        Ok(())
    }
}

/// What a worker can be told.
#[derive(Debug, Args)]
struct Words {
    /// pause, resume, concurrency N, spare N, stop JOB, signal JOB SIGNAL, shutdown, or one of the program's own
    #[arg(value_name = "COMMAND")]
    name: String,
    /// Its arguments: JSON if they read as such, else text
    #[arg(value_name = "ARG", allow_negative_numbers = true)]
    args: Vec<String>,
}

impl Words {
    fn args(&self) -> Vec<Value> {
        let value = |text: &String| serde_json::from_str(text).unwrap_or_else(|_| text.clone().into());
        self.args.iter().map(value).collect()
    }
}

const COMMANDS: &str = "pause and resume stop and start its claims, running jobs go on; concurrency N changes how \
    many jobs it runs at once (0 is a pause), spare N how many more urgent ones; stop JOB ends one run, which has failed \
    then (to end the job as well, cancel it); signal JOB SIGNAL sends INT, TERM, KILL, USR1, USR2 or HUP to its command; \
    shutdown ends the worker as SIGTERM does.

Examples:
  minium worker command 7 pause
  minium worker command 7 signal 42 USR1
  minium worker broadcast concurrency 2";

#[derive(Debug, Args)]
#[command(after_help = COMMANDS)]
pub(super) struct Tell {
    /// The worker's number
    id: i64,
    #[command(flatten)]
    words: Words,
    /// Print one JSON document
    #[arg(long, display_order = 800)]
    json: bool,
    #[command(flatten)]
    remote: Remote,
}

impl Tell {
    async fn run(self) -> anyhow::Result<()> {
        let output = Output::new(self.json);
        let client = self.remote.client()?;
        client.command(self.id, &self.words.name, &self.words.args()).await.map_err(explain)?;
        told(output, 1)
    }
}

#[derive(Debug, Args)]
#[command(after_help = COMMANDS)]
pub(super) struct Broadcast {
    #[command(flatten)]
    words: Words,
    /// Only this worker; may be given several times
    #[arg(long = "to", value_name = "ID", value_delimiter = ',')]
    to: Vec<i64>,
    /// Print one JSON document
    #[arg(long, display_order = 800)]
    json: bool,
    #[command(flatten)]
    remote: Remote,
}

impl Broadcast {
    async fn run(self) -> anyhow::Result<()> {
        let output = Output::new(self.json);
        let client = self.remote.client()?;
        let to = Some(self.to.as_slice()).filter(|to| !to.is_empty());
        let sent = client.broadcast(to, &self.words.name, &self.words.args()).await.map_err(explain)?;
        told(output, sent)
    }
}

fn told(output: Output, sent: u64) -> anyhow::Result<()> {
    if output.is_json() {
        return output.line(&json!({ "sent": sent }).to_string());
    }
    let workers = if sent == 1 { "worker" } else { "workers" };
    output.line(&format!("{sent} {workers} told"))
}
