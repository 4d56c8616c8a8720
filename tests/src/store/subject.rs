//! A store that is told steps, and what is needed to tell its answers in their terms.

use super::crash;
use super::fixture::*;
use super::model::{ending, note_map, puller_id, scheduled};
use super::sequence::*;
use crate::support::wait;
use minium_protocol::{JobOptions, JobView, LeaseToken, Progress, State, Unique};
use minium_queue::{
    Amendment, Annotation, Backend, Claim, Extension, JobFilter, Limit, Outcome, Pull, QueueError, Rate,
    RetryOptions, UpkeepRules, Verdict,
};
use serde_json::{Value, json};
use std::time::Duration;

pub(crate) struct Subject {
    pub(super) fixture: Fixture,
    jobs: Vec<i64>,
    pub(super) runs: Vec<(i64, LeaseToken)>,
    profile: Profile,
    /// There has been a limit in this sequence.
    limited: bool,
}

pub(super) fn units(n: u64) -> Duration {
    seconds(n * UNIT_SECONDS)
}

/// A span in units, as near as a test's own duration lets it be told.
fn rounded(seconds: f64) -> i64 {
    (seconds / UNIT_SECONDS as f64).round() as i64
}

fn refusal(error: &QueueError) -> Value {
    json!(match error {
        QueueError::NotFound(_) => "not_found",
        QueueError::Conflict { .. } => "conflict",
        QueueError::LeaseLost(_) => "lease_lost",
        QueueError::Invalid(_) => "invalid",
        other => panic!("{other:?}"),
    })
}

/// A refusal is an answer; a database that is gone is none.
fn answered<T>(answer: Result<T, QueueError>, told: impl FnOnce(T) -> Value) -> Result<Value, QueueError> {
    match answer {
        Ok(answer) => Ok(told(answer)),
        Err(
            e @ (QueueError::NotFound(_)
            | QueueError::Conflict { .. }
            | QueueError::LeaseLost(_)
            | QueueError::Invalid(_)),
        ) => Ok(refusal(&e)),
        Err(e) => Err(e),
    }
}

impl Subject {
    pub(super) fn new(fixture: Fixture, profile: Profile) -> Subject {
        Subject { fixture, jobs: Vec::new(), runs: Vec::new(), profile, limited: false }
    }

    /// Forgets all jobs, in the database as well.
    pub(super) async fn clear(&mut self) {
        let Backend::Postgres(_) = &self.fixture.backend else { panic!("SQLite begins with a new store") };
        let tables = "minium.job, minium.edge, minium.job_key, minium.renewal, minium.schedule, minium.entry, minium.tally, \
                      minium.limit_rule, minium.running, minium.failure, minium.paused_queue, minium.hour, minium.unsettled";
        self.fixture.client().await.batch_execute(&format!("truncate {tables}")).await.unwrap();
        (self.jobs, self.runs, self.limited) = (Vec::new(), Vec::new(), false);
    }

    /// The id that a number means; one that nobody has while there are no jobs.
    fn id(&self, number: usize) -> i64 {
        pick(number, self.jobs.len()).map_or(i64::MAX, |place| self.jobs[place])
    }

    fn run(&self, number: usize) -> Option<(i64, LeaseToken)> {
        pick(number, self.runs.len()).map(|place| self.runs[place])
    }

    pub(super) fn name(&self, id: i64) -> usize {
        self.jobs.iter().position(|known| *known == id).unwrap_or_else(|| panic!("job {id} is known"))
    }

    /// Does a step and tells what is to be seen of it.
    pub(super) async fn step(&mut self, step: &Step, whole: bool) -> Report {
        let answer = self.answer(step).await.unwrap_or_else(|e| panic!("{step:?}: {e:?}"));
        crash::settle_what_is_left(&self.fixture).await;
        self.report(answer, whole).await
    }

