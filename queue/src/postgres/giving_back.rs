//! Runs that end without an outcome and cost no attempt: jobs that were claimed and not begun, and those that put themselves off.

use super::PgStore;
use super::operations::one_by_one;
use super::session::Session;
use crate::error::QueueError;
use crate::rules;
use minium_protocol::LeaseToken;
use std::time::Duration;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

/// $1 ids in their order, $2 their leases. Index: the key of job. Locks: the jobs, by id.
const RELEASE: &str = "
with
r as (
  update minium.job as j
     set state = 'inactive', attempt = j.attempt - 1, started = case when j.attempt > 1 then j.started end,
         ready = j.left_n = 0, seq = nextval('minium.ready_seq'), lease = null, lease_until = null
   where j.id = any ($1::bigint[]) and j.state = 'active'
     and j.lease = ($2::uuid[])[width_bucket(j.id, $1::bigint[])]
  returning j.id, j.task, j.trace, j.ready, j.limited, minium.snapshot(j) as data),
events as (
  insert into minium.entry (topic, type, subject, trace, data)
  select 'task/' || task || '/' || id, 'task.lost', id::text, trace, data from r order by id),
counts as (
  delete from minium.running where job = any (array(select id from r where limited is not null))),
figures as (
  insert into minium.tally (active, inactive) select -count(*), count(*) from r having count(*) > 0)
select count(*), minium.wake_up(coalesce(bool_or(ready), false))::text from r";

/// $1 the job, $2 its lease, $3 the pause in microseconds. Index: the key of job. Locks: the job.
const POSTPONE: &str = "
with
r as (
  update minium.job as j
     set state = 'inactive', attempt = j.attempt - 1, started = case when j.attempt > 1 then j.started end,
         retried = now(), delayed = now() + $3::bigint * interval '1 microsecond',
         later_at = case when $3::bigint > 0 then now() + $3::bigint * interval '1 microsecond' end,
         ready = $3::bigint = 0 and j.left_n = 0, seq = nextval('minium.ready_seq'), lease = null, lease_until = null
   where j.id = $1::bigint and j.state = 'active' and j.lease = $2::uuid
  returning j.id, j.task, j.trace, j.ready, j.limited, minium.snapshot(j) as data),
events as (
  insert into minium.entry (topic, type, subject, trace, data)
  select 'task/' || task || '/' || id, 'task.retry', id::text, trace, data from r),
counts as (
  delete from minium.running where job = any (array(select id from r where limited is not null))),
figures as (
  insert into minium.tally (active, inactive) select -count(*), count(*) from r having count(*) > 0)
select count(*), minium.wake_up(coalesce(bool_or(ready), false))::text from r";

impl PgStore {
    pub(super) async fn release_jobs(&self, leases: &[(i64, LeaseToken)]) -> Result<u64, QueueError> {
        let mut released = 0;
        for batch in one_by_one(leases, self.options.batch_max) {
            let (ids, tokens): (Vec<i64>, Vec<Uuid>) =
                batch.iter().map(|(job, lease)| (*job, lease.0)).unzip();
            let params: [&(dyn ToSql + Sync); 2] = [&ids, &tokens];
            let params = &params;
            let release = |client: Session| async move {
                let statement = client.prepare_cached(RELEASE).await?;
                client.query_one(&statement, params).await
            };
            let row = self.connections.run("give jobs back", release).await?;
            released += u64::try_from(row.get::<_, i64>(0)).unwrap_or(0);
        }
        self.wake(released > 0);
        Ok(released)
    }

    pub(super) async fn put_off(
        &self,
        job: i64,
        lease: LeaseToken,
        pause: Duration,
    ) -> Result<bool, QueueError> {
        let pause = rules::micros(pause.min(rules::BACKOFF_MAX));
        let postpone = |client: Session| async move {
            let statement = client.prepare_cached(POSTPONE).await?;
            client.query_one(&statement, &[&job, &lease.0, &pause]).await
        };
        let row = self.connections.run("put a job off", postpone).await?;
        let held = row.get::<_, i64>(0) > 0;
        self.wake(held);
        Ok(held)
    }
}
