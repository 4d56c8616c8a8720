//! Limits: what runs under them is counted in a table, and claims take what has room. One writer at a time makes that exact.

use super::SqliteStore;
use super::change::Change;
use super::failure::failure;
use crate::error::QueueError;
use crate::limits::{Limit, LimitView, Limits, Rate, check_limits, filled};
use crate::rules;
use async_trait::async_trait;
use minium_protocol::levels;
use rusqlite::params;
use std::time::Duration;

/// So many parts of one limit and queue are looked at in one claim; the next begins behind them.
const PARTS_MAX: i64 = 256;
/// More limits than this are never in use.
const NAMES_MAX: i64 = 1_000;

/// What a claim may take.
pub(super) struct Wanted {
    /// From these queues, each once.
    pub(super) queues: Vec<String>,
    /// Of these tasks, as a JSON array; `None` is all.
    pub(super) tasks: Option<String>,
    /// Of this priority or higher.
    pub(super) least: i32,
    /// So many.
    pub(super) limit: usize,
}

/// A job that may be claimed.
pub(super) struct Candidate {
    pub(super) priority: i32,
    pub(super) seq: i64,
    pub(super) id: i64,
    /// The limit that it runs under, and which part of it.
    pub(super) limited: Option<(String, String)>,
}

struct Rule {
    running: Option<u32>,
    per_part: Option<u32>,
    rate: Option<Rate>,
    tokens: f64,
    turn: Option<String>,
}

/// The limit that a task's jobs run under.
pub(super) fn limit_of(change: &Change<'_>, task: &str) -> Result<Option<String>, QueueError> {
    if change.first("select 1 from limit_rule limit 1", [], |_| Ok(()))?.is_none() {
        return Ok(None);
    }
    for level in levels(task) {
        if change.first("select 1 from limit_rule where task = ?1", [level], |_| Ok(()))?.is_some() {
            return Ok(Some(level.to_owned()));
        }
    }
    Ok(None)
}

/// Jobs under limits that could all be claimed together, at most as many as are wanted of each limit.
pub(super) fn candidates(change: &Change<'_>, wanted: &Wanted) -> Result<Vec<Candidate>, QueueError> {
    let names = change.all(
        "with recursive name (limited) as (
           select min(limited) from job indexed by job_ready_limited where ready and limited is not null
           union all
           select (select min(limited) from job indexed by job_ready_limited
                    where ready and limited is not null and limited > name.limited)
             from name where name.limited is not null)
         select limited from name where limited is not null limit ?1",
        [NAMES_MAX],
        |row| row.get::<_, String>(0),
    )?;
    let mut found = Vec::new();
    for name in names {
        found.extend(of_limit(change, wanted, &name)?);
    }
    Ok(found)
}

fn of_limit(change: &Change<'_>, wanted: &Wanted, name: &str) -> Result<Vec<Candidate>, QueueError> {
    let rule = rule(change, name)?;
    let mut room = wanted.limit;
    if let Some(rule) = &rule {
        if rule.rate.is_some() {
            // a bucket holds at most a million
            room = room.min(rule.tokens.floor().max(0.0) as usize);
        }
        if let Some(most) = rule.running {
            room = room.min(free(change, most, name, None)?);
        }
    }
    if room == 0 {
        return Ok(Vec::new());
    }
    let turn = rule.as_ref().and_then(|rule| rule.turn.as_deref());
    let mut placed = Vec::new();
    let parts = parts(change, wanted, name, turn)?;
    // should all of these be full, the next look begins behind them
    let behind = parts.iter().take(PARTS_MAX as usize).next_back().cloned();
    for (place, part) in parts.into_iter().enumerate() {
        let of_part = match rule.as_ref().and_then(|rule| rule.per_part) {
            Some(most) => room.min(free(change, most, name, Some(&part))?),
            None => room,
        };
        let jobs = of_one_part(change, wanted, name, &part, of_part)?;
        placed.extend(jobs.into_iter().enumerate().map(|(nth, job)| (nth, place, job)));
    }
    if placed.is_empty() {
        change.execute("update limit_rule set turn = ?2 where task = ?1", params![name, behind])?;
    }
    // parts by turns, the more urgent before all
    placed.sort_by_key(|(nth, place, job)| (std::cmp::Reverse(job.priority), *nth, *place));
    placed.truncate(room);
    Ok(placed.into_iter().map(|(_, _, job)| job).collect())
}

/// The rule of a limit, with its bucket filled up to now. One that is gone holds nothing back.
fn rule(change: &Change<'_>, name: &str) -> Result<Option<Rule>, QueueError> {
    let sql =
        "select running, per_part, rate_n, rate_us, tokens, filled, turn from limit_rule where task = ?1";
    let now = change.now;
    change.first(sql, [name], |row| {
        let rate = rate(row.get(2)?, row.get(3)?);
        let (tokens, since): (f64, i64) = (row.get(4)?, row.get(5)?);
        let elapsed = Duration::from_micros(now.saturating_sub(since).max(0).unsigned_abs());
        Ok(Rule {
            running: row.get(0)?,
            per_part: row.get(1)?,
            rate,
            tokens: rate.map_or(tokens, |rate| filled(tokens, rate, elapsed)),
            turn: row.get(6)?,
        })
    })
}

fn rate(count: Option<u32>, us: Option<i64>) -> Option<Rate> {
    count.zip(us).map(|(count, us)| Rate { count, per: Duration::from_micros(us.unsigned_abs()) })
}

/// How many more may run. Index: running_limited.
fn free(change: &Change<'_>, most: u32, name: &str, part: Option<&str>) -> Result<usize, QueueError> {
    let sql = "select count(*) from running where limited = ?1 and (?2 is null or part = ?2)";
    let active: u32 = change.first(sql, params![name, part], |row| row.get(0))?.unwrap_or(0);
    Ok(most.saturating_sub(active) as usize)
}

