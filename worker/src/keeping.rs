//! Outcomes on their way to the disk: with a [`Spool`], none is handed in before it is there.
//!
//! One write is under way at a time; what ends meanwhile goes along with the next. What an earlier run left is handed in
//! before anything is claimed, and while the spool is full or cannot be written nothing is. A disk that does not take an
//! outcome must not keep it from the source, which may be well: it is then handed in from memory, and the log says so.
//!
//! Without a spool everything passes through at once, and a worker that is killed takes with it what was not handed in.

use crate::backoff::Backoff;
use crate::options::WorkerOptions;
use crate::spool::{Spool, SpoolError};
use futures::future::BoxFuture;
use minium_protocol::LeaseToken;
use minium_queue::Outcome;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until};
use tracing::{error, info};

/// What a write brings back.
struct Written {
    outcomes: Vec<Outcome>,
    result: Result<(), SpoolError>,
    full: bool,
}

/// Outcomes between their runs and the handover.
pub(crate) struct Keeping {
    spool: Option<Arc<Mutex<Spool>>>,
    /// Not on the disk yet.
    fresh: Vec<Outcome>,
    /// Handed in from memory, since the disk did not take them; tried there again until they are judged.
    unsaved: Vec<Outcome>,
    /// Judged: the spool need not hold them any longer.
    judged: Vec<LeaseToken>,
    writing: Option<BoxFuture<'static, Written>>,
    /// So many are in the write that is under way.
    in_write: usize,
    /// Of an earlier run, and not judged yet.
    left: HashSet<LeaseToken>,
    full: bool,
    /// The last write has failed: the disk is tried again, not before this.
    broken: Option<Instant>,
    backoff: Backoff,
    count_max: usize,
}

impl Keeping {
    /// With what an earlier run left, the oldest first.
    pub(crate) fn new(spool: Option<Spool>, options: &WorkerOptions) -> (Keeping, Vec<Outcome>) {
        let left: Vec<Outcome> = spool.iter().flat_map(Spool::outcomes).cloned().collect();
        if let Some(spool) = spool.as_ref().filter(|_| !left.is_empty()) {
            let path = spool.path().display();
            info!(outcomes = left.len(), spool = %path, "Outcomes of an earlier run are handed in first.");
        }
        let keeping = Keeping {
            full: spool.as_ref().is_some_and(Spool::is_full),
            spool: spool.map(|spool| Arc::new(Mutex::new(spool))),
            fresh: Vec::new(),
            unsaved: Vec::new(),
            judged: Vec::new(),
            writing: None,
            in_write: 0,
            left: left.iter().map(|outcome| outcome.lease).collect(),
            broken: None,
            backoff: Backoff::new(options),
            count_max: options.outcomes_max,
        };
        (keeping, left)
    }

    /// Takes an outcome. Without a spool it comes back, to be handed in.
    pub(crate) fn put(&mut self, outcome: Outcome) -> Option<Outcome> {
        if self.spool.is_none() {
            return Some(outcome);
        }
        self.fresh.push(outcome);
        None
    }

    /// The source has this one, or it is given up.
    pub(crate) fn judged(&mut self, lease: LeaseToken) {
        if self.spool.is_some() {
            self.judged.push(lease);
            self.left.remove(&lease);
            self.unsaved.retain(|outcome| outcome.lease != lease);
        }
    }

    /// May more be claimed?
    pub(crate) fn may_claim(&self) -> bool {
        let waiting = self.fresh.len() + self.in_write;
        self.left.is_empty() && !self.full && self.broken.is_none() && waiting < self.count_max
    }

    /// How many are not on the disk yet.
    pub(crate) fn waiting(&self) -> usize {
        self.fresh.len() + self.in_write
    }

    /// Is all on the disk that is to be, and what was judged noted there, as far as the disk takes it?
    pub(crate) fn is_idle(&self) -> bool {
        self.waiting() == 0 && (self.broken.is_some() || self.judged.is_empty() && self.writing.is_none())
    }

    /// Do outcomes outlive this process?
    pub(crate) fn lasts(&self) -> bool {
        self.spool.is_some() && self.unsaved.is_empty() && self.waiting() == 0
    }

