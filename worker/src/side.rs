//! What a worker does beside running jobs: extending leases, saying that it is alive, upkeep. Each is a loop of its
//! own, so that a slow one holds nothing up; all end by one token.

use crate::backoff::{Backoff, jittered};
use crate::metrics::SOURCE_ERRORS_TOTAL;
use crate::notes::call;
use crate::options::{UpkeepOptions, WorkerOptions};
use crate::report::Report;
use crate::running::{Running, RunningJob, Stopped};
use crate::source::JobSource;
use minium_protocol::WorkerRef;
use minium_queue::{Extension, QueueError, causes};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, info, warn};

/// Leases in one call.
pub(crate) const EXTEND_BATCH_MAX: usize = 1_000;

/// Who this worker is to the source. It changes if the source forgets it.
pub(crate) struct Identity {
    host: String,
    pid: u32,
    current: Mutex<WorkerRef>,
    /// It has said that it is alive: time to look what it is told.
    pub(crate) beaten: Notify,
}

impl Identity {
    /// Registers, and keeps trying while the source is away.
    ///
    /// # Errors
    /// Only for what waiting does not help: a schema that this program does not know.
    pub(crate) async fn obtain(
        source: &dyn JobSource,
        options: &WorkerOptions,
        report: &Report,
    ) -> Result<Identity, QueueError> {
        let host = options.host.clone().unwrap_or_else(host_name);
        let pid = std::process::id();
        let mut backoff = Backoff::new(options);
        loop {
            match call(source.register(&report.info(&host, pid)), options.call_timeout).await {
                Ok(worker) => {
                    return Ok(Identity { host, pid, current: Mutex::new(worker), beaten: Notify::new() });
                }
                Err(error @ QueueError::Schema(_)) => return Err(error),
                Err(error) => {
                    let error = causes(&error);
                    warn!(error, "The worker cannot register; it tries again.");
                    sleep(backoff.pause()).await;
                }
            }
        }
    }

