//! Operations on single jobs: cancel, retry, remove, annotate, and the leases that are extended.
//!
//! Each locks the job's row first, so that what is decided about it (by `rules`) still holds when it is written. They
//! are rare, so clarity goes before round trips.

use super::PgStore;
use super::log::Lines;
use super::session::{Session, Work};
use crate::error::QueueError;
use crate::rules;
use crate::store::{Annotation, Extension, RetryOptions};
use minium_protocol::{LeaseToken, State};
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

/// Index: the key of job. Locks: the job.
const LOCK: &str = "select state::text, attempt, attempts, task, key, lease, on_failure is true from minium.job where id = $1 \
                    for no key update";

const CANCEL: &str = "select coalesce(cardinality(minium.cancel_jobs($1)), 0)";

/// $1 task, $2 key, $3 the job. A key that the job itself still holds, since it is held for a time, is its own; when that time
/// is over it is held while the job lives, so that an enqueue at this moment does not take it for one to be let go. One that an
/// ended job held for a time that is over is taken from it. Index: the keys of job_key and job. Locks: that row.
const TAKE_KEY: &str = "
insert into minium.job_key as k (task, key, job, waiting)
select $1, $2, j.id, j.unique_us is not distinct from 0 from minium.job j where j.id = $3
on conflict (task, key) do update
   set job = excluded.job, waiting = case when k.job = excluded.job then k.waiting else excluded.waiting end,
       until = case when k.job = excluded.job and k.until > now() then k.until end
 where k.job = excluded.job
    or k.until <= now()
       and not exists (select from minium.job o where o.id = k.job and o.state in ('inactive', 'active'))";

/// $2 new parents. Each that is there has an edge. Index: the key of job. Locks: none of the parents (ADR 0002); what ends while
/// this is being committed is settled afterwards.
const ATTACH: &str = "
insert into minium.edge (parent, child, open)
select p.id, $1, true from unnest($2::bigint[]) as p (id) where exists (select from minium.job j where j.id = p.id)";

/// The edges to those that it waited for. Index: the key of edge. Locks: these edges.
const DETACH: &str = "
delete from minium.edge where child = $1 and parent = any (array(select unnest(parents) from minium.job where id = $1))";

/// $2 parents, or null for those that it has, $3 whether it is lax, or null for what it is. Says of each edge whether it is
/// open, and how many are. Index: the key of edge. Locks: these edges.
const REWEIGH: &str = "
with j as (
  select coalesce($2::bigint[], parents) as parents, coalesce($3::boolean, lax) as lax from minium.job where id = $1),
e as (
  update minium.edge e
     set open = minium.holds((select p.state from minium.job p where p.id = e.parent), (select lax from j))
   where e.child = $1 and e.parent = any ((select parents from j)::bigint[])
  returning e.open)
select count(*) filter (where open)::int from e";

/// $2 the state it had, $3 delay in microseconds, $4 attempts, $5 priority or null, $6 queue or null, $7 how many parents it
/// waits for, or null for as many as it does, $8 its parents or null, $9 whether it is lax or null, $10 null, or after how many
/// microseconds it is removed.
const RETRY: &str = "
with
j as (
  update minium.job as j
     set state = 'inactive', retries = j.retries + 1, retried = now(), attempts = $4::int,
         priority = coalesce($5::int, j.priority), queue = coalesce($6::text, j.queue),
         delayed = now() + $3::bigint * interval '1 microsecond',
         later_at = case when $3::bigint > 0 then now() + $3::bigint * interval '1 microsecond' end,
         left_n = coalesce($7::int, j.left_n), parents = coalesce($8::bigint[], j.parents), lax = coalesce($9::boolean, j.lax),
         ready = $3::bigint = 0 and coalesce($7::int, j.left_n) = 0, seq = nextval('minium.ready_seq'),
         finished = null, result = null, expires = now() + $10::bigint * interval '1 microsecond',
         lease = null, lease_until = null
   where j.id = $1
  returning j.id, j.task, j.trace, j.queue, j.priority, j.ready, minium.snapshot(j) as data),