    /// Writes what there is to write, and answers what may be handed in now. To be called again and again; it loses
    /// nothing when it is dropped half way.
    pub(crate) async fn next(&mut self) -> Vec<Outcome> {
        let written = match &mut self.writing {
            Some(writing) => writing.await,
            None => {
                self.begin().await;
                match &mut self.writing {
                    Some(writing) => writing.await,
                    None => return std::future::pending().await,
                }
            }
        };
        self.writing = None;
        self.in_write = 0;
        self.full = written.full;
        match written.result {
            Ok(()) => {
                self.unsaved.clear();
                if self.broken.take().is_some() {
                    self.backoff.reset();
                    info!("The spool can be written again.");
                }
            }
            Err(error) => {
                if self.broken.is_none() {
                    error!(
                        %error,
                        "The spool cannot be written: outcomes are handed in from memory, and nothing is claimed."
                    );
                }
                self.broken = Some(Instant::now() + self.backoff.pause());
                self.unsaved.extend_from_slice(&written.outcomes);
            }
        }
        written.outcomes
    }

    /// Begins a write, if there is something to write or the disk to be tried.
    async fn begin(&mut self) {
        let Some(spool) = self.spool.clone() else { return };
        if let Some(not_before) = self.broken.filter(|_| self.fresh.is_empty()) {
            sleep_until(not_before).await;
        } else if self.fresh.is_empty() && self.judged.is_empty() {
            return;
        }
        let (outcomes, judged) = (std::mem::take(&mut self.fresh), std::mem::take(&mut self.judged));
        let (again, probing) = (self.unsaved.clone(), self.broken.is_some());
        self.in_write = outcomes.len();
        self.writing = Some(Box::pin(async move {
            let outcomes = Arc::new(outcomes);
            let own = outcomes.clone();
            let write = move || {
                let mut spool = locked(&spool);
                let probed = if probing { spool.probe() } else { Ok(()) };
                let result = probed.and_then(|()| spool.append(&again)).and_then(|()| spool.append(&own));
                spool.settle(&judged);
                (result, spool.is_full())
            };
            let (result, full) = match spawn_blocking(write).await {
                Ok(written) => written,
                Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
            };
            let outcomes = Arc::try_unwrap(outcomes).unwrap_or_else(|shared| shared.to_vec());
            Written { outcomes, result, full }
        }));
    }
}

fn locked(spool: &Mutex<Spool>) -> MutexGuard<'_, Spool> {
    spool.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::SpoolOptions;
    use minium_queue::Ending;
    use std::time::Duration;

    fn outcome(job: i64) -> Outcome {
        let ending = Ending::failed("x");
        Outcome { job, lease: LeaseToken::fresh(), ending }
    }

    fn jobs(outcomes: &[Outcome]) -> Vec<i64> {
        outcomes.iter().map(|outcome| outcome.job).collect()
    }

    /// A disk that takes nothing keeps no outcome from the source; nothing is claimed meanwhile, and when it is well again it
    /// gets what it missed.
    #[tokio::test]
    async fn a_disk_that_fails_costs_no_outcome() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("place");
        let open = || Spool::open(&place, &["here"], SpoolOptions::default()).unwrap();
        let mut spool = open();
        spool.lose_disk();
        let quick = Duration::from_millis(1);
        let options = WorkerOptions { retry_min: quick, retry_max: quick, ..WorkerOptions::default() };
        let (mut keeping, left) = Keeping::new(Some(spool), &options);
        assert!(left.is_empty() && keeping.may_claim());
        let (first, second) = (outcome(1), outcome(2));
        assert!(keeping.put(first.clone()).is_none());
        assert!(!keeping.is_idle());
        assert_eq!(jobs(&keeping.next().await), [1]);
        assert!(!keeping.may_claim() && !keeping.lasts());
        assert!(keeping.is_idle(), "a worker that is to end does not wait for the disk");
        keeping.put(second);
        assert_eq!(jobs(&keeping.next().await), [2]);
        keeping.judged(first.lease);
        assert!(keeping.next().await.is_empty(), "it is tried again, in vain");
        assert!(!keeping.may_claim());
        std::fs::create_dir(&place).unwrap();
        while !keeping.may_claim() {
            keeping.next().await;
        }
        assert!(keeping.lasts());
        drop(keeping);
        assert_eq!(jobs(&open().outcomes().cloned().collect::<Vec<_>>()), [2]);
    }
}
