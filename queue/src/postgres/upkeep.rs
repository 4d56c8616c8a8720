//! What time brings about: due jobs become ready, lost ones are rescued, what was missed is repaired, old ones go.
//!
//! Any number of processes may do this at once. Every step takes a bounded number of jobs, found by an index or by
//! walking the key; where a walk has come to is kept in memory, and lost without harm.

use super::PgStore;
use super::session::Session;
use crate::error::QueueError;
use crate::metrics::{JOBS_FINISHED, LEASES_EXPIRED, count_jobs};
use crate::rules;
use crate::store::{UpkeepRules, Upkept};
use jiff::Timestamp;
use minium_protocol::State;
use std::sync::PoisonError;
use std::time::Duration;
use tokio::time::Instant;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

/// So often all leases are looked at again, a piece in each round, for what the mark passed over.
const LEASES_AGAIN: Duration = Duration::from_secs(300);
/// Ended leases (of jobs that have long finished, for the most part) are passed over each time while there are no more:
/// that costs a millisecond or two, and finds whatever was committed late.
const LEASES_PASSED_MAX: i64 = 2_000;
/// So many ended leases are looked at by one statement,
const LEASES_LOOKED_MAX: i64 = 10_000;
/// and by so many statements in a round: a statement takes some 16 ms.
const LEASES_PIECES_MAX: usize = 30;
/// So many pieces of parents with very many children are settled in a round.
const LEFT_PIECES_MAX: u32 = 10;
/// Retention walks over so many jobs for each that it may delete.
const WALK_SHARE: i64 = 10;

/// How far the walks have come.
#[derive(Debug, Clone, Default)]
pub(super) struct Walks {
    /// Leases that ended up to here have been looked at.
    lease_mark: Option<Timestamp>,
    leases_again: Option<Instant>,
    /// All of them are being looked at again, up to here.
    again_mark: Option<Timestamp>,
    /// Open edges up to here have been looked at.
    edge: (i64, i64),
    /// Jobs up to here have been looked at for retention.
    job: i64,
    pub(super) lanes: super::lanes::LaneWalks,
}

/// Notes that somebody looks after the queue, and when leases have their grace anew: from a restart, from a failover, and
/// from the first look after nobody has looked for $2 microseconds, since then nobody was there to extend leases with
/// either. Says whether the grace of $1 microseconds is over. Judges by what it read, not by what it wrote. The name of
/// the current WAL file tells the timeline at once; the control file learns of it with the next checkpoint only.
/// Locks: the one row, when something is new, and else once a second.
const GRACE: &str = "
with here as materialized (
  select pg_postmaster_start_time() as started,
         ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int as timeline),
known as materialized (
  select h.started, h.timeline, n.is_new,
         case when s.timeline <> h.timeline or s.tended < now() - $2::bigint * interval '1 microsecond' then now()
              when s.started <> h.started then h.started else s.since end as since
    from minium.server s, here h, lateral (
      select (s.started, s.timeline) is distinct from (h.started, h.timeline)
             or s.tended < now() - $2::bigint * interval '1 microsecond' as is_new) n),
noted as (
  update minium.server s set started = k.started, timeline = k.timeline, since = k.since, tended = now()
    from known k where k.is_new or s.tended < now() - interval '1 second')
select now() >= since + $1::bigint * interval '1 microsecond' from known";

/// A round has ended, however long it took. Locks: the one row, once a second.
const TENDED: &str = "
update minium.server set tended = now() where tended < now() - interval '1 second'";

/// Writers notify no reader of the journal that has gone: as long as one is there it says so anew.
const DISARM: &str = "
update minium.wake set armed = false where name = 'journal' and armed and until < now()";

/// Index: job_later. Locks: the due jobs, passing over what others hold. They draw their numbers in the order in which
/// they were due; those that parents hold back are staged without one.
const STAGE: &str = "
with due as materialized (
  select id, left_n, later_at from minium.job where later_at <= now() order by later_at, id limit $1::bigint
     for no key update skip locked),
numbered as materialized (
  select id, nextval('minium.ready_seq') as seq from (select id from due order by later_at, id offset 0) d),
numbers as materialized (
  select array_agg(id order by id) as ids, array_agg(seq order by id) as seqs from numbered),
staged as (
  update minium.job as j
     set later_at = null, ready = j.left_n = 0,
         seq = (select seqs from numbers)[width_bucket(j.id, (select ids from numbers))]
   where j.id = any ((select ids from numbers)::bigint[])
  returning j.ready)
select count(*) filter (where ready), minium.wake_up(coalesce(bool_or(ready), false))::text from staged";