events as (
  insert into minium.entry (topic, type, subject, trace, data)
  select 'task/' || task || '/' || id, 'task.retry', id::text, trace, data from j),
lanes as (
  insert into minium.lane (queue, priority)
  select queue, priority from j
   where not exists (select from minium.lane l where l.queue = j.queue and l.priority = j.priority)),
failures as (update minium.failure set final = false where job = $1 and final),
figures as (
  insert into minium.tally (inactive, finished, failed, cancelled)
  select 1, -($2::text = 'finished')::int, -($2::text = 'failed')::int, -($2::text = 'cancelled')::int
   where $2::text <> 'inactive')
select ready, minium.wake_up(ready)::text from j";

/// $2 what is added to the notes, $3 names of what is taken from them. Index: the key of job.
const NOTES_BYTES: &str = "
select octet_length(((notes || $2::text::jsonb) - $3::text[])::text) from minium.job where id = $1";

/// $2 to $3 what is added to the notes and taken from them, $4 progress or null. HOT: no index names these columns.
const ANNOTATE: &str = "
with
j as (
  update minium.job as j
     set notes = (j.notes || $2::text::jsonb) - $3::text[], progress = coalesce($4::text::json, j.progress)
   where j.id = $1 returning j.id, j.task, j.trace, minium.snapshot(j) as data),
events as (
  insert into minium.entry (topic, type, subject, trace, data)
  select 'task/' || task || '/' || id, 'task.progress', id::text, trace, data from j)
select minium.wake_up(false)::text from j";

/// Renewals never change the job, but hold its row while they are written: who takes the job away at that moment waits, or
/// has gone before and is seen. A row that another holds is passed over: whoever finishes a job in a long transaction of its
/// own must not cost the same worker its other leases.
/// $1 ids in their order, $2 leases, $3 length in microseconds. Answers whether the row was passed over, too.
/// Indexes: the keys of job and renewal. Locks: the jobs, by id, passing over what others hold, then the renewals.
const EXTEND: &str = "
with
t as materialized (
  select id, state::text as state, lease = ($2::uuid[])[width_bucket(id, $1::bigint[])] as mine
    from minium.job where id = any ($1::bigint[])),
j as materialized (
  select id, state::text as state, lease = ($2::uuid[])[width_bucket(id, $1::bigint[])] as mine
    from minium.job where id = any ($1::bigint[]) order by id for no key update skip locked),
r as (
  insert into minium.renewal (job, lease, until)
  select id, ($2::uuid[])[width_bucket(id, $1::bigint[])], now() + $3::bigint * interval '1 microsecond'
    from j where mine and state = 'active' order by id
  on conflict (job) do update set lease = excluded.lease, until = excluded.until
  returning job, until)
select t.id, coalesce(j.state, t.state), coalesce(j.mine, t.mine, false), r.until, j.id is null
  from t left join j on j.id = t.id left join r on r.job = t.id";

/// $1 the job, $2 the id to begin behind, $3 how many. A job enqueues only what is younger than itself, so that no circle can
/// be walked. Index: job_origin.
const ENQUEUED_BY: &str = "
select id from minium.job where origin = $1 and id > greatest($2::bigint, $1) order by id limit $3";

/// After an operation, so many pieces of what it left are settled at once; upkeep goes on with the rest.
const LEFT_PIECES_MAX: u32 = 1_000;

/// A job as its row said when it was locked.
pub(super) struct Locked {
    pub(super) state: State,
    attempt: i32,
    attempts: i32,
    task: String,
    key: Option<String>,
    lease: Option<Uuid>,
    /// It runs when a parent has failed.
    on_failure: bool,
}

