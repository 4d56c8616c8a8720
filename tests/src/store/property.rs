//! Random sequences: every store does what the plain model does, and so no two stores differ.
//!
//! The seed of a run is told when it fails; `MINIUM_TEST_SEED` (64 hex digits) runs it again. `MINIUM_TEST_SECONDS` makes each
//! test go on for so long, with one seed after the other.

use super::fixture::Fixture;
use super::model::Model;
use super::sequence::*;
use super::subject::Subject;
use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use std::cell::Cell;
use std::time::Duration;
use tokio::time::Instant;

/// A kind of sequences, and how many of them.
#[derive(Clone, Copy)]
struct Kind {
    cases: u32,
    profile: Profile,
    length: usize,
    /// Of a hundred steps, in so many the process dies.
    crashes: u32,
}

/// Runs random sequences of steps.
fn check(kind: Kind, case: impl Fn(&[Step]) -> Result<(), TestCaseError>) {
    run(kind.cases, || super::sequence::steps(kind.profile, kind.length, kind.crashes), case);
}

/// Runs random sequences, and tells the seed when one fails.
pub(super) fn run<T: std::fmt::Debug, S: Strategy<Value = Vec<T>>>(
    cases: u32,
    sequences: impl Fn() -> S,
    case: impl Fn(&[T]) -> Result<(), TestCaseError>,
) {
    let until =
        std::env::var("MINIUM_TEST_SECONDS").ok().map(|text| Duration::from_secs(text.parse().unwrap()));
    let (begun, steps, done) = (Instant::now(), Cell::new(0), Cell::new(0));
    loop {
        let seed = seed();
        let config = Config { cases, failure_persistence: None, max_shrink_iters: 400, ..Config::default() };
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
        let counted = |sequence: Vec<T>| {
            steps.set(steps.get() + sequence.len());
            done.set(done.get() + 1);
            case(&sequence)
        };
        match TestRunner::new_with_rng(config, rng).run(&sequences(), counted) {
            Ok(()) => {}
            Err(TestError::Fail(reason, steps)) => {
                let seed: String = seed.iter().map(|byte| format!("{byte:02x}")).collect();
                panic!("MINIUM_TEST_SEED={seed}\n{reason}\nthe shortest sequence that fails:\n{steps:#?}");
            }
            Err(TestError::Abort(reason)) => panic!("{reason}"),
        }
        if until.is_none_or(|until| begun.elapsed() >= until) {
            break;
        }
    }
    eprintln!("{} sequences, {} steps", done.get(), steps.get());
}

fn seed() -> [u8; 32] {
    match std::env::var("MINIUM_TEST_SEED") {
        Ok(hex) => {
            let bytes: Vec<u8> =
                (0..32).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect();
            bytes.try_into().unwrap()
        }
        Err(_) => std::array::from_fn(|_| fastrand::u8(..)),
    }
}

/// Every fifth step everything is looked at, and after the last.
fn whole(n: usize, steps: &[Step]) -> bool {
    n % 5 == 4 || n + 1 == steps.len()
}

/// What became of the steps whose process died.
#[derive(Debug, Default)]
struct Deaths {
    answered: Cell<u32>,
    done: Cell<u32>,
    undone: Cell<u32>,
}

impl Deaths {
    fn count(which: &Cell<u32>) {
        which.set(which.get() + 1);
    }

    /// Else the process did not die in the midst of anything.
    fn assert_some(&self) {
        eprintln!("{self:?}");
        assert!(self.undone.get() > 0 && self.answered.get() > 0, "{self:?}");
    }
}

