//! Runs jobs: typed Rust tasks and programs in any language, from a [`JobSource`].
//!
//! A [`Worker`] claims jobs in batches into free slots, keeps their leases, and hands their outcomes in; what the
//! source does or fails to do never ends it. See [`Worker`] for an example, [`CommandTask`] for programs.
//!
//! **Invariants.** A job that is handed in ran here under a lease. An outcome leaves the worker only with a verdict:
//! as long as the process lives, and with a [`Spool`] beyond that. A panic, an exit code or a time-out ends one job, never the worker. A run that was
//! cancelled or lost its lease is stopped at once, a command with its whole process group. Every batch, buffer and
//! pause has a bound in [`WorkerOptions`].
//!
//! **Allowed imports**: the queue's trait and words, never its stores; `minium-client` for the source over WebSocket.

mod backoff;
mod command;
mod context;
mod control;
mod error;
mod handover;
mod keeping;
mod kin;
mod log;
pub mod metrics;
mod notes;
mod options;
mod pace;
mod remote;
mod report;
mod retries;
mod run_dir;
mod running;
mod sandbox;
#[cfg(feature = "schemas")]
pub mod schema;
mod side;
mod signals;
mod source;
mod spool;
mod task;
mod traced;
mod worker;

pub use command::{CommandTask, Lasting};
pub use context::JobContext;
pub use error::WorkerError;
pub use options::{Output, UpkeepOptions, WorkerOptions};
pub use remote::ClientSource;
pub use retries::TaskBackoff;
pub use sandbox::{Ability, BecomeError, LAUNCH_FAILED, Launch, Sandbox, Wall, abilities, become_command};
pub use source::{JobSource, StoreSource};
pub use spool::{Spool, SpoolError, SpoolOptions};
pub use task::{ArgsCheck, Failure};
#[cfg(feature = "otel")]
pub use traced::{context_of, span_context};
pub use worker::Worker;
