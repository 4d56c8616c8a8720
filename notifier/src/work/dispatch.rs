//! The dispatcher: claims jobs for pullers who have credit, and hands them over.
//!
//! One claim is under way at a time, for all groups that may find something ([`super::pullers`]); so a wake-up costs
//! one statement, however many pull. It looks when pullers give credit, when the store wakes, and at a slow pace
//! besides. A claim that brought nothing is followed by a pause that grows with what the claim cost.

use super::held::{Held, Run};
use super::options::{Backoff, WorkOptions, jittered};
use super::pullers::{Asked, Pullers};
use super::status;
use super::{ArgsCheck, Store, StoreSlot};
use crate::metrics::{CLAIMS, JOBS_PULLED, JOBS_RELEASED};
use bytes::Bytes;
use minium_bus::LeasedJob;
use minium_protocol::{LeaseToken, Problem, SchemaFault, WorkerRef};
use minium_queue::{Claim, Ending, Leased, Outcome, Pull, Pulled, QueueError, Verdict, WorkerStatus, causes};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

/// The pullers, what they did not take, and the word that there is news of them.
#[derive(Debug, Default)]
pub(super) struct Counter {
    pullers: Mutex<Pullers>,
    /// Jobs of sessions that were gone, to be given back.
    unwanted: Mutex<Vec<(i64, LeaseToken)>>,
    pub(super) news: Notify,
}

impl Counter {
    pub(super) fn pullers(&self) -> MutexGuard<'_, Pullers> {
        self.pullers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unwanted(&self) -> MutexGuard<'_, Vec<(i64, LeaseToken)>> {
        self.unwanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody has begun these.
    pub(super) fn give_back(&self, jobs: Vec<(i64, LeaseToken)>) {
        self.unwanted().extend(jobs);
        self.news.notify_one();
    }
}

/// This node among the workers. It registers when somebody first pulls here.
#[derive(Debug, Default)]
pub(super) struct Identity(Mutex<Option<WorkerRef>>);

impl Identity {
    pub(super) fn current(&self) -> Option<WorkerRef> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, worker: Option<WorkerRef>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = worker;
    }

    async fn obtain(
        &self,
        store: &dyn Store,
        options: &WorkOptions,
        fares: impl FnOnce() -> WorkerStatus + Send,
    ) -> Result<WorkerRef, QueueError> {
        if let Some(worker) = self.current() {
            return Ok(worker);
        }
        let host = options.host.clone().unwrap_or_else(host_name);
        let worker = store.register_worker(&status::info(&host, fares())).await?;
        tracing::info!(worker = worker.id, "This node gives out work to pullers.");
        self.set(Some(worker.clone()));
        Ok(worker)
    }

    /// Signs off, if it was registered.
    pub(super) async fn end(&self, store: &dyn Store) -> Result<(), QueueError> {
        match self.current() {
            Some(worker) => store.unregister_worker(worker.id).await,
            None => Ok(()),
        }
    }
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Says that this node is alive. One that was forgotten registers anew with the next claim.
pub(super) struct Heartbeat {
    pub(super) identity: Arc<Identity>,
    pub(super) counter: Arc<Counter>,
    pub(super) held: Arc<Held>,
    pub(super) store: StoreSlot,
    pub(super) options: Arc<WorkOptions>,
}

impl Heartbeat {
    pub(super) async fn run(self, stop: CancellationToken) {
        while stop.run_until_cancelled(sleep(jittered(self.options.heartbeat))).await.is_some() {
            let current = self.store.borrow().clone();
            let (Some(worker), Some(store)) = (self.identity.current(), current) else { continue };
            let fares = status::of(&self.counter.pullers(), &self.held, Instant::now());
            match store.heartbeat(worker.id, &fares).await {
                Ok(()) => {}
                Err(QueueError::Unregistered(_)) => self.identity.set(None),
                Err(error) => tracing::debug!(error = causes(&error), "A heartbeat has failed."),
            }
        }
    }
}

