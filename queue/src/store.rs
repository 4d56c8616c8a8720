//! The store: every operation of the queue, whatever database keeps it.
//!
//! Operations are whole statements of intent (enqueue these, hand these outcomes in and claim those), not rows and
//! columns, so that each back end can make each of them one statement. Every operation that changes a job writes
//! exactly one event per change. One conformance suite runs over all implementations.

use crate::error::QueueError;
use crate::locks::Locks;
use crate::schedules::Schedules;
use async_trait::async_trait;
use jiff::Timestamp;
use minium_protocol::{EnqueueRequest, JobView, LeaseToken, Progress, State, WorkerRef};
use serde::Serialize;
use serde_json::value::RawValue;
use std::time::Duration;
use tokio::sync::watch;

/// Which places in a task's arguments nobody sees but who runs the job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArgsMask {
    /// The task. Those below it have the same mask unless they, or a task in between, have one of their own.
    pub task: String,
    /// From the root of the arguments, each step a member's name, an element's number, or `*` for all of them. Without
    /// any, everything is shown.
    pub paths: Vec<Vec<String>>,
}

/// The answer to one enqueued job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Enqueued {
    /// The job.
    pub id: i64,
    /// It was there already: a living job of the same task has the same key.
    pub existing: bool,
}

/// What a worker asks for.
#[derive(Debug, Clone)]
pub struct Claim {
    /// Who asks.
    pub worker: WorkerRef,
    /// From which queues; together they are one pool, and their order means nothing.
    pub queues: Vec<String>,
    /// Only these tasks; `None` takes all.
    pub tasks: Option<Vec<String>>,
    /// At most so many; 0 claims nothing.
    pub limit: u32,
    /// How long the lease holds unless it is extended.
    pub lease: Duration,
    /// Only this priority or higher.
    pub min_priority: Option<i32>,
}

/// A claimed job.
#[derive(Debug, Clone)]
pub struct Leased {
    /// The job.
    pub id: i64,
    /// What to run.
    pub task: String,
    /// What to run it with.
    pub args: Box<RawValue>,
    /// Number of this run, from 1.
    pub attempt: i32,
    /// How many runs it may have.
    pub attempts: i32,
    /// Fences every word about this run.
    pub lease: LeaseToken,
    /// When the lease ends, by the database's clock.
    pub lease_expires: Timestamp,
    /// How long the run may take.
    pub timeout: Option<Duration>,
    /// W3C trace context of who enqueued it.
    pub trace: Option<String>,
    /// Its queue.
    pub queue: String,
}

/// What pullers of one kind take: jobs of these tasks, each for one of them.
#[derive(Debug, Clone)]
pub struct Pull {
    /// From which queue.
    pub queue: String,
    /// Jobs of which tasks. A higher priority comes first; among jobs of one priority and one task, who became ready
    /// first; the order of tasks means nothing.
    pub tasks: Vec<String>,
    /// How long each lease holds unless it is extended.
    pub lease: Duration,
    /// Who gets the first job, the second, and so on: as many jobs are taken at most.
    pub workers: Vec<WorkerRef>,
}

/// A job for a puller.
#[derive(Debug, Clone)]
pub struct Pulled {
    /// Which of the pulls it is for.
    pub pull: usize,
    /// Which of the pull's workers it is for.
    pub place: usize,
    /// The job.
    pub job: Leased,
    /// The whole job as it stands now.
    pub snapshot: Box<RawValue>,
}

/// How a run ended.
#[derive(Debug, Clone)]
pub enum Ending {
    /// Well, with a result.
    Finished(Box<RawValue>),
    /// Badly. With attempts left it is retried by itself, unless `retry` says no.
    Failed {
        /// Why.
        error: String,
        /// May it be retried by itself?
        retry: bool,
    },
}

/// One word about one run.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The job.
    pub job: i64,
    /// The lease under which it ran.
    pub lease: LeaseToken,
    /// How it ended.
    pub ending: Ending,
}

/// What became of an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It counts.
    Accepted,
    /// It was handed in before under the same lease; its reply was lost.
    Repeated,
    /// The lease was gone. Nothing changed; a `late_result` event keeps what was brought, if the job still exists.
    LeaseLost,
    /// The database failed before this one was judged, but after it had given out jobs, which must not be lost for
    /// that. It may count or not: it is to be handed in again.
    Unjudged,
}

