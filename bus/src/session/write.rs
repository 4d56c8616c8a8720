//! Writing: in as few calls as possible what a session has not got, never anything within a frame.

use super::following::Sub;
use super::{Phase, Session, State};
use crate::encode::{self, Encoding};
use crate::frame;
use crate::lanes;
use crate::log::Log;
use crate::options::Slow;
use crate::peers::{self, Turn};
use crate::ring::{Ring, SEGMENT_BYTES, Segment};
use crate::shard::Shard;
use minium_protocol::CloseCode;
use std::io::ErrorKind;
use tokio::io::Interest;

impl Session {
    /// Called by the walk: writes what the client takes. Answers how far the session has come.
    pub(crate) fn offer(&self, log: &Log, ring: &Ring, turn: Turn) -> u64 {
        let mut st = self.state.borrow_mut();
        #[cfg(test)]
        st.trip();
        if !st.blocked && st.phase == Phase::Open {
            self.pump(&mut st, Some((log, ring)), turn);
            if st.blocked || st.phase != Phase::Open || st.waits_behind {
                st.wake();
            }
        }
        // one that lost its place holds nothing back
        let holds = st.phase == Phase::Open && !st.is_parked() || st.pos < st.goal;
        if holds { st.pos } else { u64::MAX }
    }

    /// Writes what it can; when closing and all is written, ends our side.
    pub(crate) fn push(&self, sh: &Shard) {
        let mut st = self.state.borrow_mut();
        let was = st.blocked;
        // one that had to wait was passed by; for another the walk is still to come, and the others are first
        let turn = if was { Turn::Last } else { Turn::First };
        let log = st.log.clone();
        match &log {
            Some(log) if st.phase == Phase::Open || st.pos < st.goal => {
                self.pump(&mut st, Some((log, &log.ring.borrow())), turn);
            }
            _ => self.pump(&mut st, None, turn),
        }
        if let (true, false, Some(log)) = (was, st.blocked, &log) {
            sh.mark(log); // so that what only this one held back is forgotten
        }
        if st.phase == Phase::Closing && !st.blocked && st.control.is_empty() {
            self.sink.finish();
            st.phase = if self.sink.is_socket() { Phase::Closed } else { Phase::Gone };
        }
        for pull in &mut st.pulls {
            if pull.starved(&sh.hub) {
                sh.hub.lanes.refill(&sh.hub, &pull.topic);
            }
        }
        if let Some(jobs) = &mut st.jobs {
            sh.give_jobs_back(jobs.take_late());
        }
    }