pub(super) async fn lock(transaction: &Work<'_>, job: i64) -> Result<Option<Locked>, tokio_postgres::Error> {
    let statement = transaction.prepare_cached(LOCK).await?;
    let row = transaction.query_opt(&statement, &[&job]).await?;
    Ok(row.map(|row| Locked {
        state: row.get::<_, &str>(0).parse().expect("the column's type knows the states"),
        attempt: row.get(1),
        attempts: row.get(2),
        task: row.get(3),
        key: row.get(4),
        lease: row.get(5),
        on_failure: row.get(6),
    }))
}

/// What an operation said: done, or a refusal that is no fault of the database.
pub(super) type Said<T> = Result<Result<T, QueueError>, tokio_postgres::Error>;

impl PgStore {
    pub(super) async fn cancel_job(&self, job: i64) -> Result<(), QueueError> {
        let cancel = |mut client: Session| async move {
            let transaction = client.transaction().await?;
            let Some(row) = lock(&transaction, job).await? else { return Ok(Err(QueueError::NotFound(job))) };
            if let Err(refusal) = rules::may_cancel(job, row.state) {
                return Ok(Err(refusal));
            }
            let statement = transaction.prepare_cached(CANCEL).await?;
            transaction.query(&statement, &[&vec![job]]).await?;
            transaction.commit().await?;
            Ok(Ok(row.state == State::Active))
        };
        let ran = self.connections.run("cancel a job", cancel).await??;
        self.wake(false);
        if ran {
            self.ears.tell_controls();
        }
        self.settle(vec![job]).await;
        Ok(())
    }

    pub(super) async fn cancel_all_of(&self, job: i64) -> Result<u64, QueueError> {
        let exists = |client: Session| async move {
            client.query_opt("select from minium.job where id = $1", &[&job]).await
        };
        if self.connections.run("cancel a job and what it enqueued", exists).await?.is_none() {
            return Err(QueueError::NotFound(job));
        }
        let (mut cancelled, mut level) = (0, vec![job]);
        while !level.is_empty() {
            let mut next = Vec::new();
            for batch in level.chunks(self.options.batch_max) {
                cancelled += self.cancel_batch(batch).await?;
                self.enqueued_by(batch, &mut next).await?;
            }
            level = next;
        }
        if cancelled > 0 {
            self.wake(false);
            self.ears.tell_controls();
            self.settle_left(LEFT_PIECES_MAX).await;
        }
        Ok(cancelled)
    }

    async fn cancel_batch(&self, jobs: &[i64]) -> Result<u64, QueueError> {
        let cancel = |client: Session| async move {
            let statement = client.prepare_cached(CANCEL).await?;
            client.query_one(&statement, &[&jobs]).await
        };
        let row = self.connections.run("cancel a job and what it enqueued", cancel).await?;
        Ok(u64::try_from(row.get::<_, i32>(0)).unwrap_or(0))
    }

    /// Jobs that these enqueued, in pieces: one may have enqueued very many.
    async fn enqueued_by(&self, jobs: &[i64], into: &mut Vec<i64>) -> Result<(), QueueError> {
        let piece = i64::try_from(self.options.batch_max).unwrap_or(i64::MAX);
        for job in jobs {
            let mut behind = i64::MIN;
            loop {
                let look = |client: Session| async move {
                    let statement = client.prepare_cached(ENQUEUED_BY).await?;
                    client.query(&statement, &[job, &behind, &piece]).await
                };
                let rows = self.connections.run("look what a job enqueued", look).await?;
                into.extend(rows.iter().map(|row| row.get::<_, i64>(0)));
                match rows.last() {
                    Some(last) if rows.len() >= self.options.batch_max => behind = last.get(0),
                    Some(_) | None => break,
                }
            }
        }
        Ok(())
    }

