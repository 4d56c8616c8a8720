//! What a session follows: its subscriptions, and the one log that holds what is live of them.
//!
//! A subscription that reads history is not in the log's set; when it has caught up it joins, and the session changes
//! to the log of the larger set. What it has not written of the old log is copied to its own words first, so nothing
//! is lost; the copy is small, since a session that is far behind has to wait with the change.

use super::{Phase, Session, State};
use crate::encode::Encoding;
use crate::follow::{self, Follow};
use crate::log::{Kind, Log};
use crate::options::Slow;
use crate::pattern::Pattern;
use crate::peers::{Cursor, Turn};
use crate::shard::Shard;
use minium_protocol::Filter;
use std::rc::Rc;

/// A session with more than this to write does not change its log.
pub(crate) const BACKLOG_BYTES_MAX: u64 = 64 * 1024;

/// One subscription, or one topic among peers.
#[derive(Debug, Clone)]
pub(crate) struct Sub {
    pub(crate) follow: Follow,
    /// Everything it matches is in the journal.
    pub(crate) durable: bool,
    pub(crate) slow: Slow,
    /// It is certain to get everything behind this offset.
    pub(crate) since: u64,
    /// It reads history, and is not live.
    pub(crate) reads: bool,
    /// It is to be told when it has caught up.
    pub(crate) announce: bool,
}

impl Sub {
    /// Live from `since` on.
    pub(crate) fn new(shard: &Shard, pattern: Pattern, filter: Filter, since: u64) -> Sub {
        let channel = shard.hub.channels.governing_all(pattern, &filter);
        let durable = pattern == Pattern::Sub && channel.as_ref().is_some_and(|c| c.durable);
        let slow = match channel.map_or(Slow::Close, |c| c.slow) {
            // nothing to read back
            Slow::Replay if !durable || shard.reads.is_none() => Slow::Close,
            slow => slow,
        };
        let slow = if pattern == Pattern::Bus { Slow::Close } else { slow };
        Sub { follow: Follow::new(pattern, filter), durable, slow, since, reads: false, announce: false }
    }
}

impl Session {
    /// Adds a subscription; [`Shard::follow`] comes next.
    pub(crate) fn add_sub(&self, sub: Sub) {
        let mut st = self.state.borrow_mut();
        if st.subs.is_empty() {
            st.subs.reserve_exact(1); // most have one, and a push makes room for four
        }
        st.subs.push(sub);
    }

    /// Is it too far behind to change its log? Its own task looks again when something was written.
    pub(super) fn is_far_behind(&self) -> bool {
        let st = self.state.borrow();
        st.is_parked() || st.is_far_behind()
    }

    /// Takes it out of the log, with what it has not written of it.
    fn detach(&self) -> Option<(Rc<Log>, usize, bool)> {
        let mut st = self.state.borrow_mut();
        let st = &mut *st;
        let log = st.log.take()?;
        if st.phase == Phase::Open && !st.is_parked() {
            st.copy_rest(&log, self.encoding);
        }
        let ring = log.ring.borrow();
        st.jump(&ring);
        if let Some(own) = &mut st.own {
            own.places.clear();
        }
        drop(ring);
        Some((log, st.index as usize, st.own.as_ref().is_some_and(|own| own.echo)))
    }

    /// The set of what is live now.
    fn live(&self) -> Box<[Follow]> {
        let st = self.state.borrow();
        follow::set(st.subs.iter().filter(|s| !s.reads).map(|s| s.follow.clone()))
    }
}

impl State {
    /// Has it more to write of its log than may be copied?
    pub(super) fn is_far_behind(&self) -> bool {
        self.log.as_ref().is_some_and(|log| log.ring.borrow().end() - self.pos > BACKLOG_BYTES_MAX)
    }

