//! What time brings about: due jobs become ready, lost ones are rescued, old ones go.

use super::change::{Change, HOUR};
use super::exchange::note_failure;
use super::workers;
use crate::error::QueueError;
use crate::metrics::{JOBS_FINISHED, LEASES_EXPIRED};
use crate::retention;
use crate::rules::{self, Aftermath};
use crate::store::{UpkeepRules, Upkept};
use minium_protocol::{EventType, State};
use rusqlite::params;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Since when leases count, and when this process last looked after the queue. Grace is reckoned by this process alone,
/// since a file has no server whose start could be asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tended {
    since: i64,
    last: i64,
}

impl Tended {
    /// A process that has just opened the database.
    pub(super) fn opened(now: i64) -> Tended {
        Tended { since: now, last: now }
    }

    /// Looks after it now. After an absence leases have their grace anew: a process that was stopped, or whose database
    /// was held, could extend none.
    fn look(&mut self, now: i64, absence: Duration) {
        if now - self.last > rules::micros(absence) {
            self.since = now;
        }
        self.last = now;
    }
}

/// One round.
pub(super) fn upkeep(
    change: &mut Change<'_>,
    round: &UpkeepRules,
    tended: &Mutex<Tended>,
) -> Result<Upkept, QueueError> {
    let since = {
        let mut tended = tended.lock().unwrap_or_else(PoisonError::into_inner);
        tended.look(change.now, round.absence);
        tended.since
    };
    let staged = stage(change, round.batch)?;
    let grace_over = change.now - since >= rules::micros(round.grace);
    let rescued = if grace_over { rescue(change, round.batch)? } else { 0 };
    let expired = expire(change, round.batch)?;
    let removed = remove_old(change, round)?;
    let_go(change, round.batch)?;
    workers::forget(change, round.worker_missing)?;
    super::locks::purge(change, round.batch)?;
    // a transition moves its children itself: none is ever left behind to be released
    Ok(Upkept { staged, rescued, expired, released: 0, removed, due_in: due_in(change)? })
}

/// Jobs whose time has come become ready, unless parents hold them back.
fn stage(change: &mut Change<'_>, batch: u32) -> Result<u64, QueueError> {
    let due = change.all(
        "select id, open_edges from job indexed by job_later where later <= ?1 order by later, id limit ?2",
        params![change.now, batch],
        |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)),
    )?;
    let mut staged = 0;
    for (id, open_edges) in due {
        if open_edges > 0 {
            change.execute("update job set later = null where id = ?1", [id])?;
            continue;
        }
        let seq = change.draw()?;
        change.execute("update job set later = null, ready = 1, seq = ?2 where id = ?1", [id, seq])?;
        staged += 1;
    }
    Ok(staged)
}

/// Jobs whose lease has ended wait again, or have failed when no attempt is left.
fn rescue(change: &mut Change<'_>, batch: u32) -> Result<u64, QueueError> {
    let mut lost = change.all(
        "select job from renewal where until <= ?1 order by until, job limit ?2",
        params![change.now, batch],
        |row| row.get::<_, i64>(0),
    )?;
    lost.sort_unstable();
    for id in &lost {
        lose(change, *id)?;
    }
    Ok(lost.len() as u64)
}

fn lose(change: &mut Change<'_>, id: i64) -> Result<(), QueueError> {
    let (before, now) = (change.job(id)?, change.now);
    change.execute("delete from renewal where job = ?1", [id])?;
    let after = match rules::after_loss(before.attempt, before.attempts) {
        Aftermath::Again => {
            let ready = before.open_edges == 0;
            let seq = if ready { change.draw()? } else { 0 };
            let mut job = change.update(
                EventType::Lost,
                "state = 'inactive', lease = null, ready = ?2, seq = ?3",
                params![id, ready, seq],
            )?;
            job.error = Some(rules::LEASE_EXPIRED.into());
            note_failure(change, &job, None)?;
            State::Inactive
        }
        Aftermath::End => {
            let job = change.update(
                EventType::Lost,
                "state = 'failed', finished = ?2, error = ?3, result = null, lease = null",
                params![id, now, rules::LEASE_EXPIRED],
            )?;
            change.release_key(&job)?;
            note_failure(change, &job, None)?;
            change.count(JOBS_FINISHED, &job, Some(State::Failed));
            State::Failed
        }
    };
    change.release_place(&before)?;
    change.count(LEASES_EXPIRED, &before, None);
    change.moved(id, Some(before.state), Some(after))
}

