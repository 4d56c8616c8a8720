//! The newest entries of the journal that this shard was relayed, kept in memory.
//!
//! Whoever reads history joins what comes live here: the last piece, up to the very entry that the shard was relayed
//! last, comes from memory in the turn in which the session begins to follow, so that nothing lies between. And who
//! comes back after a moment needs no read of the journal at all. The batches are shared by all shards.

use crate::relay::{Entry, RelayBatch};
use std::collections::VecDeque;
use std::sync::Arc;

#[derive(Debug)]
pub(crate) struct Recent {
    batches: VecDeque<Arc<RelayBatch>>,
    bytes: usize,
    bytes_max: usize,
    epoch: u64,
    /// Everything behind this offset is here.
    from: u64,
}

impl Recent {
    pub(crate) fn new(bytes_max: usize) -> Recent {
        Recent { batches: VecDeque::new(), bytes: 0, bytes_max, epoch: 0, from: 0 }
    }

    /// The numbering begins, or goes on behind a hole: from here on.
    pub(crate) fn begin(&mut self, epoch: u64, from: u64) {
        self.batches.clear();
        (self.bytes, self.epoch, self.from) = (0, epoch, from);
    }

    /// What was relayed last.
    pub(crate) fn push(&mut self, batch: Arc<RelayBatch>) {
        self.bytes += batch.bytes;
        self.batches.push_back(batch);
        while self.bytes > self.bytes_max
            && let Some(old) = self.batches.pop_front()
        {
            self.bytes -= old.bytes;
            self.from = old.entries.last().map_or(self.from, |e| e.relayed.position.offset.max(self.from));
        }
    }

    /// Is everything behind this offset here?
    pub(crate) fn covers(&self, after: u64) -> bool {
        after >= self.from
    }

    /// Entries behind `after`, in order.
    pub(crate) fn behind(&self, after: u64) -> impl Iterator<Item = &Entry> {
        let offset = |e: &Entry| e.relayed.position.offset;
        let passed = |b: &Arc<RelayBatch>| b.entries.last().is_none_or(|e| offset(e) <= after);
        let first = self.batches.partition_point(passed);
        let mut last = after;
        self.batches.range(first..).flat_map(|b| &b.entries).filter(move |e| {
            // what was relayed twice is here twice
            let new = e.relayed.position.epoch == self.epoch && offset(e) > last;
            last = last.max(if new { offset(e) } else { 0 });
            new
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Relayed;
    use minium_protocol::Position;

    fn batch(epoch: u64, offsets: std::ops::RangeInclusive<u64>) -> Arc<RelayBatch> {
        let relayed = |offset| Relayed {
            position: Position { epoch, offset },
            topic: "task/x/1".parse().unwrap(),
            event: vec![b'x'; 100].into(),
            data: None,
        };
        Arc::new(RelayBatch::new(offsets.map(relayed).collect()))
    }

    fn offsets(recent: &Recent, after: u64) -> Vec<u64> {
        recent.behind(after).map(|e| e.relayed.position.offset).collect()
    }

    #[test]
    fn everything_behind_its_beginning_is_there_once() {
        let mut recent = Recent::new(1 << 20);
        recent.begin(1, 10);
        recent.push(batch(1, 11..=13));
        recent.push(batch(1, 12..=15)); // relayed again
        assert!(recent.covers(10) && !recent.covers(9));
        assert_eq!(offsets(&recent, 10), [11, 12, 13, 14, 15]);
        assert_eq!(offsets(&recent, 13), [14, 15]);
        assert_eq!(offsets(&recent, 15), [] as [u64; 0]);
    }

    #[test]
    fn it_is_bounded_and_says_what_it_let_go() {
        let mut recent = Recent::new(2_500);
        recent.begin(1, 0);
        for n in 0..10 {
            recent.push(batch(1, n * 5 + 1..=n * 5 + 5));
        }
        assert!(recent.bytes <= 2_500 && recent.covers(49) && !recent.covers(1));
        let first = (0..50).find(|n| recent.covers(*n)).unwrap();
        assert_eq!(offsets(&recent, first), (first + 1..=50).collect::<Vec<_>>());
    }

    #[test]
    fn a_new_numbering_begins_anew() {
        let mut recent = Recent::new(1 << 20);
        recent.begin(1, 0);
        recent.push(batch(1, 1..=5));
        recent.begin(2, 3);
        recent.push(batch(2, 4..=5));
        assert_eq!(offsets(&recent, 3), [4, 5]);
        assert!(!recent.covers(2));
    }
}