    fn pump(&self, st: &mut State, log: Option<(&Log, &Ring)>, turn: Turn) {
        st.blocked = false;
        loop {
            let from_log = st.pos < st.goal;
            let todo = match log {
                Some((_, ring)) if from_log => {
                    let bytes = ring.from(st.pos);
                    &bytes[..bytes.len().min((st.goal - st.pos) as usize)]
                }
                _ if !st.control.is_empty() => &st.control[st.written as usize..],
                _ if self.next(st, log, turn) => continue,
                _ => return,
            };
            let len = todo.len();
            match self.sink.try_write(todo) {
                Ok(n) => {
                    match log {
                        Some((log, _)) if from_log => st.took_from_log(n, log),
                        _ => st.took_from_control(n),
                    }
                    if n < len {
                        self.sink.exhausted(Interest::WRITABLE);
                        st.blocked = true;
                        return;
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    st.blocked = true;
                    return;
                }
                Err(_) => {
                    st.phase = Phase::Gone;
                    return;
                }
            }
        }
    }

    /// Between frames, and all was said: is there more? Sets the goal or fills control.
    fn next(&self, st: &mut State, log: Option<(&Log, &Ring)>, turn: Turn) -> bool {
        if st.phase != Phase::Open {
            return false;
        }
        if let Some(catching) = &mut st.catching_up {
            catching.wake(); // for the next page
        }
        for pull in &mut st.pulls {
            let messages = pull.fill(&mut st.control, self.encoding);
            if messages > 0 {
                st.sent += messages;
                return true;
            }
        }
        if let Some(jobs) = &mut st.jobs {
            let given = jobs.fill(&mut st.control, self.encoding);
            if given > 0 {
                st.sent += given;
                return true;
            }
        }
        let parked = st.is_parked();
        let Some((_, ring)) = log.filter(|(_, ring)| ring.end() > st.pos && !parked) else { return false };
        st.goal = ring.end();
        st.goal_seen = ring.messages();
        if let Some(own) = st.own.as_mut().filter(|own| !own.places.is_empty()) {
            let mut at = peers::Cursor { pos: st.pos, seen: st.seen, goal: st.goal, goal_seen: st.goal_seen };
            own.skip(&mut at, turn);
            (st.pos, st.seen, st.goal, st.goal_seen) = (at.pos, at.seen, at.goal, at.goal_seen);
        }
        st.pos < st.goal
    }

    /// The log drops a segment that this one has not got wholly: it finishes the frame that is partly written and
    /// loses its place. True: somebody must look after it ([`Shard::lost`]).
    pub(crate) fn lagged(&self, log: &Log, old: &Segment, first: u64, ring: &Ring) -> bool {
        let mut st = self.state.borrow_mut();
        if st.is_parked() || st.pos >= first || st.phase != Phase::Open && st.pos == st.goal {
            return false;
        }
        let mut next = st.pos;
        if self.encoding.is_framed() {
            let begun = st.pos < st.goal && self.sink.owes();
            let rest = old.rest_of_frame(st.pos, begun);
            next += rest.len() as u64;
            // control was not begun, or pos would be between frames
            st.control.splice(0..0, rest.iter().copied());
        }
        st.jump(ring);
        if st.phase != Phase::Open {
            return false;
        }
        let cursor = log.offset_before(next);
        let live = || st.subs.iter().filter(|s| !s.reads);
        let gap = |s: &Sub| s.slow == Slow::Gap && self.encoding == Encoding::V1;
        let why = if live().any(|s| s.slow != Slow::Replay && !gap(s)) {
            "fell behind"
        } else if cursor.is_none() && live().any(|s| s.slow == Slow::Replay) {
            "epoch_changed"
        } else {
            for s in live() {
                crate::metrics::fell_behind(s.slow);
            }
            return st.park(cursor);
        };
        drop(st);
        crate::metrics::fell_behind(Slow::Close);
        self.close(CloseCode::FellBehind, why);
        false
    }
}

impl State {
    fn took_from_log(&mut self, n: usize, log: &Log) {
        self.pos += n as u64;
        log.progress.set(log.progress.get() + n as u64);
        if self.pos == self.goal {
            let messages = self.goal_seen.wrapping_sub(self.seen);
            log.delivered.set(log.delivered.get() + u64::from(messages));
            self.sent += u64::from(messages);
            self.seen = self.goal_seen;
        }
    }

    fn took_from_control(&mut self, n: usize) {
        self.written += n as u32;
        if self.control.len() > SEGMENT_BYTES {
            self.unanswered = 0; // it is not read while it has so much to read, but it reads
        }
        if self.written as usize == self.control.len() {
            // given back, not kept: most sessions say nothing for minutes
            (self.control, self.written) = (Vec::new(), 0);
            for pull in &mut self.pulls {
                pull.gone += std::mem::take(&mut pull.going);
            }
            if let Some(jobs) = &mut self.jobs {
                jobs.written();
            }
        }
    }
}

impl super::Pull {
    /// Encodes some of what is assigned. Answers how many messages.
    fn fill(&mut self, control: &mut Vec<u8>, encoding: Encoding) -> u64 {
        let mut messages = 0;
        while control.len() < SEGMENT_BYTES {
            let Some(message) = self.queue.pop_front().map(|work| work.message) else { break };
            self.going += lanes::weight(&message);
            messages += 1;
            encode::ephemeral(control, encoding, &self.source, &self.topic, &message);
        }
        if messages > 0 {
            self.counter.increment(messages);
        }
        messages
    }

    /// Takes off its load what was written. True: its lane waits to hear of it.
    fn starved(&mut self, hub: &crate::hub::Hub) -> bool {
        let gone = std::mem::take(&mut self.gone);
        gone > 0 && self.load.take_off(gone, hub.options.puller_bytes_max)
    }
}

/// Appends a text frame that is for this client alone.
pub(super) fn say(control: &mut Vec<u8>, text: &str) {
    frame::append(control, frame::Opcode::Text, text.as_bytes());
}
