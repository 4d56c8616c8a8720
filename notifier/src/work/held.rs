//! Which puller has which job, so that a cancellation reaches him at once, and for how long its lease is to hold when
//! he notes something.
//!
//! Only a memory: the database decides. What is not in it (taken from another node, or too many) is told by the next
//! word about the job.

use minium_bus::Puller;
use minium_protocol::LeaseToken;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::time::Instant;

/// Below so many entries nothing is swept.
const SWEEP_AT_LEAST: usize = 1_024;

/// A run that a puller has.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) lease: LeaseToken,
    pub(super) attempt: i32,
    pub(super) span: Duration,
    pub(super) puller: Weak<dyn Puller>,
}

#[derive(Debug, Default)]
struct State {
    runs: HashMap<i64, (Run, Instant)>,
    sweep_at: usize,
}

#[derive(Debug)]
pub(super) struct Held {
    state: Mutex<State>,
    max: usize,
}

impl Held {
    pub(super) fn new(max: usize) -> Held {
        Held { state: Mutex::default(), max }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many jobs pullers have, and the first so many of them.
    pub(super) fn running(&self, now: Instant, names_max: usize) -> (usize, Vec<i64>) {
        let state = self.state();
        let held = || state.runs.iter().filter(|(_, (_, until))| *until > now);
        (held().count(), held().map(|(job, _)| *job).take(names_max).collect())
    }

    /// A puller is about to get a job.
    pub(super) fn begin(&self, job: i64, run: Run, now: Instant) {
        let mut state = self.state();
        if state.runs.len() >= state.sweep_at.max(SWEEP_AT_LEAST).min(self.max) {
            state.runs.retain(|_, (_, until)| *until > now);
            state.sweep_at = state.runs.len() * 2;
        }
        if state.runs.len() < self.max {
            // twice the span: the database's clock decides, not this one
            let until = now + run.span * 2;
            state.runs.insert(job, (run, until));
        }
    }

    /// The run is over, or was never begun.
    pub(super) fn end(&self, job: i64, lease: LeaseToken) {
        let mut state = self.state();
        if state.runs.get(&job).is_some_and(|(run, _)| run.lease == lease) {
            state.runs.remove(&job);
        }
    }

    /// For how long the lease was given, and is given anew by a note.
    pub(super) fn span(&self, job: i64, lease: LeaseToken) -> Option<Duration> {
        self.state().runs.get(&job).filter(|(run, _)| run.lease == lease).map(|(run, _)| run.span)
    }

    /// The lease was extended.
    pub(super) fn extended(&self, job: i64, lease: LeaseToken, by: Duration, now: Instant) {
        if let Some((run, until)) = self.state().runs.get_mut(&job)
            && run.lease == lease
        {
            *until = now + by.max(run.span) * 2;
        }
    }

    /// A run was cancelled. Answers who has it; he is told once. By then the job may run again, for somebody else.
    pub(super) fn cancelled(&self, job: i64, attempt: i32) -> Option<Arc<dyn Puller>> {
        let mut state = self.state();
        state.runs.get(&job).filter(|(run, _)| run.attempt == attempt)?;
        let (run, _) = state.runs.remove(&job)?;
        run.puller.upgrade()
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.state().runs.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use minium_bus::LeasedJob;

    #[derive(Debug)]
    struct Nobody;

    impl Puller for Nobody {
        fn take(&self, job: LeasedJob) -> Result<(), Box<LeasedJob>> {
            Err(Box::new(job))
        }

        fn room(&self) -> usize {
            0
        }

        fn cancelled(&self, _: i64) {}
    }

    fn run(puller: &Arc<dyn Puller>, lease: LeaseToken, attempt: i32) -> Run {
        Run { lease, attempt, span: Duration::from_secs(30), puller: Arc::downgrade(puller) }
    }

    #[test]
    fn only_the_run_that_was_cancelled_is_told_and_once() {
        let puller: Arc<dyn Puller> = Arc::new(Nobody);
        let (held, lease, other) = (Held::new(10), LeaseToken::fresh(), LeaseToken::fresh());
        held.begin(7, run(&puller, lease, 2), Instant::now());
        assert!(held.cancelled(7, 1).is_none(), "an earlier run");
        assert_eq!((held.span(7, lease), held.span(7, other)), (Some(Duration::from_secs(30)), None));
        held.end(7, other);
        assert!(held.cancelled(7, 2).is_some());
        assert!(held.cancelled(7, 2).is_none());
        held.begin(8, run(&puller, lease, 1), Instant::now());
        drop(puller);
        assert!(held.cancelled(8, 1).is_none(), "nobody is left to be told");
    }

    #[test]
    fn what_nobody_ends_is_forgotten_after_its_lease() {
        let puller: Arc<dyn Puller> = Arc::new(Nobody);
        let held = Held::new(SWEEP_AT_LEAST);
        let (lease, begun) = (LeaseToken::fresh(), Instant::now());
        for job in 0..2_000 {
            held.begin(job, run(&puller, lease, 1), begun);
        }
        assert_eq!(held.len(), SWEEP_AT_LEAST, "bounded");
        held.extended(3, lease, Duration::from_secs(10), begun + Duration::from_secs(50));
        held.begin(5_000, run(&puller, lease, 1), begun + Duration::from_secs(70));
        assert_eq!(held.len(), 2, "the one that was extended, and the new one");
    }
}
