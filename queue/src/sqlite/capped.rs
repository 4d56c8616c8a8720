//! The choice of a claim with bounds for single tasks.

use super::change::Change;
use crate::caps;
use crate::error::QueueError;
use crate::rules;
use crate::store::Claim;
use rusqlite::params;

/// The ids to claim, in claim order. Each task of each queue is read by its index alone as far as its bound; they are merged,
/// and what is beyond a task's bound is passed over.
pub(super) fn choose(change: &Change<'_>, claim: &Claim) -> Result<Vec<i64>, QueueError> {
    const READY: &str = "select priority, seq, id from job indexed by job_ready_task
         where ready and task = ?1 and queue = ?2 and priority >= ?3
           and (expires is null or attempt > 0 or expires > ?4)
         order by priority desc, seq limit ?5";
    let limit = claim.limit.min(rules::CLAIM_MAX);
    let lowest = claim.min_priority.unwrap_or(i32::MIN);
    let mut queues: Vec<&String> = claim.queues.iter().collect();
    queues.sort();
    queues.dedup();
    let mut found: Vec<(i32, i64, i64)> = Vec::new();
    for (task, cap) in caps::tasks(claim, 0) {
        let mut of_task: Vec<(i32, i64, i64)> = Vec::new();
        for queue in &queues {
            let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
            of_task.extend(change.all(READY, params![task, queue, lowest, change.now, cap], read)?);
        }
        first(&mut of_task, cap);
        found.append(&mut of_task);
    }
    first(&mut found, limit);
    Ok(found.into_iter().map(|(_, _, id)| id).collect())
}

fn first(found: &mut Vec<(i32, i64, i64)>, most: u32) {
    found.sort_by_key(|(priority, seq, _)| (std::cmp::Reverse(*priority), *seq));
    found.truncate(most as usize);
}
