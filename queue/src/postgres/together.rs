//! Enqueues of few plain jobs that come while others are on their way go together: one statement, one commit.
//!
//! A statement and its commit cost the same for one job and for some; so what many callers ask for one by one costs nearly as
//! little as what one of them asks for at once. Nobody waits for company: who comes when there is a turn goes alone, and who
//! gets none within a quarter of a second goes by itself.
//!
//! What must hold: each caller gets the ids of its own jobs, all or none of them; a job that the database does not take fails
//! nobody else's (only if the database goes away do all fail, as they would have by themselves); a caller that gives up takes
//! nobody's answer along, since what goes for several is run by a task of its own; and one that has given up before its jobs went
//! has nothing enqueued.

use super::PgStore;
use super::connection::Connections;
use super::enqueue::{WHAT, at_once, count};
use super::listener::Ears;
use crate::error::QueueError;
use crate::rules;
use crate::store::Enqueued;
use minium_protocol::EnqueueRequest;
use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

/// Calls of more jobs, or of more bytes, go by themselves.
const FEW: usize = 64;
const FEW_BYTES: usize = 64 << 10;
/// So many statements may be on their way at once. With two the database is never idle while an answer is on its way.
const TURNS: usize = 2;
/// So many bytes go in one statement.
const BYTES_MAX: usize = 1 << 20;
/// So many callers may wait for their turn; who comes then goes by itself.
const WAITING_MAX: usize = 1_000;
/// For so long. It is more than a statement takes, unless something holds it up.
const PATIENCE: Duration = Duration::from_millis(250);

type Answer = Result<Vec<Enqueued>, QueueError>;

/// Who waits for a turn.
#[derive(Debug)]
struct Waiting {
    ticket: u64,
    requests: Vec<EnqueueRequest>,
    bytes: usize,
    tell: oneshot::Sender<Answer>,
}

/// All who wait, first come first.
#[derive(Debug)]
pub(super) struct Together {
    waiting: Mutex<VecDeque<Waiting>>,
    tickets: AtomicU64,
    turns: Semaphore,
}

/// Somebody's place among those who wait: let go of when it is not needed any more, whatever the reason.
struct Place<'a> {
    together: &'a Together,
    ticket: u64,
    /// Dropped, it tells the task that waits for the turn.
    _wanted: oneshot::Sender<()>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.together.leave(self.ticket);
    }
}

/// What of a request may be long.
fn weight(request: &EnqueueRequest) -> usize {
    let notes = &request.options.notes;
    request.args.get().len() + if notes.is_empty() { 0 } else { rules::notes_text(notes).len() }
}

/// How many bytes they are, if they are few.
fn few(requests: &[EnqueueRequest]) -> Option<usize> {
    if requests.len() > FEW {
        return None;
    }
    let bytes = requests.iter().map(weight).sum();
    (bytes <= FEW_BYTES).then_some(bytes)
}

impl PgStore {
    /// Enqueues plain jobs. Few go alone if there is a turn for them, else with others.
    pub(super) async fn enqueue_plain(&self, requests: &[EnqueueRequest]) -> Answer {
        let Some(bytes) = few(requests) else { return self.enqueue_alone(requests).await };
        // who has nobody to wait for needs no task of its own
        if let Ok(_turn) = self.together.turns.try_acquire() {
            return self.enqueue_alone(requests).await;
        }
        match self.with_others(requests, bytes).await {
            Some(answer) => answer,
            None => self.enqueue_alone(requests).await,
        }
    }

    /// Tells who waits for them, and counts them.
    async fn enqueue_alone(&self, requests: &[EnqueueRequest]) -> Answer {
        let made = at_once(&self.connections, requests).await?;
        count(requests, &made);
        self.wake(true);
        Ok(made)
    }

