//! One client. Its state lives on its shard's thread, and its socket is written there only.
//!
//! `pos..goal` are bytes of the log on their way out; while `pos < goal` the session stands within frames and
//! everything else waits. `control` holds whole frames that are about this client alone: the 101 first, then pongs,
//! refusals, work, pages of history, the Close.

mod read;
pub(crate) mod replay;
pub(crate) mod serve;
pub(crate) mod sink;
pub(crate) mod tls;
mod write;

use crate::encode::{self, Encoding};
use crate::frame::{self, Opcode};
use crate::log::Log;
use crate::opening::Permit;
use crate::peers::Sender;
use crate::ring::Ring;
use crate::work::{Load, Work};
use minium_protocol::{CloseCode, Position};
use read::Reader;
use replay::Replay;
use sink::Sink;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

pub(crate) struct Session {
    sink: Sink,
    encoding: Encoding,
    log: Option<Rc<Log>>,
    state: RefCell<State>,
    _permit: Permit,
}

#[derive(Default)]
struct State {
    /// The next byte of the log to write.
    pos: u64,
    /// A frame boundary; `pos < goal`: in the midst of frames.
    goal: u64,
    /// Messages up to `pos` and up to `goal`; they wrap.
    seen: u32,
    goal_seen: u32,
    control: Vec<u8>,
    /// How much of `control` was written.
    written: u32,
    /// Place in the log's list and in the shard's.
    index: u32,
    place: u32,
    phase: Phase,
    /// The kernel takes no more; its word is awaited.
    blocked: bool,
    /// Not read, since what it sent must wait: its silence says nothing.
    held_back: bool,
    /// In the list of those who must end soon.
    lingers: bool,
    /// Pings since the client was heard.
    unanswered: u8,
    /// Why it ended; 1006 when nobody said.
    code: Option<u16>,
    /// The shard's tick of the next ping.
    ping_at: u32,
    /// Wakes the session's own task.
    waker: Option<Waker>,
    /// Only while a message is half read.
    reader: Option<Box<Reader>>,
    /// Only for those who may send.
    sender: Option<Box<Sender>>,
    /// Only while it reads history.
    replay: Option<Box<Replay>>,
    /// Only for pullers.
    puller: Option<Box<Pulling>>,
    #[cfg(test)]
    trips: bool,
}

#[derive(Debug, Default, PartialEq, Eq, Clone, Copy)]
enum Phase {
    #[default]
    Open,
    /// Nothing more from the log; control, then the end of our side.
    Closing,
    /// Our side is shut: what the client still says is thrown away until it ends.
    Closed,
    Gone,
}

/// Work that is assigned to a puller.
pub(crate) struct Pulling {
    pub(crate) id: u64,
    pub(crate) topic: Arc<str>,
    pub(crate) load: Arc<Load>,
    pub(crate) source: Arc<str>,
    pub(crate) json: bool,
    /// Not yet encoded.
    pub(crate) queue: VecDeque<Work>,
    /// Weight of what stands in `control`.
    pub(crate) going: usize,
    /// Weight of what was written and not yet taken off its load.
    pub(crate) gone: usize,
}

/// What a session begins with, besides its sink.
#[derive(Default)]
pub(crate) struct Parts {
    pub(crate) log: Option<Rc<Log>>,
    pub(crate) sender: Option<Box<Sender>>,
    pub(crate) puller: Option<Box<Pulling>>,
    /// The first bytes: the 101.
    pub(crate) answer: Vec<u8>,
    pub(crate) ping_at: u32,
}

impl Session {
    /// Nothing is written yet: the session must be registered before its answer is.
    pub(crate) fn new(sink: Sink, encoding: Encoding, parts: Parts, permit: Permit) -> Rc<Session> {
        let state = State {
            control: parts.answer,
            sender: parts.sender,
            puller: parts.puller,
            ping_at: parts.ping_at,
            ..State::default()
        };
        Rc::new(Session { sink, encoding, log: parts.log, state: RefCell::new(state), _permit: permit })
    }

    pub(crate) fn is_stream(&self) -> bool {
        !self.sink.is_socket()
    }

    /// The numbering that it may be reading in is no more.
    pub(crate) fn renumbered(&self) {
        let reads = self.state.borrow().replay.is_some();
        if reads {
            self.close(CloseCode::FellBehind, "epoch_changed");
        }
    }

    /// For the lane: its topic, its name there, and what is on its way to it.
    pub(crate) fn puller(&self) -> Option<(Arc<str>, u64, Arc<Load>)> {
        let st = self.state.borrow();
        st.puller.as_ref().map(|p| (p.topic.clone(), p.id, p.load.clone()))
    }

    pub(crate) fn log(&self) -> Option<&Rc<Log>> {
        self.log.as_ref()
    }

