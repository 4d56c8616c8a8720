//! `minium worker`: runs command tasks, over the database without a node, or over a node's WebSocket without a database.

use super::remote;
use super::trust::Trust;
use super::workers::Action;
use crate::config;
use crate::exit::{Exit, Passed, fault};
use crate::node::{self, TaskSchemas, causes};
use crate::spools;
use crate::supervisor::Supervisor;
use anyhow::Context;
use clap::Args;
use minium_bus::Schemas;
use minium_client::{ClientError, ConnectOptions};
use minium_protocol::{ErrorCode, parse_duration};
use minium_queue::{Backend, DatabaseUrl, QueueError, Retention, SqlitePlace, UpkeepRules};
use minium_worker::{
    BecomeError, ClientSource, CommandTask, LAUNCH_FAILED, Lasting, Launch, Sandbox, StoreSource,
    TaskBackoff, UpkeepOptions, Worker as Runner, WorkerError, WorkerOptions, become_command,
};
use secrecy::SecretString;
use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Arguments of `minium worker`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(
    after_help = "A command gets the job's arguments as JSON on stdin. What it writes to stdout is the result \
    (JSON if it parses, else text), lines `::progress 40 text` and `::note name=value` on stderr become progress \
    and notes, `::step name`, `::log level text` and all others lines of the job's log, and an exit code other than 0 is a failure with the end of stderr as its error. Without --shell no \
    shell is involved: the command is split into words by blanks and quotes.

Examples:
  minium worker --database postgres://user@host/db --task import=./import.py
  minium worker --task burn-in='./burn-in.sh --fast' --queue rack3 -j 8
  minium worker --shell --task count='jq length'
  minium worker --task render=./render.py --ndjson --sandbox landlock --sandbox read=/srv/in --sandbox write=/srv/out
  minium worker --url wss://hub:3000 --ca hub-ca.pem --token-file image.jwt --task livesys/7='./run-command'

With --url no database is needed: jobs come over WebSocket, from channels that the node keeps as tasks. Results \
    are kept in a spool on disk until the node or the database has them, also over a restart of this worker. SIGTERM and \
    SIGINT let running jobs end; SIGQUIT, or a second signal a second later, kills them, and they run again when their leases have ended. A node \
    that is away is waited for; one whose certificate is not accepted ends the worker, so that whoever starts it \
    again reads the files anew. Of this worker's environment commands see what does not begin with MINIUM_, and in a sandbox \
    only PATH, HOME, LANG, TZ, TMPDIR and what environment= names. With --ndjson a command says {\"ready\":{}}, then gets \
    {\"job\":{\"id\":…,\"args\":…}} for each job and answers {\"finished\":{\"id\":…,\"result\":…}} or \
    {\"failed\":{\"id\":…,\"error\":…}}."
)]
pub(crate) struct Worker {
    #[command(subcommand)]
    action: Option<Action>,
    /// A task and the command that runs it; may be given several times
    #[arg(long = "task", value_name = "NAME=COMMAND", required = true)]
    tasks: Vec<String>,
    /// Take jobs from this queue; may be given several times
    #[arg(long = "queue", value_name = "QUEUE", default_value = "default", value_delimiter = ',')]
    queues: Vec<String>,
    /// How many jobs to run at once
    #[arg(short = 'j', long, value_name = "N", default_value_t = 4)]
    concurrency: usize,
    /// So many more slots for urgent jobs when all others are full
    #[arg(long, value_name = "N", default_value_t = 0)]
    spare: usize,
    /// From this priority on a job is urgent
    #[arg(long, value_name = "N", default_value_t = 1, allow_negative_numbers = true)]
    spare_min_priority: i32,
    /// At most so many jobs of a task at once; may be given several times
    #[arg(long = "limit", value_name = "TASK=N", value_parser = limit)]
    limits: Vec<(String, u32)>,
    /// Pause before an automatic retry of a task's jobs that do not say one themselves, as 5s; it doubles with each further
    /// one, up to 1h or, as 5s..10m, what follows the dots; may be given several times
    #[arg(long = "backoff", value_name = "TASK=TIME[..TIME]", value_parser = backoff)]
    backoffs: Vec<(String, TaskBackoff)>,
    /// End when nothing is ready and nothing runs any more
    #[arg(long)]
    until_empty: bool,
    /// How long a job stays this worker's when it is heard of no more, as 90s or 5m
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "30s")]
    lease: Duration,
    /// How often to say that it is alive; where the database cannot wake it, it asks what it is told as often
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "15s")]
    heartbeat: Duration,
    /// The database: sqlite:FILE or postgres://USER@HOST/NAME [env: MINIUM_DATABASE__URL] [default: sqlite:minium.db]
    // read by hand: to clap what the environment says for the node of this machine would contradict --url
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// Run commands by /bin/sh -c
    #[arg(long)]
    shell: bool,
    /// Keep what commands write to stderr out of the logs of their jobs, but for lines that are said to be for them
    #[arg(long)]
    no_log_stderr: bool,
    /// Commands are long-lived: a process takes one job after the other, a line of JSON each
    #[arg(long)]
    ndjson: bool,
    /// With --ndjson: replace a process after so many jobs
    #[arg(long, value_name = "N", requires = "ndjson", value_parser = clap::value_parser!(u64).range(1..))]
    recycle_jobs: Option<u64>,
    /// With --ndjson: replace a process after so long, as 10m
    #[arg(long, value_name = "TIME", requires = "ndjson", value_parser = parse_duration)]
    recycle_after: Option<Duration>,
    /// What holds commands back: basic, landlock or bwrap; and KEY=VALUE, as read=/srv/data, cpu=1m or memory=1GiB, with
    /// the keys of [worker.sandbox]; may be given several times
    #[arg(long = "sandbox", value_name = "MODE|KEY=VALUE")]
    sandbox: Vec<String>,
    /// Take jobs from this node over WebSocket, without a database, as ws://HOST:PORT or, by TLS, wss://HOST:PORT;
    /// further ones are tried in turn
    #[arg(long, value_name = "URL", conflicts_with = "database", value_delimiter = ',')]
    url: Vec<String>,
    /// With --url: token that shows who works; others on this machine can see it, so better set MINIUM_TOKEN or a file
    #[arg(long, value_name = "TOKEN", env = "MINIUM_TOKEN", hide_env_values = true)]
    token: Option<SecretString>,
    /// With --url: file that holds the token; it counts before the others
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Where results are kept until the node or the database has them [default: $XDG_STATE_HOME/minium]
    #[arg(long, value_name = "DIR")]
    spool: Option<PathBuf>,
    #[command(flatten)]
    trust: Trust,
    /// Over the database: schemas in DIR/tasks check the arguments of jobs that SQL enqueued [default: schemas, if it is
    /// there]
    #[arg(long, value_name = "DIR", env = "MINIUM_SCHEMAS__DIR", hide_env_values = true)]
    schemas: Option<PathBuf>,
}