    pub(super) async fn retry_job(&self, job: i64, options: &RetryOptions) -> Result<(), QueueError> {
        rules::check_retry(options)?;
        let at_once = self.edges_at_once();
        let retry = |client: Session| retry_locked(client, job, options, at_once);
        let (ready, settled) = self.connections.run("retry a job", retry).await??;
        self.wake(ready);
        if settled {
            // a child whose enqueue was committed meanwhile saw the parent as it was, and was not seen
            self.settle(vec![job]).await;
        } else {
            self.settle_left(LEFT_PIECES_MAX).await;
        }
        // a new parent that ended while this was being committed did not see its child
        self.settle(options.parents.clone().unwrap_or_default()).await;
        Ok(())
    }

    pub(super) async fn remove_job(&self, job: i64) -> Result<(), QueueError> {
        let remove = |mut client: Session| async move {
            let transaction = client.transaction().await?;
            let Some(row) = lock(&transaction, job).await? else { return Ok(Err(QueueError::NotFound(job))) };
            if let Err(refusal) = rules::may_remove(job, row.state) {
                return Ok(Err(refusal));
            }
            transaction.query("select minium.drop_jobs(array[$1::bigint], 'task.removed')", &[&job]).await?;
            transaction.commit().await?;
            Ok(Ok(()))
        };
        self.connections.run("remove a job", remove).await??;
        self.wake(true);
        Ok(())
    }

    pub(super) async fn annotate_job(
        &self,
        job: i64,
        lease: Option<LeaseToken>,
        annotation: &Annotation,
    ) -> Result<(), QueueError> {
        rules::check_annotation(annotation)?;
        let change = Change::new(annotation);
        let change = &change;
        let annotate = |client: Session| annotate_locked(client, job, lease, change);
        self.connections.run("annotate a job", annotate).await??;
        self.wake(false);
        Ok(())
    }

    pub(super) async fn extend_leases(
        &self,
        leases: &[(i64, LeaseToken)],
        lease: Duration,
    ) -> Result<Vec<Extension>, QueueError> {
        rules::check_lease(lease)?;
        let mut answers = HashMap::new();
        for batch in one_by_one(leases, self.options.batch_max) {
            self.extend_batch(&batch, rules::micros(lease), &mut answers).await?;
        }
        Ok(leases.iter().map(|l| answers.get(l).copied().unwrap_or(Extension::Lost)).collect())
    }

    async fn extend_batch(
        &self,
        leases: &BTreeMap<i64, LeaseToken>,
        lease_us: i64,
        answers: &mut HashMap<(i64, LeaseToken), Extension>,
    ) -> Result<(), QueueError> {
        let (ids, tokens): (Vec<i64>, Vec<Uuid>) = leases.iter().map(|(job, lease)| (*job, lease.0)).unzip();
        let params: [&(dyn ToSql + Sync); 3] = [&ids, &tokens, &lease_us];
        let params = &params;
        let extend = |client: Session| async move {
            let statement = client.prepare_cached(EXTEND).await?;
            client.query(&statement, params).await
        };
        for row in self.connections.run("extend leases", extend).await? {
            let job = row.get(0);
            let state = row.get::<_, &str>(1).parse().expect("the column's type knows the states");
            let until: Option<jiff::Timestamp> = row.get(3);
            let answer = match (rules::hold(Some(state), row.get(2)), until) {
                (rules::Hold::Held, Some(until)) => Extension::Until(until),
                (rules::Hold::Cancelled, _) => Extension::Cancelled,
                (rules::Hold::Held, None) if row.get(4) => Extension::Later,
                (rules::Hold::Held | rules::Hold::Lost, _) => Extension::Lost,
            };
            answers.insert((job, leases[&job]), answer);
        }
        Ok(())
    }
}

/// An annotation, as the statements take it.
pub(super) struct Change {
    pub(super) added: String,
    pub(super) taken: Vec<String>,
    progress: Option<String>,
    adds: bool,
    changes: bool,
    lines: Lines,
}