/// What [`Store::exchange`] answers.
#[derive(Debug, Default)]
pub struct Exchanged {
    /// One verdict per outcome, in order.
    pub verdicts: Vec<Verdict>,
    /// The claimed jobs, in claim order.
    pub jobs: Vec<Leased>,
}

/// The answer to one extended lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extension {
    /// It holds until then.
    Until(Timestamp),
    /// The job was cancelled: stop working on it.
    Cancelled,
    /// The lease was gone already.
    Lost,
}

/// What a note or a progress report changes.
#[derive(Debug, Clone, Default)]
pub struct Annotation {
    /// Merged into the job's notes member by member; `null` deletes one.
    pub notes: serde_json::Map<String, serde_json::Value>,
    /// Replaces the progress.
    pub progress: Option<Progress>,
}

/// Options that a manual retry may change.
#[derive(Debug, Clone, Default)]
pub struct RetryOptions {
    /// Not before so long from now.
    pub delay: Option<Duration>,
    /// A new priority.
    pub priority: Option<i32>,
    /// Another queue.
    pub queue: Option<String>,
    /// How many runs it may have in all; without it, one more than it has had.
    pub attempts: Option<i32>,
}

/// Which jobs to list.
#[derive(Debug, Clone)]
pub struct JobFilter {
    /// Any of these states; empty means all.
    pub states: Vec<State>,
    /// Any of these tasks; empty means all.
    pub tasks: Vec<String>,
    /// Any of these queues; empty means all.
    pub queues: Vec<String>,
    /// Has all of these notes (top-level keys).
    pub notes: Vec<String>,
    /// Only ids below this: the cursor.
    pub before: Option<i64>,
    /// At most so many.
    pub limit: u32,
    /// And no more behind the one with which their snapshots have so many bytes together.
    pub bytes_max: usize,
}

impl Default for JobFilter {
    fn default() -> JobFilter {
        JobFilter {
            states: vec![],
            tasks: vec![],
            queues: vec![],
            notes: vec![],
            before: None,
            limit: 50,
            bytes_max: 8 << 20,
        }
    }
}

/// One page of jobs, newest first.
#[derive(Debug)]
pub struct JobPage {
    /// Snapshots.
    pub jobs: Vec<Box<RawValue>>,
    /// `before` of the next page, if there is one.
    pub next: Option<i64>,
}

/// Figures of the whole queue.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Waiting, whatever for.
    pub inactive: i64,
    /// Of these, waiting for their time.
    pub delayed: i64,
    /// Of these, waiting for parents.
    pub blocked: i64,
    /// Running.
    pub active: i64,
    /// Ended well.
    pub finished: i64,
    /// Ended badly.
    pub failed: i64,
    /// Called off.
    pub cancelled: i64,
    /// Workers whose heartbeat is fresh.
    pub workers: i64,
}

/// Bounds of one round of upkeep.
#[derive(Debug, Clone)]
pub struct UpkeepRules {
    /// At most so many jobs of each kind in one round.
    pub batch: u32,
    /// Finished jobs are removed after so long, unless a job that has not ended names them as parent. `None` keeps
    /// them. Failed and cancelled jobs are never removed by themselves.
    pub keep_finished: Option<Duration>,
    /// No lease is given away before the database has been up, and looked after again, for so long: workers must get
    /// the chance to hand in what they did during an outage.
    pub grace: Duration,
    /// When no round was made for so long, nobody was there to extend leases with: they have their grace anew. Well
    /// above the pause between rounds, and below the time that a lease has left when it is extended.
    pub absence: Duration,
    /// A worker without a heartbeat for so long is forgotten.
    pub worker_missing: Duration,
}

impl Default for UpkeepRules {
    fn default() -> UpkeepRules {
        UpkeepRules {
            batch: 1_000,
            keep_finished: Some(Duration::from_secs(2 * 86_400)),
            grace: Duration::from_secs(60),
            absence: Duration::from_secs(15),
            worker_missing: Duration::from_secs(30 * 60),
        }
    }
}

/// What upkeep did, and when it is needed next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Upkept {
    /// Delayed jobs that became ready.
    pub staged: u64,
    /// Jobs whose lease had expired.
    pub rescued: u64,
    /// Jobs that were not started in time, removed.
    pub expired: u64,
    /// Children whose parents had ended unnoticed.
    pub released: u64,
    /// Finished jobs older than they are kept.
    pub removed: u64,
    /// In so long the next delayed job is due, if one is known.
    pub due_in: Option<Duration>,
}

