//! The workers: who there is, how they fare, and what they are told to do.
//!
//! Claims know nothing of this: a worker that no register knows still works. A worker says now and then that it is alive
//! and how it fares; who looks at the list reads that word, and judges by the database's clock how old it is. What a worker
//! is told waits in its inbox until it takes it, each word once. That is at most once: what was taken by a worker that dies
//! before it obeys is gone, so commands are for what one can see to have worked, in the list of workers.
//!
//! **Bounds.** An inbox holds [`INBOX_MAX`] words, each no longer than [`COMMAND_BYTES_MAX`](crate::COMMAND_BYTES_MAX); a word that nobody took in
//! [`COMMAND_KEPT`] goes. A status names at most [`STATUS_NAMES_MAX`] things of a kind.

use crate::commands::Command;
use crate::error::QueueError;
use async_trait::async_trait;
use jiff::Timestamp;
use minium_protocol::WorkerRef;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;
use tokio::sync::watch;

/// A worker without a heartbeat for so long is stale.
pub const STALE_AFTER: Duration = Duration::from_secs(60);
/// A command that nobody took is forgotten after so long.
pub const COMMAND_KEPT: Duration = Duration::from_secs(3_600);
/// So many commands wait for one worker at most; it is passed over when there are more.
pub const INBOX_MAX: u32 = 1_000;
/// A status names at most so many running jobs, tasks, queues and limits each; what is beyond is left out.
pub const STATUS_NAMES_MAX: usize = 100;

/// What most workers are: they run tasks.
const KIND_USUAL: &str = "minium";
/// A node's worker for its own tasks, which does nobody else's: among the workers of [`Stats`](crate::Stats) it is counted apart,
/// or a node that only tells its sinks of events would pass for one that works.
pub const KIND_OWN: &str = "own";

/// What a worker says of itself when it comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerInfo {
    /// The machine.
    pub host: String,
    /// The process.
    pub pid: u32,
    /// What it is: `minium` runs tasks, `pullers` is a node that hands jobs to sessions, [`KIND_OWN`] does a node's own tasks.
    pub kind: String,
    /// The version of its program.
    pub version: String,
    /// How it begins.
    pub status: WorkerStatus,
}

impl WorkerInfo {
    /// A worker of this program that has not said more yet.
    pub fn new(host: impl Into<String>, pid: u32) -> WorkerInfo {
        WorkerInfo {
            host: host.into(),
            pid,
            kind: KIND_USUAL.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            status: WorkerStatus::default(),
        }
    }
}

/// How a worker fares, by its own last word.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkerStatus {
    /// From which queues it takes jobs.
    pub queues: Vec<String>,
    /// Which tasks it has.
    pub tasks: Vec<String>,
    /// How many jobs it runs at once.
    pub concurrency: u32,
    /// How many more if their priority is high enough.
    pub spare: u32,
    /// Which priority is.
    pub spare_min_priority: i32,
    /// How many of one task at once, where that is bounded.
    pub limits: BTreeMap<String, u32>,
    /// It claims nothing until it is told to go on.
    pub paused: bool,
    /// How many jobs it runs.
    pub running: u32,
    /// Which; the first so many of them.
    pub jobs: Vec<i64>,
    /// How many runs it has led to their end since it began.
    pub performed: u64,
}

impl WorkerStatus {
    /// Within the bounds.
    pub(crate) fn bounded(&self) -> WorkerStatus {
        let mut status = self.clone();
        for names in [&mut status.queues, &mut status.tasks] {
            names.truncate(STATUS_NAMES_MAX);
            for name in names {
                *name = crate::rules::storable(name).into_owned();
            }
        }
        status.jobs.truncate(STATUS_NAMES_MAX);
        while status.limits.len() > STATUS_NAMES_MAX {
            status.limits.pop_last();
        }
        status
    }

    /// As both databases keep it.
    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a status is plain JSON")
    }

    /// What was kept. A word of a program that knew other members is read as far as it goes.
    pub(crate) fn from_json(text: &str) -> WorkerStatus {
        serde_json::from_str(text).unwrap_or_default()
    }
}

/// What a worker is doing, for whoever looks at the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerState {
    /// It waits for jobs.
    Idle,
    /// It runs jobs.
    Processing,
    /// It was not heard of for [`STALE_AFTER`]: killed, stopped, or cut off.
    Stale,
}

impl WorkerState {
    /// All of them.
    pub const ALL: [WorkerState; 3] = [WorkerState::Idle, WorkerState::Processing, WorkerState::Stale];

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            WorkerState::Idle => "idle",
            WorkerState::Processing => "processing",
            WorkerState::Stale => "stale",
        }
    }

    /// By what a worker said and whether that is too long ago.
    pub fn of(running: u32, stale: bool) -> WorkerState {
        match (stale, running) {
            (true, _) => WorkerState::Stale,
            (false, 0) => WorkerState::Idle,
            (false, _) => WorkerState::Processing,
        }
    }
}

