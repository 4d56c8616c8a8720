//! A message becomes bytes here, once for each way in which somebody receives it.
//!
//! Nothing in them is about one receiver. A durable entry is the same event to the byte in every mode; an ephemeral
//! message is bare in plain mode and wrapped in a fresh event in CloudEvents mode.

use crate::frame::{self, Opcode};
use crate::history::Relayed;
use crate::message::Message;
use crate::opening::Mode;
use crate::work::LeasedJob;
use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use jiff::Timestamp;
use minium_protocol::{Answer, CloudEvent, ErrorCode, Position, Problem};
use std::io::Write;
use uuid::Uuid;

/// How a receiver gets its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Encoding {
    /// WebSocket frames, bare.
    Plain,
    /// WebSocket frames, each an event.
    CloudEvents,
    /// Server-sent events.
    Sse,
    /// WebSocket frames of `minium.v1`.
    V1,
}

impl Encoding {
    pub(crate) const ALL: [Encoding; 4] =
        [Encoding::Plain, Encoding::CloudEvents, Encoding::Sse, Encoding::V1];

    /// Is it made of WebSocket frames?
    pub(crate) fn is_framed(self) -> bool {
        self != Encoding::Sse
    }
}

impl From<Mode> for Encoding {
    fn from(mode: Mode) -> Encoding {
        match mode {
            Mode::Plain => Encoding::Plain,
            Mode::CloudEvents => Encoding::CloudEvents,
            Mode::V1 => Encoding::V1,
        }
    }
}

/// Appends an ephemeral message.
pub(crate) fn ephemeral(out: &mut Vec<u8>, encoding: Encoding, source: &str, topic: &str, message: &Message) {
    let body = message.bytes();
    match (encoding, message) {
        (Encoding::Plain, Message::Binary(_)) => frame::append(out, Opcode::Binary, body),
        (Encoding::Plain, _) => frame::append(out, Opcode::Text, body),
        (Encoding::CloudEvents, _) => frame::append(out, Opcode::Text, &wrap(source, topic, message)),
        (Encoding::V1, _) => frame::append(out, Opcode::Text, &msg(topic, None, message)),
        (Encoding::Sse, Message::Binary(_)) => {
            out.extend_from_slice(b"event: binary\n");
            sse_data(out, BASE64_STANDARD.encode(body).as_bytes());
        }
        (Encoding::Sse, _) => sse_data(out, body),
    }
}

/// Appends a durable entry. `resumable`: an SSE client can come back to its position.
pub(crate) fn durable(out: &mut Vec<u8>, encoding: Encoding, entry: &Relayed, resumable: bool) {
    match encoding {
        Encoding::Plain => frame::append(out, Opcode::Text, entry.message()),
        Encoding::CloudEvents => frame::append(out, Opcode::Text, &entry.event),
        Encoding::V1 => {
            let message = Message::Json(entry.message().clone());
            frame::append(out, Opcode::Text, &msg(entry.topic.as_str(), Some(entry.position), &message));
        }
        Encoding::Sse => {
            if resumable {
                writeln!(out, "id: {}", entry.position).expect("memory takes every byte");
            }
            sse_data(out, entry.message());
        }
    }
}

/// Appends an answer to a `minium.v1` client.
pub(crate) fn answer(out: &mut Vec<u8>, answer: &Answer<'_>) {
    frame::append(out, Opcode::Text, answer.text().as_bytes());
}

