//! Reports outcomes from the spool, the oldest first, until the node has answered each.
//!
//! A node that cannot read what it is told ends the session, and all that was on its way with it: one such outcome would
//! hold up all others for ever. So after such an end everything that was on its way is said again one by one; what the
//! session ends on several times in a row is what the node cannot read, and is refused. No other end of a session, and
//! no refusal of the worker itself (a token that has expired, say), costs an outcome: it stays in the spool.

use crate::spool::{Spool, SpoolError};
use futures::future::join_all;
use minium_client::{ClientError, Connection};
use minium_protocol::{CloseCode, ErrorCode, LeaseToken};
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
/// An outcome with which the session ended so often in a row, while nothing else was on its way, is to blame for it. Once
/// would not do: notes and leases go over the same socket, and they may be what the node could not read.
const ENDS_MAX: u32 = 3;
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
    /// The node ended the session, because of this or of something else that was said.
    Ended(Outcome, ClientError),
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
            Ending::Failed { error, retry, .. } => self.link.nack(*job, *lease, error.clone(), *retry).await,
        };
        match told {
            Ok(()) => Told::Done(*lease),
            Err(error) if error.code() == Some(ErrorCode::LeaseLost) => {
                warn!(job_id = job, "An outcome came too late: the lease was gone.");
                Told::Done(*lease)
            }
            Err(error) => match blame(&error) {
                Blame::Nobody => Told::Later(outcome),
                Blame::Somebody => Told::Ended(outcome, error),
                Blame::This => self.refused(outcome, &error, false).await,
            },
        }
    }

    /// What cannot be stored becomes a failure that says so; what cannot be stored even so, or is not to be tried any
    /// more (`last`), is given up.
    async fn refused(&self, outcome: Outcome, refusal: &ClientError, last: bool) -> Told {
        let Outcome { job, lease, .. } = outcome;
        let words = format!("the outcome could not be stored: {refusal}");
        match self.link.nack(job, lease, words, false).await {
            Ok(()) => {
                error!(job_id = job, error = %refusal, "An outcome cannot be stored; its job has failed for that.");
                Told::Done(lease)
            }
            Err(error) if matches!(blame(&error), Blame::Nobody) => Told::Later(outcome),
            Err(error) if matches!(blame(&error), Blame::Somebody) && !last => Told::Ended(outcome, error),
            Err(second) => {
                error!(job_id = job, error = %refusal, %second, "An outcome cannot be stored and is given up.");
                Told::Done(lease)
            }
        }
    }

    /// The oldest, at most so many.
    fn next(&self, count_max: usize) -> Vec<Outcome> {
        let mut queue = self.queue();
        let count = queue.len().min(count_max);
        queue.drain(..count).collect()
    }

    /// One round. Answers whether something is to be said again.
    async fn round(&self, batch: Vec<Outcome>, doubt: &mut Doubt) -> bool {
        let mut told = join_all(batch.into_iter().map(|outcome| self.tell(outcome))).await;
        if let [Told::Ended(..)] = &told[..]
            && doubt.convicts()
            && let Some(Told::Ended(outcome, error)) = told.pop()
        {
            told.push(self.refused(outcome, &error, doubt.is_over()).await);
        }
        let (mut done, mut again, mut ended) = (Vec::new(), Vec::new(), false);
        for told in told {
            match told {
                Told::Done(lease) => done.push(lease),
                Told::Later(outcome) => again.push(outcome),
                Told::Ended(outcome, _) => {
                    ended = true;
                    again.push(outcome);
                }
            }
        }
        doubt.learn(done.len(), again.len(), ended);
        let (reported, any) = (done.len(), !again.is_empty());
        self.with_spool(move |spool| spool.settle(&done)).await;
        self.open.send_modify(|n| *n -= reported);
        let mut queue = self.queue();
        again.into_iter().rev().for_each(|outcome| queue.push_front(outcome));
        any
    }
}

/// Whether what was said is to blame for an answer.
#[derive(Debug, PartialEq, Eq)]
enum Blame {
    /// No: it may be said again, to another node or later.
    Nobody,
    /// One of all that were on their way.
    Somebody,
    /// Yes.
    This,
}

