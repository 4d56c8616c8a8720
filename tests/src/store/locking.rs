//! Named locks against a plain model: a list of holds, each with its end.

use super::fixture::{Fixture, seconds};
use super::property::{run, runtime};
use super::sequence::{UNIT_SECONDS, pick};
use minium_protocol::LockToken;
use minium_queue::LockFilter;
use proptest::prelude::*;

/// What is done with locks. Spans are odd units, time passes by even ones.
#[derive(Debug, Clone)]
enum Step {
    Take { name: u8, span: u64, limit: u32 },
    Extend { hold: usize, name: u8, span: u64 },
    Give { hold: usize, name: u8 },
    End(u8),
    Pass(u64),
    Upkeep,
}

/// A hold, whether it has ended or not.
struct Hold {
    name: u8,
    owner: String,
    limit: u32,
    until: u64,
}

#[derive(Default)]
struct Model {
    now: u64,
    holds: Vec<Hold>,
}

impl Model {
    fn living(&self, name: u8) -> usize {
        self.holds.iter().filter(|hold| hold.name == name && hold.until > self.now).count()
    }

    fn held(&mut self, hold: usize, name: u8) -> Option<&mut Hold> {
        let now = self.now;
        let hold = pick(hold, self.holds.len()).map(|place| &mut self.holds[place]);
        hold.filter(|hold| hold.name == name && hold.until > now)
    }

    /// Answers whether, or how many.
    fn step(&mut self, step: &Step) -> u64 {
        match *step {
            Step::Take { name, span, limit } => {
                let free = self.living(name) < limit as usize;
                if free && span > 0 {
                    let (owner, until) = (format!("owner {}", self.holds.len()), self.now + span);
                    self.holds.push(Hold { name, owner, limit, until });
                }
                u64::from(free)
            }
            Step::Extend { hold, name, span } => {
                let until = self.now + span;
                u64::from(self.held(hold, name).map(|hold| hold.until = until).is_some())
            }
            Step::Give { hold, name } => {
                u64::from(self.held(hold, name).map(|hold| hold.until = 0).is_some())
            }
            Step::End(name) => {
                let living = self.living(name);
                self.holds.iter_mut().filter(|hold| hold.name == name).for_each(|hold| hold.until = 0);
                living as u64
            }
            Step::Pass(units) => {
                self.now += units;
                0
            }
            Step::Upkeep => 0,
        }
    }

    /// Name, owner, limit and the end of each, in the order in which they were taken.
    fn seen(&self) -> Vec<(String, String, u32, i64)> {
        let living = self.holds.iter().filter(|hold| hold.until > self.now);
        living
            .map(|h| (format!("lock {}", h.name), h.owner.clone(), h.limit, (h.until - self.now) as i64))
            .collect()
    }
}

/// A store, and the tokens of all that was ever held.
struct Subject<'f> {
    fixture: &'f Fixture,
    tokens: Vec<LockToken>,
}

impl Subject<'_> {
    async fn step(&mut self, step: &Step) -> u64 {
        let store = self.fixture.store();
        let lock = |name: u8| format!("lock {name}");
        let nobody = LockToken(uuid::Uuid::nil());
        let token = |hold: usize| pick(hold, self.tokens.len()).map_or(nobody, |place| self.tokens[place]);
        let units = |span: u64| seconds(span * UNIT_SECONDS);
        match *step {
            Step::Take { name, span, limit } => {
                let owner = format!("owner {}", self.tokens.len());
                let held = store.lock(&lock(name), &owner, units(span), limit).await.unwrap();
                if let Some(held) = held.filter(|_| span > 0) {
                    self.tokens.push(held.token);
                }
                u64::from(held.is_some())
            }
            Step::Extend { hold, name, span } => {
                let until = store.extend_lock(&lock(name), token(hold), units(span)).await.unwrap();
                u64::from(until.is_some())
            }
            Step::Give { hold, name } => u64::from(store.unlock(&lock(name), token(hold)).await.unwrap()),
            Step::End(name) => store.unlock_any(&lock(name)).await.unwrap(),
            Step::Pass(units_passed) => {
                self.fixture.pass(units(units_passed)).await;
                0
            }
            Step::Upkeep => {
                self.fixture.upkeep().await;
                0
            }
        }
    }

    async fn seen(&self) -> Vec<(String, String, u32, i64)> {
        let all = LockFilter { limit: 1_000, ..LockFilter::default() };
        let now = jiff::Timestamp::now();
        let units = |until: jiff::Timestamp| {
            (until.duration_since(now).as_secs_f64() / UNIT_SECONDS as f64).round() as i64
        };
        let page = self.fixture.store().locks(&all).await.unwrap();
        page.locks.into_iter().map(|l| (l.name, l.owner, l.limit, units(l.until))).collect()
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (hold, span) = (0..6usize, (0..4u64).prop_map(|n| 2 * n + 1));
    let step = prop_oneof![
        6 => (0..2u8, prop_oneof![5 => span.clone(), 1 => Just(0)], 1..4u32)
            .prop_map(|(name, span, limit)| Step::Take { name, span, limit }),
        2 => (hold.clone(), 0..2u8, span).prop_map(|(hold, name, span)| Step::Extend { hold, name, span }),
        2 => (hold, 0..2u8).prop_map(|(hold, name)| Step::Give { hold, name }),
        1 => (0..2u8).prop_map(Step::End),
        3 => (1..4u64).prop_map(|n| Step::Pass(2 * n)),
        1 => Just(Step::Upkeep),
    ];
    prop::collection::vec(step, 10..=60)
}

async fn follow(fixture: &Fixture, steps: &[Step]) -> Result<(), TestCaseError> {
    let (mut model, mut store) = (Model::default(), Subject { fixture, tokens: Vec::new() });
    for step in steps {
        prop_assert_eq!(model.step(step), store.step(step).await, "{:?}", step);
        prop_assert_eq!(model.seen(), store.seen().await, "after {:?}", step);
    }
    Ok(())
}

#[test]
fn locks_on_sqlite_do_what_the_model_does() {
    let runtime = runtime();
    run(40, steps, |steps| runtime.block_on(async { follow(&Fixture::sqlite_memory().await, steps).await }));
}

#[test]
fn locks_on_postgres_do_what_the_model_does() {
    let runtime = runtime();
    let fixture = runtime.block_on(Fixture::postgres());
    run(20, steps, |steps| {
        runtime.block_on(async {
            fixture.client().await.batch_execute("truncate minium.lock").await.unwrap();
            follow(&fixture, steps).await
        })
    });
    // its database is dropped within the runtime
    runtime.block_on(async { drop(fixture) });
}
