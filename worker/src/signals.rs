//! Signals on their way to the command that runs a job.
//!
//! They go through the task that leads the process, which alone knows whether its group still lives: a number of a process
//! that has ended may be another's by now.

use minium_queue::JobSignal;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// So many wait for one process; more are dropped.
const WAITING_MAX: usize = 16;

/// The signals of one run.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    waiting: Mutex<VecDeque<JobSignal>>,
    /// Somebody takes them.
    taken: AtomicBool,
    news: Notify,
}

impl Signals {
    fn waiting(&self) -> MutexGuard<'_, VecDeque<JobSignal>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This run is a process: from now on it gets what comes.
    pub(crate) fn take_all(&self) {
        self.taken.store(true, Ordering::SeqCst);
    }

    /// Passes one on, if there is anybody who takes it.
    pub(crate) fn send(&self, signal: JobSignal) -> bool {
        if !self.taken.load(Ordering::SeqCst) {
            return false;
        }
        let mut waiting = self.waiting();
        if waiting.len() < WAITING_MAX {
            waiting.push_back(signal);
        }
        drop(waiting);
        self.news.notify_one();
        true
    }

    /// The next one.
    pub(crate) async fn next(&self) -> JobSignal {
        loop {
            if let Some(signal) = self.waiting().pop_front() {
                return signal;
            }
            self.news.notified().await;
        }
    }
}
