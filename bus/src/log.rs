//! What those get who follow the same filters in the same encoding, in one shard.
//!
//! A message is appended once; each subscriber has a cursor. The log is bounded: whoever is still behind when a
//! segment goes loses its place, and the session decides what becomes of it. Before that, publishers are slowed as
//! long as most subscribers are behind and somebody makes progress: then it is not one slow client, it is too much.

use crate::encode::Encoding;
use crate::follow::Follow;
use crate::pattern::Pattern;
use crate::ring::{Marks, Ring, SEGMENT_BYTES};
use crate::session::Session;
use metrics::Counter;
use minium_protocol::Topic;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// Bounds of all logs of a shard, and what they hold together.
#[derive(Debug)]
pub(crate) struct Limits {
    pub(crate) ring_bytes_max: usize,
    pub(crate) rings_bytes_max: usize,
    pub(crate) held: Cell<usize>,
}

pub(crate) struct Log {
    /// What goes into it, in order and without doubles.
    pub(crate) follows: Box<[Follow]>,
    pub(crate) encoding: Encoding,
    limits: Rc<Limits>,
    /// What its filters had in common when it was made: channels may be configured otherwise later.
    pub(crate) kind: Kind,
    /// Of the last message that went in: one that matches several of its filters goes in once.
    stamp: Cell<u64>,
    pub(crate) ring: RefCell<Ring>,
    pub(crate) subscribers: RefCell<Vec<Rc<Session>>>,
    /// Offsets of what it holds, for filters of durable topics.
    marks: Option<RefCell<Marks>>,
    /// Peers that get their own messages, too: after the others.
    pub(crate) echoers: Cell<u32>,
    /// It will be walked in this turn.
    pub(crate) dirty: Cell<bool>,
    /// It was used since the last sweep.
    pub(crate) hot: Cell<bool>,
    /// A subscriber left: the walk may have missed the one that took its place.
    pub(crate) moved: Cell<bool>,
    /// Its publishers wait.
    pub(crate) crowded: Cell<bool>,
    /// They waited long enough: nobody made progress.
    pub(crate) impatient: Cell<bool>,
    /// Bytes that left since the last look.
    pub(crate) progress: Cell<u64>,
    /// Sweeps in which its publishers waited and nothing left.
    pub(crate) idle_ticks: Cell<u32>,
    /// Messages that left since they were last counted.
    pub(crate) delivered: Cell<u64>,
    counter: Counter,
}

/// What all filters of a log have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Kind {
    /// All of them are durable: a subscriber can come back to a position.
    pub(crate) resumable: bool,
    /// Slow subscribers of all of them read on from the journal.
    pub(crate) replays: bool,
}

/// Where something was appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// Messages before it; wraps.
    pub(crate) before: u32,
    pub(crate) messages: u32,
}

impl Log {
    /// `relayed`: when durable filters are among them, the offset up to which everything was relayed before this log
    /// began. `counter` counts what leaves.
    pub(crate) fn new(
        follows: Box<[Follow]>,
        encoding: Encoding,
        limits: Rc<Limits>,
        relayed: Option<u64>,
        kind: Kind,
        counter: Counter,
    ) -> Log {
        Log {
            follows,
            encoding,
            limits,
            kind,
            stamp: Cell::new(0),
            ring: RefCell::default(),
            subscribers: RefCell::default(),
            marks: relayed.map(|offset| RefCell::new(Marks::new(0, offset))),
            echoers: Cell::new(0),
            dirty: Cell::new(false),
            hot: Cell::new(false),
            moved: Cell::new(false),
            crowded: Cell::new(false),
            impatient: Cell::new(false),
            progress: Cell::new(0),
            idle_ticks: Cell::new(0),
            delivered: Cell::new(0),
            counter,
        }
    }

    /// Counts what left.
    pub(crate) fn count(&self) {
        self.counter.increment(self.delivered.take());
    }

    /// Are there offsets in it?
    pub(crate) fn is_durable(&self) -> bool {
        self.marks.is_some()
    }

    /// Takes the stamp of a message. False: it has it already.
    pub(crate) fn is_new(&self, stamp: u64) -> bool {
        self.follows.len() == 1 || self.stamp.replace(stamp) != stamp
    }

