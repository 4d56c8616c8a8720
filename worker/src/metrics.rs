//! Names of what a worker measures; `docs/metrics.md` has the same list.

/// How long a run took. Labels: `queue`, `task`, `state`.
pub const JOB_RUN_SECONDS: &str = "minium_queue_job_run_seconds";
/// Runs that ended. Label: `verdict` (accepted, repeated, lease_lost, unjudged, abandoned).
pub const OUTCOMES_TOTAL: &str = "minium_worker_outcomes_total";
/// How long handing in and claiming took.
pub const EXCHANGE_SECONDS: &str = "minium_worker_exchange_seconds";
/// Calls to the source that failed. Label: `call`.
pub const SOURCE_ERRORS_TOTAL: &str = "minium_worker_source_errors_total";
/// Jobs that run now.
pub const JOBS_RUNNING: &str = "minium_worker_jobs_running";
/// Outcomes that wait to be handed in.
pub const OUTCOMES_WAITING: &str = "minium_worker_outcomes_waiting";
/// Runs that were told to stop. Label: `reason` (cancelled, lost, timeout, shutdown, operator).
pub const STOPPED_TOTAL: &str = "minium_worker_stopped_total";

/// What the worker was told. Label: `command` (its name, or own).
pub const COMMANDS_TOTAL: &str = "minium_worker_commands_total";

/// Tells the recorder what the names mean; call once, after it is installed.
pub fn describe() {
    use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
    describe_histogram!(JOB_RUN_SECONDS, Unit::Seconds, "How long a run took.");
    describe_counter!(OUTCOMES_TOTAL, "Runs that ended, by what became of their outcome.");
    describe_histogram!(EXCHANGE_SECONDS, Unit::Seconds, "How long handing in and claiming took.");
    describe_counter!(SOURCE_ERRORS_TOTAL, "Calls to the job source that failed.");
    describe_gauge!(JOBS_RUNNING, "Jobs that run now.");
    describe_gauge!(OUTCOMES_WAITING, "Outcomes that wait to be handed in.");
    describe_counter!(STOPPED_TOTAL, "Runs that were told to stop.");
    describe_counter!(COMMANDS_TOTAL, "What the worker was told.");
}
