//! The hot path: hands outcomes in and claims more, in one commit.

use super::capped;
use super::change::Change;
use super::limits::{self, Candidate, Wanted};
use super::queues;
use super::row::{Job, state, timestamp};
use crate::error::QueueError;
use crate::metrics::{JOBS_FINISHED, tells_wait};
use crate::rules::{self, Aftermath, Hold, Standing};
use crate::store::{Claim, Ending, Exchanged, Extension, Leased, Outcome, Verdict};
use minium_protocol::{EventType, LeaseToken, State, TraceContext};
use rusqlite::params;
use serde_json::value::RawValue;
use std::time::Duration;

/// So many places of a queue are looked at for some tasks, besides those that could be taken.
const PLACES: i64 = 1_000;

/// Outcomes first, in their order; then the claims. What is claimed was chosen before: an outcome that makes a job
/// ready does so for the next call.
pub(super) fn exchange(
    change: &mut Change<'_>,
    outcomes: &[Outcome],
    claim: &Claim,
) -> Result<Exchanged, QueueError> {
    let chosen = if claim.caps.is_empty() { choose(change, claim)? } else { capped::choose(change, claim)? };
    let verdicts = outcomes.iter().map(|o| settle(change, o)).collect::<Result<_, _>>()?;
    let worker = serde_json::to_string(&claim.worker).expect("a worker always serialises");
    let jobs =
        chosen.into_iter().map(|id| take(change, id, &worker, claim.lease)).collect::<Result<_, _>>()?;
    Ok(Exchanged { verdicts, jobs, slowed: false })
}

/// The jobs to claim, in claim order. Each queue is read by its index alone as far as the limit, then they are merged, with
/// those whose limits have room.
fn choose(change: &mut Change<'_>, claim: &Claim) -> Result<Vec<i64>, QueueError> {
    let limit = claim.limit.min(rules::CLAIM_MAX);
    if limit == 0 {
        return Ok(Vec::new());
    }
    let wanted = Wanted {
        queues: queues::open(change, &claim.queues)?,
        tasks: claim.tasks.as_ref().map(|t| serde_json::to_string(t).expect("names always serialise")),
        least: claim.min_priority.unwrap_or(i32::MIN),
        limit: limit as usize,
    };
    let mut found = unlimited(change, &wanted)?;
    found.extend(limits::candidates(change, &wanted)?);
    found.sort_by_key(|c| (std::cmp::Reverse(c.priority), c.seq));
    if let Some(span) = claim.aged {
        // what has waited long goes before all others, the longest first
        let mut first = Vec::new();
        for lane in waiting_longest(change, &wanted, span)? {
            first.extend(of_lane(change, &wanted, &lane)?);
        }
        found.retain(|c| first.iter().all(|f: &Candidate| f.id != c.id));
        first.extend(found);
        found = first;
    }
    found.truncate(wanted.limit);
    limits::note_taken(change, &found)?;
    Ok(found.into_iter().map(|c| c.id).collect())
}

/// Those that no limit holds back, as many of each queue as could be taken.
fn unlimited(change: &Change<'_>, wanted: &Wanted) -> Result<Vec<Candidate>, QueueError> {
    const READY: &str = "select priority, seq, id from job indexed by job_ready
         where ready and limited is null and queue = ?1 and priority >= ?2
           and (expires is null or attempt > 0 or expires > ?3)
         order by priority desc, seq limit ?4";
    if let Some(tasks) = &wanted.tasks {
        return of_tasks(change, wanted, tasks);
    }
    let mut found = Vec::new();
    for queue in &wanted.queues {
        let params = params![queue, wanted.least, change.now, count(wanted.limit)];
        found.extend(change.all(READY, params, candidate)?);
    }
    Ok(found)
}

