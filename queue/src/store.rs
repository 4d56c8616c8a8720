//! The store: every operation of the queue, whatever database keeps it.
//!
//! Operations are whole statements of intent (enqueue these, hand these outcomes in and claim those), not rows and
//! columns, so that each back end can make each of them one statement. Every operation that changes a job writes
//! exactly one event per change. One conformance suite runs over all implementations.

use crate::amend::Amendment;
use crate::error::QueueError;
use crate::filter::JobFilter;
use crate::limits::Limits;
use crate::listing::JobPage;
use crate::locks::Locks;
use crate::logs::Logs;
use crate::pressure::Pressured;
use crate::queues::Queues;
use crate::retention::Retention;
use crate::schedules::Schedules;
use crate::workers::Workers;
use async_trait::async_trait;
use jiff::Timestamp;
use minium_protocol::{
    EnqueueRequest, JobResult, JobView, LeaseToken, LogLine, Progress, TraceContext, WorkerRef,
};
use serde::Serialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;
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
    /// Lets those go first, whatever their priority, whose queue and priority have kept the first of them waiting for so
    /// long, the longest before all. A worker asks so now and then, so that nothing is kept waiting for ever.
    pub aged: Option<Duration>,
    /// At most so many of these tasks; others only as the limit has it. With any, the claim names its tasks, looks for
    /// them one by one, and takes what has the same priority in the order in which they are named. `aged` is not looked at.
    pub caps: BTreeMap<String, u32>,
}

impl Claim {
    /// The same for at most so many.
    pub(crate) fn at_most(&self, limit: u32) -> Cow<'_, Claim> {
        if limit >= self.limit { Cow::Borrowed(self) } else { Cow::Owned(Claim { limit, ..self.clone() }) }
    }

    /// Claims nothing: for outcomes that are handed in alone.
    pub fn nothing() -> Claim {
        Claim {
            worker: WorkerRef { id: 0, host: String::new(), pid: 0 },
            queues: Vec::new(),
            tasks: None,
            limit: 0,
            lease: Duration::ZERO,
            min_priority: None,
            aged: None,
            caps: BTreeMap::new(),
        }
    }
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
    pub trace: Option<TraceContext>,
    /// Its queue.
    pub queue: String,
    /// Higher runs first.
    pub priority: i32,
    /// Its notes as they were when it was claimed.
    pub notes: serde_json::Map<String, serde_json::Value>,
    /// Jobs it waited for, in the order in which they were named.
    pub parents: Vec<i64>,
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

impl Pull {
    /// How many jobs are taken at most.
    pub(crate) fn wanted(pulls: &[Pull]) -> u32 {
        u32::try_from(pulls.iter().map(|pull| pull.workers.len()).sum::<usize>()).unwrap_or(u32::MAX)
    }

    /// The same for at most so many, beginning with the pull at this place: another one each time, since one whose tasks have no
    /// jobs would keep the others from theirs.
    pub(crate) fn at_most(pulls: &[Pull], limit: u32, first: usize) -> Cow<'_, [Pull]> {
        if limit >= Pull::wanted(pulls) {
            return Cow::Borrowed(pulls);
        }
        let (mut left, mut cut) = (limit as usize, pulls.to_vec());
        let (before, from) = cut.split_at_mut(first.min(pulls.len()));
        for pull in from.iter_mut().chain(before) {
            pull.workers.truncate(left);
            left -= pull.workers.len();
        }
        Cow::Owned(cut)
    }
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
        /// How long it then waits.
        pause: Pause,
        /// Where it happened, for whoever mends it.
        backtrace: Option<String>,
    },
}

impl Ending {
    /// A failure that is retried after the usual pause, if attempts are left.
    pub fn failed(error: impl Into<String>) -> Ending {
        Ending::Failed { error: error.into(), retry: true, pause: Pause::Usual, backtrace: None }
    }

    /// A failure that is not retried by itself.
    pub fn failed_for_good(error: impl Into<String>) -> Ending {
        Ending::Failed { error: error.into(), retry: false, pause: Pause::Usual, backtrace: None }
    }
}