/// Over WebSocket a result is one message: larger ones fail their job, or the node would close the connection.
const RESULT_BYTES_MAX: usize = 250_000;

impl Worker {
    /// It works, and does not only look at those that do.
    pub(super) fn runs_jobs(&self) -> bool {
        self.action.is_none()
    }

    /// Does it, until a signal says stop.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        if let Some(action) = self.action {
            return action.run().await;
        }
        let tasks = self.commands()?;
        let unknown = |name: &str| !tasks.iter().any(|t| t.name == *name);
        if let Some((task, _)) = self.limits.iter().find(|(name, _)| unknown(name)) {
            return Err(fault(Exit::Usage, format!("--limit: there is no --task {task}")));
        }
        if let Some((task, _)) = self.backoffs.iter().find(|(name, _)| unknown(name)) {
            return Err(fault(Exit::Usage, format!("--backoff: there is no --task {task}")));
        }
        let options = WorkerOptions {
            queues: self.queues.clone(),
            concurrency: self.concurrency,
            spare: self.spare,
            spare_min_priority: self.spare_min_priority,
            limits: self.limits.iter().cloned().collect(),
            backoffs: self.backoffs.iter().cloned().collect(),
            until_empty: self.until_empty,
            lease: self.lease,
            heartbeat: self.heartbeat,
            launcher: launcher(),
            log_stderr: !self.no_log_stderr,
            sandbox: self.sandbox()?,
            ..WorkerOptions::default()
        };
        if self.url.is_empty() {
            return self.over_database(tasks, options).await;
        }
        if self.queues.len() > 1 {
            return Err(fault(Exit::Usage, "--queue: over WebSocket a worker takes jobs from one queue"));
        }
        if self.spare > 0 || !self.limits.is_empty() {
            let why =
                "--spare and --limit: over WebSocket a node gives out jobs by credit, whatever they are";
            return Err(fault(Exit::Usage, why));
        }
        if !self.backoffs.is_empty() {
            let why = "--backoff: over WebSocket the node says how long a job waits for its retry";
            return Err(fault(Exit::Usage, why));
        }
        if self.until_empty {
            let why = "--until-empty: over WebSocket nobody says that there is nothing left";
            return Err(fault(Exit::Usage, why));
        }
        let options = WorkerOptions { result_bytes_max: RESULT_BYTES_MAX, ..options };
        let source = self.client_source()?;
        let failure = source.failure();
        let worker = Runner::new(source, options);
        let supervisor = Supervisor::of_environment();
        supervisor.ready(&format!("Works for {}", self.url.join(", ")));
        work(tasks.into_iter().fold(worker, Runner::command), Some(failure), &supervisor).await
    }

    fn commands(&self) -> anyhow::Result<Vec<CommandTask>> {
        let lasting = self.ndjson.then(|| Lasting {
            jobs_max: self.recycle_jobs,
            age_max: self.recycle_after,
            ..Lasting::default()
        });
        let command = |text: &String| {
            let task = CommandTask::parse(text, self.shell).map_err(explain)?;
            Ok(CommandTask { lasting: lasting.clone(), ..task })
        };
        self.tasks.iter().map(command).collect()
    }

    fn sandbox(&self) -> anyhow::Result<Option<Sandbox>> {
        let wrong = |why: String| fault(Exit::Usage, format!("--sandbox: {why}"));
        let said = config::Sandbox::from_words(&self.sandbox).map_err(|mistakes| {
            wrong(mistakes.iter().map(|m| format!("{}: {}", m.path, m.what)).collect::<Vec<_>>().join("; "))
        })?;
        said.build().map_err(|(key, why)| wrong(format!("{key} {why}")))
    }

    /// The database that the flag, else the environment names.
    fn database(&self) -> String {
        let said = self.database.clone().or_else(|| std::env::var("MINIUM_DATABASE__URL").ok());
        said.unwrap_or_else(|| "sqlite:minium.db".into())
    }

    async fn over_database(&self, tasks: Vec<CommandTask>, options: WorkerOptions) -> anyhow::Result<()> {
        // how long ended jobs are kept is said by the nodes; a worker that removed some by a rule of its own would lose them
        let rules = UpkeepRules { keep: Retention::for_ever(), ..UpkeepRules::default() };
        let upkeep = Some(UpkeepOptions { rules, ..UpkeepOptions::default() });
        let options = WorkerOptions { upkeep, ..options };
        let url = database_url(&self.database())?;
        let schemas = Arc::new(Schemas::built_in());
        let dir = node::load_schemas(self.schemas.as_deref(), &schemas)?;
        let spool = spools::of_database(self.spool.as_deref(), &url)?;
        let supervisor = Supervisor::of_environment();
        let opening = Box::pin(backend_with_schema(&url));
        let backend = tokio::select! {
            backend = supervisor.up_with(opening, "Waiting for the database") => backend.context("Cannot open the database")?,
            () = super::stream::stopped() => return Ok(()),
        };
        let mut worker = Runner::new(StoreSource::new(backend.store()), options)
            .check(Arc::new(TaskSchemas(schemas.clone())));
        if let Some(spool) = spool {
            worker = worker.spool(spool);
        }
        let watching = async {
            if let Some(dir) = dir {
                node::watch_schemas(dir, schemas).await;
            }
            std::future::pending::<()>().await;
        };
        supervisor.ready(&format!("Works on {url}"));
        tokio::select! {
            ended = work(tasks.into_iter().fold(worker, Runner::command), None, &supervisor) => ended,
            () = watching => Ok(()),
        }
    }

    fn client_source(&self) -> anyhow::Result<ClientSource> {
        let token = remote::read_token(self.token.as_ref(), self.token_file.as_ref())?;
        let mut urls = self.url.iter().cloned();
        let first = urls.next().unwrap_or_default();
        let client = remote::client(&first, token, &self.trust)?;
        let spool = spools::of_nodes(self.spool.as_deref(), &self.url)?;
        let options =
            ConnectOptions { elsewhere: urls.collect(), patient: true, ..ConnectOptions::default() };
        let link = client.connect(options).map_err(remote::explain)?;
        Ok(ClientSource::new(link, spool, self.concurrency))
    }
}

