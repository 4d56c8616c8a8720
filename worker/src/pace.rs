//! How many jobs the worker runs at once, and what changes that while it works.
//!
//! Slots are counted, not owned: a job takes a slot whatever it was claimed for. While fewer jobs run than there are usual
//! slots, anything is claimed; when those are full, only what is urgent goes into the spare ones. So a usual slot that gets
//! free is never waited for: the next claim is an ordinary one.

use crate::options::WorkerOptions;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// What the worker was told last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) concurrency: usize,
    pub(crate) spare: usize,
    pub(crate) paused: bool,
}

/// Room for more jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    /// For so many.
    pub(crate) jobs: usize,
    /// And only for those of high priority.
    pub(crate) urgent: bool,
}

impl Settings {
    /// While so many jobs run.
    pub(crate) fn room(self, running: usize) -> Room {
        let free = self.concurrency.saturating_sub(running);
        if self.is_paused() {
            Room { jobs: 0, urgent: false }
        } else if free > 0 {
            Room { jobs: free, urgent: false }
        } else {
            Room { jobs: self.concurrency.saturating_add(self.spare).saturating_sub(running), urgent: true }
        }
    }

    /// Whatever has paused it: without slots it gets its usual ones.
    pub(crate) fn resume(&mut self, usual: usize) {
        self.paused = false;
        if self.concurrency == 0 {
            self.concurrency = usual;
        }
    }

    /// Nothing is claimed, for one reason or the other.
    pub(crate) fn is_paused(self) -> bool {
        self.paused || self.concurrency == 0
    }
}

/// The settings in force, for whoever claims and whoever is told.
#[derive(Debug)]
pub(crate) struct Pace {
    settings: Mutex<Settings>,
    /// The settings have changed.
    pub(crate) changed: Notify,
    /// How often the source has said that there may be news for workers.
    heard: AtomicU64,
    /// Leases are to be looked at: something may have been missed.
    pub(crate) look: Notify,
}

impl Pace {
    pub(crate) fn new(options: &WorkerOptions) -> Pace {
        let settings = Settings { concurrency: options.concurrency, spare: options.spare, paused: false };
        Pace {
            settings: Mutex::new(settings),
            changed: Notify::new(),
            heard: AtomicU64::new(0),
            look: Notify::new(),
        }
    }

    fn settings(&self) -> MutexGuard<'_, Settings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self) -> Settings {
        *self.settings()
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.settings());
        self.changed.notify_one();
    }

    /// The source has said so once more.
    pub(crate) fn hear(&self) {
        self.heard.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn heard(&self) -> u64 {
        self.heard.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spare_slots_are_for_what_is_urgent_and_only_when_the_others_are_full() {
        let settings = Settings { concurrency: 2, spare: 1, paused: false };
        let room = |running| settings.room(running);
        assert_eq!(room(0), Room { jobs: 2, urgent: false });
        assert_eq!(room(1), Room { jobs: 1, urgent: false });
        assert_eq!(room(2), Room { jobs: 1, urgent: true });
        assert_eq!(room(3).jobs, 0);
        assert_eq!(room(9).jobs, 0, "after a lower concurrency");
        assert_eq!(Settings { spare: 0, ..settings }.room(2).jobs, 0);
    }

    #[test]
    fn a_pause_and_no_concurrency_are_alike() {
        let settings = Settings { concurrency: 2, spare: 1, paused: true };
        assert_eq!(settings.room(0).jobs, 0);
        assert_eq!(Settings { concurrency: 0, paused: false, ..settings }.room(0).jobs, 0);
    }
}
