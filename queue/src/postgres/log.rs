//! Log lines: written with the notes of the same moment, in one statement, and read by the page.

use super::PgStore;
use super::session::{Session, Work};
use crate::error::QueueError;
use crate::logs::{AGAIN_MAX, KEPT_BYTES_MAX, KEPT_LINES_MAX, LogPage, Logs, storable_lines};
use crate::rules;
use async_trait::async_trait;
use jiff::Timestamp;
use minium_protocol::{KeptLine, LogLine};
use tokio_postgres::types::ToSql;

/// A change of a job that brings lines. $1 to $4 as for a change without; $5 does it change the job itself; $6 to $8 the lines;
/// $9 the run that says them; $10 $11 how many lines and bytes are kept; $12 among how many more than come now a line is
/// looked for that may have been said before. The caller has locked the job, so that nobody else writes lines of it.
/// Index: the key of log_line, from its last row, and from the first one that may go.
const ANNOTATE_AND_LOG: &str = "
with
recent as materialized (
  select n, start + octet_length(text) as bytes, attempt, at, level, text
    from minium.log_line where job = $1 order by n desc limit cardinality($8::text[]) + $12::bigint),
last as materialized (
  select coalesce(max(n), 0) as n, coalesce(max(bytes), 0) as bytes from recent),
said as materialized (
  select last.n + row_number() over places as n,
         last.bytes + sum(octet_length(l.text)) over places - octet_length(l.text) as start,
         coalesce(l.at, now()) as at, l.level, l.text
    from last, unnest($6::timestamptz[], $7::text[], $8::text[]) with ordinality as l (at, level, text, place)
   where not exists (
     select from recent r where r.at = l.at and r.level = l.level and r.text = l.text and r.attempt = $9::int)
  window places as (order by l.place)),
ends as materialized (
  select min(n) as first, max(n) as last, max(start + octet_length(text)) as bytes from said),
lines as (
  insert into minium.log_line (job, n, start, at, attempt, level, text)
  select $1, n, start, at, $9::int, level, text from said),
trimmed as (
  delete from minium.log_line where job = $1 and n < coalesce(
    (select l.n from minium.log_line l
      where l.job = $1 and l.n > (select last from ends) - $10::bigint and l.start >= (select bytes from ends) - $11::bigint
      order by l.n limit 1),
    (select first from ends))),
changed as (
  update minium.job as j
     set notes = (j.notes || $2::text::jsonb) - $3::text[], progress = coalesce($4::text::json, j.progress)
   where j.id = $1 and $5::bool returning j.id, j.task, j.trace, minium.snapshot(j) as data),
j as (
  select * from changed
  union all
  select j.id, j.task, j.trace, minium.snapshot(j) from minium.job j
   where j.id = $1 and not $5::bool and exists (select from said)),
log as (
  select string_agg(row_to_json(told)::text, ',' order by told.n) as lines
    from (select n, minium.time_text(at) as at, $9::int as attempt, level, text from said) told),
events as (
  insert into minium.entry (topic, type, subject, trace, data)
  select 'task/' || task || '/' || id, 'task.progress', id::text, trace,
         coalesce((left(data::text, -1) || ',\"log\":[' || lines || ']}')::json, data)
    from j, log)
select minium.wake_up(false)::text from j";

/// $1 the job, $2 the line to begin behind, $3 how many. Answers how many lines are gone with each.
/// Index: the key of log_line.
const LOG: &str = "
select first.n - 1, l.n, l.at, l.attempt, l.level, l.text
  from (select n from minium.log_line where job = $1 order by n limit 1) first
  left join lateral (
    select n, at, attempt, level, text from minium.log_line where job = $1 and n > $2 order by n limit $3::bigint) l on true
 order by l.n";

/// Lines, as the statement takes them.
pub(super) struct Lines {
    times: Vec<Option<Timestamp>>,
    levels: Vec<&'static str>,
    texts: Vec<String>,
}

impl Lines {
    pub(super) fn new(lines: &[LogLine]) -> Lines {
        let mut parts = Lines { times: Vec::new(), levels: Vec::new(), texts: Vec::new() };
        for line in storable_lines(lines) {
            parts.times.push(line.at);
            parts.levels.push(line.level.as_str());
            parts.texts.push(line.text);
        }
        parts
    }

    pub(super) fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// Writes them, with what else is told of the job: the parameters that both statements share.
    pub(super) async fn write(
        &self,
        transaction: &Work<'_>,
        shared: [&(dyn ToSql + Sync); 4],
        changes: bool,
        attempt: i32,
    ) -> Result<(), tokio_postgres::Error> {
        let [job, added, taken, progress] = shared;
        let params: [&(dyn ToSql + Sync); 12] = [
            job,
            added,
            taken,
            progress,
            &changes,
            &self.times,
            &self.levels,
            &self.texts,
            &attempt,
            &KEPT_LINES_MAX,
            &KEPT_BYTES_MAX,
            &AGAIN_MAX,
        ];
        let statement = transaction.prepare_cached(ANNOTATE_AND_LOG).await?;
        transaction.query(&statement, &params).await.map(drop)
    }
}

#[async_trait]
impl Logs for PgStore {
    async fn log(&self, job: i64, after: i64, limit: u32) -> Result<LogPage, QueueError> {
        let limit = limit.clamp(1, rules::PAGE_MAX);
        let asked = i64::from(limit) + 1;
        let read = |client: Session| async move {
            let statement = client.prepare_cached(LOG).await?;
            client.query(&statement, &[&job, &after, &asked]).await
        };
        let rows = self.connections.run("read the log of a job", read).await?;
        let dropped = rows.first().map_or(0, |row| row.get(0));
        let line = |row: &tokio_postgres::Row| {
            Some(KeptLine {
                n: row.get::<_, Option<i64>>(1)?,
                at: row.get(2),
                attempt: row.get(3),
                level: row.get::<_, &str>(4).parse().expect("the column's check lets no other word in"),
                text: row.get(5),
            })
        };
        Ok(LogPage::new(rows.iter().filter_map(line).collect(), limit, dropped))
    }
}
