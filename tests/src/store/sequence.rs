//! Random sequences of operations, and what is to be seen of a queue after each of them.
//!
//! A [`Step`] names jobs and runs by number, so that it means the same to every queue. A [`Report`] is what a queue
//! answered and how it stands afterwards, without anything that may differ from one database to the next: ids become
//! numbers, lease tokens become runs, and times are told in units that are far larger than a test takes.

use proptest::prelude::*;
use serde_json::Value;

/// Time passes in pairs of these. Spans are odd numbers of them, so that nothing is ever due at the very moment.
pub(crate) const UNIT_SECONDS: u64 = 500;

/// A lease that no sequence outlasts.
const HOLDS: u64 = 100_001;

/// What a queue is told. Numbers of jobs and runs are taken modulo how many there are.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Enqueue(Vec<Draft>),
    Exchange { words: Vec<Word>, claim: Asked },
    Extend { runs: Vec<usize>, lease: u64 },
    Annotate { job: usize, run: Option<usize>, notes: Vec<(u8, Option<u8>)>, percent: Option<u8> },
    Cancel(usize),
    Retry { job: usize, delay: u64, priority: Option<i32>, queue: Option<u8>, attempts: Option<i32> },
    Remove(usize),
    Pass(u64),
    Upkeep { keep: Option<u64>, batch: u32 },
    Fire { every: Vec<(u8, u64)> },
}

/// A job to be.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    pub(crate) task: u8,
    pub(crate) queue: u8,
    pub(crate) priority: i32,
    pub(crate) delay: u64,
    pub(crate) expire: Option<u64>,
    pub(crate) attempts: i32,
    pub(crate) backoff: u64,
    pub(crate) parents: Vec<usize>,
    pub(crate) lax: bool,
    pub(crate) key: Option<u8>,
}

/// A worker's word about a run.
#[derive(Debug, Clone)]
pub(crate) struct Word {
    pub(crate) run: usize,
    pub(crate) good: bool,
    pub(crate) value: u8,
    pub(crate) retry: bool,
}

/// A claim.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) limit: u32,
    pub(crate) queues: Vec<u8>,
    pub(crate) tasks: Option<Vec<u8>>,
    pub(crate) least: Option<i32>,
    pub(crate) lease: u64,
}

/// What is to be seen after a step.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Report {
    /// What was answered.
    pub(crate) answer: Value,
    /// The events that were written, in the order of their jobs.
    pub(crate) events: Vec<Event>,
    /// Every job that exists.
    pub(crate) jobs: Vec<Seen>,
    /// The figures.
    pub(crate) stats: [i64; 7],
}

/// An event.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Event {
    pub(crate) job: usize,
    pub(crate) kind: String,
    pub(crate) data: Value,
    pub(crate) late: Option<Value>,
}

/// A job as it stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Seen {
    pub(crate) data: Value,
    pub(crate) phase: Option<String>,
    pub(crate) children: Vec<usize>,
}

pub(crate) fn task_name(task: u8) -> String {
    format!("task/{task}")
}

pub(crate) fn queue_name(queue: u8) -> String {
    format!("queue{queue}")
}

pub(crate) fn key_name(key: u8) -> String {
    format!("key {key}")
}

pub(crate) fn schedule_name(schedule: u8) -> String {
    format!("schedule {schedule}")
}

/// The result or the error of a word.
pub(crate) fn value_text(value: u8) -> String {
    format!("[{value},1e99]")
}

/// How much of the queue a sequence may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Everything, in any amount.
    Everything,
    /// Everything, but claims and upkeep take all that there is: nothing depends on an order that is not promised.
    Together,
    /// Only what has a promised order: one queue a claim, one word a call, leases that hold, upkeep one by one.
    Ordered,
}

/// Sequences of up to `length` steps.
pub(crate) fn steps(profile: Profile, length: usize) -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(profile), 1..=length)
}

