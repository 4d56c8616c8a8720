//! What a log is for: the set of filters and topics whose messages go into it.
//!
//! Most sessions follow one filter. One that follows several reads a log of the whole set, so that it has one cursor,
//! gets every message once, and shares the log with all who follow the same.

use crate::pattern::Pattern;
use minium_protocol::{Filter, Topic};

/// One filter of one name space; among peers, one topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Follow {
    pub(crate) pattern: Pattern,
    pub(crate) filter: Filter,
}

impl Follow {
    pub(crate) fn new(pattern: Pattern, filter: Filter) -> Follow {
        Follow { pattern, filter }
    }

    /// Does what is sent to this topic concern it?
    pub(crate) fn concerns(&self, pattern: Pattern, topic: &Topic) -> bool {
        self.pattern == pattern
            && match pattern {
                Pattern::Sub => self.filter.matches(topic),
                Pattern::Bus | Pattern::Push => self.filter.as_str() == topic.as_str(),
            }
    }
}

/// A set of them, in order and without doubles.
pub(crate) fn set(follows: impl Iterator<Item = Follow>) -> Box<[Follow]> {
    let mut all: Vec<Follow> = follows.collect();
    all.sort();
    all.dedup();
    all.into_boxed_slice()
}
