//! How long jobs that have ended are kept, by how they ended and where they waited.

use crate::rules;
use minium_protocol::State;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long; `None` is for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// Jobs that ended well.
    pub finished: Option<Duration>,
    /// Jobs that ended badly: somebody has yet to look at them.
    pub failed: Option<Duration>,
    /// Jobs that were called off.
    pub cancelled: Option<Duration>,
}

impl Keep {
    /// How long jobs that ended like this are kept.
    pub fn of(&self, state: State) -> Option<Duration> {
        match state {
            State::Finished => self.finished,
            State::Failed => self.failed,
            State::Cancelled => self.cancelled,
            State::Inactive | State::Active => None,
        }
    }
}

/// How long in each queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// In every queue that is not named.
    pub usual: Keep,
    /// In these.
    pub queues: BTreeMap<String, Keep>,
}

impl Default for Retention {
    /// Finished jobs for two days, as in Minion; others until somebody removes them.
    fn default() -> Retention {
        let finished = Some(Duration::from_secs(2 * 86_400));
        Retention { usual: Keep { finished, failed: None, cancelled: None }, queues: BTreeMap::new() }
    }
}

/// One rule as the stores want it: a queue (`None` is every one that is not named), a state, how many microseconds.
pub(crate) struct Rule<'a> {
    pub(crate) queue: Option<&'a str>,
    pub(crate) state: State,
    pub(crate) micros: Option<i64>,
}

impl Retention {
    /// Nothing is ever removed.
    pub fn for_ever() -> Retention {
        Retention { usual: Keep { finished: None, failed: None, cancelled: None }, queues: BTreeMap::new() }
    }

    /// Is there anything that is removed at some time?
    pub(crate) fn is_for_ever(&self) -> bool {
        self.rules().iter().all(|rule| rule.micros.is_none())
    }

    /// Every rule; those of a queue stand for it alone.
    pub(crate) fn rules(&self) -> Vec<Rule<'_>> {
        let named = self.queues.iter().map(|(name, keep)| (Some(name.as_str()), keep));
        let mut rules = Vec::new();
        for (queue, keep) in std::iter::once((None, &self.usual)).chain(named) {
            for state in [State::Finished, State::Failed, State::Cancelled] {
                rules.push(Rule { queue, state, micros: keep.of(state).map(rules::micros) });
            }
        }
        rules
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_s_own_rules_stand_in_place_of_the_usual_ones() {
        assert!(Retention::for_ever().is_for_ever());
        let mut retention = Retention::default();
        let hour = Some(Duration::from_secs(3_600));
        retention.queues.insert("batch".into(), Keep { finished: None, failed: hour, cancelled: None });
        assert!(!retention.is_for_ever());
        let found = |queue, state| {
            retention.rules().iter().find(|r| r.queue == queue && r.state == state).unwrap().micros
        };
        assert_eq!(found(None, State::Finished), Some(2 * 86_400_000_000));
        assert_eq!(found(Some("batch"), State::Finished), None);
        assert_eq!(found(Some("batch"), State::Failed), Some(3_600_000_000));
    }
}
