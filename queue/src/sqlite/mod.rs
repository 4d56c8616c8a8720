//! The store on SQLite: one file, or memory.
//!
//! One thread owns the connection that writes (`actor`); what is one statement on PostgreSQL is one IMMEDIATE
//! transaction here, and calls that come at once share a commit. A file is read through a second connection, so that
//! looking at the queue never waits for it. Several processes may share a file: each notices the others' commits by
//! a slow look at SQLite's version of the data.
//!
//! **Invariants.** An answer leaves after its commit, and a commit of a file has reached the disk
//! ([`SqliteOptions::durable`]). The snapshot is made in `row` alone, the events in `change` alone. SQLite has no
//! clock, so the database's clock is this machine's, read once in each operation.

mod actor;
mod amend;
mod capped;
mod change;
mod enqueue;
mod exchange;
mod failure;
mod handlers;
mod limits;
mod list;
mod locks;
mod log;
mod masks;
mod operations;
mod pressure;
mod pull;
mod queues;
mod read;
mod row;
mod schedules;
mod schema;
mod upkeep;
mod workers;

pub use failure::failure;

use crate::amend::{Amendment, check_amendment};
use crate::backend::SqlitePlace;
use crate::error::QueueError;
use crate::filter::JobFilter;
use crate::listing::{self, JobPage};
use crate::migrations::{self, Migration, MigrationStatus, SQLITE};
use crate::pressure::Slowing;
use crate::rules;
use crate::store::{
    Annotation, ArgsMask, AttemptFailure, Claim, Enqueued, Exchanged, Extension, Hour, Outcome, Pull, Pulled,
    RetryOptions, Stats, Store, UpkeepRules, Upkept,
};
use actor::{Actor, ActorOptions, Signals, Touched};
use async_trait::async_trait;
use change::{Change, now_micros};
use minium_protocol::{EnqueueRequest, JobResult, JobView, LeaseToken};
use rusqlite::{Connection, OpenFlags};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;

/// Statements that are kept prepared; the store has some fifty.
const STATEMENTS_MAX: usize = 128;

/// Bounds of a store, with defaults.
#[derive(Debug, Clone)]
pub struct SqliteOptions {
    /// Calls that may wait for the connection; callers beyond wait outside.
    pub calls_max: usize,
    /// How long to wait for another process that writes.
    pub busy_timeout: Duration,
    /// Flush each commit to the disk. Without it a power cut may take the last commits along, never a kill.
    pub durable: bool,
    /// How often to look whether another process has written to the file.
    pub watch_every: Duration,
}

impl Default for SqliteOptions {
    fn default() -> SqliteOptions {
        SqliteOptions {
            calls_max: 1_024,
            busy_timeout: Duration::from_secs(5),
            durable: true,
            watch_every: Duration::from_millis(200),
        }
    }
}

/// The store on SQLite.
#[derive(Debug)]
pub struct SqliteStore {
    writer: Actor,
    /// Only for a file: memory has one connection.
    reader: Option<Actor>,
    signals: Arc<Signals>,
    slowing: Slowing,
    tended: Arc<Mutex<upkeep::Tended>>,
    /// Changes when this process has changed a schedule.
    schedules: watch::Sender<u64>,
}

impl SqliteStore {
    /// Opens or creates the database with the usual options. The schema is not touched.
    ///
    /// # Errors
    /// [`QueueError::Unavailable`] when the file cannot be opened.
    pub async fn open(place: &SqlitePlace) -> Result<SqliteStore, QueueError> {
        SqliteStore::open_with(place, SqliteOptions::default()).await
    }

    /// As [`SqliteStore::open`], with options.
    ///
    /// # Errors
    /// As [`SqliteStore::open`].
    pub async fn open_with(place: &SqlitePlace, options: SqliteOptions) -> Result<SqliteStore, QueueError> {
        let place = place.clone();
        let opening = tokio::task::spawn_blocking(move || SqliteStore::open_blocking(&place, &options));
        opening.await.unwrap_or_else(|e| {
            Err(QueueError::Database { attempted: "open the database", source: e.into() })
        })
    }