/// Those of some tasks: from the next places of a queue, where most of what is ready may be theirs; and if that is not enough,
/// task by task behind those places, so that what others have waiting there is not walked over.
fn of_tasks(change: &Change<'_>, wanted: &Wanted, tasks: &str) -> Result<Vec<Candidate>, QueueError> {
    const NEXT: &str = "
        select priority, seq, id from (
          select priority, seq, id, task, expires, attempt from job indexed by job_ready
           where ready and limited is null and queue = ?1 and priority >= ?2
           order by priority desc, seq limit ?5)
         where task in (select value from json_each(?6)) and (expires is null or attempt > 0 or expires > ?3)
         order by priority desc, seq limit ?4";
    const LAST: &str = "select priority, seq from job indexed by job_ready
         where ready and limited is null and queue = ?1 and priority >= ?2
         order by priority desc, seq limit 1 offset ?3 - 1";
    const BEHIND: &str = "select priority, seq, id from job indexed by job_ready_task
         where ready and limited is null and task = ?1 and queue = ?2 and priority between ?3 and ?4
           and (priority < ?4 or seq > ?5) and (expires is null or attempt > 0 or expires > ?6)
         order by priority desc, seq limit ?7";
    let places = count(wanted.limit).saturating_add(PLACES);
    let mut found = Vec::new();
    for queue in &wanted.queues {
        let params = params![queue, wanted.least, change.now, count(wanted.limit), places, tasks];
        let next = change.all(NEXT, params, candidate)?;
        let missing = wanted.limit.saturating_sub(next.len());
        found.extend(next);
        if missing == 0 {
            continue;
        }
        let place = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i32>(0)?, row.get::<_, i64>(1)?));
        let Some((priority, seq)) = change.first(LAST, params![queue, wanted.least, places], place)? else {
            continue;
        };
        let names: Vec<String> = serde_json::from_str(tasks).expect("they were written here");
        for task in names {
            let params = params![task, queue, wanted.least, priority, seq, change.now, count(missing)];
            found.extend(change.all(BEHIND, params, candidate)?);
        }
    }
    Ok(found)
}

