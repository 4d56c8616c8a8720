//! The circuit breaker before a database: a pure machine that says who may try, and when somebody looks whether it is there.
//!
//! Only a probe opens it, and only a probe closes it. Whatever goes wrong for a caller (a connection that ends, a statement that
//! takes long, no free connection) is no more than a doubt: a single slow statement must not refuse everybody, and a server
//! that is gone is told by the probe within a moment. While it is open nobody waits for a connection, and one probe at a
//! time looks whether the database is back.
//!
//! ```text
//!            doubt                 probe: away                 its time has come
//!   closed ────────► doubted ───────────────────────► open ───────────────────────► half open
//!     ▲                 │ probe: here                   ▲       probe: away            │
//!     ├─────────────────┘                               └─────────────────────────────┤
//!     └───────────────────────────── probe: here ◄─────────────────────────────────────┘
//! ```

use std::time::Duration;

/// Between two probes, at first; it doubles with each that was in vain,
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// up to this: so long after its return the database is in use again at the latest.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// How it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Everybody may try.
    Closed,
    /// Everybody may try, and a probe is under way.
    Doubted,
    /// Nobody may try until the next probe.
    Open { failures: u32 },
    /// Nobody may try, and a probe is under way.
    HalfOpen { failures: u32 },
}

/// What changed with a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Edge {
    /// The database has gone.
    Opened,
    /// It has come back.
    Closed,
    /// Nothing.
    None,
}

/// See the head of this file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Breaker(State);

impl Breaker {
    /// The database is taken to be there until somebody doubts it.
    pub(crate) fn new() -> Breaker {
        Breaker(State::Closed)
    }

    /// May a caller try?
    pub(crate) fn admits(self) -> bool {
        matches!(self.0, State::Closed | State::Doubted)
    }

    /// Somebody has reason to doubt that the database is there. True when a probe must begin.
    pub(crate) fn doubt(&mut self) -> bool {
        let begins = self.0 == State::Closed;
        if begins {
            self.0 = State::Doubted;
        }
        begins
    }

    /// So long until the next probe; `None` when there is none to be made, or one is under way.
    pub(crate) fn next_probe(self) -> Option<Duration> {
        match self.0 {
            State::Open { failures } => {
                Some(PAUSE_MIN.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(PAUSE_MAX))
            }
            State::Closed | State::Doubted | State::HalfOpen { .. } => None,
        }
    }

    /// Its time has come: the probe begins.
    pub(crate) fn begin_probe(&mut self) {
        if let State::Open { failures } = self.0 {
            self.0 = State::HalfOpen { failures };
        }
    }

    /// A probe has ended.
    pub(crate) fn probed(&mut self, here: bool) -> Edge {
        let (state, edge) = match (self.0, here) {
            (State::Doubted, true) => (State::Closed, Edge::None),
            (State::HalfOpen { .. }, true) => (State::Closed, Edge::Closed),
            (State::Doubted, false) => (State::Open { failures: 1 }, Edge::Opened),
            (State::HalfOpen { failures }, false) => {
                (State::Open { failures: failures.saturating_add(1) }, Edge::None)
            }
            // nobody has asked
            (state @ (State::Closed | State::Open { .. }), _) => (state, Edge::None),
        };
        self.0 = state;
        edge
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_outage_from_the_doubt_to_the_return() {
        let mut breaker = Breaker::new();
        assert!(breaker.admits() && breaker.doubt());
        assert!(breaker.admits(), "a doubt refuses nobody");
        assert!(!breaker.doubt(), "one probe at a time");
        assert_eq!(breaker.probed(false), Edge::Opened);
        assert!(!breaker.admits() && !breaker.doubt(), "nobody may try");
        assert_eq!(breaker.next_probe(), Some(PAUSE_MIN));
        breaker.begin_probe();
        assert!(!breaker.admits() && breaker.next_probe().is_none(), "not even while it is looked at");
        assert_eq!(breaker.probed(false), Edge::None);
        assert_eq!(breaker.next_probe(), Some(2 * PAUSE_MIN));
        breaker.begin_probe();
        assert_eq!(breaker.probed(true), Edge::Closed);
        assert!(breaker.admits());
    }

    #[test]
    fn a_doubt_that_was_unfounded_changes_nothing() {
        let mut breaker = Breaker::new();
        breaker.doubt();
        assert_eq!(breaker.probed(true), Edge::None);
        assert_eq!(breaker, Breaker::new());
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Doubt,
        Begin,
        Probed(bool),
    }

    proptest! {
        /// Whatever comes in whatever order: it opens by a probe that was in vain and closes by one that was not, edges come by
        /// turns, and probes never stop for good while it is open.
        #[test]
        fn only_probes_open_and_close(steps in prop::collection::vec(prop_oneof![
            Just(Step::Doubt), Just(Step::Begin), any::<bool>().prop_map(Step::Probed)], 0..100)) {
            let mut breaker = Breaker::new();
            let mut open = false;
            for step in steps {
                let (before, probing) = (breaker.admits(), matches!(breaker.0, State::Doubted | State::HalfOpen { .. }));
                let edge = match step {
                    Step::Doubt => {
                        prop_assert_eq!(breaker.doubt(), before && !probing);
                        Edge::None
                    }
                    Step::Begin => {
                        breaker.begin_probe();
                        Edge::None
                    }
                    Step::Probed(here) => breaker.probed(here),
                };
                match edge {
                    Edge::Opened => {
                        prop_assert!(!open && matches!(step, Step::Probed(false)));
                        open = true;
                    }
                    Edge::Closed => {
                        prop_assert!(open && matches!(step, Step::Probed(true)));
                        open = false;
                    }
                    Edge::None => {}
                }
                prop_assert_eq!(breaker.admits(), !open);
                if open {
                    let waits = breaker.next_probe();
                    let looks = waits.is_some_and(|w| w >= PAUSE_MIN && w <= PAUSE_MAX);
                    let looking = matches!(breaker.0, State::HalfOpen { .. });
                    prop_assert!(looks || looking, "somebody looks for it");
                }
            }
        }
    }
}
