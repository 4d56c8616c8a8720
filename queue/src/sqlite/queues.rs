//! Queues: paused, resumed, counted.

use super::SqliteStore;
use super::change::{Change, now_micros};
use super::failure::failure;
use super::row::timestamp;
use crate::error::QueueError;
use crate::queues::{LANES_MAX, QueueView, QueueWait, Queues, READY_COUNTED_MAX};
use crate::rules;
use async_trait::async_trait;
use rusqlite::params;
use std::time::Duration;

/// Queues with jobs that are ready and under no limit: from name to name by the index, as many steps as there are names, and a
/// null behind the last.
const USED: &str = "used (queue) as (
              select min(queue) from job indexed by job_ready where ready and limited is null
              union all
              select (select min(queue) from job indexed by job_ready
                       where ready and limited is null and queue > used.queue)
                from used where used.queue is not null)";

/// Those of the queues, each once, that are not paused.
pub(super) fn open(change: &Change<'_>, queues: &[String]) -> Result<Vec<String>, QueueError> {
    let mut open: Vec<String> = queues.to_vec();
    open.sort();
    open.dedup();
    if change.first("select 1 from paused_queue limit 1", [], |_| Ok(()))?.is_some() {
        let mut left = Vec::with_capacity(open.len());
        for queue in open {
            let sql = "select 1 from paused_queue where queue = ?1";
            if change.first(sql, [&queue], |_| Ok(()))?.is_none() {
                left.push(queue);
            }
        }
        open = left;
    }
    Ok(open)
}

#[async_trait]
impl Queues for SqliteStore {
    async fn pause_queue(&self, queue: &str) -> Result<bool, QueueError> {
        rules::check_queue(queue)?;
        let queue = queue.to_owned();
        let sql = "insert or ignore into paused_queue (queue, paused) values (?1, ?2)";
        self.change("pause a queue", move |change| Ok(change.execute(sql, params![queue, change.now])? > 0))
            .await
    }

    async fn resume_queue(&self, queue: &str) -> Result<bool, QueueError> {
        rules::check_queue(queue)?;
        let queue = queue.to_owned();
        self.change("resume a queue", move |change| {
            change.wake_workers();
            Ok(change.execute("delete from paused_queue where queue = ?1", [queue])? > 0)
        })
        .await
    }

    async fn queues(&self) -> Result<Vec<QueueView>, QueueError> {
        let sql = format!(
            "with recursive {USED},
            name (queue) as (
              select queue from used where queue is not null
              union select queue from job indexed by job_ready_limited where ready and limited is not null
              union select queue from paused_queue)
            select queue, (select paused from paused_queue p where p.queue = name.queue),
                   (select count(*) from (select 1 from job indexed by job_ready
                                           where ready and limited is null and queue = name.queue limit ?1))
                   + (select count(*) from (select 1 from job indexed by job_ready_limited
                                             where ready and limited is not null and queue = name.queue limit ?1))
              from name order by queue limit ?2"
        );
        let list = move |conn: &rusqlite::Connection| {
            let mut statement = conn.prepare_cached(&sql)?;
            let rows = statement.query_map(params![READY_COUNTED_MAX, rules::PAGE_MAX], |row| {
                let ready: i64 = row.get(2)?;
                Ok(QueueView {
                    name: row.get(0)?,
                    paused: row.get::<_, Option<i64>>(1)?.map(timestamp),
                    ready: ready.min(READY_COUNTED_MAX),
                })
            })?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        };
        self.read(move |conn| list(conn).map_err(|e| failure("list queues", e))).await?
    }

    async fn queue_waits(&self) -> Result<Vec<QueueWait>, QueueError> {
        // the first of each priority; it could be claimed since the last of its time, its retry, its parents' end, and the
        // beginning of a run that was lost
        let sql = format!(
            "with recursive {USED},
            lane (queue, priority) as (
              select queue, (select max(priority) from job indexed by job_ready
                              where ready and limited is null and queue = used.queue)
                from used where queue is not null
              union all
              select queue, (select max(priority) from job indexed by job_ready
                              where ready and limited is null and queue = lane.queue and priority < lane.priority)
                from lane where priority is not null),
            waits (queue, since) as (
              select queue, (select max(delayed, coalesce(retried, 0), coalesce(started, 0),
                                        coalesce((select max(p.finished) from job p
                                                   where p.id in (select value from json_each(first.parents))), 0))
                               from job first indexed by job_ready
                              where ready and limited is null and first.queue = lane.queue and first.priority = lane.priority
                              order by priority desc, seq limit 1)
                from lane where priority is not null limit ?2)
            select queue, ?1 - min(since) from waits where since is not null group by queue order by queue limit ?3"
        );
        let list = move |conn: &rusqlite::Connection| {
            let mut statement = conn.prepare_cached(&sql)?;
            let rows = statement.query_map(params![now_micros(), LANES_MAX, rules::PAGE_MAX], |row| {
                let waited = u64::try_from(row.get::<_, i64>(1)?).unwrap_or(0);
                Ok(QueueWait { name: row.get(0)?, waited: Duration::from_micros(waited) })
            })?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        };
        self.read(move |conn| list(conn).map_err(|e| failure("ask how long queues wait", e))).await?
    }
}
