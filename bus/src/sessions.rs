//! The sessions of a shard: how they begin, where they are registered, and how they end.
//!
//! A session is registered (its log, the shard's list, the interest table, its lane) before its answer is written;
//! whatever ends it, its task is dropped, and that takes it out of everything.

use crate::allowance::Rate;
use crate::encode::Encoding;
use crate::grant::{Grant, Review, Revoked};
use crate::inbox::{Assignment, StreamOpening};
use crate::lanes::{Load, Puller};
use crate::opening::{Mode, Opening, Role, Start};
use crate::pattern::Pattern;
use crate::peers::{Own, Sender};
use crate::seats::Seat;
use crate::session::following::Sub;
use crate::session::jobs::{Acks, Jobs, Style};
use crate::session::serve::Serve;
use crate::session::sink::Sink;
use crate::session::{Parts, Pull, Session, Speech, Talk, Voice};
use crate::shard::Shard;
use crate::work::{LeasedJob, Order};
use minium_protocol::{Answer, CloseCode, Filter, LeaseToken, Position, Topic};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use thin_vec::ThinVec;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tracing::debug;

impl Shard {
    /// Registers the session, then answers 101.
    pub(crate) fn open(&self, o: Opening) {
        let Some(me) = self.me.upgrade().filter(|_| self.ends.get().is_none()) else { return };
        let Ok(sink) = Sink::new(o.socket) else { return };
        sink.tcp().inspect(|socket| self.tune(socket));
        let mut parts = Parts {
            answer: o.answer,
            ping_at: self.first_ping(),
            grant: o.grant,
            voice: voice(o.role, o.mode, &o.filter, self.hub.options.session_rate),
            ..Parts::default()
        };
        if let Role::Peer { echo } = o.role {
            parts.own = Some(Box::new(Own::new(echo)));
        }
        let s = Session::new(sink, Encoding::from(o.mode), parts, o.permit);
        self.register(&s, Seat::new(&self.hub, o.role, Some(o.remote)));
        self.take_role(&s, o.role, o.mode, o.filter, o.start);
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

    /// From here on the session gets what its role gets.
    fn take_role(&self, s: &Rc<Session>, role: Role, mode: Mode, filter: Filter, start: Option<Start>) {
        let answer = match role {
            Role::Subscribe => self.subscribe_first(s, filter, start),
            Role::Peer { .. } => {
                s.add_sub(Sub::new(self, Pattern::Bus, filter, 0));
                self.follow(s);
                Answer::ok(None)
            }
            Role::Pull { acks } => {
                let Ok(topic) = filter.as_str().parse::<Topic>() else { return };
                match self.pull_first(s, &topic, mode, acks) {
                    Ok(()) => Answer::ok(None),
                    Err(problem) => return s.refuse_role(&problem),
                }
            }
            Role::Publish | Role::Push | Role::Talk => return,
        };
        s.tell(&answer);
    }

    fn subscribe_first(&self, s: &Rc<Session>, filter: Filter, start: Option<Start>) -> Answer<'static> {
        let relayed = self.relayed.get();
        let Some(start) = start else {
            let sub = Sub::new(self, Pattern::Sub, filter, self.relayed_to());
            let position = relayed.filter(|_| sub.durable);
            s.add_sub(sub);
            self.follow(s);
            return position.map_or(Answer::ok(None), |p| Answer::at(None, p));
        };
        match relayed {
            Some(p) if p.epoch == start.epoch && self.reads.is_some() => {
                s.begin_at(Sub::new(self, Pattern::Sub, filter, start.after), self);
            }
            _ => s.close(CloseCode::FellBehind, "epoch_changed"),
        }
        Answer::at(None, Position { epoch: start.epoch, offset: start.after })
    }