impl Change {
    pub(super) fn new(annotation: &Annotation) -> Change {
        let notes = rules::storable_notes(&annotation.notes).into_owned();
        let (taken, added): (serde_json::Map<_, _>, _) = notes.into_iter().partition(|(_, v)| v.is_null());
        let progress = annotation.progress.as_ref();
        Change {
            adds: !added.is_empty(),
            added: rules::notes_text(&added),
            taken: taken.into_iter().map(|(name, _)| name).collect(),
            progress: progress.map(|p| serde_json::to_string(p).expect("a progress is plain JSON")),
            changes: annotation.changes(),
            lines: Lines::new(&annotation.log),
        }
    }

    /// Would the job's notes be too large with it?
    pub(super) async fn check_bytes(&self, transaction: &Work<'_>, job: i64) -> Said<()> {
        if !self.adds {
            return Ok(Ok(()));
        }
        let statement = transaction.prepare_cached(NOTES_BYTES).await?;
        let row = transaction.query_one(&statement, &[&job, &self.added, &self.taken]).await?;
        Ok(rules::check_notes_bytes(usize::try_from(row.get::<_, i32>(0)).unwrap_or(usize::MAX)))
    }
}

async fn annotate_locked(
    mut client: Session,
    job: i64,
    lease: Option<LeaseToken>,
    change: &Change,
) -> Said<()> {
    let transaction = client.transaction().await?;
    let Some(row) = lock(&transaction, job).await? else { return Ok(Err(QueueError::NotFound(job))) };
    if lease.is_some_and(|lease| row.state != State::Active || row.lease != Some(lease.0)) {
        return Ok(Err(QueueError::LeaseLost(job)));
    }
    if let Err(refusal) = change.check_bytes(&transaction, job).await? {
        return Ok(Err(refusal));
    }
    let params: [&(dyn ToSql + Sync); 4] = [&job, &change.added, &change.taken, &change.progress];
    if !change.lines.is_empty() {
        change.lines.write(&transaction, params, change.changes, row.attempt).await?;
    } else if change.changes {
        let statement = transaction.prepare_cached(ANNOTATE).await?;
        transaction.query(&statement, &params).await?;
    }
    transaction.commit().await?;
    Ok(Ok(()))
}

/// Splits leases so that no statement has two tokens of one job, each piece in the order of the ids.
pub(super) fn one_by_one(leases: &[(i64, LeaseToken)], batch_max: usize) -> Vec<BTreeMap<i64, LeaseToken>> {
    let mut batches: Vec<BTreeMap<i64, LeaseToken>> = Vec::new();
    for (job, lease) in leases {
        let fits = |b: &BTreeMap<_, _>| match b.get(job) {
            Some(token) => token == lease,
            None => b.len() < batch_max,
        };
        match batches.last_mut() {
            Some(batch) if fits(batch) => batch.insert(*job, *lease),
            _ => {
                batches.push(BTreeMap::from([(*job, *lease)]));
                None
            }
        };
    }
    batches
}

