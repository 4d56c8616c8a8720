//! What fuzz targets reach of the inside: each function takes any bytes and panics where the bus would be wrong.
//! Only with the feature `fuzzing`, which nothing but `fuzz/` turns on.

use crate::encode::{self, Encoding};
use crate::frame::{self, Opcode, Track};
use crate::message::Message;
use bytes::Bytes;
use serde_json::value::RawValue;
use std::io::{Cursor, Read, Write};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tokio_tungstenite::tungstenite::{Error, Message as Heard};

/// Small, so that both sides of it are found soon.
const MESSAGE_BYTES_MAX: usize = 70_000;

/// Messages cut out of `bytes` are written as frames: they are what a client reads, and boundaries are their ends.
pub fn written_frames(bytes: &[u8], at: usize) {
    let mut frames = Vec::new();
    let mut ends = vec![0];
    let mut bodies = Vec::new();
    for (i, body) in bytes.split(|b| *b == b'|').enumerate() {
        // every third is long enough for the other two lengths of a head
        let body = if i % 3 == 2 { body.repeat(at) } else { body.to_vec() };
        frame::append(&mut frames, Opcode::Binary, &body);
        ends.push(frames.len());
        bodies.push(body);
    }
    let at = at.min(frames.len());
    let expected = ends.iter().copied().find(|e| *e >= at);
    assert_eq!(
        Some(frame::boundary(&frames, at)),
        expected,
        "a boundary is the end of the frame that was begun"
    );
    frame::close(&mut frames, 4000, &String::from_utf8_lossy(bytes));
    let mut client = Side::new(Role::Client);
    client.hear(&frames);
    let expected: Vec<_> = bodies.into_iter().map(|b| Heard::Binary(b.into())).collect();
    assert_eq!(client.messages[..expected.len()], expected, "a client reads what was written");
    assert!(
        matches!(client.messages.last(), Some(Heard::Close(Some(_)))),
        "the close is one, reason and all"
    );
}

/// Whatever a client sends, in pieces of `piece` bytes: a reader that is dropped whenever nothing is half read hears
/// the same, and breaks at the same place, as one that is kept.
pub fn read_frames(bytes: &[u8], piece: usize) {
    let (mut kept, mut dropped) = (Side::new(Role::Server), Side::new(Role::Server));
    let mut track = Track::default();
    for piece in bytes.chunks(piece) {
        kept.hear(piece);
        track.advance(piece);
        dropped.hear(piece);
        assert_eq!(kept.end, dropped.end);
        if kept.end.is_some() {
            break;
        }
        if track.between() {
            assert!(kept.said == dropped.said, "nothing is left unsaid either");
            dropped.context = Side::new(Role::Server).context;
        }
    }
    assert_eq!(kept.messages, dropped.messages);
    assert!(kept.said == dropped.said, "both answered alike");
}

/// A frame in `cloudevents.json` mode is a message or a problem.
pub fn unwrap_event(frame: &[u8], json: bool) {
    match encode::unwrap(frame, json) {
        Ok(Message::Text(text)) => assert!(std::str::from_utf8(&text).is_ok(), "text is text"),
        Ok(Message::Json(json)) => {
            assert!(serde_json::from_slice::<&RawValue>(&json).is_ok(), "JSON is JSON")
        }
        Ok(Message::Binary(_)) => {}
        Err(problem) => assert!(problem.detail.is_some_and(|d| !d.is_empty()), "it says why"),
    }
}

/// Any message is one frame in every mode, and comes out of it as it went in; for SSE it is lines of its own.
pub fn wrapped_events(body: &[u8]) {
    let bytes = Bytes::copy_from_slice(body);
    let mut messages = vec![Message::Binary(bytes.clone())];
    if std::str::from_utf8(body).is_ok() {
        let text = Message::Text(bytes);
        messages.extend(text.clone().into_json());
        messages.push(text);
    }
    for message in messages {
        let sent = |encoding| {
            let mut frame = Vec::new();
            encode::ephemeral(&mut frame, encoding, "/fuzz \"x\"", "a/b", &message);
            frame
        };
        let plain = read_one(&sent(Encoding::Plain));
        assert_eq!(
            (plain.is_binary(), &plain.into_data()[..]),
            (matches!(message, Message::Binary(_)), body)
        );
        let event = read_one(&sent(Encoding::CloudEvents)).into_data();
        let out = encode::unwrap(&event, false).expect("what was wrapped can be unwrapped");
        assert_eq!(
            (std::mem::discriminant(&out), trimmed(&out)),
            (std::mem::discriminant(&message), trimmed(&message))
        );
        let msg: serde_json::Value = serde_json::from_slice(&read_one(&sent(Encoding::V1)).into_data())
            .expect("a frame of minium.v1 is JSON");
        assert_eq!((&msg["op"], &msg["topic"]), (&"msg".into(), &"a/b".into()));
        assert_eq!(msg.as_object().map(serde_json::Map::len), Some(3), "and has its own members only: {msg}");
        let stream = sent(Encoding::Sse);
        let event = stream.strip_suffix(b"\n\n").expect("an event ends with an empty line");
        let fields = event.split(|b| *b == b'\n').filter(|l| !l.starts_with(b"data: ")).count();
        let marks = usize::from(matches!(message, Message::Binary(_)));
        assert_eq!(fields, marks, "lines of the message are data lines only");
        assert!(!event.contains(&b'\r'), "and no other end of a line is left in them");
    }
}

fn read_one(frame: &[u8]) -> Heard {
    let mut client = Side::new(Role::Client);
    client.hear(frame);
    let mut messages = client.messages.into_iter();
    let first = messages.next().expect("a whole frame");
    assert_eq!(messages.next(), None, "and no other");
    first
}

/// Spaces around a JSON value are no part of it.
fn trimmed(message: &Message) -> &[u8] {
    match message {
        Message::Json(json) => json.trim_ascii(),
        other => other.bytes(),
    }
}

/// One side of a connection: tungstenite over memory.
struct Side {
    context: WebSocketContext,
    messages: Vec<Heard>,
    said: Vec<u8>,
    end: Option<String>,
}

impl Side {
    fn new(role: Role) -> Side {
        let bytes_max = if role == Role::Client { None } else { Some(MESSAGE_BYTES_MAX) };
        let config = WebSocketConfig::default()
            .write_buffer_size(0)
            .max_write_buffer_size(usize::MAX)
            .max_message_size(bytes_max)
            .max_frame_size(bytes_max);
        let context = WebSocketContext::new(role, Some(config));
        Side { context, messages: Vec::new(), said: Vec::new(), end: None }
    }

    fn hear(&mut self, bytes: &[u8]) {
        let mut wire = Wire { input: Cursor::new(bytes), said: &mut self.said };
        loop {
            match self.context.read(&mut wire) {
                Ok(message) => self.messages.push(message),
                Err(Error::Io(e)) if e.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(e) => {
                    self.end = Some(e.to_string());
                    return;
                }
            }
        }
    }
}

struct Wire<'a> {
    input: Cursor<&'a [u8]>,
    said: &'a mut Vec<u8>,
}

impl Read for Wire<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        match self.input.read(buf)? {
            0 => Err(std::io::ErrorKind::WouldBlock.into()),
            n => Ok(n),
        }
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.said.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
