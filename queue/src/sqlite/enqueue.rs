//! Enqueueing: all or none, each with its key, its parents and its event.

use super::change::Change;
use super::masks;
use super::row::{Job, state};
use crate::error::QueueError;
use crate::metrics::JOBS_ENQUEUED;
use crate::rules;
use crate::store::Enqueued;
use minium_protocol::{EnqueueRequest, EventType, State};
use rusqlite::params;

/// Enqueues checked requests.
pub(super) fn enqueue(
    change: &mut Change<'_>,
    requests: &[EnqueueRequest],
) -> Result<Vec<Enqueued>, QueueError> {
    let newest = if requests.iter().any(|r| !r.options.parents.is_empty()) {
        change.first("select coalesce(max(id), 0) from job", [], |row| row.get(0))?.unwrap_or(0)
    } else {
        0
    };
    requests.iter().map(|request| enqueue_one(change, request, newest)).collect()
}

fn enqueue_one(
    change: &mut Change<'_>,
    request: &EnqueueRequest,
    newest: i64,
) -> Result<Enqueued, QueueError> {
    if let Some(key) = &request.options.key {
        let sql = "select job from job_key where task = ?1 and key = ?2";
        if let Some(id) = change.first(sql, params![request.task, key], |row| row.get(0))? {
            return Ok(Enqueued { id, existing: true });
        }
    }
    let mut job = new_job(change.now, request);
    job.args_shown = masks::shown(change, &job.task, &job.args)?;
    let parents = living_parents(change, &job, &request.options.parents, newest)?;
    job.open_edges = parents.iter().filter(|p| rules::is_edge_open(Some(p.1), job.lax)).count() as i64;
    let later = (job.delayed > change.now).then_some(job.delayed);
    let ready = later.is_none() && job.open_edges == 0;
    let seq = if ready { change.draw()? } else { 0 };
    job.id = insert(change, &job, later, ready, seq)?;
    if let Some(key) = &job.key {
        let sql = "insert into job_key (task, key, job) values (?1, ?2, ?3)";
        change.execute(sql, params![job.task, key, job.id])?;
    }
    for (parent, _) in &parents {
        change.execute("insert into edge (parent, child) values (?1, ?2)", [*parent, job.id])?;
    }
    change.moved(job.id, None, Some(State::Inactive))?;
    change.event(EventType::Enqueue, &job, None)?;
    change.count(JOBS_ENQUEUED, &job, None);
    Ok(Enqueued { id: job.id, existing: false })
}

fn new_job(now: i64, request: &EnqueueRequest) -> Job {
    let o = &request.options;
    let parents = rules::distinct_parents(&o.parents);
    Job {
        id: 0,
        task: request.task.clone(),
        queue: o.queue.clone(),
        state: State::Inactive,
        priority: o.priority,
        attempt: 0,
        attempts: o.attempts,
        retries: 0,
        lax: o.lax,
        key: o.key.clone(),
        schedule: o.schedule.clone(),
        worker: None,
        origin: o.origin,
        created: now,
        delayed: now + rules::micros(o.delay),
        expires: o.expire.map(|e| now + rules::micros(e)),
        started: None,
        finished: None,
        retried: None,
        lease: None,
        trace: o.trace.as_deref().map(|t| rules::storable(t).into_owned()),
        timeout: o.timeout.map(rules::micros),
        backoff: o.backoff.map(rules::micros),
        open_edges: 0,
        parents: serde_json::to_string(&parents).expect("numbers always serialise"),
        notes: serde_json::to_string(&*rules::storable_notes(&o.notes))
            .expect("a JSON object always serialises"),
        progress: None,
        error: None,
        result: None,
        args: rules::one_line(request.args.get()).into_owned(),
        args_shown: None,
    }
}

/// The parents that are there, and their states. What this call itself creates does not count: its ids can only have
/// been guessed.
fn living_parents(
    change: &Change<'_>,
    job: &Job,
    parents: &[i64],
    newest: i64,
) -> Result<Vec<(i64, State)>, QueueError> {
    debug_assert_eq!(job.id, 0, "a job is no parent of itself");
    let mut found = Vec::new();
    for id in rules::distinct_parents(parents).into_iter().filter(|id| *id <= newest) {
        let parent = change.first("select state from job where id = ?1", [id], |row| state(row, 0))?;
        found.extend(parent.map(|state| (id, state)));
    }
    Ok(found)
}

fn insert(
    change: &Change<'_>,
    job: &Job,
    later: Option<i64>,
    ready: bool,
    seq: i64,
) -> Result<i64, QueueError> {
    let sql = "insert into job (seq, ready, open_edges, later, state, priority, attempts, lax, origin, created,
                 delayed, expires, timeout, backoff, queue, task, key, schedule, trace, parents, notes, args,
                 args_shown)
               values (?1, ?2, ?3, ?4, 'inactive', ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18,
                 ?19, ?20, ?21, ?22)
               returning id";
    let params = params![
        seq,
        ready,
        job.open_edges,
        later,
        job.priority,
        job.attempts,
        job.lax,
        job.origin,
        job.created,
        job.delayed,
        job.expires,
        job.timeout,
        job.backoff,
        job.queue,
        job.task,
        job.key,
        job.schedule,
        job.trace,
        job.parents,
        job.notes,
        job.args,
        job.args_shown,
    ];
    let id = change.first(sql, params, |row| row.get(0))?;
    Ok(id.expect("an insert that returns answers one row"))
}
