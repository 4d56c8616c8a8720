//! The loop: claims jobs into free slots, runs them, and hands their outcomes in.
//!
//! One exchange with the source is under way at a time. It takes whatever outcomes are ready and asks for as many
//! jobs as slots are free, so that batches grow by themselves as load does. Nothing that the source does or fails to
//! do ends the loop; only the word to stop does.

mod drain;
mod exchange;

use crate::backoff::{Backoff, jittered};
use crate::command::{CommandRunner, CommandTask, LastingRunner};
use crate::control::{Control, Handler};
use crate::error::WorkerError;
use crate::handover::Handover;
use crate::keeping::Keeping;
use crate::metrics::{JOBS_RUNNING, OUTCOMES_TOTAL, OUTCOMES_WAITING};
use crate::notes::call;
use crate::options::WorkerOptions;
use crate::pace::Pace;
use crate::report::Report;
use crate::running::{self, Done, Running, Surroundings};
use crate::sandbox::Probe;
use crate::side::{self, Identity};
use crate::source::JobSource;
use crate::spool::Spool;
use crate::task::{ArgsCheck, Failure, FunctionTask, Task};
use crate::{JobContext, task};
use exchange::Answer;
use futures::future::BoxFuture;
use minium_protocol::{LeaseToken, Topic};
use minium_queue::{Command, Leased, Outcome, causes};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// Runs jobs.
///
/// ```no_run
/// # async fn example(store: std::sync::Arc<dyn minium_queue::Store>) -> Result<(), minium_worker::WorkerError> {
/// use minium_worker::{Failure, JobContext, StoreSource, Worker, WorkerOptions};
/// use tokio_util::sync::CancellationToken;
///
/// async fn add(job: JobContext, numbers: Vec<i64>) -> Result<i64, Failure> {
///     job.progress(50.0, "adding");
///     numbers.iter().try_fold(0i64, |sum, n| sum.checked_add(*n)).ok_or(Failure::permanent("too large"))
/// }
/// Worker::new(StoreSource::new(store), WorkerOptions::default())
///     .task("add", add)
///     .run(CancellationToken::new())
///     .await
/// # }
/// ```
pub struct Worker {
    source: Arc<dyn JobSource>,
    options: WorkerOptions,
    tasks: BTreeMap<String, Arc<dyn Task>>,
    own: BTreeMap<String, Handler>,
    check: Option<Arc<dyn ArgsCheck>>,
    spool: Option<Spool>,
    #[cfg(feature = "schemas")]
    schemas: BTreeMap<String, Value>,
    /// The first mistake made while it was put together; told when it is run.
    mistake: Option<WorkerError>,
}

impl Worker {
    /// A worker without tasks yet.
    pub fn new(source: impl JobSource, options: WorkerOptions) -> Worker {
        Worker {
            source: Arc::new(source),
            options,
            tasks: BTreeMap::new(),
            own: BTreeMap::new(),
            check: None,
            spool: None,
            #[cfg(feature = "schemas")]
            schemas: BTreeMap::new(),
            mistake: None,
        }
    }

    /// Adds a task that is an async function of the job and its arguments. The arguments are the job's whole `args`:
    /// by custom an array, so `Vec<T>` or a tuple. A panic fails the job that it happens in, and no other.
    #[must_use]
    pub fn task<F, A, R, E, Run>(self, name: impl Into<String>, function: F) -> Worker
    where
        F: Fn(JobContext, A) -> Run + Send + Sync + 'static,
        Run: Future<Output = Result<R, E>> + Send + 'static,
        A: DeserializeOwned + Send + 'static,
        R: Serialize + Send + 'static,
        E: Into<Failure> + Send + 'static,
    {
        self.add(name.into(), Arc::new(FunctionTask::new(function)))
    }

    /// As [`Worker::task`], and keeps the JSON Schema of the arguments' type: [`Worker::schemas`] has it, to be written into a
    /// node's folder of schemas and compared with it in a test ([`schema::assert_same`](crate::schema::assert_same)).
    #[cfg(feature = "schemas")]
    #[must_use]
    pub fn described<F, A, R, E, Run>(mut self, name: impl Into<String>, function: F) -> Worker
    where
        F: Fn(JobContext, A) -> Run + Send + Sync + 'static,
        Run: Future<Output = Result<R, E>> + Send + 'static,
        A: DeserializeOwned + schemars::JsonSchema + Send + 'static,
        R: Serialize + Send + 'static,
        E: Into<Failure> + Send + 'static,
    {
        let name = name.into();
        self.schemas.insert(name.clone(), crate::schema::of::<A>(&name));
        self.task(name, function)
    }