/// How long a job waits for its automatic retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pause {
    /// As long as the job says, else as the default has it.
    #[default]
    Usual,
    /// As long as the job says, else so long: what its task has.
    Task(Duration),
    /// So long: what this run says.
    Run(Duration),
}

/// Why one run failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AttemptFailure {
    /// Number of the run.
    pub attempt: i32,
    /// When it failed.
    pub at: jiff::Timestamp,
    /// Who ran it.
    pub worker: Option<WorkerRef>,
    /// Why.
    pub error: String,
    /// Where it happened, if that was told.
    pub backtrace: Option<String>,
}

/// What one hour brought.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hour {
    /// When it began.
    pub hour: jiff::Timestamp,
    /// Jobs that finished.
    pub finished: i64,
    /// Runs that failed, also those that were retried; lost ones when no attempt was left.
    pub failed: i64,
    /// Jobs that were called off.
    pub cancelled: i64,
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
    /// Fewer were looked for than were asked for, since a node cannot follow: that there are none says nothing.
    pub slowed: bool,
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
    /// Somebody is changing the job just now. It is as it was: ask again soon.
    Later,
}

/// What is told of a job besides how it ends: one event, however much it is.
#[derive(Debug, Clone, Default)]
pub struct Annotation {
    /// Merged into the job's notes member by member; `null` deletes one.
    pub notes: serde_json::Map<String, serde_json::Value>,
    /// Replaces the progress.
    pub progress: Option<Progress>,
    /// Added to the job's log, in this order.
    pub log: Vec<LogLine>,
}

impl Annotation {
    /// Does it change the job itself?
    pub(crate) fn changes(&self) -> bool {
        !self.notes.is_empty() || self.progress.is_some()
    }
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
    /// Removed if it has not been started within this time. Only for a job that never ran: others expire no more.
    pub expire: Option<Duration>,
    /// Do failed and cancelled parents let it run too?
    pub lax: Option<bool>,
    /// Jobs it waits for from now on, in place of those that it had. They are older than itself, so that none can wait in a
    /// circle; unknown ones count as finished.
    pub parents: Option<Vec<i64>>,
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
    /// Workers whose heartbeat is fresh: active and inactive ones. Those that do a node's own tasks alone are not among them.
    pub workers: i64,
    /// Of these, running jobs.
    pub active_workers: i64,
    /// Of these, waiting for jobs.
    pub inactive_workers: i64,
    /// Workers that were not heard of lately, and are not forgotten yet.
    pub stale_workers: i64,
    /// Workers that do a node's own tasks alone, and whose heartbeat is fresh.
    pub own_workers: i64,
    /// Jobs that were ever enqueued, roughly: numbers that were drawn and not used count as well.
    pub enqueued: i64,
    /// Holds of named locks.
    pub active_locks: i64,
    /// Schedules, whether they are paused or not.
    pub schedules: i64,
    /// Of these, paused.
    pub inactive_schedules: i64,
}

/// Bounds of one round of upkeep.
#[derive(Debug, Clone)]
pub struct UpkeepRules {
    /// At most so many jobs of each kind in one round.
    pub batch: u32,
    /// How long jobs that have ended are kept. One that a job that has not ended names as parent is kept as long as that.
    pub keep: Retention,
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
            keep: Retention::default(),
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
    /// Ended jobs older than they are kept.
    pub removed: u64,
    /// In so long the next delayed job is due, if one is known.
    pub due_in: Option<Duration>,
}