/// $1 the mark, $2 at most so many, $3 so many ended leases are passed over each time, $4 so many are looked at in one go.
/// Answers ids whose leases seem to have ended; where the next look begins: before the last lease that was looked at, if there
/// were more; else where this one did while there are few leases to pass over; else here; and whether it is to go on at once.
/// (More leases than $4 that end in one microsecond are given by no claim.)
/// Indexes: job_lease from the mark on, the key of job; renewal is small.
const ENDED: &str = "
with passed as materialized (
  select j.id, j.lease_until, j.state, j.lease from minium.job j
   where j.lease_until > $1::timestamptz and j.lease_until <= now() order by j.lease_until limit $4::bigint),
due as materialized (
  select p.id, p.lease_until from passed p
   where p.state = 'active'
     -- jobs that run on under a renewed lease must not fill the batch, however many there are
     and not exists (select from minium.renewal r where r.job = p.id and r.lease = p.lease and r.until > now())
   order by p.lease_until limit $2::bigint),
stale as materialized (
  select r.job from minium.renewal r
   where r.until <= now() and exists (select from minium.job j where j.id = r.job and j.state = 'active' and j.lease = r.lease)
   order by r.until limit $2::bigint),
counted as (
  select (select count(*) from passed) as passed, (select max(lease_until) from passed) as last,
         (select count(*) from due) as due, (select max(lease_until) from due) as last_due)
select array(select id from due union select job from stale order by 1),
       case when c.due = $2::bigint then c.last_due - interval '1 microsecond'
            when c.passed = $4::bigint and c.last - interval '1 microsecond' > $1::timestamptz then c.last - interval '1 microsecond'
            when c.passed = $4::bigint then c.last
            when c.passed < $3::bigint then $1
            else now() end,
       c.passed = $4::bigint and c.due < $2::bigint
  from counted c";

/// $1 ids. Index: the key of job. Locks: the jobs, by id, passing over what others hold: a lease that is being extended at
/// this moment has not ended, and what is being finished needs no rescue.
const HOLD: &str = "
select array(
  select id from minium.job where id = any ($1::bigint[]) and state = 'active' order by id for no key update skip locked)";

/// $1 ids, locked by HOLD in the same transaction, so that no lease is extended any more; $2 why they failed. A statement
/// of its own, since it must see what was extended until they were locked. Index: the keys of job and renewal.
const RESCUE: &str = "
with lost as (
  update minium.job as j
     set state = case when j.attempt < j.attempts then 'inactive' else 'failed' end::minium.state,
         ready = j.attempt < j.attempts and j.left_n = 0,
         seq = nextval('minium.ready_seq'),
         finished = case when j.attempt < j.attempts then j.finished else now() end,
         error = case when j.attempt < j.attempts then j.error else $2::text end,
         result = case when j.attempt < j.attempts then j.result end,
         lease = null, lease_until = null
   where j.id = any ($1::bigint[]) and j.state = 'active'
     and coalesce((select r.until from minium.renewal r where r.job = j.id and r.lease = j.lease), j.lease_until) <= now()
  returning j.id, j.task, j.queue, j.trace, j.state, j.ready, j.attempt, j.worker, minium.snapshot(j) as data),
events as (
  insert into minium.entry (topic, type, subject, trace, data)
  select 'task/' || task || '/' || id, 'task.lost', id::text, trace, data from lost order by id),
failures as (
  insert into minium.failure (job, attempt, worker, error, final)
  select id, attempt, worker, $2::text, state = 'failed' from lost
  on conflict (job, attempt) do nothing),
keys as (
  delete from minium.job_key
   where job = any (array(select id from lost where state = 'failed')) and (until is null or until <= now())),
counts as (delete from minium.running where job = any (array(select id from lost)) returning job),
figures as (
  insert into minium.tally (active, inactive, failed, at)
  select -count(*), count(*) filter (where state = 'inactive'), count(*) filter (where state = 'failed'), now()
    from lost having count(*) > 0)
select queue, task, state::text, array_agg(id), minium.wake_up(bool_or(ready) or exists (select from counts))::text
  from lost group by queue, task, state";

/// Index: job_expires. Locks: the jobs, passing over what others hold.
const EXPIRE: &str = "
select minium.drop_jobs(array(
  select id from minium.job
   where expires <= now() and expires is not null and started is null and state = 'inactive'
   order by expires, id limit $1::bigint for update skip locked), 'task.expired')";

