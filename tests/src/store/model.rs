//! The plain model: a queue as one would write it if it had to be neither kept nor shared nor fast.
//!
//! Every job is a value in a list, nothing is counted that can be looked up, and every decision is
//! [`minium_queue::rules`]'. What the model and a store do to the same steps must look alike after each of them.

mod time;

use super::sequence::{
    Asked, Draft, Event, Report, Seen, Step, Word, key_name, queue_name, task_name, value_text,
};
use minium_protocol::{Phase, State};
use minium_queue::rules::{self, Aftermath, Hold, Standing};
use minium_queue::{Ending, Pause, Timing, Verdict};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// A unit of time has so many ticks. Each step takes one, so that what happened first is older, as in a database.
const TICKS: i64 = 1_000_000;

/// A queue in memory. Times are ticks since its beginning.
#[derive(Default)]
pub(crate) struct Model {
    now: i64,
    jobs: Vec<Option<Job>>,
    /// Which job each run was of.
    runs: Vec<usize>,
    schedules: BTreeMap<u8, (Timing, i64)>,
    drawn: u64,
    events: Vec<Event>,
}

#[derive(Clone)]
struct Job {
    name: usize,
    task: String,
    queue: String,
    state: State,
    priority: i32,
    notes: Map<String, Value>,
    attempt: i32,
    attempts: i32,
    retries: i32,
    parents: Vec<usize>,
    lax: bool,
    key: Option<String>,
    schedule: Option<String>,
    worked: bool,
    result: Option<String>,
    error: Option<String>,
    percent: Option<u8>,
    created: i64,
    delayed: i64,
    expires: Option<i64>,
    started: Option<i64>,
    finished: Option<i64>,
    retried: Option<i64>,
    backoff: u64,
    /// The run whose token it bears.
    run: Option<usize>,
    until: i64,
    staged: bool,
    /// Its number in the order of claims, while it is ready.
    seq: Option<u64>,
}

impl Model {
    /// Does a step and tells what is to be seen of it.
    pub(crate) fn step(&mut self, step: &Step) -> Report {
        self.events.clear();
        self.now += 1;
        let answer = match step {
            Step::Enqueue(drafts) => self.enqueue(drafts),
            Step::Exchange { words, claim } => self.exchange(words, claim),
            Step::Extend { runs, lease } => self.extend(runs, *lease),
            Step::Annotate { job, run, notes, percent } => self.annotate(*job, *run, notes, *percent),
            Step::Cancel(job) => self.cancel(*job),
            Step::Retry { job, delay, priority, queue, attempts } => {
                self.retry(*job, *delay, *priority, *queue, *attempts)
            }
            Step::Remove(job) => self.remove(*job),
            Step::Pass(units) => {
                self.now += ticks(*units);
                Value::Null
            }
            Step::Upkeep { keep, batch } => self.upkeep(*keep, *batch as usize),
            Step::Fire { every } => self.fire(every),
        };
        self.report(answer)
    }

    fn report(&self, answer: Value) -> Report {
        let mut events = self.events.clone();
        events.sort_by_key(|e| e.job);
        let jobs: Vec<_> = self.jobs.iter().flatten().collect();
        let in_state = |state| jobs.iter().filter(|j| j.state == state).count() as i64;
        let in_phase = |phase| jobs.iter().filter(|j| self.phase(j) == Some(phase)).count() as i64;
        let stats = [
            in_state(State::Inactive),
            in_phase(Phase::Delayed),
            in_phase(Phase::Blocked),
            in_state(State::Active),
            in_state(State::Finished),
            in_state(State::Failed),
            in_state(State::Cancelled),
        ];
        let seen = jobs.iter().map(|job| Seen {
            data: self.snapshot(job),
            phase: self.phase(job).map(|p| p.to_string()),
            children: jobs.iter().filter(|c| c.parents.contains(&job.name)).map(|c| c.name).collect(),
        });
        Report { answer, events, jobs: seen.collect(), stats }
    }

