//! A connection and the one thread that owns it.
//!
//! Calls wait in a bounded channel. Those that came while the last commit was written share the next one: each runs
//! in a savepoint of one IMMEDIATE transaction, and none is answered before the commit that it speaks of. With
//! `synchronous=FULL` that is the difference between one flush a call and one flush for all. A call that fails or
//! panics is rolled back alone; the thread outlives it.

use super::failure::{Shared, closed, panicked};
use crate::error::QueueError;
use crate::metrics::{count_jobs, note_waits};
use rusqlite::{Connection, ffi};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};

/// Calls that share one commit. More would delay the first one's answer for little gain.
const GROUP_MAX: usize = 128;

/// What a change touched; those who wait for it are woken after the commit.
#[derive(Debug, Default)]
pub(super) struct Touched {
    /// There are new entries in the journal.
    pub(super) events: bool,
    /// There may be something to claim.
    pub(super) jobs: bool,
    /// Some worker was told something, or a running job was cancelled.
    pub(super) controls: bool,
    counts: Vec<Count>,
    waits: Vec<Wait>,
}

/// How long a claimed job could have run before, to be noted once the commit stands.
#[derive(Debug)]
struct Wait {
    queue: String,
    task: String,
    seconds: f64,
}

/// Jobs to be counted in the metrics, once the commit stands.
#[derive(Debug)]
struct Count {
    metric: &'static str,
    queue: String,
    task: String,
    state: Option<&'static str>,
    jobs: u64,
}

impl Touched {
    /// Counts one job. Neighbours are mostly alike, so that a batch becomes few counts.
    pub(super) fn count(
        &mut self,
        metric: &'static str,
        queue: &str,
        task: &str,
        state: Option<&'static str>,
    ) {
        let alike =
            |c: &&mut Count| (c.metric, c.state) == (metric, state) && c.queue == queue && c.task == task;
        match self.counts.last_mut().filter(alike) {
            Some(last) => last.jobs += 1,
            None => {
                let (queue, task) = (queue.to_owned(), task.to_owned());
                self.counts.push(Count { metric, queue, task, state, jobs: 1 });
            }
        }
    }

    /// A job was claimed that could have run for so long.
    pub(super) fn waited(&mut self, queue: &str, task: &str, seconds: f64) {
        self.waits.push(Wait { queue: queue.to_owned(), task: task.to_owned(), seconds });
    }

    fn absorb(&mut self, other: Touched) {
        self.events |= other.events;
        self.jobs |= other.jobs;
        self.controls |= other.controls;
        self.counts.extend(other.counts);
        self.waits.extend(other.waits);
    }
}

/// Wakes those who wait for changes. The values mean nothing, only that they change.
#[derive(Debug)]
pub(super) struct Signals {
    events: watch::Sender<u64>,
    jobs: watch::Sender<u64>,
    controls: watch::Sender<u64>,
    count: AtomicU64,
}

impl Signals {
    pub(super) fn new() -> Signals {
        let sender = || watch::Sender::new(0);
        Signals { events: sender(), jobs: sender(), controls: sender(), count: AtomicU64::new(0) }
    }

    pub(super) fn events(&self) -> watch::Receiver<u64> {
        self.events.subscribe()
    }

    pub(super) fn jobs(&self) -> watch::Receiver<u64> {
        self.jobs.subscribe()
    }

    pub(super) fn controls(&self) -> watch::Receiver<u64> {
        self.controls.subscribe()
    }

    fn send(&self, touched: &Touched) {
        for c in &touched.counts {
            count_jobs(c.metric, &c.queue, &c.task, c.state, c.jobs);
        }
        note_waits(touched.waits.iter().map(|w| (w.queue.as_str(), w.task.as_str(), w.seconds)));
        let n = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        if touched.events {
            self.events.send_replace(n);
        }
        if touched.jobs {
            self.jobs.send_replace(n);
        }
        if touched.controls {
            self.controls.send_replace(n);
        }
    }
}

/// One call that is to be part of a commit.
trait Work: Send {
    /// Does it; false means that its change must be rolled back.
    fn run(&mut self, conn: &Connection, touched: &mut Touched) -> bool;
    /// Why those who shared its transaction failed, when SQLite rolled all of it back because of this one.
    fn cause(&self) -> rusqlite::Error;
    /// Answers, once it is known what became of the commit.
    fn answer(self: Box<Self>, commit: Result<(), &Shared>);
}

struct Write<T, F> {
    attempted: &'static str,
    work: Option<F>,
    outcome: Option<Result<T, QueueError>>,
    reply: oneshot::Sender<Result<T, QueueError>>,
}

