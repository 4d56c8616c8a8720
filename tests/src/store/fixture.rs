//! A store under test, with what a test needs besides the trait: the journal's rows, a second store on the same
//! database, and a way to let time pass.
//!
//! Time is never slept through: [`Fixture::pass`] moves every time that the database holds into the past, which is
//! the same to whoever compares it with the database's clock.

use crate::support::pooler::Pooler;
use crate::support::postgres::{Database, connect};
use minium_protocol::{EnqueueRequest, Job, JobView, LeaseToken, Missed, Phase, WorkerRef};
use minium_queue::postgres::PgOptions;
use minium_queue::{
    Annotation, Backend, Claim, DatabaseUrl, Ending, Exchanged, Leased, Outcome, QueueError, Schedule,
    SqlitePlace, Store, Timing, UpkeepRules, Upkept, Verdict,
};
use serde_json::value::RawValue;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tempfile::TempDir;

/// Long enough that no lease of a test ends by itself.
pub(crate) const LEASE: Duration = Duration::from_secs(1_000);

/// An entry of the journal, as it was written.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) seq: i64,
    pub(crate) topic: String,
    pub(crate) kind: String,
    pub(crate) subject: String,
    pub(crate) trace: Option<String>,
    pub(crate) late: Option<String>,
    pub(crate) data: String,
}

impl Entry {
    /// The job that it tells of.
    pub(crate) fn id(&self) -> i64 {
        self.subject.parse().unwrap()
    }

    /// The snapshot that it holds.
    pub(crate) fn job(&self) -> Job {
        serde_json::from_str(&self.data).unwrap_or_else(|e| panic!("{e}: {}", self.data))
    }

    /// The text of that snapshot: the data without the lines that the event brings.
    fn snapshot(&self) -> String {
        #[derive(serde::Deserialize)]
        struct Said {
            log: Option<Box<RawValue>>,
        }
        let said: Said = serde_json::from_str(&self.data).unwrap();
        let Some(log) = said.log else { return self.data.clone() };
        let end = format!(",\"log\":{log}}}");
        format!("{}}}", self.data.strip_suffix(&end).expect("the lines come last"))
    }
}

/// Further away than any hour that a test counts in.
const FAR_HOURS: i64 = 1_000_000;

/// A store under test.
pub(crate) struct Fixture {
    pub(crate) backend: Backend,
    store: Arc<dyn Store>,
    /// The journal up to here has been looked at.
    seen: AtomicI64,
    url: DatabaseUrl,
    kept: Kept,
}

/// What must live as long as the store.
enum Kept {
    Nothing,
    Dir { _dir: TempDir },
    Database { _database: Database },
    Pooler { database: Database, _pooler: Pooler },
}

impl Fixture {
    /// On PostgreSQL, in a database of its own.
    pub(crate) async fn postgres() -> Fixture {
        let database = Database::create().await;
        let url = database.url().parse().unwrap();
        Fixture::migrated(url, Kept::Database { _database: database }).await
    }

    /// On PostgreSQL, behind pgbouncer in transaction mode.
    pub(crate) async fn pgbouncer() -> Fixture {
        let database = Database::create().await;
        let pooler = database.pooler().await;
        let url = pooler.url().parse().unwrap();
        Fixture::migrated(url, Kept::Pooler { database, _pooler: pooler }).await
    }

    /// On SQLite in memory.
    pub(crate) async fn sqlite_memory() -> Fixture {
        Fixture::migrated(DatabaseUrl::Sqlite(SqlitePlace::Memory), Kept::Nothing).await
    }