/// So many of a task, as `TASK=N`.
fn limit(text: &str) -> Result<(String, u32), String> {
    let (task, n) = text.rsplit_once('=').ok_or("it is not TASK=N")?;
    let n = n.trim().parse().ok().filter(|n| *n > 0).ok_or("N must be a whole number from 1")?;
    Ok((task.trim().to_owned(), n))
}

/// The pauses of a task, as `TASK=FIRST` or `TASK=FIRST..LONGEST`.
fn backoff(text: &str) -> Result<(String, TaskBackoff), String> {
    let (task, pauses) = text.rsplit_once('=').ok_or("it is not TASK=TIME")?;
    let (first, longest) = match pauses.split_once("..") {
        Some((first, longest)) => (first, Some(longest)),
        None => (pauses, None),
    };
    let time = |text: &str| parse_duration(text.trim()).map_err(|e| e.to_string());
    let usual = TaskBackoff::default();
    let first = time(first)?;
    let max = longest.map_or(Ok(usual.max.max(first)), time)?;
    if max < first {
        return Err("the longest pause is shorter than the first".into());
    }
    Ok((task.trim().to_owned(), TaskBackoff { first, max, ..usual }))
}

/// Where jobs are that others can enqueue.
pub(super) fn database_url(text: &str) -> anyhow::Result<DatabaseUrl> {
    let url: DatabaseUrl = text.parse().map_err(|e| fault(Exit::Usage, format!("--database: {e}")))?;
    match &url {
        DatabaseUrl::Sqlite(SqlitePlace::Memory) => {
            let why = "--database: sqlite::memory: belongs to one process; nobody else can enqueue there";
            Err(fault(Exit::Usage, why))
        }
        _ => Ok(url),
    }
}

