//! Random sequences: every store does what the plain model does, and so no two stores differ.
//!
//! The seed of a run is told when it fails; `MINIUM_TEST_SEED` (64 hex digits) runs it again.

use super::fixture::*;
use super::model::{Model, note_map, scheduled};
use super::sequence::*;
use minium_protocol::{JobOptions, JobView, Progress, State};
use minium_queue::{
    Annotation, Backend, Claim, Ending, Extension, Leased, Outcome, Pause, QueueError, RetryOptions,
    UpkeepRules, Verdict,
};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use serde_json::{Value, json};
use std::time::Duration;

/// A store that is told steps, and what is needed to tell its answers in their terms.
struct Subject {
    fixture: Fixture,
    jobs: Vec<i64>,
    runs: Vec<Leased>,
    profile: Profile,
}

fn units(n: u64) -> Duration {
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

fn answered(answer: Result<(), QueueError>) -> Value {
    answer.map_or_else(|e| refusal(&e), |()| Value::Null)
}

impl Subject {
    fn new(fixture: Fixture, profile: Profile) -> Subject {
        Subject { fixture, jobs: Vec::new(), runs: Vec::new(), profile }
    }

    /// Forgets all jobs, in the database as well.
    async fn clear(&mut self) {
        let Backend::Postgres(_) = &self.fixture.backend else { panic!("SQLite begins with a new store") };
        let tables = "minium.job, minium.edge, minium.job_key, minium.renewal, minium.schedule, minium.entry, minium.tally";
        self.fixture.client().await.batch_execute(&format!("truncate {tables}")).await.unwrap();
        (self.jobs, self.runs) = (Vec::new(), Vec::new());
    }

    /// The id that a number means; one that nobody has while there are no jobs.
    fn id(&self, number: usize) -> i64 {
        if self.jobs.is_empty() { i64::MAX } else { self.jobs[number % self.jobs.len()] }
    }

    fn name(&self, id: i64) -> usize {
        self.jobs.iter().position(|known| *known == id).unwrap_or_else(|| panic!("job {id} is known"))
    }

    async fn step(&mut self, step: &Step) -> Report {
        let store = self.fixture.shared();
        let answer = match step {
            Step::Enqueue(drafts) => {
                let requests: Vec<_> = drafts.iter().map(|draft| self.request(draft)).collect();
                let enqueued = store.enqueue(&requests).await.unwrap();
                self.jobs.extend(enqueued.iter().filter(|e| !e.existing).map(|e| e.id));
                enqueued.iter().map(|e| json!([self.name(e.id), e.existing])).collect()
            }
            Step::Exchange { words, claim } => self.exchange(words, claim).await,
            Step::Extend { runs, lease } => self.extend(runs, *lease).await,
            Step::Annotate { job, run, notes, percent } => {
                let run = run.filter(|_| !self.runs.is_empty()).map(|run| &self.runs[run % self.runs.len()]);
                let id = run.map_or_else(|| self.id(*job), |run| run.id);
                let progress = percent.map(|p| Progress { percent: f64::from(p), text: None });
                let annotation = Annotation { notes: note_map(notes), progress, ..Annotation::default() };
                answered(store.annotate(id, run.map(|run| run.lease), &annotation).await)
            }
            Step::Cancel(job) => answered(store.cancel(self.id(*job)).await),
            Step::Retry { job, delay, priority, queue, attempts } => {
                let options = RetryOptions {
                    delay: Some(units(*delay)),
                    priority: *priority,
                    queue: queue.map(queue_name),
                    attempts: *attempts,
                    ..RetryOptions::default()
                };
                answered(store.retry(self.id(*job), &options).await)
            }
            Step::Remove(job) => answered(store.remove(self.id(*job)).await),
            Step::Pass(n) => {
                self.fixture.pass(units(*n)).await;
                Value::Null
            }
            Step::Upkeep { keep, batch } => {
                let keep = super::fixture::keep(keep.map(units));
                let rules = UpkeepRules { keep, batch: *batch, ..upkeep_rules() };
                let did = store.upkeep(&rules).await.unwrap();
                json!({"staged": did.staged, "rescued": did.rescued, "expired": did.expired, "removed": did.removed,
                       "due_in": did.due_in.map(|due| rounded(due.as_secs_f64()))})
            }
            Step::Fire { every } => self.fire(every).await,
        };
        self.report(answer).await
    }

    fn request(&self, draft: &Draft) -> minium_protocol::EnqueueRequest {
        let mut request = minium_protocol::EnqueueRequest::new(task_name(draft.task), json("[]"));
        request.options = JobOptions {
            queue: queue_name(draft.queue),
            priority: draft.priority,
            delay: units(draft.delay),
            expire: draft.expire.map(units),
            attempts: draft.attempts,
            backoff: Some(units(draft.backoff)),
            parents: draft.parents.iter().filter(|_| !self.jobs.is_empty()).map(|p| self.id(*p)).collect(),
            lax: draft.lax,
            key: draft.key.map(key_name),
            ..JobOptions::default()
        };
        request
    }

    async fn exchange(&mut self, words: &[Word], asked: &Asked) -> Value {
        let runs = &self.runs;
        let word = |word: &Word| {
            let run = &runs[word.run % runs.len()];
            let text = value_text(word.value);
            let ending = if word.good {
                Ending::Finished(json(&text))
            } else {
                Ending::Failed { error: text, retry: word.retry, pause: Pause::Usual, backtrace: None }
            };
            Outcome { job: run.id, lease: run.lease, ending }
        };
        let outcomes: Vec<_> = words.iter().filter(|_| !runs.is_empty()).map(word).collect();
        let claim = Claim {
            worker: worker(),
            queues: asked.queues.iter().map(|q| queue_name(*q)).collect(),
            tasks: asked.tasks.as_ref().map(|tasks| tasks.iter().map(|t| task_name(*t)).collect()),
            limit: asked.limit,
            lease: units(asked.lease),
            min_priority: asked.least,
            aged: None,
            caps: std::collections::BTreeMap::new(),
        };
        let (outcomes, mut verdicts) = self.hand_in_what_has_no_order(outcomes).await;
        let mut exchanged = self.fixture.exchange(&outcomes, claim).await;
        verdicts.extend(exchanged.verdicts);
        // where the order of claims is left open, they are told in the order of their ids
        if self.profile == Profile::Together {
            exchanged.jobs.sort_by_key(|job| job.id);
        }
        let claimed: Vec<_> =
            exchanged.jobs.iter().map(|job| json!([self.name(job.id), job.attempt])).collect();
        self.runs.extend(exchanged.jobs);
        json!({"verdicts": verdicts, "jobs": claimed})
    }

    /// Whether a late word, or a second word on one job, is judged before or after the claims of its exchange is not
    /// promised, nor whether these take what it makes ready: where stores are compared, such words go ahead.
    async fn hand_in_what_has_no_order(&self, outcomes: Vec<Outcome>) -> (Vec<Outcome>, Vec<Verdict>) {
        if self.profile == Profile::Everything {
            return (outcomes, Vec::new());
        }
        let (mut timely, mut others) = (Vec::<Outcome>::new(), Vec::new());
        for outcome in outcomes {
            let newest = self.runs.iter().rev().find(|run| run.id == outcome.job).map(|run| run.lease);
            let view = self.fixture.store().get(outcome.job).await.unwrap();
            let alone =
                |view: JobView| view.children.is_empty() && view.job().unwrap().state == State::Active;
            let runs = view.is_some_and(alone);
            let first = timely.iter().all(|other| other.job != outcome.job);
            if runs && first && newest == Some(outcome.lease) { &mut timely } else { &mut others }
                .push(outcome);
        }
        let verdicts = self.fixture.hand_in(&others).await;
        (timely, verdicts)
    }

    async fn extend(&self, runs: &[usize], lease: u64) -> Value {
        if self.runs.is_empty() {
            return json!([]);
        }
        let run = |run: &usize| &self.runs[run % self.runs.len()];
        let leases: Vec<_> = runs.iter().map(run).map(|run| (run.id, run.lease)).collect();
        let now = jiff::Timestamp::now();
        let answers = self.fixture.store().extend(&leases, units(lease)).await.unwrap();
        let told = answers.iter().map(|answer| match answer {
            Extension::Until(until) => json!(rounded(until.duration_since(now).as_secs_f64())),
            Extension::Cancelled => json!("cancelled"),
            Extension::Lost => json!("lost"),
        });
        told.collect()
    }

    async fn fire(&mut self, every: &[(u8, u64)]) -> Value {
        let schedules: Vec<_> = every
            .iter()
            .map(|(schedule, units)| {
                let request = self.request(&scheduled(*schedule));
                super::fixture::every(&schedule_name(*schedule), request, units * UNIT_SECONDS)
            })
            .collect();
        self.fixture.store().put_configured_schedules(&schedules).await.unwrap();
        let next = self.fixture.store().fire_schedules().await.unwrap();
        json!(next.map(|next| rounded(next.as_secs_f64())))
    }

    async fn report(&mut self, answer: Value) -> Report {
        let entries = self.fixture.entries().await;
        for entry in entries.iter().filter(|e| e.kind == "task.enqueue") {
            // a schedule's jobs are made known by their events
            if !self.jobs.contains(&entry.id()) {
                self.jobs.push(entry.id());
            }
        }
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
        let mut jobs = Vec::new();
        for id in &self.jobs {
            if let Some(view) = self.fixture.store().get(*id).await.unwrap() {
                jobs.push(Seen {
                    data: self.told(view.snapshot.get()),
                    phase: view.phase.map(|phase| phase.to_string()),
                    children: view.children.iter().map(|child| self.name(*child)).collect(),
                });
            }
        }
        let s = self.fixture.store().stats().await.unwrap();
        let stats = [s.inactive, s.delayed, s.blocked, s.active, s.finished, s.failed, s.cancelled];
        Report { answer, events, jobs, stats }
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
        job["id"] = json!(self.name(job["id"].as_i64().unwrap()));
        let parents =
            job["parents"].as_array().unwrap().iter().map(|id| json!(self.name(id.as_i64().unwrap())));
        job["parents"] = parents.collect();
        job
    }

    fn told_late(&self, late: &str) -> Value {
        let mut late: Value = serde_json::from_str(late).unwrap();
        let run = self.runs.iter().position(|run| json!(run.lease) == late["lease"]);
        late["lease"] = json!(run.expect("the run is known"));
        late
    }
}

/// Runs random sequences, and tells the seed when one fails.
fn check(cases: u32, profile: Profile, length: usize, case: impl Fn(Vec<Step>) -> Result<(), TestCaseError>) {
    let seed: [u8; 32] = match std::env::var("MINIUM_TEST_SEED") {
        Ok(hex) => {
            let bytes: Vec<u8> =
                (0..32).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect();
            bytes.try_into().unwrap()
        }
        Err(_) => std::array::from_fn(|_| fastrand::u8(..)),
    };
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 400, ..Config::default() };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    match TestRunner::new_with_rng(config, rng).run(&steps(profile, length), case) {
        Ok(()) => {}
        Err(TestError::Fail(reason, steps)) => {
            let seed: String = seed.iter().map(|byte| format!("{byte:02x}")).collect();
            panic!("MINIUM_TEST_SEED={seed}\n{reason}\nthe shortest sequence that fails:\n{steps:#?}");
        }
        Err(TestError::Abort(reason)) => panic!("{reason}"),
    }
}