    fn snapshot(&self, job: &Job) -> Value {
        let age = |at: i64| json!(self.units_until(at));
        json!({
            "id": job.name, "task": job.task, "queue": job.queue, "state": job.state, "priority": job.priority,
            "args": [], "notes": job.notes, "attempt": job.attempt, "attempts": job.attempts,
            "retries": job.retries, "parents": job.parents, "lax": job.lax, "key": job.key,
            "schedule": job.schedule, "worker": job.worked.then(super::fixture::worker),
            "result": job.result.as_ref().map(|r| serde_json::from_str::<Value>(r).unwrap()),
            "error": job.error, "progress": job.percent.map(|p| json!({"percent": f64::from(p)})),
            "origin": null, "created": age(job.created), "delayed": age(job.delayed),
            "expires": job.expires.map(age), "started": job.started.map(age),
            "finished": job.finished.map(age), "retried": job.retried.map(age),
        })
    }

    /// How many units ahead a time is, to the nearest.
    fn units_until(&self, at: i64) -> i64 {
        ((at - self.now) as f64 / TICKS as f64).round() as i64
    }

    fn state(&self, name: usize) -> Option<State> {
        self.jobs.get(name)?.as_ref().map(|job| job.state)
    }

    fn open_edges(&self, job: &Job) -> i64 {
        job.parents.iter().filter(|p| rules::is_edge_open(self.state(**p), job.lax)).count() as i64
    }

    fn phase(&self, job: &Job) -> Option<Phase> {
        rules::phase(job.state, self.open_edges(job), job.delayed, self.now)
    }

    fn is_ready(&self, job: &Job) -> bool {
        job.state == State::Inactive && job.staged && self.open_edges(job) == 0
    }

    /// Numbers those that have become ready, in the order of their ids, and forgets the numbers of those that are not.
    fn settle(&mut self) {
        for name in 0..self.jobs.len() {
            let Some(job) = &self.jobs[name] else { continue };
            let seq = match (self.is_ready(job), job.seq) {
                (true, None) => {
                    self.drawn += 1;
                    Some(self.drawn)
                }
                (true, seq) => seq,
                (false, _) => None,
            };
            self.job_mut(name).seq = seq;
        }
    }

    fn job_mut(&mut self, name: usize) -> &mut Job {
        self.jobs[name].as_mut().expect("the job exists")
    }

    fn event(&mut self, kind: &str, name: usize, late: Option<Value>) {
        let job = self.jobs[name].as_ref().expect("the job exists");
        let event = Event { job: name, kind: kind.into(), data: self.snapshot(job), late };
        self.events.push(event);
    }

    /// Which job a number means.
    fn pick(&self, number: usize) -> Option<usize> {
        (!self.jobs.is_empty()).then(|| number % self.jobs.len())
    }

    /// A job that a number means, if it exists.
    fn find(&self, number: usize) -> Option<&Job> {
        self.jobs[self.pick(number)?].as_ref()
    }

    fn holder(&self, task: &str, key: &str) -> Option<usize> {
        let living =
            |job: &&Job| !job.state.is_ended() && job.task == task && job.key.as_deref() == Some(key);
        self.jobs.iter().flatten().find(living).map(|job| job.name)
    }

    fn enqueue(&mut self, drafts: &[Draft]) -> Value {
        let known = self.jobs.len();
        drafts.iter().map(|draft| self.enqueue_one(draft, known, None)).collect()
    }

    fn enqueue_one(&mut self, draft: &Draft, known: usize, schedule: Option<String>) -> Value {
        let task = task_name(draft.task);
        let key = draft.key.map(key_name);
        if let Some(holder) = key.as_deref().and_then(|key| self.holder(&task, key)) {
            return json!([holder, true]);
        }
        let mut parents = Vec::new();
        for parent in draft.parents.iter().filter(|_| known > 0).map(|p| p % known) {
            if !parents.contains(&parent) {
                parents.push(parent);
            }
        }
        let name = self.jobs.len();
        let now = self.now;
        self.jobs.push(Some(Job {
            name,
            task,
            queue: queue_name(draft.queue),
            state: State::Inactive,
            priority: draft.priority,
            notes: Map::new(),
            attempt: 0,
            attempts: draft.attempts,
            retries: 0,
            parents,
            lax: draft.lax,
            key,
            schedule,
            worked: false,
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
            run: None,
            until: 0,
            staged: draft.delay == 0,
            seq: None,
        }));
        self.settle();
        self.event("task.enqueue", name, None);
        json!([name, false])
    }

