//! Jobs that know of each other: those of one call, keys, children that run on a failure, cascades.

use super::super::sequence::{Draft, Hold, When, key_name, part_name, pick, places, queue_name, task_name};
use super::{Job, Key, Model, ticks};
use minium_protocol::{State, levels};
use minium_queue::rules::{self, Handler};
use serde_json::{Map, Value, json};

impl Model {
    pub(super) fn enqueue(&mut self, drafts: &[Draft]) -> Value {
        let Some(order) = order(drafts) else { return json!("invalid") };
        let known = self.jobs.len();
        let mut made: Vec<Option<(usize, bool)>> = vec![None; drafts.len()];
        for place in order {
            let after = places(&drafts[place].after, place, drafts.len());
            let after: Vec<_> = after.iter().filter_map(|other| made[*other]).map(|(name, _)| name).collect();
            made[place] = Some(self.enqueue_one(&drafts[place], known, &after, None));
        }
        made.into_iter().flatten().map(|(name, existing)| json!([name, existing])).collect()
    }

    /// Answers which job it is, and whether it was there.
    pub(super) fn enqueue_one(
        &mut self,
        draft: &Draft,
        known: usize,
        after: &[usize],
        schedule: Option<String>,
    ) -> (usize, bool) {
        let task = task_name(draft.task);
        let key = draft.key.map(|(key, _)| key_name(key));
        if let Some(holder) = key.as_deref().and_then(|key| self.holder(&task, key)) {
            return (holder, true);
        }
        let mut parents = Vec::new();
        let named = draft.parents.iter().filter_map(|parent| pick(*parent, known));
        for parent in named.chain(after.iter().copied()) {
            if !parents.contains(&parent) {
                parents.push(parent);
            }
        }
        let when = if parents.is_empty() && draft.when == When::Failure { When::Success } else { draft.when };
        let limited = levels(&task).find(|level| self.limits.contains_key(*level)).map(str::to_owned);
        let name = self.jobs.len();
        let now = self.now;
        self.jobs.push(Some(Job {
            name,
            limited,
            task,
            queue: queue_name(draft.queue),
            state: State::Inactive,
            priority: draft.priority,
            notes: Map::new(),
            attempt: 0,
            attempts: draft.attempts,
            retries: 0,
            parents,
            when,
            held: when == When::Failure,
            key,
            unique: draft.key.map_or(Hold::Alive, |(_, hold)| hold),
            schedule,
            origin: draft.origin.and_then(|origin| pick(origin, known)),
            part: draft.part.map(part_name).unwrap_or_default(),
            worker: None,
            result: None,
            error: None,
            percent: None,
            created: now,
            delayed: now + ticks(draft.delay),
            expires: draft.expire.map(|e| now + ticks(e)),
            started: None,
            finished: None,
            retried: None,
            backoff: draft.backoff,
            failures: Vec::new(),
            run: None,
            until: 0,
            staged: draft.delay == 0,
            seq: None,
        }));
        let until = match draft.key {
            Some((_, Hold::For(units))) => Some(now + ticks(units)),
            _ => None,
        };
        self.take_key(name, until);
        self.settle();
        self.event("task.enqueue", name, None);
        self.fresh.push(name);
        (name, false)
    }

    /// Which job holds a key: one that lives, or has it for a time that is not over, whatever became of it.
    pub(super) fn holder(&self, task: &str, key: &str) -> Option<usize> {
        let held = self.keys.get(&(task.to_owned(), key.to_owned()))?;
        let lives = self.state(held.job).is_some_and(|state| !state.is_ended());
        (lives || held.until.is_some_and(|until| until > self.now)).then_some(held.job)
    }

    pub(super) fn take_key(&mut self, name: usize, until: Option<i64>) {
        let job = self.job_mut(name);
        if let Some(key) = job.key.clone() {
            let task = job.task.clone();
            self.keys.insert((task, key), Key { job: name, until });
        }
    }

    /// It lets its key go, unless it has it for a time that is not over.
    pub(super) fn let_key_go(&mut self, name: usize) {
        let now = self.now;
        self.keys.retain(|_, held| held.job != name || held.until.is_some_and(|until| until > now));
    }

    /// It does not wait any more.
    pub(super) fn let_waiting_key_go(&mut self, name: usize) {
        if self.job_mut(name).unique == Hold::Waiting {
            self.keys.retain(|_, held| held.job != name);
        }
    }

    /// Judges those that run on a failure below all that has moved: first what has lost a parent, and then whatever is called
    /// off by it.
    pub(super) fn judge_handlers(&mut self) {
        for name in std::mem::take(&mut self.fresh) {
            self.judge_handler(name, false);
        }
        while !self.moved.is_empty() {
            let mut moved = std::mem::take(&mut self.moved);
            moved.sort_by_key(|(parent, _)| self.jobs[*parent].is_some());
            for (parent, again) in moved {
                for child in 0..self.jobs.len() {
                    if self.jobs[child].as_ref().is_some_and(|job| job.parents.contains(&parent)) {
                        self.judge_handler(child, again);
                    }
                }
            }
        }
    }

    /// One that may run stays so, whatever becomes of its parents, until one of them waits again.
    fn judge_handler(&mut self, name: usize, again: bool) {
        let Some(job) = self.jobs[name].as_ref().filter(|job| job.when == When::Failure) else { return };
        let (state, was_held) = (job.state, job.held);
        match rules::handler(job.parents.iter().filter_map(|parent| self.state(*parent))) {
            Handler::Waits => self.job_mut(name).held |= again,
            Handler::Runs => self.job_mut(name).held = false,
            Handler::CalledOff => {
                self.job_mut(name).held = false;
                if was_held && state == State::Inactive {
                    // it never becomes ready in between
                    return self.call_off(name);
                }
            }
        }
        self.settle();
    }

    pub(super) fn cascade(&mut self, job: usize) -> Value {
        let Some(found) = self.find(job) else { return json!("not_found") };
        let mut all = vec![found.name];
        let mut looked = 0;
        while looked < all.len() {
            let of = all[looked];
            all.extend(self.jobs.iter().flatten().filter(|j| j.origin == Some(of)).map(|j| j.name));
            looked += 1;
        }
        all.retain(|name| self.state(*name).is_some_and(|state| !state.is_ended()));
        all.sort_unstable();
        for name in &all {
            self.call_off(*name);
        }
        json!(all.len())
    }
}

/// The places in an order in which nobody stands before one that it waits for, the free one that came first next; `None` where
/// that leads in a circle.
fn order(drafts: &[Draft]) -> Option<Vec<usize>> {
    let mut ordered: Vec<usize> = Vec::new();
    while ordered.len() < drafts.len() {
        let is_free = |place: &usize| {
            let after = places(&drafts[*place].after, *place, drafts.len());
            !ordered.contains(place) && after.iter().all(|other| ordered.contains(other))
        };
        ordered.push((0..drafts.len()).find(is_free)?);
    }
    Some(ordered)
}
