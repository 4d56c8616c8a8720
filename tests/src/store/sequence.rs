//! Random sequences of operations, and what is to be seen of a queue after each of them.
//!
//! A [`Step`] names jobs and runs by number, so that it means the same to every queue. A [`Report`] is what a queue
//! answered and how it stands afterwards, without anything that may differ from one database to the next: ids become
//! numbers, lease tokens become runs, and times are told in units that are far larger than a test takes.

use proptest::prelude::*;
use serde_json::Value;
use std::collections::BTreeMap;

/// Time passes in pairs of these. Spans are odd numbers of them, so that nothing is ever due at the very moment.
pub(crate) const UNIT_SECONDS: u64 = 500;

/// A lease that no sequence outlasts.
const HOLDS: u64 = 100_001;

/// What a queue is told. Numbers of jobs and runs: see [`pick`].
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Enqueue(Vec<Draft>),
    Exchange {
        words: Vec<Word>,
        claim: Asked,
    },
    Pull(Vec<Puller>),
    Release(Vec<usize>),
    Postpone {
        run: usize,
        pause: u64,
    },
    Extend {
        runs: Vec<usize>,
        lease: u64,
    },
    Annotate {
        job: usize,
        run: Option<usize>,
        notes: Vec<(u8, Option<u8>)>,
        percent: Option<u8>,
    },
    Cancel(usize),
    Cascade(usize),
    Retry {
        job: usize,
        delay: u64,
        priority: Option<i32>,
        queue: Option<u8>,
        attempts: Option<i32>,
    },
    /// Not before so long; nothing leaves its time.
    Amend {
        job: usize,
        delay: Option<u64>,
        priority: i32,
        queue: Option<u8>,
        notes: Vec<(u8, Option<u8>)>,
    },
    Remove(usize),
    Limit(Vec<Bound>),
    Pause(u8),
    Resume(u8),
    /// So much time passes; or a clock that went ahead is put back.
    Pass(i64),
    Upkeep {
        keep: Option<u64>,
        batch: u32,
    },
    Fire {
        every: Vec<(u8, u64)>,
    },
    /// The process that does the step dies in the midst of it, so far into it.
    Crash {
        step: Box<Step>,
        at: u32,
    },
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
    pub(crate) backoff: Option<u64>,
    pub(crate) parents: Vec<usize>,
    /// Others of the same call: see [`places`].
    pub(crate) after: Vec<usize>,
    pub(crate) when: When,
    pub(crate) key: Option<(u8, Hold)>,
    pub(crate) origin: Option<usize>,
    pub(crate) part: Option<u8>,
}

/// What a job wants of its parents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    Success,
    Ended,
    Failure,
}

/// How long a key is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hold {
    Alive,
    Waiting,
    For(u64),
}

/// A worker's word about a run.
#[derive(Debug, Clone)]
pub(crate) struct Word {
    pub(crate) run: usize,
    pub(crate) good: bool,
    pub(crate) value: u8,
    pub(crate) retry: bool,
    pub(crate) pause: Rest,
}

/// How long a job waits for its automatic retry. Without either its default is jittered, which no report could tell.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Rest {
    Task(u64),
    Run(u64),
}

/// A claim.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) limit: u32,
    pub(crate) queues: Vec<u8>,
    pub(crate) tasks: Option<Vec<u8>>,
    pub(crate) least: Option<i32>,
    pub(crate) lease: u64,
    pub(crate) aged: Option<u64>,
    /// Only where tasks are named.
    pub(crate) caps: BTreeMap<u8, u32>,
}

/// Pullers of one kind.
#[derive(Debug, Clone)]
pub(crate) struct Puller {
    pub(crate) queue: u8,
    pub(crate) tasks: Vec<u8>,
    pub(crate) workers: u8,
    pub(crate) lease: u64,
}