fn step(profile: Profile) -> impl Strategy<Value = Step> {
    let ordered = profile == Profile::Ordered;
    let job = 0..64usize;
    let odd = (0..4u64).prop_map(|n| 2 * n + 1);
    let batch = match profile {
        Profile::Everything => prop_oneof![Just(1_000u32), 1..4u32].boxed(),
        Profile::Together => Just(1_000).boxed(),
        Profile::Ordered => Just(1).boxed(),
    };
    prop_oneof![
        6 => prop::collection::vec(draft(profile), 1..4).prop_map(Step::Enqueue),
        8 => (prop::collection::vec(word(), 0..=if ordered { 1 } else { 4 }), asked(profile))
            .prop_map(|(words, claim)| Step::Exchange { words, claim }),
        1 => (prop::collection::vec(job.clone(), 1..3), odd.clone())
            .prop_map(move |(runs, lease)| Step::Extend { runs, lease: if ordered { HOLDS } else { lease } }),
        2 => (
            job.clone(),
            prop::option::of(0..64usize),
            prop::collection::vec((0..3u8, prop::option::of(0..9u8)), 0..3),
            prop::option::of(0..=100u8),
        )
            .prop_map(|(job, run, notes, percent)| Step::Annotate { job, run, notes, percent }),
        1 => job.clone().prop_map(Step::Cancel),
        3 => (
            job.clone(),
            prop_oneof![3 => Just(0), 1 => odd.clone()],
            prop::option::weighted(0.3, -1..=1i32),
            prop::option::weighted(0.2, 0..2u8),
            prop::option::weighted(0.2, 1..4i32),
        )
            .prop_map(|(job, delay, priority, queue, attempts)| Step::Retry { job, delay, priority, queue, attempts }),
        1 => job.prop_map(Step::Remove),
        4 => (1..4u64).prop_map(|n| Step::Pass(2 * n)),
        4 => (prop::option::of(odd.clone()), batch)
            .prop_map(move |(keep, batch)| Step::Upkeep { keep: keep.filter(|_| !ordered), batch }),
        1 => prop::collection::btree_map(0..2u8, odd, 1..3)
            .prop_map(|every| Step::Fire { every: every.into_iter().collect() }),
    ]
}

fn draft(profile: Profile) -> impl Strategy<Value = Draft> {
    let odd = (0..3u64).prop_map(|n| 2 * n + 1);
    let expire = match profile {
        Profile::Ordered => Just(None).boxed(),
        Profile::Everything | Profile::Together => prop::option::weighted(0.2, odd.clone()).boxed(),
    };
    // whether an exchange claims what its own failures made ready is not promised
    let backoff = match profile {
        Profile::Everything => prop_oneof![Just(0u64), odd.clone()].boxed(),
        Profile::Together | Profile::Ordered => odd.clone().boxed(),
    };
    (
        (0..2u8, 0..2u8, -1..=1i32),
        prop_oneof![3 => Just(0u64), 1 => odd],
        expire,
        1..4i32,
        backoff,
        prop_oneof![Just(vec![]), prop::collection::vec(0..64usize, 1..4)],
        any::<bool>(),
        prop::option::weighted(0.3, 0..3u8),
    )
        .prop_map(|((task, queue, priority), delay, expire, attempts, backoff, parents, lax, key)| {
            Draft { task, queue, priority, delay, expire, attempts, backoff, parents, lax, key }
        })
}

fn word() -> impl Strategy<Value = Word> {
    (0..64usize, any::<bool>(), 0..2u8, prop::bool::weighted(0.8))
        .prop_map(|(run, good, value, retry)| Word { run, good, value, retry })
}

fn asked(profile: Profile) -> impl Strategy<Value = Asked> {
    let ordered = profile == Profile::Ordered;
    let queues = if ordered {
        (0..2u8).prop_map(|q| vec![q]).boxed()
    } else {
        prop_oneof![Just(vec![0]), Just(vec![1]), Just(vec![0, 1]), Just(vec![1, 0, 1]), Just(vec![])].boxed()
    };
    let lease = if ordered { Just(HOLDS).boxed() } else { (0..3u64).prop_map(|n| 2 * n + 1).boxed() };
    let limit = if profile == Profile::Together {
        prop_oneof![Just(0u32), Just(1_000), Just(1_000)].boxed()
    } else {
        (0..4u32).boxed()
    };
    (
        limit,
        queues,
        prop::option::weighted(0.3, prop::collection::vec(0..3u8, 0..3)),
        prop::option::weighted(0.2, -1..=1i32),
        lease,
    )
        .prop_map(|(limit, queues, tasks, least, lease)| Asked { limit, queues, tasks, least, lease })
}