/// Keeps the jobs. All times are the database's.
#[async_trait]
pub trait Store: Locks + Schedules + Send + Sync + 'static {
    /// Enqueues all or none. One answer per job, in order.
    ///
    /// # Errors
    /// [`QueueError::Invalid`] for a request that breaks a rule: nothing was enqueued.
    async fn enqueue(&self, jobs: &[EnqueueRequest]) -> Result<Vec<Enqueued>, QueueError>;

    /// Hands outcomes in and claims more, in one commit. Either part may be empty.
    async fn exchange(&self, outcomes: &[Outcome], claim: &Claim) -> Result<Exchanged, QueueError>;

    /// Claims jobs for many pullers at once, by one look into an index for each task: what it costs does not grow with
    /// the jobs of other tasks, and one commit serves all. No two pulls get one job; one that shares a task with another
    /// may get fewer than there are. At most [`rules::CLAIM_MAX`](crate::rules::CLAIM_MAX) jobs are taken.
    ///
    /// # Errors
    /// [`QueueError::Invalid`] for a pull that breaks a rule.
    async fn pull(&self, pulls: &[Pull]) -> Result<Vec<Pulled>, QueueError>;

    /// Gives back jobs that were claimed and that nobody has begun: they wait again, and the claim does not count as an
    /// attempt. The event is `task.lost`. Leases that are gone are passed over. Answers how many were given back.
    async fn release(&self, leases: &[(i64, LeaseToken)]) -> Result<u64, QueueError>;

    /// Extends leases to `lease` from now. One answer per lease, in order.
    async fn extend(
        &self,
        leases: &[(i64, LeaseToken)],
        lease: Duration,
    ) -> Result<Vec<Extension>, QueueError>;

    /// Notes and progress. With a lease it is a worker's word, and refused when the lease is gone; without, a
    /// user's, allowed in any state.
    ///
    /// # Errors
    /// [`QueueError::NotFound`], [`QueueError::LeaseLost`].
    async fn annotate(
        &self,
        job: i64,
        lease: Option<LeaseToken>,
        annotation: &Annotation,
    ) -> Result<(), QueueError>;

    /// Calls a job off, waiting or running. A running one loses its lease at once.
    ///
    /// # Errors
    /// [`QueueError::NotFound`]; [`QueueError::Conflict`] when it has ended.
    async fn cancel(&self, job: i64) -> Result<(), QueueError>;

    /// Makes an ended job wait again with one attempt more, or a waiting one ready.
    ///
    /// # Errors
    /// [`QueueError::NotFound`]; [`QueueError::Conflict`] while it runs, or when its key is taken.
    async fn retry(&self, job: i64, options: &RetryOptions) -> Result<(), QueueError>;

    /// Deletes a job that is not running.
    ///
    /// # Errors
    /// [`QueueError::NotFound`]; [`QueueError::Conflict`] while it runs.
    async fn remove(&self, job: i64) -> Result<(), QueueError>;

    /// One job, if it exists.
    async fn get(&self, job: i64) -> Result<Option<JobView>, QueueError>;

    /// A page of jobs, newest first.
    async fn list(&self, filter: &JobFilter) -> Result<JobPage, QueueError>;

    /// Figures.
    async fn stats(&self) -> Result<Stats, QueueError>;

    /// Puts masks in force for jobs that are enqueued from now on, by whoever: events and lists show `"***"` in the places
    /// named. Masks of other tasks stay, so that nodes with unlike schemas only ever hide more.
    async fn put_masks(&self, masks: &[ArgsMask]) -> Result<(), QueueError>;

    /// Registers a worker of this process and gives it a number.
    async fn register_worker(&self, host: &str, pid: u32) -> Result<WorkerRef, QueueError>;

    /// The worker is alive. One that was forgotten meanwhile is told so, and stays forgotten until it registers anew.
    async fn heartbeat(&self, worker: i64) -> Result<(), QueueError>;

    /// The worker is gone, orderly.
    async fn unregister_worker(&self, worker: i64) -> Result<(), QueueError>;

    /// Stages what is due, rescues what was lost, removes what expired or is older than it is kept. Safe from any
    /// number of processes at once.
    async fn upkeep(&self, rules: &UpkeepRules) -> Result<Upkept, QueueError>;

    /// Changes whenever there may be something to claim. It only wakes: claims decide, and a slow poll must run
    /// beside it.
    fn wakeups(&self) -> watch::Receiver<u64>;

    /// Is the database there?
    async fn ping(&self) -> Result<(), QueueError>;
}