    fn pull_first(
        &self,
        s: &Rc<Session>,
        topic: &Topic,
        mode: Mode,
        acks: bool,
    ) -> Result<(), minium_protocol::Problem> {
        let channel = self.hub.channels.governing(Pattern::Push, topic).filter(|c| c.durable);
        let Some(channel) = channel else {
            self.pull(s, topic);
            return Ok(());
        };
        let style = match (mode, acks) {
            (Mode::V1, _) => Style::Frames,
            (Mode::Plain | Mode::CloudEvents, true) => Style::Words,
            (Mode::Plain | Mode::CloudEvents, false) => Style::Written,
        };
        let order = Order { tasks: vec![topic.clone()], queue: None, lease: channel.lease, name: s.name() };
        let credit = (style == Style::Frames).then_some(1);
        s.pull_jobs(order, style, credit, self)
    }

    /// Takes messages of a channel that is not durable.
    pub(crate) fn pull(&self, s: &Rc<Session>, topic: &Topic) {
        let id = self.next_puller();
        let counter = crate::metrics::delivered(self.hub.channels.label(Pattern::Push, topic));
        let (topic, load) = (topic.shared(), Arc::new(Load::default()));
        s.add_pull(Pull {
            id,
            topic: topic.clone(),
            load: load.clone(),
            source: self.source.clone(),
            counter,
            queue: VecDeque::new(),
            going: 0,
            gone: 0,
        });
        self.know_puller(id, s);
        self.hub.lanes.join(&self.hub, &topic, Puller { id, shard: self.id, load });
    }

    /// A name for a puller, unlike any other of the node.
    pub(crate) fn next_puller(&self) -> u64 {
        let n = self.pullers_so_far.replace(self.pullers_so_far.get() + 1);
        n * self.hub.inboxes.len() as u64 + self.id as u64
    }

    /// What comes for this puller is for that session.
    pub(crate) fn know_puller(&self, id: u64, s: &Rc<Session>) {
        self.pullers.borrow_mut().insert(id, s.clone());
    }

    fn register(&self, s: &Rc<Session>, seat: Seat) {
        seat.span().in_scope(|| debug!("A session has begun."));
        self.seats.borrow_mut().push(seat);
        let mut sessions = self.sessions.borrow_mut();
        s.set_place(sessions.len());
        sessions.push(s.clone());
    }

    pub(crate) fn subscribe(&self, o: StreamOpening) {
        let Some(me) = self.me.upgrade().filter(|_| self.ends.get().is_none()) else { return };
        let parts = Parts { ping_at: self.first_ping(), grant: o.grant, ..Parts::default() };
        let s = Session::new(Sink::Stream(o.pipe), Encoding::Sse, parts, o.permit);
        self.register(&s, Seat::new(&self.hub, Role::Subscribe, o.remote));
        let durable = self.hub.channels.is_durable(Pattern::Sub, &o.filter);
        if let (true, Some(position)) = (durable, self.relayed.get()) {
            s.tell_position(o.start.map_or(position, |s| Position { epoch: s.epoch, offset: s.after }));
        }
        self.subscribe_first(&s, o.filter, o.start);
        s.push(self);
        if o.ready.send(()).is_err() {
            s.cut(); // who asked is gone by now
        }
        tokio::task::spawn_local(Serve(s, me));
    }

    pub(crate) fn assign(&self, a: Assignment) {
        let session = self.pullers.borrow().get(&a.puller).cloned();
        let refused = match session {
            Some(s) => s.assign(a.puller, a.work).err(),
            None => Some(a.work),
        };
        if refused.is_some() {
            self.hub.lanes.give_back(&self.hub, &a.topic, refused.into_iter());
        }
    }

    /// A job for a puller. When that is gone the job's lease runs out, and it goes to another.
    pub(crate) fn give(&self, puller: u64, place: usize, job: LeasedJob) {
        let session = self.pullers.borrow().get(&puller).cloned();
        let left = match session {
            Some(s) => s.give(place, job),
            None => Some(job),
        };
        if let Some(job) = left {
            self.give_jobs_back(vec![(job.id, job.lease)]);
        }
    }

    pub(crate) fn tell_cancelled(&self, puller: u64, job: i64) {
        let session = self.pullers.borrow().get(&puller).cloned();
        session.inspect(|s| s.cancelled(job));
    }

