//! Enqueues jobs: one, many, or inside of a caller's own transaction.
//!
//! The SQL function `minium.enqueue_jobs` can do all of it, and does it for SQL callers too. What one call asks for of jobs that
//! want nothing but their turn is done by a statement of its own (`enqueue.sql`), and few of them together with others
//! (`together.rs`).

use super::PgStore;
use super::connection::{Connections, failed};
use super::session::Session;
use crate::error::QueueError;
use crate::metrics::{JOBS_ENQUEUED, count_jobs};
use crate::rules;
use crate::store::Enqueued;
use crate::workflow;
use minium_protocol::{EnqueueRequest, JobOptions, TraceContext, Unique};
use std::collections::HashMap;
use std::time::Duration;
use tokio_postgres::GenericClient;
use tokio_postgres::types::ToSql;

pub(super) const WHAT: &str = "enqueue jobs";
const ENQUEUE: &str = "
  select job, existing
    from minium.enqueue_jobs(
           tasks => $1, args => $2, queues => $3, priorities => $4, attempts => $5, delays => $6, expiries => $7, laxes => $8,
           notes => $9, timeouts => $10, backoffs => $11, schedules => $12, origins => $13, traces => $14, parts => $15,
           parents => $16, keys => $17, uniques => $18, on_failures => $19, afters => $20)
   order by place";
/// The same for jobs that ask for nothing but their turn, where it may be done that way.
const PLAIN: &str = include_str!("enqueue.sql");
const PLAIN_PARAMS: usize = 15;

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
    traces: Vec<Option<&'a str>>,
    uniques: Vec<Option<i64>>,
    on_failures: Vec<bool>,
    parts: Vec<Option<&'a str>>,
    afters: Vec<Option<String>>,
}

impl<'a> Columns<'a> {
    /// The requests at these places. What earlier calls made of others is known; those of this call are named by where they
    /// stand in it.
    fn new(requests: &'a [EnqueueRequest], places: &[usize], made: &[Option<Enqueued>]) -> Columns<'a> {
        let micros = |span: Option<Duration>| span.map(rules::micros);
        let mut c = Columns::default();
        for request in places.iter().map(|place| &requests[*place]) {
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
            let (parents, after) = waits_for(o, places, made);
            c.parents.push(array_text(&parents));
            c.keys.push(o.key.as_deref());
            c.timeouts.push(micros(o.timeout));
            c.backoffs.push(micros(o.backoff));
            c.schedules.push(o.schedule.as_deref());
            c.origins.push(o.origin);
            c.traces.push(o.trace.as_ref().map(TraceContext::as_text));
            c.uniques.push(match o.unique {
                Unique::Alive => None,
                Unique::Waiting => Some(0),
                Unique::For(span) => Some(rules::micros(span).max(1)),
            });
            c.on_failures.push(o.on_failure);
            c.parts.push(o.partition.as_deref());
            c.afters.push(after);
        }
        c
    }

    /// The parameters of [`ENQUEUE`]; the first [`PLAIN_PARAMS`] are those of [`PLAIN`].
    fn params(&self) -> [&(dyn ToSql + Sync); 20] {
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
            &self.timeouts,
            &self.backoffs,
            &self.schedules,
            &self.origins,
            &self.traces,
            &self.parts,
            &self.parents,
            &self.keys,
            &self.uniques,
            &self.on_failures,
            &self.afters,
        ]
    }
}

/// Does a job ask for nothing but its turn?
fn is_plain(request: &EnqueueRequest) -> bool {
    let options = &request.options;
    options.key.is_none() && options.parents.is_empty() && options.after.is_empty() && !options.on_failure
}

/// Parents by their ids, and those of the same statement by their places in it, from 1.
fn waits_for(
    options: &JobOptions,
    places: &[usize],
    made: &[Option<Enqueued>],
) -> (Vec<i64>, Option<String>) {
    if options.after.is_empty() {
        return (rules::distinct_parents(&options.parents), None);
    }
    let (mut parents, mut after) = (options.parents.clone(), Vec::new());
    for place in &options.after {
        match made[*place] {
            Some(earlier) => parents.push(earlier.id),
            None => {
                after.extend(places.iter().position(|p| p == place).and_then(|n| i64::try_from(n + 1).ok()))
            }
        }
    }
    let after = rules::distinct_parents(&after);
    (rules::distinct_parents(&parents), (!after.is_empty()).then(|| array_text(&after)))
}

