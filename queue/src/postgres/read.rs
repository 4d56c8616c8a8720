//! Reads: one job, figures.

use super::PgStore;
use super::session::Session;
use crate::error::QueueError;
use crate::rules;
use crate::store::{AttemptFailure, Hour, Stats};
use crate::workers::{KIND_OWN, STALE_AFTER};
use minium_protocol::{JobResult, JobView, Phase, State};
use serde_json::value::RawValue;

/// One that is ready stays so when the clock is put back to before its time. Indexes: the keys of job and edge.
const GET: &str = "
select minium.snapshot(j)::text, j.state::text, j.left_n, coalesce(j.later_at > now(), false),
       array(select e.child from minium.edge e where e.parent = j.id order by e.child)
  from minium.job j where j.id = $1";

/// Indexes: edge_open, job_later; the rest are sums of few rows.
const STATS: &str = "
select sum(inactive)::bigint, sum(active)::bigint, sum(finished)::bigint, sum(failed)::bigint, sum(cancelled)::bigint,
       (select count(*) from minium.job j
         where j.state = 'inactive' and j.left_n > 0
           and j.id = any (array(select distinct e.child from minium.edge e where e.open))),
       (select count(*) from minium.job j where j.later_at > now() and j.left_n = 0),
       (select array[count(*) filter (where fresh and not own and running > 0),
                     count(*) filter (where fresh and not own and running = 0), count(*) filter (where not fresh and not own),
                     count(*) filter (where fresh and own)]
          from (select running, kind = $2::text as own,
                       heartbeat >= now() - $1::bigint * interval '1 microsecond' as fresh
                  from minium.worker) known),
       (select case when is_called then last_value else 0 end from minium.job_id),
       (select count(*) from minium.lock where until > now()),
       (select array[count(*), count(*) filter (where paused)] from minium.schedule where request is not null)
  from minium.tally";

/// $1 ids, $2 bytes. One row for each job, also for one that is gone, until those before it have so many bytes together. The
/// look for each job stands behind a fence (`offset`), so that it is one by the key, whatever the planner thinks of the table.
/// Index: the key of job.
const RESULTS: &str = "
with found as (
  select asked.id, asked.nth, j.state, j.result, j.error,
         sum(coalesce(octet_length(j.result), 0) + coalesce(octet_length(j.error), 0))
           over (order by asked.nth rows between unbounded preceding and 1 preceding) as before
    from unnest($1::bigint[]) with ordinality as asked (id, nth)
         left join lateral (
           select j.state::text, j.result::text, j.error from minium.job j where j.id = asked.id offset 0) j on true)
select id, state, result, error from found where coalesce(before, 0) < $2::bigint or nth = 1 order by nth";

/// Index: the key of failure.
const FAILURES: &str = "
select attempt, at, worker::text, error, backtrace from minium.failure where job = $1 order by attempt";

/// $1 how many hours. What is not folded yet is added to what is. Index: the key of hour; the tally has few rows.
const HOURS: &str = "
with wanted as (
  select date_trunc('hour', now(), 'UTC') - n * interval '1 hour' as hour from generate_series(0, $1::int - 1) n),
fresh as (
  select date_trunc('hour', at, 'UTC') as hour, sum(greatest(finished, 0)) as finished, sum(greatest(failed, 0)) as failed,
         sum(greatest(cancelled, 0)) as cancelled
    from minium.tally where at is not null group by 1)
select w.hour, coalesce(h.finished, 0) + coalesce(f.finished, 0)::bigint, coalesce(h.failed, 0) + coalesce(f.failed, 0)::bigint,
       coalesce(h.cancelled, 0) + coalesce(f.cancelled, 0)::bigint
  from wanted w left join minium.hour h on h.hour = w.hour left join fresh f on f.hour = w.hour order by w.hour";

impl PgStore {
    pub(super) async fn get_job(&self, job: i64) -> Result<Option<JobView>, QueueError> {
        let get = |client: Session| async move {
            let statement = client.prepare_cached(GET).await?;
            client.query_opt(&statement, &[&job]).await
        };
        let Some(row) = self.connections.run("read a job", get).await? else { return Ok(None) };
        let state: State = row.get::<_, &str>(1).parse().expect("the column's type knows the states");
        let (left, ahead): (i32, bool) = (row.get(2), row.get(3));
        Ok(Some(JobView {
            snapshot: json(row.get(0)),
            phase: phase(state, left, ahead),
            children: row.get(4),
        }))
    }

