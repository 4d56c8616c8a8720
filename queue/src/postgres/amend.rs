//! A job that waits is amended: one statement that changes it and writes the event, behind a lock of its row.

use super::PgStore;
use super::operations::{self, Change, Said};
use super::session::Session;
use crate::amend::{self, Amendment};
use crate::error::QueueError;
use crate::rules;
use tokio_postgres::types::ToSql;

/// $2 delay in microseconds, $3 priority, $4 queue, each null for what it has; $5 to $6 what is added to the notes and taken
/// from them. Index: the key of job. Locks: the job, which has been locked before.
const AMEND: &str = "
with
j as (
  update minium.job as j
     set priority = coalesce($3::int, j.priority), queue = coalesce($4::text, j.queue),
         delayed = case when $2::bigint is null then j.delayed else now() + $2::bigint * interval '1 microsecond' end,
         later_at = case when $2::bigint is null then j.later_at
                         when $2::bigint > 0 then now() + $2::bigint * interval '1 microsecond' end,
         ready = case when $2::bigint is null then j.ready else $2::bigint = 0 and j.left_n = 0 end,
         seq = nextval('minium.ready_seq'), notes = (j.notes || $5::text::jsonb) - $6::text[]
   where j.id = $1
  returning j.id, j.task, j.trace, j.queue, j.priority, j.ready, minium.snapshot(j) as data),
events as (
  insert into minium.entry (topic, type, subject, trace, data)
  select 'task/' || task || '/' || id, 'task.changed', id::text, trace, data from j),
lanes as (
  insert into minium.lane (queue, priority)
  select queue, priority from j
   where not exists (select from minium.lane l where l.queue = j.queue and l.priority = j.priority))
select ready, minium.wake_up(ready)::text from j";

impl PgStore {
    pub(super) async fn amend_job(&self, job: i64, amendment: &Amendment) -> Result<(), QueueError> {
        amend::check_amendment(amendment)?;
        let notes = Change::new(&amendment.annotation());
        let notes = &notes;
        let amend = |client: Session| amend_locked(client, job, amendment, notes);
        let ready = self.connections.run("amend a job", amend).await??;
        self.wake(ready);
        Ok(())
    }
}

/// Answers whether the job is ready.
async fn amend_locked(mut client: Session, job: i64, amendment: &Amendment, notes: &Change) -> Said<bool> {
    let transaction = client.transaction().await?;
    let Some(row) = operations::lock(&transaction, job).await? else {
        return Ok(Err(QueueError::NotFound(job)));
    };
    if let Err(refusal) = amend::may_amend(job, row.state) {
        return Ok(Err(refusal));
    }
    if let Err(refusal) = notes.check_bytes(&transaction, job).await? {
        return Ok(Err(refusal));
    }
    let statement = transaction.prepare_cached(AMEND).await?;
    let delay_us = amendment.delay.map(rules::micros);
    let params: [&(dyn ToSql + Sync); 6] =
        [&job, &delay_us, &amendment.priority, &amendment.queue, &notes.added, &notes.taken];
    let ready = transaction.query_one(&statement, &params).await?.get(0);
    transaction.commit().await?;
    Ok(Ok(ready))
}
