//! What time brings about in the model: upkeep and schedules.

use super::super::sequence::{Profile, schedule_name};
use super::{Job, Model, scheduled, ticks};
use minium_protocol::{Missed, State};
use minium_queue::Timing;
use minium_queue::rules::{self, Aftermath};
use minium_queue::schedules::due;
use serde_json::{Value, json};
use std::time::Duration;

impl Model {
    /// The names of those that fit, the least first.
    fn sorted(&self, batch: usize, mut fits: impl FnMut(&Job) -> Option<i64>) -> Vec<usize> {
        let mut found: Vec<_> =
            self.jobs.iter().flatten().filter_map(|job| fits(job).map(|by| (by, job.name))).collect();
        found.sort_unstable();
        found.truncate(batch);
        found.into_iter().map(|(_, name)| name).collect()
    }

    pub(super) fn upkeep(&mut self, keep: Option<u64>, batch: usize) -> Value {
        let now = self.now;
        let waits = |job: &Job| job.state == State::Inactive && !job.staged;
        let mut staged = 0;
        for name in self.sorted(batch, |job| (waits(job) && job.delayed <= now).then_some(job.delayed)) {
            self.job_mut(name).staged = true;
            self.settle();
            staged += u32::from(self.jobs[name].as_ref().is_some_and(|job| job.seq.is_some()));
        }
        let mut lost =
            self.sorted(batch, |job| (job.state == State::Active && job.until <= now).then_some(job.until));
        lost.sort_unstable();
        for name in &lost {
            self.lose(*name);
        }
        self.judge_handlers_between();
        let expired = self.sorted(batch, |job| {
            let due = job.state == State::Inactive && rules::is_expired(job.attempt, job.expires, now);
            job.expires.filter(|_| due)
        });
        self.delete_all(&expired, "task.expired");
        self.judge_handlers_between();
        let removed = keep.map_or_else(Vec::new, |keep| {
            self.sorted(batch, |job| {
                let names_it = |child: &&Job| !child.state.is_ended() && child.parents.contains(&job.name);
                let old = job.state == State::Finished && job.finished? + ticks(keep) <= now;
                job.finished.filter(|_| old && !self.jobs.iter().flatten().any(|c| names_it(&c)))
            })
        });
        self.delete_all(&removed, "task.removed");
        let due_in = self
            .jobs
            .iter()
            .flatten()
            .filter(|job| waits(job))
            .map(|job| self.units_until(job.delayed).max(0))
            .min();
        json!({"staged": staged, "rescued": lost.len(), "expired": expired.len(), "removed": removed.len(),
               "due_in": due_in})
    }

    fn lose(&mut self, name: usize) {
        let now = self.now;
        let job = self.job_mut(name);
        job.run = None;
        let after = rules::after_loss(job.attempt, job.attempts);
        if after == Aftermath::End {
            (job.finished, job.error, job.result) = (Some(now), Some(rules::LEASE_EXPIRED.into()), None);
        }
        self.note_failure(name, rules::LEASE_EXPIRED);
        match after {
            Aftermath::Again => self.go(name, State::Inactive),
            Aftermath::End => {
                self.go(name, State::Failed);
                self.let_key_go(name);
            }
        }
        self.event("task.lost", name, None);
    }

    /// Whether those that run on a failure are judged between the parts of a round or behind it is not promised.
    fn judge_handlers_between(&mut self) {
        if self.profile != Profile::Exact {
            self.judge_handlers();
        }
    }

    fn delete_all(&mut self, names: &[usize], kind: &str) {
        let mut names = names.to_vec();
        names.sort_unstable();
        for name in names {
            self.delete(name, kind);
        }
    }

    pub(super) fn fire(&mut self, every: &[(u8, u64)]) -> Value {
        // they are all of the configuration's
        let timing = |units: u64| Timing::Every(Duration::from_micros(ticks(units).unsigned_abs()));
        let mut put = Vec::new();
        for (schedule, units) in every {
            let (timing, before) = (timing(*units), self.schedules.get(schedule));
            let due = due::at_put(before.map(|(timing, due)| (timing, *due)), &timing, self.now);
            put.push((due, *schedule, timing));
        }
        put.sort_by_key(|(due, schedule, _)| (*due, *schedule));
        self.schedules.clear();
        for (due, schedule, timing) in put {
            let firing = due::firing(&timing, Missed::Fold, due, self.now);
            if firing.jobs > 0 {
                self.enqueue_one(&scheduled(schedule), 0, &[], Some(schedule_name(schedule)));
            }
            self.schedules.insert(schedule, (timing, firing.next));
        }
        let next = self.schedules.values().map(|(_, due)| *due).min();
        json!(next.map(|at| self.units_until(at)))
    }
}
