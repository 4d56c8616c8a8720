//! One client. Its state lives on its shard's thread, and its socket is written there only.
//!
//! `pos..goal` are bytes of the log on their way out; while `pos < goal` the session stands within frames and
//! everything else waits. `control` holds whole frames that are about this client alone: the 101 first, then pongs,
//! answers, work, pages of history, the Close.

pub(crate) mod catch_up;
pub(crate) mod following;
pub(crate) mod jobs;
mod outside;
mod plain;
mod read;
mod runs;
pub(crate) mod serve;
pub(crate) mod sink;
mod talk;
pub(crate) mod tls;
mod told;
mod voice;
mod write;

pub(crate) use talk::Talk;
pub(crate) use voice::{Speech, Voice};

use crate::encode::{self, Encoding};
use crate::frame::{self, Opcode};
use crate::grant::Grant;
use crate::lanes::{Load, Work};
use crate::log::Log;
use crate::opening::Permit;
use crate::peers::Own;
use crate::ring::Ring;
use catch_up::CatchingUp;
use following::Sub;
use jobs::Jobs;
use metrics::Counter;
use minium_protocol::{Answer, CloseCode, Position, Problem};
use read::Reader;
use sink::Sink;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use thin_vec::ThinVec;

/// Ten thousand of these wait at once: with its counters it has 256 bytes, the size of an allocator's class.
pub(crate) struct Session {
    sink: Sink,
    encoding: Encoding,
    state: RefCell<State>,
    /// Nothing where everybody may do everything.
    grant: Option<Arc<Grant>>,
    _permit: Permit,
}

// with the two counters of its `Rc`
#[cfg(not(test))]
const _: () = assert!(size_of::<Session>() + 16 <= 256);

#[derive(Default)]
struct State {
    /// What it reads; nothing while it follows nothing live.
    log: Option<Rc<Log>>,
    /// The next byte of the log to write.
    pos: u64,
    /// A frame boundary; `pos < goal`: in the midst of frames.
    goal: u64,
    /// Messages up to `pos` and up to `goal`; they wrap.
    seen: u32,
    goal_seen: u32,
    /// Messages and jobs that it was given so far.
    sent: u64,
    control: Vec<u8>,
    /// How much of `control` was written.
    written: u32,
    /// Place in the log's list and in the shard's.
    index: u32,
    place: u32,
    phase: Phase,
    /// The kernel takes no more; its word is awaited.
    blocked: bool,
    /// It waits to be less far behind, to change its log.
    waits_behind: bool,
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
    /// What it subscribed, and the topics of which it is a peer.
    subs: ThinVec<Sub>,
    /// Only while it reads history.
    catching_up: Option<Box<CatchingUp>>,
    /// Only while a message is half read.
    reader: Option<Box<Reader>>,
    /// Only for those who may send.
    voice: Option<Box<Voice>>,
    /// Only for peers: where their own messages stand in the log.
    own: Option<Box<Own>>,
    /// Only for pullers of channels that are not durable.
    pulls: ThinVec<Pull>,
    /// Only for pullers of durable channels.
    jobs: Option<Box<Jobs>>,
    /// Panics to come.
    #[cfg(test)]
    trips: u8,
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

/// Messages of one channel that are assigned to a puller.
pub(crate) struct Pull {
    pub(crate) id: u64,
    pub(crate) topic: Arc<str>,
    pub(crate) load: Arc<Load>,
    pub(crate) source: Arc<str>,
    /// Of messages that are written.
    pub(crate) counter: Counter,
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
    pub(crate) voice: Option<Box<Voice>>,
    pub(crate) own: Option<Box<Own>>,
    /// The first bytes: the 101.
    pub(crate) answer: Vec<u8>,
    pub(crate) ping_at: u32,
    pub(crate) grant: Option<Arc<Grant>>,
}

impl Session {
    /// Nothing is written yet: the session must be registered before its answer is.
    pub(crate) fn new(sink: Sink, encoding: Encoding, parts: Parts, permit: Permit) -> Rc<Session> {
        let state = State {
            control: parts.answer,
            voice: parts.voice,
            own: parts.own,
            ping_at: parts.ping_at,
            ..State::default()
        };
        Rc::new(Session { sink, encoding, state: RefCell::new(state), grant: parts.grant, _permit: permit })
    }

