//! The choice of a claim with bounds for single tasks.

use super::change::Change;
use super::limits::{self, Candidate, Wanted};
use super::queues;
use crate::caps;
use crate::error::QueueError;
use crate::rules;
use crate::store::Claim;
use rusqlite::params;
use std::collections::BTreeMap;

/// The ids to claim, in claim order. Each task of each queue is read by its index alone as far as its bound; they are merged
/// with those whose limits have room, and what is beyond a task's bound is passed over.
pub(super) fn choose(change: &mut Change<'_>, claim: &Claim) -> Result<Vec<i64>, QueueError> {
    let tasks: BTreeMap<&str, u32> = caps::tasks(claim, 0).into_iter().collect();
    let names: Vec<&str> = tasks.keys().copied().collect();
    let wanted = Wanted {
        queues: queues::open(change, &claim.queues)?,
        tasks: Some(serde_json::to_string(&names).expect("names always serialise")),
        least: claim.min_priority.unwrap_or(i32::MIN),
        limit: claim.limit.min(rules::CLAIM_MAX) as usize,
    };
    if tasks.is_empty() || wanted.limit == 0 {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for (task, cap) in &tasks {
        found.extend(of_task(change, &wanted, task, *cap)?);
    }
    for limited in limits::candidates(change, &wanted)? {
        let task = change.first("select task from job where id = ?1", [limited.id], |row| row.get(0))?;
        found.push((task.unwrap_or_default(), limited));
    }
    found.sort_by_key(|(_, c)| (std::cmp::Reverse(c.priority), c.seq));
    let (mut room, mut chosen) = (tasks, Vec::new());
    for (task, candidate) in found {
        let left = room.get_mut(task.as_str()).filter(|left| **left > 0);
        if let Some(left) = left.filter(|_| chosen.len() < wanted.limit) {
            *left -= 1;
            chosen.push(candidate);
        }
    }
    limits::note_taken(change, &chosen)?;
    Ok(chosen.into_iter().map(|c| c.id).collect())
}

fn of_task(
    change: &Change<'_>,
    wanted: &Wanted,
    task: &str,
    cap: u32,
) -> Result<Vec<(String, Candidate)>, QueueError> {
    const READY: &str = "select priority, seq, id from job indexed by job_ready_task
         where ready and limited is null and task = ?1 and queue = ?2 and priority >= ?3
           and (expires is null or attempt > 0 or expires > ?4)
         order by priority desc, seq limit ?5";
    let mut found = Vec::new();
    for queue in &wanted.queues {
        let params = params![task, queue, wanted.least, change.now, cap];
        found.extend(change.all(READY, params, |row| {
            let (priority, seq, id) = (row.get(0)?, row.get(1)?, row.get(2)?);
            Ok((task.to_owned(), Candidate { priority, seq, id, limited: None }))
        })?);
    }
    Ok(found)
}