/// One sequence on a store and in the model.
async fn follow(
    what: &str,
    store: &mut Subject,
    profile: Profile,
    steps: &[Step],
    deaths: &Deaths,
) -> Result<(), TestCaseError> {
    let mut model = Model::new(profile);
    for (n, step) in steps.iter().enumerate() {
        let whole = whole(n, steps);
        let Step::Crash { step: inner, at } = step else {
            let got = store.step(step, whole).await;
            same(what, step, &model.step(step, &got.answer, whole), &got)?;
            continue;
        };
        let crashed = store.crash(inner, *at).await;
        let got = store.report(serde_json::Value::Null, true).await;
        let [done, undone] = model.crash(inner, &crashed.got, &crashed.then);
        model = if !crashed.answered && undone.1 == got {
            Deaths::count(&deaths.undone);
            undone.0
        } else {
            same(what, step, &done.1, &got)?;
            Deaths::count(if crashed.answered { &deaths.answered } else { &deaths.done });
            done.0
        };
    }
    Ok(())
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
    part("queues", format!("{:?}", expected.queues), format!("{:?}", got.queues));
    part("limits", format!("{:?}", expected.limits), format!("{:?}", got.limits));
    part("dead", format!("{:?}", expected.dead), format!("{:?}", got.dead));
    for i in 0..expected.events.len().max(got.events.len()) {
        part("event", format!("{:?}", expected.events.get(i)), format!("{:?}", got.events.get(i)));
    }
    for i in 0..expected.jobs.len().max(got.jobs.len()) {
        part("job", format!("{:?}", expected.jobs.get(i)), format!("{:?}", got.jobs.get(i)));
    }
    Err(TestCaseError::fail(words))
}

pub(super) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

#[test]
fn sqlite_does_what_the_model_does() {
    let (runtime, kind) = (runtime(), Kind { cases: 80, profile: Profile::Exact, length: 50, crashes: 0 });
    check(kind, |steps| {
        runtime.block_on(async {
            let mut store = Subject::new(Fixture::sqlite_memory().await, kind.profile);
            follow("SQLite", &mut store, kind.profile, steps, &Deaths::default()).await
        })
    });
}

#[test]
fn sqlite_does_what_the_model_does_whenever_its_process_dies() {
    let (runtime, kind) = (runtime(), Kind { cases: 30, profile: Profile::Exact, length: 40, crashes: 30 });
    let deaths = Deaths::default();
    check(kind, |steps| {
        runtime.block_on(async {
            let mut store = Subject::new(Fixture::sqlite_file().await, kind.profile);
            follow("SQLite", &mut store, kind.profile, steps, &deaths).await
        })
    });
    deaths.assert_some();
}

/// Runs sequences on PostgreSQL, each on an empty queue.
fn on_postgres(kind: Kind, case: impl AsyncFn(&mut Subject, &[Step]) -> Result<(), TestCaseError>) {
    let runtime = runtime();
    let postgres = runtime.block_on(async { Subject::new(Fixture::postgres().await, kind.profile) });
    let postgres = std::cell::RefCell::new(postgres);
    let here = (&runtime, &postgres);
    check(kind, move |steps| {
        let (runtime, postgres) = here;
        let mut postgres = postgres.borrow_mut();
        runtime.block_on(async {
            postgres.clear().await;
            case(&mut postgres, steps).await
        })
    });
    // its database is dropped within the runtime
    runtime.block_on(async { drop(postgres) });
}

#[test]
fn postgres_does_what_the_model_does() {
    let kind = Kind { cases: 16, profile: Profile::Promised, length: 40, crashes: 0 };
    on_postgres(kind, async |store, steps| {
        follow("PostgreSQL", store, kind.profile, steps, &Deaths::default()).await
    });
}

#[test]
fn postgres_does_what_the_model_does_whenever_its_process_dies() {
    let kind = Kind { cases: 12, profile: Profile::Promised, length: 30, crashes: 30 };
    let deaths = Deaths::default();
    on_postgres(kind, async |store, steps| follow("PostgreSQL", store, kind.profile, steps, &deaths).await);
    deaths.assert_some();
}

/// The same steps on both databases look alike after each of them, to the very order of the claims.
#[test]
fn the_two_stores_claim_in_the_same_order() {
    let kind = Kind { cases: 16, profile: Profile::Ordered, length: 30, crashes: 0 };
    on_postgres(kind, async |postgres, steps| {
        let mut sqlite = Subject::new(Fixture::sqlite_memory().await, kind.profile);
        for (n, step) in steps.iter().enumerate() {
            let whole = whole(n, steps);
            same("PostgreSQL", step, &sqlite.step(step, whole).await, &postgres.step(step, whole).await)?;
        }
        Ok(())
    });
}