    /// On SQLite in a file.
    pub(crate) async fn sqlite_file() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let url = DatabaseUrl::Sqlite(SqlitePlace::File(dir.path().join("queue.db")));
        Fixture::migrated(url, Kept::Dir { _dir: dir }).await
    }

    async fn migrated(url: DatabaseUrl, kept: Kept) -> Fixture {
        let backend = open(&url).await;
        backend.migrate().await.unwrap();
        Fixture { store: backend.store(), backend, seen: AtomicI64::new(0), url, kept }
    }

    /// The store.
    pub(crate) fn store(&self) -> &dyn Store {
        self.store.as_ref()
    }

    /// Where the database is.
    pub(crate) fn url(&self) -> &DatabaseUrl {
        &self.url
    }

    /// The store, shared.
    pub(crate) fn shared(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    /// Another store on the same database, as another process has one. Memory has one store only.
    pub(crate) async fn second(&self) -> Arc<dyn Store> {
        match &self.url {
            DatabaseUrl::Sqlite(SqlitePlace::Memory) => self.shared(),
            url => open(url).await.store(),
        }
    }

    /// Lets go of the store and opens the database anew, as the next process does.
    pub(super) async fn reopen(&mut self) {
        let nothing = open(&DatabaseUrl::Sqlite(SqlitePlace::Memory)).await;
        (self.store, self.backend) = (nothing.store(), nothing);
        self.backend = open(&self.url).await;
        self.store = self.backend.store();
    }

    /// As [`Fixture::second`], the backend.
    pub(crate) async fn second_backend(&self) -> Backend {
        match &self.url {
            DatabaseUrl::Sqlite(SqlitePlace::Memory) => self.backend.clone(),
            url => open(url).await,
        }
    }

    /// Lets time pass.
    pub(crate) async fn pass(&self, span: Duration) {
        self.pass_micros(i64::try_from(span.as_micros()).unwrap()).await;
    }

    /// As a clock that went ahead and is put back.
    pub(crate) async fn pass_back(&self, span: Duration) {
        self.pass_micros(-i64::try_from(span.as_micros()).unwrap()).await;
    }

    async fn pass_micros(&self, micros: i64) {
        match &self.backend {
            Backend::Postgres(_) => self.pass_on_postgres(micros).await,
            Backend::Sqlite(store) => {
                let sql = format!(
                    "update job set created = created - {micros}, delayed = delayed - {micros},
                       later = later - {micros}, expires = expires - {micros}, started = started - {micros},
                       finished = finished - {micros}, retried = retried - {micros};
                     update renewal set until = until - {micros};
                     update job_key set until = until - {micros};
                     update limit_rule set filled = filled - {micros};
                     update failure set at = at - {micros};
                     update log_line set at = at - {micros};
                     -- by way of the far future, or one hour might meet another on its way
                     update hour set hour = hour + {FAR_HOURS} * 3600000000;
                     update hour set hour = hour - {FAR_HOURS} * 3600000000 - {micros};
                     update lock set taken = taken - {micros}, until = until - {micros};
                     update pressure set at = at - {micros};
                     update schedule set due = due - {micros}, fired = fired - {micros};
                     update worker set started = started - {micros}, heartbeat = heartbeat - {micros};
                     update command set sent = sent - {micros};"
                );
                store.call(move |conn| conn.execute_batch(&sql)).await.unwrap().unwrap();
            }
        }
    }

    async fn pass_on_postgres(&self, micros: i64) {
        let client = self.client().await;
        let columns = client
            .query(
                "select table_name::text, string_agg(format('%1$I = %1$I - %2$s * interval ''1 us''', column_name, $1::text), ', ')
                   from information_schema.columns
                  where table_schema = 'minium' and data_type = 'timestamp with time zone'
                    and table_name in ('command', 'failure', 'hour', 'job', 'job_key', 'limit_rule', 'lock', 'log_line',
                                       'pressure', 'renewal', 'schedule', 'tally', 'worker')
                  group by table_name",
                &[&micros.to_string()],
            )
            .await
            .unwrap();
        assert_eq!(columns.len(), 13, "every table that holds times is moved");
        // by way of the far future, or one hour might meet another on its way
        let far = format!("update minium.hour set hour = hour + interval '{FAR_HOURS} hours'");
        client.batch_execute(&far).await.unwrap();
        for row in columns {
            let sql = format!("update minium.{} set {}", row.get::<_, String>(0), row.get::<_, String>(1));
            client.batch_execute(&sql).await.unwrap();
        }
        let back = format!("update minium.hour set hour = hour - interval '{FAR_HOURS} hours'");
        client.batch_execute(&back).await.unwrap();
    }

    /// A connection of the test's own to the PostgreSQL database.
    pub(crate) async fn client(&self) -> tokio_postgres::Client {
        let url = match (&self.url, &self.kept) {
            (_, Kept::Pooler { database, .. }) => database.url(),
            (DatabaseUrl::Postgres(url), _) => url,
            (DatabaseUrl::Sqlite(_), _) => panic!("not on PostgreSQL"),
        };
        connect(url).await.unwrap()
    }

    /// Runs a statement on a table, in which `$due` stands for so long from now.
    pub(crate) async fn execute(&self, sql: &str, due: Duration) {
        match &self.backend {
            Backend::Postgres(_) => {
                let at = format!("now() + {} * interval '1 us'", due.as_micros());
                let client = self.client().await;
                client.batch_execute("set search_path = minium").await.unwrap();
                client.batch_execute(&sql.replace("$due", &at)).await.unwrap();
            }
            Backend::Sqlite(store) => {
                let at = jiff::Timestamp::now().as_microsecond() + i64::try_from(due.as_micros()).unwrap();
                let sql = sql.replace("$due", &at.to_string());
                store.call(move |conn| conn.execute_batch(&sql)).await.unwrap().unwrap();
            }
        }
    }

    /// How many rows a table has.
    pub(crate) async fn count(&self, table: &str) -> i64 {
        match &self.backend {
            Backend::Postgres(_) => {
                let sql = format!("select count(*) from minium.{table}");
                self.client().await.query_one(&sql, &[]).await.unwrap().get(0)
            }
            Backend::Sqlite(store) => {
                let sql = format!("select count(*) from {table}");
                store.read(move |conn| conn.query_row(&sql, [], |row| row.get(0))).await.unwrap().unwrap()
            }
        }
    }

    /// The entries that were written since this was last asked.
    pub(crate) async fn entries(&self) -> Vec<Entry> {
        let after = self.seen.load(Ordering::Relaxed);
        let entries = match &self.backend {
            Backend::Postgres(_) => {
                let sql = "select seq, topic, type, subject, trace, late::text, data::text
                             from minium.entry where seq > $1 order by seq";
                let rows = self.client().await.query(sql, &[&after]).await.unwrap();
                let entry = |row: &tokio_postgres::Row| Entry {
                    seq: row.get(0),
                    topic: row.get(1),
                    kind: row.get(2),
                    subject: row.get(3),
                    trace: row.get(4),
                    late: row.get(5),
                    data: row.get(6),
                };
                rows.iter().map(entry).collect::<Vec<_>>()
            }
            Backend::Sqlite(store) => {
                let sql = "select seq, topic, type, subject, trace, late, data from entry where seq > ?1 order by seq";
                let rows = store.read(move |conn| {
                    let mut statement = conn.prepare(sql).unwrap();
                    let entry = statement.query_map([after], |row| {
                        Ok(Entry {
                            seq: row.get(0)?,
                            topic: row.get(1)?,
                            kind: row.get(2)?,
                            subject: row.get(3)?,
                            trace: row.get(4)?,
                            late: row.get(5)?,
                            data: row.get(6)?,
                        })
                    });
                    entry.unwrap().map(Result::unwrap).collect::<Vec<_>>()
                });
                rows.await.unwrap()
            }
        };
        if let Some(last) = entries.last() {
            self.seen.store(last.seq, Ordering::Relaxed);
        }
        entries
    }

    /// Asserts that since the last look exactly these events were written, in this order, each under its job's topic,
    /// and that the last event of each job holds the very text that `get` answers now.
    pub(crate) async fn wrote(&self, expected: &[(i64, &str)]) -> Vec<Entry> {
        let entries = self.entries().await;
        let got: Vec<_> = entries.iter().map(|e| (e.id(), e.kind.as_str())).collect();
        assert_eq!(got, expected);
        self.agree(&entries).await;
        entries
    }

    /// As [`Fixture::wrote`] for operations on several jobs: only the events of each job have an order.
    pub(crate) async fn wrote_by_job(&self, expected: &[(i64, &str)]) -> Vec<Entry> {
        let entries = self.entries().await;
        let mut got: Vec<_> = entries.iter().map(|e| (e.id(), e.kind.as_str())).collect();
        let mut expected = expected.to_vec();
        got.sort_by_key(|(id, _)| *id);
        expected.sort_by_key(|(id, _)| *id);
        assert_eq!(got, expected);
        self.agree(&entries).await;
        entries
    }

    /// Asserts that the last event of each job is the job as it stands.
    pub(crate) async fn agree(&self, entries: &[Entry]) {
        let mut jobs = std::collections::HashSet::new();
        for entry in entries.iter().rev() {
            let job = entry.job();
            assert_eq!(entry.topic, format!("task/{}/{}", job.task, job.id));
            assert_eq!(entry.subject, job.id.to_string());
            if jobs.insert(job.id) {
                match self.store.get(job.id).await.unwrap() {
                    Some(view) => {
                        assert_eq!(view.snapshot.get(), entry.snapshot(), "the last event is the job")
                    }
                    None => assert!(matches!(entry.kind.as_str(), "task.removed" | "task.expired")),
                }
            }
        }
    }

    /// Enqueues one job that is not there yet.
    pub(crate) async fn enqueue(&self, request: EnqueueRequest) -> i64 {
        let enqueued = self.store.enqueue(&[request]).await.unwrap();
        assert_eq!(enqueued.len(), 1);
        assert!(!enqueued[0].existing);
        enqueued[0].id
    }

    /// Claims up to `limit` of all that can be claimed in `default`.
    pub(crate) async fn claim(&self, limit: u32) -> Vec<Leased> {
        self.exchange(&[], claim(limit)).await.jobs
    }

    /// Claims the one job that can be claimed.
    pub(crate) async fn claim_one(&self) -> Leased {
        let mut jobs = self.claim(2).await;
        assert_eq!(jobs.len(), 1, "one job can be claimed");
        jobs.remove(0)
    }

    /// Asserts that nothing can be claimed.
    pub(crate) async fn nothing_to_claim(&self) {
        assert!(self.claim(1).await.is_empty());
    }

    /// Enqueues and claims a job; nothing else may be ready.
    pub(crate) async fn running(&self, request: EnqueueRequest) -> Leased {
        let id = self.enqueue(request).await;
        let leased = self.claim_one().await;
        assert_eq!(leased.id, id);
        leased
    }

    pub(crate) async fn exchange(&self, outcomes: &[Outcome], claim: Claim) -> Exchanged {
        self.store.exchange(outcomes, &claim).await.unwrap()
    }

    /// Hands outcomes in.
    pub(crate) async fn hand_in(&self, outcomes: &[Outcome]) -> Vec<Verdict> {
        self.exchange(outcomes, claim(0)).await.verdicts
    }

    /// Hands an outcome in that counts.
    pub(crate) async fn accepted(&self, outcome: Outcome) {
        assert_eq!(self.hand_in(&[outcome]).await, [Verdict::Accepted]);
    }

    /// A job that has finished.
    pub(crate) async fn finished(&self, request: EnqueueRequest) -> i64 {
        let leased = self.running(request).await;
        self.accepted(finish(&leased, "true")).await;
        leased.id
    }

    /// A job that has failed for good.
    pub(crate) async fn failed(&self, request: EnqueueRequest) -> i64 {
        let leased = self.running(request).await;
        self.accepted(fail_for_good(&leased, "no")).await;
        leased.id
    }

    /// A job that was called off before it ran.
    pub(crate) async fn cancelled(&self, request: EnqueueRequest) -> i64 {
        let id = self.enqueue(request).await;
        self.store.cancel(id).await.unwrap();
        id
    }

    pub(crate) async fn view(&self, id: i64) -> JobView {
        self.store.get(id).await.unwrap().unwrap_or_else(|| panic!("there is a job {id}"))
    }

    pub(crate) async fn job(&self, id: i64) -> Job {
        self.view(id).await.job().unwrap()
    }

    pub(crate) async fn phase(&self, id: i64) -> Option<Phase> {
        self.view(id).await.phase
    }

    pub(crate) async fn is_gone(&self, id: i64) -> bool {
        self.store.get(id).await.unwrap().is_none()
    }

    pub(crate) async fn note(
        &self,
        id: i64,
        lease: Option<LeaseToken>,
        notes: &str,
    ) -> Result<(), QueueError> {
        let annotation = Annotation { notes: serde_json::from_str(notes).unwrap(), ..Annotation::default() };
        self.store.annotate(id, lease, &annotation).await
    }

    /// A round of upkeep without grace that keeps finished jobs.
    pub(crate) async fn upkeep(&self) -> Upkept {
        self.store.upkeep(&upkeep_rules()).await.unwrap()
    }
}

