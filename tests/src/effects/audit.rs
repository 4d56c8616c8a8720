//! What the books must add up to: a pure function over them, which names what breaks a promise.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// A run: the job and the number of the attempt.
pub(super) type Run = (i64, i32);

/// An event of the journal.
#[derive(Debug, Clone)]
pub(super) struct Event {
    pub(super) job: i64,
    pub(super) kind: String,
    pub(super) data: Value,
    pub(super) late: Option<Value>,
}

impl Event {
    /// The attempt that the snapshot tells of.
    pub(super) fn attempt(&self) -> i32 {
        self.data["attempt"].as_i64().and_then(|n| i32::try_from(n).ok()).expect("a snapshot has its attempt")
    }

    pub(super) fn has_ended(&self) -> bool {
        matches!(self.data["state"].as_str(), Some("finished" | "failed" | "cancelled"))
    }
}

/// All that is known when everything is over.
#[derive(Debug, Clone, Default)]
pub(super) struct Books {
    /// Jobs whose enqueue was answered.
    pub(super) enqueued: Vec<i64>,
    /// The journal, in its order.
    pub(super) events: Vec<Event>,
    /// What commands wrote down when they began.
    pub(super) effects: Vec<Run>,
    /// Outcomes that were on a worker's disk before its end.
    pub(super) brought: BTreeSet<Run>,
}

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Violation {
    /// The job was acknowledged, and has not ended.
    Unended(i64),
    /// The run was given out, and has no outcome.
    Open(Run),
    /// The run has an outcome that it could not have: a second one, or one without having been given out.
    Doubled(Run),
    /// The outcome that counts is another run's.
    Foreign(Run),
    /// The run's outcome was kept on disk, and is not on record.
    Lost(Run),
    /// The same, of a run whose lease had been given away: there is no late result.
    Silent(Run),
    /// A late result has changed the job.
    Changed(Run),
    /// Something was done that was not given out.
    Ghost(Run),
    /// It was done twice.
    Again(Run),
    /// The run ended well, and nothing was done.
    Idle(Run),
}

/// Whose outcome a text is: results and errors say `run:7:2;` for the second run of job 7.
pub(super) fn runs_in(text: &str) -> BTreeSet<Run> {
    let one = |part: &str| {
        let (job, attempt) = part.split_once(';')?.0.split_once(':')?;
        Some((job.parse().ok()?, attempt.parse().ok()?))
    };
    text.split("run:").skip(1).filter_map(one).collect()
}

/// All violations.
pub(super) fn audit(books: &Books) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut accounts: BTreeMap<i64, Account> = BTreeMap::new();
    for event in &books.events {
        accounts.entry(event.job).or_default().enter(event, &mut found);
    }
    for (job, account) in &accounts {
        found.extend(account.open.map(|attempt| Violation::Open((*job, attempt))));
    }
    let has_ended = |job: &i64| accounts.get(job).and_then(|a| a.last.as_ref()).is_some_and(Event::has_ended);
    found.extend(books.enqueued.iter().filter(|job| !has_ended(job)).map(|job| Violation::Unended(*job)));
    let all = |runs: fn(&Account) -> &BTreeSet<Run>| accounts.values().flat_map(runs).copied().collect();
    let (given, on_record, lost, finished): (BTreeSet<Run>, BTreeSet<Run>, BTreeSet<Run>, BTreeSet<Run>) =
        (all(|a| &a.given), all(|a| &a.on_record), all(|a| &a.lost), all(|a| &a.finished));
    for run in books.brought.difference(&on_record) {
        found.push(if lost.contains(run) { Violation::Silent(*run) } else { Violation::Lost(*run) });
    }
    let mut done = BTreeSet::new();
    for run in &books.effects {
        if !given.contains(run) {
            found.push(Violation::Ghost(*run));
        }
        if !done.insert(*run) {
            found.push(Violation::Again(*run));
        }
    }
    found.extend(finished.difference(&done).map(|run| Violation::Idle(*run)));
    found
}

/// What became of one job so far.
#[derive(Debug, Default)]
struct Account {
    /// The attempt that runs.
    open: Option<i32>,
    last: Option<Event>,
    given: BTreeSet<Run>,
    finished: BTreeSet<Run>,
    lost: BTreeSet<Run>,
    /// Runs whose own outcome stands somewhere.
    on_record: BTreeSet<Run>,
}

impl Account {
    fn enter(&mut self, event: &Event, found: &mut Vec<Violation>) {
        let run = (event.job, event.attempt());
        match event.kind.as_str() {
            "task.dequeue" => {
                found.extend(self.open.replace(run.1).map(|attempt| Violation::Open((event.job, attempt))));
                self.given.insert(run);
            }
            "task.finished" | "task.failed" => {
                self.close(run, found);
                if event.kind == "task.finished" {
                    self.finished.insert(run);
                }
                let own = if event.kind == "task.finished" { "result" } else { "error" };
                let told = runs_in(&event.data[own].to_string());
                if told.iter().any(|other| *other != run) {
                    found.push(Violation::Foreign(run));
                }
                self.on_record.extend(told);
            }
            // given back before anybody had begun it: the attempt does not count, and is given out again
            "task.lost" if self.open == Some(run.1 + 1) => self.open = None,
            "task.lost" => {
                self.close(run, found);
                self.lost.insert(run);
            }
            "task.late_result" => {
                if self.last.as_ref().is_none_or(|last| last.data != event.data) {
                    found.push(Violation::Changed(run));
                }
                self.on_record
                    .extend(runs_in(&event.late.as_ref().map(Value::to_string).unwrap_or_default()));
            }
            _ => {}
        }
        self.last = Some(event.clone());
    }

    fn close(&mut self, run: Run, found: &mut Vec<Violation>) {
        if self.open.take() != Some(run.1) {
            found.push(Violation::Doubled(run));
        }
    }
}
