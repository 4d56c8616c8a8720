//! Claims in the model: what a store may take, must not leave, and in which order.
//!
//! The model does not choose. It looks at what was taken and at what was left, and says which promise that breaks: limits
//! and bounds hold, nothing is left while there is room for it, the more urgent goes first, and among equals who became ready
//! first. Who became ready by the same step is equal, but where a store is held to the exact order.

use super::super::sequence::{Asked, Bound, Profile, Puller, UNIT_SECONDS, queue_name, task_name};
use super::{Job, Model, Rule, ticks};
use minium_protocol::State;
use minium_queue::rules;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What a claim asks for.
#[derive(Default)]
struct Wanted {
    queues: Vec<String>,
    tasks: Option<Vec<String>>,
    least: Option<i32>,
    limit: usize,
    caps: BTreeMap<String, u32>,
    aged: Option<i64>,
    /// It is for pullers.
    pull: bool,
    /// More than that it takes nothing that it must not is not promised.
    loose: bool,
}

impl Model {
    /// The jobs that an exchange took.
    pub(super) fn chosen(&self, claim: &Asked, got: &Value) -> Result<Vec<usize>, String> {
        let names = |got: &Value| got.as_array().map(|all| all.iter().map(|job| name(&job[0])).collect());
        let wanted = Wanted {
            queues: claim.queues.iter().map(|q| queue_name(*q)).collect(),
            tasks: claim.tasks.as_ref().map(|tasks| tasks.iter().map(|t| task_name(*t)).collect()),
            least: claim.least,
            limit: claim.limit as usize,
            caps: claim.caps.iter().map(|(task, cap)| (task_name(*task), *cap)).collect(),
            aged: claim.aged.filter(|_| claim.caps.is_empty()).map(ticks),
            pull: false,
            loose: got["crashed"] == true,
        };
        let chosen: Vec<usize> = names(&got["jobs"]).unwrap_or_default();
        self.judge(&wanted, &chosen)?;
        Ok(chosen)
    }

    /// One puller after the other; the answer says pull, place, job and attempt of each.
    pub(super) fn pull(&mut self, pullers: &[Puller], got: &Value) -> Value {
        let got_all: Vec<Vec<Value>> = serde_json::from_value(got["pulled"].clone()).unwrap_or_default();
        let mut pulled = Vec::new();
        for (i, puller) in pullers.iter().enumerate() {
            let of_pull: Vec<_> = got_all.iter().filter(|p| p[0] == i).collect();
            let chosen: Vec<usize> = of_pull.iter().map(|p| name(&p[2])).collect();
            let shares = |other: &Puller| {
                other.queue == puller.queue && other.tasks.iter().any(|task| puller.tasks.contains(task))
            };
            let shared = pullers.iter().enumerate().any(|(j, other)| j != i && shares(other));
            let wanted = Wanted {
                queues: vec![queue_name(puller.queue)],
                tasks: Some(puller.tasks.iter().map(|t| task_name(*t)).collect()),
                limit: usize::from(puller.workers),
                pull: true,
                loose: got["crashed"] == true || shared && self.profile != Profile::Exact,
                ..Wanted::default()
            };
            if let Err(words) = self.judge(&wanted, &chosen) {
                return json!({ "wrong": words });
            }
            // one whose first choice another pull has taken leaves a place empty
            let places: Vec<usize> = of_pull.iter().map(|p| name(&p[1])).collect();
            let in_turn = places.iter().copied().eq(0..places.len());
            let apart = places.windows(2).all(|pair| pair[0] < pair[1]);
            if !in_turn && !wanted.loose || !apart || places.last() >= Some(&usize::from(puller.workers)) {
                return json!({ "wrong": format!("places {places:?}") });
            }
            for (place, name) in places.into_iter().zip(chosen) {
                let attempt = self.claim(name, puller_id(i, place), ticks(puller.lease));
                pulled.push(json!([i, place, name, attempt]));
            }
        }
        json!({ "pulled": pulled })
    }

    /// It runs. Answers the number of the run.
    pub(super) fn claim(&mut self, name: usize, worker: i64, lease: i64) -> i32 {
        let (run, now) = (self.runs.len(), self.now);
        self.runs.push(name);
        let job = self.job_mut(name);
        job.attempt += 1;
        job.started = Some(now);
        job.worker = Some(worker);
        job.percent = None;
        job.run = Some(run);
        job.until = now + lease;
        let (attempt, limited) = (job.attempt, job.limited.clone());
        if let Some(rule) = limited.and_then(|limited| self.limits.get_mut(&limited)) {
            rule.tokens = rule.tokens_at(now) - if rule.rate.is_some() { 1.0 } else { 0.0 };
            rule.filled = now;
        }
        self.let_waiting_key_go(name);
        self.go(name, State::Active);
        self.event("task.dequeue", name, None);
        attempt
    }

