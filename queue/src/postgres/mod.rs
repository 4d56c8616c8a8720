//! The store on PostgreSQL (14 or later).
//!
//! One wide table of jobs, claimed and finished in batches, each with its events in the same statement; the tables
//! and the shared SQL functions stand in `migrations/postgres/`, each operation's own SQL beside its
//! code. Nothing is connected before something is asked, and a connection that was lost is
//! [`QueueError::Unavailable`]: callers may simply ask again.
//!
//! **Invariants.** A statement that changes jobs writes their events. Whoever locks several jobs locks them in id order;
//! claims pass over what is locked. No statement locks a parent for the sake of a child (ADR 0002). A finish touches no
//! indexed column. What follows a commit (releasing children, waking) may fail without harm: upkeep repairs it.

mod amend;
mod capped;
mod checkup;
mod connection;
mod copy;
mod enqueue;
mod exchange;
mod giving_back;
mod judging;
mod lanes;
mod limits;
mod list;
mod listener;
mod locks;
mod log;
mod marks;
mod masks;
mod operations;
mod outage;
mod pressure;
mod pull;
mod queues;
mod read;
mod roles;
mod schedules;
mod schema;
mod session;
mod settle;
pub(crate) mod tls;
mod together;
mod upkeep;
mod workers;

pub use checkup::{Between, Checkup, ClockReading, Settings, VERSION_MIN};
pub use connection::discreet;
pub use roles::{DatabaseRole, MissingGrant, ROLES_SQL};

use crate::amend::Amendment;
use crate::error::QueueError;
use crate::filter::JobFilter;
use crate::listing::JobPage;
use crate::pressure::Slowing;
use crate::store::{
    Annotation, ArgsMask, AttemptFailure, Claim, Enqueued, Exchanged, Extension, Hour, Outcome, Pull, Pulled,
    RetryOptions, Stats, Store, UpkeepRules, Upkept,
};
use async_trait::async_trait;
use deadpool_postgres::{Object, Pool};
use minium_protocol::{EnqueueRequest, JobResult, JobView, LeaseToken};
use std::future::Future;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// Bounds of a store, with defaults for a server of middling size.
#[derive(Debug, Clone)]
pub struct PgOptions {
    /// At most so many connections, besides the one that listens.
    pub connections: usize,
    /// So long may connecting take.
    pub connect_timeout: Duration,
    /// So long does an operation wait for a connection that is free.
    pub wait_timeout: Duration,
    /// So long may one statement take.
    pub statement_timeout: Duration,
    /// So often is a transaction run again that gave way to another.
    pub retries_max: u32,
    /// So many jobs go into one statement.
    pub batch_max: usize,
    /// The low-water marks of so many workers are kept.
    pub marked_workers_max: usize,
    /// Keep a connection that listens, so that what other processes do wakes this one.
    pub listen: bool,
}

impl Default for PgOptions {
    fn default() -> PgOptions {
        PgOptions {
            connections: 8,
            connect_timeout: Duration::from_secs(5),
            wait_timeout: Duration::from_secs(10),
            statement_timeout: Duration::from_secs(60),
            retries_max: 5,
            batch_max: 1_000,
            marked_workers_max: 10_000,
            listen: true,
        }
    }
}

/// The store on PostgreSQL.
#[derive(Debug)]
pub struct PgStore {
    connections: Arc<connection::Connections>,
    together: Arc<together::Together>,
    options: PgOptions,
    reached: checkup::Reached,
    marks: marks::Marks,
    slowing: Slowing,
    walks: Mutex<upkeep::Walks>,
    /// There are limits, as the last exchange saw. At first they are looked for.
    limits: AtomicBool,
    /// Somebody is about to tell that a limit has room.
    room_told: Arc<AtomicBool>,
    /// When idle workers last asked to be woken.
    asked: Mutex<Option<Instant>>,
    ears: listener::Ears,
    /// Changes when this process has changed a schedule.
    schedules: watch::Sender<u64>,
    tasks: TaskTracker,
    settler: settle::Settler,
    /// What is done behind the backs of callers, or for several of them.
    behind: TaskTracker,
    /// That is to come to its end.
    closing: CancellationToken,
    stop: CancellationToken,
    _stop_at_the_latest: DropGuard,
}

impl PgStore {
    /// Prepares the store. Nothing is connected yet, but the connection that listens begins to try; so this must be
    /// called within a tokio runtime. `?pgbouncer=true` in the URL says that a pooler in transaction mode stands between:
    /// then nobody listens, and nothing is kept in a session.
    ///
    /// # Errors
    /// [`QueueError::Invalid`] for a URL that cannot be read.
    pub fn open(url: &str, options: PgOptions) -> Result<PgStore, QueueError> {
        let way = connection::Way::of(url, &options)?;
        let connections = connection::Connections::new(way.clone(), &options)?;
        let reached = checkup::Reached::of(&way);
        let (ears, tasks, stop) = (listener::Ears::new(), TaskTracker::new(), CancellationToken::new());
        tasks.spawn(connections.watch(way.clone(), stop.clone()));
        // nobody is told anything through a pooler: whoever waits looks now and then anyway
        if options.listen && !way.pooled {
            tasks.spawn(listener::listen(way.config, way.tls, ears.clone(), stop.clone()));
        }
        tasks.close();
        let connections = Arc::new(connections);
        Ok(PgStore {
            settler: settle::Settler::new(connections.clone(), ears.clone(), options.batch_max),
            connections,
            together: Arc::new(together::Together::new()),
            marks: marks::Marks::new(options.marked_workers_max),
            slowing: Slowing::new(),
            reached,
            options,
            walks: Mutex::default(),
            limits: AtomicBool::new(true),
            room_told: Arc::default(),
            asked: Mutex::default(),
            ears,
            schedules: watch::Sender::new(0),
            tasks,
            behind: TaskTracker::new(),
            closing: CancellationToken::new(),
            _stop_at_the_latest: stop.clone().drop_guard(),
            stop,
        })
    }