    /// Does what is sent to this topic go into it?
    pub(crate) fn concerns(&self, pattern: Pattern, topic: &Topic) -> bool {
        self.follows.iter().any(|f| f.concerns(pattern, topic))
    }

    /// Appends whole frames; for durable ones with their offset. Sessions that lose their place are shown.
    pub(crate) fn append(
        &self,
        frames: &[u8],
        messages: u32,
        offset: Option<u64>,
        lost: impl Fn(&Rc<Session>),
    ) -> Place {
        let mut ring = self.ring.borrow_mut();
        let (start, before, had) = (ring.end(), ring.messages(), ring.held());
        if let (Some(marks), Some(offset)) = (&self.marks, offset) {
            marks.borrow_mut().add(start, offset);
        }
        ring.append(frames, messages);
        self.hot.set(true);
        let over = self.limits.held.get() > self.limits.rings_bytes_max;
        let limit = if over { SEGMENT_BYTES } else { self.limits.ring_bytes_max };
        while ring.held() > limit {
            let Some((old, first)) = ring.evict() else { break };
            for s in self.subscribers.borrow().iter() {
                if s.lagged(self, &old, first, &ring) {
                    lost(s);
                }
            }
            if let Some(marks) = &self.marks {
                marks.borrow_mut().forget(first);
            }
        }
        self.account(had, ring.held());
        Place { start, end: ring.end(), before, messages }
    }

    /// Everybody has what lies before `min`.
    pub(crate) fn forget(&self, min: u64) {
        let mut ring = self.ring.borrow_mut();
        let had = ring.held();
        ring.forget(min);
        self.account(had, ring.held());
        if let Some(marks) = &self.marks {
            marks.borrow_mut().forget(min.min(ring.end()));
        }
    }

    /// Nobody used it for a while.
    pub(crate) fn cool(&self) {
        self.ring.borrow_mut().shrink();
        if let Some(marks) = &self.marks {
            marks.borrow_mut().shrink();
        }
    }

    fn account(&self, had: usize, has: usize) {
        self.limits.held.set(self.limits.held.get() + has - had);
    }

    /// The last offset wholly before `pos`; nothing when there is none in the numbering that holds now.
    pub(crate) fn offset_before(&self, pos: u64) -> Option<u64> {
        self.marks.as_ref()?.borrow().before(pos)
    }

    /// The numbering begins anew: offsets from before mean nothing any more.
    pub(crate) fn renumber(&self, offset: u64) {
        if let Some(marks) = &self.marks {
            *marks.borrow_mut() = Marks::new(self.ring.borrow().end(), offset);
        }
    }

    /// Half of what it may hold: from here on publishers are slowed.
    pub(crate) fn is_full(&self) -> bool {
        self.ring.borrow().held() > self.limits.ring_bytes_max / 2
    }

    /// Is a subscriber at `pos` among those whom it waits for?
    pub(crate) fn is_behind(&self, pos: u64, end: u64) -> bool {
        pos.saturating_add(self.limits.ring_bytes_max as u64 / 4) < end
    }

    /// Did enough leave since the last look? A trickle does not count, or one slow client would slow everybody.
    pub(crate) fn makes_progress(&self) -> bool {
        self.progress.take() >= self.limits.ring_bytes_max as u64 / 16
    }

    /// May publishers be made to wait? The journal's relay never is: what it brings can be read again.
    pub(crate) fn may_slow(&self) -> bool {
        !self.impatient.get() && !self.kind.replays
    }

    pub(crate) fn add(&self, s: &Rc<Session>) {
        let mut subscribers = self.subscribers.borrow_mut();
        s.joined(subscribers.len(), &self.ring.borrow());
        subscribers.push(s.clone());
    }

    /// True when that was the last one.
    pub(crate) fn remove(&self, index: usize) -> bool {
        let mut subscribers = self.subscribers.borrow_mut();
        subscribers.swap_remove(index);
        if let Some(s) = subscribers.get(index) {
            s.moved_to(index);
        }
        self.moved.set(true);
        subscribers.is_empty()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let held = self.ring.get_mut().held();
        self.account(held, 0);
    }
}