/// A limit.
#[derive(Debug, Clone)]
pub(crate) struct Bound {
    pub(crate) task: String,
    pub(crate) running: Option<u32>,
    pub(crate) per_part: Option<u32>,
    pub(crate) rate: Option<(u32, u64)>,
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
    /// Queues in which jobs are ready or that are paused: name, how many, whether.
    pub(crate) queues: Vec<(String, i64, bool)>,
    /// Limits, and how many run under each.
    pub(crate) limits: Vec<Value>,
    /// Jobs that have failed for good, the newest first.
    pub(crate) dead: Vec<usize>,
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
    /// What is asked job by job, and so only now and then.
    pub(crate) more: Option<More>,
}

/// What a snapshot does not tell of a job.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct More {
    pub(crate) phase: Option<String>,
    pub(crate) children: Vec<usize>,
    /// Why its runs failed.
    pub(crate) failures: Vec<Value>,
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

pub(crate) fn part_name(part: u8) -> String {
    format!("part {part}")
}

/// Which of so many a number means: the newest are the first.
pub(crate) fn pick(number: usize, count: usize) -> Option<usize> {
    (count > 0).then(|| count - 1 - number % count)
}

/// Which jobs of its call the one at `place` of `count` waits for: mostly earlier ones, now and then whichever, so that some
/// calls lead in a circle.
pub(crate) fn places(after: &[usize], place: usize, count: usize) -> Vec<usize> {
    let one = |number: &usize| match number {
        0..48 => (place > 0).then(|| number % place),
        _ => Some(number % count).filter(|other| *other != place),
    };
    after.iter().filter_map(one).collect()
}

/// How much of the queue a sequence may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Everything, in any amount: a store of one writer does all of it in one order.
    Exact,
    /// Everything, but upkeep takes all that there is, and nothing depends on an order that is not promised.
    Promised,
    /// Only what has a promised order: one queue a claim, one word a call, leases that hold, upkeep one by one, no limits.
    Ordered,
}

/// Sequences of up to `length` steps; of `crashes` steps in a hundred the process dies.
pub(crate) fn steps(profile: Profile, length: usize, crashes: u32) -> impl Strategy<Value = Vec<Step>> {
    let crash = (step(profile).prop_filter("it is done at once", may_crash), (0..13u32), 0..1_000u32)
        .prop_map(|(step, scale, at)| Step::Crash { step: Box::new(step), at: (at << scale) / 1_000 });
    let step = prop_oneof![100 - crashes => step(profile), crashes => crash];
    prop::collection::vec(step, length / 2..=length)
}

/// Is it one operation of a store, that is done wholly or not at all? A claim may come together with words, which is two.
fn may_crash(step: &Step) -> bool {
    match step {
        Step::Exchange { words, claim } => words.is_empty() || claim.limit == 0 && words.len() == 1,
        Step::Cascade(_) | Step::Pass(_) | Step::Upkeep { .. } | Step::Fire { .. } | Step::Crash { .. } => {
            false
        }
        _ => true,
    }
}

fn step(profile: Profile) -> impl Strategy<Value = Step> {
    let early = prop_oneof![
        8 => prop::collection::vec(draft(profile), 1..5).prop_map(Step::Enqueue),
        10 => exchange(profile),
        3 => pull(profile).prop_map(Step::Pull),
        1 => prop::collection::vec(one(), 1..=if profile == Profile::Exact { 3 } else { 1 })
            .prop_map(Step::Release),
        1 => prop::collection::vec(bound(), 0..3).prop_map(move |mut bounds| {
            bounds.sort_by(|a, b| a.task.cmp(&b.task));
            bounds.dedup_by(|a, b| a.task == b.task);
            Step::Limit(if profile == Profile::Ordered { vec![] } else { bounds })
        }),
    ];
    prop_oneof![
        23 => early,
        22 => operation(profile),
        9 => time(profile),
    ]
}

