//! Limits, and claims of what runs under them (`minium.claim_limited`).
//!
//! Whether there are any limits is told by each exchange, so that a queue without them pays nothing for them.

use super::PgStore;
use super::exchange::Claimed;
use super::pull::{json, leased, note_waits};
use super::session::Session;
use crate::error::QueueError;
use crate::limits::{Limit, LimitView, Limits, Rate, check_limits};
use crate::rules;
use crate::store::{Claim, Pull, Pulled};
use async_trait::async_trait;
use minium_protocol::levels;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::Duration;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

/// $1 worker, $2 length of the lease, $3 queues, $4 tasks or null, $5 lowest priority, $6 how many. Notes and parents stand in
/// the whole snapshot that the function makes in any case.
const CLAIM: &str = "
select seq, id, task, queue, args, attempt, attempts, lease, lease_until, timeout_us, trace, priority,
       nullif(whole::json ->> 'notes', '{}'),
       (select array_agg(p.id::bigint order by p.nth)
          from json_array_elements_text(whole::json -> 'parents') with ordinality as p (id, nth)),
       whole,
       extract(epoch from (whole::json ->> 'started')::timestamptz - (whole::json ->> 'delayed')::timestamptz)::float8
  from minium.claim_limited($1, $2, $3, $4, $5, $6)";

/// $1 queues, $2 the lowest priority that is asked for, $3 tasks or null. The highest priority of those that no limit holds
/// back and that could be claimed. Indexes: lane_queue, job_ready, job_ready_task.
const HIGHEST: &str = "
select max(l.priority) from minium.lane l
 where l.queue = any ($1::text[]) and l.priority >= $2::int
   and l.queue <> all (array(select p.queue from minium.paused_queue p))
   and case when $3::text[] is null
            then (select true from minium.job j
                   where j.ready and j.limited is null and j.queue = l.queue and j.priority = l.priority limit 1)
            -- looked up task by task: `exists` might be answered by reading all that are ready
            else exists (select from unnest($3::text[]) t (task)
                          where (select true from minium.job j
                                  where j.ready and coalesce(j.limited, '') = '' and j.task = t.task
                                    and j.queue = l.queue and j.priority = l.priority limit 1)) end";

/// $1 tasks, $2 running, $3 of each part, $4 $5 rate. What a bucket holds stays; a new one is full. Index: the key.
const PUT: &str = "
insert into minium.limit_rule as l (task, running, per_part, rate_n, rate_us, tokens)
select task, running, per_part, rate_n, rate_us, coalesce(rate_n, 0)
  from unnest($1::text[], $2::int[], $3::int[], $4::int[], $5::bigint[]) as n (task, running, per_part, rate_n, rate_us)
 order by task
on conflict (task) do update
   set running = excluded.running, per_part = excluded.per_part, rate_n = excluded.rate_n, rate_us = excluded.rate_us,
       tokens = case when l.rate_n is null then excluded.tokens else least(l.tokens, excluded.tokens) end
 where (l.running, l.per_part, l.rate_n, l.rate_us)
       is distinct from (excluded.running, excluded.per_part, excluded.rate_n, excluded.rate_us)";

const LIST: &str = "
select l.task, l.running, l.per_part, l.rate_n, l.rate_us,
       (select count(*) from minium.running r where r.limited = l.task)
  from minium.limit_rule l order by l.task";

const WANTED: &str = "select minium.limits_with_jobs()";

const WHAT: &str = "claim jobs under limits";

impl PgStore {
    /// Were there limits when it was last looked?
    pub(super) fn has_limits(&self) -> bool {
        self.limits.load(Relaxed)
    }

    /// What an exchange saw.
    pub(super) fn note_limits(&self, there_are: bool) {
        self.limits.store(there_are, Relaxed);
    }

    /// Wakes idle workers everywhere: what ran under a limit has ended. They poll besides, so that it may fail. Nobody waits for
    /// it.
    pub(super) fn tell_of_room(&self) {
        // one that has not begun yet tells of this room, too
        if self.room_told.swap(true, SeqCst) {
            return;
        }
        let (connections, told) = (self.connections.clone(), self.room_told.clone());
        self.behind.spawn(async move {
            let told = &*told;
            let tell = |client: Session| async move {
                told.store(false, SeqCst);
                client.query_one("select minium.wake_up(true)::text", &[]).await
            };
            if let Err(error) = connections.run("tell that a limit has room", tell).await {
                tracing::debug!(%error, "Idle workers see room under a limit with their next poll.");
                told.store(false, SeqCst);
            }
        });
    }

    /// The priority of what no limit holds back and this claim could take first: jobs under limits that are less urgent than
    /// that are left for later.
    pub(super) async fn most_urgent(&self, claim: &Claim) -> Result<i32, QueueError> {
        let least = claim.min_priority.unwrap_or(i32::MIN);
        let highest = |client: Session| async move {
            let statement = client.prepare_cached(HIGHEST).await?;
            client.query_one(&statement, &[&claim.queues, &least, &claim.tasks]).await
        };
        let row = self.connections.run(WHAT, highest).await?;
        Ok(row.get::<_, Option<i32>>(0).unwrap_or(least))
    }

