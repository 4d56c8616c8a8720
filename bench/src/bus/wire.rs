//! As much of WebSocket as a load needs: masked frames out, frames in followed without keeping them, and the stamp
//! that says when which message was sent. A library would make the load slower than the servers that it measures.

use memchr::memmem;

/// `@@`, then 16 hex digits of nanoseconds, 4 of the publisher, 12 of the sequence number.
pub(super) const STAMP_BYTES: usize = 34;
/// The smallest payload: JSON with a stamp in it.
#[cfg(test)]
pub(super) const SIZE_MIN: usize = 49;
/// What a client sends as `sec-websocket-key`: RFC 6455's own sample.
pub(super) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// The most that a control frame carries.
const CONTROL_BYTES_MAX: usize = 125;

/// Which message of whom, and when it was sent or due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    /// Nanoseconds since the load began.
    pub(super) at: u64,
    pub(super) publisher: u16,
    pub(super) sequence: u64,
}

impl Stamp {
    fn parse(bytes: &[u8]) -> Option<Stamp> {
        let mut value: u128 = 0;
        for c in bytes.get(2..STAMP_BYTES)? {
            value = value << 4 | u128::from(char::from(*c).to_digit(16)?);
        }
        let (at, rest) = ((value >> 64) as u64, value as u64);
        Some(Stamp { at, publisher: (rest >> 48) as u16, sequence: rest & 0xffff_ffff_ffff })
    }
}

/// Appends a JSON object of exactly `size` bytes with the stamp in it.
pub(super) fn payload(out: &mut Vec<u8>, size: usize, stamp: Stamp) {
    let start = out.len();
    let Stamp { at, publisher, sequence } = stamp;
    out.extend_from_slice(
        format!("{{\"w\":\"@@{at:016x}{publisher:04x}{sequence:012x}\",\"p\":\"").as_bytes(),
    );
    let padding = (start + size).saturating_sub(out.len() + 2);
    out.resize(out.len() + padding, b'x');
    out.extend_from_slice(b"\"}");
}

/// Opcodes of RFC 6455.
pub(super) const TEXT: u8 = 1;
pub(super) const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Appends a client's frame. It is masked with zeros, so the payload stays as it is.
pub(super) fn frame(out: &mut Vec<u8>, opcode: u8, body: &[u8]) {
    out.push(0x80 | opcode);
    match body.len() {
        n @ 0..126 => out.push(0x80 | n as u8),
        n @ 126..65_536 => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(n as u16).to_be_bytes());
        }
        n => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(n as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(body);
}

/// The answer to a ping.
pub(super) fn pong(out: &mut Vec<u8>, body: &[u8]) {
    frame(out, PONG, body);
}