    /// The schemas of the tasks that were [described](Worker::described), by their names.
    #[cfg(feature = "schemas")]
    pub fn schemas(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.schemas.iter().map(|(task, schema)| (task.as_str(), schema))
    }

    /// Adds a task that is a program.
    #[must_use]
    pub fn command(mut self, task: CommandTask) -> Worker {
        if let Err(mistake) = task.check() {
            self.mistake.get_or_insert(mistake);
            return self;
        }
        let runner: Arc<dyn Task> = match &task.lasting {
            None => Arc::new(CommandRunner::new(&task, &self.options)),
            Some(lasting) => Arc::new(LastingRunner::new(&task, lasting, &self.options)),
        };
        self.add(task.name, runner)
    }

    /// Adds a command of the program's own, which somebody may tell it by this name. It is done beside the work; a panic in
    /// it, and whatever comes of it, is the log's affair.
    #[must_use]
    pub fn on_command<F, Done>(mut self, name: impl Into<String>, handler: F) -> Worker
    where
        F: Fn(Vec<Value>) -> Done + Send + Sync + 'static,
        Done: Future<Output = ()> + Send + 'static,
    {
        let name = name.into();
        if matches!(Command::parse(&name, &[]), Ok(Command::Own { .. })) {
            self.own.insert(name, Arc::new(move |args| Box::pin(handler(args))));
        } else {
            self.mistake.get_or_insert(WorkerError::CommandName(name));
        }
        self
    }

    /// Judges arguments before a job runs; what is refused fails without retry.
    #[must_use]
    pub fn check(mut self, check: Arc<dyn ArgsCheck>) -> Worker {
        self.check = Some(check);
        self
    }

    /// Keeps outcomes on disk from the end of their run until the source has judged them. Without it they wait in memory
    /// while the source is away, and whoever kills this process then loses them: their jobs run again if attempts are
    /// left, else they fail. Not for a [`ClientSource`](crate::ClientSource), which has a spool of its own.
    #[must_use]
    pub fn spool(mut self, spool: Spool) -> Worker {
        self.spool = Some(spool);
        self
    }

    fn add(mut self, name: String, task: Arc<dyn Task>) -> Worker {
        if let Err(reason) = Topic::of_job(&name, i64::MAX) {
            self.mistake.get_or_insert(WorkerError::TaskName { name, reason: reason.to_string() });
            return self;
        }
        match self.tasks.entry(name) {
            Entry::Vacant(place) => _ = place.insert(task),
            Entry::Occupied(taken) => {
                self.mistake.get_or_insert(WorkerError::TaskTwice(taken.key().clone()));
            }
        }
        self
    }

    /// The tasks that it runs, in order.
    pub fn task_names(&self) -> impl Iterator<Item = &str> {
        self.tasks.keys().map(String::as_str)
    }

    /// Works until told to stop; then lets running jobs end within the grace, hands their outcomes in and signs off.
    /// A source that is away, at the start or later, is waited for.
    ///
    /// # Errors
    /// Only for what waiting does not help: no tasks, a bad name, a sandbox that cannot be had, a schema that this program
    /// does not know.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), WorkerError> {
        if let Some(mistake) = self.mistake {
            return Err(mistake);
        }
        self.options.check()?;
        if self.tasks.is_empty() {
            return Err(WorkerError::NoTasks);
        }
        tokio::select! {
            had = launchable(self.tasks.values()) => had?,
            () = shutdown.cancelled() => return Ok(()),
        }
        let (source, options) = (self.source, Arc::new(self.options));
        let all: Vec<Arc<dyn Task>> = self.tasks.values().cloned().collect();
        let names: Vec<String> = self.tasks.keys().cloned().collect();
        let (pace, running) = (Arc::new(Pace::new(&options)), Arc::new(Running::default()));
        let report = Arc::new(Report::new(&options, names.clone(), &pace, &running));
        let me = tokio::select! {
            me = Identity::obtain(source.as_ref(), &options, &report) => Arc::new(me.map_err(WorkerError::Source)?),
            () = shutdown.cancelled() => return Ok(()),
        };
        info!(worker = me.current().id, tasks = ?names, concurrency = options.concurrency, "The worker waits for jobs.");

