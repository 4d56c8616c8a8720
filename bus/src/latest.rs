//! The last durable message of each topic and of everything below it, in memory.
//!
//! Dashboards open with `?last=1`: the value that a topic has now. That must not be a read of the journal each time.
//! What was not relayed since the node started, or not for long, is read from the journal.

use crate::history::Relayed;
use minium_protocol::Filter;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

#[derive(Debug)]
pub(crate) struct Latest {
    by_level: HashMap<Arc<str>, Relayed>,
    /// Levels in the order in which they were set, with what they were set to: the oldest goes first.
    order: VecDeque<(Arc<str>, u64)>,
    bytes: usize,
    bytes_max: usize,
}

/// What a level weighs besides its message.
const LEVEL_BYTES: usize = 256;

fn weight(entry: &Relayed) -> usize {
    entry.event.len() + LEVEL_BYTES
}

impl Latest {
    pub(crate) fn new(bytes_max: usize) -> Latest {
        Latest { by_level: HashMap::new(), order: VecDeque::new(), bytes: 0, bytes_max }
    }

    /// This one is the last now, of its topic and of all above.
    pub(crate) fn set(&mut self, entry: &Relayed) {
        for level in entry.topic.levels() {
            let key = match self.by_level.get_key_value(level) {
                Some((key, _)) => key.clone(),
                None => level.into(),
            };
            self.bytes += weight(entry);
            if let Some(old) = self.by_level.insert(key.clone(), entry.clone()) {
                self.bytes -= weight(&old);
            }
            self.order.push_back((key, entry.position.offset));
        }
        let orders_max = self.bytes_max / LEVEL_BYTES * 2;
        while self.bytes > self.bytes_max || self.order.len() > orders_max {
            let Some((key, offset)) = self.order.pop_front() else { return };
            let current = self.by_level.get(&key).is_some_and(|e| e.position.offset == offset);
            if current && let Some(old) = self.by_level.remove(&key) {
                self.bytes -= weight(&old);
            }
        }
    }

    /// The numbering begins anew.
    pub(crate) fn clear(&mut self) {
        *self = Latest::new(self.bytes_max);
    }

    /// The last message that a filter matches, if it is known.
    pub(crate) fn of(&self, filter: &Filter) -> Option<&Relayed> {
        if filter.is_wild() { None } else { self.by_level.get(filter.as_str()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use minium_protocol::Position;
    use proptest::prelude::*;

    fn entry(topic: &str, offset: u64) -> Relayed {
        let position = Position { epoch: 1, offset };
        Relayed { position, topic: topic.parse().unwrap(), event: vec![b'x'; 100].into(), data: None }
    }

    fn of(latest: &Latest, filter: &str) -> Option<u64> {
        latest.of(&filter.parse().unwrap()).map(|e| e.position.offset)
    }

    #[test]
    fn each_level_knows_its_last() {
        let mut latest = Latest::new(1 << 20);
        latest.set(&entry("a/b/c", 1));
        latest.set(&entry("a/x", 2));
        assert_eq!((of(&latest, "a/b"), of(&latest, "a/b/c"), of(&latest, "a")), (Some(1), Some(1), Some(2)));
        assert_eq!((of(&latest, "a/+"), of(&latest, "b")), (None, None));
        latest.clear();
        assert_eq!(of(&latest, "a"), None);
    }

    proptest! {
        /// Whatever is forgotten: what is known is right, what was set last is known, and memory is bounded.
        #[test]
        fn what_is_known_is_right(topics in prop::collection::vec("[ab](/[ab]){0,3}", 1..200)) {
            let mut latest = Latest::new(4_000);
            let mut model: HashMap<String, u64> = HashMap::new();
            for (offset, topic) in (1..).zip(&topics) {
                let e = entry(topic, offset);
                latest.set(&e);
                model.extend(e.topic.levels().map(|l| (l.to_owned(), offset)));
                prop_assert_eq!(of(&latest, topic), Some(offset));
                prop_assert!(latest.bytes <= 4_000 && latest.order.len() <= 30);
                prop_assert_eq!(latest.bytes, latest.by_level.values().map(weight).sum::<usize>());
            }
            for (level, offset) in model {
                let known = of(&latest, &level);
                prop_assert!(known.is_none_or(|k| k == offset), "{level}: {known:?}, not {offset}");
            }
        }
    }
}
