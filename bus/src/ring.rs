//! The bytes that some subscriber of a log has not got yet, and which offsets they hold.
//!
//! Positions are bytes since the log began. A segment begins and ends at a frame boundary; it grows from small, so
//! that a topic with one quiet subscriber costs next to nothing. Pure bookkeeping: one thread, no lock.

use crate::frame;
use std::collections::VecDeque;

pub(crate) const SEGMENT_BYTES: usize = 64 * 1024;
const FIRST_SEGMENT_BYTES: usize = 1024;

/// A run of whole frames.
#[derive(Debug)]
pub(crate) struct Segment {
    base: u64,
    bytes: Vec<u8>,
}

impl Segment {
    fn end(&self) -> u64 {
        self.base + self.bytes.len() as u64
    }

    /// The rest of the frame that `at` stands in; nothing when it stands between frames, unless the next one is begun.
    pub(crate) fn rest_of_frame(&self, at: u64, begun: bool) -> &[u8] {
        let at = (at - self.base) as usize;
        let within = (at + usize::from(begun)).min(self.bytes.len());
        &self.bytes[at..frame::boundary(&self.bytes, within)]
    }
}

/// Segments from the oldest that somebody needs to the newest.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    segments: VecDeque<Segment>,
    end: u64,
    held: usize,
    messages: u32,
}

impl Ring {
    /// Behind the last byte.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Bytes in memory.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Messages so far; wraps.
    pub(crate) fn messages(&self) -> u32 {
        self.messages
    }

    fn segment(&self, pos: u64) -> &Segment {
        let i = self.segments.partition_point(|s| s.base <= pos);
        &self.segments[i - 1]
    }

    /// What follows `pos` in its segment.
    pub(crate) fn from(&self, pos: u64) -> &[u8] {
        let s = self.segment(pos);
        &s.bytes[(pos - s.base) as usize..]
    }

    /// The first frame boundary at or after `pos`, which must not be the end; behind it when the frame there is begun.
    pub(crate) fn boundary(&self, pos: u64, begun: bool) -> u64 {
        pos + self.segment(pos).rest_of_frame(pos, begun).len() as u64
    }

    /// Appends whole frames.
    pub(crate) fn append(&mut self, frames: &[u8], messages: u32) {
        match self.segments.back_mut() {
            Some(s) if s.bytes.is_empty() || s.bytes.len() + frames.len() <= SEGMENT_BYTES => {
                s.bytes.extend_from_slice(frames);
            }
            last => {
                let room = if last.is_some() { SEGMENT_BYTES } else { FIRST_SEGMENT_BYTES };
                let mut bytes = Vec::with_capacity(frames.len().max(room));
                bytes.extend_from_slice(frames);
                self.segments.push_back(Segment { base: self.end, bytes });
            }
        }
        self.end += frames.len() as u64;
        self.held += frames.len();
        self.messages = self.messages.wrapping_add(messages);
    }

    /// Takes out the oldest segment, but never the last one; also answers where the next begins.
    pub(crate) fn evict(&mut self) -> Option<(Segment, u64)> {
        if self.segments.len() < 2 {
            return None;
        }
        let old = self.segments.pop_front()?;
        self.held -= old.bytes.len();
        Some((old, self.segments[0].base))
    }

    /// Forgets the segments that everybody has; keeps one buffer for the next burst.
    pub(crate) fn forget(&mut self, min: u64) {
        let (end, mut count) = (self.end, self.segments.len());
        while let Some(first) = self.segments.front_mut() {
            if first.end() > min {
                return;
            }
            self.held -= first.bytes.len();
            if count == 1 {
                first.base = end;
                first.bytes.clear();
                return;
            }
            self.segments.pop_front();
            count -= 1;
        }
    }

    /// Gives the last buffer back, too, if nothing is in it.
    pub(crate) fn shrink(&mut self) {
        if self.held == 0 {
            self.segments = VecDeque::new();
        }
    }
}

/// Which offset of the journal begins where, for a log of durable entries.
#[derive(Debug)]
pub(crate) struct Marks {
    /// Byte position and offset of each entry that is kept.
    entries: VecDeque<(u64, u64)>,
    /// Everything up to this offset lies before the first mark.
    floor: u64,
    /// The numbering that holds now began here.
    began: u64,
}

impl Marks {
    /// For a log that begins at `pos` when the journal was relayed up to `offset`.
    pub(crate) fn new(pos: u64, offset: u64) -> Marks {
        Marks { entries: VecDeque::new(), floor: offset, began: pos }
    }