    pub(super) fn limit(&mut self, bounds: &[Bound]) -> Value {
        self.limited |= !bounds.is_empty();
        self.limits.retain(|task, _| bounds.iter().any(|bound| bound.task == *task));
        for bound in bounds {
            let full = bound.rate.map_or(0.0, |(count, _)| f64::from(count));
            let (tokens, filled) = match self.limits.get(&bound.task) {
                Some(rule) if rule.rate.is_some() => (rule.tokens.min(full), rule.filled),
                Some(rule) => (full, rule.filled),
                None => (full, self.now),
            };
            let rule =
                Rule { running: bound.running, per_part: bound.per_part, rate: bound.rate, tokens, filled };
            self.limits.insert(bound.task.clone(), rule);
        }
        Value::Null
    }

    pub(super) fn limit_view(&self, task: &str, rule: &Rule) -> Value {
        let active = self.running(task, None);
        let rate = rule.rate.map(|(count, units)| json!({"count": count, "per": units * UNIT_SECONDS}));
        json!({"task": task, "running": rule.running, "per_partition": rule.per_part, "rate": rate, "active": active})
    }

    fn running(&self, limit: &str, part: Option<&str>) -> usize {
        let counts = |job: &&Job| {
            job.state == State::Active
                && job.limited.as_deref() == Some(limit)
                && part.is_none_or(|part| job.part == part)
        };
        self.jobs.iter().flatten().filter(counts).count()
    }

    fn fits(&self, wanted: &Wanted, job: &Job) -> bool {
        job.seq.is_some()
            && wanted.queues.contains(&job.queue)
            && !self.paused.contains(&job.queue)
            && wanted.tasks.as_ref().is_none_or(|tasks| tasks.contains(&job.task))
            && wanted.least.is_none_or(|least| job.priority >= least)
            && !rules::is_expired(job.attempt, job.expires, self.now)
    }

    fn judge(&self, wanted: &Wanted, chosen: &[usize]) -> Result<(), String> {
        let taken: Vec<&Job> = chosen.iter().filter_map(|name| self.jobs[*name].as_ref()).collect();
        if taken.len() > wanted.limit || taken.len() < chosen.len() {
            return Err(format!("{chosen:?} are too many, or gone"));
        }
        for (i, job) in taken.iter().enumerate() {
            if !self.fits(wanted, job) || taken[..i].iter().any(|other| other.name == job.name) {
                return Err(format!("{} was not to be had", job.name));
            }
            let others: Vec<_> = taken.iter().copied().filter(|other| other.name != job.name).collect();
            if !self.has_room(wanted, &others, job) {
                return Err(format!("there was no room for {}", job.name));
            }
        }
        if wanted.loose {
            return Ok(());
        }
        let left =
            self.jobs.iter().flatten().filter(|job| self.fits(wanted, job) && !chosen.contains(&job.name));
        for job in left {
            if taken.len() < wanted.limit && self.has_room(wanted, &taken, job) {
                return Err(format!("{} was left", job.name));
            }
            for other in &taken {
                let rest: Vec<_> = taken.iter().copied().filter(|t| t.name != other.name).collect();
                if self.has_room(wanted, &rest, job) && self.goes_first(wanted, job, other) {
                    return Err(format!("{} was to go before {}", job.name, other.name));
                }
            }
        }
        self.judge_order(wanted, &taken)
    }

    /// Is there room for one more beside these?
    fn has_room(&self, wanted: &Wanted, beside: &[&Job], job: &Job) -> bool {
        let count = |same: &dyn Fn(&Job) -> bool| beside.iter().filter(|other| same(other)).count();
        let of_task = count(&|other| other.task == job.task);
        if wanted.caps.get(&job.task).is_some_and(|cap| of_task >= *cap as usize) {
            return false;
        }
        let Some((limit, rule)) = job.limited.as_ref().and_then(|limit| self.limits.get_key_value(limit))
        else {
            return true;
        };
        let of_limit = count(&|other| other.limited.as_ref() == Some(limit));
        let of_part = count(&|other| other.limited.as_ref() == Some(limit) && other.part == job.part);
        let full = |most: Option<u32>, running: usize| most.is_some_and(|most| running >= most as usize);
        !(full(rule.running, self.running(limit, None) + of_limit)
            || full(rule.per_part, self.running(limit, Some(&job.part)) + of_part)
            || rule.rate.is_some() && of_limit as f64 + 1.0 > rule.tokens_at(self.now).floor())
    }

