//! Reading: tungstenite judges every frame; what passes goes to the logs or the lanes as one burst.
//!
//! Its context exists only while a message is half read, so that ten thousand quiet sessions have none.

use super::write::say;
use super::{Phase, Session, State};
use crate::encode::Accepted;
use crate::frame::{self, Track};
use crate::lanes::Refusal;
use crate::message::Message;
use crate::pattern::Pattern;
use crate::peers::{Pending, Sender};
use crate::publish::{Burst, shards};
use crate::shard::Shard;
use bytes::Bytes;
use minium_protocol::{CloseCode, ErrorCode, Problem};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::task::Waker;
use tokio::io::Interest;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tokio_tungstenite::tungstenite::{Error, Message as Heard};

/// A message that is half read.
pub(super) struct Reader {
    ws: WebSocketContext,
    track: Track,
    /// It was left with whole frames inside, since control was full.
    unread: bool,
    /// What it had not taken in then.
    left: Vec<u8>,
}

/// Gives tungstenite what was read, and takes what it wants to say.
struct Feed<'a> {
    input: &'a [u8],
    control: &'a mut Vec<u8>,
}

impl Read for Feed<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.input.is_empty() { Err(ErrorKind::WouldBlock.into()) } else { self.input.read(buf) }
    }
}

impl Write for Feed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.control.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Bursts shorter than this are read with a small buffer.
const SMALL_BURST: usize = 4096;

impl Reader {
    fn new(first: &[u8], message_bytes_max: usize) -> Box<Reader> {
        let chunk = if first.len() < SMALL_BURST { 512 } else { 4096 };
        let config = WebSocketConfig::default()
            .read_buffer_size(chunk)
            .write_buffer_size(0)
            .max_write_buffer_size(usize::MAX) // what is written lands in control at once
            .max_message_size(Some(message_bytes_max))
            .max_frame_size(Some(message_bytes_max));
        let ws = WebSocketContext::from_partially_read(first.to_vec(), Role::Server, Some(config));
        Box::new(Reader { ws, track: Track::default(), unread: false, left: Vec::new() })
    }
}