/// $1 where to begin, $2 how many to walk over, $3 how many to delete; the rules: $4 queues (null: every one that is not
/// named), $5 states, $6 ages in microseconds (null: for ever). Index: the key of job, from the oldest on. Locks: the jobs,
/// passing over what others hold.
const REMOVE: &str = "
with rules as materialized (
  select queue, state, now() - us * interval '1 microsecond' as before
    from unnest($4::text[], $5::text[], $6::bigint[]) as r (queue, state, us)),
walked as materialized (
  select id, state::text as state, queue, finished, created from minium.job where id > $1::bigint order by id limit $2::bigint),
old as materialized (
  select w.id from walked w
   where w.state in ('finished', 'failed', 'cancelled')
     and w.finished <= (
       select r.before from rules r
        where r.state = w.state
          and r.queue is not distinct from (select q.queue from rules q where q.queue = w.queue limit 1))
     and not exists (select from minium.edge e where e.parent = w.id
                        and (select c.state in ('inactive', 'active') from minium.job c where c.id = e.child))
   order by w.id limit $3::bigint),
gone as materialized (
  select minium.drop_jobs(array(
    select id from minium.job where id = any (array(select id from old)) and state in ('finished', 'failed', 'cancelled')
     order by id for update skip locked), 'task.removed') as n)
select (select n from gone),
       case when (select count(*) from old) = $3::bigint then (select max(id) from old)
            when (select count(*) from walked) < $2::bigint then 0
            -- ids grow with time: behind a job that is too young there is none that is old enough
            when (select max(created) from walked) > (select max(before) from rules) then 0
            else (select max(id) from walked) end";

/// $1 $2 where to begin, $3 how many edges to look at. Index: edge_open. Locks: children, in id order.
const SWEEP: &str = "
with looked as materialized (
  select parent, child from minium.edge where open and (parent, child) > ($1::bigint, $2::bigint)
   order by parent, child limit $3::bigint),
wrong as materialized (
  select array_agg(l.parent) as parents, array_agg(l.child) as children from looked l
   where not (select minium.holds((select p.state from minium.job p where p.id = l.parent), c.lax or c.on_failure is true)
                from minium.job c where c.id = l.child))
select (select minium.settle_edges(parents, children) from wrong),
       (select count(*) from looked),
       (select parent from looked order by parent desc, child desc limit 1),
       (select child from looked order by parent desc, child desc limit 1)";

/// $1 how many. Keys whose time is over and whose job has ended, and places under a limit whose job does not run any more:
/// what ends a run gives its place back, so these are repairs. Indexes: job_key_until, the key of job; running is small.
/// Locks: the keys, passing over what others hold.
const LET_GO: &str = "
with keys as (
  delete from minium.job_key where ctid = any (array(
    select k.ctid from minium.job_key k
     where k.until <= now()
       and not exists (select from minium.job j where j.id = k.job and j.state in ('inactive', 'active'))
     order by k.until limit $1::bigint for update skip locked))),
-- one whose job lives is held while it does: it is not looked at again
held_on as (
  update minium.job_key set until = null where ctid = any (array(
    select k.ctid from minium.job_key k
     where k.until <= now()
       and exists (select from minium.job j where j.id = k.job and j.state in ('inactive', 'active'))
     order by k.until limit $1::bigint for update skip locked)))
delete from minium.running r
 where not exists (select from minium.job j where j.id = r.job and j.state = 'active')";

/// Hours that are told no more.
const FORGET_HOURS: &str = "delete from minium.hour where hour < now() - interval '8 days'";

/// Renewals of jobs that nobody runs any more.
const FORGET: &str = "
delete from minium.renewal r
 where r.until <= now()
   and not coalesce((select j.state = 'active' and j.lease = r.lease from minium.job j where j.id = r.job), false)";

/// Adds the figures up, so that reading them stays cheap, and to those of their hours. Each row has one sign for each state, so
/// that what is above zero has ended. Two processes at once fold different rows. Locks: those rows, then hours in their order.
const FOLD: &str = "
with d as (
  delete from minium.tally where ctid = any (array(
    select ctid from minium.tally
     where (select count(*) from (select from minium.tally limit 20) few) = 20 limit 50000 for update skip locked))
  returning *),
hours as (
  insert into minium.hour as h (hour, finished, failed, cancelled)
  select date_trunc('hour', at, 'UTC'), sum(greatest(finished, 0)), sum(greatest(failed, 0)), sum(greatest(cancelled, 0))
    from d where at is not null group by 1 order by 1
  on conflict (hour) do update
     set finished = h.finished + excluded.finished, failed = h.failed + excluded.failed,
         cancelled = h.cancelled + excluded.cancelled)