    fn exchange(&mut self, words: &[Word], claim: &Asked) -> Value {
        let chosen = self.choose(claim);
        let verdicts: Vec<_> = words.iter().filter_map(|word| self.word(word)).collect();
        let mut claimed = Vec::new();
        for name in chosen {
            let run = self.runs.len();
            self.runs.push(name);
            let now = self.now;
            let job = self.job_mut(name);
            job.state = State::Active;
            job.attempt += 1;
            job.started = Some(now);
            job.worked = true;
            job.percent = None;
            job.run = Some(run);
            job.until = now + ticks(claim.lease);
            claimed.push(json!([name, job.attempt]));
            self.settle();
            self.event("task.dequeue", name, None);
        }
        json!({"verdicts": verdicts, "jobs": claimed})
    }

    fn choose(&self, claim: &Asked) -> Vec<usize> {
        let queues: Vec<_> = claim.queues.iter().map(|q| queue_name(*q)).collect();
        let tasks: Option<Vec<_>> = claim.tasks.as_ref().map(|t| t.iter().map(|t| task_name(*t)).collect());
        let fits = |job: &&Job| {
            job.seq.is_some()
                && queues.contains(&job.queue)
                && tasks.as_ref().is_none_or(|tasks| tasks.contains(&job.task))
                && claim.least.is_none_or(|least| job.priority >= least)
                && !rules::is_expired(job.attempt, job.expires, self.now)
        };
        let mut fitting: Vec<_> = self.jobs.iter().flatten().filter(fits).collect();
        fitting.sort_by_key(|job| (std::cmp::Reverse(job.priority), job.seq));
        fitting.iter().take(claim.limit as usize).map(|job| job.name).collect()
    }

    fn word(&mut self, word: &Word) -> Option<Verdict> {
        if self.runs.is_empty() {
            return None;
        }
        let run = word.run % self.runs.len();
        let name = self.runs[run];
        let text = value_text(word.value);
        let ending = if word.good {
            Ending::Finished(super::fixture::json(&text))
        } else {
            Ending::Failed { error: text.clone(), retry: word.retry, pause: Pause::Usual, backtrace: None }
        };
        let standing = self.jobs[name].as_ref().map(|job| Standing {
            state: job.state,
            same_lease: job.run == Some(run),
            result: job.result.as_deref(),
            error: job.error.as_deref(),
        });
        let verdict = rules::judge(standing, &ending);
        match verdict {
            Verdict::Accepted => self.accept(name, word, text),
            Verdict::LeaseLost if standing.is_some() => {
                let late = if word.good {
                    json!({"state": "finished", "result": serde_json::from_str::<Value>(&text).unwrap(), "lease": run})
                } else {
                    json!({"state": "failed", "error": text, "lease": run})
                };
                self.event("task.late_result", name, Some(late));
            }
            Verdict::LeaseLost | Verdict::Repeated | Verdict::Unjudged => {}
        }
        Some(verdict)
    }

    fn accept(&mut self, name: usize, word: &Word, text: String) {
        let now = self.now;
        let job = self.job_mut(name);
        job.finished = Some(now);
        if word.good {
            job.state = State::Finished;
            (job.result, job.error) = (Some(text), None);
            self.settle();
            return self.event("task.finished", name, None);
        }
        job.state = State::Failed;
        (job.result, job.error) = (None, Some(text));
        let again = rules::after_failure(job.attempt, job.attempts, word.retry) == Aftermath::Again;
        let (retries, own) = (job.retries, Duration::from_secs(job.backoff));
        self.event("task.failed", name, None);
        if again {
            let pause = ticks(rules::backoff(retries, Some(own), Pause::Usual, 0.0).as_secs());
            let job = self.job_mut(name);
            job.state = State::Inactive;
            job.retries += 1;
            job.retried = Some(now);
            job.delayed = now + pause;
            job.staged = pause == 0;
            job.finished = None;
        }
        // only now: in between nobody could have seen it failed
        self.settle();
        if again {
            self.event("task.retry", name, None);
        }
    }