    /// Does a step. An error is a database that went away under it.
    pub(super) async fn answer(&mut self, step: &Step) -> Result<Value, QueueError> {
        let store = self.fixture.shared();
        match step {
            Step::Enqueue(drafts) => self.enqueue(drafts).await,
            Step::Exchange { words, claim } => self.exchange(words, claim).await,
            Step::Pull(pullers) => self.pull(pullers).await,
            Step::Release(runs) => {
                let leases: Vec<_> = runs.iter().filter_map(|run| self.run(*run)).collect();
                answered(store.release(&leases).await, |n| json!(n))
            }
            Step::Postpone { run, pause } => match self.run(*run) {
                Some((job, lease)) => {
                    answered(store.postpone(job, lease, units(*pause)).await, |held| json!(held))
                }
                None => Ok(Value::Null),
            },
            Step::Extend { runs, lease } => self.extend(runs, *lease).await,
            Step::Annotate { job, run, notes, percent } => {
                let run = run.and_then(|run| self.run(run));
                let id = run.map_or_else(|| self.id(*job), |(id, _)| id);
                let progress = percent.map(|p| Progress { percent: f64::from(p), text: None });
                let annotation = Annotation { notes: note_map(notes), progress, ..Annotation::default() };
                answered(store.annotate(id, run.map(|(_, lease)| lease), &annotation).await, |()| Value::Null)
            }
            Step::Cancel(job) => answered(store.cancel(self.id(*job)).await, |()| Value::Null),
            Step::Cascade(job) => answered(store.cancel_cascade(self.id(*job)).await, |n| json!(n)),
            Step::Retry { job, delay, priority, queue, attempts } => {
                let options = RetryOptions {
                    delay: Some(units(*delay)),
                    priority: *priority,
                    queue: queue.map(queue_name),
                    attempts: *attempts,
                    ..RetryOptions::default()
                };
                answered(store.retry(self.id(*job), &options).await, |()| Value::Null)
            }
            Step::Amend { job, delay, priority, queue, notes } => {
                let amendment = Amendment {
                    delay: delay.map(units),
                    priority: Some(*priority),
                    queue: queue.map(queue_name),
                    notes: note_map(notes),
                };
                answered(store.amend(self.id(*job), &amendment).await, |()| Value::Null)
            }
            Step::Remove(job) => answered(store.remove(self.id(*job)).await, |()| Value::Null),
            Step::Limit(bounds) => {
                self.limited |= !bounds.is_empty();
                let limits: Vec<_> = bounds.iter().map(limit).collect();
                answered(store.put_limits(&limits).await, |()| Value::Null)
            }
            Step::Pause(queue) => answered(store.pause_queue(&queue_name(*queue)).await, |was| json!(was)),
            Step::Resume(queue) => answered(store.resume_queue(&queue_name(*queue)).await, |was| json!(was)),
            Step::Pass(n) => {
                match units(n.unsigned_abs()) {
                    span if *n < 0 => self.fixture.pass_back(span).await,
                    span => self.fixture.pass(span).await,
                }
                Ok(Value::Null)
            }
            Step::Upkeep { keep, batch } => {
                let keep = super::fixture::keep(keep.map(units));
                let rules = UpkeepRules { keep, batch: *batch, ..upkeep_rules() };
                let did = store.upkeep(&rules).await?;
                Ok(
                    json!({"staged": did.staged, "rescued": did.rescued, "expired": did.expired, "removed": did.removed,
                          "due_in": did.due_in.map(|due| rounded(due.as_secs_f64()))}),
                )
            }
            Step::Fire { every } => self.fire(every).await,
            Step::Crash { .. } => unreachable!("the driver takes it apart"),
        }
    }