impl<T, F> Work for Write<T, F>
where
    T: Send,
    F: FnOnce(&Connection, &mut Touched) -> Result<T, QueueError> + Send,
{
    fn run(&mut self, conn: &Connection, touched: &mut Touched) -> bool {
        let Some(work) = self.work.take() else { return false };
        let outcome = catch_unwind(AssertUnwindSafe(|| work(conn, touched)))
            .unwrap_or_else(|payload| Err(panicked(self.attempted, payload.as_ref())));
        self.outcome.insert(outcome).is_ok()
    }

    fn cause(&self) -> rusqlite::Error {
        let code = match &self.outcome {
            Some(Err(QueueError::StorageFull { .. })) => ffi::SQLITE_FULL,
            Some(Err(QueueError::Unavailable { .. })) => ffi::SQLITE_IOERR,
            // what this one was refused for is nobody else's fault
            _ => ffi::SQLITE_ABORT_ROLLBACK,
        };
        let words = "SQLite rolled the whole transaction back";
        rusqlite::Error::SqliteFailure(ffi::Error::new(code), Some(words.into()))
    }

    fn answer(self: Box<Self>, commit: Result<(), &Shared>) {
        let answer = match (self.outcome, commit) {
            (Some(Err(own)), _) => Err(own),
            (_, Err(shared)) => Err(shared.of(self.attempted)),
            (Some(Ok(value)), Ok(())) => Ok(value),
            (None, Ok(())) => Err(closed(self.attempted)),
        };
        // whoever asked may have gone; the change stands all the same
        drop(self.reply.send(answer));
    }
}

enum Order {
    Write(Box<dyn Work>),
    /// Gets the connection itself, outside of any transaction.
    Call(Call),
}

/// A closure with the connection, and what answers for it once it is known whom to wake.
type Call = Box<dyn FnOnce(&mut Connection) -> Answer + Send>;
type Answer = Box<dyn FnOnce() + Send>;

/// The way to a connection's thread. Dropping it lets the thread do what it has been given, and ends it.
#[derive(Debug)]
pub(super) struct Actor {
    orders: Option<mpsc::Sender<Order>>,
    thread: Option<JoinHandle<()>>,
}

/// What a connection's thread needs besides its connection.
#[derive(Debug)]
pub(super) struct ActorOptions {
    /// Name of the thread.
    pub(super) name: &'static str,
    /// Calls that may wait; callers beyond wait outside.
    pub(super) calls_max: usize,
    /// How often to look whether another process has written to the file; `None` for a database that nobody shares.
    pub(super) watch_every: Option<Duration>,
}

impl Actor {
    pub(super) fn start(
        conn: Connection,
        signals: std::sync::Arc<Signals>,
        options: &ActorOptions,
    ) -> Result<Actor, QueueError> {
        let unavailable = |e: std::io::Error| QueueError::Unavailable {
            attempted: "start the database's thread",
            source: e.into(),
        };
        let (orders, inbox) = mpsc::channel(options.calls_max);
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(unavailable)?;
        // seen from here on: what others commit before the thread runs must not pass unnoticed
        let mut owner =
            Owner { conn, signals, inbox, watch_every: options.watch_every, seen: None, controls: None };
        owner.seen = owner.data_version();
        owner.controls = owner.controls();
        let thread = std::thread::Builder::new()
            .name(options.name.into())
            .spawn(move || owner.run(&runtime))
            .map_err(unavailable)?;
        Ok(Actor { orders: Some(orders), thread: Some(thread) })
    }

    /// Runs a change inside a transaction that it may share with others, and answers after the commit.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        attempted: &'static str,
        work: impl FnOnce(&Connection, &mut Touched) -> Result<T, QueueError> + Send + 'static,
    ) -> Result<T, QueueError> {
        let (reply, answer) = oneshot::channel();
        let write = Write { attempted, work: Some(work), outcome: None, reply };
        self.order(attempted, Order::Write(Box::new(write))).await?;
        answer.await.unwrap_or_else(|_| Err(closed(attempted)))
    }

    /// Runs a closure with the connection itself.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        attempted: &'static str,
        work: impl FnOnce(&mut Connection) -> T + Send + 'static,
    ) -> Result<T, QueueError> {
        let (reply, answer) = oneshot::channel();
        let call = move |conn: &mut Connection| {
            let outcome = catch_unwind(AssertUnwindSafe(|| work(conn)));
            let outcome = outcome.map_err(|payload| panicked(attempted, payload.as_ref()));
            // whoever asked may have gone; what was done stands all the same
            Box::new(move || drop(reply.send(outcome))) as Answer
        };
        self.order(attempted, Order::Call(Box::new(call))).await?;
        answer.await.unwrap_or_else(|_| Err(closed(attempted)))
    }

    async fn order(&self, attempted: &'static str, order: Order) -> Result<(), QueueError> {
        let orders = self.orders.as_ref().ok_or_else(|| closed(attempted))?;
        orders.send(order).await.map_err(|_| closed(attempted))
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        drop(self.orders.take());
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!("The database's thread panicked.");
        }
    }
}

/// The thread's side.
struct Owner {
    conn: Connection,
    signals: std::sync::Arc<Signals>,
    inbox: mpsc::Receiver<Order>,
    watch_every: Option<Duration>,
    /// SQLite's version of the data as last seen; it changes by foreign commits only.
    seen: Option<i64>,
    /// How many words to workers had been counted then.
    controls: Option<i64>,
}