    pub(super) async fn figures(&self) -> Result<Stats, QueueError> {
        let fresh_us = rules::micros(STALE_AFTER);
        let figures = |client: Session| async move {
            let statement = client.prepare_cached(STATS).await?;
            client.query_one(&statement, &[&fresh_us, &KIND_OWN]).await
        };
        let row = self.connections.run("count jobs", figures).await?;
        // without rows the sums are null
        let sum = |i| row.get::<_, Option<i64>>(i).unwrap_or(0);
        let (workers, schedules): (Vec<i64>, Vec<i64>) = (row.get(7), row.get(10));
        Ok(Stats {
            inactive: sum(0),
            active: sum(1),
            finished: sum(2),
            failed: sum(3),
            cancelled: sum(4),
            blocked: sum(5),
            delayed: sum(6),
            workers: workers[0] + workers[1],
            active_workers: workers[0],
            inactive_workers: workers[1],
            stale_workers: workers[2],
            own_workers: workers[3],
            enqueued: sum(8),
            active_locks: sum(9),
            schedules: schedules[0],
            inactive_schedules: schedules[1],
        })
    }

    pub(super) async fn results_of(
        &self,
        jobs: &[i64],
        bytes_max: usize,
    ) -> Result<Vec<JobResult>, QueueError> {
        rules::check_results(jobs)?;
        let bytes_max = i64::try_from(bytes_max).unwrap_or(i64::MAX);
        let rows = self.rows("read what jobs have brought", RESULTS, &[&jobs, &bytes_max]).await?;
        let result = |row: &tokio_postgres::Row| JobResult {
            id: row.get(0),
            state: row
                .get::<_, Option<&str>>(1)
                .map(|state| state.parse().expect("the column's type knows the states")),
            result: row.get::<_, Option<String>>(2).map(json),
            error: row.get(3),
        };
        Ok(rows.iter().map(result).collect())
    }

    pub(super) async fn failures_of(&self, job: i64) -> Result<Vec<AttemptFailure>, QueueError> {
        let failures = |client: Session| async move {
            let statement = client.prepare_cached(FAILURES).await?;
            client.query(&statement, &[&job]).await
        };
        let rows = self.connections.run("read why a job failed", failures).await?;
        let failure = |row: &tokio_postgres::Row| AttemptFailure {
            attempt: row.get(0),
            at: row.get(1),
            worker: row.get::<_, Option<&str>>(2).and_then(|json| serde_json::from_str(json).ok()),
            error: row.get(3),
            backtrace: row.get(4),
        };
        Ok(rows.iter().map(failure).collect())
    }

    pub(super) async fn last_hours(&self) -> Result<Vec<Hour>, QueueError> {
        let hours = |client: Session| async move {
            let statement = client.prepare_cached(HOURS).await?;
            client.query(&statement, &[&rules::HOURS_TOLD]).await
        };
        let rows = self.connections.run("read what each hour brought", hours).await?;
        let hour = |row: &tokio_postgres::Row| Hour {
            hour: row.get(0),
            finished: row.get(1),
            failed: row.get(2),
            cancelled: row.get(3),
        };
        Ok(rows.iter().map(hour).collect())
    }

    pub(super) async fn answers(&self) -> Result<(), QueueError> {
        let ask = |client: Session| async move { client.simple_query("select 1").await };
        self.connections.run("reach the database", ask).await.map(drop)
    }
}

fn phase(state: State, left: i32, ahead: bool) -> Option<Phase> {
    // the database's clock has decided what lies ahead; the rule only needs to know that it does
    rules::phase(state, left.into(), i64::from(ahead), 0)
}

pub(super) fn json(text: String) -> Box<RawValue> {
    RawValue::from_string(text).expect("the column's type admits JSON only")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_are_those_of_the_rules() {
        assert_eq!(phase(State::Inactive, 1, true), Some(Phase::Blocked));
        assert_eq!(phase(State::Inactive, 0, true), Some(Phase::Delayed));
        assert_eq!(phase(State::Inactive, 0, false), Some(Phase::Ready));
        assert_eq!(phase(State::Active, 0, false), None);
    }
}
