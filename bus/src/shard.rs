//! One thread with a runtime of its own: its sockets, its part of the topics, its logs. Nothing of it is shared.
//!
//! What comes from outside comes by the inbox. [`Shard::drive`] takes it, then walks the logs that have something
//! new; each session has a small task that waits for its socket; [`crate::upkeep`] looks after all of them.

use crate::encode::Encoding;
use crate::hub::Hub;
use crate::inbox::{Inbox, Item};
use crate::log::{Limits, Log, Place};
use crate::pattern::Pattern;
use crate::publish::{Batch, Burst, batch_bytes};
use crate::reads::Reads;
use crate::recent::Recent;
use crate::seats::Seat;
use crate::session::Session;
use crate::shelf::Shelf;
use metrics::Histogram;
use minium_protocol::{Answer, CloseCode, Position, Topic};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;
use tokio::time::Instant;

/// One read takes at most so much.
const SCRATCH_BYTES: usize = 64 * 1024;

pub(crate) struct Shard {
    pub(crate) id: usize,
    pub(crate) hub: Arc<Hub>,
    pub(crate) reads: Option<Arc<Reads>>,
    pub(crate) scratch: RefCell<Vec<u8>>,
    pub(crate) burst: RefCell<Burst>,
    pub(crate) shelf: RefCell<Shelf>,
    pub(crate) sessions: RefCell<Vec<Rc<Session>>>,
    /// Of each session, in the same order.
    pub(crate) seats: RefCell<Vec<Seat>>,
    pub(crate) lingering: RefCell<Vec<(Instant, Weak<Session>)>>,
    /// Logs whose publishers wait.
    pub(crate) crowds: RefCell<Vec<Rc<Log>>>,
    /// What its sessions have half read.
    pub(crate) half_read: Cell<usize>,
    /// Sweeps so far.
    pub(crate) tick: Cell<u32>,
    /// When it ends at the latest, once it was told to.
    pub(crate) ends: Cell<Option<Instant>>,
    pub(crate) me: Weak<Shard>,
    pub(crate) limits: Rc<Limits>,
    dirty: RefCell<Vec<Rc<Log>>>,
    waker: Cell<Option<Waker>>,
    /// Publishers of this shard that wait for crowds to disperse.
    slowed: RefCell<Vec<Waker>>,
    /// Sessions that know more of the journal than was relayed yet.
    pub(crate) ahead: RefCell<Vec<Waker>>,
    pub(crate) pullers: RefCell<HashMap<u64, Rc<Session>>>,
    pub(crate) pullers_so_far: Cell<u64>,
    pub(crate) relayed: Cell<Option<Position>>,
    pub(crate) recent: RefCell<Recent>,
    /// Messages that were appended so far.
    stamps: Cell<u64>,
    pub(crate) source: Arc<str>,
    /// When the first of what is to be walked was taken.
    taken: Cell<Option<Instant>>,
    delivery: Histogram,
}

/// Whatever ends a shard, nobody shall wait for it.
struct Closing<'a>(&'a Inbox);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Shard {
    pub(crate) fn new(id: usize, hub: Arc<Hub>, reads: Option<Arc<Reads>>) -> Rc<Shard> {
        let options = &hub.options;
        let limits = Rc::new(Limits {
            ring_bytes_max: options.ring_bytes_max,
            rings_bytes_max: options.rings_bytes_max / options.shards,
            held: Cell::new(0),
        });
        let source = options.source.as_str().into();
        let recent_bytes_max = options.recent_bytes_max;
        Rc::new_cyclic(|me| Shard {
            id,
            hub,
            reads,
            scratch: RefCell::new(vec![0; SCRATCH_BYTES]),
            burst: RefCell::default(),
            shelf: RefCell::default(),
            sessions: RefCell::default(),
            seats: RefCell::default(),
            lingering: RefCell::default(),
            crowds: RefCell::default(),
            half_read: Cell::new(0),
            tick: Cell::new(0),
            ends: Cell::new(None),
            me: me.clone(),
            limits,
            dirty: RefCell::default(),
            waker: Cell::default(),
            slowed: RefCell::default(),
            ahead: RefCell::default(),
            pullers: RefCell::default(),
            pullers_so_far: Cell::new(0),
            relayed: Cell::new(None),
            recent: RefCell::new(Recent::new(recent_bytes_max)),
            stamps: Cell::new(0),
            source,
            taken: Cell::new(None),
            delivery: crate::metrics::delivery(),
        })
    }

    /// The shard's only loop: takes what came from outside, then walks the logs that have something new.
    pub(crate) async fn drive(self: Rc<Self>) {
        let _end = Closing(&self.hub.inboxes[self.id]);
        let (mut items, mut logs) = (Vec::new(), Vec::new());
        while !self.is_done() {
            self.something(&mut items).await;
            for item in items.drain(..) {
                // a fault in one item must not take the others' sessions with it
                if catch_unwind(AssertUnwindSafe(|| self.take(item))).is_err() {
                    tracing::error!(shard = self.id, "An item panicked.");
                }
            }
            mem::swap(&mut *self.dirty.borrow_mut(), &mut logs);
            let taken = self.taken.take().filter(|_| !logs.is_empty());
            for log in logs.drain(..) {
                self.walk(&log).await;
            }
            // one figure for all of it, so that a message costs nothing
            if let Some(taken) = taken {
                self.delivery.record(taken.elapsed());
            }
            tokio::task::consume_budget().await;
        }
    }

