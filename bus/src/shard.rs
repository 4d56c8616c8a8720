//! One thread with a runtime of its own: its sockets, its part of the topics, its logs. Nothing of it is shared.
//!
//! What comes from outside comes by the inbox. [`Shard::drive`] takes it, then walks the logs that have something
//! new; each session has a small task that waits for its socket; [`crate::upkeep`] looks after all of them.

use crate::encode::Encoding;
use crate::hub::Hub;
use crate::inbox::{Assignment, Item, StreamOpening};
use crate::log::{Limits, Log, Place};
use crate::opening::{Mode, Opening, Role, Start};
use crate::options::Slow;
use crate::pattern::Pattern;
use crate::peers::Sender;
use crate::publish::{Batch, Burst, batch_bytes};
use crate::session::replay::{Reads, replay};
use crate::session::serve::Serve;
use crate::session::sink::Sink;
use crate::session::{Parts, Pulling, Session};
use crate::shelf::Shelf;
use crate::work::{Load, Puller};
use metrics::Counter;
use minium_protocol::{CloseCode, Filter, Position, Topic};
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;
use tokio::net::TcpStream;
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
    pub(crate) lingering: RefCell<Vec<(Instant, Weak<Session>)>>,
    /// Logs whose publishers wait.
    pub(crate) crowds: RefCell<Vec<Rc<Log>>>,
    /// Sweeps so far.
    pub(crate) tick: Cell<u32>,
    /// When it ends at the latest, once it was told to.
    pub(crate) ends: Cell<Option<Instant>>,
    me: Weak<Shard>,
    limits: Rc<Limits>,
    dirty: RefCell<Vec<Rc<Log>>>,
    waker: Cell<Option<Waker>>,
    /// Publishers of this shard that wait for crowds to disperse.
    slowed: RefCell<Vec<Waker>>,
    /// Sessions that know more of the journal than was relayed yet.
    ahead: RefCell<Vec<Waker>>,
    pullers: RefCell<HashMap<u64, Rc<Session>>>,
    pullers_so_far: Cell<u64>,
    relayed: Cell<Option<Position>>,
    source: Arc<str>,
    published: [Counter; Pattern::ALL.len()],
    delivered: Counter,
}

impl Shard {
    pub(crate) fn new(id: usize, hub: Arc<Hub>, reads: Option<Arc<Reads>>) -> Rc<Shard> {
        let options = &hub.options;
        let limits = Rc::new(Limits {
            ring_bytes_max: options.ring_bytes_max,
            rings_bytes_max: options.rings_bytes_max / options.shards,
            replay: options.slow_durable == Slow::Replay && reads.is_some(),
            held: Cell::new(0),
        });
        let source = options.source.as_str().into();
        Rc::new_cyclic(|me| Shard {
            id,
            hub,
            reads,
            scratch: RefCell::new(vec![0; SCRATCH_BYTES]),
            burst: RefCell::default(),
            shelf: RefCell::default(),
            sessions: RefCell::default(),
            lingering: RefCell::default(),
            crowds: RefCell::default(),
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
            source,
            published: Pattern::ALL.map(|p| crate::metrics::published(p.as_str())),
            delivered: crate::metrics::delivered(),
        })
    }

