//! Bytes of WebSocket frames: what the server writes, and where the client's frames end.
//!
//! Reading and judging is tungstenite's; this writes, since a frame is written once for all who get it, and follows
//! what comes in just far enough to know when nothing is half read. Pure.

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Opcode {
    Text = 1,
    Binary = 2,
    Close = 8,
    Ping = 9,
}

/// The longest reason that fits a Close frame.
const REASON_BYTES_MAX: usize = 123;

fn header(out: &mut Vec<u8>, opcode: Opcode, len: usize) {
    out.push(0x80 | opcode as u8);
    match len {
        0..126 => out.push(len as u8),
        126..65_536 => {
            out.push(126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
}

/// Appends one whole frame.
pub(crate) fn append(out: &mut Vec<u8>, opcode: Opcode, body: &[u8]) {
    out.reserve(body.len() + 10);
    header(out, opcode, body.len());
    out.extend_from_slice(body);
}

/// Appends a Close frame; a reason that is too long is cut.
pub(crate) fn close(out: &mut Vec<u8>, code: u16, reason: &str) {
    let reason = &reason[..reason.floor_char_boundary(REASON_BYTES_MAX)];
    header(out, Opcode::Close, 2 + reason.len());
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(reason.as_bytes());
}

/// The first frame boundary at or after `at`, in server frames that begin at 0.
pub(crate) fn boundary(frames: &[u8], at: usize) -> usize {
    let mut p = 0;
    while p < at {
        let long = |n: usize| frames[p + 2..p + 2 + n].iter().fold(0, |a, b| a << 8 | usize::from(*b));
        p += match frames[p + 1] {
            126 => 4 + long(2),
            127 => 10 + long(8),
            n => 2 + usize::from(n),
        };
    }
    p
}

/// Follows the client's frames without looking into them.
#[derive(Debug, Default)]
pub(crate) struct Track {
    head: [u8; 14],
    have: u8,
    fragments: bool,
    left: u64,
}

impl Track {
    /// Goes on by what was read.
    pub(crate) fn advance(&mut self, mut read: &[u8]) {
        while !read.is_empty() {
            if self.left > 0 {
                let n = self.left.min(read.len() as u64);
                self.left -= n;
                read = &read[n as usize..];
                continue;
            }
            self.head[usize::from(self.have)] = read[0];
            self.have += 1;
            read = &read[1..];
            if self.have >= 2 {
                self.head_grew();
            }
        }
    }

    fn head_grew(&mut self) {
        let h = &self.head;
        let extended = match h[1] & 127 {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask = if h[1] & 128 != 0 { 4 } else { 0 };
        if usize::from(self.have) < 2 + extended + mask {
            return;
        }
        self.left = match extended {
            0 => u64::from(h[1] & 127),
            n => h[2..2 + n].iter().fold(0, |a, b| a << 8 | u64::from(*b)),
        };
        if h[0] & 8 == 0 {
            self.fragments = h[0] & 128 == 0;
        }
        self.have = 0;
    }

    /// Is nothing half read?
    pub(crate) fn between(&self) -> bool {
        self.have == 0 && self.left == 0 && !self.fragments
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn client_frame(first: u8, body: &[u8]) -> Vec<u8> {
        let mut out = vec![first];
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
        out
    }

    #[test]
    fn a_reason_that_is_too_long_is_cut_between_characters() {
        let mut out = Vec::new();
        close(&mut out, 4000, &"ü".repeat(100));
        assert_eq!(out.len(), 2 + 2 + 122);
        assert!(std::str::from_utf8(&out[4..]).is_ok());
    }

    proptest! {
        #[test]
        fn a_boundary_is_the_end_of_the_frame_that_was_begun(
            sizes in prop::collection::vec(prop_oneof![0usize..130, 65_530usize..65_540, 0usize..3_000], 1..8),
            at in 0.0f64..=1.0,
        ) {
            let mut frames = Vec::new();
            let mut ends = vec![0];
            for n in sizes {
                append(&mut frames, Opcode::Text, &vec![b'x'; n]);
                ends.push(frames.len());
            }
            let at = (at * frames.len() as f64) as usize;
            let expected = *ends.iter().find(|e| **e >= at).unwrap();
            prop_assert_eq!(boundary(&frames, at), expected);
        }

        #[test]
        fn nothing_is_half_read_exactly_at_the_ends_of_messages(
            messages in prop::collection::vec((0usize..300, any::<bool>(), any::<bool>()), 1..6),
        ) {
            let mut bytes = Vec::new();
            let mut ends = vec![];
            for (n, fragmented, pinged) in messages {
                let body = vec![7; n];
                if fragmented {
                    bytes.extend(client_frame(0x01, &body));
                    if pinged {
                        bytes.extend(client_frame(0x89, b"between"));
                    }
                    bytes.extend(client_frame(0x80, &body));
                } else {
                    bytes.extend(client_frame(0x82, &body));
                }
                ends.push(bytes.len());
            }
            let mut track = Track::default();
            for (i, b) in bytes.iter().enumerate() {
                track.advance(&[*b]);
                prop_assert_eq!(track.between(), ends.contains(&(i + 1)), "after byte {}", i);
            }
        }
    }
}
