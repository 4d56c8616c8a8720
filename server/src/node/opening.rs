//! The database's part of a node: opened as soon as it is there, worked on until the node goes down.
//!
//! A database that is not there is tried again and again, while everything that needs none already works. A schema
//! that is newer than this program ends the node: working on it could destroy what is there.

#![allow(
    clippy::result_large_err,
    reason = "a problem is made when something is refused, not on the way of what passes"
)]

use super::{AddTasks, SOURCE, rounds};
use crate::config::Config;
use crate::database::{Database, Door, Open};
use crate::exit::{Exit, fault};
use crate::sinks::{Sinks, finish_left};
use crate::spools;
use crate::supervisor::Supervisor;
use anyhow::Context;
use minium_bus::{Bus, Schemas};
use minium_notifier::{
    EnvelopeOptions, Hold, Journal, LagOptions, Relay, RelayOptions, RelayState, Retentions, TaskWork,
    WorkOptions,
};
use minium_protocol::{ErrorCode, Problem, SchemaFault};
use minium_queue::postgres::PgOptions;
use minium_queue::{Backend, DatabaseUrl, QueueError, SqlitePlace, Store, UpkeepRules, causes};
use minium_worker::{ArgsCheck, Spool, StoreSource, TaskBackoff, Worker, WorkerOptions};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

/// The first pause between attempts; it doubles up to the longest.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Opens the database and starts what works on it.
pub(super) struct Opener {
    pub(super) config: Arc<Config>,
    pub(super) base_url: String,
    pub(super) bus: Bus,
    pub(super) schemas: Arc<Schemas>,
    pub(super) work: TaskWork,
    pub(super) retentions: Retentions,
    pub(super) door: Door,
    pub(super) tasks: Option<AddTasks>,
    pub(super) sinks: Sinks,
    pub(super) closing: CancellationToken,
    pub(super) supervisor: Supervisor,
    /// The schema is being brought up to date.
    pub(super) migrating: Arc<AtomicBool>,
}

/// A database that is ready to be worked on.
struct Opened {
    backend: Backend,
    journal: Journal,
    /// The generation of the schemas whose masks it was told.
    masks: u64,
}

impl Opener {
    /// Until the node goes down, or until there is no sense in going on.
    pub(super) async fn run(mut self) -> anyhow::Result<()> {
        let closing = self.closing.clone();
        let Some(opened) = closing.run_until_cancelled(Box::pin(self.open_at_last())).await else {
            return Ok(());
        };
        self.work(opened?).await
    }

