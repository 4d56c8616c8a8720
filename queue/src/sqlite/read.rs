//! What is only asked: one job, a page of jobs, figures.

use super::change::now_micros;
use super::failure::failure;
use super::row::{COLUMNS, Job};
use super::workers;
use crate::error::QueueError;
use crate::rules;
use crate::store::{JobFilter, JobPage, Stats};
use minium_protocol::JobView;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, params_from_iter};
use serde::Serialize;
use serde_json::value::RawValue;

/// One job.
pub(super) fn get(conn: &Connection, id: i64) -> Result<Option<JobView>, QueueError> {
    let run = || -> rusqlite::Result<Option<JobView>> {
        // one transaction, so that job and children are of one moment
        let transaction = conn.unchecked_transaction()?;
        let sql = format!("select {COLUMNS} from job where id = ?1");
        let job = transaction.prepare_cached(&sql)?.query_row([id], Job::read).optional()?;
        let Some(job) = job else { return Ok(None) };
        let children = transaction
            .prepare_cached("select child from edge where parent = ?1 order by child")?
            .query_map([id], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        let phase = rules::phase(job.state, job.open_edges, job.delayed, now_micros());
        Ok(Some(JobView { snapshot: raw(job.snapshot()), phase, children }))
    };
    run().map_err(|e| failure("read a job", e))
}

/// A page of jobs, newest first. It walks the ids downwards, so a filter that few jobs pass is slow on many jobs.
pub(super) fn list(conn: &Connection, filter: &JobFilter) -> Result<JobPage, QueueError> {
    let limit = filter.limit.clamp(1, rules::PAGE_MAX) as usize;
    let (sql, params) = list_sql(filter, limit + 1);
    let run = || -> rusqlite::Result<JobPage> {
        let mut statement = conn.prepare_cached(&sql)?;
        let mut rows = statement.query(params_from_iter(&params))?;
        let (mut jobs, mut bytes, mut last) = (Vec::new(), 0, None);
        while let Some(row) = rows.next()? {
            if jobs.len() == limit || bytes >= filter.bytes_max && last.is_some() {
                return Ok(JobPage { jobs, next: last });
            }
            let job = Job::read(row)?;
            let snapshot = job.snapshot();
            bytes += snapshot.len();
            last = Some(job.id);
            jobs.push(raw(snapshot));
        }
        Ok(JobPage { jobs, next: None })
    };
    run().map_err(|e| failure("list jobs", e))
}

fn list_sql(filter: &JobFilter, limit: usize) -> (String, Vec<Value>) {
    let mut sql = format!("select {COLUMNS} from job where true");
    let mut params = Vec::new();
    let mut term = |text: &str, value: Value| {
        params.push(value);
        sql.push_str(&text.replace("{}", &format!("?{}", params.len())));
    };
    if let Some(before) = filter.before {
        term(" and id < {}", before.into());
    }
    if !filter.states.is_empty() {
        term(" and state in (select value from json_each({}))", json(&filter.states));
    }
    if !filter.tasks.is_empty() {
        term(" and task in (select value from json_each({}))", json(&filter.tasks));
    }
    if !filter.queues.is_empty() {
        term(" and queue in (select value from json_each({}))", json(&filter.queues));
    }
    for name in &filter.notes {
        term(" and exists (select 1 from json_each(notes) where key = {})", name.clone().into());
    }
    term(" order by id desc limit {}", i64::try_from(limit).unwrap_or(i64::MAX).into());
    (sql, params)
}

fn json(words: &impl Serialize) -> Value {
    serde_json::to_string(words).expect("words always serialise").into()
}

/// Figures. Jobs by state are kept by the changes; only those that wait are counted.
pub(super) fn stats(conn: &Connection) -> Result<Stats, QueueError> {
    let sql = "select
        (select n from tally where name = 'inactive'), (select n from tally where name = 'active'),
        (select n from tally where name = 'finished'), (select n from tally where name = 'failed'),
        (select n from tally where name = 'cancelled'),
        (select count(*) from job indexed by job_blocked where state = 'inactive' and open_edges > 0),
        (select count(*) from job indexed by job_later where later > ?1 and open_edges = 0)";
    let now = now_micros();
    let run = || {
        let [active_workers, inactive_workers, stale_workers] = workers::count(conn)?;
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
            })
        })
    };
    run().map_err(|e| failure("count jobs", e))
}

fn raw(snapshot: String) -> Box<RawValue> {
    RawValue::from_string(snapshot).expect("a snapshot is made of JSON")
}