/// Keeps the jobs. All times are the database's. Other subjects of the queue have traits of their own.
#[async_trait]
pub trait Store:
    Limits + Locks + Logs + Pressured + Queues + Schedules + Workers + Send + Sync + 'static
{
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

    /// Puts a running job off, as its run asks: it waits again for so long (at most
    /// [`rules::BACKOFF_MAX`](crate::rules::BACKOFF_MAX)), and the run does not count as an attempt. The event is `task.retry`.
    /// Answers whether the lease still held; where it did not, nothing has changed.
    async fn postpone(&self, job: i64, lease: LeaseToken, pause: Duration) -> Result<bool, QueueError>;

    /// Extends leases to `lease` from now. One answer per lease, in order.
    async fn extend(
        &self,
        leases: &[(i64, LeaseToken)],
        lease: Duration,
    ) -> Result<Vec<Extension>, QueueError>;

    /// Notes, progress and log lines. With a lease it is a worker's word, and refused when the lease is gone; without, a
    /// user's, allowed in any state.
    ///
    /// # Errors
    /// [`QueueError::NotFound`], [`QueueError::LeaseLost`]; [`QueueError::Invalid`] or [`QueueError::TooLarge`] when it breaks
    /// a rule: then nothing of it was written.
    async fn annotate(
        &self,
        job: i64,
        lease: Option<LeaseToken>,
        annotation: &Annotation,
    ) -> Result<(), QueueError>;

    /// Changes when a job that waits runs, how urgent it is and where. It queues up anew.
    ///
    /// # Errors
    /// [`QueueError::NotFound`]; [`QueueError::Conflict`] when it runs or has ended; [`QueueError::Invalid`] or
    /// [`QueueError::TooLarge`] when it breaks a rule.
    async fn amend(&self, job: i64, amendment: &Amendment) -> Result<(), QueueError>;

    /// Calls a job off, waiting or running. A running one loses its lease at once.
    ///
    /// # Errors
    /// [`QueueError::NotFound`]; [`QueueError::Conflict`] when it has ended.
    async fn cancel(&self, job: i64) -> Result<(), QueueError>;

    /// Calls off a job and every one that it enqueued, that those enqueued, and so on. What has ended stays as it is, and what
    /// one of them enqueues at this very moment may escape. Answers how many were called off.
    ///
    /// # Errors
    /// [`QueueError::NotFound`].
    async fn cancel_cascade(&self, job: i64) -> Result<u64, QueueError>;

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

    /// What these jobs have brought, in the order in which they are named, and no more behind the one with which results and
    /// errors have `bytes_max` together: whoever wants the rest asks again for those that have no answer yet. At most
    /// [`rules::RESULTS_MAX`](crate::rules::RESULTS_MAX) jobs in one call.
    ///
    /// # Errors
    /// [`QueueError::Invalid`] for more of them.
    async fn results(&self, jobs: &[i64], bytes_max: usize) -> Result<Vec<JobResult>, QueueError>;

    /// Why the runs of a job failed, the first one first. Nothing for a job that does not exist.
    async fn failures(&self, job: i64) -> Result<Vec<AttemptFailure>, QueueError>;

    /// A page of jobs, newest first. It takes no lock, and looks at a bounded number of jobs: see [`JobPage::next`].
    async fn list(&self, filter: &JobFilter) -> Result<JobPage, QueueError>;

    /// Figures.
    async fn stats(&self) -> Result<Stats, QueueError>;

    /// What each of the last 24 hours brought, the oldest first; hours that brought nothing stand there as well.
    async fn hours(&self) -> Result<Vec<Hour>, QueueError>;

    /// Puts masks in force for jobs that are enqueued from now on, by whoever: events and lists show `"***"` in the places
    /// named. Masks of other tasks stay, so that nodes with unlike schemas only ever hide more.
    async fn put_masks(&self, masks: &[ArgsMask]) -> Result<(), QueueError>;

    /// Stages what is due, rescues what was lost, removes what expired or is older than it is kept. Safe from any
    /// number of processes at once.
    async fn upkeep(&self, rules: &UpkeepRules) -> Result<Upkept, QueueError>;

    /// Changes whenever there may be something to claim. It only wakes: claims decide, and a slow poll must run
    /// beside it.
    fn wakeups(&self) -> watch::Receiver<u64>;

    /// Sets the gauges of what it has open, for whoever is about to read them.
    fn tell_figures(&self) {}

    /// Is the database there?
    async fn ping(&self) -> Result<(), QueueError>;
}
