//! Log lines: written with the notes of the same moment, and read by the page.

use super::SqliteStore;
use super::change::Change;
use super::failure::failure;
use super::row::timestamp;
use crate::error::QueueError;
use crate::logs::{AGAIN_MAX, KEPT_BYTES_MAX, KEPT_LINES_MAX, LogPage, Logs, storable_lines};
use crate::rules;
use async_trait::async_trait;
use jiff::Timestamp;
use minium_protocol::{KeptLine, LogLine};
use rusqlite::{Connection, params};
use std::collections::HashSet;

/// Adds lines to a job's log, and lets go of the oldest beyond the bound. Answers the new ones as JSON, if there are any:
/// lines that are said again are the last ones that were kept, or some of them.
pub(super) fn append(
    change: &Change<'_>,
    job: i64,
    attempt: i32,
    lines: &[LogLine],
) -> Result<Option<String>, QueueError> {
    let recent = change.all(
        "select n, start + octet_length(text), attempt, at, level, text from log_line
          where job = ?1 order by n desc limit ?2",
        params![job, i64::try_from(lines.len()).unwrap_or(i64::MAX).saturating_add(AGAIN_MAX)],
        |row| {
            let known = (row.get::<_, i64>(3)?, row.get::<_, String>(4)?, row.get::<_, String>(5)?);
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i32>(2)?, known))
        },
    )?;
    let (mut n, mut bytes) = recent.first().map_or((0, 0), |(n, bytes, ..)| (*n, *bytes));
    let of_this_run = recent.into_iter().filter(|(_, _, of, _)| *of == attempt);
    let known: HashSet<_> = of_this_run.map(|(.., known)| known).collect();
    let mut kept = Vec::with_capacity(lines.len());
    for line in storable_lines(lines) {
        let is_known = |at: Timestamp| {
            known.contains(&(at.as_microsecond(), line.level.as_str().to_owned(), line.text.clone()))
        };
        if line.at.is_some_and(is_known) {
            continue;
        }
        let at = line.at.unwrap_or_else(|| timestamp(change.now));
        n += 1;
        change.execute(
            "insert into log_line (job, n, start, at, attempt, level, text) values (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![job, n, bytes, at.as_microsecond(), attempt, line.level.as_str(), line.text],
        )?;
        bytes += i64::try_from(line.text.len()).unwrap_or(i64::MAX);
        kept.push(KeptLine { n, at, attempt, level: line.level, text: line.text });
    }
    change.execute(
        "delete from log_line where job = ?1 and n < (
           select n from log_line where job = ?1 and n > ?2 and start >= ?3 order by n limit 1)",
        params![job, n - KEPT_LINES_MAX, bytes - KEPT_BYTES_MAX],
    )?;
    Ok((!kept.is_empty()).then(|| serde_json::to_string(&kept).expect("lines are plain JSON")))
}

fn read(conn: &Connection, job: i64, after: i64, limit: u32) -> Result<LogPage, QueueError> {
    let sql = "select first.n - 1, l.n, l.at, l.attempt, l.level, l.text
                 from (select n from log_line where job = ?1 order by n limit 1) first
                 left join (select n, at, attempt, level, text from log_line
                             where job = ?1 and n > ?2 order by n limit ?3) l on true
                order by l.n";
    let run = || -> rusqlite::Result<LogPage> {
        let mut statement = conn.prepare_cached(sql)?;
        let mut rows = statement.query(params![job, after, i64::from(limit) + 1])?;
        let (mut lines, mut dropped) = (Vec::new(), 0);
        while let Some(row) = rows.next()? {
            dropped = row.get(0)?;
            let Some(n) = row.get(1)? else { continue };
            let level = row.get_ref(4)?.as_str()?.parse();
            lines.push(KeptLine {
                n,
                at: timestamp(row.get(2)?),
                attempt: row.get(3)?,
                level: level.expect("the column's check lets no other word in"),
                text: row.get(5)?,
            });
        }
        Ok(LogPage::new(lines, limit, dropped))
    };
    run().map_err(|e| failure("read the log of a job", e))
}

#[async_trait]
impl Logs for SqliteStore {
    async fn log(&self, job: i64, after: i64, limit: u32) -> Result<LogPage, QueueError> {
        let limit = limit.clamp(1, rules::PAGE_MAX);
        self.read(move |conn| read(conn, job, after, limit)).await?
    }
}
