//! Those who send: what a sender's session keeps, and how a peer is spared its own messages.
//!
//! A peer's messages stand in the log that it reads itself. It remembers where, and skips them; with echo it gets
//! them, but only when the others of its shard have had their turn.

use crate::hub::{Hub, Targets};
use crate::log::Place;
use crate::message::Message;
use crate::opening::Mode;
use crate::pattern::Pattern;
use crate::publish::{Burst, Judge};
use crate::tally::Counted;
use minium_protocol::{Problem, Topic};
use std::collections::VecDeque;

/// What is kept for each topic that a session sends to.
pub(crate) struct Sender {
    pub(crate) pattern: Pattern,
    pub(crate) topic: Topic,
    judge: Judge,
    /// Of the interest table when `targets` was asked for.
    generation: u64,
    targets: Targets,
    counted: Counted,
}

/// A peer's own messages, in the log that it reads.
#[derive(Debug, Default)]
pub(crate) struct Own {
    /// It gets them, too.
    pub(crate) echo: bool,
    pub(crate) places: VecDeque<Place>,
}

/// In which pass of a walk a session is offered something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The others first: peers with echo wait with their own messages.
    First,
    /// Everybody was asked.
    Last,
}

/// A session's way through its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) pos: u64,
    pub(crate) seen: u32,
    pub(crate) goal: u64,
    pub(crate) goal_seen: u32,
}

impl Sender {
    pub(crate) fn new(pattern: Pattern, topic: Topic, mode: Mode) -> Sender {
        Sender {
            judge: Judge::new(pattern, topic.clone(), mode),
            pattern,
            topic,
            generation: 0,
            targets: Targets::default(),
            counted: Counted::default(),
        }
    }

    /// What is asked of messages now.
    pub(crate) fn refresh(&mut self, hub: &Hub) {
        self.judge.refresh(hub);
    }

    /// Before each burst: who receives it.
    pub(crate) fn begin(&mut self, hub: &Hub, burst: &mut Burst) {
        let now = hub.generation();
        if self.generation != now {
            (self.generation, self.targets) = (now, hub.targets(self.pattern, &self.topic));
        }
        burst.begin(self.targets);
    }

    /// So many messages went out.
    pub(crate) fn count(&mut self, hub: &Hub, messages: usize) {
        let messages = u32::try_from(messages).unwrap_or(u32::MAX);
        hub.tallies.count(&mut self.counted, self.pattern, self.topic.as_str(), messages);
    }

    /// So many messages were taken, whether they go out at once or are kept first.
    pub(crate) fn count_taken(&self, messages: usize) {
        self.judge.count(messages as u64);
    }

    pub(crate) fn judge(&self, message: Message) -> Result<Message, Problem> {
        self.judge.judge(message).inspect_err(|problem| self.judge.count_dropped(problem.code))
    }

    /// Does its channel take nothing but JSON?
    pub(crate) fn wants_json(&self) -> bool {
        self.judge.wants_json()
    }

    /// Do its messages go to the journal, or to the queue?
    pub(crate) fn is_durable(&self) -> bool {
        self.judge.is_durable()
    }
}

impl Own {
    pub(crate) fn new(echo: bool) -> Own {
        Own { echo, places: VecDeque::new() }
    }

    /// Moves the cursor over, or the goal before, what this peer sent itself.
    pub(crate) fn skip(&mut self, at: &mut Cursor, turn: Turn) {
        if self.echo {
            match (turn, self.places.front()) {
                (Turn::First, Some(own)) => at.stop_before(own),
                (Turn::First, None) | (Turn::Last, _) => self.places.clear(),
            }
            return;
        }
        while let Some(own) = self.places.pop_front_if(|own| own.start <= at.pos) {
            if own.end > at.pos {
                (at.pos, at.seen) = (own.end, own.before.wrapping_add(own.messages));
            }
        }
        if let Some(own) = self.places.front() {
            at.stop_before(own);
        }
        at.goal = at.goal.max(at.pos);
    }
}

impl Cursor {
    fn stop_before(&mut self, own: &Place) {
        if own.start < self.goal {
            (self.goal, self.goal_seen) = (own.start.max(self.pos), own.before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sender(echo: bool, own: &[(u64, u64)]) -> Own {
        let place = |(start, end): &(u64, u64)| Place {
            start: *start,
            end: *end,
            before: *start as u32,
            messages: (end - start) as u32,
        };
        Own { echo, places: own.iter().map(place).collect() }
    }

    /// Which bytes a session gets when it is offered until nothing moves.
    fn gets(s: &mut Own, end: u64, turn: Turn) -> Vec<(u64, u64)> {
        let mut at = Cursor { pos: 0, seen: 0, goal: 0, goal_seen: 0 };
        let mut got = Vec::new();
        while at.pos < end {
            (at.goal, at.goal_seen) = (end, end as u32);
            s.skip(&mut at, turn);
            if at.pos >= at.goal {
                break;
            }
            got.push((at.pos, at.goal));
            (at.pos, at.seen) = (at.goal, at.goal_seen);
            assert_eq!(u64::from(at.seen), at.pos);
        }
        got
    }

    #[test]
    fn own_messages_are_skipped_wherever_they_stand() {
        assert_eq!(gets(&mut sender(false, &[(0, 3), (3, 5), (8, 9)]), 10, Turn::Last), [(5, 8), (9, 10)]);
        assert_eq!(gets(&mut sender(false, &[(4, 10)]), 10, Turn::First), [(0, 4)]);
        assert_eq!(gets(&mut sender(false, &[(0, 10)]), 10, Turn::First), []);
    }

    #[test]
    fn with_echo_they_come_after_the_others_had_theirs() {
        let mut s = sender(true, &[(4, 6)]);
        assert_eq!(gets(&mut s, 10, Turn::First), [(0, 4)]);
        assert_eq!(gets(&mut s, 10, Turn::Last), [(0, 10)]);
        assert!(s.places.is_empty());
    }
}