/// Which requests go into which statement: in an order in which nobody waits for one behind, in bounded numbers, and none
/// together with one that waits for it if that has a key, since its id may turn out to be another's. Who waits for some of an
/// earlier statement waits for none of its own: parents stand in the order in which they were given.
fn statements(requests: &[EnqueueRequest], batch_max: usize) -> Result<Vec<Vec<usize>>, QueueError> {
    let mut all = Vec::new();
    let (mut batch, mut keyed) = (Vec::new(), std::collections::HashSet::new());
    let mut earlier = std::collections::HashSet::new();
    for place in workflow::order(requests)? {
        let options = &requests[place].options;
        let of_earlier = options.after.iter().filter(|parent| earlier.contains(*parent)).count();
        let mixed = of_earlier > 0 && of_earlier < options.after.len();
        if batch.len() >= batch_max || mixed || options.after.iter().any(|parent| keyed.contains(parent)) {
            earlier.extend(batch.iter().copied());
            all.push(std::mem::take(&mut batch));
            keyed.clear();
        }
        if options.key.is_some() {
            keyed.insert(place);
        }
        batch.push(place);
    }
    all.push(batch);
    Ok(all)
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
        let mut made = vec![None; requests.len()];
        for places in statements(requests, self.options.batch_max)? {
            let rows = client.query(ENQUEUE, &Columns::new(requests, &places, &made).params()).await;
            let rows = rows.map_err(|e| failed(WHAT, e))?;
            places.iter().zip(&rows).for_each(|(place, row)| made[*place] = Some(enqueued(row)));
        }
        Ok(made.into_iter().flatten().collect())
    }

    pub(super) async fn enqueue_jobs(
        &self,
        requests: &[EnqueueRequest],
    ) -> Result<Vec<Enqueued>, QueueError> {
        rules::check_requests(requests)?;
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        let statements = statements(requests, self.options.batch_max)?;
        let all = match &statements[..] {
            // they have no parents that may have ended meanwhile
            [_] if requests.iter().all(is_plain) => return self.enqueue_plain(requests).await,
            [one] if one.is_sorted() => at_once(&self.connections, requests).await?,
            many => self.enqueue_by_turns(requests, many).await?,
        };
        count(requests, &all);
        self.wake(true);
        let there = |place: &usize| all[*place].existing.then_some(all[*place].id);
        let named = |r: &'_ EnqueueRequest| r.options.after.iter().filter_map(there).collect::<Vec<_>>();
        let parents = requests.iter().flat_map(|r| r.options.parents.iter().copied().chain(named(r)));
        // what ended while this was being committed did not see these children
        self.settle(parents.collect()).await;
        Ok(all)
    }

    async fn enqueue_by_turns(
        &self,
        requests: &[EnqueueRequest],
        statements: &[Vec<usize>],
    ) -> Result<Vec<Enqueued>, QueueError> {
        let enqueue = |mut client: Session| async move {
            let transaction = client.transaction().await?;
            let statement = transaction.prepare_cached(ENQUEUE).await?;
            let mut made = vec![None; requests.len()];
            for places in statements {
                let columns = Columns::new(requests, places, &made);
                let rows = transaction.query(&statement, &columns.params()).await?;
                places.iter().zip(&rows).for_each(|(place, row)| made[*place] = Some(enqueued(row)));
            }
            transaction.commit().await?;
            Ok(made.into_iter().flatten().collect())
        };
        self.connections.run(WHAT, enqueue).await
    }
}

/// Enqueues all of them by one statement. None waits for one that stands behind it.
pub(super) async fn at_once(
    connections: &Connections,
    requests: &[EnqueueRequest],
) -> Result<Vec<Enqueued>, QueueError> {
    let places: Vec<_> = (0..requests.len()).collect();
    let columns = &Columns::new(requests, &places, &vec![None; requests.len()]);
    let plain = requests.iter().all(is_plain);
    let enqueue = |client: Session| async move {
        if plain {
            let statement = client.prepare_cached(PLAIN).await?;
            let rows = client.query(&statement, &columns.params()[..PLAIN_PARAMS]).await?;
            if !rows.is_empty() {
                let mut ids: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
                ids.sort_unstable();
                return Ok(ids.into_iter().map(|id| Enqueued { id, existing: false }).collect());
            }
        }
        let statement = client.prepare_cached(ENQUEUE).await?;
        let rows = client.query(&statement, &columns.params()).await?;
        Ok(rows.iter().map(enqueued).collect())
    };
    connections.run(WHAT, enqueue).await
}

fn enqueued(row: &tokio_postgres::Row) -> Enqueued {
    Enqueued { id: row.get(0), existing: row.get(1) }
}

pub(super) fn count(requests: &[EnqueueRequest], answers: &[Enqueued]) {
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
    fn nobody_goes_with_one_that_has_a_key_and_that_it_waits_for() {
        let job = |key: Option<&str>, after: &[usize]| {
            let mut job = EnqueueRequest::new("t", serde_json::value::to_raw_value(&()).unwrap());
            (job.options.key, job.options.after) = (key.map(str::to_owned), after.to_vec());
            job
        };
        let jobs = [job(None, &[1]), job(Some("k"), &[]), job(None, &[0, 1])];
        // the last one's parents would be of two statements, were it in one with the second
        assert_eq!(statements(&jobs, 10).unwrap(), [vec![1], vec![0], vec![2]]);
        assert_eq!(statements(&jobs[..2], 10).unwrap(), [vec![1], vec![0]]);
        let alike = [job(Some("k"), &[]), job(None, &[0]), job(None, &[0])];
        assert_eq!(statements(&alike, 10).unwrap(), [vec![0], vec![1, 2]]);
        assert_eq!(statements(&jobs, 1).unwrap(), [vec![1], vec![0], vec![2]]);
        let made = [None, Some(Enqueued { id: 7, existing: true }), None];
        assert_eq!(waits_for(&jobs[2].options, &[0, 2], &made), (vec![7], Some("{1}".into())));
    }

    #[test]
    fn parents_are_written_as_an_array() {
        assert_eq!(array_text(&[]), "{}");
        assert_eq!(array_text(&[1, -2]), "{1,-2}");
    }
}