    async fn enqueue(&mut self, drafts: &[Draft]) -> Result<Value, QueueError> {
        let mut requests: Vec<_> = drafts.iter().map(|draft| self.request(draft)).collect();
        for (place, draft) in drafts.iter().enumerate() {
            let options = &mut requests[place].options;
            options.after = places(&draft.after, place, drafts.len());
            options.on_failure =
                draft.when == When::Failure && !(options.parents.is_empty() && options.after.is_empty());
        }
        let enqueued = match self.fixture.store().enqueue(&requests).await {
            Ok(enqueued) => enqueued,
            Err(e) => return answered(Err(e), |()| Value::Null),
        };
        self.meet(enqueued.iter().filter(|e| !e.existing).map(|e| e.id).collect());
        Ok(enqueued.iter().map(|e| json!([self.name(e.id), e.existing])).collect())
    }

    /// Jobs that are new get their numbers in the order of their ids.
    fn meet(&mut self, mut ids: Vec<i64>) {
        ids.sort_unstable();
        ids.retain(|id| !self.jobs.contains(id));
        ids.dedup();
        self.jobs.extend(ids);
    }

    fn request(&self, draft: &Draft) -> minium_protocol::EnqueueRequest {
        let mut request = minium_protocol::EnqueueRequest::new(task_name(draft.task), json("[]"));
        let of = |number: &usize| (!self.jobs.is_empty()).then(|| self.id(*number));
        request.options = JobOptions {
            queue: queue_name(draft.queue),
            priority: draft.priority,
            delay: units(draft.delay),
            expire: draft.expire.map(units),
            attempts: draft.attempts,
            backoff: draft.backoff.map(units),
            parents: draft.parents.iter().filter_map(of).collect(),
            lax: draft.when == When::Ended,
            key: draft.key.map(|(key, _)| key_name(key)),
            unique: match draft.key {
                None | Some((_, Hold::Alive)) => Unique::Alive,
                Some((_, Hold::Waiting)) => Unique::Waiting,
                Some((_, Hold::For(n))) => Unique::For(units(n)),
            },
            origin: draft.origin.as_ref().and_then(of),
            partition: draft.part.map(part_name),
            ..JobOptions::default()
        };
        request
    }

    async fn exchange(&mut self, words: &[Word], asked: &Asked) -> Result<Value, QueueError> {
        let word = |word: &Word| {
            let (job, lease) = self.run(word.run)?;
            Some(Outcome { job, lease, ending: ending(word, UNIT_SECONDS) })
        };
        let outcomes: Vec<_> = words.iter().filter_map(word).collect();
        let claim = Claim {
            worker: worker(),
            queues: asked.queues.iter().map(|q| queue_name(*q)).collect(),
            tasks: asked.tasks.as_ref().map(|tasks| tasks.iter().map(|t| task_name(*t)).collect()),
            limit: asked.limit,
            lease: units(asked.lease),
            min_priority: asked.least,
            aged: asked.aged.map(units),
            caps: asked.caps.iter().map(|(task, cap)| (task_name(*task), *cap)).collect(),
        };
        let (outcomes, mut verdicts) = self.hand_in_what_has_no_order(outcomes).await?;
        let exchanged = self.fixture.store().exchange(&outcomes, &claim).await?;
        verdicts.extend(exchanged.verdicts);
        let claimed: Vec<_> =
            exchanged.jobs.iter().map(|job| json!([self.name(job.id), job.attempt])).collect();
        self.runs.extend(exchanged.jobs.iter().map(|job| (job.id, job.lease)));
        Ok(json!({"verdicts": verdicts, "jobs": claimed}))
    }

