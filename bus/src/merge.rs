//! In which order the filters of one socket are given history, when a message can match several of them. Pure: no
//! clock, no await.
//!
//! Filters that can match the same message, directly or by way of others, read as one [`Group`]. Each has a cursor: what
//! it matches up to there was given, or there is none. What comes next is the lowest offset that any of them has not had;
//! it is given once, and all cursors pass it. A page says what one filter matches up to some offset, so a message may be
//! given when all filters are known up to right before it.
//!
//! Pages are read filter by filter, of whichever is known least: so they are the same for all sockets, whatever else
//! these follow. A filter is not read while another one covers it. Pages are not owned here: who reads them keeps so
//! many for all sockets together, and one that is gone is read again from where it was needed.

use crate::history::{Page, Relayed};
use crate::routing::Routes;
use minium_protocol::Filter;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};
use std::sync::{Arc, Weak};

/// Filters that read together. Never empty, but for a moment.
#[derive(Debug, Default)]
pub(crate) struct Group {
    readers: Vec<Reader>,
}

#[derive(Debug)]
struct Reader {
    filter: Filter,
    /// What it matches up to here was given, or there is none.
    cursor: u64,
    ahead: Ahead,
}

/// What is known of that which follows a cursor.
#[derive(Debug)]
enum Ahead {
    Nothing,
    Page(Rest),
    /// Another one of the group matches all that this one does, and stood no further: what it is given is enough.
    Covered,
}

/// What of a page was not given yet; there is something.
#[derive(Debug)]
struct Rest {
    page: Weak<Page>,
    /// The entry that is next, and its offset.
    next: usize,
    offset: u64,
    /// How far the page goes.
    to: u64,
}

/// What a group needs to go on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wants {
    /// What follows an offset, for one of its filters.
    Page(Filter, u64),
    /// Nothing from the store: all that is left is in memory.
    Memory,
    /// Nothing: what it was waiting for is not needed, and there is something to give.
    Room,
}

impl Group {
    /// One more filter reads with these.
    pub(crate) fn add(&mut self, filter: Filter, cursor: u64) {
        self.readers.push(Reader { filter, cursor, ahead: Ahead::Nothing });
    }

    /// Two groups are one from now on.
    pub(crate) fn absorb(&mut self, other: Group) {
        self.readers.extend(other.readers);
    }

    /// Is there a topic that this filter and one of these reach?
    pub(crate) fn meets(&self, filter: &Filter) -> bool {
        self.readers.iter().any(|r| r.filter.meets(filter))
    }

    /// One of its filters reads no more. True: nobody is left.
    pub(crate) fn forget(&mut self, filter: &Filter) -> bool {
        let before = self.readers.len();
        self.readers.retain(|r| r.filter != *filter);
        if self.readers.len() < before {
            for r in &mut self.readers {
                r.uncover(); // it may have been by that one
            }
        }
        self.readers.is_empty()
    }

    pub(crate) fn filters(&self) -> HashSet<Filter> {
        self.readers.iter().map(|r| r.filter.clone()).collect()
    }

    /// Nothing that is wanted lies at or before this offset.
    pub(crate) fn lowest(&self) -> u64 {
        let read = self.readers.iter().filter(|r| !matches!(r.ahead, Ahead::Covered));
        read.map(|r| r.cursor).min().unwrap_or(u64::MAX)
    }

    /// Does any of them stand behind this offset? Then it was given more than is known here.
    pub(crate) fn is_ahead_of(&self, offset: u64) -> bool {
        self.readers.iter().any(|r| r.cursor > offset)
    }

    /// What comes next must be had from where? To be asked when all that could be given was.
    pub(crate) fn wants(&mut self, in_memory: impl Fn(u64) -> bool) -> Wants {
        loop {
            if in_memory(self.lowest()) {
                return Wants::Memory;
            }
            let unknown = self.readers.iter().enumerate().filter(|(_, r)| matches!(r.ahead, Ahead::Nothing));
            // of those that stand together the shortest: no filter is longer than one that it covers
            let first = unknown.min_by_key(|(_, r)| (r.cursor, r.filter.as_str().len()));
            let Some((n, r)) = first else { return Wants::Room };
            let known = self.known();
            if r.cursor > known || self.readers.iter().filter_map(Reader::next).any(|next| next <= known) {
                return Wants::Room;
            }
            let covers = |q: &Reader| q.cursor <= r.cursor && q.filter.covers(&r.filter);
            let covered = self.readers.iter().enumerate().any(|(i, q)| i != n && covers(q));
            if !covered {
                return Wants::Page(r.filter.clone(), r.cursor);
            }
            self.readers[n].ahead = Ahead::Covered;
        }
    }

