//! The plain model: a queue as one would write it if it had to be neither kept nor shared nor fast.
//!
//! Every job is a value in a list, nothing is counted that can be looked up, and every decision is
//! [`minium_queue::rules`]' where these have it. What the model and a store do to the same steps must look alike after
//! each of them. What a claim takes is the one thing that a store may choose: the model judges the choice (`claims`), and
//! follows it.

mod claims;
mod families;
mod outcomes;
mod time;

pub(crate) use claims::puller_id;
pub(crate) use outcomes::ending;

use super::sequence::{
    Draft, Event, Hold as Unique, More, Profile, Report, Seen, Step, When, pick, queue_name,
};
use minium_protocol::{Phase, State};
use minium_queue::rules::{self, Hold};
use minium_queue::{Timing, may_amend};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// A unit of time has so many ticks. Each step takes one, so that what happened first is older, as in a database.
const TICKS: i64 = 1_000_000;

/// A queue in memory. Times are ticks since its beginning.
#[derive(Clone)]
pub(crate) struct Model {
    profile: Profile,
    now: i64,
    /// So many steps were done: unlike the clock, it never goes back.
    steps: u64,
    jobs: Vec<Option<Job>>,
    /// Which job each run was of.
    runs: Vec<usize>,
    /// By task and key.
    keys: BTreeMap<(String, String), Key>,
    limits: BTreeMap<String, Rule>,
    /// There has been a limit in this sequence.
    limited: bool,
    paused: BTreeSet<String>,
    schedules: BTreeMap<u8, (Timing, i64)>,
    drawn: u64,
    events: Vec<Event>,
    /// Jobs whose children that run on a failure are to be judged, and whether each waits again.
    moved: Vec<(usize, bool)>,
    /// New ones that run on a failure, to be judged when all of their call are there.
    fresh: Vec<usize>,
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
    when: When,
    /// It runs on a failure, and there was none yet.
    held: bool,
    key: Option<String>,
    unique: Unique,
    schedule: Option<String>,
    origin: Option<usize>,
    limited: Option<String>,
    part: String,
    worker: Option<i64>,
    result: Option<String>,
    error: Option<String>,
    percent: Option<u8>,
    created: i64,
    delayed: i64,
    expires: Option<i64>,
    started: Option<i64>,
    finished: Option<i64>,
    retried: Option<i64>,
    backoff: Option<u64>,
    failures: Vec<Failure>,
    /// The run whose token it bears.
    run: Option<usize>,
    until: i64,
    staged: bool,
    /// Its number in the order of claims and the step in which it drew it, while it is ready.
    seq: Option<(u64, u64)>,
}

#[derive(Clone)]
struct Failure {
    attempt: i32,
    at: i64,
    worker: Option<i64>,
    error: String,
}

/// A key that is held.
#[derive(Clone)]
struct Key {
    job: usize,
    until: Option<i64>,
}

/// A limit in force.
#[derive(Clone)]
struct Rule {
    running: Option<u32>,
    per_part: Option<u32>,
    rate: Option<(u32, u64)>,
    /// Starts that may be made, as of `filled`.
    tokens: f64,
    filled: i64,
}

impl Model {
    pub(crate) fn new(profile: Profile) -> Model {
        Model {
            profile,
            now: 0,
            steps: 0,
            jobs: Vec::new(),
            runs: Vec::new(),
            keys: BTreeMap::new(),
            limits: BTreeMap::new(),
            limited: false,
            paused: BTreeSet::new(),
            schedules: BTreeMap::new(),
            drawn: 0,
            events: Vec::new(),
            moved: Vec::new(),
            fresh: Vec::new(),
        }
    }

    /// Does a step and tells what is to be seen of it. `got` is what the store answered: of a claim, which jobs it took.
    /// Only a whole report tells what is asked job by job.
    pub(crate) fn step(&mut self, step: &Step, got: &Value, whole: bool) -> Report {
        self.events.clear();
        let answer = self.answer(step, got);
        self.report(answer, whole)
    }