        // ended by a command alone, whoever shares the token goes on
        let shutdown = shutdown.child_token();
        // aborted when dropped: none of them holds anything that must be put away
        let mut side = JoinSet::new();
        side.spawn(side::heartbeat(source.clone(), me.clone(), report.clone(), options.clone()));
        let control = Control {
            source: source.clone(),
            me: me.clone(),
            running: running.clone(),
            pace: pace.clone(),
            report: report.clone(),
            options: options.clone(),
            own: self.own,
            shutdown: shutdown.clone(),
        };
        side.spawn(control.run());
        side.spawn(side::extend_leases(source.clone(), running.clone(), options.clone()));
        side.spawn(side::heed_cancellations(source.clone(), running.clone()));
        if let Some(rules) = options.upkeep.clone() {
            side.spawn(side::upkeep(source.clone(), rules, options.clone()));
        }
        let around = Surroundings { source: source.clone(), options: options.clone(), check: self.check };
        let shared = Shared { running, me: me.clone(), pace, report };
        Shift::new(around, (self.tasks, names), shared, self.spool).work(shutdown).await;
        side.shutdown().await;
        futures::future::join_all(all.iter().map(|task| task.close())).await;
        let farewell = source.unregister(me.current().id);
        if let Err(error) = call(farewell, options.handover_grace).await {
            warn!(error = causes(&error), "The worker could not sign off.");
        }
        info!("The worker has ended.");
        Ok(())
    }
}

/// What tasks run in is tried once, whatever number of them asks for the same.
async fn launchable(tasks: impl Iterator<Item = &Arc<dyn Task>>) -> Result<(), WorkerError> {
    let mut probes: Vec<Probe> = Vec::new();
    for probe in tasks.filter_map(|task| task.probe()) {
        if !probes.contains(&probe) {
            probe.run().await?;
            probes.push(probe);
        }
    }
    Ok(())
}

/// What the loop shares with those beside it.
struct Shared {
    running: Arc<Running>,
    me: Arc<Identity>,
    pace: Arc<Pace>,
    report: Arc<Report>,
}

/// The loop's state.
struct Shift {
    around: Surroundings,
    tasks: BTreeMap<String, Arc<dyn Task>>,
    names: Vec<String>,
    running: Arc<Running>,
    me: Arc<Identity>,
    pace: Arc<Pace>,
    report: Arc<Report>,
    jobs: JoinSet<Done>,
    keeping: Keeping,
    handover: Handover,
    /// Claimed when it was too late to begin them: to be given back.
    unwanted: Vec<(i64, LeaseToken)>,
    exchange: Option<BoxFuture<'static, Answer>>,
    /// So many claims were made.
    claims: u64,
    /// What the last claim tells of whether there is anything left.
    found: Found,
    /// There may be something to claim.
    more: bool,
    /// There may be something urgent to claim.
    more_urgent: bool,
    backoff: Backoff,
    /// No exchange before this, since the last one failed.
    not_before: Option<Instant>,
    /// When to look for work though nothing said that there is any.
    poll_at: Instant,
}

/// What a claim tells of whether there is anything left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// It found something, went wrong, or was not for jobs of every priority; or what was handed in with it may have made
    /// something ready.
    Unknown,
    /// There is nothing.
    Nothing,
    /// The source did not look for as much as it was asked for. It is asked again at the usual pace.
    Slowed,
}

/// Turns of the scheduler given to jobs that are about to end, so that their outcomes go in together.
const GATHER_TURNS: usize = 3;

impl Shift {
    fn new(
        around: Surroundings,
        (tasks, names): (BTreeMap<String, Arc<dyn Task>>, Vec<String>),
        shared: Shared,
        spool: Option<Spool>,
    ) -> Shift {
        let (keeping, left) = Keeping::new(spool, &around.options);
        let mut handover = Handover::new(&around.options);
        left.into_iter().for_each(|outcome| handover.push(outcome));
        Shift {
            keeping,
            handover,
            unwanted: Vec::new(),
            backoff: Backoff::new(&around.options),
            around,
            tasks,
            names,
            running: shared.running,
            me: shared.me,
            pace: shared.pace,
            report: shared.report,
            jobs: JoinSet::new(),
            exchange: None,
            claims: 0,
            found: Found::Unknown,
            more: true,
            more_urgent: true,
            not_before: None,
            poll_at: Instant::now(),
        }
    }

