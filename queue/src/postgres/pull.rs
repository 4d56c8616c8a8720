//! Claims for pullers (`pull.sql`), and what they give back.
//!
//! There are no low-water marks here: an index entry leads to jobs of one task only, so there is little to pass over.

use super::PgStore;
use super::operations::one_by_one;
use super::session::Session;
use crate::error::QueueError;
use crate::rules;
use crate::store::{Leased, Pull, Pulled};
use minium_protocol::LeaseToken;
use serde_json::value::RawValue;
use std::time::Duration;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

const WHAT: &str = "claim jobs for pullers";
pub(super) const PULL: &str = include_str!("pull.sql");

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

/// One array for each column of `pull.sql`.
#[derive(Default)]
struct Columns<'a> {
    queues: Vec<&'a str>,
    tasks: Vec<String>,
    limits: Vec<i64>,
    leases: Vec<i64>,
    bases: Vec<i64>,
    workers: Vec<String>,
}

impl<'a> Columns<'a> {
    fn new(pulls: &'a [Pull]) -> Columns<'a> {
        let mut c = Columns::default();
        for (pull, limit) in pulls.iter().zip(rules::pull_limits(pulls)) {
            c.queues.push(&pull.queue);
            c.tasks.push(array_text(&pull.tasks));
            c.limits.push(i64::try_from(limit).unwrap_or(i64::MAX));
            c.leases.push(rules::micros(pull.lease));
            c.bases.push(i64::try_from(c.workers.len()).unwrap_or(i64::MAX));
            let json = |worker| serde_json::to_string(worker).expect("a worker is plain JSON");
            c.workers.extend(pull.workers.iter().take(limit).map(json));
        }
        c
    }

    fn params(&self) -> [&(dyn ToSql + Sync); 6] {
        [&self.queues, &self.tasks, &self.limits, &self.leases, &self.bases, &self.workers]
    }

    /// Whose the job at a place is, from 1 over all workers: which pull, and which of its workers. Of pulls that begin at
    /// one base only the last takes anything.
    fn owner(&self, place: i64) -> (usize, usize) {
        let pull = self.bases.partition_point(|base| *base < place).saturating_sub(1);
        (pull, usize::try_from(place - 1 - self.bases[pull]).unwrap_or(0))
    }
}

/// An array of texts as PostgreSQL writes one, since an array of arrays cannot be ragged.
fn array_text(names: &[String]) -> String {
    let quoted = |name: &String| format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""));
    format!("{{{}}}", names.iter().map(quoted).collect::<Vec<_>>().join(","))
}

impl PgStore {
    pub(super) async fn pull_jobs(&self, pulls: &[Pull]) -> Result<Vec<Pulled>, QueueError> {
        rules::check_pulls(pulls)?;
        let columns = Columns::new(pulls);
        if columns.workers.is_empty() {
            return Ok(Vec::new());
        }
        let params = &columns.params();
        let claim = |client: Session| async move {
            let statement = client.prepare_cached(PULL).await?;
            client.query(&statement, params).await
        };
        let rows = self.connections.run(WHAT, claim).await?;
        let mut pulled = Vec::with_capacity(rows.len());
        for row in &rows {
            // a row without a place is only there to have woken the journal's reader
            if let Some(place) = row.get::<_, Option<i64>>(0) {
                let (pull, place) = columns.owner(place);
                pulled.push(Pulled { pull, place, job: leased(row), snapshot: json(row.get(14)) });
            }
        }
        if pulled.len() < columns.workers.len() {
            let mut taken = vec![0; pulls.len()];
            pulled.iter().for_each(|p: &Pulled| taken[p.pull] = taken[p.pull].max(p.place + 1));
            match self.pull_limited(pulls, &taken, &mut pulled).await {
                Ok(()) => {}
                // what was claimed is committed, and must reach whoever asked
                Err(error) => tracing::warn!(%error, "A look for jobs under limits has failed."),
            }
        }
        pulled.sort_by_key(|p| (p.pull, p.place));
        if !pulled.is_empty() {
            self.wake(false);
        }
        if pulled.len() < columns.workers.len() {
            self.ask_to_be_woken().await;
        }
        Ok(pulled)
    }

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

/// A claimed job, from its second column on as `pull.sql`, `capped.sql` and `limits` answer it.
pub(super) fn leased(row: &Row) -> Leased {
    let timeout: Option<i64> = row.get(9);
    Leased {
        id: row.get(1),
        task: row.get(2),
        queue: row.get(3),
        args: json(row.get(4)),
        attempt: row.get(5),
        attempts: row.get(6),
        lease: LeaseToken(row.get(7)),
        lease_expires: row.get(8),
        timeout: timeout.and_then(|us| u64::try_from(us).ok()).map(Duration::from_micros),
        trace: row.get(10),
        priority: row.get(11),
        notes: notes(row.get(1), row.get(12)),
        parents: row.get::<_, Option<_>>(13).unwrap_or_default(),
    }
}

/// A job's notes; most have none. Whoever writes rows by hand may keep what JSON's readers refuse: its claim stands all the
/// same, and nobody else's jobs are to suffer.
pub(super) fn notes(job: i64, text: Option<&str>) -> serde_json::Map<String, serde_json::Value> {
    text.map_or_else(Default::default, |text| {
        serde_json::from_str(text).unwrap_or_else(|error| {
            tracing::warn!(job, %error, "The notes of a job cannot be read; it is given out without them.");
            serde_json::Map::new()
        })
    })
}

pub(super) fn json(text: String) -> Box<RawValue> {
    RawValue::from_string(text).expect("the column's type admits JSON only")
}

#[cfg(test)]
mod tests {
    use super::*;
    use minium_protocol::WorkerRef;

    #[test]
    fn each_place_has_its_owner() {
        let worker = WorkerRef { id: 1, host: "h".into(), pid: 1 };
        let pull = |count| Pull {
            queue: "default".into(),
            tasks: vec!["a".into()],
            lease: Duration::from_secs(1),
            workers: vec![worker.clone(); count],
        };
        let pulls = [pull(0), pull(2), pull(0), pull(1), pull(3)];
        let columns = Columns::new(&pulls);
        let owners: Vec<_> = (1..=6).map(|place| columns.owner(place)).collect();
        assert_eq!(owners, [(1, 0), (1, 1), (3, 0), (4, 0), (4, 1), (4, 2)]);
    }

    #[test]
    fn names_are_written_as_an_array() {
        assert_eq!(array_text(&["a/b".into(), "c\"\\".into()]), r#"{"a/b","c\"\\"}"#);
        assert_eq!(array_text(&[]), "{}");
    }
}