insert into minium.tally (inactive, active, finished, failed, cancelled, at)
select sum(inactive), sum(active), sum(finished), sum(failed), sum(cancelled), null from d having count(*) > 0";

/// Index: job_later.
const DUE_IN: &str = "
select (extract(epoch from min(later_at) - now()) * 1000000)::bigint from minium.job where later_at is not null";

/// What a round has rescued.
#[derive(Default)]
struct Found {
    rescued: u64,
    /// Those of them that failed for good.
    ended: Vec<i64>,
    /// Where the next round begins, since somebody was at one of those behind.
    left: Option<Option<Timestamp>>,
}

/// How a look at some leases went.
struct Piece {
    /// Nobody else was at one of those that were lost.
    all_held: bool,
    /// There are more to look at just now.
    more: bool,
}

impl PgStore {
    pub(super) async fn keep_up(&self, round: &UpkeepRules) -> Result<Upkept, QueueError> {
        let walks = || self.walks.lock().unwrap_or_else(PoisonError::into_inner);
        let mut on = walks().clone();
        let kept = self.keep_up_from(round, &mut on).await;
        // a step that failed must not make those before it begin anew
        *walks() = on;
        kept
    }

    async fn keep_up_from(&self, round: &UpkeepRules, walks: &mut Walks) -> Result<Upkept, QueueError> {
        let batch = i64::from(round.batch.max(1));
        let (grace_us, absence_us) = (rules::micros(round.grace), rules::micros(round.absence));
        let grace_over: bool =
            self.step("look since when leases count", GRACE, &[&grace_us, &absence_us]).await?.get(0);
        let staged = self.step("stage delayed jobs", STAGE, &[&batch]).await?;
        let staged = count(staged.get(0));
        let rescued = if grace_over { self.rescue(batch, walks).await? } else { 0 };
        let expired = count(self.step("remove jobs that expired", EXPIRE, &[&batch]).await?.get(0));
        let removed = self.remove_old(round, batch, walks).await?;
        let released = self.sweep(batch, walks).await? + self.settle_left(LEFT_PIECES_MAX).await;
        let lanes = self.tend_lanes(batch, walks).await?;
        self.execute("forget renewals", FORGET, &[]).await?;
        self.forget_workers(round.worker_missing).await?;
        self.execute("let keys and places go", LET_GO, &[&batch]).await?;
        self.purge_locks(batch).await?;
        self.execute("add up figures", FOLD, &[]).await?;
        self.execute("forget hours", FORGET_HOURS, &[]).await?;
        self.execute("note that the queue is looked after", TENDED, &[]).await?;
        self.execute("look whether the journal's reader is there", DISARM, &[]).await?;
        let due_in: Option<i64> = self.step("look for what is due next", DUE_IN, &[]).await?.get(0);
        if staged + rescued + expired + removed + released + lanes > 0 {
            self.wake(true);
        }
        let due_in = due_in.map(|us| Duration::from_micros(u64::try_from(us).unwrap_or(0)));
        Ok(Upkept { staged, rescued, expired, released, removed, due_in })
    }

    async fn rescue(&self, batch: i64, walks: &mut Walks) -> Result<u64, QueueError> {
        let mut found = Found::default();
        let looked = self.rescue_in_pieces(batch, walks, &mut found).await;
        if let Some(begun) = found.left {
            walks.lease_mark = begun;
        }
        // those that failed for good before an error are committed
        self.settle(found.ended).await;
        looked.map(|()| found.rescued)
    }

    /// Leases of jobs that have long finished are passed over in pieces, a bounded number in a round: other steps wait behind.
    async fn rescue_in_pieces(
        &self,
        batch: i64,
        walks: &mut Walks,
        found: &mut Found,
    ) -> Result<(), QueueError> {
        for _ in 0..LEASES_PIECES_MAX {
            let begun = walks.lease_mark;
            let piece = self.rescue_some(batch, &mut walks.lease_mark, found).await?;
            // somebody was at one of them just now: it is looked at again, but nothing behind it waits for that
            if !piece.all_held {
                found.left = found.left.or(Some(begun));
            }
            if !piece.more {
                break;
            }
        }
        let now = Instant::now();
        if walks.leases_again.is_some_and(|at| now >= at) {
            walks.again_mark = Some(Timestamp::UNIX_EPOCH);
        }
        if walks.leases_again.is_none_or(|at| now >= at) {
            walks.leases_again = Some(now + LEASES_AGAIN);
        }
        if walks.again_mark.is_some() {
            let piece = self.rescue_some(batch, &mut walks.again_mark, found).await?;
            if !piece.more || walks.again_mark >= walks.lease_mark {
                walks.again_mark = None;
            }
        }
        Ok(())
    }