    /// The shard's only loop: takes what came from outside, then walks the logs that have something new.
    pub(crate) async fn drive(self: Rc<Self>) {
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
            for log in logs.drain(..) {
                self.walk(&log).await;
            }
            tokio::task::consume_budget().await;
        }
        self.hub.inboxes[self.id].close();
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
                self.append(
                    batch.pattern,
                    &batch.topic,
                    batch.messages,
                    |e| batch.frames(e),
                    Encoding::Plain,
                );
            }
            Item::Relay(batch) => {
                for entry in &batch.entries {
                    self.relay(entry);
                }
                self.ahead.take().iter().for_each(Waker::wake_by_ref);
            }
            Item::RelayFrom(position) => self.relay_from(position),
            Item::Work(assignment) => self.assign(assignment),
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

    /// To every log whose filter matches, once. Answers where it stands in the one of `own`, the encoding in which
    /// the sender itself receives.
    pub(crate) fn append<'a>(
        &self,
        pattern: Pattern,
        topic: &Topic,
        messages: u32,
        frames: impl Fn(Encoding) -> &'a [u8],
        own: Encoding,
    ) -> Option<Place> {
        let mut at = None;
        let shelf = self.shelf.borrow();
        shelf.matching(pattern, topic, |logs| {
            for log in logs.iter().flatten() {
                let frames = frames(log.encoding);
                if frames.is_empty() {
                    continue; // it came after the sender had looked who is there
                }
                let place = log.append(frames, messages, None, |s| self.begin_replay(s));
                if log.encoding == own {
                    at = Some(place);
                }
                self.mark(log);
                self.judge_full(log);
            }
        });
        at
    }

    /// Brings a batch to another shard. False: it has no room, and `waker` hears when it has.
    pub(crate) fn send_frames(&self, shard: usize, batch: &Arc<Batch>, waker: &Waker) -> bool {
        self.hub.inboxes[shard].offer(|| Item::Frames(batch.clone()), batch_bytes(batch), waker)
    }

    pub(crate) fn count_published(&self, pattern: Pattern, messages: u32) {
        self.published[pattern as usize].increment(u64::from(messages));
    }

    pub(crate) fn count_delivered(&self, messages: u64) {
        self.delivered.increment(messages);
    }

    // Publishers that are too fast.

    /// Has it too much that is not delivered? Then publishers wait, here and in the other shards, until a walk has
    /// found out why.
    fn judge_full(&self, log: &Rc<Log>) {
        if !log.crowded.get() && log.is_full() && log.may_slow() {
            log.crowded.set(true);
            log.progress.set(0);
            log.idle_ticks.set(0);
            let mut crowds = self.crowds.borrow_mut();
            crowds.push(log.clone());
            if crowds.len() == 1 {
                self.hub.inboxes[self.id].pause(true);
            }
        }
    }

    /// Its publishers may go on.
    pub(crate) fn disperse(&self, log: &Rc<Log>) {
        if !log.crowded.replace(false) {
            return;
        }
        let mut crowds = self.crowds.borrow_mut();
        crowds.retain(|l| !Rc::ptr_eq(l, log));
        if crowds.is_empty() {
            self.hub.inboxes[self.id].pause(false);
            self.slowed.take().iter().for_each(Waker::wake_by_ref);
        }
    }

    /// Must a publisher wait? Then `waker` hears when it need not any more.
    pub(crate) fn is_crowded(&self, waker: &Waker) -> bool {
        if self.crowds.borrow().is_empty() {
            return false;
        }
        let mut slowed = self.slowed.borrow_mut();
        if !slowed.iter().any(|w| w.will_wake(waker)) {
            slowed.push(waker.clone());
        }
        true
    }

    // What the journal relays.

    fn relay(&self, entry: &crate::relay::Entry) {
        let position = entry.relayed.position;
        match self.relayed.get() {
            Some(p) if p.epoch == position.epoch && position.offset <= p.offset => return, // it came before
            Some(p) if p.epoch == position.epoch => {}
            _ => self.renumber(Position { offset: position.offset.saturating_sub(1), ..position }),
        }
        let shelf = self.shelf.borrow();
        shelf.matching(Pattern::Sub, &entry.relayed.topic, |logs| {
            for log in logs.iter().flatten() {
                let frames = if log.encoding == Encoding::Sse { entry.sse() } else { entry.frame() };
                log.append(frames, 1, Some(position.offset), |s| self.begin_replay(s));
                self.mark(log);
            }
        });
        self.relayed.set(Some(position));
    }

    fn relay_from(&self, position: Position) {
        match self.relayed.get() {
            Some(p) if p.epoch == position.epoch && position.offset <= p.offset => {}
            Some(p) if p.epoch == position.epoch => {
                // what lies between was never relayed, and nobody may miss it in silence
                for log in self.shelf.borrow().iter().filter(|l| l.is_durable()) {
                    let subscribers = log.subscribers.borrow();
                    subscribers.iter().for_each(|s| s.close(CloseCode::FellBehind, "the relay went ahead"));
                    log.renumber(position.offset);
                }
                self.relayed.set(Some(position));
            }
            _ => self.renumber(position),
        }
        self.ahead.take().iter().for_each(Waker::wake_by_ref);
    }

    /// The numbering begins, or begins anew: who was reading the old one must ask again.
    fn renumber(&self, position: Position) {
        for log in self.shelf.borrow().iter().filter(|l| l.is_durable()) {
            log.renumber(position.offset);
            log.subscribers.borrow().iter().for_each(|s| s.renumbered());
        }
        self.relayed.set(Some(position));
    }

    /// Everything up to this offset was appended.
    pub(crate) fn relayed_to(&self) -> u64 {
        self.relayed.get().map_or(0, |p| p.offset)
    }

    /// `waker` hears when more was.
    pub(crate) fn await_relay(&self, waker: &Waker) {
        self.ahead.borrow_mut().push(waker.clone());
    }

    /// Reads history into a session that has a [`crate::session::replay::Replay`].
    fn begin_replay(&self, s: &Rc<Session>) {
        if let Some(me) = self.me.upgrade() {
            tokio::task::spawn_local(replay(s.clone(), me));
        }
    }

    // Sessions.

    /// Registers the session, then answers 101.
    fn open(&self, o: Opening) {
        let Some(me) = self.me.upgrade().filter(|_| self.ends.get().is_none()) else { return };
        let Ok(socket) = TcpStream::from_std(o.socket) else { return };
        self.tune(&socket);
        let encoding = Encoding::from(o.mode);
        let mut parts = Parts { answer: o.answer, ping_at: self.first_ping(), ..Parts::default() };
        if !self.take_role(o.role, o.mode, &o.filter, &mut parts) {
            tracing::warn!(remote = %o.remote, "A session that sends has a filter for topic.");
            return;
        }
        let s = Session::new(Sink::Socket(socket), encoding, parts, o.permit);
        self.register(&s, o.role);
        self.begin_at(&s, o.start.filter(|_| o.role == Role::Subscribe));
        if !o.leftover.is_empty() {
            s.feed(&o.leftover, self, Waker::noop());
        }
        s.push(self);
        tokio::task::spawn_local(Serve(s, me));
    }

    fn tune(&self, socket: &TcpStream) {
        // best effort: without these a session is slower, not wrong
        let unsent = self.hub.options.unsent_bytes_max;
        drop(socket.set_nodelay(true));
        if unsent > 0 {
            drop(socket2::SockRef::from(socket).set_tcp_notsent_lowat(unsent.min(u32::MAX as usize) as u32));
        }
    }

    /// What a role needs. False: it needs a topic, and this is a filter.
    fn take_role(&self, role: Role, mode: Mode, filter: &Filter, parts: &mut Parts) -> bool {
        let sends = match role {
            Role::Subscribe => None,
            Role::Publish => Some((Pattern::Sub, false)),
            Role::Peer { echo } => Some((Pattern::Bus, echo)),
            Role::Push | Role::Pull => Some((Pattern::Push, false)),
        };
        if let Some((pattern, echo)) = sends {
            let Ok(topic) = filter.as_str().parse::<Topic>() else { return false };
            if role == Role::Pull {
                parts.puller = Some(self.pulling(&topic));
            } else {
                parts.sender = Some(Box::new(Sender::new(&self.hub, pattern, topic, mode, echo)));
            }
        }
        parts.log = match role {
            Role::Subscribe => Some(self.log(Pattern::Sub, filter, mode.into())),
            Role::Peer { .. } => Some(self.log(Pattern::Bus, filter, mode.into())),
            Role::Publish | Role::Push | Role::Pull => None,
        };
        true
    }

    fn pulling(&self, topic: &Topic) -> Box<Pulling> {
        let n = self.pullers_so_far.replace(self.pullers_so_far.get() + 1);
        Box::new(Pulling {
            id: n * self.hub.inboxes.len() as u64 + self.id as u64,
            json: self.hub.schemas.governing(Pattern::Push, topic.as_str()).is_some(),
            topic: topic.shared(),
            load: Arc::new(Load::default()),
            source: self.source.clone(),
            queue: VecDeque::new(),
            going: 0,
            gone: 0,
        })
    }

    /// From here on the session gets what is sent.
    fn register(&self, s: &Rc<Session>, role: Role) {
        let mut sessions = self.sessions.borrow_mut();
        s.set_place(sessions.len());
        sessions.push(s.clone());
        drop(sessions);
        if let Some(log) = s.log() {
            log.add(s);
            log.echoers.set(log.echoers.get() + u32::from(role == Role::Peer { echo: true }));
        }
        if let Some((topic, id, load)) = s.puller() {
            self.pullers.borrow_mut().insert(id, s.clone());
            self.hub.lanes.join(&self.hub, &topic, Puller { id, shard: self.id, load });
        }
    }

    /// From a position on: by history first.
    fn begin_at(&self, s: &Rc<Session>, start: Option<Start>) {
        let Some(start) = start else { return };
        match self.relayed.get() {
            Some(p) if p.epoch == start.epoch && self.reads.is_some() => {
                s.begin_replay(start.after, p.offset);
                self.begin_replay(s);
            }
            _ => s.close(CloseCode::FellBehind, "epoch_changed"),
        }
    }

    fn subscribe(&self, o: StreamOpening) {
        let Some(me) = self.me.upgrade().filter(|_| self.ends.get().is_none()) else { return };
        let log = self.log(Pattern::Sub, &o.filter, Encoding::Sse);
        let durable = log.is_durable();
        let parts = Parts { log: Some(log), ping_at: self.first_ping(), ..Parts::default() };
        let s = Session::new(Sink::Stream(o.pipe), Encoding::Sse, parts, o.permit);
        self.register(&s, Role::Subscribe);
        if let (true, Some(position)) = (durable, self.relayed.get()) {
            s.tell_position(Position { offset: o.start.map_or(position.offset, |s| s.after), ..position });
        }
        self.begin_at(&s, o.start);
        s.push(self);
        if o.ready.send(()).is_err() {
            s.cut(); // who asked is gone by now
        }
        tokio::task::spawn_local(Serve(s, me));
    }

    /// The log of a filter, made and announced if there is none.
    fn log(&self, pattern: Pattern, filter: &Filter, encoding: Encoding) -> Rc<Log> {
        let durable = pattern == Pattern::Sub && self.hub.options.is_durable(filter.as_str());
        let relayed = durable.then(|| self.relayed_to());
        let make = || Log::new(pattern, filter.clone(), encoding, self.limits.clone(), relayed);
        let (log, made) = self.shelf.borrow_mut().log(pattern, filter, encoding, make);
        if made {
            self.hub.set_interest(pattern, filter, encoding, self.id, true);
        }
        log
    }

    fn assign(&self, a: Assignment) {
        let session = self.pullers.borrow().get(&a.puller).cloned();
        let refused = match session {
            Some(s) => s.assign(a.message).err(),
            None => Some(a.message),
        };
        if refused.is_some() {
            self.hub.lanes.give_back(&self.hub, &a.topic, refused.into_iter());
        }
    }

    /// A puller takes no more: the others get what it had not begun to receive.
    pub(crate) fn retire(&self, puller: &mut Option<Box<Pulling>>) {
        let Some(p) = puller.take() else { return };
        self.pullers.borrow_mut().remove(&p.id);
        self.hub.lanes.leave(&p.topic, p.id);
        if !p.queue.is_empty() {
            self.hub.lanes.give_back(&self.hub, &p.topic, p.queue.into_iter());
        }
    }

    /// The session must end by itself soon.
    pub(crate) fn linger(&self, s: &Rc<Session>) {
        let until = Instant::now() + self.hub.options.linger;
        self.lingering.borrow_mut().push((until, Rc::downgrade(s)));
    }

    /// Takes a session out of everything. Called when its task is dropped, and by nobody else.
    pub(crate) fn ended(&self, s: &Rc<Session>) {
        let mut left = s.leave();
        self.retire(&mut left.puller);
        if let Some(log) = s.log() {
            log.echoers.set(log.echoers.get() - u32::from(left.echo));
            if log.remove(left.index) {
                self.disperse(log);
                self.shelf.borrow_mut().remove(log);
                self.hub.set_interest(log.pattern, &log.filter, log.encoding, self.id, false);
            } else {
                self.mark(log); // what only this one held back is forgotten
            }
        }
        let mut sessions = self.sessions.borrow_mut();
        sessions.swap_remove(left.place);
        if let Some(moved) = sessions.get(left.place) {
            moved.set_place(left.place);
        }
        drop(sessions);
        crate::metrics::closed(left.code);
        if self.ends.get().is_some() {
            self.wake();
        }
    }

    fn shut_down(&self, grace: Duration) {
        self.ends.set(Some(Instant::now() + grace));
        for s in self.sessions.borrow().iter() {
            s.close(CloseCode::GoingAway, "the node goes down");
        }
    }
}