/// The parts of a limit that have jobs, beginning behind the one that was served last. Index: job_ready_limited.
fn parts(
    change: &Change<'_>,
    wanted: &Wanted,
    name: &str,
    turn: Option<&str>,
) -> Result<Vec<String>, QueueError> {
    const SQL: &str = "
        with recursive step (part) as (
          select min(part) from job indexed by job_ready_limited
           where ready and limited is not null and limited = ?1 and queue = ?2 and (?3 is null or part > ?3)
          union all
          select (select min(part) from job indexed by job_ready_limited
                   where ready and limited is not null and limited = ?1 and queue = ?2 and part > step.part)
            from step where step.part is not null)
        select part from step where part is not null limit ?4";
    let mut found: Vec<String> = Vec::new();
    // behind the turn, then from the beginning
    let both = [turn, None];
    let begins = &both[usize::from(turn.is_none())..];
    for queue in &wanted.queues {
        for from in begins {
            found.extend(change.all(SQL, params![name, queue, from, PARTS_MAX], |row| row.get(0))?);
        }
    }
    let mut seen = std::collections::HashSet::new();
    found.retain(|part| seen.insert(part.clone()));
    Ok(found)
}

fn of_one_part(
    change: &Change<'_>,
    wanted: &Wanted,
    name: &str,
    part: &str,
    room: usize,
) -> Result<Vec<Candidate>, QueueError> {
    const SQL: &str = "
        select priority, seq, id from job indexed by job_ready_limited
         where ready and limited is not null and limited = ?1 and queue = ?2 and part = ?3 and priority >= ?4
           and (?5 is null or task in (select value from json_each(?5)))
           and (expires is null or attempt > 0 or expires > ?6)
         order by priority desc, seq limit ?7";
    let mut found = Vec::new();
    let count = i64::try_from(room).unwrap_or(i64::MAX);
    for queue in &wanted.queues {
        let params = params![name, queue, part, wanted.least, wanted.tasks, change.now, count];
        found.extend(change.all(SQL, params, |row| {
            let limited = Some((name.to_owned(), part.to_owned()));
            Ok(Candidate { priority: row.get(0)?, seq: row.get(1)?, id: row.get(2)?, limited })
        })?);
    }
    found.sort_by_key(|c| (std::cmp::Reverse(c.priority), c.seq));
    found.truncate(room);
    Ok(found)
}

/// Counts what is claimed now, takes its starts from the buckets, and remembers whose turn it was.
pub(super) fn note_taken(change: &Change<'_>, chosen: &[Candidate]) -> Result<(), QueueError> {
    let mut taken: std::collections::BTreeMap<&str, (u32, &str)> = std::collections::BTreeMap::new();
    for (id, name, part) in chosen.iter().filter_map(|c| c.limited.as_ref().map(|(n, p)| (c.id, n, p))) {
        let sql = "insert or replace into running (job, limited, part) values (?1, ?2, ?3)";
        change.execute(sql, params![id, name, part])?;
        let of_name = taken.entry(name).or_insert((0, part));
        *of_name = (of_name.0 + 1, part);
    }
    for (name, (count, last)) in taken {
        if let Some(rule) = rule(change, name)? {
            let sql = "update limit_rule set tokens = ?2, filled = ?3, turn = ?4 where task = ?1";
            let left = if rule.rate.is_some() { rule.tokens - f64::from(count) } else { rule.tokens };
            change.execute(sql, params![name, left, change.now, last])?;
        }
    }
    Ok(())
}

fn put(change: &mut Change<'_>, limits: &[Limit]) -> Result<(), QueueError> {
    let names: Vec<&str> = limits.iter().map(|limit| limit.task.as_str()).collect();
    let names = serde_json::to_string(&names).expect("names always serialise");
    change.execute("delete from limit_rule where task not in (select value from json_each(?1))", [names])?;
    for limit in limits {
        let (count, us) = (limit.rate.map(|r| r.count), limit.rate.map(|r| rules::micros(r.per)));
        change.execute(
            "insert into limit_rule (task, running, per_part, rate_n, rate_us, tokens, filled)
             values (?1, ?2, ?3, ?4, ?5, coalesce(?4, 0), ?6)
             on conflict (task) do update set
               tokens = iif(rate_n is null, excluded.tokens, min(tokens, excluded.tokens)),
               running = excluded.running, per_part = excluded.per_part, rate_n = excluded.rate_n, rate_us = excluded.rate_us",
            params![limit.task, limit.running, limit.per_partition, count, us, change.now],
        )?;
    }
    change.wake_workers();
    Ok(())
}

#[async_trait]
impl Limits for SqliteStore {
    async fn put_limits(&self, limits: &[Limit]) -> Result<(), QueueError> {
        check_limits(limits)?;
        let limits = limits.to_vec();
        self.change("put limits in force", move |change| put(change, &limits)).await
    }

    async fn limits(&self) -> Result<Vec<LimitView>, QueueError> {
        let sql = "select task, running, per_part, rate_n, rate_us,
                          (select count(*) from running where limited = task) from limit_rule order by task";
        let list = move |conn: &rusqlite::Connection| {
            let mut statement = conn.prepare_cached(sql)?;
            let rows = statement.query_map([], |row| {
                let limit = Limit {
                    task: row.get(0)?,
                    running: row.get(1)?,
                    per_partition: row.get(2)?,
                    rate: rate(row.get(3)?, row.get(4)?),
                };
                Ok(LimitView { limit, active: row.get(5)? })
            })?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        };
        self.read(move |conn| list(conn).map_err(|e| failure("list limits", e))).await?
    }
}
