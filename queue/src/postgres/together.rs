//! Enqueues of few plain jobs that come while others are on their way go together: one statement, one commit.
//!
//! A statement and its commit cost the same for one job and for some; so what many callers ask for one by one costs nearly as
//! little as what one of them asks for at once. Nobody waits for company: who comes when there is a turn goes alone.
//!
//! What must hold: each caller gets the ids of its own jobs, all or none of them; a job that the database does not take fails
//! nobody else's; a caller that gives up takes nobody's answer along, since the statement is run by a task of its own; and
//! whoever was refused for want of a turn has nothing enqueued.

use super::PgStore;
use super::connection::Connections;
use super::enqueue::{WHAT, at_once};
use crate::error::QueueError;
use crate::store::Enqueued;
use minium_protocol::EnqueueRequest;
use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

/// Calls of more jobs than this go by themselves.
pub(super) const FEW: usize = 64;
/// So many statements may be on their way at once. With two the database is never idle while an answer is on its way.
const TURNS: usize = 2;
/// So many bytes of arguments go in one statement, unless one caller alone brings more.
const BYTES_MAX: usize = 1 << 20;
/// So many callers may wait for their turn.
const WAITING_MAX: usize = 10_000;

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

impl PgStore {
    pub(super) async fn enqueue_together(&self, requests: &[EnqueueRequest]) -> Answer {
        let (tell, mut told) = oneshot::channel();
        let Some(ticket) = self.together.join(requests.to_vec(), tell) else {
            return Err(QueueError::Busy { attempted: WHAT });
        };
        // one turn for each who waits, so that nobody is left; who went with another leaves its own unused
        let (together, connections) = (self.together.clone(), self.connections.clone());
        let batch_max = self.options.batch_max;
        self.tasks.spawn(async move { together.take_turn(&connections, batch_max).await });
        let answer = match timeout(self.options.wait_timeout, &mut told).await {
            Ok(answer) => answer,
            Err(_) if self.together.leave(ticket) => return Err(QueueError::Busy { attempted: WHAT }),
            // it is on its way, and bounded like every statement
            Err(_) => told.await,
        };
        answer.unwrap_or_else(|ended| Err(QueueError::Unavailable { attempted: WHAT, source: ended.into() }))
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
    fn join(&self, requests: Vec<EnqueueRequest>, tell: oneshot::Sender<Answer>) -> Option<u64> {
        let bytes = requests.iter().map(|r| r.args.get().len()).sum();
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

    async fn take_turn(&self, connections: &Connections, batch_max: usize) {
        let Ok(_turn) = self.turns.acquire().await else { return };
        let taken = self.take(batch_max);
        if !taken.is_empty() {
            go(connections, taken).await;
        }
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

/// Enqueues for all of them and tells each. That one is not there any more to be told is its own affair.
async fn go(connections: &Connections, taken: Vec<Waiting>) {
    let (mut all, mut callers) = (Vec::new(), Vec::new());
    for Waiting { requests, tell, .. } in taken {
        callers.push((all.len()..all.len() + requests.len(), tell));
        all.extend(requests);
    }
    let alone = callers.len() == 1;
    match at_once(connections, &all).await {
        Ok(made) => {
            for (places, tell) in callers {
                tell.send(Ok(made[places].to_vec())).ok();
            }
        }
        // whether it counted is unknown, so nobody may try again for them
        Err(QueueError::Unavailable { attempted, source }) if !alone => {
            let source = Shared(source.into());
            for (_, tell) in callers {
                tell.send(Err(QueueError::Unavailable { attempted, source: source.clone().into() })).ok();
            }
        }
        Err(QueueError::Busy { attempted }) if !alone => {
            for (_, tell) in callers {
                tell.send(Err(QueueError::Busy { attempted })).ok();
            }
        }
        // nothing was enqueued: each hears what there is to say of its own jobs
        Err(_) if !alone => {
            for (places, tell) in callers {
                tell.send(at_once(connections, &all[places]).await).ok();
            }
        }
        Err(error) => {
            callers.pop().map(|(_, tell)| tell.send(Err(error)));
        }
    }
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
        (together.join(jobs, tell).unwrap(), told)
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
        assert!(together.join(jobs(1, 2), tell).is_none());
        assert!(together.leave(all[0].0));
        join(&together, jobs(1, 2));
    }
}