    /// The two ways in which a step may end whose process died, whichever jobs a claim took.
    pub(crate) fn crash(&self, step: &Step, got: &Value, then: &[Step]) -> [(Model, Report); 2] {
        let branch = |step: &Step| {
            let mut model = self.clone();
            model.events.clear();
            let answer = model.answer(step, got);
            for step in then {
                model.answer(step, &Value::Null);
            }
            // a claim that was judged wrong is neither
            let wrong = answer.get("wrong").cloned().unwrap_or_default();
            let report = model.report(wrong, true);
            (model, report)
        };
        [branch(step), branch(&Step::Pass(0))]
    }

    fn answer(&mut self, step: &Step, got: &Value) -> Value {
        self.now += 1;
        self.steps += 1;
        let answer = match step {
            Step::Enqueue(drafts) => self.enqueue(drafts),
            Step::Exchange { words, claim } => self.exchange(words, claim, got),
            Step::Pull(pullers) => self.pull(pullers, got),
            Step::Release(runs) => self.release(runs),
            Step::Postpone { run, pause } => self.postpone(*run, *pause),
            Step::Extend { runs, lease } => self.extend(runs, *lease),
            Step::Annotate { job, run, notes, percent } => self.annotate(*job, *run, notes, *percent),
            Step::Cancel(job) => self.cancel(*job),
            Step::Cascade(job) => self.cascade(*job),
            Step::Retry { job, delay, priority, queue, attempts } => {
                self.retry(*job, *delay, *priority, *queue, *attempts)
            }
            Step::Amend { job, delay, priority, queue, notes } => {
                self.amend(*job, *delay, *priority, *queue, notes)
            }
            Step::Remove(job) => self.remove(*job),
            Step::Limit(bounds) => self.limit(bounds),
            Step::Pause(queue) => json!(self.paused.insert(queue_name(*queue))),
            Step::Resume(queue) => json!(self.paused.remove(&queue_name(*queue))),
            Step::Pass(units) => {
                self.now += units * TICKS;
                Value::Null
            }
            Step::Upkeep { keep, batch } => self.upkeep(*keep, *batch as usize),
            Step::Fire { every } => self.fire(every),
            Step::Crash { .. } => unreachable!("the driver takes it apart"),
        };
        self.judge_handlers();
        answer
    }

    fn report(&self, answer: Value, whole: bool) -> Report {
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
        let more = |job: &Job| More {
            phase: self.phase(job).map(|p| p.to_string()),
            children: jobs.iter().filter(|c| c.parents.contains(&job.name)).map(|c| c.name).collect(),
            failures: job.failures.iter().map(|failure| self.failure(failure)).collect(),
        };
        let seen = jobs.iter().map(|job| Seen { data: self.snapshot(job), more: whole.then(|| more(job)) });
        let ready = |queue: &str| jobs.iter().filter(|j| j.queue == queue && j.seq.is_some()).count() as i64;
        let queues = (0..2).map(queue_name).map(|q| (q.clone(), ready(&q), self.paused.contains(&q)));
        let dead = jobs.iter().rev().filter(|j| j.state == State::Failed).map(|j| j.name);
        Report {
            answer,
            events,
            stats,
            queues: queues.filter(|(_, ready, paused)| *ready > 0 || *paused).collect(),
            limits: self.limits.iter().map(|(task, rule)| self.limit_view(task, rule)).collect(),
            dead: dead.collect(),
            jobs: seen.collect(),
        }
    }

    fn snapshot(&self, job: &Job) -> Value {
        let age = |at: i64| json!(self.units_until(at));
        json!({
            "id": job.name, "task": job.task, "queue": job.queue, "state": job.state, "priority": job.priority,
            "args": [], "notes": job.notes, "attempt": job.attempt, "attempts": job.attempts,
            "retries": job.retries, "parents": job.parents, "lax": job.when == When::Ended, "key": job.key,
            "schedule": job.schedule, "worker": job.worker.map(super::fixture::worker_of),
            "result": job.result.as_ref().map(|r| serde_json::from_str::<Value>(r).unwrap()),
            "error": job.error, "progress": job.percent.map(|p| json!({"percent": f64::from(p)})),
            "origin": job.origin, "created": age(job.created), "delayed": age(job.delayed),
            "expires": job.expires.map(age), "started": job.started.map(age),
            "finished": job.finished.map(age), "retried": job.retried.map(age),
        })
    }

