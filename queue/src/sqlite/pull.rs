//! Claims for pullers, and what they give back.

use super::change::Change;
use super::exchange::claim;
use super::limits::{self, Candidate, Wanted};
use super::queues;
use crate::error::QueueError;
use crate::rules;
use crate::store::{Pull, Pulled};
use minium_protocol::{EventType, LeaseToken, State};
use rusqlite::params;
use serde_json::value::RawValue;
use std::time::Duration;

/// One pull after the other: what one took is not ready for the next.
pub(super) fn pull(change: &mut Change<'_>, pulls: &[Pull]) -> Result<Vec<Pulled>, QueueError> {
    let mut pulled = Vec::new();
    for (i, (pull, limit)) in pulls.iter().zip(rules::pull_limits(pulls)).enumerate() {
        for (place, id) in choose(change, pull, limit)?.into_iter().enumerate() {
            let worker = serde_json::to_string(&pull.workers[place]).expect("a worker always serialises");
            let (leased, job) = claim(change, id, &worker, pull.lease)?;
            let snapshot = RawValue::from_string(job.whole_snapshot()).expect("a snapshot is made of JSON");
            pulled.push(Pulled { pull: i, place, job: leased, snapshot });
        }
    }
    Ok(pulled)
}

/// The ids for one pull, in claim order. Each task is read by its index alone as far as the limit, then they are merged, with
/// those whose limits have room.
fn choose(change: &Change<'_>, pull: &Pull, limit: usize) -> Result<Vec<i64>, QueueError> {
    const READY: &str = "select priority, seq, id from job indexed by job_ready_task
         where ready and limited is null and task = ?1 and queue = ?2
           and (expires is null or attempt > 0 or expires > ?3)
         order by priority desc, seq limit ?4";
    let queues = queues::open(change, std::slice::from_ref(&pull.queue))?;
    if limit == 0 || queues.is_empty() {
        return Ok(Vec::new());
    }
    let count = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut tasks: Vec<&String> = pull.tasks.iter().collect();
    tasks.sort();
    tasks.dedup();
    let mut found: Vec<Candidate> = Vec::new();
    for task in &tasks {
        let read = |row: &rusqlite::Row<'_>| {
            let (priority, seq, id) = (row.get(0)?, row.get(1)?, row.get(2)?);
            Ok(Candidate { priority, seq, id, limited: None })
        };
        found.extend(change.all(READY, params![task, pull.queue, change.now, count], read)?);
    }
    let tasks = Some(serde_json::to_string(&tasks).expect("names always serialise"));
    found.extend(limits::candidates(change, &Wanted { queues, tasks, least: i32::MIN, limit })?);
    found.sort_by_key(|c| (std::cmp::Reverse(c.priority), c.seq));
    found.truncate(limit);
    limits::note_taken(change, &found)?;
    Ok(found.into_iter().map(|c| c.id).collect())
}

/// Jobs that nobody has begun wait again.
pub(super) fn release(change: &mut Change<'_>, leases: &[(i64, LeaseToken)]) -> Result<u64, QueueError> {
    let mut released = 0;
    for (id, token) in leases {
        let held = change.first(
            "select open_edges from job where id = ?1 and state = 'active' and lease = ?2",
            params![id, token.to_string()],
            |row| row.get::<_, i64>(0),
        )?;
        let Some(open_edges) = held else { continue };
        change.execute("delete from renewal where job = ?1", [id])?;
        let ready = open_edges == 0;
        let seq = if ready { change.draw()? } else { 0 };
        let job = change.update(
            EventType::Lost,
            "state = 'inactive', lease = null, attempt = attempt - 1, ready = ?2, seq = ?3,
             started = iif(attempt > 1, started, null)",
            params![id, ready, seq],
        )?;
        change.release_place(&job)?;
        change.moved(*id, Some(State::Active), Some(State::Inactive))?;
        released += 1;
    }
    Ok(released)
}

/// A job that runs waits again for so long, and its run does not count.
pub(super) fn postpone(
    change: &mut Change<'_>,
    id: i64,
    token: LeaseToken,
    pause: Duration,
) -> Result<bool, QueueError> {
    let held = change.first(
        "select open_edges from job where id = ?1 and state = 'active' and lease = ?2",
        params![id, token.to_string()],
        |row| row.get::<_, i64>(0),
    )?;
    let Some(open_edges) = held else { return Ok(false) };
    change.execute("delete from renewal where job = ?1", [id])?;
    let now = change.now;
    let delayed = now + rules::micros(pause.min(rules::BACKOFF_MAX));
    let later = (delayed > now).then_some(delayed);
    let ready = later.is_none() && open_edges == 0;
    let seq = if ready { change.draw()? } else { 0 };
    let job = change.update(
        EventType::Retry,
        "state = 'inactive', lease = null, attempt = attempt - 1, started = iif(attempt > 1, started, null),
         retried = ?2, delayed = ?3, later = ?4, ready = ?5, seq = ?6",
        params![id, now, delayed, later, ready, seq],
    )?;
    change.release_place(&job)?;
    change.moved(id, Some(State::Active), Some(State::Inactive))?;
    Ok(true)
}
