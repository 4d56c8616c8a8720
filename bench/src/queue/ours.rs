//! Minium under the queue's loads: the real store over its public trait, and, when the journal is to be numbered and
//! relayed meanwhile, this very binary as a node on the same database.
//!
//! Workers here are bare claim-and-finish loops, as a worker with tasks that do nothing would make them: each exchange
//! hands in the last batch and claims the next, in one commit. Where a single job is picked up, it is the real worker.

use super::database::Database;
use super::load::{Pickups, Work, filler};
use crate::machine;
use crate::node::Node;
use anyhow::{Context, ensure};
use minium_protocol::EnqueueRequest;
use minium_queue::{Backend, Claim, Ending, Leased, Outcome, Store, Verdict, WorkerInfo};
use minium_worker::{JobContext, StoreSource, Worker, WorkerOptions};
use serde_json::value::{RawValue, to_raw_value};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The task of all jobs.
pub(super) const TASK: &str = "noop";
/// The journal of a million jobs is numbered in less.
const PATIENCE: Duration = Duration::from_secs(900);

/// What of Minium takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dress {
    /// The database forgets the events (`no_events.sql`).
    NoEvents,
    /// Every event is written; nobody numbers them.
    Alone,
    /// A node numbers and relays them meanwhile.
    Relayed,
}

/// How many claim at once, and how many jobs each time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claims {
    pub(super) workers: u32,
    pub(super) batch: u32,
}

/// Minium on a database.
pub(super) struct Ours {
    backend: Backend,
    pub(super) store: Arc<dyn Store>,
    node: Option<Node>,
    dress: Dress,
    claims: Claims,
}

impl Ours {
    pub(super) async fn open(dress: Dress, claims: Claims, database: &Database) -> anyhow::Result<Ours> {
        let backend = Backend::open(&database.url.parse()?).await.context("opening the database")?;
        backend.migrate().await.context("migrating the database")?;
        if dress == Dress::NoEvents {
            let forget = database.look.client.batch_execute(include_str!("no_events.sql")).await;
            forget.context("making the database forget events")?;
        }
        let node = match dress {
            Dress::NoEvents | Dress::Alone => None,
            Dress::Relayed => Some(Node::start(&database.url).await?),
        };
        if let Some(node) = &node {
            node.ready().await?;
        }
        Ok(Ours { store: backend.store(), backend, node, dress, claims })
    }

    pub(super) fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    pub(super) async fn bulk(&self, work: Work, call: usize) -> anyhow::Result<()> {
        enqueue(self.store.as_ref(), TASK, work, call).await
    }

    pub(super) async fn singles(&self, work: Work, connections: usize) -> anyhow::Result<()> {
        let each = Work { jobs: work.jobs / connections as u64, ..work };
        let all = (0..connections).map(|_| enqueue(self.store.as_ref(), TASK, each, 1));
        futures::future::try_join_all(all).await.map(drop)
    }

    /// Works until nothing is left; answers how many were finished.
    pub(super) async fn drain(&self) -> anyhow::Result<u64> {
        drain(&self.store, TASK, self.claims).await
    }

    /// One job at a time into an idle queue, from another pool than the worker's: it hears of them by LISTEN alone.
    pub(super) async fn pickup(
        &self,
        pickups: Pickups,
        database: &Database,
    ) -> anyhow::Result<(Vec<f64>, Vec<f64>)> {
        let started: Arc<Mutex<Vec<(usize, Instant)>>> = Arc::default();
        let noted = started.clone();
        let worker = Worker::new(StoreSource::new(self.store.clone()), WorkerOptions::default()).task(
            TASK,
            move |_: JobContext, (n, _): (usize, String)| {
                let now = Instant::now();
                noted.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((n, now));
                async { Ok::<_, String>(()) }
            },
        );
        let (stop, mut working) = (CancellationToken::new(), JoinSet::new());
        let token = stop.clone();
        working.spawn(async move { worker.run(token).await });
        let elsewhere = Backend::open(&database.url.parse()?).await?.store();

        let (mut clock, mut times) = (tokio::time::interval(pickups.every), Vec::new());
        for n in 0..pickups.jobs {
            clock.tick().await;
            let args = to_raw_value(&(n, filler(pickups.bytes)))?;
            let called = Instant::now();
            elsewhere.enqueue(&[EnqueueRequest::new(TASK, args)]).await?;
            times.push((called, Instant::now()));
        }
        let all_done = format!("select count(*) = {} from minium.job where state = 'finished'", pickups.jobs);
        database.until("the end of all jobs", &all_done, PATIENCE).await?;
        stop.cancel();
        while let Some(ended) = working.join_next().await {
            ended.context("the worker")??;
        }
        let mut started = started.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        started.sort_by_key(|(n, _)| *n);
        ensure!(started.iter().map(|(n, _)| *n).eq(0..pickups.jobs), "not every job ran once");
        let started: Vec<_> = started.into_iter().map(|(_, at)| at).collect();
        Ok(pickups.delays(&times, &started))
    }