/// What a server's bytes hold.
pub(super) enum Seen<'a> {
    /// A piece of a message.
    Data(&'a [u8]),
    Ping(&'a [u8]),
    Close(&'a [u8]),
}

/// Follows a server's frames, wherever they are cut.
#[derive(Default)]
pub(super) struct Follower {
    head: [u8; 10],
    have: u8,
    opcode: u8,
    left: u64,
    control: Vec<u8>,
}

impl Follower {
    /// Tells `each` what is in `bytes`.
    pub(super) fn advance(&mut self, mut bytes: &[u8], mut each: impl FnMut(Seen<'_>)) {
        while !bytes.is_empty() {
            if self.left == 0 {
                self.head[self.have as usize] = bytes[0];
                self.have += 1;
                bytes = &bytes[1..];
                if self.begins() && self.left == 0 {
                    self.ended(&mut each); // an empty frame
                }
                continue;
            }
            let n = self.left.min(bytes.len() as u64) as usize;
            let (piece, rest) = bytes.split_at(n);
            self.left -= n as u64;
            bytes = rest;
            if self.opcode < CLOSE {
                each(Seen::Data(piece));
                continue;
            }
            self.control.extend_from_slice(&piece[..n.min(CONTROL_BYTES_MAX)]);
            if self.left == 0 {
                self.ended(&mut each);
            }
        }
    }

    /// Is the head complete? Then the payload begins.
    fn begins(&mut self) -> bool {
        let extended = match self.head[1] & 127 {
            _ if self.have < 2 => return false,
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if (self.have as usize) < 2 + extended {
            return false;
        }
        self.left = match extended {
            0 => u64::from(self.head[1] & 127),
            n => self.head[2..2 + n].iter().fold(0, |sum, b| sum << 8 | u64::from(*b)),
        };
        self.opcode = self.head[0] & 15;
        self.have = 0;
        true
    }

    fn ended(&mut self, each: &mut impl FnMut(Seen<'_>)) {
        match self.opcode {
            CLOSE => each(Seen::Close(&self.control)),
            PING => each(Seen::Ping(&self.control)),
            _ => {}
        }
        self.control = Vec::new();
    }
}

/// Finds stamps in a stream of messages, whatever a protocol wraps around them and wherever it cuts them.
pub(super) struct Scanner {
    carry: [u8; STAMP_BYTES],
    carried: u8,
}

impl Default for Scanner {
    fn default() -> Scanner {
        Scanner { carry: [0; STAMP_BYTES], carried: 0 }
    }
}

impl Scanner {
    /// Tells `each` the stamps that end in `bytes`. `finder` looks for `@@`.
    pub(super) fn scan(
        &mut self,
        mut bytes: &[u8],
        finder: &memmem::Finder<'_>,
        mut each: impl FnMut(Stamp),
    ) {
        if self.carried == 1 && bytes.first().is_some_and(|b| *b != b'@') {
            self.carried = 0; // a lone one
        }
        if self.carried > 0 {
            let had = self.carried as usize;
            let (piece, rest) = bytes.split_at((STAMP_BYTES - had).min(bytes.len()));
            self.keep(had, piece);
            if (self.carried as usize) < STAMP_BYTES {
                return;
            }
            self.carried = 0;
            bytes = rest;
            if self.carry.starts_with(b"@@") {
                Stamp::parse(&self.carry).into_iter().for_each(&mut each);
            }
        }
        while let Some(at) = finder.find(bytes) {
            let rest = &bytes[at..];
            if rest.len() < STAMP_BYTES {
                return self.keep(0, rest);
            }
            bytes = match Stamp::parse(rest) {
                Some(stamp) => {
                    each(stamp);
                    &rest[STAMP_BYTES..]
                }
                None => &rest[2..],
            };
        }
        if bytes.last() == Some(&b'@') {
            self.keep(0, b"@");
        }
    }

    fn keep(&mut self, had: usize, piece: &[u8]) {
        self.carry[had..had + piece.len()].copy_from_slice(piece);
        self.carried = (had + piece.len()) as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server_frame(out: &mut Vec<u8>, opcode: u8, body: &[u8]) {
        let mut masked = Vec::new();
        frame(&mut masked, opcode, body);
        let head = masked.len() - body.len() - 4;
        out.push(masked[0]);
        out.push(masked[1] & 127);
        out.extend_from_slice(&masked[2..head]);
        out.extend_from_slice(body);
    }

    #[test]
    fn the_smallest_payload_is_what_it_says() {
        let mut body = Vec::new();
        payload(&mut body, SIZE_MIN, stamp(1));
        payload(&mut body, 0, stamp(1));
        assert_eq!(body.len(), 2 * SIZE_MIN);
    }

    fn stamp(n: u64) -> Stamp {
        Stamp { at: 0x1234_5678_9abc + n, publisher: 7, sequence: n }
    }

    #[test]
    fn stamps_are_found_wherever_bytes_and_frames_are_cut() {
        // three messages of their own, then two in one frame and one over two frames, as NATS sends them
        let mut frames = Vec::new();
        for (n, size) in [(0, 52), (1, 126), (2, 70_000)] {
            let mut body = Vec::new();
            payload(&mut body, size, stamp(n));
            assert_eq!(body.len(), size);
            serde_json::from_slice::<serde_json::Value>(&body).unwrap();
            server_frame(&mut frames, TEXT, &body);
            server_frame(&mut frames, PING, b"p");
        }
        let mut stream = b"MSG a@b 1 @".to_vec();
        (3..6).for_each(|n| payload(&mut stream, 60, stamp(n)));
        let (first, second) = stream.split_at(150);
        server_frame(&mut frames, BINARY, first);
        server_frame(&mut frames, BINARY, b"");
        server_frame(&mut frames, BINARY, second);
        server_frame(&mut frames, CLOSE, b"\x0f\xa0fell behind");

        let finder = memmem::Finder::new(b"@@");
        for cut in [1, 2, 3, 7, 33, 34, 35, 100, 4096, frames.len()] {
            let (mut follower, mut scanner) = (Follower::default(), Scanner::default());
            let (mut seen, mut pings, mut closed) = (vec![], 0, vec![]);
            for piece in frames.chunks(cut) {
                follower.advance(piece, |what| match what {
                    Seen::Data(bytes) => scanner.scan(bytes, &finder, |s| seen.push(s)),
                    Seen::Ping(body) => pings += usize::from(body == b"p"),
                    Seen::Close(body) => closed = body.to_vec(),
                });
            }
            assert_eq!(seen, (0..6).map(stamp).collect::<Vec<_>>(), "cut {cut}");
            assert_eq!((pings, &closed[2..]), (3, &b"fell behind"[..]), "cut {cut}");
        }
    }

    #[test]
    fn what_only_looks_like_a_stamp_is_none() {
        let finder = memmem::Finder::new(b"@@");
        let mut text = b"@@@@not one, and long enough to be one: @@".to_vec();
        text.resize(200, b'x');
        payload(&mut text, 60, stamp(1));
        let mut seen = vec![];
        Scanner::default().scan(&text, &finder, |s| seen.push(s));
        assert_eq!(seen, [stamp(1)]);
    }
}