/// Jobs that were never started in time are deleted.
fn expire(change: &mut Change<'_>, batch: u32) -> Result<u64, QueueError> {
    let late = change.all(
        "select id from job indexed by job_expires
          where state = 'inactive' and attempt = 0 and expires <= ?1 order by expires, id limit ?2",
        params![change.now, batch],
        |row| row.get::<_, i64>(0),
    )?;
    delete_all(change, late, EventType::Expired)
}

/// Ended jobs that are older than they are kept are deleted, unless a living job names them as parent.
fn remove_old(change: &mut Change<'_>, round: &UpkeepRules) -> Result<u64, QueueError> {
    // as many of each queue as could go, and of these the oldest
    let mut old: Vec<(i64, i64)> = Vec::new();
    for rule in round.keep.rules().iter().filter(|rule| rule.micros.is_some()) {
        let queues = match rule.queue {
            Some(queue) => vec![queue.to_owned()],
            None => unnamed_queues(change, rule.state, round)?,
        };
        for queue in queues {
            old.extend(old_of(change, &queue, rule, round.batch)?);
        }
    }
    old.sort_unstable();
    old.truncate(round.batch as usize);
    delete_all(change, old.into_iter().map(|(_, id)| id).collect(), EventType::Removed)
}

/// Queues with jobs that ended like this, but for those that have rules of their own. Index: job_ended, from queue to queue.
fn unnamed_queues(change: &Change<'_>, state: State, round: &UpkeepRules) -> Result<Vec<String>, QueueError> {
    let mut queues = change.all(
        "with recursive used (queue) as (
           select min(queue) from job indexed by job_ended where state = ?1 and finished is not null
           union all
           select (select min(queue) from job indexed by job_ended
                    where state = ?1 and finished is not null and queue > used.queue)
             from used where used.queue is not null)
         select queue from used where queue is not null",
        [state.as_str()],
        |row| row.get::<_, String>(0),
    )?;
    queues.retain(|queue| !round.keep.queues.contains_key(queue));
    Ok(queues)
}

/// Jobs of one queue that ended like this and are old enough, the oldest first, by when they ended.
fn old_of(
    change: &Change<'_>,
    queue: &str,
    rule: &retention::Rule<'_>,
    count: u32,
) -> Result<Vec<(i64, i64)>, QueueError> {
    let limit = change.now.saturating_sub(rule.micros.unwrap_or(i64::MAX));
    change.all(
        "select finished, id from job indexed by job_ended
          where state = ?1 and queue = ?2 and finished <= ?3
            and not exists (select 1 from edge join job child on child.id = edge.child
                             where edge.parent = job.id and child.state in ('inactive', 'active'))
          order by finished, id limit ?4",
        params![rule.state.as_str(), queue, limit, count],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )
}

/// Keys whose time is over and whose job has ended; hours that are told no more. What ends a run gives its place under a limit
/// back in the same commit: there is nothing to repair.
fn let_go(change: &Change<'_>, batch: u32) -> Result<(), QueueError> {
    change.execute(
        "delete from job_key where (task, key) in (
           select task, key from job_key indexed by job_key_until
            where until <= ?1 and not exists (
              select 1 from job where id = job_key.job and state in ('inactive', 'active')) limit ?2)",
        params![change.now, batch],
    )?;
    // one whose job lives is held while it does: it is not looked at again
    change.execute(
        "update job_key set until = null where (task, key) in (
           select task, key from job_key indexed by job_key_until
            where until <= ?1 and exists (
              select 1 from job where id = job_key.job and state in ('inactive', 'active')) limit ?2)",
        params![change.now, batch],
    )?;
    change.execute("delete from hour where hour < ?1", [change.now - 8 * 24 * HOUR])?;
    Ok(())
}

fn delete_all(change: &mut Change<'_>, mut ids: Vec<i64>, event: EventType) -> Result<u64, QueueError> {
    ids.sort_unstable();
    for id in &ids {
        let job = change.job(*id)?;
        change.delete(event, &job)?;
    }
    Ok(ids.len() as u64)
}

fn due_in(change: &Change<'_>) -> Result<Option<Duration>, QueueError> {
    let sql = "select min(later) from job indexed by job_later where later is not null";
    let next: Option<i64> = change.first(sql, [], |row| row.get(0))?.flatten();
    Ok(next.map(|at| Duration::from_micros(at.saturating_sub(change.now).max(0).unsigned_abs())))
}
