//! The hot path: hands outcomes in and claims more, in one commit.

use super::capped;
use super::change::Change;
use super::row::{Job, state, timestamp};
use crate::error::QueueError;
use crate::metrics::JOBS_FINISHED;
use crate::rules::{self, Aftermath, Hold, Standing};
use crate::store::{Claim, Ending, Exchanged, Extension, Leased, Outcome, Verdict};
use minium_protocol::{EventType, LeaseToken, State};
use rusqlite::params;
use serde_json::value::RawValue;
use std::time::Duration;

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
    Ok(Exchanged { verdicts, jobs })
}

/// The ids to claim, in claim order. Each queue is read by its index alone as far as the limit, then they are merged.
fn choose(change: &Change<'_>, claim: &Claim) -> Result<Vec<i64>, QueueError> {
    const WHERE: &str = "select priority, seq, id from job indexed by job_ready
         where ready and queue = ?1 and priority >= ?2
           and (expires is null or attempt > 0 or expires > ?3)";
    const ORDER: &str = "order by priority desc, seq limit ?4";
    let least = claim.min_priority.unwrap_or(i32::MIN);
    let tasks = claim.tasks.as_ref().map(|t| serde_json::to_string(t).expect("names always serialise"));
    let mut queues: Vec<&String> = claim.queues.iter().collect();
    queues.sort();
    queues.dedup();
    let mut found: Vec<(i32, i64, i64)> = Vec::new();
    let limit = claim.limit.min(rules::CLAIM_MAX);
    if limit == 0 {
        return Ok(Vec::new());
    }
    for queue in queues {
        let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        found.extend(match &tasks {
            None => {
                change.all(&format!("{WHERE} {ORDER}"), params![queue, least, change.now, limit], read)?
            }
            Some(tasks) => change.all(
                &format!("{WHERE} and task in (select value from json_each(?5)) {ORDER}"),
                params![queue, least, change.now, limit, tasks],
                read,
            )?,
        });
    }
    found.sort_by_key(|(priority, seq, _)| (std::cmp::Reverse(*priority), *seq));
    found.truncate(limit as usize);
    Ok(found.into_iter().map(|(_, _, id)| id).collect())
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
    change.moved(id, Some(State::Inactive), Some(State::Active))?;
    let leased = Leased {
        id,
        attempt: job.attempt,
        attempts: job.attempts,
        lease: token,
        lease_expires: timestamp(until),
        timeout: job.timeout.map(|t| Duration::from_micros(t.unsigned_abs())),
        args: RawValue::from_string(job.args.clone()).expect("arguments were JSON when they came in"),
        task: job.task.clone(),
        trace: job.trace.clone(),
        queue: job.queue.clone(),
    };
    Ok((leased, job))
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
        Ending::Failed { error, retry } => {
            let job = change.update(
                EventType::Failed,
                "state = 'failed', finished = ?2, error = ?3, result = null",
                params![id, now, rules::storable(error)],
            )?;
            match rules::after_failure(narrow.attempt, narrow.attempts, *retry) {
                Aftermath::Again => {
                    let own = narrow.backoff.map(|b| Duration::from_micros(b.unsigned_abs()));
                    let jitter = fastrand::f64() * 2.0 - 1.0;
                    let pause = rules::backoff(narrow.retries, own, jitter);
                    (wait_again(change, &job, pause)?, State::Inactive)
                }
                Aftermath::End => (job, State::Failed),
            }
        }
    };
    change.count(JOBS_FINISHED, &job, Some(if after == State::Finished { after } else { State::Failed }));
    if after.is_ended() {
        change.release_key(&job)?;
    }
    change.moved(id, Some(State::Active), Some(after))
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