    /// Was this one, which was left, to be taken in the place of that?
    fn goes_first(&self, wanted: &Wanted, left: &Job, taken: &Job) -> bool {
        let more_urgent = left.priority > taken.priority;
        let older = left.priority == taken.priority
            && left.queue == taken.queue
            && (left.task == taken.task || wanted.caps.is_empty() && !wanted.pull)
            && self.rank(left) < self.rank(taken);
        match (&left.limited, &taken.limited) {
            (None, None) => match wanted.aged {
                Some(aged) => self.goes_first_aged(aged, left, taken).unwrap_or(more_urgent || older),
                None => more_urgent || older,
            },
            (None, Some(_)) => more_urgent && wanted.aged.is_none(),
            (Some(limit), Some(other)) => more_urgent || limit == other && left.part == taken.part && older,
            // less urgent ones that no limit holds back may go before it
            (Some(_), None) => more_urgent && wanted.aged.is_none() && self.profile == Profile::Exact,
        }
    }

    /// Lanes whose first job has waited so long go first, the longest waiting before all. `None` where neither has.
    fn goes_first_aged(&self, aged: i64, left: &Job, taken: &Job) -> Option<bool> {
        let ([all_left, any_left], head_left) = self.lane(aged, left);
        let ([all_taken, any_taken], head_taken) = self.lane(aged, taken);
        if (&left.queue, left.priority) == (&taken.queue, taken.priority) {
            return Some(self.rank(left) < self.rank(taken));
        }
        match (any_left, any_taken) {
            (false, false) => None,
            (true, false) => Some(all_left),
            (false, true) => Some(false),
            (true, true) => Some(all_left && all_taken && head_left < head_taken),
        }
    }

    /// Whether all, or any, of those that are first in a job's lane have waited so long; and their rank.
    fn lane(&self, aged: i64, job: &Job) -> ([bool; 2], u64) {
        let lane = |other: &&Job| {
            let same = other.queue == job.queue && other.priority == job.priority;
            same && other.seq.is_some() && other.limited.is_none()
        };
        let ready = || self.jobs.iter().flatten().filter(lane);
        let head = ready().map(|other| self.rank(other)).min().unwrap_or(u64::MAX);
        let mut waited = ready().filter(|j| self.rank(j) == head).map(|j| j.delayed <= self.now - aged);
        ([waited.clone().all(|w| w), waited.any(|w| w)], head)
    }

    /// Who became ready first; the same step is the same moment where a store may do things in several.
    fn rank(&self, job: &Job) -> u64 {
        let (seq, since) = job.seq.unwrap_or_default();
        if self.profile == Profile::Promised { since } else { seq }
    }

    fn judge_order(&self, wanted: &Wanted, taken: &[&Job]) -> Result<(), String> {
        if wanted.pull || wanted.aged.is_some() || !wanted.caps.is_empty() {
            return Ok(());
        }
        let wrong = |pair: &&[&Job]| {
            pair[0].priority < pair[1].priority
                || pair[0].priority == pair[1].priority
                    && pair[0].queue == pair[1].queue
                    && self.rank(pair[0]) > self.rank(pair[1])
        };
        match taken.windows(2).find(wrong) {
            Some(pair) => Err(format!("{} stands before {}", pair[0].name, pair[1].name)),
            None => Ok(()),
        }
    }
}

impl Rule {
    /// The starts that may be made by now.
    fn tokens_at(&self, now: i64) -> f64 {
        let Some((count, units)) = self.rate else { return self.tokens };
        let gained = f64::from(count) * (now - self.filled).max(0) as f64 / ticks(units) as f64;
        (self.tokens + gained).min(f64::from(count))
    }
}

/// Who stands at a place of a pull.
pub(crate) fn puller_id(pull: usize, place: usize) -> i64 {
    100 + 10 * pull as i64 + place as i64
}

fn name(value: &Value) -> usize {
    value.as_u64().and_then(|n| usize::try_from(n).ok()).expect("a number")
}