/// How a client's side of the conversation ended.
enum End {
    /// It said goodbye, and tungstenite answered.
    Bye(u16),
    /// It broke a rule: these are the words.
    Broken(CloseCode, &'static str),
}

impl From<Error> for End {
    fn from(e: Error) -> End {
        match e {
            Error::Capacity(_) => End::Broken(CloseCode::TooBig, "the message is too big"),
            Error::Utf8(_) => End::Broken(CloseCode::InvalidData, "the text is not UTF-8"),
            _ => End::Broken(CloseCode::Protocol, "the frame breaks RFC 6455"),
        }
    }
}

impl Session {
    /// Reads one burst. False: nothing more now.
    pub(super) fn pull(&self, sh: &Shard, waker: &Waker) -> bool {
        let mut buf = sh.scratch.borrow_mut();
        match self.sink.try_read(&mut buf) {
            Ok(0) => self.state.borrow_mut().phase = Phase::Gone,
            Ok(n) => {
                if n < buf.len() {
                    self.sink.exhausted(Interest::READABLE);
                }
                if self.state.borrow().phase == Phase::Open {
                    self.feed(&buf[..n], sh, waker);
                }
                return n == buf.len();
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(_) => self.state.borrow_mut().phase = Phase::Gone,
        }
        false
    }

    /// Was reading left off in the midst of what has been read?
    pub(super) fn has_unread(&self) -> bool {
        self.state.borrow().reader.as_ref().is_some_and(|r| r.unread)
    }

    /// Judges what was read; whole messages go out as one burst.
    pub(crate) fn feed(&self, input: &[u8], sh: &Shard, waker: &Waker) {
        let mut burst = sh.burst.borrow_mut();
        let mut work = VecDeque::new();
        let mut st = self.state.borrow_mut();
        st.unanswered = 0;
        if let Some(sender) = &mut st.sender {
            sender.begin(&sh.hub, &mut burst);
        }
        let end = st.hear(input, sh, &mut burst, &mut work);
        match end {
            None => {}
            Some(End::Bye(code)) => self.stop(&mut st, Some(code)),
            Some(End::Broken(code, why)) => {
                frame::close(&mut st.control, code.code(), why);
                self.stop(&mut st, Some(code.code()));
            }
        }
        if burst.messages() > 0 {
            let pattern = st.sender.as_ref().map_or(Pattern::Sub, |s| s.pattern);
            sh.count_published(pattern, burst.messages());
        }
        if let (Some(sender), false) = (&mut st.sender, work.is_empty()) {
            sh.count_published(Pattern::Push, work.len() as u32);
            sender.pending = Pending::Work(work);
        }
        drop(st);
        if !burst.targets().is_empty() && burst.messages() > 0 {
            self.publish(&burst, sh);
        }
        drop(burst);
        self.hand_on(sh, waker);
    }

    /// To the logs of this shard now; to the others by their inboxes.
    fn publish(&self, burst: &Burst, sh: &Shard) {
        let (topic, pattern) = {
            let st = self.state.borrow();
            let Some(sender) = &st.sender else { return };
            (sender.topic.clone(), sender.pattern)
        };
        let bits = burst.targets().shards();
        let others = bits & !(1 << sh.id);
        let mut own = None;
        if bits != others {
            own = sh.append(pattern, &topic, burst.messages(), |e| burst.frames(e), self.encoding);
        }
        let mut st = self.state.borrow_mut();
        let Some(sender) = &mut st.sender else { return };
        if pattern == Pattern::Bus {
            sender.own.extend(own);
        }
        if others != 0 {
            sender.pending = Pending::Frames(others, burst.batch(pattern, &topic));
        }
    }

    /// Brings what is pending where there is room.
    pub(super) fn hand_on(&self, sh: &Shard, waker: &Waker) -> HandOn {
        let mut st = self.state.borrow_mut();
        let State { sender: Some(sender), control, .. } = &mut *st else { return HandOn::Done };
        let on = match &mut sender.pending {
            Pending::Nothing => HandOn::Done,
            Pending::Frames(left, batch) => {
                for i in shards(*left) {
                    if sh.send_frames(i, batch, waker) {
                        *left &= !(1 << i);
                    }
                }
                if *left == 0 { HandOn::Done } else { HandOn::Waits }
            }
            Pending::Work(_) => hand_out(sender, control, sh, waker),
        };
        if on == HandOn::Done {
            sender.pending = Pending::Nothing;
        }
        let crowded = sender.pattern != Pattern::Push && sh.is_crowded(sender.pattern, &sender.topic, waker);
        if on == HandOn::Done && crowded { HandOn::Waits } else { on }
    }
}

/// What became of a sender's last burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HandOn {
    /// Nothing is left to wait for.
    Done,
    /// Somewhere there is no room; the waker is woken when there is.
    Waits,
    /// The sender has not read yet why its messages were refused.
    Unheard,
}

/// Gives messages to the lane of their topic, one by one.
fn hand_out(sender: &mut Sender, control: &mut Vec<u8>, sh: &Shard, waker: &Waker) -> HandOn {
    let Pending::Work(work) = &mut sender.pending else { return HandOn::Done };
    let topic = sender.topic.shared();
    while let Some(message) = work.pop_front() {
        match sh.hub.lanes.push(&sh.hub, &topic, message, waker) {
            Ok(()) => {}
            Err((Refusal::Busy, message)) => {
                work.push_front(message);
                return HandOn::Waits;
            }
            Err((Refusal::NoPuller, _)) => {
                let words = format!("nobody pulls {topic}, and no more can wait for who will");
                refuse(control, &Problem::new(ErrorCode::NoPuller, words));
            }
        }
        if control.len() > sh.hub.options.control_bytes_max && !work.is_empty() {
            return HandOn::Unheard;
        }
    }
    HandOn::Done
}

/// A copy: what waits for a puller must not keep the whole burst that it came in.
fn own(message: &Message) -> Message {
    match message {
        Message::Text(b) => Message::Text(Bytes::copy_from_slice(b)),
        Message::Binary(b) => Message::Binary(Bytes::copy_from_slice(b)),
    }
}

/// Tells a sender why its message goes nowhere.
fn refuse(control: &mut Vec<u8>, problem: &Problem) {
    crate::metrics::dropped(problem.code.as_str(), 1);
    say(control, &problem.frame());
}

impl State {
    /// Lets tungstenite judge the input, and the sender's judge every message.
    fn hear(
        &mut self,
        input: &[u8],
        sh: &Shard,
        burst: &mut Burst,
        work: &mut VecDeque<Message>,
    ) -> Option<End> {
        let options = &sh.hub.options;
        let (mut reader, rest) = match self.reader.take() {
            Some(reader) => (reader, input),
            None => (Reader::new(input, options.message_bytes_max), &input[..0]),
        };
        reader.track.advance(input);
        reader.unread = false;
        let left = std::mem::take(&mut reader.left);
        let rest = if left.is_empty() { rest } else { &left }; // then there is no input, see `Serve`
        let mut feed = Feed { input: rest, control: &mut self.control };
        let mut bye = None;
        loop {
            if feed.control.len() > options.control_bytes_max {
                reader.unread = true;
                break;
            }
            let message = match reader.ws.read(&mut feed) {
                Ok(Heard::Text(text)) => Message::Text(text.into()),
                Ok(Heard::Binary(bytes)) => Message::Binary(bytes),
                Ok(Heard::Close(frame)) => {
                    bye = Some(frame.map_or(CloseCode::Normal.code(), |f| f.code.into()));
                    continue;
                }
                Ok(Heard::Ping(_) | Heard::Pong(_) | Heard::Frame(_)) => continue,
                Err(Error::Io(e)) if e.kind() == ErrorKind::WouldBlock => break,
                Err(Error::ConnectionClosed | Error::AlreadyClosed) => {
                    return Some(End::Bye(bye.unwrap_or(CloseCode::Normal.code())));
                }
                Err(e) => return Some(e.into()),
            };
            #[cfg(test)]
            match &message.bytes()[..] {
                crate::faults::IN_READING => panic!("as the test asked"),
                crate::faults::IN_THE_WALK => self.trips = true,
                _ => {}
            }
            let Some(sender) = &mut self.sender else { continue };
            match sender.judge(message) {
                Ok(message) if sender.pattern == Pattern::Push => work.push_back(own(&message)),
                Ok(message) => {
                    let text = matches!(message, Message::Text(_));
                    let accepted = Accepted { text, json: sender.knows_json(), body: message.bytes() };
                    burst.add(&options.source, sender.topic.as_str(), accepted);
                }
                Err(problem) => refuse(feed.control, &problem),
            }
        }
        if reader.unread {
            reader.left = feed.input.to_vec();
        }
        if reader.unread || !reader.track.between() {
            self.reader = Some(reader);
        }
        None
    }
}