    fn failure(&self, failure: &Failure) -> Value {
        json!({
            "attempt": failure.attempt, "at": self.units_until(failure.at), "error": failure.error,
            "worker": failure.worker.map(super::fixture::worker_of), "backtrace": null,
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
        if job.when == When::Failure {
            return i64::from(job.held);
        }
        let lax = job.when == When::Ended;
        job.parents.iter().filter(|p| rules::is_edge_open(self.state(**p), lax)).count() as i64
    }

    fn phase(&self, job: &Job) -> Option<Phase> {
        // what is ready stays so when the clock is put back
        let delayed = if job.staged { i64::MIN } else { job.delayed };
        rules::phase(job.state, self.open_edges(job), delayed, self.now)
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
                    Some((self.drawn, self.steps))
                }
                (true, seq) => seq,
                (false, _) => None,
            };
            self.job_mut(name).seq = seq;
        }
    }

    /// A job that exists goes into a state, and what hangs on it follows.
    fn go(&mut self, name: usize, state: State) {
        let job = self.job_mut(name);
        let again = job.state.is_ended() && !state.is_ended();
        job.state = state;
        self.moved.push((name, again));
        self.settle();
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
        pick(number, self.jobs.len())
    }

    /// A job that a number means, if it exists.
    fn find(&self, number: usize) -> Option<&Job> {
        self.jobs[self.pick(number)?].as_ref()
    }

    fn annotate(
        &mut self,
        job: usize,
        run: Option<usize>,
        notes: &[(u8, Option<u8>)],
        percent: Option<u8>,
    ) -> Value {
        // a worker speaks about the job of its run
        let run = run.and_then(|run| pick(run, self.runs.len()));
        let name = run.map_or_else(|| self.pick(job), |run| Some(self.runs[run]));
        let Some(found) = name.and_then(|name| self.jobs[name].as_ref()) else { return json!("not_found") };
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
        self.call_off(name);
        Value::Null
    }

    fn call_off(&mut self, name: usize) {
        let now = self.now;
        let job = self.job_mut(name);
        job.finished = Some(now);
        job.result = None;
        self.go(name, State::Cancelled);
        self.let_key_go(name);
        self.event("task.cancelled", name, None);
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
        let holder = found.key.as_deref().filter(|_| found.state.is_ended());
        let holder = holder.and_then(|key| self.holder(&found.task, key));
        if rules::may_retry(1, found.state, holder.is_some_and(|holder| holder != name)).is_err() {
            return json!("conflict");
        }
        let Ok(attempts) = rules::attempts_after_retry(found.attempt, found.attempts, attempts) else {
            return json!("invalid");
        };
        if found.state.is_ended() && holder.is_none() {
            self.take_key(name, None);
        }
        let now = self.now;
        let job = self.job_mut(name);
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
        self.go(name, State::Inactive);
        self.event("task.retry", name, None);
        Value::Null
    }

    fn amend(
        &mut self,
        job: usize,
        delay: Option<u64>,
        priority: i32,
        queue: Option<u8>,
        notes: &[(u8, Option<u8>)],
    ) -> Value {
        let Some(found) = self.find(job) else { return json!("not_found") };
        let name = found.name;
        if may_amend(1, found.state).is_err() {
            return json!("conflict");
        }
        let now = self.now;
        let job = self.job_mut(name);
        if let Some(delay) = delay {
            job.delayed = now + ticks(delay);
            job.staged = delay == 0;
        }
        job.priority = priority;
        job.queue = queue.map_or_else(|| job.queue.clone(), queue_name);
        rules::merge_notes(&mut job.notes, &note_map(notes));
        // it queues up anew
        job.seq = None;
        self.settle();
        self.event("task.changed", name, None);
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
        self.let_key_go(name);
        self.jobs[name] = None;
        self.moved.push((name, false));
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
        backoff: Some(1),
        parents: vec![],
        after: vec![],
        when: When::Success,
        key: (schedule == 1).then_some((0, Unique::Alive)),
        origin: None,
        part: None,
    }
}

/// Notes as an annotation brings them.
pub(crate) fn note_map(notes: &[(u8, Option<u8>)]) -> Map<String, Value> {
    notes.iter().map(|(name, value)| (format!("note {name}"), json!(value))).collect()
}

fn ticks(units: u64) -> i64 {
    units as i64 * TICKS
}