    /// Everything from `pos` to the log's end, its own messages aside, goes to `control`: first, when a frame is partly
    /// written, else behind what is there.
    fn copy_rest(&mut self, log: &Log, encoding: Encoding) {
        let ring = log.ring.borrow();
        let mut rest = Vec::new();
        let mut at = Cursor { pos: self.pos, seen: self.seen, goal: self.goal, goal_seen: self.goal_seen };
        let partly = at.pos < at.goal;
        loop {
            while at.pos < at.goal {
                let bytes = ring.from(at.pos);
                let n = bytes.len().min((at.goal - at.pos) as usize);
                rest.extend_from_slice(&bytes[..n]);
                at.pos += n as u64;
            }
            let messages = at.goal_seen.wrapping_sub(at.seen);
            log.delivered.set(log.delivered.get() + u64::from(messages));
            self.sent += u64::from(messages);
            at.seen = at.goal_seen;
            (at.goal, at.goal_seen) = (ring.end(), ring.messages());
            if let Some(own) = &mut self.own {
                own.skip(&mut at, Turn::Last);
            }
            if at.pos >= at.goal {
                break;
            }
        }
        debug_assert!(encoding.is_framed() || !partly, "streams take whole events");
        let place = if partly { 0 } else { self.control.len() };
        self.control.splice(place..place, rest);
    }
}

impl Shard {
    /// Puts a session into the log of what it follows live, taking it out of the one it was in.
    pub(crate) fn follow(&self, s: &Rc<Session>) {
        let wanted = s.live();
        let same = s.state.borrow().log.as_ref().is_some_and(|log| log.follows == wanted);
        if same {
            return;
        }
        // the new one is announced before the old one goes: publishers on other shards must never find nobody
        let log = (!wanted.is_empty()).then(|| self.log(wanted, s.encoding, s));
        if let Some((old, index, echo)) = s.detach() {
            self.leave_log(&old, index, echo);
        }
        let Some(log) = log else { return };
        let echo = s.state.borrow().own.as_ref().is_some_and(|own| own.echo);
        log.echoers.set(log.echoers.get() + u32::from(echo));
        log.add(s);
        s.state.borrow_mut().log = Some(log);
    }

    /// Somebody reads this log no more.
    pub(crate) fn leave_log(&self, log: &Rc<Log>, index: usize, echo: bool) {
        log.echoers.set(log.echoers.get() - u32::from(echo));
        if !log.remove(index) {
            self.mark(log); // what only this one held back is forgotten
            return;
        }
        self.disperse(log);
        let mut shelf = self.shelf.borrow_mut();
        shelf.remove(log);
        for follow in &log.follows {
            if !shelf.wants(follow, log.encoding) {
                self.hub.set_interest(follow, log.encoding, self.id, false);
            }
        }
    }

    /// The log of a set, made and announced if there is none.
    fn log(&self, follows: Box<[Follow]>, encoding: Encoding, s: &Session) -> Rc<Log> {
        let mut shelf = self.shelf.borrow_mut();
        let kind = {
            let st = s.state.borrow();
            let mut live = st.subs.iter().filter(|s| !s.reads);
            let resumable = live.clone().all(|s| s.durable);
            Kind { resumable, replays: live.all(|s| s.slow == Slow::Replay) }
        };
        if let Some(log) = shelf.find(encoding, &follows, kind) {
            return log.clone();
        }
        let durable = s.state.borrow().subs.iter().any(|s| !s.reads && s.durable);
        let relayed = durable.then(|| self.relayed_to());
        let filters = follows.iter().map(|follow| (follow.pattern, &follow.filter));
        let counter = crate::metrics::delivered(self.hub.channels.label_of(filters));
        let log = Rc::new(Log::new(follows, encoding, self.limits.clone(), relayed, kind, counter));
        let new: Vec<_> = log.follows.iter().filter(|f| !shelf.wants(f, encoding)).collect();
        for follow in new {
            self.hub.set_interest(follow, encoding, self.id, true);
        }
        shelf.insert(&log);
        log
    }
}