    /// Claims jobs under limits, of this priority or higher.
    pub(super) async fn claim_limited(
        &self,
        claim: &Claim,
        limit: i64,
        from: i32,
    ) -> Result<Vec<Claimed>, QueueError> {
        let worker = serde_json::to_string(&claim.worker).expect("a worker is plain JSON");
        let lease_us = rules::micros(claim.lease);
        // a queue that was named twice would bring each of its jobs twice, in the places of others
        let mut queues: Vec<&str> = Vec::with_capacity(claim.queues.len());
        for queue in &claim.queues {
            if !queues.contains(&queue.as_str()) {
                queues.push(queue);
            }
        }
        let queues = &queues;
        let claimed = |client: Session| {
            let worker = &worker;
            async move {
                let statement = client.prepare_cached(CLAIM).await?;
                let params: [&(dyn ToSql + Sync); 6] =
                    [worker, &lease_us, queues, &claim.tasks, &from, &limit];
                client.query(&statement, &params).await
            }
        };
        let rows = self.connections.run(WHAT, claimed).await?;
        if !rows.is_empty() {
            self.wake(false);
        }
        note_waits(&rows);
        Ok(rows
            .iter()
            .map(|row| Claimed { seq: row.get(0), priority: row.get(11), job: leased(row) })
            .collect())
    }

    /// The limits under which jobs are ready.
    pub(super) async fn limits_with_jobs(&self) -> Result<Vec<String>, QueueError> {
        let wanted = |client: Session| async move {
            let statement = client.prepare_cached(WANTED).await?;
            client.query(&statement, &[]).await
        };
        let rows = self.connections.run(WHAT, wanted).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// For pullers that got nothing else. `taken` says how many of each pull's workers have a job already.
    pub(super) async fn pull_limited(
        &self,
        pulls: &[Pull],
        taken: &[usize],
        pulled: &mut Vec<Pulled>,
    ) -> Result<(), QueueError> {
        let limited = self.limits_with_jobs().await?;
        let may_have =
            |pull: &Pull| pull.tasks.iter().any(|task| limited.iter().any(|name| is_below(task, name)));
        for (i, pull) in pulls.iter().enumerate().filter(|(_, pull)| may_have(pull)) {
            for place in taken[i]..pull.workers.len() {
                let worker = serde_json::to_string(&pull.workers[place]).expect("a worker is plain JSON");
                let lease_us = rules::micros(pull.lease);
                let claim = |client: Session| {
                    let worker = &worker;
                    async move {
                        let statement = client.prepare_cached(CLAIM).await?;
                        let queues = [&pull.queue];
                        let params: [&(dyn ToSql + Sync); 6] =
                            [worker, &lease_us, &&queues[..], &pull.tasks, &i32::MIN, &1_i64];
                        client.query_opt(&statement, &params).await
                    }
                };
                let Some(row) = self.connections.run(WHAT, claim).await? else { break };
                note_waits(std::slice::from_ref(&row));
                let snapshot = json(row.get(14));
                pulled.push(Pulled { pull: i, place, job: leased(&row), snapshot });
            }
        }
        Ok(())
    }
}

/// Is this the task of a limit, or one below it?
pub(super) fn is_below(task: &str, limit: &str) -> bool {
    levels(task).any(|level| level == limit)
}

#[async_trait]
impl Limits for PgStore {
    async fn put_limits(&self, limits: &[Limit]) -> Result<(), QueueError> {
        check_limits(limits)?;
        let number = |n: Option<u32>| n.map(|n| i32::try_from(n).unwrap_or(i32::MAX));
        let tasks: Vec<&str> = limits.iter().map(|l| l.task.as_str()).collect();
        let running: Vec<_> = limits.iter().map(|l| number(l.running)).collect();
        let parts: Vec<_> = limits.iter().map(|l| number(l.per_partition)).collect();
        let counts: Vec<_> = limits.iter().map(|l| number(l.rate.map(|r| r.count))).collect();
        let times: Vec<_> = limits.iter().map(|l| l.rate.map(|r| rules::micros(r.per))).collect();
        let params: [&(dyn ToSql + Sync); 5] = [&tasks, &running, &parts, &counts, &times];
        let (tasks, params) = (&tasks, &params);
        let put = |mut client: Session| async move {
            let transaction = client.transaction().await?;
            // in the order of their names, as claims take them
            let gone = "delete from minium.limit_rule where task = any (array(
                          select task from minium.limit_rule where task <> all ($1) order by task for update))";
            transaction.execute(gone, &[tasks]).await?;
            transaction.execute(PUT, params).await?;
            transaction.query("select minium.wake_up(true)::text", &[]).await?;
            transaction.commit().await
        };
        self.connections.run("put limits in force", put).await?;
        // those that were enqueued under a limit that is gone are still claimed as such
        self.note_limits(true);
        self.wake(true);
        Ok(())
    }

    async fn limits(&self) -> Result<Vec<LimitView>, QueueError> {
        let list = |client: Session| async move { client.query(LIST, &[]).await };
        let rows = self.connections.run("list limits", list).await?;
        let number = |n: Option<i32>| n.and_then(|n| u32::try_from(n).ok());
        let view = |row: &Row| LimitView {
            limit: Limit {
                task: row.get(0),
                running: number(row.get(1)),
                per_partition: number(row.get(2)),
                rate: number(row.get(3))
                    .zip(row.get::<_, Option<i64>>(4))
                    .map(|(count, us)| Rate { count, per: Duration::from_micros(us.unsigned_abs()) }),
            },
            active: u32::try_from(row.get::<_, i64>(5)).unwrap_or(u32::MAX),
        };
        Ok(rows.iter().map(view).collect())
    }
}