/// What is done to single jobs, runs and queues.
fn operation(profile: Profile) -> impl Strategy<Value = Step> {
    let (job, ordered) = (one(), profile == Profile::Ordered);
    let notes = prop::collection::vec((0..3u8, prop::option::of(0..9u8)), 0..3);
    let amend = (
        job.clone(),
        prop::option::of(prop_oneof![1 => Just(0), 1 => odd()]),
        -1..=1i32,
        prop::option::weighted(0.3, 0..2u8),
        notes.clone(),
    );
    let retry = (
        job.clone(),
        prop_oneof![3 => Just(0), 1 => odd()],
        prop::option::weighted(0.3, -1..=1i32),
        prop::option::weighted(0.2, 0..2u8),
        prop::option::weighted(0.2, 1..4i32),
    );
    prop_oneof![
        2 => (prop::collection::vec(job.clone(), 1..3), odd())
            .prop_map(move |(runs, lease)| Step::Extend { runs, lease: if ordered { HOLDS } else { lease } }),
        2 => (job.clone(), prop_oneof![1 => Just(0), 2 => odd()])
            .prop_map(|(run, pause)| Step::Postpone { run, pause }),
        3 => (job.clone(), prop::option::of(one()), notes, prop::option::of(0..=100u8))
            .prop_map(|(job, run, notes, percent)| Step::Annotate { job, run, notes, percent }),
        3 => job.clone().prop_map(Step::Cancel),
        1 => job.clone().prop_map(move |job| if ordered { Step::Cancel(job) } else { Step::Cascade(job) }),
        6 => retry.prop_map(|(job, delay, priority, queue, attempts)| {
            Step::Retry { job, delay, priority, queue, attempts }
        }),
        3 => amend.prop_map(|(job, delay, priority, queue, notes)| {
            Step::Amend { job, delay, priority, queue, notes }
        }),
        5 => job.prop_map(Step::Remove),
        1 => (0..2u8).prop_map(Step::Pause),
        3 => (0..2u8).prop_map(Step::Resume),
    ]
}

fn time(profile: Profile) -> impl Strategy<Value = Step> {
    let ordered = profile == Profile::Ordered;
    let batch = match profile {
        Profile::Exact => prop_oneof![Just(1_000u32), 1..4u32].boxed(),
        Profile::Promised => Just(1_000).boxed(),
        Profile::Ordered => Just(1).boxed(),
    };
    prop_oneof![
        4 => (1..4i64).prop_map(|n| Step::Pass(2 * n)),
        1 => (1..3i64).prop_map(|n| Step::Pass(-2 * n)),
        4 => (prop::option::of(odd()), batch)
            .prop_map(move |(keep, batch)| Step::Upkeep { keep: keep.filter(|_| !ordered), batch }),
        1 => prop::collection::btree_map(0..2u8, odd(), 1..3)
            .prop_map(|every| Step::Fire { every: every.into_iter().collect() }),
    ]
}

/// A job or a run, rather a new one.
fn one() -> impl Strategy<Value = usize> + Clone {
    prop_oneof![3 => 0..5usize, 1 => 0..64usize]
}

fn odd() -> impl Strategy<Value = u64> + Clone {
    (0..4u64).prop_map(|n| 2 * n + 1)
}

fn draft(profile: Profile) -> impl Strategy<Value = Draft> {
    let expire = match profile {
        Profile::Ordered => Just(None).boxed(),
        Profile::Exact | Profile::Promised => prop::option::weighted(0.15, odd()).boxed(),
    };
    let when = prop_oneof![3 => Just(When::Success), 2 => Just(When::Ended), 2 => Just(When::Failure)];
    let hold = prop_oneof![2 => Just(Hold::Alive), 1 => Just(Hold::Waiting), 1 => odd().prop_map(Hold::For)];
    (
        (0..3u8, 0..2u8, -1..=1i32, 1..4i32),
        (prop_oneof![3 => Just(0u64), 1 => odd()], expire, prop::option::of(rest(profile))),
        (
            prop_oneof![2 => Just(vec![]), 3 => prop::collection::vec(one(), 1..4)],
            prop_oneof![2 => Just(vec![]), 1 => prop::collection::vec(0..64usize, 1..3)],
            when,
        ),
        (prop::option::weighted(0.3, (0..3u8, hold)), prop::option::weighted(0.3, one())),
        prop::option::weighted(0.5, 0..2u8),
    )
        .prop_map(
            move |(
                (task, queue, priority, attempts),
                (delay, expire, backoff),
                of_parents,
                (key, origin),
                part,
            )| {
                let (parents, after, when) = of_parents;
                // whether a handler that is late is called off or removed first is not promised
                let expire = expire.filter(|_| profile == Profile::Exact || when != When::Failure);
                Draft {
                    task,
                    queue,
                    priority,
                    delay,
                    expire,
                    attempts,
                    backoff,
                    parents,
                    after,
                    when,
                    key,
                    origin,
                    part,
                }
            },
        )
}

