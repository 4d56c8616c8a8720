//! What the worker says of itself: with each heartbeat, and soon after it has changed.

use crate::options::WorkerOptions;
use crate::pace::Pace;
use crate::running::Running;
use minium_protocol::is_own_task;
use minium_queue::{KIND_OWN, STATUS_NAMES_MAX, WorkerInfo, WorkerStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Notify;

/// Everything that a status is made of.
pub(crate) struct Report {
    options: Arc<WorkerOptions>,
    tasks: Vec<String>,
    pace: Arc<Pace>,
    running: Arc<Running>,
    performed: AtomicU64,
    /// There is something new to say.
    pub(crate) news: Notify,
}

impl Report {
    pub(crate) fn new(
        options: &Arc<WorkerOptions>,
        tasks: Vec<String>,
        pace: &Arc<Pace>,
        running: &Arc<Running>,
    ) -> Report {
        Report {
            options: options.clone(),
            tasks,
            pace: pace.clone(),
            running: running.clone(),
            performed: AtomicU64::new(0),
            news: Notify::new(),
        }
    }

    /// A job has begun.
    pub(crate) fn begun(&self) {
        self.news.notify_one();
    }

    /// A run has ended, however it did.
    pub(crate) fn ended(&self) {
        self.performed.fetch_add(1, Ordering::Relaxed);
        self.news.notify_one();
    }

    /// As it registers.
    pub(crate) fn info(&self, host: &str, pid: u32) -> WorkerInfo {
        let usual = WorkerInfo::new(host, pid);
        // one without tasks has them from a session, or none yet
        let own = !self.tasks.is_empty() && self.tasks.iter().all(|task| is_own_task(task));
        let kind = if own { KIND_OWN.to_owned() } else { usual.kind };
        WorkerInfo { status: self.status(), kind, ..usual }
    }

    /// As things are.
    pub(crate) fn status(&self) -> WorkerStatus {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let settings = self.pace.get();
        let mut jobs = self.running.ids();
        jobs.sort_unstable();
        let running = count(jobs.len());
        jobs.truncate(STATUS_NAMES_MAX);
        WorkerStatus {
            queues: self.options.queues.clone(),
            tasks: self.tasks.clone(),
            concurrency: count(settings.concurrency),
            spare: count(settings.spare),
            spare_min_priority: self.options.spare_min_priority,
            limits: self.options.limits.clone(),
            paused: settings.is_paused(),
            running,
            jobs,
            performed: self.performed.load(Ordering::Relaxed),
        }
    }
}
