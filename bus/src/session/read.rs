//! Reading: tungstenite judges every frame; what passes goes to the logs or the lanes as one burst.
//!
//! Its context exists only while a message is half read, so that ten thousand quiet sessions have none.

use super::plain::Said;
use super::talk::reference_of;
use super::voice::{Limited, refuse};
use super::{Phase, Session, Speech, State};
use crate::frame::{self, Track};
use crate::hub::Targets;
use crate::message::Message;
use crate::publish::Burst;
use crate::shard::Shard;
use minium_protocol::{CloseCode, ErrorCode, Problem};
use std::borrow::Cow;
use std::io::{self, ErrorKind, Read, Write};
use std::rc::Rc;
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
    /// What of it has come.
    bytes: usize,
    /// The shard's tick when it began.
    since: u32,
}

impl Session {
    /// Has a message been on its way for longer than it may? Not while it is us who do not read.
    pub(crate) fn check_reading(&self, tick: u32, ticks_max: u32) {
        let st = self.state.borrow();
        let late = |r: &Reader| !r.unread && tick.wrapping_sub(r.since) > ticks_max;
        let late = !st.held_back && st.reader.as_deref().is_some_and(late);
        drop(st);
        if late {
            self.close(CloseCode::Policy, "the message did not arrive in time");
        }
    }
}

impl Reader {
    /// What of its message has come.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
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
    fn new(first: &[u8], message_bytes_max: usize, tick: u32) -> Box<Reader> {
        let chunk = if first.len() < SMALL_BURST { 512 } else { 4096 };
        let config = WebSocketConfig::default()
            .read_buffer_size(chunk)
            .write_buffer_size(0)
            .max_write_buffer_size(usize::MAX) // what is written lands in control at once
            .max_message_size(Some(message_bytes_max))
            .max_frame_size(Some(message_bytes_max));
        let ws = WebSocketContext::from_partially_read(first.to_vec(), Role::Server, Some(config));
        Box::new(Reader {
            ws,
            track: Track::default(),
            unread: false,
            left: Vec::new(),
            bytes: 0,
            since: tick,
        })
    }
}

/// How a client's side of the conversation ended.
enum End {
    /// It said goodbye, and tungstenite answered.
    Bye(u16),
    /// It broke a rule: these are the words.
    Broken(CloseCode, Cow<'static, str>),
}

impl From<Error> for End {
    fn from(e: Error) -> End {
        match e {
            Error::Capacity(_) => End::Broken(CloseCode::TooBig, "the message is too big".into()),
            Error::Utf8(_) => End::Broken(CloseCode::InvalidData, "the text is not UTF-8".into()),
            _ => End::Broken(CloseCode::Protocol, "the frame breaks RFC 6455".into()),
        }
    }
}

impl Session {
    /// Reads one burst.
    pub(super) fn pull(self: &Rc<Self>, sh: &Shard, waker: &Waker) {
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
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(_) => self.state.borrow_mut().phase = Phase::Gone,
        }
    }

    /// Was reading left off in the midst of what has been read?
    pub(super) fn has_unread(&self) -> bool {
        self.state.borrow().reader.as_ref().is_some_and(|r| r.unread)
    }

    /// Judges what was read; whole messages go out as one burst.
    pub(crate) fn feed(self: &Rc<Self>, input: &[u8], sh: &Shard, waker: &Waker) {
        let mut burst = sh.burst.borrow_mut();
        let mut said = Said::default();
        let mut st = self.state.borrow_mut();
        if st.phase != Phase::Open {
            sh.half_read.set(sh.half_read.get() - st.reader.take().map_or(0, |r| r.bytes));
            return; // whatever it still says: it was told goodbye
        }
        st.unanswered = 0;
        burst.begin(Targets::default());
        if let Some(Speech::Sender(sender)) = st.voice.as_mut().map(|v| &mut v.speech) {
            sender.refresh(&sh.hub);
            sender.begin(&sh.hub, &mut burst);
        }
        let end = self.hear(&mut st, input, sh, &mut burst, &mut said);
        match end {
            None => {}
            Some(End::Bye(code)) => self.stop(&mut st, Some(code)),
            Some(End::Broken(code, why)) => {
                frame::close(&mut st.control, code.code(), &why);
                self.stop(&mut st, Some(code.code()));
            }
        }
        drop(st);
        self.send(said, &burst, sh);
        drop(burst);
        self.hand_on(sh, waker);
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

impl Session {
    /// Lets tungstenite judge the input, and whoever speaks every message.
    fn hear(
        &self,
        st: &mut State,
        input: &[u8],
        sh: &Shard,
        burst: &mut Burst,
        said: &mut Said,
    ) -> Option<End> {
        let options = &sh.hub.options;
        let (mut reader, rest) = match st.reader.take() {
            Some(reader) => (reader, input),
            None => (Reader::new(input, options.message_bytes_max, sh.tick.get()), &input[..0]),
        };
        sh.half_read.set(sh.half_read.get() - reader.bytes);
        let mut completed = false;
        reader.track.advance(input);
        reader.unread = false;
        let left = std::mem::take(&mut reader.left);
        let rest = if left.is_empty() { rest } else { &left }; // then there is no input, see `Serve`
        let mut feed = Feed { input: rest, control: &mut st.control };
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
            completed = true;
            #[cfg(test)]
            match &message.bytes()[..] {
                crate::faults::IN_READING => panic!("as the test asked"),
                crate::faults::IN_THE_WALK => st.trips = 1,
                crate::faults::IN_ITS_GOODBYE => st.trips = 2,
                _ => {}
            }
            let limited = match &mut st.voice {
                Some(voice) => {
                    voice.received += 1;
                    voice.take_allowance(self.grant.as_deref()).err()
                }
                None => None,
            };
            match limited {
                None => {}
                Some(Limited::Close(why)) => return Some(End::Broken(CloseCode::RateLimited, why.into())),
                Some(Limited::Refuse(why)) => {
                    let problem = Problem::new(ErrorCode::RateLimited, why);
                    refuse(feed.control, self.encoding, &reference_of(&message, self.encoding), &problem);
                    continue;
                }
            }
            let taken = match st.voice.as_mut().map(|v| &mut v.speech) {
                None => Ok(()),
                Some(Speech::Sender(sender)) => {
                    said.take(sender, message, burst, (feed.control, self.encoding, &options.source));
                    Ok(())
                }
                Some(Speech::Talk(talk)) => talk.take(&message, feed.control),
                Some(Speech::Acks(acks)) => {
                    if let Err(why) = acks.take(message.bytes()) {
                        let problem = Problem::new(ErrorCode::InvalidRequest, why);
                        refuse(feed.control, self.encoding, &None, &problem);
                    }
                    Ok(())
                }
            };
            if let Err(why) = taken {
                return Some(End::Broken(CloseCode::BadFrame, why.into()));
            }
        }
        if reader.unread {
            reader.left = feed.input.to_vec();
        }
        if !reader.unread && reader.track.between() {
            return None;
        }
        if completed {
            (reader.bytes, reader.since) = (0, sh.tick.get());
        }
        reader.bytes += input.len();
        let half_read = sh.half_read.get() + reader.bytes;
        if half_read > options.half_read_bytes_max / options.shards {
            return Some(End::Broken(CloseCode::Overload, "too many messages are half sent".into()));
        }
        sh.half_read.set(half_read);
        st.reader = Some(reader);
        None
    }
}
