//! The job queue: jobs, their whole life, and the store that keeps them.
//!
//! One [`Store`] trait, two implementations: [`postgres`] and [`sqlite`]. Every transition writes the job's event,
//! with the full snapshot, into the journal in the same statement (on SQLite: the same transaction); nothing else may
//! write a job. Numbering and relaying the journal is the notifier's affair, running jobs the worker's.
//!
//! ```no_run
//! # async fn example() -> Result<(), minium_queue::QueueError> {
//! use minium_protocol::EnqueueRequest;
//! use minium_queue::{Backend, Store};
//! let backend = Backend::open(&"sqlite::memory:".parse()?).await?;
//! backend.migrate().await?;
//! let args = serde_json::value::to_raw_value(&["x"]).expect("an array of strings is JSON");
//! backend.store().enqueue(&[EnqueueRequest::new("import", args)]).await?;
//! # Ok(()) }
//! ```
//!
//! **Invariants.** A transition and its event are one statement, whoever runs it. Leases are judged by the database's
//! clock alone. The lease token fences every word about an attempt. NOTIFY only wakes; it never carries data. What
//! decides a transition is in [`rules`], without clock or await.
//!
//! **Allowed imports**: the SQL clients (tokio-postgres, deadpool-postgres, rusqlite) live here and in the notifier,
//! nowhere else. No WebSocket, no HTTP, no `minium-bus`.

mod amend;
mod backend;
mod breaker;
mod bulk;
mod caps;
mod commands;
mod cron;
mod error;
mod filter;
mod limits;
mod listing;
pub mod locks;
pub mod logs;
mod mask;
pub mod metrics;
mod migrations;
pub mod postgres;
mod pressure;
mod queues;
mod retention;
pub mod rules;
pub mod schedules;
pub mod sqlite;
mod store;
mod workers;
mod workflow;

pub use amend::{Amendment, check_amendment, may_amend};
pub use backend::{Backend, DatabaseUrl, SqlitePlace};
pub use bulk::{BulkAction, BulkDone, bulk, check_bulk};
pub use commands::{COMMAND_BYTES_MAX, CONCURRENCY_MAX, Command, JobSignal};
pub use cron::{CRON_BYTES_MAX, Cron, CronError};
pub use error::{QueueError, causes, is_told};
pub use filter::{FILTER_PLACES_MAX, FILTER_TEXT_BYTES_MAX, JobFilter, Span, ValueAt};
pub use limits::{Limit, LimitView, Limits, Rate, check_limits};
pub use listing::JobPage;
pub use locks::{LockFilter, LockGuard, LockHeld, LockPage, Locks};
pub use logs::{LogPage, Logs};
pub use migrations::{Migration, MigrationStatus};
pub use pressure::{PRESSURE_LIFE, Pressure, Pressured};
pub use queues::{QueueView, QueueWait, Queues, READY_COUNTED_MAX};
pub use retention::{Keep, Retention};
pub use schedules::{Schedule, ScheduleFilter, SchedulePage, Schedules, Timing};
pub use store::{
    Annotation, ArgsMask, AttemptFailure, Claim, Ending, Enqueued, Exchanged, Extension, Hour, Leased,
    Outcome, Pause, Pull, Pulled, RetryOptions, Stats, Store, UpkeepRules, Upkept, Verdict,
};
pub use workers::{
    COMMAND_KEPT, INBOX_MAX, KIND_OWN, STALE_AFTER, STATUS_NAMES_MAX, WorkerFilter, WorkerInfo, WorkerPage,
    WorkerState, WorkerStatus, WorkerView, Workers,
};
pub use workflow::{Step, Workflow};
