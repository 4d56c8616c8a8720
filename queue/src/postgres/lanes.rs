//! The lanes: which queues and priorities claims look at. An enqueue adds the lane that it finds missing; those that
//! nobody has used for long go here, so that a queue for each tenant or day leaves nothing behind.
//!
//! A lane may go at the very moment in which an enqueue relies on it, or while its only jobs wait for parents. So each
//! round looks at the lanes that have ready jobs, and puts back what is missing: such a job is claimed a round later.

use super::PgStore;
use super::upkeep::Walks;
use crate::error::QueueError;
use std::time::Duration;
use tokio::time::Instant;

/// So often it is looked which lanes are idle.
const LOOK_AGAIN: Duration = Duration::from_secs(300);
/// A lane without ready jobs for so long goes.
const IDLE: Duration = Duration::from_secs(3_600);

/// $1 $2 the lane to begin behind, $3 how many to look at. Answers how many were missing, and the last lane that was
/// looked at if there may be more. Index: job_ready, from lane to lane; lane_queue.
const RESTORE: &str = "
with recursive used (queue, priority, n) as (
  (select j.queue, j.priority, 1::bigint from minium.job j
    where j.ready and j.limited is null and (j.queue, j.priority) > ($1::text, $2::int) order by j.queue, j.priority limit 1)
  union all
  select next.queue, next.priority, u.n + 1 from used u, lateral (
    select j.queue, j.priority from minium.job j
     where j.ready and j.limited is null and (j.queue, j.priority) > (u.queue, u.priority) order by j.queue, j.priority limit 1) next
   where u.n < $3::bigint),
restored as (
  insert into minium.lane (queue, priority)
  select u.queue, u.priority from used u
   where not exists (select from minium.lane l where l.queue = u.queue and l.priority = u.priority)
  returning queue)
select (select count(*) from restored), l.queue, l.priority,
       (select minium.wake_up(true)::text where exists (select from restored))
  from (values (true)) one left join (select * from used where n = $3::bigint) l on true";

/// $1 $2 the lane to begin behind, $3 how many to look at, $4 microseconds after which an idle lane goes. Notes which are
/// idle from now on, and which no longer; answers the last one if there may be more.
/// Indexes: lane_queue, job_ready. Locks: the lanes, passing over what others hold.
const IDLE_LANES: &str = "
with looked as materialized (
  select l.ctid as tid, l.queue, l.priority, l.idle_since,
         -- looked up lane by lane: `not exists` might be answered by reading all that are ready
         (select true from minium.job j
           where j.ready and j.limited is null and j.queue = l.queue and j.priority = l.priority limit 1) is null as idle
    from minium.lane l where (l.queue, l.priority) > ($1::text, $2::int)
   order by l.queue, l.priority limit $3::bigint for update skip locked),
gone as (
  delete from minium.lane where ctid = any (array(
    select tid from looked where idle and idle_since <= now() - $4::bigint * interval '1 microsecond'))),
noted as (
  update minium.lane l set idle_since = case when l.idle_since is null then now() end
   where l.ctid = any (array(select tid from looked where idle <> (idle_since is not null))))
select l.queue, l.priority from looked l
 where (select count(*) from looked) = $3::bigint order by l.queue desc, l.priority desc limit 1";

/// How far the looks at lanes have come; nothing is the beginning.
#[derive(Debug, Clone, Default)]
pub(super) struct LaneWalks {
    used: Option<(String, i32)>,
    idle: Option<(String, i32)>,
    look_again: Option<Instant>,
}

impl PgStore {
    /// Puts back lanes that are missing; how many there were. Now and then lets go of those that are idle.
    pub(super) async fn tend_lanes(&self, batch: i64, walks: &mut Walks) -> Result<u64, QueueError> {
        let lanes = &mut walks.lanes;
        let (queue, priority) = behind(&lanes.used);
        let row = self.step("look which lanes are used", RESTORE, &[&queue, &priority, &batch]).await?;
        let restored: i64 = row.get(0);
        lanes.used = row.get::<_, Option<String>>(1).zip(row.get(2));
        let now = Instant::now();
        if lanes.idle.is_some() || lanes.look_again.is_none_or(|at| now >= at) {
            lanes.look_again = Some(now + LOOK_AGAIN);
            lanes.idle = self.idle_lanes(&lanes.idle, batch, IDLE).await?;
        }
        Ok(u64::try_from(restored).unwrap_or(0))
    }

    async fn idle_lanes(
        &self,
        last: &Option<(String, i32)>,
        batch: i64,
        idle: Duration,
    ) -> Result<Option<(String, i32)>, QueueError> {
        let ((queue, priority), idle_us) = (behind(last), crate::rules::micros(idle));
        let params: [&(dyn tokio_postgres::types::ToSql + Sync); 4] = [&queue, &priority, &batch, &idle_us];
        let rows = self.rows("look which lanes are idle", IDLE_LANES, &params).await?;
        Ok(rows.first().map(|row| (row.get(0), row.get(1))))
    }
}

/// The lane to begin behind: no queue has an empty name.
fn behind(last: &Option<(String, i32)>) -> (&str, i32) {
    last.as_ref().map_or(("", 0), |(queue, priority)| (queue, *priority))
}