    /// Nothing when there was no turn: then nothing is enqueued.
    async fn with_others(&self, requests: &[EnqueueRequest], bytes: usize) -> Option<Answer> {
        let (tell, mut told) = oneshot::channel();
        let ticket = self.together.join(requests.to_vec(), bytes, tell)?;
        let (_wanted, unwanted) = oneshot::channel();
        let _place = Place { together: &self.together, ticket, _wanted };
        // each who waits has a task that waits for a turn, and takes along whoever else is there by then
        let (together, connections, ears) =
            (self.together.clone(), self.connections.clone(), self.ears.clone());
        let batch_max = self.options.batch_max;
        self.behind.spawn(async move {
            let turn = tokio::select! {
                turn = together.turns.acquire() => turn,
                _ = unwanted => return,
            };
            let taken = together.take(batch_max);
            if turn.is_ok() && !taken.is_empty() {
                go(&connections, &ears, taken).await;
            }
        });
        let answer = match timeout(PATIENCE, &mut told).await {
            Ok(answer) => answer,
            Err(_) if self.together.leave(ticket) => return None,
            // it is on its way
            Err(_) => told.await,
        };
        Some(
            answer.unwrap_or_else(|ended| {
                Err(QueueError::Unavailable { attempted: WHAT, source: ended.into() })
            }),
        )
    }
}

impl Together {
    pub(super) fn new() -> Together {
        Together { waiting: Mutex::default(), tickets: AtomicU64::new(0), turns: Semaphore::new(TURNS) }
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing when too many wait.
    fn join(
        &self,
        requests: Vec<EnqueueRequest>,
        bytes: usize,
        tell: oneshot::Sender<Answer>,
    ) -> Option<u64> {
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        let mut waiting = self.waiting();
        (waiting.len() < WAITING_MAX).then(|| {
            waiting.push_back(Waiting { ticket, requests, bytes, tell });
            ticket
        })
    }

    /// Answers whether it had not gone yet.
    fn leave(&self, ticket: u64) -> bool {
        let mut waiting = self.waiting();
        let place = waiting.iter().position(|w| w.ticket == ticket);
        place.and_then(|place| waiting.remove(place)).is_some()
    }

    /// The next to go: as many as one statement takes, and one at least.
    fn take(&self, jobs_max: usize) -> Vec<Waiting> {
        let mut waiting = self.waiting();
        let (mut taken, mut jobs, mut bytes) = (Vec::new(), 0, 0);
        while let Some(next) = waiting.front() {
            // a caller that has given up has nothing enqueued
            let wanted = !next.tell.is_closed();
            if wanted {
                (jobs, bytes) = (jobs + next.requests.len(), bytes + next.bytes);
                if !taken.is_empty() && (jobs > jobs_max || bytes > BYTES_MAX) {
                    break;
                }
            }
            let next = waiting.pop_front();
            taken.extend(next.filter(|_| wanted));
        }
        taken
    }
}

/// A caller and the places of its jobs.
type Caller = (Range<usize>, oneshot::Sender<Answer>);

/// Enqueues for all of them and tells each. That one is not there any more to be told is its own affair.
async fn go(connections: &Connections, ears: &Ears, taken: Vec<Waiting>) {
    let (mut all, mut callers) = (Vec::new(), Vec::<Caller>::new());
    for Waiting { requests, tell, .. } in taken {
        callers.push((all.len()..all.len() + requests.len(), tell));
        all.extend(requests);
    }
    match at_once(connections, &all).await {
        Ok(made) => {
            count(&all, &made);
            ears.tell_written(true);
            for (places, tell) in callers {
                tell.send(Ok(made[places].to_vec())).ok();
            }
        }
        Err(error) if callers.len() == 1 => _ = callers.pop().map(|(_, tell)| tell.send(Err(error))),
        Err(error) if error.is_refusal() => one_by_one(connections, ears, &all, callers).await,
        Err(error) => tell_all(error, callers),
    }
}

/// Nothing was enqueued, since the database did not take something of somebody's: each hears what there is to say of its own.
async fn one_by_one(connections: &Connections, ears: &Ears, all: &[EnqueueRequest], callers: Vec<Caller>) {
    let mut callers = callers.into_iter();
    while let Some((places, tell)) = callers.next() {
        if tell.is_closed() {
            continue;
        }
        let requests = &all[places];
        match at_once(connections, requests).await {
            Ok(made) => {
                count(requests, &made);
                ears.tell_written(true);
                tell.send(Ok(made)).ok();
            }
            Err(error) if error.is_refusal() => drop(tell.send(Err(error))),
            // nobody behind would fare better
            Err(error) => return tell_all(error, std::iter::once((0..0, tell)).chain(callers)),
        }
    }
}

/// Tells each of them the same. It is not that the database does not take something.
fn tell_all(error: QueueError, callers: impl IntoIterator<Item = Caller>) {
    let mut again = repeated(error);
    for (_, tell) in callers {
        tell.send(Err(again())).ok();
    }
}

type Cause = Box<dyn Error + Send + Sync>;

/// The same error as often as it is wanted.
fn repeated(error: QueueError) -> Box<dyn FnMut() -> QueueError + Send> {
    let (attempted, cause, make): (_, Cause, fn(&'static str, Cause) -> QueueError) = match error {
        QueueError::Busy { attempted } => return Box::new(move || QueueError::Busy { attempted }),
        QueueError::Schema(words) => return Box::new(move || QueueError::Schema(words.clone())),
        QueueError::StorageFull { attempted, source } => {
            (attempted, source, |attempted, source| QueueError::StorageFull { attempted, source })
        }
        QueueError::Unavailable { attempted, source } => {
            (attempted, source, |attempted, source| QueueError::Unavailable { attempted, source })
        }
        QueueError::Database { attempted, source } => {
            (attempted, source, |attempted, source| QueueError::Database { attempted, source })
        }
        other => (WHAT, other.into(), |attempted, source| QueueError::Database { attempted, source }),
    };
    let cause = Shared(cause.into());
    Box::new(move || make(attempted, cause.clone().into()))
}

/// Why a statement failed that went for several callers.
#[derive(Debug, Clone)]
struct Shared(Arc<dyn Error + Send + Sync>);

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it went together with what others enqueued")
    }
}

