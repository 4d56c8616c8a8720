//! Enqueueing: all or none, each with its key, its parents and its event.

use super::change::Change;
use super::row::{Job, state};
use super::{limits, masks};
use crate::error::QueueError;
use crate::metrics::JOBS_ENQUEUED;
use crate::rules;
use crate::store::Enqueued;
use crate::workflow;
use minium_protocol::{EnqueueRequest, EventType, State, Unique};
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
    let mut made: Vec<Option<Enqueued>> = vec![None; requests.len()];
    for place in workflow::order(requests)? {
        let request = &requests[place];
        let after: Vec<i64> = request.options.after.iter().filter_map(|p| made[*p].map(|e| e.id)).collect();
        made[place] = Some(enqueue_one(change, request, newest, &after)?);
    }
    Ok(made.into_iter().flatten().collect())
}

fn enqueue_one(
    change: &mut Change<'_>,
    request: &EnqueueRequest,
    newest: i64,
    after: &[i64],
) -> Result<Enqueued, QueueError> {
    if let Some(key) = &request.options.key
        && let Some(id) = holder(change, &request.task, key)?
    {
        return Ok(Enqueued { id, existing: true });
    }
    // what this call itself creates does not count as a parent by its id, which can only have been guessed
    let known = request.options.parents.iter().copied().filter(|id| *id <= newest);
    let known: Vec<i64> = known.chain(after.iter().copied()).collect();
    let all: Vec<i64> = request.options.parents.iter().chain(after).copied().collect();
    let mut job = new_job(change.now, request, &rules::distinct_parents(&all));
    job.args_shown = masks::shown(change, &job.task, &job.args)?;
    job.limited = limits::limit_of(change, &job.task)?;
    if job.limited.is_some() {
        job.part.get_or_insert_default();
    }
    let parents = living_parents(change, &rules::distinct_parents(&known))?;
    let open = parents.iter().filter(|p| rules::is_edge_open(Some(p.1), job.lax)).count() as i64;
    job.open_edges = if job.on_failure { 1 } else { open };
    let later = (job.delayed > change.now).then_some(job.delayed);
    let ready = later.is_none() && job.open_edges == 0;
    let seq = if ready { change.draw()? } else { 0 };
    job.id = insert(change, &job, later, ready, seq)?;
    if let Some(key) = &job.key {
        let until = job.unique_us.filter(|us| *us > 0).map(|us| change.now + us);
        let sql = "insert into job_key (task, key, job, waiting, until) values (?1, ?2, ?3, ?4, ?5)";
        change.execute(sql, params![job.task, key, job.id, job.unique_us == Some(0), until])?;
    }
    for (parent, _) in &parents {
        change.execute("insert into edge (parent, child) values (?1, ?2)", [*parent, job.id])?;
    }
    change.moved(job.id, None, Some(State::Inactive))?;
    change.event(EventType::Enqueue, &job, None)?;
    change.count(JOBS_ENQUEUED, &job, None);
    if job.on_failure {
        change.judge_at_the_end(job.id);
    }
    Ok(Enqueued { id: job.id, existing: false })
}

/// Which job holds a key. One that was held for a time that is over, by a job that has ended, is let go.
pub(super) fn holder(change: &Change<'_>, task: &str, key: &str) -> Result<Option<i64>, QueueError> {
    change.execute(
        "delete from job_key where task = ?1 and key = ?2 and until <= ?3
            and not exists (select 1 from job where id = job_key.job and state in ('inactive', 'active'))",
        params![task, key, change.now],
    )?;
    let sql = "select job from job_key where task = ?1 and key = ?2";
    change.first(sql, params![task, key], |row| row.get(0))
}

fn new_job(now: i64, request: &EnqueueRequest, parents: &[i64]) -> Job {
    let o = &request.options;
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
        trace: o.trace.as_ref().map(|trace| trace.as_text().to_owned()),
        timeout: o.timeout.map(rules::micros),
        backoff: o.backoff.map(rules::micros),
        open_edges: 0,
        parents: serde_json::to_string(parents).expect("numbers always serialise"),
        notes: serde_json::to_string(&*rules::storable_notes(&o.notes))
            .expect("a JSON object always serialises"),
        progress: None,
        error: None,
        result: None,
        args: rules::one_line(request.args.get()).into_owned(),
        args_shown: None,
        unique_us: match o.unique {
            Unique::Alive => None,
            Unique::Waiting => Some(0),
            Unique::For(span) => Some(rules::micros(span).max(1)),
        },
        on_failure: o.on_failure,
        limited: None,
        part: o.partition.clone(),
    }
}

/// The parents that are there, and their states.
fn living_parents(change: &Change<'_>, parents: &[i64]) -> Result<Vec<(i64, State)>, QueueError> {
    let mut found = Vec::new();
    for id in parents {
        let parent = change.first("select state from job where id = ?1", [id], |row| state(row, 0))?;
        found.extend(parent.map(|state| (*id, state)));
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
                 args_shown, unique_us, on_failure, limited, part)
               values (?1, ?2, ?3, ?4, 'inactive', ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18,
                 ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26)
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
        job.unique_us.filter(|_| job.key.is_some()),
        job.on_failure.then_some(true),
        job.limited,
        job.part,
    ];
    let id = change.first(sql, params, |row| row.get(0))?;
    Ok(id.expect("an insert that returns answers one row"))
}