    /// Looks at some leases that ended.
    async fn rescue_some(
        &self,
        batch: i64,
        from: &mut Option<Timestamp>,
        found: &mut Found,
    ) -> Result<Piece, QueueError> {
        let mark = from.unwrap_or(Timestamp::UNIX_EPOCH);
        let params: [&(dyn ToSql + Sync); 4] = [&mark, &batch, &LEASES_PASSED_MAX, &LEASES_LOOKED_MAX];
        let looked = self.step("look for leases that ended", ENDED, &params).await?;
        let ids: Vec<i64> = looked.get(0);
        let (rows, held) = match &ids[..] {
            [] => (Vec::new(), 0),
            ids => self.connections.run("rescue jobs", |client: Session| rescue_held(client, ids)).await?,
        };
        let ids_due = ids.len();
        *from = looked.get(1);
        for row in &rows {
            let (queue, task, state, ids): (&str, &str, &str, Vec<i64>) =
                (row.get(0), row.get(1), row.get(2), row.get(3));
            let n = ids.len() as u64;
            found.rescued += n;
            count_jobs(LEASES_EXPIRED, queue, task, None, n);
            if state == State::Failed.as_str() {
                count_jobs(JOBS_FINISHED, queue, task, Some(State::Failed.as_str()), n);
                found.ended.extend(ids);
            }
        }
        Ok(Piece { all_held: held == ids_due, more: looked.get(2) })
    }

    async fn remove_old(
        &self,
        round: &UpkeepRules,
        batch: i64,
        walks: &mut Walks,
    ) -> Result<u64, QueueError> {
        if round.keep.is_for_ever() {
            return Ok(0);
        }
        let rules = round.keep.rules();
        let queues: Vec<_> = rules.iter().map(|rule| rule.queue).collect();
        let states: Vec<_> = rules.iter().map(|rule| rule.state.as_str()).collect();
        let ages: Vec<_> = rules.iter().map(|rule| rule.micros).collect();
        let walk = batch * WALK_SHARE;
        let params: [&(dyn ToSql + Sync); 6] = [&walks.job, &walk, &batch, &queues, &states, &ages];
        let row = self.step("remove old jobs", REMOVE, &params).await?;
        walks.job = row.get::<_, Option<i64>>(1).unwrap_or(0);
        Ok(count(row.get(0)))
    }

    async fn sweep(&self, batch: i64, walks: &mut Walks) -> Result<u64, QueueError> {
        let row = self
            .step("release jobs whose parents have ended", SWEEP, &[&walks.edge.0, &walks.edge.1, &batch])
            .await?;
        let last = row.get::<_, Option<i64>>(2).zip(row.get::<_, Option<i64>>(3));
        walks.edge = last.filter(|_| row.get::<_, i64>(1) == batch).unwrap_or_default();
        Ok(count(row.get(0)))
    }

    pub(super) async fn step(
        &self,
        attempted: &'static str,
        sql: &'static str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Row, QueueError> {
        let step = |client: Session| async move {
            let statement = client.prepare_cached(sql).await?;
            client.query_one(&statement, params).await
        };
        self.connections.run(attempted, step).await
    }

    pub(super) async fn rows(
        &self,
        attempted: &'static str,
        sql: &'static str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, QueueError> {
        let rows = |client: Session| async move {
            let statement = client.prepare_cached(sql).await?;
            client.query(&statement, params).await
        };
        self.connections.run(attempted, rows).await
    }

    pub(super) async fn execute(
        &self,
        attempted: &'static str,
        sql: &'static str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<u64, QueueError> {
        let execute = |client: Session| async move {
            let statement = client.prepare_cached(sql).await?;
            client.execute(&statement, params).await
        };
        self.connections.run(attempted, execute).await
    }
}

/// What was lost, and how many jobs were there to be held.
async fn rescue_held(mut client: Session, ids: &[i64]) -> Result<(Vec<Row>, usize), tokio_postgres::Error> {
    let transaction = client.transaction().await?;
    let hold = transaction.prepare_cached(HOLD).await?;
    let held: Vec<i64> = transaction.query_one(&hold, &[&ids]).await?.get(0);
    let rescue = transaction.prepare_cached(RESCUE).await?;
    let rows = transaction.query(&rescue, &[&held, &rules::LEASE_EXPIRED]).await?;
    transaction.commit().await?;
    Ok((rows, held.len()))
}

fn count(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}