fn blame(error: &ClientError) -> Blame {
    const UNREADABLE: [CloseCode; 4] =
        [CloseCode::Unsupported, CloseCode::InvalidData, CloseCode::TooBig, CloseCode::BadFrame];
    match error {
        ClientError::Closed { code, .. } if UNREADABLE.iter().any(|c| c.code() == *code) => Blame::Somebody,
        _ => match error.problem().map(|problem| problem.code) {
            Some(
                ErrorCode::InvalidRequest
                | ErrorCode::InvalidJson
                | ErrorCode::PayloadTooLarge
                | ErrorCode::SchemaViolation,
            ) => Blame::This,
            _ => Blame::Nobody,
        },
    }
}

/// Those that were on their way when the node ended a session, until each of them has been said alone.
#[derive(Debug, Default)]
struct Doubt {
    /// So many, at the front of the queue.
    suspects: usize,
    /// How often in a row the session ended with the first of them.
    ends: u32,
}

impl Doubt {
    fn at_once(&self) -> usize {
        if self.suspects > 0 { 1 } else { AT_ONCE }
    }

    /// The session has ended with one alone: was that once too often?
    fn convicts(&mut self) -> bool {
        self.ends += 1;
        self.ends >= ENDS_MAX
    }

    /// Is there no sense in trying its replacement any more?
    fn is_over(&self) -> bool {
        self.ends >= 2 * ENDS_MAX
    }

    /// After a round: so many are done, so many are to be said again, and whether the node ended the session.
    fn learn(&mut self, done: usize, again: usize, ended: bool) {
        if done > 0 {
            self.ends = 0;
        }
        self.suspects = if ended { self.suspects.max(again) } else { self.suspects.saturating_sub(done) };
    }
}

async fn run(reports: std::sync::Weak<Reports>) {
    let (mut pause, mut doubt) = (PAUSE_MIN, Doubt::default());
    loop {
        let Some(reports) = reports.upgrade() else { return };
        let batch = reports.next(doubt.at_once());
        if batch.is_empty() {
            let news = reports.news.clone();
            // who only waits must not keep it alive
            drop(reports);
            news.notified().await;
            continue;
        }
        if reports.round(batch, &mut doubt).await {
            tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            pause = (pause * 2).min(PAUSE_MAX);
        } else {
            pause = PAUSE_MIN;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use minium_protocol::Problem;

    #[test]
    fn only_what_was_said_is_to_blame() {
        let closed = |code: u16| blame(&ClientError::Closed { code, reason: String::new() });
        for code in [1003, 1007, 1009, 4500] {
            assert_eq!(closed(code), Blame::Somebody, "{code}");
        }
        // 1008 among them: a message that did not arrive in time may do so over a better network
        for code in [1000, 1001, 1008, 1011, 1013, 4000, 4029, 4501, 4503, 4504] {
            assert_eq!(closed(code), Blame::Nobody, "{code}");
        }
        let problem = |code| blame(&Problem::new(code, "x").into());
        assert_eq!(problem(ErrorCode::PayloadTooLarge), Blame::This);
        for code in
            [ErrorCode::Unauthorized, ErrorCode::Forbidden, ErrorCode::NotFound, ErrorCode::Unavailable]
        {
            assert_eq!(problem(code), Blame::Nobody, "{code}");
        }
        assert_eq!(blame(&ClientError::Status { status: 413, text: String::new() }), Blame::Nobody);
    }

    #[test]
    fn suspects_stand_alone_until_each_was_heard() {
        let mut doubt = Doubt::default();
        doubt.learn(3, 2, true);
        assert_eq!(doubt.at_once(), 1);
        for _ in 1..ENDS_MAX {
            assert!(!doubt.convicts());
            doubt.learn(0, 1, true);
        }
        assert!(doubt.convicts() && !doubt.is_over());
        doubt.learn(1, 0, false);
        assert_eq!((doubt.at_once(), doubt.ends), (1, 0), "the other one is still to be heard");
        doubt.learn(0, 1, false);
        assert_eq!(doubt.at_once(), 1, "the node was away");
        doubt.learn(1, 0, false);
        assert_eq!(doubt.at_once(), AT_ONCE);
    }
}
