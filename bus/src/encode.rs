//! A message becomes bytes here, once for each way in which somebody receives it.
//!
//! Nothing in them is about one receiver. A durable entry is the same event to the byte in every mode; an ephemeral
//! message is bare in plain mode and wrapped in a fresh event in CloudEvents mode.

use crate::frame::{self, Opcode};
use crate::message::Message;
use crate::opening::Mode;
use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use jiff::Timestamp;
use minium_protocol::{CloudEvent, ErrorCode, Position, Problem};
use std::io::Write;
use uuid::Uuid;

/// How a receiver gets its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// WebSocket frames, bare.
    Plain,
    /// WebSocket frames, each an event.
    CloudEvents,
    /// Server-sent events.
    Sse,
}

impl Encoding {
    pub(crate) const ALL: [Encoding; 3] = [Encoding::Plain, Encoding::CloudEvents, Encoding::Sse];
}

impl From<Mode> for Encoding {
    fn from(mode: Mode) -> Encoding {
        match mode {
            Mode::Plain => Encoding::Plain,
            Mode::CloudEvents => Encoding::CloudEvents,
        }
    }
}

/// A message that was judged and may go out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Accepted<'a> {
    pub(crate) text: bool,
    /// Known to be JSON: its channel has a schema.
    pub(crate) json: bool,
    pub(crate) body: &'a [u8],
}

/// Appends an ephemeral message.
pub(crate) fn ephemeral(
    out: &mut Vec<u8>,
    encoding: Encoding,
    source: &str,
    topic: &str,
    message: Accepted<'_>,
) {
    let opcode = if message.text { Opcode::Text } else { Opcode::Binary };
    match encoding {
        Encoding::Plain => frame::append(out, opcode, message.body),
        Encoding::CloudEvents => frame::append(out, Opcode::Text, &wrap(source, topic, message)),
        Encoding::Sse if message.text => sse_data(out, message.body),
        Encoding::Sse => {
            out.extend_from_slice(b"event: binary\n");
            sse_data(out, BASE64_STANDARD.encode(message.body).as_bytes());
        }
    }
}

/// Appends a durable entry as a WebSocket frame, the same in both modes.
pub(crate) fn durable_frame(out: &mut Vec<u8>, event: &[u8]) {
    frame::append(out, Opcode::Text, event);
}

/// Appends a durable entry as a server-sent event whose id is its position.
pub(crate) fn durable_sse(out: &mut Vec<u8>, position: Position, event: &[u8]) {
    writeln!(out, "id: {position}").expect("memory takes every byte");
    sse_data(out, event);
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

/// The event around an ephemeral message. Text is a JSON string unless its channel makes it JSON.
fn wrap(source: &str, topic: &str, message: Accepted<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.body.len() + 320);
    let mut id = Uuid::encode_buffer();
    out.extend_from_slice(br#"{"specversion":"1.0","id":""#);
    out.extend_from_slice(Uuid::new_v4().hyphenated().encode_lower(&mut id).as_bytes());
    out.extend_from_slice(br#"","source":"#);
    json_string(&mut out, source);
    out.extend_from_slice(br#","type":"message","subject":"#);
    json_string(&mut out, topic);
    write!(out, ",\"time\":\"{:.6}\",", Timestamp::now()).expect("memory takes every byte");
    match std::str::from_utf8(message.body) {
        Ok(text) if message.text && message.json => {
            out.extend_from_slice(br#""datacontenttype":"application/json","data":"#);
            out.extend_from_slice(text.as_bytes());
        }
        Ok(text) if message.text => {
            out.extend_from_slice(br#""datacontenttype":"text/plain","data":"#);
            json_string(&mut out, text);
        }
        Ok(_) | Err(_) => {
            out.extend_from_slice(br#""datacontenttype":"application/octet-stream","data_base64":""#);
            out.extend_from_slice(BASE64_STANDARD.encode(message.body).as_bytes());
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
                Ok(_) | Err(_) => Ok(Message::Text(Bytes::copy_from_slice(data.get().as_bytes()))),
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
        ephemeral(
            &mut out,
            Encoding::Sse,
            "/s",
            "t",
            Accepted { text: true, json: false, body: text.as_bytes() },
        );
        String::from_utf8(out).unwrap()
    }

    fn event(text: bool, json: bool, body: &[u8]) -> Value {
        serde_json::from_slice(&wrap("/minium/\"x\"", "a/b", Accepted { text, json, body })).unwrap()
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
        ephemeral(&mut out, Encoding::Sse, "/s", "t", Accepted { text: false, json: false, body: &[0, 255] });
        assert_eq!(out, b"event: binary\ndata: AP8=\n\n");
    }

    #[test]
    fn a_durable_entry_carries_its_position_as_id() {
        let mut out = Vec::new();
        durable_sse(&mut out, Position { epoch: 2, offset: 7 }, b"{\"a\":1}");
        assert_eq!(out, b"id: 2:7\ndata: {\"a\":1}\n\n");
    }

    #[test]
    fn text_is_wrapped_as_a_string_and_json_as_itself() {
        let e = event(true, false, br#"{"a":1}"#);
        assert_eq!(e["data"], r#"{"a":1}"#);
        assert_eq!((&e["type"], &e["subject"]), (&"message".into(), &"a/b".into()));
        assert_eq!(e["source"], "/minium/\"x\"");
        assert_eq!(event(true, true, br#"{"a":1}"#)["data"]["a"], 1);
        let b = event(false, false, &[0, 255]);
        assert_eq!((&b["data_base64"], b.get("data")), (&"AP8=".into(), None));
        assert_ne!(event(true, false, b"x")["id"], event(true, false, b"x")["id"]);
    }

    #[test]
    fn what_was_wrapped_unwraps_to_the_same_message() {
        for (text, json, body) in [
            (true, false, &b"\"quoted\" \n"[..]),
            (true, true, b"{\"a\":[1]}"),
            (true, true, b"\"s\""),
            (false, false, &[9, 0]),
        ] {
            let wrapped = wrap("/s", "t", Accepted { text, json, body });
            let message = unwrap(&wrapped, json).unwrap();
            let same = if text {
                Message::Text(body.to_vec().into())
            } else {
                Message::Binary(body.to_vec().into())
            };
            assert_eq!(message, same);
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