pub(super) struct Dispatcher {
    pub(super) counter: Arc<Counter>,
    pub(super) held: Arc<Held>,
    pub(super) identity: Arc<Identity>,
    pub(super) check: ArgsCheck,
    pub(super) store: StoreSlot,
    pub(super) options: Arc<WorkOptions>,
    /// Ends the claims.
    pub(super) stop: CancellationToken,
    /// Ends the rest.
    pub(super) end: CancellationToken,
    /// What a job took in the last claim, or half of what one took before where that is more; zero before the first.
    pub(super) job_bytes: usize,
    /// How jobs of the last claim end whose arguments nobody is to see.
    pub(super) refused: Vec<Outcome>,
}

/// What a job is taken for until the first have come, so that nobody gets many that turn out to be large.
const JOB_BYTES_UNKNOWN: usize = 64 * 1024;
/// Errors of jobs are cut to this, as a worker's are.
const ERROR_BYTES_MAX: usize = 8 * 1024;

impl Dispatcher {
    /// Until it is told to stop. A store that is away is waited for.
    pub(super) async fn run(mut self) {
        let stop = self.stop.clone();
        let mut backoff = Backoff::default();
        loop {
            let Some(store) = self.present().await else { break };
            let ended = self.serve(store.as_ref(), &mut backoff).await;
            let Err(error) = ended else { break };
            let pause = backoff.pause(&self.options);
            tracing::debug!(error = causes(&error), ?pause, "Work cannot be given out; trying again.");
            if stop.run_until_cancelled(sleep(pause)).await.is_none() {
                break;
            }
        }
        // sessions that close now may still give something back
        self.end.cancelled().await;
        let current = self.store.borrow().clone();
        if let Some(store) = current
            && let Err(error) = self.put_away(store.as_ref()).await
        {
            tracing::warn!(error = causes(&error), "Jobs that nobody took wait for their leases to end.");
        }
    }

    /// The store, when it is there; nothing when it is time to stop.
    async fn present(&mut self) -> Option<Arc<dyn Store>> {
        let there = self.stop.run_until_cancelled(self.store.wait_for(Option::is_some)).await?;
        there.ok()?.clone()
    }

    async fn serve(&mut self, store: &dyn Store, backoff: &mut Backoff) -> Result<(), QueueError> {
        let mut wakeups = Some(store.wakeups());
        // whatever came while nobody looked
        self.counter.pullers().wake();
        while !self.stop.is_cancelled() {
            self.put_away(store).await?;
            let jobs_max = self.options.claim_bytes_max / self.job_bytes.max(1);
            let jobs_max = jobs_max.clamp(1, self.options.claim_jobs_max);
            let job_bytes = if self.job_bytes == 0 { JOB_BYTES_UNKNOWN } else { self.job_bytes };
            let asked = self.counter.pullers().ask(jobs_max, job_bytes);
            if asked.is_empty() {
                self.idle(&mut wakeups).await;
                continue;
            }
            let began = Instant::now();
            let got = self.claim(store, &asked).await?;
            if backoff.reset() {
                tracing::info!("Work is given out again.");
            }
            if got == 0 {
                let pause = began.elapsed() * self.options.vain_pause_factor;
                self.stop.run_until_cancelled(sleep(pause.min(self.options.vain_pause_max))).await;
            }
        }
        Ok(())
    }

