//! The three patterns of messaging. Each is a name space of its own: `/sub/x`, `/push/x` and `/bus/x` are strangers.

use std::fmt;

/// How messages on a topic are handed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pattern {
    /// Publish and subscribe: everyone who subscribed gets a copy.
    Sub,
    /// Push and pull: one puller gets it.
    Push,
    /// Peers: everyone on the topic gets what the others send.
    Bus,
}

impl Pattern {
    /// All of them.
    pub const ALL: [Pattern; 3] = [Pattern::Sub, Pattern::Push, Pattern::Bus];

    /// The word in configurations and metrics; also the folder under `schemas/`.
    pub fn as_str(self) -> &'static str {
        match self {
            Pattern::Sub => "sub",
            Pattern::Push => "push",
            Pattern::Bus => "bus",
        }
    }

    /// The one that a word names.
    pub fn named(word: &str) -> Option<Pattern> {
        Pattern::ALL.into_iter().find(|pattern| pattern.as_str() == word)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
