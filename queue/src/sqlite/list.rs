//! One piece of a list of jobs. What the statement cannot look into (paths, texts) is judged here, job by job.

use super::change::now_micros;
use super::failure::failure;
use super::read::raw;
use super::row::{COLUMNS, Job};
use crate::error::QueueError;
use crate::filter::JobFilter;
use crate::listing::Piece;
use jiff::Timestamp;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, params_from_iter};
use serde::Serialize;

/// Looks at `step` jobs at most, and gives no more than the filter says.
pub(super) fn piece(conn: &Connection, filter: &JobFilter, step: u32) -> Result<Piece, QueueError> {
    let run = || -> rusqlite::Result<Piece> {
        // one transaction, so that the piece ends where it was measured
        let transaction = conn.unchecked_transaction()?;
        let low = if filter.ids.is_empty() && !filter.shows_all() {
            last_of_piece(&transaction, filter, step)?
        } else {
            None
        };
        let (sql, params) = piece_sql(filter, low);
        let mut statement = transaction.prepare_cached(&sql)?;
        let mut rows = statement.query(params_from_iter(&params))?;
        let (mut piece, mut bytes, mut last) = (Piece { jobs: Vec::new(), full: None, low }, 0, None);
        while let Some(row) = rows.next()? {
            let job = Job::read(row)?;
            if !says(&job, filter) {
                continue;
            }
            if piece.jobs.len() == filter.limit as usize || bytes >= filter.bytes_max && last.is_some() {
                piece.full = last;
                break;
            }
            let snapshot = job.snapshot();
            bytes += snapshot.len();
            last = Some(job.id);
            piece.jobs.push(raw(snapshot));
        }
        Ok(piece)
    };
    run().map_err(|e| failure("list jobs", e))
}

/// The last job of a piece of so many; nothing when there are no more than these.
fn last_of_piece(conn: &Connection, filter: &JobFilter, step: u32) -> rusqlite::Result<Option<i64>> {
    let (below, place) = (filter.before.unwrap_or(i64::MAX), i64::from(step) - 1);
    let (by, origin) = match filter.origin {
        Some(origin) => ("indexed by job_origin where origin = ?3 and", origin),
        None => ("where ?3 is not null and", 0),
    };
    let sql = format!("select id from job {by} id < ?1 order by id desc limit 1 offset ?2");
    conn.prepare_cached(&sql)?.query_row([below, place, origin], |row| row.get(0)).optional()
}

/// What a statement cannot ask.
fn says(job: &Job, filter: &JobFilter) -> bool {
    let args = job.args_shown.as_ref().unwrap_or(&job.args);
    let has = |text: &str| {
        let parts = [&job.task, args, &job.notes];
        let mut parts = parts.into_iter().chain(&job.error);
        parts.any(|part| part.to_ascii_lowercase().contains(text))
    };
    filter.args_at.iter().all(|at| at.stands_in(args))
        && filter.notes_at.iter().all(|at| at.stands_in(&job.notes))
        && filter.text.as_ref().is_none_or(|text| has(text))
}

fn piece_sql(filter: &JobFilter, low: Option<i64>) -> (String, Vec<Value>) {
    // Whatever the planner thinks: a cascade lies together in its index, in the order of the page; all else is walked by the key,
    // since any other index would have to be read to its end and sorted before the first job of a piece.
    let by = if filter.origin.is_some() && filter.ids.is_empty() {
        "indexed by job_origin"
    } else {
        "not indexed"
    };
    let mut sql = format!("select {COLUMNS} from job {by} where true");
    let mut params = Vec::new();
    let mut term = |text: &str, value: Value| {
        params.push(value);
        sql.push_str(&text.replace("{}", &format!("?{}", params.len())));
    };
    if let Some(before) = filter.before {
        term(" and id < {}", before.into());
    }
    if let Some(low) = low {
        term(" and id >= {}", low.into());
    }
    if !filter.states.is_empty() {
        term(" and state in (select value from json_each({}))", json(&filter.states));
    }
    if !filter.phases.is_empty() {
        let phase = " and state = 'inactive'
            and case when open_edges > 0 then 'blocked' when coalesce(later, 0) > {} then 'delayed' else 'ready' end";
        term(phase, now_micros().into());
        term(" in (select value from json_each({}))", json(&filter.phases));
    }
    if !filter.tasks.is_empty() {
        term(" and task in (select value from json_each({}))", json(&filter.tasks));
    }
    if !filter.queues.is_empty() {
        term(" and queue in (select value from json_each({}))", json(&filter.queues));
    }
    if !filter.ids.is_empty() {
        term(" and id in (select value from json_each({}))", json(&filter.ids));
    }
    if let Some(origin) = filter.origin {
        term(" and origin = {}", origin.into());
    }
    for name in &filter.notes {
        term(" and exists (select 1 from json_each(notes) where key = {})", name.clone().into());
    }
    let times = [
        (" and created >= {}", filter.enqueued.after),
        (" and created < {}", filter.enqueued.before),
        (" and finished >= {}", filter.ended.after),
        (" and finished < {}", filter.ended.before),
    ];
    for (condition, at) in times {
        if let Some(at) = at.map(Timestamp::as_microsecond) {
            term(condition, at.into());
        }
    }
    sql.push_str(" order by id desc");
    (sql, params)
}

fn json(words: &impl Serialize) -> Value {
    serde_json::to_string(words).expect("words always serialise").into()
}
