//! Enqueues jobs: one, many, or inside of a caller's own transaction. The work is done by the SQL function
//! `minium.enqueue_jobs`, which `minium.enqueue` for SQL callers uses too.

use super::PgStore;
use super::connection::failed;
use crate::error::QueueError;
use crate::metrics::{JOBS_ENQUEUED, count_jobs};
use crate::rules;
use crate::store::Enqueued;
use minium_protocol::EnqueueRequest;
use std::collections::HashMap;
use std::time::Duration;
use tokio_postgres::GenericClient;
use tokio_postgres::types::ToSql;

const WHAT: &str = "enqueue jobs";
const ENQUEUE: &str = "select job, existing from minium.enqueue_jobs($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, \
                       $12, $13, $14, $15, $16) order by place";

/// One array for each column: a statement's length does not depend on how many jobs it enqueues.
#[derive(Default)]
struct Columns<'a> {
    tasks: Vec<&'a str>,
    args: Vec<String>,
    queues: Vec<&'a str>,
    priorities: Vec<i32>,
    attempts: Vec<i32>,
    delays: Vec<i64>,
    expiries: Vec<Option<i64>>,
    laxes: Vec<bool>,
    notes: Vec<String>,
    parents: Vec<String>,
    keys: Vec<Option<&'a str>>,
    timeouts: Vec<Option<i64>>,
    backoffs: Vec<Option<i64>>,
    schedules: Vec<Option<&'a str>>,
    origins: Vec<Option<i64>>,
    traces: Vec<Option<String>>,
}

impl<'a> Columns<'a> {
    fn new(requests: &'a [EnqueueRequest]) -> Columns<'a> {
        let micros = |span: Option<Duration>| span.map(rules::micros);
        let mut c = Columns::default();
        for request in requests {
            let o = &request.options;
            c.tasks.push(&request.task);
            c.args.push(rules::one_line(request.args.get()).into_owned());
            c.queues.push(&o.queue);
            c.priorities.push(o.priority);
            c.attempts.push(o.attempts);
            c.delays.push(rules::micros(o.delay));
            c.expiries.push(micros(o.expire));
            c.laxes.push(o.lax);
            c.notes.push(rules::notes_text(&rules::storable_notes(&o.notes)));
            c.parents.push(array_text(&rules::distinct_parents(&o.parents)));
            c.keys.push(o.key.as_deref());
            c.timeouts.push(micros(o.timeout));
            c.backoffs.push(micros(o.backoff));
            c.schedules.push(o.schedule.as_deref());
            c.origins.push(o.origin);
            c.traces.push(o.trace.as_deref().map(|t| rules::storable(t).into_owned()));
        }
        c
    }

    fn params(&self) -> [&(dyn ToSql + Sync); 16] {
        [
            &self.tasks,
            &self.args,
            &self.queues,
            &self.priorities,
            &self.attempts,
            &self.delays,
            &self.expiries,
            &self.laxes,
            &self.notes,
            &self.parents,
            &self.keys,
            &self.timeouts,
            &self.backoffs,
            &self.schedules,
            &self.origins,
            &self.traces,
        ]
    }
}

/// An array as PostgreSQL writes one, since an array of arrays cannot be ragged.
fn array_text(ids: &[i64]) -> String {
    let ids: Vec<_> = ids.iter().map(i64::to_string).collect();
    format!("{{{}}}", ids.join(","))
}

impl PgStore {
    /// Enqueues inside of the caller's transaction, all or none: the jobs exist when it commits. The connection may
    /// be any to the store's database whose role may call `minium.enqueue_jobs`.
    ///
    /// # Errors
    /// [`QueueError::Invalid`] for a request that breaks a rule. What the database refuses has ended the transaction.
    pub async fn enqueue_in<C: GenericClient + Sync>(
        &self,
        client: &C,
        requests: &[EnqueueRequest],
    ) -> Result<Vec<Enqueued>, QueueError> {
        rules::check_requests(requests)?;
        let mut all = Vec::with_capacity(requests.len());
        for batch in requests.chunks(self.options.batch_max) {
            let rows = client.query(ENQUEUE, &Columns::new(batch).params()).await;
            all.extend(rows.map_err(|e| failed(WHAT, e))?.iter().map(enqueued));
        }
        Ok(all)
    }

    pub(super) async fn enqueue_jobs(
        &self,
        requests: &[EnqueueRequest],
    ) -> Result<Vec<Enqueued>, QueueError> {
        rules::check_requests(requests)?;
        let all = match requests {
            [] => return Ok(Vec::new()),
            batch if batch.len() <= self.options.batch_max => self.enqueue_batch(batch).await?,
            many => self.enqueue_batches(many).await?,
        };
        count(requests, &all);
        self.wake(true);
        let parents: Vec<i64> = requests.iter().flat_map(|r| r.options.parents.iter().copied()).collect();
        // what ended while this was being committed did not see these children
        self.settle(parents).await;
        Ok(all)
    }

    async fn enqueue_batch(&self, batch: &[EnqueueRequest]) -> Result<Vec<Enqueued>, QueueError> {
        let columns = &Columns::new(batch);
        let enqueue = |client: deadpool_postgres::Object| async move {
            let statement = client.prepare_cached(ENQUEUE).await?;
            client.query(&statement, &columns.params()).await
        };
        Ok(self.connections.run(WHAT, enqueue).await?.iter().map(enqueued).collect())
    }

    async fn enqueue_batches(&self, requests: &[EnqueueRequest]) -> Result<Vec<Enqueued>, QueueError> {
        let size = self.options.batch_max;
        let enqueue = |mut client: deadpool_postgres::Object| async move {
            let transaction = client.transaction().await?;
            let statement = transaction.prepare_cached(ENQUEUE).await?;
            let mut all = Vec::with_capacity(requests.len());
            for batch in requests.chunks(size) {
                let rows = transaction.query(&statement, &Columns::new(batch).params()).await?;
                all.extend(rows.iter().map(enqueued));
            }
            transaction.commit().await?;
            Ok(all)
        };
        self.connections.run(WHAT, enqueue).await
    }
}

fn enqueued(row: &tokio_postgres::Row) -> Enqueued {
    Enqueued { id: row.get(0), existing: row.get(1) }
}

fn count(requests: &[EnqueueRequest], answers: &[Enqueued]) {
    let mut counts: HashMap<(&str, &str), u64> = HashMap::new();
    for (request, _) in requests.iter().zip(answers).filter(|(_, a)| !a.existing) {
        *counts.entry((&request.options.queue, &request.task)).or_default() += 1;
    }
    for ((queue, task), n) in counts {
        count_jobs(JOBS_ENQUEUED, queue, task, None, n);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_are_written_as_an_array() {
        assert_eq!(array_text(&[]), "{}");
        assert_eq!(array_text(&[1, -2]), "{1,-2}");
    }
}