/// Says where two reports differ, in few words.
fn same(what: &str, step: &Step, expected: &Report, got: &Report) -> Result<(), TestCaseError> {
    if expected == got {
        return Ok(());
    }
    let mut words = format!("{what} differs after {step:?}\n");
    let mut part = |name: &str, expected: String, got: String| {
        if expected != got {
            words.push_str(&format!("{name}:\n  expected {expected}\n  got      {got}\n"));
        }
    };
    part("answer", expected.answer.to_string(), got.answer.to_string());
    part("figures", format!("{:?}", expected.stats), format!("{:?}", got.stats));
    for i in 0..expected.events.len().max(got.events.len()) {
        part("event", format!("{:?}", expected.events.get(i)), format!("{:?}", got.events.get(i)));
    }
    for i in 0..expected.jobs.len().max(got.jobs.len()) {
        part("job", format!("{:?}", expected.jobs.get(i)), format!("{:?}", got.jobs.get(i)));
    }
    Err(TestCaseError::fail(words))
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

#[test]
fn sqlite_does_what_the_model_does() {
    let runtime = runtime();
    check(60, Profile::Everything, 40, |steps| {
        runtime.block_on(async {
            let (mut model, mut store) =
                (Model::default(), Subject::new(Fixture::sqlite_memory().await, Profile::Everything));
            for step in &steps {
                same("SQLite", step, &model.step(step), &store.step(step).await)?;
            }
            Ok(())
        })
    });
}

/// The same steps on both databases look alike after each of them.
fn compare(cases: u32, profile: Profile) {
    let runtime = runtime();
    let postgres = runtime.block_on(async { Subject::new(Fixture::postgres().await, profile) });
    let postgres = std::cell::RefCell::new(postgres);
    check(cases, profile, 30, |steps| {
        let mut postgres = postgres.borrow_mut();
        runtime.block_on(async {
            postgres.clear().await;
            let mut sqlite = Subject::new(Fixture::sqlite_memory().await, profile);
            for step in &steps {
                same("PostgreSQL", step, &sqlite.step(step).await, &postgres.step(step).await)?;
            }
            Ok(())
        })
    });
    // its database is dropped within the runtime
    runtime.block_on(async { drop(postgres) });
}

#[test]
fn the_two_stores_never_differ() {
    compare(30, Profile::Together);
}

#[test]
fn the_two_stores_claim_in_the_same_order() {
    compare(20, Profile::Ordered);
}