/// Whether an exchange claims what its own failures made ready is not promised.
fn rest(profile: Profile) -> impl Strategy<Value = u64> {
    match profile {
        Profile::Exact => prop_oneof![Just(0u64), odd()].boxed(),
        Profile::Promised | Profile::Ordered => odd().boxed(),
    }
}

fn exchange(profile: Profile) -> impl Strategy<Value = Step> {
    let pause = prop_oneof![3 => rest(profile).prop_map(Rest::Task), 1 => rest(profile).prop_map(Rest::Run)];
    let word = (one(), any::<bool>(), 0..2u8, prop::bool::weighted(0.6), pause)
        .prop_map(|(run, good, value, retry, pause)| Word { run, good, value, retry, pause });
    let words = prop::collection::vec(word, 0..=if profile == Profile::Ordered { 1 } else { 4 });
    (words, asked(profile)).prop_map(|(words, claim)| Step::Exchange { words, claim })
}

fn lease(profile: Profile) -> impl Strategy<Value = u64> {
    match profile {
        Profile::Ordered => Just(HOLDS).boxed(),
        Profile::Exact | Profile::Promised => (0..3u64).prop_map(|n| 2 * n + 1).boxed(),
    }
}

fn asked(profile: Profile) -> impl Strategy<Value = Asked> {
    let ordered = profile == Profile::Ordered;
    let queues = if ordered {
        (0..2u8).prop_map(|q| vec![q]).boxed()
    } else {
        prop_oneof![Just(vec![0]), Just(vec![1]), Just(vec![0, 1]), Just(vec![1, 0, 1]), Just(vec![])].boxed()
    };
    (
        prop_oneof![3 => 0..4u32, 1 => Just(1_000)],
        queues,
        prop::option::weighted(0.4, prop::collection::vec(0..4u8, 0..4)),
        prop::option::weighted(0.2, -1..=1i32),
        lease(profile),
        prop::option::weighted(0.2, odd()),
        prop_oneof![2 => Just(BTreeMap::new()), 1 => prop::collection::btree_map(0..3u8, 0..3u32, 1..3)],
    )
        .prop_map(move |(limit, queues, tasks, least, lease, aged, caps)| {
            let caps = if tasks.is_none() || ordered { BTreeMap::new() } else { caps };
            Asked { limit, queues, tasks, least, lease, aged: aged.filter(|_| !ordered), caps }
        })
}

fn pull(profile: Profile) -> impl Strategy<Value = Vec<Puller>> {
    let ordered = profile == Profile::Ordered;
    let puller = (
        0..2u8,
        prop::collection::btree_set(0..4u8, 0..=if ordered { 1 } else { 3 }),
        0..4u8,
        lease(profile),
    )
        .prop_map(|(queue, tasks, workers, lease)| Puller {
            queue,
            tasks: tasks.into_iter().collect(),
            workers,
            lease,
        });
    prop::collection::vec(puller, 1..=if ordered { 1 } else { 3 })
}

fn bound() -> impl Strategy<Value = Bound> {
    let task = prop_oneof![Just("task".to_owned()), (0..2u8).prop_map(task_name)];
    let rate = (1..4u32, odd());
    (task, prop::option::of(0..3u32), prop::option::of(1..3u32), prop::option::weighted(0.4, rate)).prop_map(
        |(task, running, per_part, rate)| {
            let nothing = per_part.is_none() && rate.is_none();
            Bound { task, running: running.or(nothing.then_some(1)), per_part, rate }
        },
    )
}