    /// An entry is about to be appended at `pos`.
    pub(crate) fn add(&mut self, pos: u64, offset: u64) {
        self.entries.push_back((pos, offset));
    }

    /// The last offset that lies wholly before `pos`; nothing when that is of an older numbering.
    pub(crate) fn before(&self, pos: u64) -> Option<u64> {
        if pos < self.began {
            return None;
        }
        let i = self.entries.partition_point(|(at, _)| *at < pos);
        Some(i.checked_sub(1).map_or(self.floor, |i| self.entries[i].1))
    }

    /// Nobody asks for what lies before `pos` any more.
    pub(crate) fn forget(&mut self, pos: u64) {
        while let Some((at, offset)) = self.entries.front().copied() {
            if at >= pos {
                return;
            }
            self.floor = offset;
            self.entries.pop_front();
        }
    }

    /// Gives spare memory back.
    pub(crate) fn shrink(&mut self) {
        self.entries.shrink_to(64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Opcode;
    use proptest::prelude::*;

    fn frame(n: usize, byte: u8) -> Vec<u8> {
        let mut out = Vec::new();
        frame::append(&mut out, Opcode::Binary, &vec![byte; n]);
        out
    }

    proptest! {
        /// A reader that takes arbitrary pieces gets every byte once, whatever is forgotten behind it.
        #[test]
        fn every_byte_is_read_once_in_order(
            steps in prop::collection::vec((0usize..40_000, 1usize..90_000, any::<bool>()), 1..40)
        ) {
            let (mut ring, mut all, mut got) = (Ring::default(), Vec::new(), Vec::new());
            for (i, (size, take, forget)) in steps.into_iter().enumerate() {
                let f = frame(size, i as u8);
                all.extend_from_slice(&f);
                ring.append(&f, 1);
                let mut left = take;
                while left > 0 && (got.len() as u64) < ring.end() {
                    let piece = ring.from(got.len() as u64);
                    prop_assert!(!piece.is_empty());
                    let n = piece.len().min(left);
                    got.extend_from_slice(&piece[..n]);
                    left -= n;
                }
                let pos = got.len() as u64;
                if pos < ring.end() {
                    let (at, behind) = (ring.boundary(pos, false), ring.boundary(pos, true));
                    prop_assert!(at >= pos && behind > pos && at <= behind && behind <= ring.end());
                }
                if forget {
                    ring.forget(pos);
                    prop_assert!(ring.held() as u64 >= ring.end() - pos);
                    prop_assert!(ring.held() <= (ring.end() - pos) as usize + SEGMENT_BYTES.max(40_010));
                }
            }
            while (got.len() as u64) < ring.end() {
                let piece = ring.from(got.len() as u64).to_vec();
                got.extend(piece);
            }
            prop_assert_eq!(got, all);
            ring.forget(ring.end());
            prop_assert_eq!(ring.held(), 0);
            ring.shrink();
            ring.append(&frame(3, 1), 1);
            prop_assert_eq!(ring.from(ring.end() - 5).len(), 5);
        }

        /// Marks answer what a plain list of all entries would.
        #[test]
        fn marks_know_what_lies_before(
            gaps in prop::collection::vec((1u64..50, 1u64..4), 1..30),
            forget in 0usize..30,
        ) {
            let (mut pos, mut offset) = (10, 5);
            let mut marks = Marks::new(pos, offset);
            let mut all = vec![];
            for (bytes, more) in gaps {
                offset += more;
                marks.add(pos, offset);
                all.push((pos, pos + bytes, offset));
                pos += bytes;
            }
            let from = all.get(forget).map_or(pos, |e| e.0);
            marks.forget(from);
            for boundary in all.iter().map(|e| e.0).chain([pos]).filter(|b| *b >= from) {
                let expected = all.iter().filter(|e| e.1 <= boundary).map(|e| e.2).max().unwrap_or(5);
                prop_assert_eq!(marks.before(boundary), Some(expected));
            }
            prop_assert_eq!(marks.before(9), None);
        }
    }

    #[test]
    fn the_last_segment_is_never_evicted() {
        let mut ring = Ring::default();
        ring.append(&frame(100_000, 1), 1);
        assert!(ring.evict().is_none());
        ring.append(&frame(10, 2), 1);
        let (old, next) = ring.evict().unwrap();
        assert_eq!((next, ring.held(), ring.messages()), (100_010, 12, 2));
        assert_eq!(old.rest_of_frame(0, false), [0u8; 0]);
        assert_eq!(old.rest_of_frame(100_009, false), [1]);
        assert_eq!(old.rest_of_frame(0, true).len(), 100_010, "its first byte has gone out");
    }
}