    /// Nothing runs, and nothing is to be handed in.
    fn is_idle(&self) -> bool {
        self.jobs.is_empty()
            && self.exchange.is_none()
            && self.not_before.is_none()
            && self.handover.is_empty()
            && self.keeping.waiting() == 0
    }

    /// What has fallen due is ready only after upkeep, which may not have been round since.
    async fn look_once_more(&mut self, shutdown: &CancellationToken) {
        let options = self.around.options.clone();
        if let Some(upkeep) = &options.upkeep {
            let round = call(self.around.source.upkeep(&upkeep.rules), options.call_timeout);
            tokio::select! {
                done = round => done.map_or_else(|error| side::failed_call("upkeep", &error), drop),
                () = shutdown.cancelled() => {}
            }
        }
        self.more = true;
    }

    async fn work(mut self, shutdown: CancellationToken) {
        let (mut wakeups, pace) = (Some(self.around.source.wakeups()), self.pace.clone());
        while !shutdown.is_cancelled() {
            if self.around.options.until_empty && self.is_idle() {
                match self.found {
                    Found::Nothing => break,
                    Found::Unknown => self.look_once_more(&shutdown).await,
                    Found::Slowed => {}
                }
            }
            self.begin_exchange(true);
            let moment = self.next_moment();
            tokio::select! {
                answer = arrival(&mut self.exchange) => self.answered(answer, true),
                kept = self.keeping.next() => self.kept(kept),
                Some(done) = self.jobs.join_next() => {
                    self.ended(done);
                    self.gather().await;
                }
                awake = side::changed(&mut wakeups) => self.may_find_more(awake),
                () = pace.changed.notified() => self.may_find_more(true),
                () = sleep_until(moment) => self.look_again(),
                () = shutdown.cancelled() => {}
            }
        }
        self.drain().await;
    }

    fn start(&mut self, mut leased: Leased, until: Instant) {
        let job = self.running.begin(&mut leased, until);
        self.report.begun();
        let around = self.around.clone();
        match self.tasks.get(&leased.task) {
            Some(task) => _ = self.jobs.spawn(running::run(around, task.clone(), job, leased)),
            None => {
                // the source gave what was not asked for
                let task: Arc<dyn Task> = Arc::new(task::Unknown);
                self.jobs.spawn(running::run(around, task, job, leased));
            }
        }
    }

    fn ended(&mut self, done: Result<Done, tokio::task::JoinError>) {
        self.report.ended();
        match done {
            Ok(Done { outcome: Some(outcome), .. }) => {
                let passed = self.keeping.put(outcome);
                self.kept(passed);
            }
            Ok(Done { outcome: None, lease }) => {
                metrics::counter!(OUTCOMES_TOTAL, "verdict" => "abandoned").increment(1);
                self.running.end(lease);
                self.around.source.gave_up(lease);
                // no exchange follows by itself, and what had no room before may have some now
                self.may_find_more(true);
            }
            // the run itself catches whatever panics in it
            Err(error) => error!(%error, "A run ended in a way that it must not."),
        }
    }

    /// These may be handed in.
    fn kept(&mut self, outcomes: impl IntoIterator<Item = Outcome>) {
        outcomes.into_iter().for_each(|outcome| self.handover.push(outcome));
        self.measure();
    }

    /// Takes the outcomes that are about to be there too. Without it, the first job of a batch to end would go in
    /// alone and make the rest wait for a commit.
    async fn gather(&mut self) {
        for _ in 0..GATHER_TURNS {
            let before = self.jobs.len();
            while let Some(done) = self.jobs.try_join_next() {
                self.ended(done);
            }
            if self.jobs.is_empty() {
                break;
            }
            tokio::task::yield_now().await;
            if self.jobs.len() == before {
                break;
            }
        }
        self.measure();
    }

    fn measure(&self) {
        metrics::gauge!(JOBS_RUNNING).set(self.jobs.len() as f64);
        metrics::gauge!(OUTCOMES_WAITING).set((self.handover.len() + self.keeping.waiting()) as f64);
    }

    fn next_moment(&self) -> Instant {
        self.not_before.unwrap_or(self.poll_at)
    }

    fn look_again(&mut self) {
        self.not_before = None;
        self.may_find_more(true);
        self.poll_at = Instant::now() + jittered(self.around.options.poll);
    }
}

async fn arrival(exchange: &mut Option<BoxFuture<'static, Answer>>) -> Answer {
    match exchange {
        Some(exchange) => exchange.await,
        None => std::future::pending().await,
    }
}