    /// A puller takes no more: the others get what it had not begun to receive.
    pub(crate) fn retire(&self, pulls: ThinVec<Pull>, jobs: Option<Box<Jobs>>) {
        for pull in pulls {
            self.pullers.borrow_mut().remove(&pull.id);
            self.hub.lanes.leave(&pull.topic, pull.id);
            if !pull.queue.is_empty() {
                self.hub.lanes.give_back(&self.hub, &pull.topic, pull.queue.into_iter());
            }
        }
        if let Some(mut jobs) = jobs {
            let (hub, written) = (self.hub.clone(), jobs.take_written());
            if !written.is_empty() {
                // nobody waits for the answer
                drop(self.hub.outside.spawn(async move { hub.outside.say_until_judged(written).await }));
            }
            self.pullers.borrow_mut().remove(&jobs.id);
            self.give_jobs_back(jobs.into_unwritten());
        }
    }

    /// Nobody has begun these.
    pub(crate) fn give_jobs_back(&self, jobs: Vec<(i64, LeaseToken)>) {
        if let (false, Ok(work)) = (jobs.is_empty(), self.hub.outside.work()) {
            work.give_back(jobs);
        }
    }

    /// Grants are judged anew.
    pub(crate) fn review(&self, review: &Review) {
        for s in self.sessions.borrow().iter() {
            match review(s.grant().map(|grant| &**grant)) {
                Ok(()) => {}
                Err(Revoked::Unauthenticated) => {
                    s.close(CloseCode::Unauthenticated, "the token is no longer accepted");
                }
                Err(Revoked::Changed) => s.close(CloseCode::Forbidden, "what is allowed has changed"),
            }
        }
    }

    /// Ends the session if its grant is over.
    pub(crate) fn check_expiry(&self, s: &Session, now: jiff::Timestamp) {
        let over = |g: &Arc<Grant>| g.expires.is_some_and(|at| at <= now);
        if s.grant().is_some_and(over) {
            s.close(CloseCode::Unauthenticated, "the token has expired");
        }
    }

    /// The session must end by itself soon.
    pub(crate) fn linger(&self, s: &Rc<Session>) {
        let until = Instant::now() + self.hub.options.linger;
        self.lingering.borrow_mut().push((until, Rc::downgrade(s)));
    }

    /// Takes a session out of everything. Called when its task is dropped, and by nobody else.
    pub(crate) fn ended(&self, s: &Rc<Session>) {
        let left = s.leave();
        self.half_read.set(self.half_read.get() - left.half_read);
        self.retire(left.pulls, left.jobs);
        if let Some(log) = left.log {
            self.leave_log(&log, left.index, left.echo);
        }
        let mut sessions = self.sessions.borrow_mut();
        sessions.swap_remove(left.place);
        let seat = self.seats.borrow_mut().swap_remove(left.place);
        seat.span().in_scope(|| debug!(code = left.code, "A session has ended."));
        if let Some(moved) = sessions.get(left.place) {
            moved.set_place(left.place);
        }
        drop(sessions);
        crate::metrics::closed(left.code);
        if self.ends.get().is_some() {
            self.wake();
        }
    }
}

/// How a session speaks; nothing when it only listens.
fn voice(role: Role, mode: Mode, filter: &Filter, rate: Option<Rate>) -> Option<Box<Voice>> {
    if mode == Mode::V1 {
        let path = (role != Role::Talk).then(|| filter.clone());
        return Some(Voice::new(Speech::Talk(Talk::new(path)), rate));
    }
    let pattern = match role {
        Role::Subscribe | Role::Talk => return None,
        Role::Pull { acks } => return Some(Voice::new(Speech::Acks(Acks::new(acks)), rate)),
        Role::Publish => Pattern::Sub,
        Role::Push => Pattern::Push,
        Role::Peer { .. } => Pattern::Bus,
    };
    // who sends has a topic: whoever opened the session has seen to it
    let topic = filter.as_str().parse().ok()?;
    Some(Voice::new(Speech::Sender(Sender::new(pattern, topic, mode)), rate))
}