    /// Nobody has to be looked for, until somebody gives credit, or there may be something new.
    async fn idle(&self, wakeups: &mut Option<watch::Receiver<u64>>) {
        let wanting = self.counter.pullers().is_wanting();
        let poll_at = Instant::now() + jittered(self.options.poll);
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = self.counter.news.notified() => {}
            // without anybody who wants something, wake-ups would be in vain
            () = changed(wakeups), if wanting => self.counter.pullers().wake(),
            () = sleep_until(poll_at), if wanting => self.counter.pullers().wake(),
        }
    }

    /// One claim for all of these. Answers how many jobs it brought.
    async fn claim(&mut self, store: &dyn Store, asked: &[Asked]) -> Result<usize, QueueError> {
        // made only when this node registers: it goes over all pullers
        let fares = || status::of(&self.counter.pullers(), &self.held, Instant::now());
        let me = match self.identity.obtain(store, &self.options, fares).await {
            Ok(me) => me,
            Err(error) => return Err(self.failed(asked, error)),
        };
        match pull(store, &me, asked).await {
            Ok(pulled) => Ok(self.deal(asked, pulled)),
            Err(error) if error.is_refusal() => self.claim_each(store, &me, asked).await,
            Err(error) => Err(self.failed(asked, error)),
        }
    }

    /// A claim for each of these alone, after one for all was refused: what one group asks for is not to keep jobs from
    /// the others. Whoever is to blame is looked for no more.
    async fn claim_each(
        &mut self,
        store: &dyn Store,
        me: &WorkerRef,
        asked: &[Asked],
    ) -> Result<usize, QueueError> {
        let mut got = 0;
        for (i, one) in asked.iter().enumerate() {
            match pull(store, me, std::slice::from_ref(one)).await {
                Ok(pulled) => got += self.deal(std::slice::from_ref(one), pulled),
                Err(error) if error.is_refusal() => {
                    let pullers = self.counter.pullers().refused(one);
                    tracing::warn!(
                        pullers,
                        queue = one.wish.queue,
                        error = causes(&error),
                        "What pullers ask for was refused; they get no jobs."
                    );
                }
                Err(error) => return Err(self.failed(&asked[i..], error)),
            }
        }
        Ok(got)
    }

    /// These are to be looked for again.
    fn failed(&self, asked: &[Asked], error: QueueError) -> QueueError {
        let mut pullers = self.counter.pullers();
        asked.iter().for_each(|a| pullers.failed(a));
        error
    }

    /// Hands over what a claim brought. Answers how many jobs that were.
    fn deal(&mut self, asked: &[Asked], pulled: Vec<Pulled>) -> usize {
        metrics::counter!(CLAIMS).increment(1);
        metrics::counter!(JOBS_PULLED).increment(pulled.len() as u64);
        if !pulled.is_empty() {
            let bytes: usize = pulled.iter().map(|p| p.snapshot.get().len() + p.job.args.get().len()).sum();
            // large ones come together: it is not forgotten at once that there are some
            self.job_bytes = (bytes / pulled.len()).max(self.job_bytes / 2);
        }
        let mut got = vec![0; asked.len()];
        pulled.iter().for_each(|p| got[p.pull] += 1);
        {
            let mut pullers = self.counter.pullers();
            asked.iter().zip(&got).for_each(|(a, got)| pullers.answered(a, *got));
        }
        let count = pulled.len();
        for p in pulled {
            let asked = &asked[p.pull];
            let taker = asked.takers[p.place].0;
            match (self.check)(&p.job.task, &p.job.args) {
                Ok(()) => self.hand_over(taker, asked, p),
                Err(problem) => self.refuse(taker, &p.job, &problem),
            }
        }
        count
    }

    /// To the puller for whom it was claimed; if he is gone, it is given back.
    fn hand_over(&mut self, id: u64, asked: &Asked, pulled: Pulled) {
        let Pulled { job, snapshot, .. } = pulled;
        let (number, lease) = (job.id, job.lease);
        let Some(puller) = self.counter.pullers().puller(id) else {
            self.counter.unwanted().push((number, lease));
            return;
        };
        let Ok(task) = job.task.parse() else {
            // the queue checks names; only whoever writes the table by hand gets here
            tracing::error!(
                job_id = number,
                task = job.task,
                "A job's task is no channel; it is given back."
            );
            self.counter.unwanted().push((number, lease));
            return;
        };
        let span = asked.wish.lease;
        // before it is handed over: from then on it may be cancelled, or over
        let run = Run { lease, attempt: job.attempt, span, puller: Arc::downgrade(&puller) };
        self.held.begin(number, run, Instant::now());
        let leased = LeasedJob {
            id: number,
            task,
            snapshot: Bytes::from(String::from(Box::<str>::from(snapshot))),
            args: Bytes::from(String::from(Box::<str>::from(job.args))),
            lease,
            expires: job.lease_expires,
            trace: job.trace,
        };
        if puller.take(leased).is_err() {
            // nothing more is claimed for him
            self.counter.pullers().leave(id);
            self.held.end(number, lease);
            self.counter.unwanted().push((number, lease));
        }
    }

    /// A job that nobody is to see: it fails, and who would have got it may get another.
    fn refuse(&mut self, taker: u64, job: &Leased, problem: &Problem) {
        tracing::debug!(job_id = job.id, task = job.task, "A job's arguments break their schema: it fails.");
        let error = match &problem.errors[..] {
            [] => format!("{}: {}", problem.code, problem.detail.as_deref().unwrap_or(&problem.title)),
            faults => SchemaFault::describe(faults),
        };
        // PostgreSQL keeps no NUL in texts
        let mut error = error.replace('\0', "\u{fffd}");
        error.truncate(error.floor_char_boundary(ERROR_BYTES_MAX));
        let ending = Ending::failed_for_good(error);
        self.refused.push(Outcome { job: job.id, lease: job.lease, ending });
        self.counter.pullers().credit(taker, 1, self.options.credit_max);
    }

    /// Ends what was refused, and gives back what nobody has begun.
    async fn put_away(&mut self, store: &dyn Store) -> Result<(), QueueError> {
        if !self.refused.is_empty() {
            match store.exchange(&self.refused, &Claim::nothing()).await {
                Ok(exchanged) => {
                    let mut open = exchanged.verdicts.iter().map(|verdict| *verdict == Verdict::Unjudged);
                    self.refused.retain(|_| open.next().unwrap_or(false));
                }
                Err(error) if error.is_refusal() => {
                    let jobs = self.refused.len();
                    tracing::error!(
                        jobs,
                        error = causes(&error),
                        "Jobs could not be failed; their leases will end."
                    );
                    self.refused.clear();
                }
                // at the latest they are claimed, and judged, again when their leases end
                Err(error) => return Err(error),
            }
        }
        self.release(store).await
    }

    /// Gives back what nobody has begun.
    async fn release(&self, store: &dyn Store) -> Result<(), QueueError> {
        let jobs = std::mem::take(&mut *self.counter.unwanted());
        if jobs.is_empty() {
            return Ok(());
        }
        match store.release(&jobs).await {
            Ok(released) => {
                metrics::counter!(JOBS_RELEASED).increment(released);
                tracing::debug!(released, "Jobs whose puller was gone wait again.");
                Ok(())
            }
            Err(error) => {
                // at the latest they are gone when their leases end
                self.counter.unwanted().extend(jobs);
                Err(error)
            }
        }
    }
}

/// One pull for each of these. The node's number, the puller's name: who ran it is what people ask for.
async fn pull(store: &dyn Store, me: &WorkerRef, asked: &[Asked]) -> Result<Vec<Pulled>, QueueError> {
    let worker = |(_, name): &(u64, String)| WorkerRef { host: name.clone(), ..me.clone() };
    let pull = |a: &Asked| Pull {
        queue: a.wish.queue.clone(),
        tasks: a.tasks.clone(),
        lease: a.wish.lease,
        workers: a.takers.iter().map(worker).collect(),
    };
    let pulls: Vec<Pull> = asked.iter().map(pull).collect();
    store.pull(&pulls).await
}

/// Waits for a wake-up. A store that has none left is polled only.
async fn changed(wakeups: &mut Option<watch::Receiver<u64>>) {
    match wakeups {
        Some(receiver) => {
            if receiver.changed().await.is_err() {
                *wakeups = None;
            }
        }
        None => std::future::pending().await,
    }
}