    fn open_blocking(place: &SqlitePlace, options: &SqliteOptions) -> Result<SqliteStore, QueueError> {
        let fault = |e| failure("open the database", e);
        let signals = Arc::new(Signals::new());
        let actor = |name, conn, watch_every| {
            let options = ActorOptions { name, calls_max: options.calls_max, watch_every };
            Actor::start(conn, signals.clone(), &options)
        };
        let (writer, reader) = match place {
            SqlitePlace::Memory => {
                let conn = Connection::open_in_memory().map_err(fault)?;
                prepare(&conn, options).map_err(fault)?;
                (actor("minium-sqlite", conn, None)?, None)
            }
            SqlitePlace::File(path) => {
                // plain paths only: as a URI a name with ? or % in it would mean something else
                let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
                let write = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_CREATE)
                    .map_err(fault)?;
                prepare(&write, options).map_err(fault)?;
                let sync = if options.durable { "full" } else { "normal" };
                write.pragma_update(None, "journal_mode", "wal").map_err(fault)?;
                write.pragma_update(None, "synchronous", sync).map_err(fault)?;
                // not opened read-only: the last reader of a file must be able to tidy the log up
                let read = Connection::open_with_flags(path, flags).map_err(fault)?;
                prepare(&read, options).map_err(fault)?;
                read.pragma_update(None, "query_only", true).map_err(fault)?;
                let writer = actor("minium-sqlite", write, Some(options.watch_every))?;
                (writer, Some(actor("minium-sqlite-read", read, None)?))
            }
        };
        let tended = Arc::new(Mutex::new(upkeep::Tended::opened(now_micros())));
        let (slowing, schedules) = (Slowing::new(), watch::Sender::new(0));
        Ok(SqliteStore { writer, reader, signals, slowing, tended, schedules })
    }

    /// Runs a closure with the connection that writes, between the store's own transactions; it may open transactions
    /// of its own, and what it leaves open is rolled back. If it panics, that is the answer, and the store lives on.
    ///
    /// # Errors
    /// [`QueueError::Unavailable`] when the store is closed, [`QueueError::Database`] after a panic.
    pub async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> T + Send + 'static,
    ) -> Result<T, QueueError> {
        self.writer.call("run a call", work).await
    }

    /// As [`SqliteStore::call`], with a connection that can only read, and that no writer holds up; in memory it is
    /// the same one.
    ///
    /// # Errors
    /// As [`SqliteStore::call`].
    pub async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> T + Send + 'static,
    ) -> Result<T, QueueError> {
        let reader = self.reader.as_ref().unwrap_or(&self.writer);
        reader.call("read", move |conn| work(conn)).await
    }

    /// Changes whenever there may be new entries in the journal. It only wakes.
    pub fn events(&self) -> watch::Receiver<u64> {
        self.signals.events()
    }

    /// Enqueues inside a transaction of the caller's own, on any connection to the same database: the jobs are there
    /// when it commits, and never were when it does not. From a connection of [`SqliteStore::call`] workers are woken
    /// at once, from any other one within [`SqliteOptions::watch_every`].
    ///
    /// # Errors
    /// As [`Store::enqueue`].
    pub fn enqueue_in(
        transaction: &rusqlite::Transaction<'_>,
        jobs: &[EnqueueRequest],
    ) -> Result<Vec<Enqueued>, QueueError> {
        rules::check_requests(jobs)?;
        let mut touched = Touched::default();
        Change::run(transaction, &mut touched, "enqueue jobs", |change| enqueue::enqueue(change, jobs))
    }

    /// Brings the schema up to date. See [`crate::Backend::migrate`].
    ///
    /// # Errors
    /// [`QueueError::Schema`] when the schema is newer than this program, or not what it was made by.
    pub async fn migrate(&self) -> Result<usize, QueueError> {
        self.call(|conn| schema::migrate(conn, now_micros())).await?
    }

    /// Every migration that this program knows. See [`crate::Backend::migration_status`].
    ///
    /// # Errors
    /// As [`SqliteStore::migrate`].
    pub async fn migration_status(&self) -> Result<Vec<MigrationStatus>, QueueError> {
        let applied = self.read(schema::applied).await??;
        migrations::status(SQLITE, &applied)
    }

    /// What [`SqliteStore::migrate`] would run.
    ///
    /// # Errors
    /// As [`SqliteStore::migrate`].
    pub async fn pending_sql(&self) -> Result<Vec<Migration>, QueueError> {
        let applied = self.read(schema::applied).await??;
        migrations::pending(SQLITE, &applied)
    }

    /// One operation: a transaction, its events, and the wake-ups behind it.
    async fn change<T: Send + 'static>(
        &self,
        attempted: &'static str,
        operation: impl FnOnce(&mut Change<'_>) -> Result<T, QueueError> + Send + 'static,
    ) -> Result<T, QueueError> {
        self.writer
            .write(attempted, move |conn, touched| Change::run(conn, touched, attempted, operation))
            .await
    }
}

fn prepare(conn: &Connection, options: &SqliteOptions) -> rusqlite::Result<()> {
    conn.busy_timeout(options.busy_timeout)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    // edges name jobs that may be gone: nothing here is meant to cascade
    conn.pragma_update(None, "foreign_keys", false)?;
    conn.pragma_update(None, "temp_store", "memory")
}

#[async_trait]
impl Store for SqliteStore {
    async fn enqueue(&self, jobs: &[EnqueueRequest]) -> Result<Vec<Enqueued>, QueueError> {
        rules::check_requests(jobs)?;
        if jobs.is_empty() {
            return Ok(Vec::new());
        }
        let jobs = jobs.to_vec();
        self.change("enqueue jobs", move |change| enqueue::enqueue(change, &jobs)).await
    }