impl Error for Shared {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::value::to_raw_value;

    fn jobs(count: usize, bytes: usize) -> Vec<EnqueueRequest> {
        vec![EnqueueRequest::new("t", to_raw_value(&"x".repeat(bytes.saturating_sub(2))).unwrap()); count]
    }

    fn join(together: &Together, jobs: Vec<EnqueueRequest>) -> (u64, oneshot::Receiver<Answer>) {
        let (tell, told) = oneshot::channel();
        let bytes = jobs.iter().map(weight).sum();
        (together.join(jobs, bytes, tell).unwrap(), told)
    }

    fn taken(together: &Together) -> Vec<u64> {
        together.take(10).iter().map(|w| w.ticket).collect()
    }

    #[test]
    fn the_first_go_first_as_many_as_a_statement_takes() {
        let together = Together::new();
        let all: Vec<_> = [4, 6, 1, 11, 2].map(|count| join(&together, jobs(count, 10))).into();
        let [a, b, c, d, e] = [0, 1, 2, 3, 4].map(|n: usize| all[n].0);
        assert_eq!(taken(&together), [a, b]);
        assert_eq!(taken(&together), [c]);
        assert_eq!(taken(&together), [d], "more than a statement takes goes all the same, alone");
        assert_eq!(taken(&together), [e]);
        assert!(taken(&together).is_empty());
    }

    #[test]
    fn nor_are_there_more_bytes_than_one_statement_should_have() {
        let together = Together::new();
        let all: Vec<_> = [BYTES_MAX - 5, 5, 5].map(|bytes| join(&together, jobs(1, bytes))).into();
        assert_eq!(taken(&together), [all[0].0, all[1].0]);
        assert_eq!(taken(&together), [all[2].0]);
    }

    #[test]
    fn who_has_left_or_given_up_does_not_go() {
        let together = Together::new();
        let (a, _told) = join(&together, jobs(1, 10));
        let (_, gone) = join(&together, jobs(10, 10));
        let (c, _told) = join(&together, jobs(9, 10));
        drop(gone);
        assert!(together.leave(a));
        assert!(!together.leave(a), "once");
        assert_eq!(taken(&together), [c]);
        assert!(!together.leave(c), "it is on its way");
    }

    #[test]
    fn no_more_wait_than_can_be_answered() {
        let together = Together::new();
        let all: Vec<_> = (0..WAITING_MAX).map(|_| join(&together, jobs(1, 2))).collect();
        let (tell, _told) = oneshot::channel();
        assert!(together.join(jobs(1, 2), 2, tell).is_none());
        assert!(together.leave(all[0].0));
        join(&together, jobs(1, 2));
    }
}