/// A job for a puller who speaks `minium.v1`.
pub(crate) fn job(out: &mut Vec<u8>, job: &LeasedJob) {
    let mut text = Vec::with_capacity(job.snapshot.len() + 320);
    text.extend_from_slice(br#"{"op":"job","topic":"#);
    json_string(&mut text, job.task.as_str());
    text.extend_from_slice(br#","job":"#);
    text.extend_from_slice(&job.snapshot);
    write!(text, r#","lease":"{}","lease_expires":"{:.6}""#, job.lease, job.expires)
        .expect("memory takes every byte");
    if let Some(trace) = &job.trace {
        text.extend_from_slice(br#","traceparent":"#);
        json_string(&mut text, trace.traceparent());
        if let Some(state) = trace.tracestate() {
            text.extend_from_slice(br#","tracestate":"#);
            json_string(&mut text, state);
        }
    }
    text.push(b'}');
    frame::append(out, Opcode::Text, &text);
}

/// The `msg` frame of `minium.v1`: the same bytes for everybody.
fn msg(topic: &str, position: Option<Position>, message: &Message) -> Vec<u8> {
    let body = message.bytes();
    let mut out = Vec::with_capacity(body.len() + topic.len() + 96);
    out.extend_from_slice(br#"{"op":"msg","topic":"#);
    json_string(&mut out, topic);
    if let Some(Position { epoch, offset }) = position {
        write!(out, r#","epoch":{epoch},"offset":{offset}"#).expect("memory takes every byte");
    }
    match (message, std::str::from_utf8(body)) {
        (Message::Json(_), Ok(_)) => {
            out.extend_from_slice(br#","data":"#);
            out.extend_from_slice(body);
        }
        (Message::Text(_), Ok(text)) => {
            out.extend_from_slice(br#","data":"#);
            json_string(&mut out, text);
        }
        _ => {
            out.extend_from_slice(br#","data_base64":""#);
            out.extend_from_slice(BASE64_STANDARD.encode(body).as_bytes());
            out.push(b'"');
        }
    }
    out.push(b'}');
    out
}

/// Tells an SSE client where it stands before the first event, so that it can resume from there.
pub(crate) fn sse_position(out: &mut Vec<u8>, position: Position) {
    write!(out, "id: {position}\n\n").expect("memory takes every byte");
}

/// Tells an SSE client why its stream ends.
pub(crate) fn sse_close(out: &mut Vec<u8>, code: u16, reason: &str) {
    out.extend_from_slice(b"event: close\n");
    sse_data(out, serde_json::json!({ "code": code, "reason": reason }).to_string().as_bytes());
}

/// One `data:` line for each line of the text, as the format asks, and the empty line that ends the event.
fn sse_data(out: &mut Vec<u8>, text: &[u8]) {
    out.reserve(text.len() + 16);
    let mut rest = text;
    loop {
        out.extend_from_slice(b"data: ");
        let Some(end) = rest.iter().position(|b| matches!(b, b'\n' | b'\r')) else { break };
        out.extend_from_slice(&rest[..end]);
        out.push(b'\n');
        let pair = rest[end..].starts_with(b"\r\n");
        rest = &rest[end + 1 + usize::from(pair)..];
    }
    out.extend_from_slice(rest);
    out.extend_from_slice(b"\n\n");
}

/// The event around an ephemeral message. Text is a JSON string, JSON is itself.
fn wrap(source: &str, topic: &str, message: &Message) -> Vec<u8> {
    let body = message.bytes();
    let mut out = Vec::with_capacity(body.len() + 320);
    let mut id = Uuid::encode_buffer();
    out.extend_from_slice(br#"{"specversion":"1.0","id":""#);
    out.extend_from_slice(Uuid::new_v4().hyphenated().encode_lower(&mut id).as_bytes());
    out.extend_from_slice(br#"","source":"#);
    json_string(&mut out, source);
    out.extend_from_slice(br#","type":"message","subject":"#);
    json_string(&mut out, topic);
    write!(out, ",\"time\":\"{:.6}\",", Timestamp::now()).expect("memory takes every byte");
    match (message, std::str::from_utf8(body)) {
        (Message::Json(_), Ok(text)) => {
            out.extend_from_slice(br#""datacontenttype":"application/json","data":"#);
            out.extend_from_slice(text.as_bytes());
        }
        (Message::Text(_), Ok(text)) => {
            out.extend_from_slice(br#""datacontenttype":"text/plain","data":"#);
            json_string(&mut out, text);
        }
        _ => {
            out.extend_from_slice(br#""datacontenttype":"application/octet-stream","data_base64":""#);
            out.extend_from_slice(BASE64_STANDARD.encode(body).as_bytes());
            out.push(b'"');
        }
    }
    out.push(b'}');
    out
}

fn json_string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a string always serialises into memory");
}

/// The message in an event that a client sent. `json`: the channel has a schema, so JSON is what it wants.
///
/// A JSON string is text, the same way as text goes out, unless the channel or `datacontenttype` makes it JSON.
pub(crate) fn unwrap(frame: &[u8], json: bool) -> Result<Message, Problem> {
    let fault = |detail: String| Problem::new(ErrorCode::InvalidJson, detail);
    let event: CloudEvent =
        serde_json::from_slice(frame).map_err(|e| fault(format!("not a CloudEvent in JSON: {e}")))?;
    if event.specversion != "1.0" {
        return Err(fault(format!("specversion is {:?}, it must be \"1.0\"", event.specversion)));
    }
    let extra: ContentType = serde_json::from_slice(frame).map_err(|e| fault(e.to_string()))?;
    match (event.data, event.data_base64) {
        (Some(data), None) => {
            let says_json = extra.datacontenttype.as_deref().map(is_json);
            let as_json = says_json.unwrap_or(json);
            match serde_json::from_str::<String>(data.get()) {
                Ok(text) if !as_json => Ok(Message::Text(text.into())),
                Ok(_) | Err(_) => Ok(Message::Json(Bytes::copy_from_slice(data.get().as_bytes()))),
            }
        }
        (None, Some(text)) => {
            let bytes = BASE64_STANDARD.decode(text).map_err(|e| fault(format!("data_base64: {e}")))?;
            Ok(Message::Binary(bytes.into()))
        }
        (Some(_), Some(_)) => Err(fault("the event has both data and data_base64".into())),
        (None, None) => Err(fault("the event has neither data nor data_base64".into())),
    }
}

#[derive(serde::Deserialize)]
struct ContentType {
    #[serde(default)]
    datacontenttype: Option<String>,
}

fn is_json(content_type: &str) -> bool {
    let media = content_type.split(';').next().unwrap_or_default().trim();
    media.eq_ignore_ascii_case("application/json") || media.to_ascii_lowercase().ends_with("+json")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn sse(text: &str) -> String {
        let mut out = Vec::new();
        ephemeral(&mut out, Encoding::Sse, "/s", "t", &text.to_owned().into());
        String::from_utf8(out).unwrap()
    }

    fn event(message: &Message) -> Value {
        serde_json::from_slice(&wrap("/minium/\"x\"", "a/b", message)).unwrap()
    }

    fn entry() -> Relayed {
        Relayed {
            position: Position { epoch: 2, offset: 7 },
            topic: "a/b".parse().unwrap(),
            event: Bytes::from_static(b"{\"specversion\":\"1.0\"}"),
            data: Some(Bytes::from_static(b"{\"a\":1}")),
        }
    }

    #[test]
    fn each_line_of_a_text_is_a_data_line() {
        assert_eq!(sse("a"), "data: a\n\n");
        assert_eq!(sse(""), "data: \n\n");
        assert_eq!(sse("a\nb\r\nc\rd\n"), "data: a\ndata: b\ndata: c\ndata: d\ndata: \n\n");
        assert_eq!(sse("id: 9\n\ndata: x"), "data: id: 9\ndata: \ndata: data: x\n\n");
    }

    #[test]
    fn binary_is_marked_as_such_on_sse() {
        let mut out = Vec::new();
        ephemeral(&mut out, Encoding::Sse, "/s", "t", &Message::Binary(Bytes::from_static(&[0, 255])));
        assert_eq!(out, b"event: binary\ndata: AP8=\n\n");
    }

    #[test]
    fn a_durable_entry_carries_its_position_as_id() {
        let mut out = Vec::new();
        durable(&mut out, Encoding::Sse, &entry(), true);
        assert_eq!(out, b"id: 2:7\ndata: {\"a\":1}\n\n");
        out.clear();
        durable(&mut out, Encoding::Sse, &entry(), false);
        assert_eq!(out, b"data: {\"a\":1}\n\n");
    }

    #[test]
    fn a_durable_message_is_bare_an_event_or_a_frame_with_its_position() {
        let body = |encoding| {
            let mut out = Vec::new();
            durable(&mut out, encoding, &entry(), true);
            String::from_utf8(out.split_off(2)).unwrap()
        };
        assert_eq!(body(Encoding::Plain), r#"{"a":1}"#);
        assert_eq!(body(Encoding::CloudEvents), r#"{"specversion":"1.0"}"#);
        assert_eq!(body(Encoding::V1), r#"{"op":"msg","topic":"a/b","epoch":2,"offset":7,"data":{"a":1}}"#);
    }

    #[test]
    fn text_is_wrapped_as_a_string_and_json_as_itself() {
        let text = || Bytes::from_static(br#"{"a":1}"#);
        let e = event(&Message::Text(text()));
        assert_eq!(e["data"], r#"{"a":1}"#);
        assert_eq!((&e["type"], &e["subject"]), (&"message".into(), &"a/b".into()));
        assert_eq!(e["source"], "/minium/\"x\"");
        assert_eq!(event(&Message::Json(text()))["data"]["a"], 1);
        let b = event(&Message::Binary(Bytes::from_static(&[0, 255])));
        assert_eq!((&b["data_base64"], b.get("data")), (&"AP8=".into(), None));
        assert_ne!(event(&"x".into())["id"], event(&"x".into())["id"]);
        let v1 = |m: &Message| serde_json::from_slice::<Value>(&msg("a/b", None, m)).unwrap();
        assert_eq!(v1(&Message::Text(text()))["data"], r#"{"a":1}"#);
        assert_eq!(v1(&Message::Json(text()))["data"]["a"], 1);
        assert_eq!(v1(&Message::Binary(Bytes::from_static(&[0, 255])))["data_base64"], "AP8=");
        assert_eq!(v1(&"x".into())["topic"], "a/b");
    }

    #[test]
    fn what_was_wrapped_unwraps_to_the_same_message() {
        let bytes = |b: &'static [u8]| Bytes::from_static(b);
        for (json, message) in [
            (false, Message::Text(bytes(b"\"quoted\" \n"))),
            (true, Message::Json(bytes(b"{\"a\":[1]}"))),
            (true, Message::Json(bytes(b"\"s\""))),
            (false, Message::Binary(bytes(&[9, 0]))),
        ] {
            assert_eq!(unwrap(&wrap("/s", "t", &message), json).unwrap(), message);
        }
    }

    #[test]
    fn the_channel_or_the_content_type_decides_what_a_string_is() {
        let read = |extra: &str, json| {
            let e = format!(r#"{{"specversion":"1.0","id":"1","source":"/c","type":"x"{extra}}}"#);
            unwrap(e.as_bytes(), json).map(|m| String::from_utf8(m.bytes().to_vec()).unwrap())
        };
        assert_eq!(read(r#","data":"hi""#, false).unwrap(), "hi");
        assert_eq!(read(r#","data":"hi""#, true).unwrap(), "\"hi\"");
        assert_eq!(read(r#","data":"hi","datacontenttype":"application/json""#, false).unwrap(), "\"hi\"");
        assert_eq!(read(r#","data":"{}","datacontenttype":"text/plain""#, true).unwrap(), "{}");
        assert_eq!(read(r#","data":{"a": 1}"#, false).unwrap(), r#"{"a": 1}"#);
        for bad in ["", r#","data":1,"data_base64":"AA==""#, r#","data_base64":"%""#] {
            assert_eq!(read(bad, false).unwrap_err().code, ErrorCode::InvalidJson, "{bad}");
        }
        assert!(unwrap(b"hello", false).is_err());
        assert!(
            unwrap(br#"{"specversion":"0.3","id":"1","source":"/c","type":"x","data":1}"#, false).is_err()
        );
    }
}