    async fn exchange(&self, outcomes: &[Outcome], claim: &Claim) -> Result<Exchanged, QueueError> {
        rules::check_claim(claim)?;
        if outcomes.is_empty() && claim.limit == 0 {
            return Ok(Exchanged::default());
        }
        let room = self.slowing.room(self, claim.limit).await;
        let slowed = room < claim.limit;
        let (outcomes, claim) = (outcomes.to_vec(), claim.at_most(room).into_owned());
        if outcomes.is_empty() && claim.limit == 0 {
            return Ok(Exchanged { slowed, ..Exchanged::default() });
        }
        let exchange = move |change: &mut Change<'_>| exchange::exchange(change, &outcomes, &claim);
        let exchanged = self.change("exchange outcomes for jobs", exchange).await;
        self.slowing.took(exchanged.as_ref().map_or(0, |exchanged| exchanged.jobs.len()));
        exchanged.map(|exchanged| Exchanged { slowed, ..exchanged })
    }

    async fn pull(&self, pulls: &[Pull]) -> Result<Vec<Pulled>, QueueError> {
        rules::check_pulls(pulls)?;
        let room = self.slowing.room(self, Pull::wanted(pulls)).await;
        let pulls = Pull::at_most(pulls, room, fastrand::usize(..=pulls.len())).into_owned();
        let pulled = self.change("claim jobs for pullers", move |change| pull::pull(change, &pulls)).await;
        self.slowing.took(pulled.as_ref().map_or(0, Vec::len));
        pulled
    }

    async fn release(&self, leases: &[(i64, LeaseToken)]) -> Result<u64, QueueError> {
        let leases = leases.to_vec();
        self.change("give jobs back", move |change| pull::release(change, &leases)).await
    }

    async fn postpone(&self, job: i64, lease: LeaseToken, pause: Duration) -> Result<bool, QueueError> {
        self.change("put a job off", move |change| pull::postpone(change, job, lease, pause)).await
    }

    async fn extend(
        &self,
        leases: &[(i64, LeaseToken)],
        lease: Duration,
    ) -> Result<Vec<Extension>, QueueError> {
        rules::check_lease(lease)?;
        let leases = leases.to_vec();
        self.change("extend leases", move |change| exchange::extend(change, &leases, lease)).await
    }

    async fn annotate(
        &self,
        job: i64,
        lease: Option<LeaseToken>,
        annotation: &Annotation,
    ) -> Result<(), QueueError> {
        rules::check_annotation(annotation)?;
        let annotation = annotation.clone();
        self.change("annotate a job", move |change| operations::annotate(change, job, lease, &annotation))
            .await
    }

    async fn amend(&self, job: i64, amendment: &Amendment) -> Result<(), QueueError> {
        check_amendment(amendment)?;
        let amendment = amendment.clone();
        self.change("amend a job", move |change| amend::amend(change, job, &amendment)).await
    }

    async fn cancel(&self, job: i64) -> Result<(), QueueError> {
        self.change("cancel a job", move |change| operations::cancel(change, job)).await
    }

    async fn cancel_cascade(&self, job: i64) -> Result<u64, QueueError> {
        self.change("cancel a job and what it enqueued", move |change| {
            operations::cancel_cascade(change, job)
        })
        .await
    }

    async fn retry(&self, job: i64, options: &RetryOptions) -> Result<(), QueueError> {
        rules::check_retry(options)?;
        let options = options.clone();
        self.change("retry a job", move |change| operations::retry(change, job, &options)).await
    }

    async fn remove(&self, job: i64) -> Result<(), QueueError> {
        self.change("remove a job", move |change| operations::remove(change, job)).await
    }

    async fn get(&self, job: i64) -> Result<Option<JobView>, QueueError> {
        self.read(move |conn| read::get(conn, job)).await?
    }

    async fn results(&self, jobs: &[i64], bytes_max: usize) -> Result<Vec<JobResult>, QueueError> {
        rules::check_results(jobs)?;
        let jobs = jobs.to_vec();
        self.read(move |conn| read::results(conn, &jobs, bytes_max)).await?
    }

    async fn failures(&self, job: i64) -> Result<Vec<AttemptFailure>, QueueError> {
        self.read(move |conn| read::failures(conn, job)).await?
    }

    async fn list(&self, filter: &JobFilter) -> Result<JobPage, QueueError> {
        filter.check()?;
        // a piece at a time: those who write to a database in memory wait for no more than one
        let read = |asked, step| async move { self.read(move |conn| list::piece(conn, &asked, step)).await? };
        listing::page(&filter.storable(), read).await
    }

    async fn stats(&self) -> Result<Stats, QueueError> {
        self.read(read::stats).await?
    }

    async fn hours(&self) -> Result<Vec<Hour>, QueueError> {
        self.read(read::hours).await?
    }

    async fn put_masks(&self, masks: &[ArgsMask]) -> Result<(), QueueError> {
        let masks = masks.to_vec();
        self.change("put masks in force", move |change| masks::put(change, &masks)).await
    }

    async fn upkeep(&self, rules: &UpkeepRules) -> Result<Upkept, QueueError> {
        let (rules, tended) = (rules.clone(), self.tended.clone());
        self.change("keep the queue in order", move |change| upkeep::upkeep(change, &rules, &tended)).await
    }

    fn wakeups(&self) -> watch::Receiver<u64> {
        self.signals.jobs()
    }

    async fn ping(&self) -> Result<(), QueueError> {
        self.read(|conn| conn.query_row("select 1", [], |_| Ok(())).map_err(|e| failure("ping", e))).await?
    }
}