    /// Waits until every event has its number. Answers how many had none when it began.
    pub(super) async fn all_numbered(&self, database: &Database) -> anyhow::Result<i64> {
        let events = database.number("select count(*) from minium.entry").await?;
        let behind = events - database.number(NUMBERED).await?;
        let all = format!("select ({NUMBERED}) >= {events}");
        database.until("the numbering of the journal", &all, PATIENCE).await?;
        Ok(behind.max(0))
    }

    /// So many jobs are there, all of them in this state, with so many events each, none twice.
    pub(super) async fn check(
        &self,
        jobs: u64,
        state: &str,
        events: u64,
        database: &Database,
    ) -> anyhow::Result<()> {
        let sql = format!("select count(*) filter (where state = '{state}') from minium.job");
        let (there, all) =
            (database.number(&sql).await?, database.number("select count(*) from minium.job").await?);
        ensure!(there == all && there == jobs as i64, "of {jobs} jobs {all} are there and {there} {state}");
        let events = if self.dress == Dress::NoEvents { 0 } else { (events * jobs) as i64 };
        let written = database.number("select count(*) from minium.entry").await?;
        let distinct = database
            .number("select count(*) from (select from minium.entry group by subject, type) e")
            .await?;
        ensure!(
            written == events && distinct == events,
            "{events} events were due, {written} are there, {distinct} of them different"
        );
        Ok(())
    }

    pub(super) async fn end(self) -> anyhow::Result<()> {
        if let Some(node) = self.node {
            node.stop().await?;
        }
        if let Backend::Postgres(store) = &self.backend {
            store.close().await;
        }
        Ok(())
    }
}

/// How many events have their number, in a database that was empty.
const NUMBERED: &str =
    "select next_offset - 1 from minium.journal_cursor order by epoch desc, next_offset desc limit 1";

/// Arguments of so many bytes.
pub(super) fn args(bytes: usize) -> anyhow::Result<Box<RawValue>> {
    Ok(to_raw_value(&["x".repeat(bytes.saturating_sub(4))])?)
}

/// Enqueues so many in one call.
pub(super) async fn enqueue(store: &dyn Store, task: &str, work: Work, call: usize) -> anyhow::Result<()> {
    let (args, mut left) = (args(work.bytes)?, work.jobs);
    while left > 0 {
        let count = left.min(call as u64);
        let jobs: Vec<_> = (0..count).map(|_| EnqueueRequest::new(task, args.clone())).collect();
        store.enqueue(&jobs).await?;
        left -= count;
    }
    Ok(())
}

/// Finishes and claims until nothing is left; answers how many were finished.
pub(super) async fn drain(store: &Arc<dyn Store>, task: &str, claims: Claims) -> anyhow::Result<u64> {
    let mut workers = JoinSet::new();
    for _ in 0..claims.workers {
        let (store, task) = (store.clone(), task.to_owned());
        workers.spawn(async move {
            let mut hands = Hands::register(store, &task, claims.batch).await?;
            while hands.turn().await? > 0 {}
            hands.leave().await
        });
    }
    let mut finished = 0;
    while let Some(done) = workers.join_next().await {
        finished += done??;
    }
    Ok(finished)
}

/// A worker that does nothing with its jobs but finish them.
pub(super) struct Hands {
    store: Arc<dyn Store>,
    claim: Claim,
    result: Box<RawValue>,
    held: Vec<Outcome>,
    finished: u64,
}

impl Hands {
    pub(super) async fn register(store: Arc<dyn Store>, task: &str, batch: u32) -> anyhow::Result<Hands> {
        let worker = store.register_worker(&WorkerInfo::new(machine::host(), std::process::id())).await?;
        let claim = Claim {
            worker,
            queues: vec!["default".into()],
            tasks: Some(vec![task.to_owned()]),
            limit: batch,
            lease: Duration::from_secs(60),
            min_priority: None,
            aged: None,
            caps: std::collections::BTreeMap::new(),
        };
        Ok(Hands { store, claim, result: to_raw_value(&())?, held: Vec::new(), finished: 0 })
    }

    /// Hands in what it holds and claims more; answers how many.
    pub(super) async fn turn(&mut self) -> anyhow::Result<usize> {
        let reply = self.store.exchange(&self.held, &self.claim).await?;
        let refused = reply.verdicts.iter().find(|v| **v != Verdict::Accepted);
        ensure!(refused.is_none(), "an outcome was not accepted: {refused:?}");
        self.finished += reply.verdicts.len() as u64;
        let done = |job: &Leased| Outcome {
            job: job.id,
            lease: job.lease,
            ending: Ending::Finished(self.result.clone()),
        };
        self.held = reply.jobs.iter().map(done).collect();
        Ok(self.held.len())
    }

    /// Hands in what it holds, claims nothing more, and says goodbye; answers how many it finished in all.
    pub(super) async fn leave(mut self) -> anyhow::Result<u64> {
        if !self.held.is_empty() {
            self.claim.limit = 0;
            self.turn().await?;
        }
        self.store.unregister_worker(self.claim.worker.id).await?;
        Ok(self.finished)
    }
}
