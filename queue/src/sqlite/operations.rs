//! What users and workers do to one job.

use super::change::Change;
use super::enqueue;
use super::exchange::same_lease;
use super::log;
use super::row::{Job, state};
use crate::error::QueueError;
use crate::rules::{self, Hold};
use crate::store::{Annotation, RetryOptions};
use minium_protocol::{EventType, LeaseToken, State};
use rusqlite::params;
use serde_json::{Map, Value};

/// Notes, progress and log lines: one event.
pub(super) fn annotate(
    change: &mut Change<'_>,
    id: i64,
    lease: Option<LeaseToken>,
    annotation: &Annotation,
) -> Result<(), QueueError> {
    let job = change.job(id)?;
    if let Some(token) = lease
        && rules::hold(Some(job.state), same_lease(&job, token)) != Hold::Held
    {
        return Err(QueueError::LeaseLost(id));
    }
    let lines = match &annotation.log[..] {
        [] => None,
        lines => log::append(change, id, job.attempt, lines)?,
    };
    match lines {
        lines if annotation.changes() => note(change, &job, annotation, lines.as_deref()),
        Some(lines) => change.event_with_log(&job, &lines),
        None => Ok(()),
    }
}

/// Writes notes and progress, and the event of them, with the lines that came along.
fn note(
    change: &mut Change<'_>,
    job: &Job,
    annotation: &Annotation,
    lines: Option<&str>,
) -> Result<(), QueueError> {
    let notes = merged_notes(job, &annotation.notes)?;
    let progress = annotation
        .progress
        .as_ref()
        .map(|p| serde_json::to_string(p).expect("a number and a text always serialise"));
    let (set, params) = ("notes = ?2, progress = coalesce(?3, progress)", params![job.id, notes, progress]);
    match lines {
        Some(lines) => {
            let job = change.write(set, params)?;
            change.event_with_log(&job, lines)
        }
        None => change.update(EventType::Progress, set, params).map(drop),
    }
}

/// The notes of a job, as text, with what is added to them and taken from them.
pub(super) fn merged_notes(job: &Job, added: &Map<String, Value>) -> Result<String, QueueError> {
    let mut notes: Map<String, Value> =
        serde_json::from_str(&job.notes).expect("notes were an object when they were written");
    rules::merge_notes(&mut notes, &rules::storable_notes(added));
    let notes = rules::notes_text(&notes);
    if !rules::only_takes(added) {
        rules::check_notes_bytes(notes.len())?;
    }
    Ok(notes)
}

/// Calls a job off.
pub(super) fn cancel(change: &mut Change<'_>, id: i64) -> Result<(), QueueError> {
    let before = change.job(id)?;
    rules::may_cancel(id, before.state)?;
    call_off(change, id, before.state)
}

/// Calls off a job that has not ended, whatever its state is.
pub(super) fn call_off(change: &mut Change<'_>, id: i64, before: State) -> Result<(), QueueError> {
    let now = change.now;
    change.execute("delete from renewal where job = ?1", [id])?;
    let job = change.update(
        EventType::Cancelled,
        "state = 'cancelled', finished = ?2, result = null, ready = 0, later = null",
        params![id, now],
    )?;
    change.release_key(&job)?;
    change.release_place(&job)?;
    if before == State::Active {
        change.control()?;
    }
    change.moved(id, Some(before), Some(State::Cancelled))
}

/// Calls a job off, and all that it enqueued, that those enqueued, and so on.
pub(super) fn cancel_cascade(change: &mut Change<'_>, id: i64) -> Result<u64, QueueError> {
    change.job(id)?;
    // a job enqueues only what is younger than itself, so that no circle can be walked
    let all = change.all(
        "with recursive cascade (id) as (
           values (?1)
           union all
           select job.id from cascade join job on job.origin = cascade.id and job.id > cascade.id)
         select job.id, job.state from cascade join job on job.id = cascade.id
          where job.state in ('inactive', 'active') order by job.id",
        [id],
        |row| Ok((row.get::<_, i64>(0)?, state(row, 1)?)),
    )?;
    for (id, before) in &all {
        call_off(change, *id, *before)?;
    }
    Ok(all.len() as u64)
}

/// Makes a job wait again.
pub(super) fn retry(change: &mut Change<'_>, id: i64, options: &RetryOptions) -> Result<(), QueueError> {
    let before = change.job(id)?;
    let holder: Option<i64> = match before.key.as_ref().filter(|_| before.state.is_ended()) {
        Some(key) => enqueue::holder(change, &before.task, key)?,
        None => None,
    };
    rules::may_retry(id, before.state, holder.is_some_and(|holder| holder != id))?;
    let attempts = rules::attempts_after_retry(before.attempt, before.attempts, options.attempts)?;
    if let Some(key) = &before.key
        && before.state.is_ended()
        && holder.is_none()
    {
        let sql = "insert into job_key (task, key, job, waiting) values (?1, ?2, ?3, ?4)";
        change.execute(sql, params![before.task, key, id, before.unique_us == Some(0)])?;
    }
    rules::check_retry_of(id, before.attempt, before.on_failure, options)?;
    let now = change.now;
    let delayed = now + rules::micros(options.delay.unwrap_or_default());
    let later = (delayed > now).then_some(delayed);
    let expires = options.expire.map(|span| now + rules::micros(span));
    let (parents, open) = wait_for(change, &before, options)?;
    let ready = later.is_none() && open == 0;
    let seq = if ready { change.draw()? } else { 0 };
    change.update(
        EventType::Retry,
        "state = 'inactive', retries = retries + 1, retried = ?2, delayed = ?3, later = ?4, ready = ?5, seq = ?6,
         attempts = ?7, priority = coalesce(?8, priority), queue = coalesce(?9, queue), finished = null,
         result = null, expires = ?10, lease = null, parents = ?11, open_edges = ?12, lax = coalesce(?13, lax)",
        params![
            id,
            now,
            delayed,
            later,
            ready,
            seq,
            attempts,
            options.priority,
            options.queue,
            expires,
            parents,
            open,
            options.lax
        ],
    )?;
    change.moved(id, Some(before.state), Some(State::Inactive))
}

/// Makes the edges of a job lead to the parents that a retry says, as lax as it says. Answers its parents, and how many of
/// them it waits for.
fn wait_for(change: &Change<'_>, job: &Job, options: &RetryOptions) -> Result<(String, i64), QueueError> {
    if options.parents.is_none() && options.lax.is_none() {
        return Ok((job.parents.clone(), job.open_edges));
    }
    let parents = match &options.parents {
        Some(parents) => {
            let parents = rules::distinct_parents(parents);
            change.execute("delete from edge where child = ?1", [job.id])?;
            for parent in &parents {
                change.execute(
                    "insert into edge (parent, child) select id, ?2 from job where id = ?1",
                    [*parent, job.id],
                )?;
            }
            serde_json::to_string(&parents).expect("numbers always serialise")
        }
        None => job.parents.clone(),
    };
    let states = change.all(
        "select job.state from edge join job on job.id = edge.parent where edge.child = ?1",
        [job.id],
        |row| state(row, 0),
    )?;
    let lax = options.lax.unwrap_or(job.lax);
    let open = states.into_iter().filter(|state| rules::is_edge_open(Some(*state), lax)).count();
    Ok((parents, open as i64))
}

/// Deletes a job.
pub(super) fn remove(change: &mut Change<'_>, id: i64) -> Result<(), QueueError> {
    let job = change.job(id)?;
    rules::may_remove(id, job.state)?;
    change.delete(EventType::Removed, &job)
}
