//! Queues: paused, resumed, counted.

use super::PgStore;
use super::session::Session;
use crate::error::QueueError;
use crate::queues::{LANES_MAX, QueueView, QueueWait, Queues, READY_COUNTED_MAX};
use crate::rules;
use async_trait::async_trait;
use std::time::Duration;

const PAUSE: &str = "insert into minium.paused_queue (queue) values ($1) on conflict do nothing";
const RESUME: &str = "delete from minium.paused_queue where queue = $1";

/// $1 how many jobs to count in each, $2 how many queues. Jobs under limits count as well.
/// A lane stays for a while when its last job has gone; it alone makes no queue.
/// Indexes: lane_queue from queue to queue, job_ready_limited from limit and queue to the next, job_ready and it as far as is
/// counted.
const LIST: &str = "
with recursive used (queue) as (
  (select l.queue from minium.lane l order by l.queue limit 1)
  union all
  select (select l.queue from minium.lane l where l.queue > u.queue order by l.queue limit 1)
    from used u where u.queue is not null),
under_limits (limited, queue) as (
  (select j.limited, j.queue from minium.job j
    where j.ready and j.limited is not null order by j.limited, j.queue limit 1)
  union all
  select next.limited, next.queue from under_limits u, lateral (
    select j.limited, j.queue from minium.job j
     where j.ready and j.limited is not null and (j.limited, j.queue) > (u.limited, u.queue)
     order by j.limited, j.queue limit 1) next),
names as (
  select queue from used where queue is not null
  union
  select queue from under_limits
  union
  select queue from minium.paused_queue)
select q.queue, q.paused, q.ready from (
  select n.queue, (select p.paused from minium.paused_queue p where p.queue = n.queue) as paused,
         (select count(*) from (select from minium.job j
                                 where j.ready and j.limited is null and j.queue = n.queue limit $1::bigint) c)
         + (select count(*) from (select from under_limits u, lateral (
                                    select from minium.job j
                                     where j.ready and j.limited = u.limited and j.queue = u.queue limit $1::bigint) one
                                   where u.queue = n.queue limit $1::bigint) c) as ready
    from names n) q
 where q.ready > 0 or q.paused is not null order by q.queue limit $2::bigint";

/// $1 how many lanes are looked at, $2 how many queues. A job could be claimed since the last of these: its time, its retry, the
/// end of its parents, the beginning of a run that was lost.
/// Indexes: lane_queue, job_ready for the first of each lane, the key of job for its parents.
const WAITS: &str = "
select l.queue, extract(epoch from now() - min(first.since))::float8
  from (select distinct queue, priority from minium.lane order by queue, priority limit $1::bigint) l,
       lateral (
         select greatest(j.delayed, j.retried, j.started,
                         (select max(p.finished) from minium.job p where p.id = any (j.parents))) as since
           from minium.job j
          where j.ready and j.limited is null and j.queue = l.queue and j.priority = l.priority
          order by j.seq limit 1) first
 group by l.queue order by l.queue limit $2::bigint";

#[async_trait]
impl Queues for PgStore {
    async fn pause_queue(&self, queue: &str) -> Result<bool, QueueError> {
        rules::check_queue(queue)?;
        let pause = |client: Session| async move { client.execute(PAUSE, &[&queue]).await };
        Ok(self.connections.run("pause a queue", pause).await? > 0)
    }

    async fn resume_queue(&self, queue: &str) -> Result<bool, QueueError> {
        rules::check_queue(queue)?;
        let resume = |mut client: Session| async move {
            let transaction = client.transaction().await?;
            let resumed = transaction.execute(RESUME, &[&queue]).await? > 0;
            transaction.query("select minium.wake_up(true)::text", &[]).await?;
            transaction.commit().await?;
            Ok(resumed)
        };
        let resumed = self.connections.run("resume a queue", resume).await?;
        self.wake(true);
        Ok(resumed)
    }

    async fn queues(&self) -> Result<Vec<QueueView>, QueueError> {
        let most = i64::from(rules::PAGE_MAX);
        let list = |client: Session| async move {
            let statement = client.prepare_cached(LIST).await?;
            client.query(&statement, &[&READY_COUNTED_MAX, &most]).await
        };
        let rows = self.connections.run("list queues", list).await?;
        let view = |row: &tokio_postgres::Row| QueueView {
            name: row.get(0),
            paused: row.get(1),
            ready: row.get::<_, i64>(2).min(READY_COUNTED_MAX),
        };
        Ok(rows.iter().map(view).collect())
    }

    async fn queue_waits(&self) -> Result<Vec<QueueWait>, QueueError> {
        let most = i64::from(rules::PAGE_MAX);
        let rows = self.rows("ask how long queues wait", WAITS, &[&LANES_MAX, &most]).await?;
        let wait = |row: &tokio_postgres::Row| QueueWait {
            name: row.get(0),
            waited: Duration::try_from_secs_f64(row.get(1)).unwrap_or_default(),
        };
        Ok(rows.iter().map(wait).collect())
    }
}
