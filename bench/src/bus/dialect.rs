//! What the servers under load want to hear: paths and frames of Minium, NATS and MQTT 3.1.1, each over WebSocket.
//!
//! As little of each as one topic needs; nothing is acknowledged (QoS 0, `verbose` off), as in Minium's plain mode.

use super::wire::{BINARY, TEXT};

/// A protocol over WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// A frame is a message, the path says which topic: Minium's plain mode, the floor, uWebSockets.
    Plain,
    /// Minium's multiplexed mode, by the paths that imply its first operation.
    V1,
    Nats,
    Mqtt,
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Subscriber,
    Publisher,
}

/// A step of the dialogue that follows the handshake: once `wait` was heard, `send` is said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) wait: &'static [u8],
    pub(super) send: Vec<u8>,
}

impl Dialect {
    /// The subprotocol that is asked for, and must be granted.
    pub(super) fn subprotocol(self) -> Option<&'static str> {
        match self {
            Dialect::Plain | Dialect::Nats => None,
            Dialect::V1 => Some("minium.v1"),
            Dialect::Mqtt => Some("mqtt"),
        }
    }

    pub(super) fn opcode(self) -> u8 {
        match self {
            Dialect::Plain | Dialect::V1 => TEXT,
            Dialect::Nats | Dialect::Mqtt => BINARY,
        }
    }

    pub(super) fn path(self, role: Role, topic: &str) -> String {
        match (self, role) {
            (Dialect::Plain | Dialect::V1, Role::Subscriber) => format!("/sub/{topic}"),
            (Dialect::Plain | Dialect::V1, Role::Publisher) => format!("/pub/{topic}"),
            (Dialect::Nats, _) => "/".into(),
            (Dialect::Mqtt, _) => "/mqtt".into(),
        }
    }

    /// The dialogue that opens connection `number`.
    pub(super) fn opening(self, role: Role, topic: &str, number: usize) -> Vec<Step> {
        let subscribes = role == Role::Subscriber;
        match self {
            Dialect::Plain => vec![],
            // the confirmation of the subscription that the path implies
            Dialect::V1 if subscribes => vec![Step { wait: b"\"ok\"", send: vec![] }],
            Dialect::V1 => vec![],
            Dialect::Nats => {
                let subject = subject(topic);
                let sub = if subscribes { format!("SUB {subject} 1\r\n") } else { String::new() };
                let hello = format!("CONNECT {{\"verbose\":false,\"pedantic\":false}}\r\n{sub}PING\r\n");
                let hello = Step { wait: b"INFO", send: hello.into_bytes() };
                vec![hello, Step { wait: b"PONG", send: vec![] }]
            }
            Dialect::Mqtt => {
                let mut body = b"\x00\x04MQTT\x04\x02\x00\x00".to_vec(); // clean session, no keep-alive
                prefixed(&mut body, &format!("minium-bench-{number}"));
                let connect = Step { wait: b"", send: packet(0x10, &body) };
                if !subscribes {
                    return vec![connect, Step { wait: CONNACK, send: vec![] }];
                }
                let mut body = vec![0, 1];
                prefixed(&mut body, topic);
                body.push(0);
                let subscribe = Step { wait: CONNACK, send: packet(0x82, &body) };
                vec![connect, subscribe, Step { wait: b"\x90\x03\x00\x01", send: vec![] }]
            }
        }
    }

    /// Appends what a publisher says to send `body`, before framing.
    pub(super) fn publish(self, out: &mut Vec<u8>, topic: &str, body: &[u8]) {
        match self {
            Dialect::Plain => out.extend_from_slice(body),
            Dialect::V1 => {
                out.extend_from_slice(br#"{"op":"pub","data":"#);
                out.extend_from_slice(body);
                out.push(b'}');
            }
            Dialect::Nats => {
                out.extend_from_slice(format!("PUB {} {}\r\n", subject(topic), body.len()).as_bytes());
                out.extend_from_slice(body);
                out.extend_from_slice(b"\r\n");
            }
            Dialect::Mqtt => {
                let mut rest = Vec::with_capacity(2 + topic.len() + body.len());
                prefixed(&mut rest, topic);
                rest.extend_from_slice(body);
                out.extend_from_slice(&packet(0x30, &rest));
            }
        }
    }
}

/// Accepted, no session.
const CONNACK: &[u8] = b"\x20\x02\x00\x00";

/// NATS separates the levels of a subject by dots.
fn subject(topic: &str) -> String {
    topic.replace('/', ".")
}

fn prefixed(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// An MQTT control packet: its length in groups of seven bits, the lowest first.
fn packet(kind: u8, body: &[u8]) -> Vec<u8> {
    let (mut out, mut left) = (vec![kind], body.len());
    loop {
        let more = if left >> 7 > 0 { 128 } else { 0 };
        out.push((left & 127) as u8 | more);
        left >>= 7;
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(body);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(dialect: Dialect, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        dialect.publish(&mut out, "a/b", body);
        out
    }

    #[test]
    fn a_message_is_said_as_each_protocol_wants_it() {
        assert_eq!(published(Dialect::Plain, b"{}"), b"{}");
        assert_eq!(published(Dialect::V1, b"{}"), br#"{"op":"pub","data":{}}"#);
        assert_eq!(published(Dialect::Nats, b"{}"), b"PUB a.b 2\r\n{}\r\n");
        assert_eq!(published(Dialect::Mqtt, b"{}"), b"\x30\x07\x00\x03a/b{}");
        let long = published(Dialect::Mqtt, &[b'x'; 1_000]);
        assert_eq!(long[..3], [0x30, 0xed, 0x07], "1,005 is 7 * 128 + 109");
    }
}