    pub(crate) fn current(&self) -> WorkerRef {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn replace(&self, worker: WorkerRef) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = worker;
    }
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Says that the worker is alive and how it fares, and registers it anew if it was forgotten.
pub(crate) async fn heartbeat(
    source: Arc<dyn JobSource>,
    me: Arc<Identity>,
    report: Arc<Report>,
    options: Arc<WorkerOptions>,
) {
    let mut not_before = Instant::now();
    loop {
        let news = async {
            report.news.notified().await;
            sleep_until(not_before).await;
        };
        tokio::select! {
            () = sleep(jittered(options.heartbeat)) => {}
            () = news => {}
        }
        not_before = Instant::now() + options.status_interval;
        let status = report.status();
        match call(source.heartbeat(me.current().id, &status), options.call_timeout).await {
            Ok(()) => me.beaten.notify_one(),
            Err(QueueError::Unregistered(_)) => {
                let info = report.info(&me.host, me.pid);
                match call(source.register(&info), options.call_timeout).await {
                    Ok(worker) => {
                        info!(worker = worker.id, "The worker was forgotten and has registered anew.");
                        me.replace(worker);
                    }
                    Err(error) => failed_call("register", &error),
                }
            }
            Err(error) => failed_call("heartbeat", &error),
        }
    }
}

/// Extends every lease at a third of its time, or sooner if leases are long; all that are due in one call.
pub(crate) async fn extend_leases(
    source: Arc<dyn JobSource>,
    running: Arc<Running>,
    options: Arc<WorkerOptions>,
) {
    // a job claimed while this sleeps falls due later than this wakes
    let every = (options.lease / 3).min(options.renew_max);
    let left_when_due = options.lease - every;
    let mut backoff = Backoff::new(&options);
    loop {
        let now = Instant::now();
        let mut held = running.all();
        // what falls due within half a turn goes along, or every job would get a call of its own
        held.retain(|job| job.lease_until() <= now + left_when_due + every / 2);
        held.sort_unstable_by_key(|job| job.lease_until());
        held.truncate(EXTEND_BATCH_MAX);
        match held.first().map(|job| job.lease_until()) {
            Some(until) if until <= now + left_when_due => {
                match extend(source.as_ref(), &held, &options).await {
                    Ok(All::Answered) => backoff.reset(),
                    // they stand first in the next call again
                    Ok(All::ButSome) => sleep((every / 4).min(SOON)).await,
                    Err(error) => {
                        failed_call("extend", &error);
                        sleep(backoff.pause()).await;
                    }
                }
            }
            Some(until) => sleep_until(until - left_when_due).await,
            None => sleep(every).await,
        }
    }
}

/// After so long at most those are asked for again that could not be extended just now.
const SOON: Duration = Duration::from_secs(1);

/// Of leases that were to be extended.
pub(crate) enum All {
    Answered,
    /// Some are to be asked for again soon.
    ButSome,
}

pub(crate) async fn extend(
    source: &dyn JobSource,
    held: &[Arc<RunningJob>],
    options: &WorkerOptions,
) -> Result<All, QueueError> {
    let mut all = All::Answered;
    let leases: Vec<_> = held.iter().map(|job| (job.id, job.lease)).collect();
    let asked = Instant::now();
    let answers = call(source.extend(&leases, options.lease), options.call_timeout).await?;
    for (job, answer) in held.iter().zip(answers) {
        match answer {
            Extension::Until(_) => job.extended(asked + options.lease),
            Extension::Cancelled => {
                job.stop(Stopped::Cancelled);
                job.extended(asked + options.lease);
            }
            // what is known still holds
            Extension::Later => all = All::ButSome,
            // nothing more to extend; asked again only as often as if there were
            Extension::Lost => {
                job.stop(Stopped::Lost);
                job.extended(asked + options.lease);
            }
        }
    }
    Ok(all)
}

/// Stops runs that were cancelled, where the source tells it by itself.
pub(crate) async fn heed_cancellations(source: Arc<dyn JobSource>, running: Arc<Running>) {
    loop {
        let lease = source.cancelled().await;
        if let Some(job) = running.get(lease) {
            job.stop(Stopped::Cancelled);
        }
    }
}

/// Waits for a word of the source. A source that has none left is not waited for.
pub(crate) async fn changed(words: &mut Option<watch::Receiver<u64>>) -> bool {
    match words {
        Some(receiver) => {
            let awake = receiver.changed().await.is_ok();
            if !awake {
                *words = None;
            }
            awake
        }
        None => std::future::pending().await,
    }
}

/// Looks after the queue: at its pace, and when a delayed job falls due.
pub(crate) async fn upkeep(
    source: Arc<dyn JobSource>,
    mut rules: UpkeepOptions,
    options: Arc<WorkerOptions>,
) {
    // its own pace is no absence
    rules.rules.absence = rules.rules.absence.max(rules.every * 3);
    let mut backoff = Backoff::new(&options);
    loop {
        let pause = match call(source.upkeep(&rules.rules), options.call_timeout).await {
            Ok(upkept) => {
                backoff.reset();
                debug!(?upkept, "A round of upkeep is done.");
                let due = upkept.due_in.unwrap_or(Duration::MAX);
                // a round that was full is followed by the next at once
                let full = [upkept.staged, upkept.rescued, upkept.expired, upkept.released, upkept.removed]
                    .iter()
                    .any(|n| *n >= u64::from(rules.rules.batch));
                if full { Duration::ZERO } else { jittered(rules.every).min(due) }
            }
            Err(error) => {
                failed_call("upkeep", &error);
                backoff.pause().max(rules.every)
            }
        };
        sleep(pause.max(UPKEEP_PAUSE_MIN)).await;
    }
}

/// However soon something is due: rounds do not follow each other faster than this.
const UPKEEP_PAUSE_MIN: Duration = Duration::from_millis(5);

/// A call that is repeated anyway.
pub(crate) fn failed_call(name: &'static str, error: &QueueError) {
    metrics::counter!(SOURCE_ERRORS_TOTAL, "call" => name).increment(1);
    let error = causes(error);
    debug!(call = name, error, "A call to the job source has failed; it is made again.");
}
