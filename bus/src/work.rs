//! What the bus needs from a queue, whoever keeps it: durable push/pull channels are its tasks.
//!
//! The bus never sees a database: it hands over what is pushed, says which of its sessions can take how many jobs of
//! which tasks, is given jobs with their leases, and passes on what pullers say about them. On channels that are not
//! durable it hands messages out by itself ([`crate::lanes`]).

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use minium_protocol::{JobOptions, LeaseToken, Problem, Topic, TraceContext};
use serde_json::value::RawValue;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A message that becomes a job.
#[derive(Debug, Clone)]
pub struct Pushed {
    /// The arguments as JSON text, checked.
    pub data: Bytes,
    /// How it is enqueued.
    pub options: JobOptions,
}

/// What a puller takes.
#[derive(Debug, Clone)]
pub struct Order {
    /// The tasks, which are exact channels.
    pub tasks: Vec<Topic>,
    /// The queue; nothing means the default one.
    pub queue: Option<String>,
    /// How long each lease holds unless it is extended.
    pub lease: Duration,
    /// Who pulls, for the job's `worker.host`.
    pub name: String,
}

/// A job on its way to a puller.
#[derive(Debug, Clone)]
pub struct LeasedJob {
    /// Its id.
    pub id: i64,
    /// Its task.
    pub task: Topic,
    /// The whole job as JSON.
    pub snapshot: Bytes,
    /// Its arguments as JSON.
    pub args: Bytes,
    /// Fences every word about this run.
    pub lease: LeaseToken,
    /// When the lease ends.
    pub expires: Timestamp,
    /// W3C trace context of who enqueued it.
    pub trace: Option<TraceContext>,
}

impl LeasedJob {
    /// What it takes while it waits for its puller.
    pub fn bytes(&self) -> usize {
        self.snapshot.len() + self.args.len() + size_of::<LeasedJob>()
    }
}

/// A session that takes jobs. Neither call waits.
pub trait Puller: Send + Sync + fmt::Debug {
    /// A job for it. Handed back when the session is gone.
    fn take(&self, job: LeasedJob) -> Result<(), Box<LeasedJob>>;

    /// For how many bytes of jobs it has room now. While that is none it is not to be given any, whatever its credit;
    /// it says by [`Pulling::credit`] when it has room again.
    fn room(&self) -> usize;

    /// A job that it has was cancelled.
    fn cancelled(&self, job: i64);
}

/// A puller's place among those who are served. Dropping it leaves; jobs that were taken stay leased.
pub trait Pulling: Send + fmt::Debug {
    /// It can take so many more. None more: it has room again for those that it was to get.
    fn credit(&self, more: u32);
}

/// One word of a puller about a job it has.
#[derive(Debug, Clone)]
pub struct Word {
    /// The job.
    pub job: i64,
    /// The lease under which it runs.
    pub lease: LeaseToken,
    /// What is said.
    pub saying: Saying,
}

/// What can be said about a running job.
#[derive(Debug, Clone)]
pub enum Saying {
    /// It ended well.
    Ack {
        /// What it brought, as JSON; nothing is `null`.
        result: Option<Box<RawValue>>,
    },
    /// It ended badly.
    Nack {
        /// Why.
        error: String,
        /// May it be tried again by itself?
        retry: bool,
    },
    /// Notes are merged into it, lines are added to its log, and the lease is extended.
    Note {
        /// A JSON object; `null` deletes a note.
        notes: serde_json::Map<String, serde_json::Value>,
        /// How far it has come.
        progress: Option<minium_protocol::Progress>,
        /// Lines for its log, checked.
        log: Vec<minium_protocol::LogLine>,
    },
    /// The lease is extended.
    Extend {
        /// So long from now.
        lease: Duration,
    },
}

/// The answer to a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// It counts, or did already.
    Done,
    /// The lease holds until then.
    Until(Timestamp),
    /// The job was cancelled: stop working on it.
    Cancelled,
}

/// The queue behind durable push/pull channels.
#[async_trait]
pub trait Work: Send + Sync + 'static {
    /// Enqueues messages as jobs of the task that is named as the topic, all or none. Answers their ids, in order,
    /// after the commit.
    ///
    /// # Errors
    /// What the queue refuses: options that break a rule, arguments that break their schema, `unavailable`.
    async fn push(&self, task: &Topic, pushed: Vec<Pushed>) -> Result<Vec<i64>, Problem>;

    /// A puller joins, without credit yet.
    fn join(&self, order: Order, puller: Arc<dyn Puller>) -> Box<dyn Pulling>;

    /// Jobs of which nothing was written, since their sessions were gone or their leases over: nobody has begun them. Does not wait.
    fn give_back(&self, jobs: Vec<(i64, LeaseToken)>);

    /// Words of pullers, one answer each, in order.
    ///
    /// # Errors
    /// `lease_lost` for a late word, `unavailable` while the queue is not there: then it may be said again.
    async fn say(&self, words: Vec<Word>) -> Vec<Result<Said, Problem>>;
}