    fn extend(&mut self, runs: &[usize], lease: u64) -> Value {
        if self.runs.is_empty() {
            return json!([]);
        }
        let until = self.now + ticks(lease);
        let known = self.runs.len();
        let mut answer = |run: usize| {
            let job = self.jobs[self.runs[run]].as_mut();
            match rules::hold(job.as_ref().map(|j| j.state), job.as_ref().is_some_and(|j| j.run == Some(run)))
            {
                Hold::Held => {
                    job.expect("a job that is held exists").until = until;
                    json!(lease)
                }
                Hold::Cancelled => json!("cancelled"),
                Hold::Lost => json!("lost"),
            }
        };
        runs.iter().map(|run| answer(run % known)).collect()
    }

    fn annotate(
        &mut self,
        job: usize,
        run: Option<usize>,
        notes: &[(u8, Option<u8>)],
        percent: Option<u8>,
    ) -> Value {
        // a worker speaks about the job of its run
        let run = run.filter(|_| !self.runs.is_empty()).map(|run| run % self.runs.len());
        let number = run.map_or(job, |run| self.runs[run]);
        let Some(found) = self.find(number) else { return json!("not_found") };
        let name = found.name;
        if run.is_some() && rules::hold(Some(found.state), found.run == run) != Hold::Held {
            return json!("lease_lost");
        }
        let change = note_map(notes);
        if change.is_empty() && percent.is_none() {
            return Value::Null;
        }
        let job = self.job_mut(name);
        rules::merge_notes(&mut job.notes, &change);
        job.percent = percent.or(job.percent);
        self.event("task.progress", name, None);
        Value::Null
    }

    fn cancel(&mut self, job: usize) -> Value {
        let Some(found) = self.find(job) else { return json!("not_found") };
        let name = found.name;
        if rules::may_cancel(1, found.state).is_err() {
            return json!("conflict");
        }
        let now = self.now;
        let job = self.job_mut(name);
        job.state = State::Cancelled;
        job.finished = Some(now);
        job.result = None;
        self.settle();
        self.event("task.cancelled", name, None);
        Value::Null
    }

    fn retry(
        &mut self,
        job: usize,
        delay: u64,
        priority: Option<i32>,
        queue: Option<u8>,
        attempts: Option<i32>,
    ) -> Value {
        let Some(found) = self.find(job) else { return json!("not_found") };
        let name = found.name;
        let holder = found.key.as_deref().and_then(|key| self.holder(&found.task, key));
        if rules::may_retry(1, found.state, holder.is_some_and(|holder| holder != name)).is_err() {
            return json!("conflict");
        }
        let Ok(attempts) = rules::attempts_after_retry(found.attempt, found.attempts, attempts) else {
            return json!("invalid");
        };
        let now = self.now;
        let job = self.job_mut(name);
        job.state = State::Inactive;
        job.retries += 1;
        job.retried = Some(now);
        job.delayed = now + ticks(delay);
        job.staged = delay == 0;
        job.attempts = attempts;
        job.priority = priority.unwrap_or(job.priority);
        job.queue = queue.map_or_else(|| job.queue.clone(), queue_name);
        (job.finished, job.result, job.expires, job.run) = (None, None, None, None);
        // it queues up anew
        job.seq = None;
        self.settle();
        self.event("task.retry", name, None);
        Value::Null
    }

    fn remove(&mut self, job: usize) -> Value {
        let Some(found) = self.find(job) else { return json!("not_found") };
        let name = found.name;
        if rules::may_remove(1, found.state).is_err() {
            return json!("conflict");
        }
        self.delete(name, "task.removed");
        Value::Null
    }

    fn delete(&mut self, name: usize, kind: &str) {
        self.event(kind, name, None);
        self.jobs[name] = None;
        self.settle();
    }
}

/// What a schedule enqueues.
pub(crate) fn scheduled(schedule: u8) -> Draft {
    Draft {
        task: 0,
        queue: schedule,
        priority: 0,
        delay: 0,
        expire: None,
        attempts: 1,
        backoff: 0,
        parents: vec![],
        lax: false,
        key: (schedule == 1).then_some(0),
    }
}

/// Notes as an annotation brings them.
pub(crate) fn note_map(notes: &[(u8, Option<u8>)]) -> Map<String, Value> {
    notes.iter().map(|(name, value)| (format!("note {name}"), json!(value))).collect()
}

fn ticks(units: u64) -> i64 {
    units as i64 * TICKS
}