/// Answers whether the job is ready, and whether all of its children wait again: of very many, the rest is left on record.
async fn retry_locked(
    mut client: Session,
    job: i64,
    options: &RetryOptions,
    edges_at_once: i32,
) -> Said<(bool, bool)> {
    let transaction = client.transaction().await?;
    let Some(row) = lock(&transaction, job).await? else { return Ok(Err(QueueError::NotFound(job))) };
    // an active job is refused before its key is looked at
    if let Err(refusal) = rules::may_retry(job, row.state, false) {
        return Ok(Err(refusal));
    }
    if row.state.is_ended()
        && let Some(key) = &row.key
    {
        // waits for an open transaction that takes the same key; who comes second has lost it
        let statement = transaction.prepare_cached(TAKE_KEY).await?;
        let taken = transaction.execute(&statement, &[&row.task, key, &job]).await? == 1;
        if let Err(refusal) = rules::may_retry(job, row.state, !taken) {
            return Ok(Err(refusal));
        }
    }
    let attempts = match rules::attempts_after_retry(row.attempt, row.attempts, options.attempts) {
        Ok(attempts) => attempts,
        Err(refusal) => return Ok(Err(refusal)),
    };
    if let Err(refusal) = rules::check_retry_of(job, row.attempt, row.on_failure, options) {
        return Ok(Err(refusal));
    }
    let parents = options.parents.as_deref().map(rules::distinct_parents);
    let left = wait_for(&transaction, job, parents.as_ref(), options.lax).await?;
    let (delay_us, expire_us) =
        (rules::micros(options.delay.unwrap_or_default()), options.expire.map(rules::micros));
    let statement = transaction.prepare_cached(RETRY).await?;
    let state = row.state.as_str();
    let params: [&(dyn ToSql + Sync); 10] = [
        &job,
        &state,
        &delay_us,
        &attempts,
        &options.priority,
        &options.queue,
        &left,
        &parents,
        &options.lax,
        &expire_us,
    ];
    let ready = transaction.query_one(&statement, &params).await?.get(0);
    // its children wait again, in the same commit: nothing may run in between that has to wait
    let statement =
        transaction.prepare_cached("select minium.settle_or_leave(array[$1::bigint], $2)").await?;
    let settled: Option<i64> = transaction.query_one(&statement, &[&job, &edges_at_once]).await?.get(0);
    transaction.commit().await?;
    Ok(Ok((ready, settled.is_some())))
}

/// Makes the edges of a job lead to these parents, as lax as is said. Answers for how many it waits then, or nothing where
/// nothing is to change.
async fn wait_for(
    transaction: &Work<'_>,
    job: i64,
    parents: Option<&Vec<i64>>,
    lax: Option<bool>,
) -> Result<Option<i32>, tokio_postgres::Error> {
    if parents.is_none() && lax.is_none() {
        return Ok(None);
    }
    if let Some(parents) = parents {
        transaction.execute(DETACH, &[&job]).await?;
        let params: [&(dyn ToSql + Sync); 2] = [&job, parents];
        transaction.execute(ATTACH, &params).await?;
    }
    let params: [&(dyn ToSql + Sync); 3] = [&job, &parents, &lax];
    transaction.query_one(REWEIGH, &params).await.map(|row| row.get(0))
}

impl PgStore {
    /// Tells idle writers that somebody waits. Renewed well before it lapses, so that a busy queue sends nothing and a
    /// quiet one pays one small statement every now and then.
    pub(super) async fn ask_to_be_woken(&self) {
        const ASK_EVERY: Duration = Duration::from_secs(20);
        const ASK: &str = "with old as (select until < now() as lapsed from minium.wake where name = 'jobs') \
            update minium.wake set until = now() + interval '60 seconds' \
             where name = 'jobs' and until < now() + interval '40 seconds' returning (select lapsed from old)";
        let now = tokio::time::Instant::now();
        {
            let mut asked = self.asked.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if asked.is_some_and(|at| now.duration_since(at) < ASK_EVERY) {
                return;
            }
            *asked = Some(now);
        }
        let ask = |client: Session| async move { client.query_opt(ASK, &[]).await };
        match self.connections.run("ask to be woken", ask).await {
            // a writer that came before may have found nobody waiting: one more look, by everybody here
            Ok(Some(row)) if row.get(0) => self.ears.tell_jobs(),
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "Idle workers poll until the next try."),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_tokens_of_one_job_are_asked_one_after_the_other() {
        let (a, b) = (LeaseToken::fresh(), LeaseToken::fresh());
        let leases = [(1, a), (2, a), (1, a), (1, b), (3, b)];
        let expected = [BTreeMap::from([(1, a), (2, a)]), BTreeMap::from([(1, b), (3, b)])];
        assert_eq!(one_by_one(&leases, 10), expected);
        assert_eq!(one_by_one(&leases[..2], 1).len(), 2);
        assert!(one_by_one(&[], 10).is_empty());
    }
}
