//! The names of what this crate counts, and how labels stay bounded.
//!
//! Tasks and queues are named by users, without end; a time series for each would end the monitoring. So only the
//! first names seen are labels, the rest are counted together.

use metrics::{Histogram, Unit, describe_counter, describe_gauge, describe_histogram};
use std::collections::HashSet;
use std::sync::Mutex;

/// Jobs enqueued, by `queue` and `task`.
pub(crate) const JOBS_ENQUEUED: &str = "minium_queue_jobs_enqueued_total";
/// Runs that ended, by `queue`, `task` and `state`.
pub(crate) const JOBS_FINISHED: &str = "minium_queue_jobs_finished_total";
/// Leases that ended before their job did.
pub(crate) const LEASES_EXPIRED: &str = "minium_queue_leases_expired_total";
/// 1 while the database is there, 0 while it is known to be away.
pub(crate) const DATABASE_AVAILABLE: &str = "minium_queue_database_available";
/// How often it went away.
pub(crate) const DATABASE_OUTAGES: &str = "minium_queue_database_outages_total";
/// What was refused, or given up, because it was away.
pub(crate) const DATABASE_REFUSALS: &str = "minium_queue_database_refusals_total";
/// 1 while claims of this process are slowed, since the journal is not relayed as fast as it grows.
pub(crate) const CLAIMS_SLOWED: &str = "minium_queue_claims_slowed";
/// How long jobs could have run before they did, by `queue` and `task`.
pub(crate) const JOB_WAIT_SECONDS: &str = "minium_queue_job_wait_seconds";
/// How long operations on the database took, with the wait for a connection, by `operation`.
pub(crate) const DATABASE_SECONDS: &str = "minium_queue_database_seconds";
/// Connections to the database that are there, by `state`: `used`, `idle`.
pub(crate) const DATABASE_CONNECTIONS: &str = "minium_queue_database_connections";
/// Operations that wait for one of them.
pub(crate) const DATABASE_WAITING: &str = "minium_queue_database_waiting";

/// So many names become labels.
const LABELS_MAX: usize = 200;
/// The label of all other names.
const OTHER: &str = "other";

static SEEN: Mutex<Option<HashSet<String>>> = Mutex::new(None);

/// Tells the recorder what the names mean; to be called once, after it is installed.
pub fn describe() {
    describe_counter!(JOBS_ENQUEUED, "Jobs enqueued by this process.");
    describe_counter!(JOBS_FINISHED, "Runs that ended.");
    describe_counter!(LEASES_EXPIRED, "Leases that ended before their job did.");
    describe_gauge!(DATABASE_AVAILABLE, "1 while the database is there.");
    describe_counter!(DATABASE_OUTAGES, "How often the database went away.");
    describe_counter!(DATABASE_REFUSALS, "What was refused or given up since the database was away.");
    describe_gauge!(CLAIMS_SLOWED, "1 while claims are slowed for the journal's sake.");
    describe_histogram!(JOB_WAIT_SECONDS, Unit::Seconds, "How long jobs could have run before they did.");
    describe_histogram!(DATABASE_SECONDS, Unit::Seconds, "How long operations on the database took.");
    describe_gauge!(DATABASE_CONNECTIONS, "Connections to the database.");
    describe_gauge!(DATABASE_WAITING, "Operations that wait for a connection.");
}

/// Has this claim a wait that can be told? Only the first run of a job without parents has: when a lost lease or a parent let a
/// job go on is not kept.
pub(crate) fn tells_wait(attempt: i32, has_parents: bool) -> bool {
    attempt == 1 && !has_parents
}

/// Notes how long claimed jobs have waited. Neighbours are mostly alike, so that a batch looks few histograms up.
pub(crate) fn note_waits<'a>(waits: impl Iterator<Item = (&'a str, &'a str, f64)>) {
    let mut last: Option<(&str, &str, Histogram)> = None;
    for (queue, task, seconds) in waits {
        let histogram = match last.take() {
            Some((q, t, histogram)) if (q, t) == (queue, task) => histogram,
            _ => metrics::histogram!(JOB_WAIT_SECONDS, "queue" => label(queue), "task" => label(task)),
        };
        histogram.record(seconds.max(0.0));
        last = Some((queue, task, histogram));
    }
}

/// Counts `n` jobs under a metric with the labels of all of them.
pub(crate) fn count_jobs(metric: &'static str, queue: &str, task: &str, state: Option<&'static str>, n: u64) {
    let (queue, task) = (label(queue), label(task));
    match state {
        Some(state) => {
            metrics::counter!(metric, "queue" => queue, "task" => task, "state" => state).increment(n)
        }
        None => metrics::counter!(metric, "queue" => queue, "task" => task).increment(n),
    }
}

fn label(name: &str) -> String {
    let mut seen = SEEN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    bounded(seen.get_or_insert_default(), name).to_owned()
}

fn bounded<'a>(seen: &mut HashSet<String>, name: &'a str) -> &'a str {
    if seen.contains(name) {
        return name;
    }
    if seen.len() >= LABELS_MAX {
        return OTHER;
    }
    seen.insert(name.to_owned());
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_bounded_and_known_ones_stay() {
        let mut seen = HashSet::new();
        for i in 0..LABELS_MAX {
            let name = i.to_string();
            assert_eq!(bounded(&mut seen, &name), name);
        }
        assert_eq!(bounded(&mut seen, "one more"), OTHER);
        assert_eq!(bounded(&mut seen, "7"), "7");
        assert_eq!(seen.len(), LABELS_MAX);
    }
}