async fn open(url: &DatabaseUrl) -> Backend {
    match url {
        // a few connections a store: many tests run at once on one server
        DatabaseUrl::Postgres(url) => {
            Backend::open_postgres(url, PgOptions { connections: 4, ..PgOptions::default() }).unwrap()
        }
        url @ DatabaseUrl::Sqlite(_) => Backend::open(url).await.unwrap(),
    }
}

/// Finished jobs are kept for so long, others for ever.
pub(crate) fn keep(finished: Option<Duration>) -> minium_queue::Retention {
    let mut retention = minium_queue::Retention::for_ever();
    retention.usual.finished = finished;
    retention
}

pub(crate) fn upkeep_rules() -> UpkeepRules {
    UpkeepRules { grace: Duration::ZERO, keep: minium_queue::Retention::for_ever(), ..UpkeepRules::default() }
}

pub(crate) fn json(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.into()).unwrap()
}

/// A job of task `t` without options.
pub(crate) fn plain() -> EnqueueRequest {
    EnqueueRequest::new("t", json("[]"))
}

/// A job of task `t` with options.
pub(crate) fn with(options: impl FnOnce(&mut minium_protocol::JobOptions)) -> EnqueueRequest {
    let mut request = plain();
    options(&mut request.options);
    request
}

pub(crate) fn after(parents: &[i64]) -> EnqueueRequest {
    with(|o| o.parents = parents.to_vec())
}