    /// Whether a late word, or a second word on one job, is judged before or after the claims of its exchange is not
    /// promised, nor whether these take what it makes ready, or what it makes room for: where that may differ from store to
    /// store, such words go ahead.
    async fn hand_in_what_has_no_order(
        &self,
        outcomes: Vec<Outcome>,
    ) -> Result<(Vec<Outcome>, Vec<Verdict>), QueueError> {
        if self.profile == Profile::Exact {
            return Ok((outcomes, Vec::new()));
        }
        let (mut timely, mut others) = (Vec::<Outcome>::new(), Vec::new());
        for outcome in outcomes {
            let newest = self.runs.iter().rev().find(|(id, _)| *id == outcome.job).map(|(_, lease)| *lease);
            let view = self.fixture.store().get(outcome.job).await?;
            let alone =
                |view: JobView| view.children.is_empty() && view.job().unwrap().state == State::Active;
            let runs = view.is_some_and(alone);
            let first = timely.iter().all(|other| other.job != outcome.job);
            if runs && first && newest == Some(outcome.lease) && !self.limited {
                timely.push(outcome);
            } else {
                others.push(outcome);
            }
        }
        let verdicts = self.fixture.store().exchange(&others, &claim(0)).await?.verdicts;
        Ok((timely, verdicts))
    }

    async fn pull(&mut self, pullers: &[Puller]) -> Result<Value, QueueError> {
        let pull = |(i, puller): (usize, &Puller)| Pull {
            queue: queue_name(puller.queue),
            tasks: puller.tasks.iter().map(|t| task_name(*t)).collect(),
            lease: units(puller.lease),
            workers: (0..usize::from(puller.workers)).map(|place| worker_of(puller_id(i, place))).collect(),
        };
        let pulls: Vec<_> = pullers.iter().enumerate().map(pull).collect();
        let mut pulled = self.fixture.store().pull(&pulls).await?;
        pulled.sort_by_key(|p| (p.pull, p.place));
        self.runs.extend(pulled.iter().map(|p| (p.job.id, p.job.lease)));
        let told = |p: &minium_queue::Pulled| json!([p.pull, p.place, self.name(p.job.id), p.job.attempt]);
        Ok(json!({ "pulled": pulled.iter().map(told).collect::<Vec<_>>() }))
    }

    async fn extend(&self, runs: &[usize], lease: u64) -> Result<Value, QueueError> {
        let leases: Vec<_> = runs.iter().filter_map(|run| self.run(*run)).collect();
        let now = jiff::Timestamp::now();
        let told = |answer: &Extension| match answer {
            Extension::Until(until) => json!(rounded(until.duration_since(now).as_secs_f64())),
            Extension::Cancelled => json!("cancelled"),
            Extension::Lost => json!("lost"),
            Extension::Later => json!("later"),
        };
        // a session that was ended a moment ago may still hold a row
        let store = self.fixture.store();
        let asked = wait::until("no job to be held", async || {
            let asked = store.extend(&leases, units(lease)).await;
            let later = asked.as_ref().is_ok_and(|answers| answers.contains(&Extension::Later));
            (!later).then_some(asked)
        });
        answered(asked.await, |answers| answers.iter().map(told).collect())
    }

    async fn fire(&mut self, every: &[(u8, u64)]) -> Result<Value, QueueError> {
        let schedules: Vec<_> = every
            .iter()
            .map(|(schedule, units)| {
                let request = self.request(&scheduled(*schedule));
                super::fixture::every(&schedule_name(*schedule), request, units * UNIT_SECONDS)
            })
            .collect();
        self.fixture.store().put_configured_schedules(&schedules).await?;
        let next = self.fixture.store().fire_schedules().await?;
        Ok(json!(next.map(|next| rounded(next.as_secs_f64()))))
    }

