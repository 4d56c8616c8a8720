//! One exchange with the source: what it asks for, and what its answer changes.

use super::{Found, Shift};
use crate::backoff::jittered;
use crate::metrics::{EXCHANGE_SECONDS, OUTCOMES_TOTAL, SOURCE_ERRORS_TOTAL};
use crate::notes::call;
use crate::pace::Room;
use minium_queue::{Claim, Exchanged, QueueError, Verdict, causes};
use std::collections::BTreeMap;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

/// One claim in so many lets those go first that have waited long.
const AGED_EACH: u64 = 16;

/// What an exchange brings back.
pub(super) struct Answer {
    result: Result<Exchanged, QueueError>,
    asked: Instant,
    limit: u32,
    /// Only what is urgent was asked for.
    urgent: bool,
    /// Nothing was handed in.
    bare: bool,
    /// How often the source had said, before it was asked, that there may be news for workers.
    heard: u64,
}

impl Shift {
    /// Starts an exchange if there is a reason to and none is under way.
    pub(super) fn begin_exchange(&mut self, claiming: bool) {
        if self.exchange.is_some() || self.not_before.is_some() {
            return;
        }
        let room = self.room(claiming);
        let options = &self.around.options;
        let wanted = room.jobs.min(options.batch_max);
        let limit = if self.handover.may_claim() && self.keeping.may_claim() { wanted } else { 0 };
        let (tasks, caps) = self.takable(u32::try_from(limit).unwrap_or(u32::MAX));
        let limit = if tasks.is_empty() { 0 } else { limit };
        let outcomes = self.handover.offer();
        let more = if room.urgent { self.more_urgent } else { self.more };
        if outcomes.is_empty() && (limit == 0 || !more) {
            return;
        }
        self.claims = self.claims.wrapping_add(u64::from(limit > 0));
        // cleared before the call: what wakes meanwhile must not be forgotten
        self.more_urgent &= limit == 0;
        self.more &= limit == 0 || room.urgent;
        let claim = Claim {
            worker: self.me.current(),
            queues: options.queues.clone(),
            tasks: Some(tasks),
            limit: u32::try_from(limit).unwrap_or(u32::MAX),
            lease: options.lease,
            min_priority: room.urgent.then_some(options.spare_min_priority),
            aged: options.aged.filter(|_| self.claims.is_multiple_of(AGED_EACH)),
            caps,
        };
        let (heard, bare) = (self.pace.heard(), outcomes.is_empty());
        let (source, call_timeout) = (self.around.source.clone(), options.call_timeout);
        self.poll_at = Instant::now() + jittered(options.poll);
        self.exchange = Some(Box::pin(async move {
            let asked = Instant::now();
            let result = call(source.exchange(&outcomes, &claim), call_timeout).await;
            metrics::histogram!(EXCHANGE_SECONDS).record(asked.elapsed());
            Answer { result, asked, limit: claim.limit, urgent: room.urgent, bare, heard }
        }));
    }

    /// Room for more jobs. One that ends runs what has arrived already all the same.
    fn room(&self, claiming: bool) -> Room {
        if claiming {
            return self.pace.get().room(self.jobs.len());
        }
        let free = self.around.options.concurrency.saturating_sub(self.jobs.len());
        Room { jobs: free.min(self.around.source.arrived()), urgent: false }
    }

    /// The tasks of which one more may run, and how many of them where that is fewer than are asked for.
    fn takable(&self, limit: u32) -> (Vec<String>, BTreeMap<String, u32>) {
        let (mut tasks, mut caps) = (self.names.clone(), BTreeMap::new());
        let limits = &self.around.options.limits;
        let least = |task: &str, own: Option<u32>| own.into_iter().chain(limits.get(task).copied()).min();
        for (task, most) in
            self.tasks.iter().filter_map(|(name, task)| Some((name, least(name, task.room())?)))
        {
            let running = u32::try_from(self.running.count(task)).unwrap_or(u32::MAX);
            match most.saturating_sub(running) {
                0 => tasks.retain(|name| name != task),
                left if left < limit => _ = caps.insert(task.clone(), left),
                _ => {}
            }
        }
        (tasks, caps)
    }

    pub(super) fn may_find_more(&mut self, more: bool) {
        self.more |= more;
        self.more_urgent |= more;
    }

    pub(super) fn answered(&mut self, answer: Answer, start_jobs: bool) {
        self.exchange = None;
        match answer.result {
            Ok(exchanged) => {
                if self.backoff.failures() > 0 {
                    info!(waiting = self.handover.len(), "The job source is back.");
                    self.backoff.reset();
                }
                self.settle(&exchanged.verdicts);
                self.found = match exchanged.jobs.len() {
                    0 if answer.limit > 0 && !answer.urgent && exchanged.slowed => Found::Slowed,
                    0 if answer.limit > 0 && !answer.urgent && answer.bare => Found::Nothing,
                    _ => Found::Unknown,
                };
                let full = answer.limit > 0 && exchanged.jobs.len() >= answer.limit as usize;
                self.more |= full && !answer.urgent;
                self.more_urgent |= full;
                if start_jobs {
                    let until = answer.asked + self.around.options.lease;
                    exchanged.jobs.into_iter().for_each(|leased| self.start(leased, until));
                    if self.pace.heard() != answer.heard {
                        // one of them may have been cancelled before it was known here
                        self.pace.look.notify_one();
                    }
                } else {
                    self.unwanted.extend(exchanged.jobs.iter().map(|leased| (leased.id, leased.lease)));
                }
            }
            Err(error) => {
                self.found = Found::Unknown;
                metrics::counter!(SOURCE_ERRORS_TOTAL, "call" => "exchange").increment(1);
                let text = causes(&error);
                if self.backoff.failures() == 0 {
                    warn!(
                        error = text,
                        "The job source does not answer; outcomes wait, and nothing is claimed."
                    );
                } else {
                    debug!(error = text, "The job source still does not answer.");
                }
                if !error.is_refusal() {
                    // away, full, or broken: no outcome is to blame, and none may be lost for it
                    self.handover.unreached();
                } else if let Some((job_id, lease)) = self.handover.refused(&text) {
                    error!(job_id, error = text, "An outcome cannot be stored and is given up.");
                    self.running.end(lease);
                    self.keeping.judged(lease);
                }
                // whatever was asked for may be there still
                self.may_find_more(true);
                self.not_before = Some(Instant::now() + self.backoff.pause());
            }
        }
        self.measure();
    }

    fn settle(&mut self, verdicts: &[Verdict]) {
        let is_open = |i: usize| verdicts.get(i).is_none_or(|verdict| *verdict == Verdict::Unjudged);
        for (outcome, verdict) in self.handover.accepted(is_open).into_iter().zip(verdicts) {
            if let Some((_, lease)) = outcome {
                self.running.end(lease);
                self.keeping.judged(lease);
            }
            let label = match verdict {
                Verdict::Accepted => "accepted",
                Verdict::Repeated => "repeated",
                Verdict::Unjudged => "unjudged",
                Verdict::LeaseLost => {
                    let job_id = outcome.map(|(job_id, _)| job_id);
                    warn!(job_id, "An outcome came too late: the lease was gone.");
                    "lease_lost"
                }
            };
            metrics::counter!(OUTCOMES_TOTAL, "verdict" => label).increment(1);
        }
    }
}
