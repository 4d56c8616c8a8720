//! Reports outcomes from the spool, the oldest first, until the node has answered each.

use crate::spool::{Spool, SpoolError};
use futures::future::join_all;
use minium_client::{ClientError, Connection};
use minium_protocol::{ErrorCode, LeaseToken};
use minium_queue::{Ending, Outcome};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::spawn_blocking;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tracing::{error, info, warn};

/// So many are on their way at once.
const AT_ONCE: usize = 64;
/// Pauses after an answer that says: later. The connection's own failures are waited for by the connection.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);

type Room = Box<dyn Fn() + Send + Sync>;

pub(super) struct Reports {
    link: Connection,
    spool: Arc<Mutex<Spool>>,
    queue: Mutex<VecDeque<Outcome>>,
    news: Arc<Notify>,
    /// How many are not reported yet.
    open: watch::Sender<usize>,
    full: AtomicBool,
    /// Called when the spool is full no more.
    room: OnceLock<Room>,
    running: OnceLock<AbortOnDropHandle<()>>,
}

/// What became of one report.
enum Told {
    /// The node has it, or refuses it for good.
    Done(LeaseToken),
    /// It is to be said again.
    Later(Outcome),
}

impl Reports {
    pub(super) fn start(link: Connection, spool: Spool) -> Arc<Reports> {
        let waiting: VecDeque<Outcome> = spool.outcomes().cloned().collect();
        if !waiting.is_empty() {
            info!(outcomes = waiting.len(), spool = %spool.path().display(), "Outcomes of an earlier run are reported.");
        }
        let reports = Arc::new(Reports {
            link,
            full: AtomicBool::new(spool.is_full()),
            spool: Arc::new(Mutex::new(spool)),
            open: watch::Sender::new(waiting.len()),
            queue: Mutex::new(waiting),
            news: Arc::default(),
            room: OnceLock::new(),
            running: OnceLock::new(),
        });
        let task = TaskTracker::new().spawn(run(Arc::downgrade(&reports)));
        reports.running.get_or_init(|| AbortOnDropHandle::new(task));
        reports
    }

    pub(super) fn when_room(&self, call: impl Fn() + Send + Sync + 'static) {
        self.room.get_or_init(|| Box::new(call));
    }

    pub(super) fn is_full(&self) -> bool {
        self.full.load(Ordering::SeqCst)
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<Outcome>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works with the spool where waiting for a disk holds nobody up.
    async fn with_spool<T: Send + 'static>(&self, work: impl FnOnce(&mut Spool) -> T + Send + 'static) -> T {
        let spool = self.spool.clone();
        let worked = spawn_blocking(move || {
            let mut spool = spool.lock().unwrap_or_else(PoisonError::into_inner);
            let done = work(&mut spool);
            (done, spool.is_full())
        });
        match worked.await {
            Ok((done, full)) => {
                if self.full.swap(full, Ordering::SeqCst)
                    && !full
                    && let Some(room) = self.room.get()
                {
                    room();
                }
                done
            }
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }

    /// Takes outcomes over: when this returns, they are on the disk, and will be reported.
    pub(super) async fn keep(&self, outcomes: Vec<Outcome>) -> Result<(), SpoolError> {
        let kept = outcomes.clone();
        self.with_spool(move |spool| spool.append(&kept)).await?;
        self.open.send_modify(|n| *n += outcomes.len());
        self.queue().extend(outcomes);
        self.news.notify_one();
        Ok(())
    }

    pub(super) async fn all_reported(&self) {
        // the sender is ours
        self.open.subscribe().wait_for(|n| *n == 0).await.ok();
    }

    async fn tell(&self, outcome: Outcome) -> Told {
        let Outcome { job, lease, ending } = &outcome;
        let told = match ending {
            Ending::Finished(result) => self.link.ack(*job, *lease, super::result(result)).await,
            Ending::Failed { error, retry } => self.link.nack(*job, *lease, error.clone(), *retry).await,
        };
        match told {
            Ok(()) => Told::Done(*lease),
            Err(error) if error.code() == Some(ErrorCode::LeaseLost) => {
                warn!(job_id = job, "An outcome came too late: the lease was gone.");
                Told::Done(*lease)
            }
            Err(error) if passes(&error) => Told::Later(outcome),
            Err(error) => self.refused(outcome, &error).await,
        }
    }

    /// What cannot be stored becomes a failure that says so; what cannot be stored even so is given up.
    async fn refused(&self, outcome: Outcome, refusal: &ClientError) -> Told {
        let Outcome { job, lease, .. } = outcome;
        let words = format!("the outcome could not be stored: {refusal}");
        match self.link.nack(job, lease, words, false).await {
            Err(error) if passes(&error) => Told::Later(outcome),
            answer => {
                let second = answer.err().map(|e| e.to_string());
                error!(job_id = job, error = %refusal, second, "An outcome cannot be stored and is given up.");
                Told::Done(lease)
            }
        }
    }
}

/// May it be said again, to another node or later?
fn passes(error: &ClientError) -> bool {
    match error.problem() {
        Some(problem) => problem.retryable,
        None => true,
    }
}

async fn run(reports: std::sync::Weak<Reports>) {
    let mut pause = PAUSE_MIN;
    loop {
        let Some(reports) = reports.upgrade() else { return };
        let batch: Vec<Outcome> = {
            let mut queue = reports.queue();
            let count = queue.len().min(AT_ONCE);
            queue.drain(..count).collect()
        };
        if batch.is_empty() {
            let news = reports.news.clone();
            // who only waits must not keep it alive
            drop(reports);
            news.notified().await;
            continue;
        }
        let told = join_all(batch.into_iter().map(|outcome| reports.tell(outcome))).await;
        let (mut done, mut later) = (Vec::new(), Vec::new());
        for told in told {
            match told {
                Told::Done(lease) => done.push(lease),
                Told::Later(outcome) => later.push(outcome),
            }
        }
        let (reported, again) = (done.len(), !later.is_empty());
        reports.with_spool(move |spool| spool.settle(&done)).await;
        reports.open.send_modify(|n| *n -= reported);
        {
            let mut queue = reports.queue();
            later.into_iter().rev().for_each(|outcome| queue.push_front(outcome));
        }
        if again {
            tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            pause = (pause * 2).min(PAUSE_MAX);
        } else {
            pause = PAUSE_MIN;
        }
    }
}