    /// Tries until it is there.
    async fn open_at_last(&self) -> anyhow::Result<Opened> {
        let url: DatabaseUrl =
            self.config.database.url.parse().map_err(|e: QueueError| fault(Exit::Usage, e.to_string()))?;
        let (mut pause, mut told, mut opened) = (PAUSE_MIN, String::new(), None);
        loop {
            let error = match self.open(&url, &mut opened).await {
                Ok(opened) => return Ok(opened),
                Err(error) => error,
            };
            if is_final(&url, &error) {
                return Err(fault(
                    Exit::Failed,
                    format!("The database {url} cannot be used: {}", causes(&error)),
                ));
            }
            self.door.refused(&error.to_string());
            let why = causes(&error);
            if why != told {
                warn!(%url, error = %why, "The database is not there yet; trying again until it is.");
                told = why;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// What was opened before is tried again: it has its own way of looking whether the server is there.
    async fn open(&self, url: &DatabaseUrl, opened: &mut Option<Backend>) -> Result<Opened, QueueError> {
        let backend = match opened {
            Some(backend) => backend.clone(),
            None => opened.insert(open_backend(&self.config, url).await?).clone(),
        };
        self.migrating.store(true, Relaxed);
        let applied = self.supervisor.patiently(backend.migrate()).await;
        self.migrating.store(false, Relaxed);
        let applied = applied?;
        if applied > 0 {
            info!(applied, "Migrations applied.");
        }
        // before anybody can enqueue through this node
        let masks = self.schemas.generation();
        backend.store().put_masks(&rounds::args_masks(&self.schemas)).await?;
        let limits = self.config.limits.iter().map(|(task, limit)| limit.limit(task));
        backend.store().put_limits(&limits.collect::<Vec<_>>()).await?;
        backend.store().put_configured_schedules(&self.config.schedules()).await?;
        let options = EnvelopeOptions { source: SOURCE.into(), dataschema: Some(self.job_schema()) };
        let journal = Journal::open(&backend, options);
        Ok(Opened { backend, journal, masks })
    }

    /// `dataschema` of every task event.
    fn job_schema(&self) -> String {
        let public =
            self.config.server.public_url.as_ref().map_or(self.base_url.as_str(), |url| url.0.as_str());
        format!("{public}/schemas/job.json")
    }

    async fn work(&mut self, Opened { backend, journal, masks }: Opened) -> anyhow::Result<()> {
        let store = backend.store();
        let history = journal.history();
        // The relay outlives what writes events, so that what it can still relay goes out. What is written in the very last
        // moment is read by those who resume.
        let relay_end = CancellationToken::new();
        let relay = Relay::start(&journal, self.bus.clone(), self.relay_options(), relay_end.clone());
        let (watched, followed) = (relay.states(), journal.clone());
        self.door.opened(Open {
            store: store.clone(),
            journal,
            history,
            relaying: Arc::new(move || matches!(*watched.borrow(), RelayState::Relaying(_))),
        });
        let url = self
            .config
            .database
            .url
            .parse::<DatabaseUrl>()
            .map_or_else(|_| String::new(), |url| url.to_string());
        info!(%url, "The database is there.");

        let rounds = TaskTracker::new();
        let rules = UpkeepRules {
            keep: self.config.job_retention(),
            grace: self.config.queue.lease_grace,
            ..UpkeepRules::default()
        };
        rounds.spawn(rounds::upkeep(store.clone(), rules, self.closing.clone()));
        rounds.spawn(rounds::masks(store.clone(), self.schemas.clone(), masks, self.closing.clone()));
        rounds.spawn(rounds::schedules(store.clone(), self.closing.clone()));
        self.sinks.start(&followed, &relay.states(), &rounds, &self.closing);
        self.deliver(&rounds, &store, followed);
        rounds.close();
        let outcome = match self.worker(store)? {
            Some(worker) => {
                let ended = worker.run(self.closing.clone()).await.context("Running the worker");
                match &ended {
                    // a command may have ended the worker alone; the node goes on
                    Ok(()) => self.closing.cancelled().await,
                    // nothing that waits helps: what runs beside it must not keep the node from saying so
                    Err(_) => self.closing.cancel(),
                }
                ended
            }
            None => {
                self.closing.cancelled().await;
                Ok(())
            }
        };
        rounds.wait().await;
        relay_end.cancel();
        relay.join().await;
        outcome
    }

    /// Does what sinks are told, or ends what is left of sinks that are gone.
    fn deliver(&self, rounds: &TaskTracker, store: &Arc<dyn Store>, journal: Journal) {
        let closing = self.closing.clone();
        if self.sinks.is_empty() {
            let (sinks, config) = (self.sinks.clone(), self.config.clone());
            let (jobs, at) = (store.clone(), journal.clone());
            let worker = move || sinks.worker(&jobs, &at, &config, true);
            rounds.spawn(finish_left(store.clone(), journal, worker, closing));
        } else {
            let worker = self.sinks.worker(store, &journal, &self.config, false);
            rounds.spawn(rounds::deliveries(worker, closing));
        }
    }

    fn relay_options(&self) -> RelayOptions {
        let minion_topic = self.config.notifier.minion_topic.clone();
        let (work, retention) = (Some(self.work.clone()), Some(self.retentions.clone()));
        let notifier = &self.config.notifier;
        let lag = LagOptions {
            events_max: u64::from(notifier.lag_events),
            age_max: notifier.lag,
            ..LagOptions::default()
        };
        let recorders = &self.config.recorders;
        let usual = match self.config.is_in_memory() {
            true => Hold::in_memory(),
            false => Hold::default(),
        };
        let hold = Hold {
            age: recorders.hold_age,
            count: recorders.hold_count.map_or(usual.count, u64::from),
            bytes: recorders.hold_bytes.0,
        };
        RelayOptions { minion_topic, retention, work, lag, hold, ..RelayOptions::default() }
    }

    /// How long jobs of tasks that say so wait for their automatic retries.
    fn backoffs(&self) -> BTreeMap<String, TaskBackoff> {
        let backoff = |task: &crate::config::Task| {
            let usual = TaskBackoff {
                factor: f64::from(task.backoff_factor),
                max: task.backoff_max,
                ..TaskBackoff::default()
            };
            task.backoff.map(|first| TaskBackoff { first, ..usual })
        };
        let tasks = self.config.tasks.iter();
        tasks.filter_map(|(name, task)| Some((name.clone(), backoff(task)?))).collect()
    }

    /// The worker inside, if it has anything to do.
    fn worker(&mut self, store: Arc<dyn Store>) -> anyhow::Result<Option<Worker>> {
        let config = &self.config;
        let typed = self.tasks.take();
        if typed.is_none() && config.tasks.is_empty() {
            return Ok(None);
        }
        // Commands die with the node, even when it is killed.
        let launcher = crate::cli::worker::launcher();
        let options = WorkerOptions {
            queues: config.worker.queues.clone(),
            concurrency: config.worker.concurrency as usize,
            spare: config.worker.spare as usize,
            spare_min_priority: config.worker.spare_min_priority,
            limits: config
                .tasks
                .iter()
                .filter_map(|(name, task)| Some((name.clone(), task.limit?)))
                .collect(),
            lease: config.worker.lease,
            grace: config.server.shutdown_grace,
            launcher,
            backoffs: self.backoffs(),
            log_stderr: config.worker.log_stderr,
            ..WorkerOptions::default()
        };
        let mut worker =
            Worker::new(StoreSource::new(store), options).check(Arc::new(TaskSchemas(self.schemas.clone())));
        if let Some(spool) = self.spool()? {
            worker = worker.spool(spool);
        }
        for (name, task) in &config.tasks {
            worker = worker.command(task.command(name, &config.worker));
        }
        Ok(Some(match typed {
            Some(add) => add(worker, self.bus.clone()),
            None => worker,
        }))
    }
}

impl Opener {
    /// Where the worker's results wait, if there is such a place.
    fn spool(&self) -> anyhow::Result<Option<Spool>> {
        match self.config.database.url.parse() {
            Ok(url) => spools::of_database(None, &url),
            Err(_) => Ok(None),
        }
    }
}

/// The backend with the configured bounds. The schema is not touched.
pub(crate) async fn open_backend(config: &Config, url: &DatabaseUrl) -> Result<Backend, QueueError> {
    match url {
        DatabaseUrl::Postgres(text) => {
            let options = PgOptions { connections: config.database.pool as usize, ..PgOptions::default() };
            Backend::open_postgres(text, options)
        }
        DatabaseUrl::Sqlite(_) => Backend::open(url).await,
    }
}

/// A database file is made where it is missing, and its directory is not: told before anything is started.
pub(super) fn check_place(config: &Config) -> anyhow::Result<()> {
    let Ok(DatabaseUrl::Sqlite(SqlitePlace::File(path))) = config.database.url.parse() else { return Ok(()) };
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    match parent.filter(|parent| !parent.is_dir()) {
        None => Ok(()),
        Some(parent) => {
            let (path, parent) = (path.display(), parent.display());
            let words = format!("The database {path} cannot be made: the directory {parent} does not exist");
            Err(fault(Exit::Failed, words))
        }
    }
}

/// What the schedules of the configuration enqueue must fit the schemas of their tasks: told before anything is started, all
/// of it at once.
pub(super) fn check_schedules(config: &Config, schemas: &Arc<Schemas>) -> anyhow::Result<()> {
    let check = TaskSchemas(schemas.clone());
    let schedules = config.schedules();
    let misfits = schedules.iter().filter_map(|schedule| {
        let faults = check.check(&schedule.request.task, &schedule.request.args).err()?;
        Some(format!("schedules.{}: {}", schedule.name, SchemaFault::describe(&faults)))
    });
    let misfits: Vec<String> = misfits.collect();
    if misfits.is_empty() { Ok(()) } else { Err(fault(Exit::Usage, misfits.join("\n"))) }
}

/// No waiting helps: the schema is newer, or a file cannot be opened.
fn is_final(url: &DatabaseUrl, error: &QueueError) -> bool {
    matches!(error, QueueError::Schema(_) | QueueError::Invalid(_)) || matches!(url, DatabaseUrl::Sqlite(_))
}

/// The task schemas, for jobs that no HTTP request has checked.
pub(crate) struct TaskSchemas(pub(crate) Arc<Schemas>);

/// The queue behind durable push/pull channels; it waits for the database by itself.
pub(super) fn start_work(
    database: &Database,
    schemas: &Arc<Schemas>,
    closing: &CancellationToken,
) -> TaskWork {
    let schemas = schemas.clone();
    let check = move |task: &str, args: &RawValue| {
        TaskSchemas(schemas.clone()).check(task, args).map_err(|errors| {
            let words = format!("the arguments do not fit the schema of the task {task}");
            Problem { errors, ..Problem::new(ErrorCode::SchemaViolation, words) }
        })
    };
    TaskWork::start(&database.store_slot(), Arc::new(check), WorkOptions::default(), closing)
}

impl ArgsCheck for TaskSchemas {
    fn check(&self, task: &str, args: &RawValue) -> Result<(), Vec<SchemaFault>> {
        let Some(schema) = self.0.for_task(task) else { return Ok(()) };
        let args = serde_json::from_str(args.get()).map_err(|error| {
            let detail = format!("the arguments cannot be read: {error}");
            vec![SchemaFault { pointer: String::new(), schema: String::new(), detail }]
        })?;
        schema.check(&args)
    }
}
