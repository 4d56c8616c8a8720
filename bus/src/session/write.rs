//! Writing: in as few calls as possible what a session has not got, never anything within a frame.

use super::{Phase, Session, State};
use crate::encode::{self, Accepted, Encoding};
use crate::frame;
use crate::lanes;
use crate::log::Log;
use crate::message::Message;
use crate::peers::{self, Turn};
use crate::ring::{Ring, SEGMENT_BYTES, Segment};
use crate::session::replay::Replay;
use crate::shard::Shard;
use minium_protocol::CloseCode;
use std::io::ErrorKind;
use tokio::io::Interest;

impl Session {
    /// Called by the walk: writes what the client takes. Answers how far the session has come.
    pub(crate) fn offer(&self, log: &Log, ring: &Ring, turn: Turn) -> u64 {
        let mut st = self.state.borrow_mut();
        #[cfg(test)]
        assert!(!std::mem::take(&mut st.trips), "as the test asked");
        if !st.blocked && st.phase == Phase::Open {
            self.pump(&mut st, Some((log, ring)), turn);
            if st.blocked || st.phase != Phase::Open {
                st.wake();
            }
        }
        if st.phase == Phase::Open || st.pos < st.goal { st.pos } else { u64::MAX }
    }

    /// Writes what it can; when closing and all is written, ends our side.
    pub(crate) fn push(&self, sh: &Shard) {
        let mut st = self.state.borrow_mut();
        let was = st.blocked;
        // one that had to wait was passed by; for another the walk is still to come, and the others are first
        let turn = if was { Turn::Last } else { Turn::First };
        match &self.log {
            Some(log) if st.phase == Phase::Open || st.pos < st.goal => {
                self.pump(&mut st, Some((log, &log.ring.borrow())), turn);
            }
            _ => self.pump(&mut st, None, turn),
        }
        if let (true, false, Some(log)) = (was, st.blocked, &self.log) {
            sh.mark(log); // so that what only this one held back is forgotten
        }
        if st.phase == Phase::Closing && !st.blocked && st.control.is_empty() {
            self.sink.finish();
            st.phase = if self.sink.is_socket() { Phase::Closed } else { Phase::Gone };
        }
        if let Some(topic) = st.puller.as_mut().and_then(|p| p.starved(&sh.hub)) {
            sh.hub.lanes.refill(&sh.hub, &topic);
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
        if let Some(replay) = &mut st.replay {
            replay.wake(); // for the next page
            return false;
        }
        if let Some(puller) = &mut st.puller {
            return puller.fill(&mut st.control, self.encoding);
        }
        let Some((_, ring)) = log.filter(|(_, ring)| ring.end() > st.pos) else { return false };
        st.goal = ring.end();
        st.goal_seen = ring.messages();
        if let Some(sender) = st.sender.as_mut().filter(|s| !s.own.is_empty()) {
            let mut at = peers::Cursor { pos: st.pos, seen: st.seen, goal: st.goal, goal_seen: st.goal_seen };
            sender.skip_own(&mut at, turn);
            (st.pos, st.seen, st.goal, st.goal_seen) = (at.pos, at.seen, at.goal, at.goal_seen);
        }
        st.pos < st.goal
    }

    /// The log drops a segment that this one has not got wholly: it finishes the frame that is partly written and
    /// loses its place. True: it shall read on from the journal.
    pub(crate) fn lagged(&self, log: &Log, old: &Segment, first: u64, ring: &Ring) -> bool {
        let mut st = self.state.borrow_mut();
        if st.pos >= first || st.phase != Phase::Open && st.pos == st.goal {
            return false;
        }
        let mut next = st.pos;
        if self.encoding != Encoding::Sse {
            let rest = old.rest_of_frame(st.pos);
            next += rest.len() as u64;
            // control was not begun, or pos would be between frames
            st.control.splice(0..0, rest.iter().copied());
        }
        st.jump(ring);
        if st.phase != Phase::Open {
            return false;
        }
        let hold = log.offset_before(ring.end());
        if let (Some(replay), Some(hold)) = (&mut st.replay, hold) {
            replay.hold = hold; // overtaken: it reads on up to here
            return false;
        }
        let (why, from) = match (log.replays(), log.offset_before(next), hold) {
            (true, Some(cursor), Some(hold)) => {
                st.replay = Some(Box::new(Replay::new(cursor, hold)));
                st.wake();
                return true;
            }
            (true, _, _) => ("epoch_changed", CloseCode::FellBehind),
            (false, _, _) => ("fell behind", CloseCode::FellBehind),
        };
        drop(st);
        self.close(from, why);
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
            self.seen = self.goal_seen;
        }
    }

    fn took_from_control(&mut self, n: usize) {
        self.written += n as u32;
        if self.written as usize == self.control.len() {
            // given back, not kept: most sessions say nothing for minutes
            (self.control, self.written) = (Vec::new(), 0);
            if let Some(puller) = &mut self.puller {
                puller.gone += std::mem::take(&mut puller.going);
            }
        }
    }
}

impl super::Pulling {
    /// Encodes some of what is assigned.
    fn fill(&mut self, control: &mut Vec<u8>, encoding: Encoding) -> bool {
        let mut messages = 0;
        while control.len() < SEGMENT_BYTES {
            let Some(message) = self.queue.pop_front().map(|work| work.message) else { break };
            self.going += lanes::weight(&message);
            messages += 1;
            let (text, body) = match &message {
                Message::Text(body) => (true, body),
                Message::Binary(body) => (false, body),
            };
            let accepted = Accepted { text, json: text && self.json, body };
            encode::ephemeral(control, encoding, &self.source, &self.topic, accepted);
        }
        if messages > 0 {
            crate::metrics::delivered().increment(messages);
        }
        messages > 0
    }

    /// Takes off its load what was written; answers the topic whose lane waits to hear of it.
    fn starved(&mut self, hub: &crate::hub::Hub) -> Option<std::sync::Arc<str>> {
        let gone = std::mem::take(&mut self.gone);
        let hungry = gone > 0 && self.load.take_off(gone, hub.options.puller_bytes_max);
        hungry.then(|| self.topic.clone())
    }
}

/// Appends a text frame that is for this client alone.
pub(super) fn say(control: &mut Vec<u8>, text: &str) {
    frame::append(control, frame::Opcode::Text, text.as_bytes());
}