    async fn something(&self, items: &mut Vec<Item>) {
        poll_fn(|cx| {
            let came = self.hub.inboxes[self.id].poll_take(cx, items).is_ready();
            if came || !self.dirty.borrow().is_empty() || self.is_done() {
                return Poll::Ready(());
            }
            self.waker.set(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    fn is_done(&self) -> bool {
        self.ends.get().is_some_and(|at| self.sessions.borrow().is_empty() || Instant::now() >= at)
    }

    /// The loop looks again.
    pub(crate) fn wake(&self) {
        self.waker.take().inspect(Waker::wake_by_ref);
    }

    fn take(&self, item: Item) {
        match item {
            Item::Frames(batch) => {
                self.note_taken(batch.taken);
                self.append(batch.pattern, &batch.topic, batch.messages, |e| batch.frames(e), None);
            }
            Item::Relay(batch) => self.relay_batch(batch),
            Item::RelayFrom(position) => self.relay_from(position),
            Item::Work(assignment) => self.assign(assignment),
            Item::Job(puller, place, job) => self.give(puller, place, *job),
            Item::Cancelled(puller, job) => self.tell_cancelled(puller, job),
            Item::Ask(question) => question(self),
            Item::Review(review) => self.review(&*review),
            Item::Open(opening) => self.open(*opening),
            Item::Subscribe(opening) => self.subscribe(*opening),
            Item::Shutdown(grace) => self.shut_down(grace),
        }
    }

    // What is sent.

    /// The log will be walked in this turn.
    pub(crate) fn mark(&self, log: &Rc<Log>) {
        if !log.dirty.replace(true) {
            self.dirty.borrow_mut().push(log.clone());
            self.wake();
        }
    }

    /// To every log that it concerns, once. Answers where it stands in `own`, which the sender itself reads.
    pub(crate) fn append<'a>(
        &self,
        pattern: Pattern,
        topic: &Topic,
        messages: u32,
        frames: impl Fn(Encoding) -> &'a [u8],
        own: Option<&Rc<Log>>,
    ) -> Option<Place> {
        let mut at = None;
        let stamp = self.next_stamp();
        let shelf = self.shelf.borrow();
        shelf.matching(pattern, topic, |log| {
            let frames = frames(log.encoding);
            // empty: it came after the sender had looked who is there
            if frames.is_empty() || !log.is_new(stamp) {
                return;
            }
            let place = log.append(frames, messages, None, |s| self.lost(s));
            if own.is_some_and(|own| Rc::ptr_eq(own, log)) {
                at = Some(place);
            }
            self.mark(log);
            self.judge_full(log);
        });
        at
    }

    /// Something came at this time that this turn walks.
    pub(crate) fn note_taken(&self, at: Instant) {
        self.taken.set(Some(self.taken.get().map_or(at, |first| first.min(at))));
    }

    /// The same for what a session of this shard has just read.
    pub(crate) fn note_taken_now(&self) {
        if self.taken.get().is_none() {
            self.taken.set(Some(Instant::now()));
        }
    }

    /// Tells one message from the next.
    pub(crate) fn next_stamp(&self) -> u64 {
        self.stamps.set(self.stamps.get() + 1);
        self.stamps.get()
    }

    /// Brings a batch to another shard. False: it has no room, and `waker` hears when it has.
    pub(crate) fn send_frames(&self, shard: usize, batch: &Arc<Batch>, waker: &Waker) -> bool {
        let to = Some((batch.pattern, &batch.topic));
        self.hub.inboxes[shard].offer(|| Item::Frames(batch.clone()), batch_bytes(batch), to, waker)
    }

    // Publishers that are too fast.

    /// Has it too much that is not delivered? Then publishers wait, here and in the other shards, until a walk has
    /// found out why.
    fn judge_full(&self, log: &Rc<Log>) {
        if !log.crowded.get() && log.is_full() && log.may_slow() {
            log.crowded.set(true);
            log.progress.set(0);
            log.idle_ticks.set(0);
            self.crowds.borrow_mut().push(log.clone());
            self.announce_crowds();
        }
    }

    /// Its publishers may go on.
    pub(crate) fn disperse(&self, log: &Rc<Log>) {
        if !log.crowded.replace(false) {
            return;
        }
        self.crowds.borrow_mut().retain(|l| !Rc::ptr_eq(l, log));
        self.announce_crowds();
        self.slowed.take().iter().for_each(Waker::wake_by_ref);
    }

    fn announce_crowds(&self) {
        let crowds = self.crowds.borrow();
        self.hub.inboxes[self.id]
            .set_crowded(crowds.iter().flat_map(|l| l.follows.iter().cloned()).collect());
    }

    /// Must who sends to this topic wait? Then `waker` hears when it may be tried again.
    pub(crate) fn is_crowded(&self, pattern: Pattern, topic: &Topic, waker: &Waker) -> bool {
        let concerns = |log: &Rc<Log>| log.concerns(pattern, topic);
        if !self.crowds.borrow().iter().any(concerns) {
            return false;
        }
        let mut slowed = self.slowed.borrow_mut();
        if !slowed.iter().any(|w| w.will_wake(waker)) {
            slowed.push(waker.clone());
        }
        true
    }

    fn shut_down(&self, grace: Duration) {
        self.ends.set(Some(Instant::now() + grace));
        for s in self.sessions.borrow().iter() {
            s.tell(&Answer::Drain);
            s.close(CloseCode::GoingAway, "the node goes down");
        }
    }
}