fn candidate(row: &rusqlite::Row<'_>) -> rusqlite::Result<Candidate> {
    Ok(Candidate { priority: row.get(0)?, seq: row.get(1)?, id: row.get(2)?, limited: None })
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// Those of one queue and priority, as many as could be taken.
fn of_lane(
    change: &Change<'_>,
    wanted: &Wanted,
    (queue, priority): &(String, i32),
) -> Result<Vec<Candidate>, QueueError> {
    const SQL: &str = "select seq, id from job indexed by job_ready
         where ready and limited is null and queue = ?1 and priority = ?2
           and (expires is null or attempt > 0 or expires > ?3)
           and (?4 is null or task in (select value from json_each(?4)))
         order by seq limit ?5";
    change.all(SQL, params![queue, priority, change.now, wanted.tasks, count(wanted.limit)], |row| {
        let (seq, id) = (row.get(0)?, row.get(1)?);
        Ok(Candidate { priority: *priority, seq, id, limited: None })
    })
}

/// Queues and priorities whose first job has been ready for so long, the longest waiting first. Index: job_ready, from
/// priority to priority.
fn waiting_longest(
    change: &Change<'_>,
    wanted: &Wanted,
    aged: Duration,
) -> Result<Vec<(String, i32)>, QueueError> {
    const HEADS: &str = "
        with recursive lane (priority) as (
          select max(priority) from job indexed by job_ready where ready and limited is null and queue = ?1
          union all
          select (select max(priority) from job indexed by job_ready
                   where ready and limited is null and queue = ?1 and priority < lane.priority)
            from lane where lane.priority is not null)
        select lane.priority,
               (select seq from job indexed by job_ready
                 where ready and limited is null and queue = ?1 and priority = lane.priority order by seq limit 1) as head,
               (select delayed from job indexed by job_ready
                 where ready and limited is null and queue = ?1 and priority = lane.priority order by seq limit 1) as since
          from lane where lane.priority >= ?2 and since <= ?3";
    let mut heads: Vec<(i64, String, i32)> = Vec::new();
    for queue in &wanted.queues {
        let before = change.now.saturating_sub(rules::micros(aged));
        heads.extend(change.all(HEADS, params![queue, wanted.least, before], |row| {
            Ok((row.get(1)?, queue.clone(), row.get(0)?))
        })?);
    }
    heads.sort();
    Ok(heads.into_iter().map(|(_, queue, priority)| (queue, priority)).collect())
}

fn take(change: &mut Change<'_>, id: i64, worker: &str, lease: Duration) -> Result<Leased, QueueError> {
    claim(change, id, worker, lease).map(|(leased, _)| leased)
}

/// Claims one job that is ready. Answers it with its row as it stands then.
pub(super) fn claim(
    change: &mut Change<'_>,
    id: i64,
    worker: &str,
    lease: Duration,
) -> Result<(Leased, Job), QueueError> {
    let token = LeaseToken::fresh();
    let now = change.now;
    let until = now + rules::micros(lease);
    let job = change.update(
        EventType::Dequeue,
        "state = 'active', ready = 0, attempt = attempt + 1, started = ?2, worker = ?3, lease = ?4, progress = null",
        params![id, now, worker, token.to_string()],
    )?;
    change.execute("insert or replace into renewal (job, until) values (?1, ?2)", [id, until])?;
    if job.key.is_some() && job.unique_us == Some(0) {
        change.execute("delete from job_key where waiting and job = ?1", [id])?;
    }
    change.moved(id, Some(State::Inactive), Some(State::Active))?;
    if tells_wait(job.attempt, job.parents != "[]") {
        change.note_wait(&job);
    }
    let leased = Leased {
        id,
        attempt: job.attempt,
        attempts: job.attempts,
        lease: token,
        lease_expires: timestamp(until),
        timeout: job.timeout.map(|t| Duration::from_micros(t.unsigned_abs())),
        args: RawValue::from_string(job.args.clone()).expect("arguments were JSON when they came in"),
        task: job.task.clone(),
        trace: job.trace.as_deref().and_then(TraceContext::from_text),
        queue: job.queue.clone(),
        priority: job.priority,
        notes: if job.notes == "{}" { Default::default() } else { read("notes", &job.notes) },
        parents: if job.parents == "[]" { Vec::new() } else { read("parents", &job.parents) },
    };
    Ok((leased, job))
}

/// Reads a column that was written as JSON.
fn read<T: serde::de::DeserializeOwned>(column: &str, text: &str) -> T {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{column} were JSON when they were written: {e}"))
}

/// What a judgement needs of a job, without its wide columns.
struct Narrow {
    state: State,
    same_lease: bool,
    attempt: i32,
    attempts: i32,
    retries: i32,
    backoff: Option<i64>,
}

fn settle(change: &mut Change<'_>, outcome: &Outcome) -> Result<Verdict, QueueError> {
    let narrow = change.first(
        "select state, lease is ?2, attempt, attempts, retries, backoff from job where id = ?1",
        params![outcome.job, outcome.lease.to_string()],
        |row| {
            Ok(Narrow {
                state: state(row, 0)?,
                same_lease: row.get(1)?,
                attempt: row.get(2)?,
                attempts: row.get(3)?,
                retries: row.get(4)?,
                backoff: row.get(5)?,
            })
        },
    )?;
    let Some(narrow) = narrow else { return Ok(Verdict::LeaseLost) };
    if narrow.state == State::Active && narrow.same_lease {
        accept(change, outcome, &narrow)?;
        return Ok(Verdict::Accepted);
    }
    let job = change.job(outcome.job)?;
    let standing = Standing {
        state: job.state,
        same_lease: narrow.same_lease,
        result: job.result.as_deref(),
        error: job.error.as_deref(),
    };
    let verdict = rules::judge(Some(standing), &outcome.ending);
    if verdict == Verdict::LeaseLost {
        change.event(EventType::LateResult, &job, Some(&rules::late(outcome)))?;
    }
    Ok(verdict)
}

fn accept(change: &mut Change<'_>, outcome: &Outcome, narrow: &Narrow) -> Result<(), QueueError> {
    let (id, now) = (outcome.job, change.now);
    change.execute("delete from renewal where job = ?1", [id])?;
    let (job, after) = match &outcome.ending {
        Ending::Finished(result) => {
            let result = rules::result_text(result);
            let job = change.update(
                EventType::Finished,
                "state = 'finished', finished = ?2, result = ?3, error = null",
                params![id, now, result],
            )?;
            (job, State::Finished)
        }
        Ending::Failed { error, retry, pause, backtrace } => {
            let job = change.update(
                EventType::Failed,
                "state = 'failed', finished = ?2, error = ?3, result = null",
                params![id, now, rules::storable(error)],
            )?;
            note_failure(change, &job, backtrace.as_deref())?;
            match rules::after_failure(narrow.attempt, narrow.attempts, *retry) {
                Aftermath::Again => {
                    let own = narrow.backoff.map(|b| Duration::from_micros(b.unsigned_abs()));
                    let jitter = fastrand::f64() * 2.0 - 1.0;
                    let pause = rules::backoff(narrow.retries, own, *pause, jitter);
                    change.count_failure();
                    (wait_again(change, &job, pause)?, State::Inactive)
                }
                Aftermath::End => (job, State::Failed),
            }
        }
    };
    change.count(JOBS_FINISHED, &job, Some(if after == State::Finished { after } else { State::Failed }));
    change.release_place(&job)?;
    if after.is_ended() {
        change.release_key(&job)?;
    }
    change.moved(id, Some(State::Active), Some(after))
}

/// Keeps why a run failed. The job is as it stands right after it.
pub(super) fn note_failure(
    change: &Change<'_>,
    job: &Job,
    backtrace: Option<&str>,
) -> Result<(), QueueError> {
    let sql = "insert or ignore into failure (job, attempt, at, worker, error, backtrace) values (?1, ?2, ?3, ?4, ?5, ?6)";
    let backtrace = backtrace.map(rules::storable);
    let error = job.error.as_deref().unwrap_or_default();
    change.execute(sql, params![job.id, job.attempt, change.now, job.worker, error, backtrace])?;
    Ok(())
}

/// The automatic retry, right behind its failure.
fn wait_again(change: &mut Change<'_>, job: &Job, pause: Duration) -> Result<Job, QueueError> {
    let now = change.now;
    let delayed = now + rules::micros(pause);
    let later = (delayed > now).then_some(delayed);
    let ready = later.is_none() && job.open_edges == 0;
    let seq = if ready { change.draw()? } else { 0 };
    change.update(
        EventType::Retry,
        "state = 'inactive', retries = retries + 1, retried = ?2, delayed = ?3, finished = null, later = ?4,
         ready = ?5, seq = ?6",
        params![job.id, now, delayed, later, ready, seq],
    )
}

/// Is this the token that the job bears?
pub(super) fn same_lease(job: &Job, token: LeaseToken) -> bool {
    job.lease.as_deref() == Some(token.to_string().as_str())
}

/// Extends leases; no events.
pub(super) fn extend(
    change: &mut Change<'_>,
    leases: &[(i64, LeaseToken)],
    lease: Duration,
) -> Result<Vec<Extension>, QueueError> {
    let until = change.now + rules::micros(lease);
    let mut answers = Vec::with_capacity(leases.len());
    for (id, token) in leases {
        let found = change.first(
            "select state, lease is ?2 from job where id = ?1",
            params![id, token.to_string()],
            |row| Ok((state(row, 0)?, row.get(1)?)),
        )?;
        let (state, same) = found.map_or((None, false), |(state, same)| (Some(state), same));
        answers.push(match rules::hold(state, same) {
            Hold::Held => {
                change.execute("update renewal set until = ?2 where job = ?1", [*id, until])?;
                Extension::Until(timestamp(until))
            }
            Hold::Cancelled => Extension::Cancelled,
            Hold::Lost => Extension::Lost,
        });
    }
    Ok(answers)
}
