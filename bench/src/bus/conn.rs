//! One connection of the load: its handshake, the dialogue that opens it, and what it has counted.

use super::dialect::{Dialect, Role, Step};
use super::link::Link;
use super::wire::{self, Follower, Scanner, Seen, Stamp};
use memchr::memmem;
use std::io::ErrorKind::{Interrupted, WouldBlock};

/// A head or an opening dialogue that is longer is none.
const SAID_BYTES_MAX: usize = 64 * 1024;

/// How far a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Before the 101.
    Handshake,
    /// In the dialogue that follows it.
    Dialogue,
    Ready,
    /// Ended, by whomever.
    Dead,
}

pub(super) struct Conn {
    link: Link,
    dialect: Dialect,
    pub(super) phase: Phase,
    /// Why it ended, where that is known.
    pub(super) last_words: Option<String>,
    opening: std::vec::IntoIter<Step>,
    awaited: Step,
    /// What the server has said while opening.
    said: Vec<u8>,
    follower: Follower,
    scanner: Scanner,
    out: Vec<u8>,
    written: usize,
    /// The sequence number that comes next, by publisher, from the one of `topic` on.
    pub(super) next: Vec<u64>,
    /// The number of its topic's publisher.
    pub(super) topic: u16,
    /// Does epoll tell when it may be written to?
    pub(super) watched: bool,
}

impl Conn {
    pub(super) fn open(
        link: Link,
        host: &str,
        dialect: Dialect,
        role: Role,
        topic: &str,
        number: usize,
    ) -> Conn {
        let path = dialect.path(role, topic);
        let asked = dialect.subprotocol().map(|p| format!("sec-websocket-protocol: {p}\r\n"));
        let head = format!(
            "GET {path} HTTP/1.1\r\nhost: {host}\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: {}\r\n{}\r\n",
            wire::KEY,
            asked.unwrap_or_default()
        );
        Conn {
            link,
            dialect,
            phase: Phase::Handshake,
            last_words: None,
            opening: dialect.opening(role, topic, number).into_iter(),
            awaited: Step::default(),
            said: Vec::new(),
            follower: Follower::default(),
            scanner: Scanner::default(),
            out: head.into_bytes(),
            written: 0,
            next: vec![0],
            topic: 0,
            watched: false,
        }
    }

    pub(super) fn link(&self) -> &Link {
        &self.link
    }

    /// Bytes that the server has not taken yet.
    pub(super) fn unsent(&self) -> usize {
        self.out.len() - self.written
    }

    /// Adds one message; it leaves with [`Conn::flush`].
    pub(super) fn publish(&mut self, topic: &str, size: usize, stamp: Stamp, scratch: &mut [Vec<u8>; 2]) {
        let [body, wrapped] = scratch;
        body.clear();
        wrapped.clear();
        wire::payload(body, size, stamp);
        self.dialect.publish(wrapped, topic, body);
        wire::frame(&mut self.out, self.dialect.opcode(), wrapped);
    }

    /// Writes what the socket takes.
    pub(super) fn flush(&mut self) {
        while self.written < self.out.len() {
            match self.link.write(&self.out[self.written..]) {
                Ok(n) => self.written += n,
                Err(e) if e.kind() == Interrupted => {}
                Err(e) if e.kind() == WouldBlock => return,
                Err(e) => return self.end(format!("writing: {e}")),
            }
        }
        self.out.clear();
        self.written = 0;
        if let Err(e) = self.link.flush()
            && e.kind() != WouldBlock
        {
            self.end(format!("writing: {e}"));
        }
    }

    /// Reads what is there; tells `each` the stamp of what came once it was open, and whether it was in order.
    pub(super) fn readable(
        &mut self,
        buffer: &mut [u8],
        finder: &memmem::Finder<'_>,
        mut each: impl FnMut(Stamp, bool),
    ) {
        loop {
            match self.link.read(buffer) {
                Ok(0) => return self.end("the server hung up".into()),
                Ok(n) => self.take(&buffer[..n], finder, &mut each),
                Err(e) if e.kind() == Interrupted => continue,
                Err(e) if e.kind() == WouldBlock => break,
                Err(e) => return self.end(format!("reading: {e}")),
            }
            // a plain socket is asked once: epoll tells when there is more
            if !self.link.is_buffered() || self.phase == Phase::Dead {
                break;
            }
        }
        if self.unsent() > 0 || self.link.is_buffered() {
            self.flush();
        }
    }

