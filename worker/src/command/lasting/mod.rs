//! Commands that live longer than a job: a process is started once and takes one job after the other, a line of JSON each.
//!
//! As many run as the worker has runs at once; each is started when it is needed first. A process fails no other job than the one
//! that it has; one that cannot be understood is replaced, one that has done its share retires. Nothing is given to a process
//! that has not said that it is ready, so a start that fails costs no run until the third in a row: it is tried again after a
//! pause, and meanwhile the task takes one job at a time, or none.

mod process;
mod words;

use super::launch::Start;
use super::process::Limits;
use super::{CommandTask, STOP_MARGIN, Stderr, limits};
use crate::backoff::Backoff;
use crate::context::JobContext;
use crate::options::WorkerOptions;
use crate::sandbox::Probe;
use crate::task::{Failure, Task};
use async_trait::async_trait;
use minium_protocol::ErrorCode;
use process::Companion;
use serde_json::value::RawValue;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

/// So often a process is started for one run.
const STARTS_MAX: usize = 3;

/// How long processes live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lasting {
    /// A process retires after so many jobs.
    pub jobs_max: Option<u64>,
    /// A process retires after so long, when it has no job; looked at whenever the task gets a job.
    pub age_max: Option<Duration>,
    /// A process that has not said that it is ready within this has failed to start.
    pub start_timeout: Duration,
}

impl Default for Lasting {
    fn default() -> Lasting {
        Lasting { jobs_max: None, age_max: None, start_timeout: Duration::from_secs(30) }
    }
}

/// A task of long-lived processes, as a worker runs it.
pub(crate) struct LastingRunner {
    name: String,
    start: Start,
    timeout: Option<Duration>,
    lasting: Lasting,
    limits: Limits,
    stderr: Stderr,
    pool: Mutex<Pool>,
    /// Those that retire.
    retiring: TaskTracker,
}

/// Who waits for a job, and how starts went.
struct Pool {
    idle: Vec<Companion>,
    starts: Backoff,
    /// When the last start failed, and before when there is none.
    failed: Option<(Instant, Instant)>,
    closed: bool,
}

impl LastingRunner {
    pub(crate) fn new(task: &CommandTask, lasting: &Lasting, options: &WorkerOptions) -> LastingRunner {
        LastingRunner {
            name: task.name.clone(),
            start: Start::new(task, options),
            timeout: task.timeout,
            lasting: lasting.clone(),
            limits: limits(options),
            stderr: Stderr::new(options),
            pool: Mutex::new(Pool {
                idle: Vec::new(),
                starts: Backoff::new(options),
                failed: None,
                closed: false,
            }),
            retiring: TaskTracker::new(),
        }
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One that is ready: an idle one, or a new one.
    async fn obtain(&self, stop: &CancellationToken) -> Result<Companion, Failure> {
        let stopped = || Failure::retryable("stopped before it had a process");
        let mut last = None;
        for _ in 0..STARTS_MAX {
            if let Some(companion) = self.idle() {
                return Ok(companion);
            }
            let failed = self.pool().failed;
            let starting = async {
                if let Some((_, pause)) = failed {
                    sleep_until(pause).await;
                }
                (Instant::now(), self.begin().await)
            };
            let (since, begun) = tokio::select! {
                begun = starting => begun,
                () = stop.cancelled() => return Err(stopped()),
            };
            match begun {
                Ok(companion) => {
                    self.went_well();
                    return Ok(companion);
                }
                Err(failure) => {
                    self.failed(&failure, since);
                    last = Some(failure);
                }
            }
        }
        Err(last.unwrap_or_else(stopped))
    }

    async fn begin(&self) -> Result<Companion, Failure> {
        let (mut command, dir) = self.start.command().await?;
        command.env("MINIUM_TASK", &self.name).env_remove("TRACEPARENT").env_remove("TRACESTATE");
        let patience = self.lasting.start_timeout;
        let begun = Companion::start((command, dir), &self.limits, patience, &self.stderr).await;
        begun.map_err(|why| match why.starts_with(ErrorCode::SandboxUnavailable.as_str()) {
            true => Failure::retryable(why),
            false => Failure::retryable(format!("it does not start: {why}")),
        })
    }

    /// One that waits for a job, and is fit for it. All that are not retire, also those that no job would come to soon.
    fn idle(&self) -> Option<Companion> {
        let (unfit, fit) = {
            let mut pool = self.pool();
            let is_unfit =
                |companion: &mut Companion| !companion.is_sound() || self.has_done_its_share(companion);
            let unfit: Vec<_> = pool.idle.extract_if(.., is_unfit).collect();
            (unfit, pool.idle.pop())
        };
        unfit.into_iter().for_each(|companion| self.retire(companion));
        fit
    }

    fn has_done_its_share(&self, companion: &Companion) -> bool {
        self.lasting.jobs_max.is_some_and(|most| companion.jobs >= most)
            || self.lasting.age_max.is_some_and(|most| companion.born.elapsed() >= most)
    }

    /// It has done what it had, and takes another one if it may.
    fn put_back(&self, companion: Companion) {
        let mut pool = self.pool();
        if pool.closed || self.has_done_its_share(&companion) {
            drop(pool);
            self.retire(companion);
        } else {
            pool.idle.push(companion);
        }
    }

    fn retire(&self, companion: Companion) {
        self.retiring.spawn(companion.end());
    }

    fn went_well(&self) {
        let mut pool = self.pool();
        if pool.starts.failures() > 0 {
            info!(task = self.name, "The processes of a task start again.");
        }
        pool.starts.reset();
        pool.failed = None;
    }

    /// A start that was made at `since` has failed. Those that were made together and fail together have failed once.
    fn failed(&self, failure: &Failure, since: Instant) {
        let mut pool = self.pool();
        if pool.failed.is_some_and(|(at, _)| at >= since) {
            return;
        }
        if pool.starts.failures() == 0 {
            warn!(
                task = self.name,
                error = failure.error,
                "A task's process does not start; it is tried again, and fewer jobs are claimed."
            );
        }
        let pause = pool.starts.pause();
        let now = Instant::now();
        pool.failed = Some((now, now + pause));
    }
}

#[async_trait]
impl Task for LastingRunner {
    async fn run(&self, context: JobContext, args: Box<RawValue>) -> Result<Box<RawValue>, Failure> {
        let mut companion = self.obtain(&context.cancelled()).await?;
        let (result, sound) = companion.run(&context, &args, &self.stderr).await;
        if sound {
            self.put_back(companion);
        } else {
            companion.discard().await;
        }
        result
    }

    fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// It is told, then asked by a signal, then killed.
    fn stop_grace(&self, usual: Duration) -> Duration {
        2 * usual + STOP_MARGIN
    }

    fn probe(&self) -> Option<Probe> {
        self.start.probe()
    }

    fn room(&self) -> Option<u32> {
        let pool = self.pool();
        let pausing = pool.failed.is_some_and(|(_, pause)| Instant::now() < pause);
        (pool.starts.failures() > 0).then_some(u32::from(!pausing))
    }

    async fn close(&self) {
        let idle = {
            let mut pool = self.pool();
            pool.closed = true;
            std::mem::take(&mut pool.idle)
        };
        idle.into_iter().for_each(|companion| self.retire(companion));
        self.retiring.close();
        // what is left then is killed as it is dropped
        timeout(self.stop_grace(self.limits.stop_grace), self.retiring.wait()).await.ok();
    }
}