/// Opens the database and waits until it is there with the schema of this program. A worker makes no file and changes no schema: nodes
/// do, and an older program may still use it.
///
/// # Errors
/// [`QueueError::Schema`] when the schema is newer than this program; working on it could destroy what is there.
async fn backend_with_schema(url: &DatabaseUrl) -> Result<Backend, QueueError> {
    const PAUSE: Duration = Duration::from_secs(1);
    let (mut opened, mut told) = (None, None);
    loop {
        let missing = matches!(url, DatabaseUrl::Sqlite(SqlitePlace::File(path)) if !path.exists());
        if opened.is_none() && !missing {
            opened = Some(Backend::open(url).await?);
        }
        let status = match &opened {
            Some(backend) => backend.migration_status().await,
            None => Ok(Vec::new()),
        };
        let why = match (status, &opened) {
            (Ok(all), Some(backend)) if all.iter().all(|migration| migration.applied.is_some()) => {
                return Ok(backend.clone());
            }
            (Ok(all), _) if all.iter().all(|migration| migration.applied.is_none()) => Awaited::Schema,
            (Ok(_), _) => Awaited::Migration,
            (Err(error), _)
                if error.code() == ErrorCode::Unavailable && !matches!(error, QueueError::Schema(_)) =>
            {
                Awaited::Database(causes(&error))
            }
            (Err(error), _) => return Err(error),
        };
        if told.as_ref() != Some(&why) {
            why.tell(url);
            told = Some(why);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// What a worker waits for before it begins.
#[derive(Debug, PartialEq, Eq)]
enum Awaited {
    Database(String),
    Schema,
    Migration,
}

impl Awaited {
    fn tell(&self, url: &DatabaseUrl) {
        match self {
            Awaited::Database(error) => {
                warn!(%url, error, "The database is not there yet; trying again until it is.");
            }
            Awaited::Schema => warn!(
                %url,
                "The database has no schema of Minium yet; waiting until there is one: run minium serve or minium migrate \
                 on it. Is the path right?"
            ),
            Awaited::Migration => warn!(
                %url,
                "The schema of the database is older than this worker; waiting until minium serve or minium migrate of this \
                 version has brought it up to date."
            ),
        }
    }
}

/// Runs a worker until a signal says stop, or until nothing can come any more.
async fn work(
    worker: Runner,
    failure: Option<watch::Receiver<Option<Arc<ClientError>>>>,
    supervisor: &Supervisor,
) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    // one task with the worker's own loop: while that hangs, nobody says that it is alive
    let working = async {
        tokio::select! {
            ended = Box::pin(worker.run(stop.clone())) => ended,
            never = supervisor.keep_alive_for_ever() => match never {},
        }
    };
    let mut working = std::pin::pin!(working);
    let mut over = None;
    tokio::select! {
        ended = &mut working => return ended.map_err(explain),
        error = failed(failure) => over = Some(error),
        () = super::stream::quit() => return Err(killed()),
        () = super::stream::stopped() => info!("Stopping when the running jobs have ended; a second signal, a second later, kills."),
    }
    stop.cancel();
    supervisor.stopping("Running jobs get time to end");
    tokio::select! {
        ended = supervisor.patiently(working) => ended.map_err(explain)?,
        () = super::stream::insisted() => return Err(killed()),
        () = super::stream::quit() => return Err(killed()),
    }
    match over {
        Some(error) => Err(remote::explained(&error)),
        None => Ok(()),
    }
}

/// The processes of its jobs end as what leads them is dropped.
fn killed() -> anyhow::Error {
    let why = "stopped before the running jobs had ended; they run again when their leases have";
    fault(Exit::Failed, why)
}

async fn failed(failure: Option<watch::Receiver<Option<Arc<ClientError>>>>) -> Arc<ClientError> {
    if let Some(mut failure) = failure
        && let Ok(error) = failure.wait_for(Option::is_some).await
        && let Some(error) = error.clone()
    {
        return error;
    }
    std::future::pending().await
}

/// What is wrong with how the worker was called, or with its database.
pub(super) fn explain(error: WorkerError) -> anyhow::Error {
    match error {
        WorkerError::Source(_) => anyhow::Error::new(error),
        WorkerError::Sandbox(_) => fault(Exit::Failed, error.to_string()),
        mistake => fault(Exit::Usage, mistake.to_string()),
    }
}

/// Makes commands die with the worker, however that dies, and holds them back: this very program, as [`Become`]. Not by its
/// path, since an upgrade may put another program there while this one runs.
pub(crate) fn launcher() -> Vec<String> {
    let parent = std::process::id().to_string();
    ["/proc/self/exe", "become", "--parent", &parent].map(str::to_owned).into()
}

/// Arguments of `minium become`, which workers put before their commands.
#[derive(Debug, Args)]
pub(crate) struct Become {
    /// The worker's process
    #[arg(long)]
    parent: u32,
    /// What holds the command back, as JSON
    #[arg(long, value_parser = |text: &str| serde_json::from_str::<Launch>(text))]
    sandbox: Option<Launch>,
    /// The command
    #[arg(required = true, last = true)]
    words: Vec<OsString>,
}

impl Become {
    /// Becomes the command. Returns only if it cannot.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let error = become_command(Some(self.parent), self.sandbox.as_ref(), &self.words);
        if let BecomeError::Sandbox(_) = error {
            // in words that the worker knows from a command's own; a closed stderr is no reason to run it
            writeln!(std::io::stderr(), "{error}").ok();
            return Err(Passed(LAUNCH_FAILED).into());
        }
        Err(fault(Exit::Failed, error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(database: &str, url: &[&str]) -> Worker {
        Worker {
            action: None,
            spare: 0,
            spare_min_priority: 1,
            limits: vec![],
            backoffs: vec![],
            until_empty: false,
            tasks: vec!["x=true".into()],
            queues: vec!["default".into()],
            concurrency: 1,
            lease: Duration::from_secs(30),
            heartbeat: Duration::from_secs(15),
            database: Some(database.to_owned()),
            shell: false,
            no_log_stderr: false,
            ndjson: false,
            recycle_jobs: None,
            recycle_after: None,
            sandbox: vec![],
            url: url.iter().map(|u| (*u).into()).collect(),
            token: None,
            token_file: None,
            spool: Some("/proc/none".into()),
            trust: Trust::default(),
            schemas: None,
        }
    }

    #[test]
    fn pauses_of_a_task_are_read() {
        let read = |text: &str| backoff(text).map(|(task, b)| (task, b.first.as_secs(), b.max.as_secs()));
        assert_eq!(read("a=b=5s"), Ok(("a=b".into(), 5, 3_600)));
        assert_eq!(read("a=5s..10m"), Ok(("a".into(), 5, 600)));
        assert_eq!(read("a=2h"), Ok(("a".into(), 7_200, 7_200)));
        for bad in ["a", "a=", "a=x", "a=5s..", "a=5s..1s"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn what_cannot_work_is_a_wrong_call() {
        let says = async |worker: Worker, word: &str| {
            let error = worker.run().await.unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        };
        says(worker("sqlite::memory:", &[]), "memory").await;
        says(worker("mysql://x", &[]), "--database").await;
        says(worker("", &["ftp://h"]), "http://").await;
        says(worker("", &["ws://h"]), "--spool").await;
        let trust = Trust { ca: Some("/no/such/file".into()), ..Trust::default() };
        says(Worker { trust, ..worker("", &["wss://h"]) }, "--ca").await;
        says(worker("sqlite:x.db", &[]), "--spool").await;
        let schemas = Some("/no/such/place".into());
        says(Worker { schemas, ..worker("sqlite:x.db", &[]) }, "/no/such/place").await;
        let sandbox = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect();
        says(Worker { sandbox: sandbox(&["cpu=1s"]), ..worker("sqlite:x.db", &[]) }, "mode is missing").await;
        says(Worker { sandbox: sandbox(&["basic", "ram=1"]), ..worker("sqlite:x.db", &[]) }, "ram").await;
        let limits = vec![("y".to_owned(), 1)];
        says(Worker { limits, ..worker("sqlite:x.db", &[]) }, "--limit").await;
        let backoffs = vec![("y".to_owned(), TaskBackoff::default())];
        says(Worker { backoffs, ..worker("sqlite:x.db", &[]) }, "--backoff").await;
        let backoffs = vec![("x".to_owned(), TaskBackoff::default())];
        says(Worker { backoffs, ..worker("", &["ws://h"]) }, "--backoff").await;
        says(Worker { until_empty: true, ..worker("", &["ws://h"]) }, "--until-empty").await;
        says(Worker { spare: 1, ..worker("", &["ws://h"]) }, "--spare").await;
        let queues = vec!["a".into(), "b".into()];
        says(Worker { queues, ..worker("", &["ws://h"]) }, "one queue").await;
    }
}