    fn take(&mut self, bytes: &[u8], finder: &memmem::Finder<'_>, each: &mut impl FnMut(Stamp, bool)) {
        if self.phase == Phase::Handshake {
            self.said.extend_from_slice(bytes);
            let Some(end) = memmem::find(&self.said, b"\r\n\r\n") else {
                return self.bound();
            };
            let rest = self.said.split_off(end + 4);
            let head = String::from_utf8_lossy(&std::mem::take(&mut self.said)).to_ascii_lowercase();
            let granted = self.dialect.subprotocol().is_none_or(|p| head.contains(p));
            if !head.starts_with("http/1.1 101") || !granted {
                return self.end(refusal(&head, &rest));
            }
            self.phase = Phase::Dialogue;
            self.converse();
            if rest.is_empty() {
                return;
            }
            return self.take(&rest, finder, each);
        }
        let (mut pongs, mut closed) = (Vec::new(), None);
        let mut follower = std::mem::take(&mut self.follower);
        follower.advance(bytes, |seen| match seen {
            Seen::Data(piece) if self.phase == Phase::Ready => {
                let (next, first) = (&mut self.next, self.topic);
                self.scanner.scan(piece, finder, |stamp| each(stamp, follows(next, first, stamp)));
            }
            Seen::Data(piece) => {
                self.said.extend_from_slice(piece);
                self.converse();
            }
            Seen::Ping(body) => wire::pong(&mut pongs, body),
            Seen::Close(body) => closed = Some(close_words(body)),
        });
        self.follower = follower;
        self.out.extend_from_slice(&pongs);
        if let Some(words) = closed {
            self.end(words);
        } else if self.phase == Phase::Dialogue {
            self.bound();
        }
    }

    /// Goes on with the dialogue as far as what the server has said allows.
    fn converse(&mut self) {
        loop {
            let Some(at) = memmem::find(&self.said, self.awaited.wait) else { return };
            self.said.drain(..at + self.awaited.wait.len());
            if !self.awaited.send.is_empty() {
                wire::frame(&mut self.out, self.dialect.opcode(), &self.awaited.send);
            }
            match self.opening.next() {
                Some(step) => self.awaited = step,
                None => {
                    self.phase = Phase::Ready;
                    self.said = Vec::new();
                    return;
                }
            }
        }
    }

    fn bound(&mut self) {
        if self.said.len() > SAID_BYTES_MAX {
            self.end("the server talks without end while opening".into());
        }
    }

    fn end(&mut self, why: String) {
        self.phase = Phase::Dead;
        self.last_words.get_or_insert(why);
    }
}

/// What a server says that does not open the connection, in a line.
fn refusal(head: &str, body: &[u8]) -> String {
    if head.starts_with("http/1.1 101") {
        return "the subprotocol is not spoken".into();
    }
    let problem: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let detail = problem.as_ref().and_then(|p| p["detail"].as_str());
    format!("{}: {}", head.lines().next().unwrap_or("nothing"), detail.unwrap_or("no reason was given"))
}

/// Does it come after all that came from its publisher? What was left out shows in the count.
fn follows(next: &mut [u64], first: u16, stamp: Stamp) -> bool {
    let publisher = usize::from(stamp.publisher.wrapping_sub(first));
    let Some(next) = next.get_mut(publisher) else { return false };
    let follows = stamp.sequence >= *next;
    *next = (*next).max(stamp.sequence + 1);
    follows
}

fn close_words(body: &[u8]) -> String {
    let code = body.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
    format!("closed with {code}: {}", String::from_utf8_lossy(body.get(2..).unwrap_or_default()))
}
