//! One message, text or binary.

use bytes::Bytes;
use minium_protocol::Problem;
use serde::Deserialize;
use std::fmt;
use tokio_tungstenite::tungstenite;

/// A message as it is sent and received. Text stays text, binary stays binary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// UTF-8.
    Text(String),
    /// Anything.
    Binary(Bytes),
}

impl Message {
    /// The text, if it is text.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Message::Text(text) => Some(text),
            Message::Binary(_) => None,
        }
    }

    /// The bytes, whatever they are.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Message::Text(text) => text.as_bytes(),
            Message::Binary(bytes) => bytes,
        }
    }

    /// Bytes that are UTF-8 become text, others binary.
    pub fn guess(bytes: Vec<u8>) -> Message {
        match String::from_utf8(bytes) {
            Ok(text) => Message::Text(text),
            Err(other) => Message::Binary(other.into_bytes().into()),
        }
    }

    pub(crate) fn into_frame(self) -> tungstenite::Message {
        match self {
            Message::Text(text) => tungstenite::Message::text(text),
            Message::Binary(bytes) => tungstenite::Message::Binary(bytes),
        }
    }

    /// The problem that a server tells the sender of a refused message.
    pub(crate) fn as_problem(&self) -> Option<Problem> {
        #[derive(Deserialize)]
        struct Frame {
            problem: Problem,
        }
        // Most messages are no problems: don't parse those that cannot be one.
        let text = self.as_text().filter(|t| t.starts_with(r#"{"problem":"#))?;
        serde_json::from_str::<Frame>(text).ok().map(|f| f.problem)
    }
}

impl From<&str> for Message {
    fn from(text: &str) -> Message {
        Message::Text(text.into())
    }
}

impl From<String> for Message {
    fn from(text: String) -> Message {
        Message::Text(text)
    }
}

impl From<Bytes> for Message {
    fn from(bytes: Bytes) -> Message {
        Message::Binary(bytes)
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Message::Text(text) => f.write_str(text),
            Message::Binary(bytes) => write!(f, "<{} bytes of binary data>", bytes.len()),
        }
    }
}

/// The beginning of a text that somebody else wrote, fit for an error message: one line, no control characters.
pub(crate) fn excerpt(text: &str) -> String {
    const CHARACTERS_MAX: usize = 300;
    let clean: String =
        text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(CHARACTERS_MAX).collect();
    if text.trim().chars().count() > CHARACTERS_MAX { format!("{clean}…") } else { clean }
}

#[cfg(test)]
mod tests {
    use super::*;
    use minium_protocol::ErrorCode;

    #[test]
    fn a_problem_frame_is_told_from_a_message_that_looks_like_one() {
        let frame = Problem::new(ErrorCode::SchemaViolation, "no").frame();
        let problem = Message::from(frame).as_problem().unwrap();
        assert_eq!(problem.code, ErrorCode::SchemaViolation);
        for text in [r#"{"problem":"engine too hot"}"#, r#"{"problem":{"code":1}}"#, "problem", "{}"] {
            assert_eq!(Message::from(text).as_problem(), None, "{text}");
        }
    }

    #[test]
    fn bytes_are_text_when_they_can_be() {
        assert_eq!(Message::guess(b"gr\xc3\xbcn".to_vec()), Message::Text("grün".into()));
        assert_eq!(Message::guess(vec![0xff]), Message::Binary(Bytes::from_static(&[0xff])));
    }

    #[test]
    fn excerpts_stay_short_and_on_one_line() {
        assert_eq!(excerpt(" a\nb\u{1b}[31m "), "a b [31m");
        assert_eq!(excerpt(&"x".repeat(500)).chars().count(), 301);
    }
}