    /// A page that was asked for, of which what lies behind `to` does not count. False: nobody here asked for it, or
    /// nobody any more.
    pub(crate) fn came(&mut self, filter: &Filter, after: u64, page: &Arc<Page>, to: u64) -> bool {
        let asked = |r: &Reader| r.filter == *filter && r.cursor == after && r.ahead.is_nothing();
        let Some(n) = self.readers.iter().position(asked) else { return false };
        for (i, r) in self.readers.iter_mut().enumerate() {
            if i != n && after <= r.cursor && filter.covers(&r.filter) {
                r.ahead = Ahead::Covered;
            }
        }
        let next = page.entries.partition_point(|e| e.position.offset <= after);
        self.readers[n].turn_to(page, next, to);
        true
    }

    /// Shows what can be given, by rising offsets, until `show` says that there is no more room. True: there was room
    /// for all.
    pub(crate) fn give(&mut self, mut show: impl FnMut(&Relayed) -> bool) -> bool {
        let pages: Vec<_> = self.readers.iter_mut().map(Reader::page).collect();
        let rests = self.readers.iter().enumerate();
        let mut heap: BinaryHeap<_> = rests.filter_map(|(i, r)| Some(Reverse((r.next()?, i)))).collect();
        let mut known = self.known();
        // what stands right behind what is known of a filter is known, too: its topic says whether it matches
        while let Some(&Reverse((offset, first))) = heap.peek().filter(|e| e.0.0 <= known.saturating_add(1)) {
            let room = match (&pages[first], &self.readers[first].ahead) {
                (Some(page), Ahead::Page(rest)) => show(&page.entries[rest.next]),
                _ => true,
            };
            // given once, whoever has it
            while let Some(&Reverse((_, i))) = heap.peek().filter(|e| e.0.0 == offset) {
                heap.pop();
                let page = pages[i].as_ref();
                heap.extend(page.and_then(|p| self.readers[i].go_on(p)).map(|next| Reverse((next, i))));
            }
            if !room {
                self.pass(offset);
                return false;
            }
            if offset > known {
                self.pass(offset);
                known = self.known();
            }
        }
        self.pass(known);
        true
    }

    /// What is read from memory: who wants what lies behind which offset.
    pub(crate) fn wanted(&self) -> Routes<u64> {
        let mut routes = Routes::default();
        for r in &self.readers {
            routes.entry(&r.filter, || r.cursor);
        }
        routes
    }

    /// Everything up to here was given, from memory.
    pub(crate) fn took(&mut self, offset: u64) {
        for r in &mut self.readers {
            r.cursor = r.cursor.max(offset);
            if !matches!(r.ahead, Ahead::Covered) {
                r.ahead = Ahead::Nothing;
            }
        }
    }

    /// All that its filters match is known up to here.
    fn known(&self) -> u64 {
        self.readers.iter().map(Reader::known).min().unwrap_or(u64::MAX)
    }

    fn pass(&mut self, offset: u64) {
        for r in &mut self.readers {
            r.cursor = r.cursor.max(offset);
        }
    }
}

impl Ahead {
    fn is_nothing(&self) -> bool {
        matches!(self, Ahead::Nothing)
    }
}

impl Reader {
    fn known(&self) -> u64 {
        match &self.ahead {
            Ahead::Nothing => self.cursor,
            Ahead::Page(rest) => rest.to,
            Ahead::Covered => u64::MAX,
        }
    }

    /// The offset of what its page has next.
    fn next(&self) -> Option<u64> {
        match &self.ahead {
            Ahead::Page(rest) => Some(rest.offset),
            Ahead::Nothing | Ahead::Covered => None,
        }
    }

    /// The page that it has; one that is gone is forgotten, but for the offset of what came next in it.
    fn page(&mut self) -> Option<Arc<Page>> {
        let Ahead::Page(rest) = &self.ahead else { return None };
        let page = rest.page.upgrade();
        if page.is_none() {
            self.cursor = self.cursor.max(rest.offset - 1);
            self.ahead = Ahead::Nothing;
        }
        page
    }

    /// It stands before an entry of a page: what lies before that was given.
    fn turn_to(&mut self, page: &Arc<Page>, next: usize, to: u64) {
        let offset = page.entries.get(next).map(|e| e.position.offset).filter(|offset| *offset <= to);
        match offset {
            Some(offset) => {
                self.ahead = Ahead::Page(Rest { page: Arc::downgrade(page), next, offset, to });
            }
            None => {
                self.cursor = self.cursor.max(to);
                self.ahead = Ahead::Nothing;
            }
        }
    }

    /// The next entry of its page was given. Answers the offset of the one behind it.
    fn go_on(&mut self, page: &Arc<Page>) -> Option<u64> {
        let Ahead::Page(Rest { next, to, .. }) = self.ahead else { return None };
        self.turn_to(page, next + 1, to);
        self.next()
    }

    fn uncover(&mut self) {
        if matches!(self.ahead, Ahead::Covered) {
            self.ahead = Ahead::Nothing;
        }
    }
}

#[cfg(test)]
mod tests;
