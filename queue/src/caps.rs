//! Claims with bounds for single tasks: what both stores make of them. Pure.

use crate::rules::CLAIM_MAX;
use crate::store::Claim;

/// The tasks of a claim with bounds, each once and with the most that is taken of it; those of which nothing is to be taken
/// are left out. By turns each comes first.
pub(crate) fn tasks(claim: &Claim, turn: usize) -> Vec<(&str, u32)> {
    let limit = claim.limit.min(CLAIM_MAX);
    let mut tasks: Vec<&str> = claim.tasks.iter().flatten().map(String::as_str).collect();
    tasks.sort_unstable();
    tasks.dedup();
    let cap = |task: &str| claim.caps.get(task).map_or(limit, |cap| limit.min(*cap));
    let mut capped: Vec<_> =
        tasks.into_iter().map(|task| (task, cap(task))).filter(|(_, n)| *n > 0).collect();
    if !capped.is_empty() {
        let by = turn % capped.len();
        capped.rotate_left(by);
    }
    capped
}

#[cfg(test)]
mod tests {
    use super::*;
    use minium_protocol::WorkerRef;
    use std::time::Duration;

    fn claim(limit: u32, tasks: &[&str], caps: &[(&str, u32)]) -> Claim {
        Claim {
            worker: WorkerRef { id: 1, host: "h".into(), pid: 1 },
            queues: vec!["default".into()],
            tasks: Some(tasks.iter().map(|task| (*task).to_owned()).collect()),
            limit,
            lease: Duration::from_secs(1),
            min_priority: None,
            aged: None,
            caps: caps.iter().map(|(task, n)| ((*task).to_owned(), *n)).collect(),
        }
    }

    #[test]
    fn each_task_has_its_bound_and_none_exceeds_the_limit() {
        let claim = claim(5, &["b", "a", "c", "a", "d"], &[("a", 1), ("c", 0), ("d", 9)]);
        assert_eq!(tasks(&claim, 0), [("a", 1), ("b", 5), ("d", 5)]);
        assert_eq!(tasks(&claim, 4), [("b", 5), ("d", 5), ("a", 1)], "each comes first in its turn");
    }

    #[test]
    fn where_nothing_is_to_be_taken_nothing_is_asked() {
        assert!(tasks(&claim(5, &["a"], &[("a", 0)]), 7).is_empty());
        assert!(tasks(&claim(0, &["a"], &[("a", 1)]), 7).is_empty());
    }
}