    /// It stands in its log's list now, at the end of the log.
    pub(crate) fn joined(&self, index: usize, ring: &Ring) {
        let mut st = self.state.borrow_mut();
        st.index = index as u32;
        st.jump(ring);
    }

    pub(crate) fn moved_to(&self, index: usize) {
        self.state.borrow_mut().index = index as u32;
    }

    /// Where it stands in the shard's list.
    pub(crate) fn set_place(&self, place: usize) {
        self.state.borrow_mut().place = place as u32;
    }

    /// Tells an SSE client where it stands.
    pub(crate) fn tell_position(&self, position: Position) {
        encode::sse_position(&mut self.state.borrow_mut().control, position);
    }

    /// Work for this puller. Handed back when it takes none any more.
    pub(crate) fn assign(&self, work: Work) -> Result<(), Work> {
        let mut st = self.state.borrow_mut();
        let st = &mut *st;
        match &mut st.puller {
            Some(p) if st.phase == Phase::Open => {
                p.queue.push_back(work);
                st.wake();
                Ok(())
            }
            _ => Err(work),
        }
    }

    /// Says goodbye: the frame that is partly written is finished, then what stands in control, then the Close.
    pub(crate) fn close(&self, code: CloseCode, reason: &str) {
        let mut st = self.state.borrow_mut();
        if st.phase != Phase::Open {
            return;
        }
        let code = code.code();
        match self.encoding {
            Encoding::Sse => encode::sse_close(&mut st.control, code, reason),
            Encoding::Plain | Encoding::CloudEvents => frame::close(&mut st.control, code, reason),
        }
        self.stop(&mut st, Some(code));
    }

    /// Nothing more is taken from the log or the journal; what is said already goes out.
    fn stop(&self, st: &mut State, code: Option<u16>) {
        st.phase = Phase::Closing;
        st.code = code;
        if let (Some(log), true) = (&self.log, st.pos < st.goal) {
            st.goal = match self.encoding {
                Encoding::Sse => st.pos,
                Encoding::Plain | Encoding::CloudEvents => log.ring.borrow().boundary(st.pos),
            };
        }
        if let Some(mut replay) = st.replay.take() {
            replay.wake();
        }
        st.wake();
    }

    /// Something in here panicked: this session ends, and nobody else notices.
    pub(crate) fn fault(&self) {
        let open = self.state.borrow().phase == Phase::Open;
        if open {
            self.close(CloseCode::ServerFault, "the server failed");
        } else {
            self.cut();
        }
    }

    /// It had time enough to end by itself.
    pub(crate) fn cut(&self) {
        let mut st = self.state.borrow_mut();
        st.phase = Phase::Gone;
        st.wake();
    }

    /// Asks whether the client is there. `tick` counts sweeps, `every` of them lie between pings.
    pub(crate) fn ping(&self, tick: u32, every: u32) {
        let mut st = self.state.borrow_mut();
        if st.phase != Phase::Open || (tick.wrapping_sub(st.ping_at) as i32) < 0 {
            return;
        }
        st.ping_at = tick.wrapping_add(every);
        if !self.sink.is_socket() {
            if st.control.is_empty() {
                st.control.extend_from_slice(b": ping\n\n");
                st.wake();
            }
            return;
        }
        if st.held_back {
            return; // what it may have said stands unread in its socket
        }
        if st.unanswered >= UNANSWERED_MAX {
            drop(st);
            self.close(CloseCode::PingTimeout, "two pings were not answered");
            return;
        }
        st.unanswered += 1;
        frame::append(&mut st.control, Opcode::Ping, b"");
        st.wake();
    }

    /// The task has ended: takes out what must be given back.
    pub(crate) fn leave(&self) -> Left {
        let mut st = self.state.borrow_mut();
        let code = st.code.unwrap_or(ABNORMAL);
        st.phase = Phase::Gone;
        st.waker = None;
        let echo = st.sender.take().is_some_and(|s| s.echo);
        if let Some(mut replay) = st.replay.take() {
            replay.wake();
        }
        let puller = st.puller.take();
        Left { index: st.index as usize, place: st.place as usize, code, puller, echo }
    }
}

/// What a session that ended leaves behind.
pub(crate) struct Left {
    pub(crate) index: usize,
    pub(crate) place: usize,
    pub(crate) code: u16,
    pub(crate) puller: Option<Box<Pulling>>,
    /// It was a peer with echo.
    pub(crate) echo: bool,
}

/// A session is gone after so many pings without a sign of life.
const UNANSWERED_MAX: u8 = 2;
/// RFC 6455: no Close frame was seen.
const ABNORMAL: u16 = 1006;

impl State {
    fn wake(&self) {
        self.waker.as_ref().inspect(|w| w.wake_by_ref());
    }

    /// To the end of the log.
    fn jump(&mut self, ring: &Ring) {
        (self.pos, self.goal) = (ring.end(), ring.end());
        (self.seen, self.goal_seen) = (ring.messages(), ring.messages());
    }
}