impl fmt::Display for WorkerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for WorkerState {
    type Err = String;

    fn from_str(text: &str) -> Result<WorkerState, String> {
        let found = WorkerState::ALL.into_iter().find(|state| state.as_str() == text);
        found.ok_or_else(|| format!("{text:?} is no state of a worker; there are idle, processing and stale"))
    }
}

/// A worker as the list shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerView {
    /// Its number; it has a new one each time it registers.
    pub id: i64,
    /// The machine.
    pub host: String,
    /// The process.
    pub pid: u32,
    /// What it is.
    pub kind: String,
    /// The version of its program; empty where it did not say.
    pub version: String,
    /// What it is doing.
    pub state: WorkerState,
    /// When it registered.
    pub started: Timestamp,
    /// When it was last heard of.
    pub heartbeat: Timestamp,
    /// What it said then.
    #[serde(flatten)]
    pub status: WorkerStatus,
}

/// Which workers to list.
#[derive(Debug, Clone)]
pub struct WorkerFilter {
    /// Any of these; empty means all.
    pub ids: Vec<i64>,
    /// Any of these states; empty means all.
    pub states: Vec<WorkerState>,
    /// Only ids below this: the cursor.
    pub before: Option<i64>,
    /// At most so many.
    pub limit: u32,
}

impl Default for WorkerFilter {
    fn default() -> WorkerFilter {
        WorkerFilter { ids: vec![], states: vec![], before: None, limit: 50 }
    }
}

/// One page of workers, those that came last first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerPage {
    /// The workers.
    pub workers: Vec<WorkerView>,
    /// `before` of the next page, if there is one.
    pub next: Option<i64>,
}

impl WorkerPage {
    /// Of one row more than fits, so that it is known whether there are more.
    pub(crate) fn of(mut workers: Vec<WorkerView>, limit: usize) -> WorkerPage {
        let more = workers.len() > limit;
        workers.truncate(limit);
        let next = workers.last().map(|worker| worker.id).filter(|_| more);
        WorkerPage { workers, next }
    }
}

/// The register of workers, and their inboxes. All times are the database's.
#[async_trait]
pub trait Workers: Send + Sync + 'static {
    /// Registers a worker of this process and gives it a number.
    async fn register_worker(&self, worker: &WorkerInfo) -> Result<WorkerRef, QueueError>;

    /// The worker is alive, and fares like this. One that was forgotten meanwhile is told so, and stays forgotten until it
    /// registers anew.
    async fn heartbeat(&self, worker: i64, status: &WorkerStatus) -> Result<(), QueueError>;

    /// The worker is gone, orderly, and its inbox with it.
    async fn unregister_worker(&self, worker: i64) -> Result<(), QueueError>;

    /// A page of workers, those that came last first. Those that upkeep has forgotten are not there any more.
    async fn workers(&self, filter: &WorkerFilter) -> Result<WorkerPage, QueueError>;

    /// Puts a command into the inboxes of these workers, or without any of all of them, and wakes them. Answers into how
    /// many: those that do not exist and those whose inbox is full are passed over.
    async fn send_command(&self, to: Option<&[i64]>, command: &Command) -> Result<u64, QueueError>;

    /// Empties a worker's inbox: what is there, in the order in which it was sent, each word once.
    async fn take_commands(&self, worker: i64) -> Result<Vec<Command>, QueueError>;

    /// Changes whenever some worker may have been told something, or some running job was cancelled. It only wakes, and a
    /// slow look must go beside it.
    fn controls(&self) -> watch::Receiver<u64>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_cut_to_its_bounds_and_read_as_far_as_it_goes() {
        let status = WorkerStatus {
            tasks: (0..1_000).map(|n| format!("t{n}")).collect(),
            jobs: (0..1_000).collect(),
            limits: (0..1_000).map(|n| (format!("t{n}"), 1)).collect(),
            running: 1_000,
            ..WorkerStatus::default()
        };
        let kept = WorkerStatus::from_json(&status.bounded().to_json());
        let max = STATUS_NAMES_MAX;
        assert_eq!((kept.tasks.len(), kept.jobs.len(), kept.limits.len()), (max, max, max));
        assert_eq!(kept.running, 1_000);
        assert_eq!(WorkerStatus::from_json(r#"{"running":2,"later":[]}"#).running, 2);
        assert_eq!(WorkerStatus::from_json("what"), WorkerStatus::default());
    }

    #[test]
    fn who_was_not_heard_of_is_stale_whatever_it_said() {
        let states =
            [(0, false), (3, false), (3, true), (0, true)].map(|(n, stale)| WorkerState::of(n, stale));
        assert_eq!(
            states,
            [WorkerState::Idle, WorkerState::Processing, WorkerState::Stale, WorkerState::Stale]
        );
        for state in WorkerState::ALL {
            assert_eq!(state.to_string().parse(), Ok(state));
        }
    }
}
