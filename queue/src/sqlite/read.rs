//! What is only asked: one job, figures.

use super::change::{HOUR, now_micros};
use super::failure::failure;
use super::row::{COLUMNS, Job, state, timestamp};
use super::workers;
use crate::error::QueueError;
use crate::rules;
use crate::store::{AttemptFailure, Hour, Stats};
use minium_protocol::{JobResult, JobView};
use rusqlite::{Connection, OptionalExtension};
use serde_json::value::RawValue;

/// One job.
pub(super) fn get(conn: &Connection, id: i64) -> Result<Option<JobView>, QueueError> {
    let run = || -> rusqlite::Result<Option<JobView>> {
        // one transaction, so that job and children are of one moment
        let transaction = conn.unchecked_transaction()?;
        let sql = format!("select {COLUMNS}, later from job where id = ?1");
        let read = |row: &rusqlite::Row<'_>| Ok((Job::read(row)?, row.get("later")?));
        let job = transaction.prepare_cached(&sql)?.query_row([id], read).optional()?;
        let Some((job, later)) = job else { return Ok(None) };
        let children = transaction
            .prepare_cached("select child from edge where parent = ?1 order by child")?
            .query_map([id], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        // one that is ready stays so when the clock is put back to before its time
        let later: Option<i64> = later;
        let phase = rules::phase(job.state, job.open_edges, later.unwrap_or(0), now_micros());
        Ok(Some(JobView { snapshot: raw(job.snapshot()), phase, children }))
    };
    run().map_err(|e| failure("read a job", e))
}

/// Figures. Jobs by state are kept by the changes; only those that wait are counted.
pub(super) fn stats(conn: &Connection) -> Result<Stats, QueueError> {
    let sql = "select
        (select n from tally where name = 'inactive'), (select n from tally where name = 'active'),
        (select n from tally where name = 'finished'), (select n from tally where name = 'failed'),
        (select n from tally where name = 'cancelled'),
        (select count(*) from job indexed by job_blocked where state = 'inactive' and open_edges > 0),
        (select count(*) from job indexed by job_later where later > ?1 and open_edges = 0),
        coalesce((select seq from sqlite_sequence where name = 'job'), 0),
        (select count(*) from lock where until > ?1),
        (select count(*) from schedule where request is not null),
        (select count(*) from schedule where request is not null and paused)";
    let now = now_micros();
    let run = || {
        let [active_workers, inactive_workers, stale_workers, own_workers] = workers::count(conn)?;
        conn.prepare_cached(sql)?.query_row([now], |row| {
            Ok(Stats {
                inactive: row.get(0)?,
                active: row.get(1)?,
                finished: row.get(2)?,
                failed: row.get(3)?,
                cancelled: row.get(4)?,
                blocked: row.get(5)?,
                delayed: row.get(6)?,
                workers: active_workers + inactive_workers,
                active_workers,
                inactive_workers,
                stale_workers,
                own_workers,
                enqueued: row.get(7)?,
                active_locks: row.get(8)?,
                schedules: row.get(9)?,
                inactive_schedules: row.get(10)?,
            })
        })
    };
    run().map_err(|e| failure("count jobs", e))
}

/// What jobs have brought, until they have so many bytes together.
pub(super) fn results(
    conn: &Connection,
    jobs: &[i64],
    bytes_max: usize,
) -> Result<Vec<JobResult>, QueueError> {
    let sql = "select state, result, error from job where id = ?1";
    let run = || {
        // one transaction, so that all of it is of one moment
        let transaction = conn.unchecked_transaction()?;
        let mut statement = transaction.prepare_cached(sql)?;
        let (mut results, mut bytes) = (Vec::with_capacity(jobs.len()), 0);
        for &id in jobs {
            if bytes >= bytes_max && !results.is_empty() {
                break;
            }
            let found = statement.query_row([id], |row| {
                let (result, error): (Option<String>, Option<String>) = (row.get(1)?, row.get(2)?);
                Ok(JobResult { id, state: Some(state(row, 0)?), result: result.map(raw), error })
            });
            let gone = || JobResult { id, state: None, result: None, error: None };
            let job = found.optional()?.unwrap_or_else(gone);
            bytes +=
                job.result.as_ref().map_or(0, |r| r.get().len()) + job.error.as_ref().map_or(0, String::len);
            results.push(job);
        }
        Ok(results)
    };
    run().map_err(|e| failure("read what jobs have brought", e))
}

/// Why the runs of a job failed.
pub(super) fn failures(conn: &Connection, id: i64) -> Result<Vec<AttemptFailure>, QueueError> {
    let sql = "select attempt, at, worker, error, backtrace from failure where job = ?1 order by attempt";
    let run = || {
        let mut statement = conn.prepare_cached(sql)?;
        let rows = statement.query_map([id], |row| {
            let worker: Option<String> = row.get(2)?;
            Ok(AttemptFailure {
                attempt: row.get(0)?,
                at: timestamp(row.get(1)?),
                worker: worker.and_then(|json| serde_json::from_str(&json).ok()),
                error: row.get(3)?,
                backtrace: row.get(4)?,
            })
        })?;
        rows.collect::<rusqlite::Result<Vec<_>>>()
    };
    run().map_err(|e| failure("read why a job failed", e))
}

/// What each of the last hours brought.
pub(super) fn hours(conn: &Connection) -> Result<Vec<Hour>, QueueError> {
    let sql = "with recursive wanted (hour, n) as (
                 values (?1, 1) union all select hour - ?2, n + 1 from wanted where n < ?3)
               select w.hour, coalesce(h.finished, 0), coalesce(h.failed, 0), coalesce(h.cancelled, 0)
                 from wanted w left join hour h on h.hour = w.hour order by w.hour";
    let now = now_micros().div_euclid(HOUR) * HOUR;
    let run = || {
        let mut statement = conn.prepare_cached(sql)?;
        let rows = statement.query_map([now, HOUR, i64::from(rules::HOURS_TOLD)], |row| {
            Ok(Hour {
                hour: timestamp(row.get(0)?),
                finished: row.get(1)?,
                failed: row.get(2)?,
                cancelled: row.get(3)?,
            })
        })?;
        rows.collect::<rusqlite::Result<Vec<_>>>()
    };
    run().map_err(|e| failure("read what each hour brought", e))
}

pub(super) fn raw(json: String) -> Box<RawValue> {
    RawValue::from_string(json).expect("snapshots and results are JSON")
}