    /// The connections, for the notifier, which keeps its tables in the same database.
    pub fn pool(&self) -> &Pool {
        self.connections.pool()
    }

    /// A connection for the notifier; at once an error while the server is known to be away.
    ///
    /// # Errors
    /// [`QueueError::Unavailable`], [`QueueError::Busy`].
    pub async fn connection(&self, attempted: &'static str) -> Result<Object, QueueError> {
        self.connections.get(attempted).await
    }

    /// Does what is done on such a connection, and gives it up as soon as the server is known to have gone.
    ///
    /// # Errors
    /// [`QueueError::Unavailable`].
    pub async fn guard<T>(
        &self,
        attempted: &'static str,
        work: impl Future<Output = T>,
    ) -> Result<T, QueueError> {
        self.connections.guard(attempted, work).await
    }

    /// Changes whenever there may be new entries in the journal. It only wakes.
    pub fn events(&self) -> watch::Receiver<u64> {
        self.ears.events.subscribe()
    }

    /// Ends the connection that listens and closes the pool. Operations that are running end as they would; later ones
    /// are [`QueueError::Unavailable`].
    pub async fn close(&self) {
        self.closing.cancel();
        self.behind.close();
        self.behind.wait().await;
        self.stop.cancel();
        self.tasks.wait().await;
        self.pool().close();
    }

    /// Wakes this process, after a commit: what it wrote needs no way through the database.
    fn wake(&self, jobs: bool) {
        self.ears.tell_written(jobs);
    }
}

#[async_trait]
impl Store for PgStore {
    async fn enqueue(&self, jobs: &[EnqueueRequest]) -> Result<Vec<Enqueued>, QueueError> {
        self.enqueue_jobs(jobs).await
    }

    async fn exchange(&self, outcomes: &[Outcome], claim: &Claim) -> Result<Exchanged, QueueError> {
        let room = self.slowing.room(self, claim.limit).await;
        let slowed = room < claim.limit;
        let claim = &*claim.at_most(room);
        let exchanged = if claim.caps.is_empty() {
            self.exchange_all(outcomes, claim).await
        } else {
            self.exchange_capped(outcomes, claim).await
        };
        self.slowing.took(exchanged.as_ref().map_or(0, |exchanged| exchanged.jobs.len()));
        exchanged.map(|exchanged| Exchanged { slowed, ..exchanged })
    }

    async fn pull(&self, pulls: &[Pull]) -> Result<Vec<Pulled>, QueueError> {
        let room = self.slowing.room(self, Pull::wanted(pulls)).await;
        let pulled = self.pull_jobs(&Pull::at_most(pulls, room, fastrand::usize(..=pulls.len()))).await;
        self.slowing.took(pulled.as_ref().map_or(0, Vec::len));
        pulled
    }

    async fn release(&self, leases: &[(i64, LeaseToken)]) -> Result<u64, QueueError> {
        self.release_jobs(leases).await
    }

    async fn postpone(&self, job: i64, lease: LeaseToken, pause: Duration) -> Result<bool, QueueError> {
        self.put_off(job, lease, pause).await
    }

    async fn extend(
        &self,
        leases: &[(i64, LeaseToken)],
        lease: Duration,
    ) -> Result<Vec<Extension>, QueueError> {
        self.extend_leases(leases, lease).await
    }

    async fn annotate(
        &self,
        job: i64,
        lease: Option<LeaseToken>,
        annotation: &Annotation,
    ) -> Result<(), QueueError> {
        self.annotate_job(job, lease, annotation).await
    }

    async fn amend(&self, job: i64, amendment: &Amendment) -> Result<(), QueueError> {
        self.amend_job(job, amendment).await
    }

    async fn cancel(&self, job: i64) -> Result<(), QueueError> {
        self.cancel_job(job).await
    }

    async fn cancel_cascade(&self, job: i64) -> Result<u64, QueueError> {
        self.cancel_all_of(job).await
    }

    async fn retry(&self, job: i64, options: &RetryOptions) -> Result<(), QueueError> {
        self.retry_job(job, options).await
    }

    async fn remove(&self, job: i64) -> Result<(), QueueError> {
        self.remove_job(job).await
    }

    async fn get(&self, job: i64) -> Result<Option<JobView>, QueueError> {
        self.get_job(job).await
    }

    async fn results(&self, jobs: &[i64], bytes_max: usize) -> Result<Vec<JobResult>, QueueError> {
        self.results_of(jobs, bytes_max).await
    }

    async fn failures(&self, job: i64) -> Result<Vec<AttemptFailure>, QueueError> {
        self.failures_of(job).await
    }

    async fn list(&self, filter: &JobFilter) -> Result<JobPage, QueueError> {
        self.list_jobs(filter).await
    }

    async fn stats(&self) -> Result<Stats, QueueError> {
        self.figures().await
    }

    async fn hours(&self) -> Result<Vec<Hour>, QueueError> {
        self.last_hours().await
    }

    async fn put_masks(&self, masks: &[ArgsMask]) -> Result<(), QueueError> {
        self.put_args_masks(masks).await
    }

    async fn upkeep(&self, rules: &UpkeepRules) -> Result<Upkept, QueueError> {
        self.keep_up(rules).await
    }

    fn wakeups(&self) -> watch::Receiver<u64> {
        self.ears.jobs.subscribe()
    }

    fn tell_figures(&self) {
        self.connections.tell_figures();
    }

    async fn ping(&self) -> Result<(), QueueError> {
        self.answers().await
    }
}