impl Owner {
    fn run(mut self, runtime: &tokio::runtime::Runtime) {
        let mut looked = Instant::now();
        loop {
            match self.next(runtime) {
                Next::Order(order) => self.obey(order),
                Next::Idle => {}
                Next::Closed => return,
            }
            if self.watch_every.is_some_and(|every| looked.elapsed() >= every) {
                looked = Instant::now();
                self.look_for_strangers();
            }
        }
    }

    fn next(&mut self, runtime: &tokio::runtime::Runtime) -> Next {
        let Some(every) = self.watch_every else {
            return self.inbox.blocking_recv().map_or(Next::Closed, Next::Order);
        };
        match runtime.block_on(async { tokio::time::timeout(every, self.inbox.recv()).await }) {
            Ok(order) => order.map_or(Next::Closed, Next::Order),
            Err(_) => Next::Idle,
        }
    }

    fn obey(&mut self, first: Order) {
        let mut group = Vec::new();
        let mut order = Some(first);
        loop {
            match order.take() {
                Some(Order::Write(work)) => group.push(work),
                Some(Order::Call(call)) => {
                    self.commit(std::mem::take(&mut group));
                    self.lend(call);
                    return;
                }
                None => break,
            }
            if group.len() < GROUP_MAX {
                order = self.inbox.try_recv().ok();
            }
        }
        self.commit(group);
    }

    /// Runs the calls in one transaction and answers them all.
    fn commit(&mut self, mut group: Vec<Box<dyn Work>>) {
        if group.is_empty() {
            return;
        }
        let mut touched = Touched::default();
        let done = self.transact(&mut group, &mut touched).map_err(Shared::from);
        if let Err(shared) = &done {
            tracing::warn!(error = %shared, calls = group.len(), "A commit failed.");
            self.clear();
        } else {
            self.signals.send(&touched);
        }
        for work in group {
            work.answer(done.as_ref().copied());
        }
    }

    fn transact(&self, group: &mut [Box<dyn Work>], touched: &mut Touched) -> rusqlite::Result<()> {
        let step = |sql: &str| self.conn.prepare_cached(sql)?.execute([]).map(drop);
        step("begin immediate")?;
        if let [only] = group {
            let kept = only.run(&self.conn, touched);
            if !kept {
                *touched = Touched::default();
            }
            return if self.conn.is_autocommit() {
                // SQLite has rolled back by itself; the call's own error says why
                if kept { Err(only.cause()) } else { Ok(()) }
            } else {
                step(if kept { "commit" } else { "rollback" })
            };
        }
        for work in group {
            step("savepoint call")?;
            let mut own = Touched::default();
            let kept = work.run(&self.conn, &mut own);
            if self.conn.is_autocommit() {
                return Err(work.cause());
            }
            if kept {
                touched.absorb(own);
            } else {
                step("rollback to call")?;
            }
            step("release call")?;
        }
        step("commit")
    }

    fn lend(&mut self, call: Call) {
        let before = self.marks();
        let answer = call(&mut self.conn);
        self.clear();
        if let (Some(before), Some(after)) = (before, self.marks())
            && before != after
        {
            let (events, jobs) = (before.0 != after.0, before.1 != after.1);
            self.signals.send(&Touched { events, jobs, ..Touched::default() });
        }
        answer();
    }

    /// No call may leave a transaction open behind it.
    fn clear(&self) {
        if !self.conn.is_autocommit()
            && let Err(error) = self.conn.execute_batch("rollback")
        {
            tracing::error!(%error, "A transaction could not be rolled back.");
        }
    }

    /// The journal's last number and the last number drawn by a job that became ready, before the schema is there: none.
    fn marks(&self) -> Option<(i64, i64)> {
        let sql = "select coalesce((select seq from sqlite_sequence where name = 'entry'), 0),
                          coalesce((select n from tally where name = 'drawn'), 0)";
        self.conn.prepare_cached(sql).ok()?.query_row([], |row| Ok((row.get(0)?, row.get(1)?))).ok()
    }

    /// How many words to workers were counted, once the schema is there.
    fn controls(&self) -> Option<i64> {
        let sql = "select n from tally where name = 'control'";
        self.conn.prepare_cached(sql).ok()?.query_row([], |row| row.get(0)).ok()
    }

    fn data_version(&self) -> Option<i64> {
        self.conn.prepare_cached("pragma data_version").ok()?.query_row([], |row| row.get(0)).ok()
    }

    fn look_for_strangers(&mut self) {
        let now = self.data_version();
        if now != self.seen {
            self.seen = now;
            // not with every commit of others: who is woken extends leases, which is a commit that wakes those others
            let controls = self.controls();
            let told = controls != self.controls;
            self.controls = controls;
            self.signals.send(&Touched { events: true, jobs: true, controls: told, ..Touched::default() });
        }
    }
}

enum Next {
    Order(Order),
    Idle,
    Closed,
}
