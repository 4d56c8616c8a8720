//! The names of what this crate counts, and how labels stay bounded.
//!
//! Tasks and queues are named by users, without end; a time series for each would end the monitoring. So only the
//! first names seen are labels, the rest are counted together.

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

/// So many names become labels.
const LABELS_MAX: usize = 200;
/// The label of all other names.
const OTHER: &str = "other";

static SEEN: Mutex<Option<HashSet<String>>> = Mutex::new(None);

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
