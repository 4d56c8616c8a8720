//! The sessions of a shard: how they begin, where they are registered, and how they end.
//!
//! A session is registered (its log, the shard's list, the interest table, its lane) before its answer is written;
//! whatever ends it, its task is dropped, and that takes it out of everything.

use crate::encode::Encoding;
use crate::inbox::{Assignment, StreamOpening};
use crate::log::Log;
use crate::opening::{Mode, Opening, Role, Start};
use crate::pattern::Pattern;
use crate::peers::Sender;
use crate::session::replay::replay;
use crate::session::serve::Serve;
use crate::session::sink::Sink;
use crate::session::{Parts, Pulling, Session};
use crate::shard::Shard;
use crate::work::{Load, Puller};
use minium_protocol::{CloseCode, Filter, Position, Topic};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use tokio::net::TcpStream;
use tokio::time::Instant;

impl Shard {
    /// Registers the session, then answers 101.
    pub(crate) fn open(&self, o: Opening) {
        let Some(me) = self.me.upgrade().filter(|_| self.ends.get().is_none()) else { return };
        let Ok(sink) = Sink::new(o.socket) else { return };
        sink.tcp().inspect(|socket| self.tune(socket));
        let encoding = Encoding::from(o.mode);
        let mut parts = Parts { answer: o.answer, ping_at: self.first_ping(), ..Parts::default() };
        if !self.take_role(o.role, o.mode, &o.filter, &mut parts) {
            tracing::warn!(remote = %o.remote, "A session that sends has a filter for topic.");
            return;
        }
        let s = Session::new(sink, encoding, parts, o.permit);
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

    pub(crate) fn subscribe(&self, o: StreamOpening) {
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

    pub(crate) fn assign(&self, a: Assignment) {
        let session = self.pullers.borrow().get(&a.puller).cloned();
        let refused = match session {
            Some(s) => s.assign(a.work).err(),
            None => Some(a.work),
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

    /// Reads history into a session that has a [`crate::session::replay::Replay`].
    pub(crate) fn begin_replay(&self, s: &Rc<Session>) {
        if let Some(me) = self.me.upgrade() {
            tokio::task::spawn_local(replay(Rc::downgrade(s), me));
        }
    }
}