    pub(crate) fn is_stream(&self) -> bool {
        !self.sink.is_socket()
    }

    pub(crate) fn grant(&self) -> Option<&Arc<Grant>> {
        self.grant.as_ref()
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

    /// It takes messages of one channel more.
    pub(crate) fn add_pull(&self, pull: Pull) {
        self.state.borrow_mut().pulls.push(pull);
    }

    /// What it was opened for cannot be had: it is told, and closed.
    pub(crate) fn refuse_role(&self, problem: &Problem) {
        voice::refuse(&mut self.state.borrow_mut().control, self.encoding, &None, problem);
        let code = if problem.retryable { CloseCode::Overload } else { CloseCode::Policy };
        self.close(code, problem.code.as_str());
    }

    /// Work for this puller. Handed back when it takes none any more.
    pub(crate) fn assign(&self, puller: u64, work: Work) -> Result<(), Work> {
        let mut st = self.state.borrow_mut();
        let st = &mut *st;
        match st.pulls.iter_mut().find(|p| p.id == puller) {
            Some(p) if st.phase == Phase::Open => {
                p.queue.push_back(work);
                st.wake();
                Ok(())
            }
            _ => Err(work),
        }
    }

    /// Says something to this client alone, in `minium.v1`.
    pub(crate) fn tell(&self, answer: &Answer<'_>) {
        let mut st = self.state.borrow_mut();
        if st.phase == Phase::Open && self.encoding == Encoding::V1 {
            encode::answer(&mut st.control, answer);
            st.wake();
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
            Encoding::Plain | Encoding::CloudEvents | Encoding::V1 => {
                frame::close(&mut st.control, code, reason);
            }
        }
        self.stop(&mut st, Some(code));
    }

    /// Nothing more is taken from the log or the journal; what is said already goes out.
    fn stop(&self, st: &mut State, code: Option<u16>) {
        st.phase = Phase::Closing;
        st.code = code;
        if let (Some(log), true) = (&st.log, st.pos < st.goal) {
            st.goal = match self.encoding.is_framed() {
                false => st.pos,
                true => log.ring.borrow().boundary(st.pos, self.sink.owes()),
            };
        }
        if let Some(mut catching) = st.catching_up.take() {
            catching.wake();
        }
        st.wake();
    }

    /// Something in here panicked: this session ends, and nobody else notices.
    pub(crate) fn fault(&self) {
        #[cfg(test)]
        self.state.borrow_mut().trip();
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
        if self.is_stream() {
            self.sink.finish(); // else its reader would wait for ever
        }
        st.phase = Phase::Gone;
        st.waker = None;
        st.voice = None;
        if let Some(mut catching) = st.catching_up.take() {
            catching.wake();
        }
        let echo = st.own.take().is_some_and(|own| own.echo);
        let (pulls, jobs) = (std::mem::take(&mut st.pulls), st.jobs.take());
        let log = st.log.take();
        let half_read = st.reader.take().map_or(0, |r| r.bytes());
        Left { half_read, log, index: st.index as usize, place: st.place as usize, code, pulls, jobs, echo }
    }
}

/// What a session that ended leaves behind.
pub(crate) struct Left {
    /// What of a message had come.
    pub(crate) half_read: usize,
    pub(crate) log: Option<Rc<Log>>,
    pub(crate) index: usize,
    pub(crate) place: usize,
    pub(crate) code: u16,
    pub(crate) pulls: ThinVec<Pull>,
    pub(crate) jobs: Option<Box<Jobs>>,
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

    #[cfg(test)]
    fn trip(&mut self) {
        if self.trips > 0 {
            self.trips -= 1;
            panic!("as the test asked");
        }
    }

    /// To the end of the log.
    fn jump(&mut self, ring: &Ring) {
        (self.pos, self.goal) = (ring.end(), ring.end());
        (self.seen, self.goal_seen) = (ring.messages(), ring.messages());
    }
}