    pub(super) async fn report(&mut self, answer: Value, whole: bool) -> Report {
        let store = self.fixture.shared();
        let entries = self.fixture.entries().await;
        // those of schedules, and of calls whose answer never came, are made known by their events
        self.meet(entries.iter().filter(|e| e.kind == "task.enqueue").map(Entry::id).collect());
        let mut events: Vec<_> = entries
            .iter()
            .map(|entry| Event {
                job: self.name(entry.id()),
                kind: entry.kind.clone(),
                data: self.told(&entry.data),
                late: entry.late.as_deref().map(|late| self.told_late(late)),
            })
            .collect();
        events.sort_by_key(|event| event.job);
        let all = JobFilter { limit: 1_000, ..JobFilter::default() };
        let mut jobs = Vec::new();
        for snapshot in store.list(&all).await.unwrap().jobs.iter().rev() {
            let data = self.told(snapshot.get());
            let more = if whole { Some(self.more(&data).await) } else { None };
            jobs.push(Seen { data, more });
        }
        let s = store.stats().await.unwrap();
        let stats = [s.inactive, s.delayed, s.blocked, s.active, s.finished, s.failed, s.cancelled];
        let queues = store.queues().await.unwrap();
        let queues = queues.into_iter().map(|q| (q.name, q.ready, q.paused.is_some())).collect();
        let limits = store.limits().await.unwrap();
        let limits = limits.iter().map(told_limit).collect();
        let failed = JobFilter { states: vec![State::Failed], ..JobFilter::default() };
        let dead = store.list(&failed).await.unwrap().jobs;
        let dead = dead.iter().map(|job| self.told(job.get())["id"].as_u64().unwrap() as usize).collect();
        Report { answer, events, jobs, stats, queues, limits, dead }
    }

    async fn more(&self, data: &Value) -> More {
        let id = self.jobs[data["id"].as_u64().unwrap() as usize];
        let view = self.fixture.view(id).await;
        assert_eq!(self.told(view.snapshot.get()), *data, "a list shows what one job does");
        // there can be none
        let never = data["attempt"] == 0 && data["error"].is_null();
        More {
            phase: view.phase.map(|p| p.to_string()),
            children: view.children.iter().map(|child| self.name(*child)).collect(),
            failures: if never { Vec::new() } else { self.failures(id).await },
        }
    }

    async fn failures(&self, id: i64) -> Vec<Value> {
        let now = jiff::Timestamp::now();
        let failures = self.fixture.store().failures(id).await.unwrap();
        let told = |failure: &minium_queue::AttemptFailure| {
            let mut told = serde_json::to_value(failure).unwrap();
            told["at"] = json!(rounded(failure.at.duration_since(now).as_secs_f64()));
            told
        };
        failures.iter().map(told).collect()
    }

    /// A snapshot in the terms of a report.
    fn told(&self, snapshot: &str) -> Value {
        let mut job: Value = serde_json::from_str(snapshot).unwrap();
        let now = jiff::Timestamp::now();
        for name in ["created", "delayed", "expires", "started", "finished", "retried"] {
            if let Some(time) = job[name].as_str() {
                let time: jiff::Timestamp = time.parse().unwrap();
                job[name] = json!(rounded(time.duration_since(now).as_secs_f64()));
            }
        }
        let named = |id: &Value| id.as_i64().map(|id| self.name(id));
        job["id"] = json!(named(&job["id"]));
        job["origin"] = json!(named(&job["origin"]));
        job["parents"] = job["parents"].as_array().unwrap().iter().map(|id| json!(named(id))).collect();
        job
    }

    fn told_late(&self, late: &str) -> Value {
        let mut late: Value = serde_json::from_str(late).unwrap();
        let run = self.runs.iter().position(|(_, lease)| json!(lease) == late["lease"]);
        late["lease"] = json!(run.expect("the run is known"));
        late
    }
}

fn limit(bound: &Bound) -> Limit {
    Limit {
        task: bound.task.clone(),
        running: bound.running,
        per_partition: bound.per_part,
        rate: bound.rate.map(|(count, per)| Rate { count, per: units(per) }),
    }
}

fn told_limit(view: &minium_queue::LimitView) -> Value {
    let limit = &view.limit;
    let rate = limit.rate.map(|rate| json!({"count": rate.count, "per": rate.per.as_secs()}));
    json!({"task": limit.task, "running": limit.running, "per_partition": limit.per_partition, "rate": rate,
           "active": view.active})
}
