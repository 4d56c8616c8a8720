//! What this node says of itself among the workers: that it hands jobs to sessions, which they take, and what they have.
//!
//! Its sessions are not workers of their own in the list: they come and go by the thousand, and each job says which of them
//! has it. Commands are not for them either; a run of theirs that is cancelled is told at once, over its socket.

use super::held::Held;
use super::pullers::Pullers;
use minium_queue::{STATUS_NAMES_MAX, WorkerInfo, WorkerStatus};
use tokio::time::Instant;

/// The kind of worker that this is.
const KIND: &str = "pullers";

/// This node, as it registers.
pub(super) fn info(host: &str, status: WorkerStatus) -> WorkerInfo {
    WorkerInfo { kind: KIND.into(), status, ..WorkerInfo::new(host, std::process::id()) }
}

/// How it fares.
pub(super) fn of(pullers: &Pullers, held: &Held, now: Instant) -> WorkerStatus {
    let (queues, tasks) = pullers.names(STATUS_NAMES_MAX);
    let (running, jobs) = held.running(now, STATUS_NAMES_MAX);
    WorkerStatus {
        queues,
        tasks,
        concurrency: u32::try_from(pullers.len()).unwrap_or(u32::MAX),
        running: u32::try_from(running).unwrap_or(u32::MAX),
        jobs,
        ..WorkerStatus::default()
    }
}