pub(crate) fn lax_after(parents: &[i64]) -> EnqueueRequest {
    with(|o| (o.parents, o.lax) = (parents.to_vec(), true))
}

pub(crate) fn keyed(key: &str) -> EnqueueRequest {
    with(|o| o.key = Some(key.into()))
}

pub(crate) fn worker() -> WorkerRef {
    worker_of(7)
}

pub(crate) fn worker_of(id: i64) -> WorkerRef {
    WorkerRef { id, host: "rack3".into(), pid: 411 }
}

/// A schedule by interval, which folds what it missed.
pub(crate) fn every(name: &str, request: EnqueueRequest, interval: u64) -> Schedule {
    Schedule { name: name.into(), timing: Timing::Every(seconds(interval)), request, missed: Missed::Fold }
}

/// A claim of anything in `default`.
pub(crate) fn claim(limit: u32) -> Claim {
    Claim {
        worker: worker(),
        queues: vec!["default".into()],
        tasks: None,
        limit,
        lease: LEASE,
        min_priority: None,
        aged: None,
        caps: std::collections::BTreeMap::new(),
    }
}

pub(crate) fn finish(leased: &Leased, result: &str) -> Outcome {
    Outcome { job: leased.id, lease: leased.lease, ending: Ending::Finished(json(result)) }
}

pub(crate) fn fail(leased: &Leased, error: &str) -> Outcome {
    let ending = Ending::failed(error);
    Outcome { job: leased.id, lease: leased.lease, ending }
}

pub(crate) fn fail_for_good(leased: &Leased, error: &str) -> Outcome {
    let ending = Ending::failed_for_good(error);
    Outcome { job: leased.id, lease: leased.lease, ending }
}

pub(crate) fn ids(jobs: &[Leased]) -> Vec<i64> {
    jobs.iter().map(|job| job.id).collect()
}

pub(crate) const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}
