//! What a message carries in `minium.v1`: JSON, or bytes that came from someone who speaks another mode.

use crate::error::ClientError;
use crate::message::Message;
use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use std::fmt;

/// The data of a message. A text is a JSON string.
#[derive(Debug, Clone)]
pub enum Payload {
    /// JSON text, as it came.
    Json(Box<RawValue>),
    /// Anything. It can be received, but `minium.v1` has no frame to send it: that takes
    /// [`Client::publish`](crate::Client::publish).
    Binary(Bytes),
}

impl Payload {
    /// A value as JSON.
    ///
    /// # Errors
    /// [`ClientError::Answer`] when it cannot be JSON, as a map whose keys are no strings.
    pub fn json(value: &impl Serialize) -> Result<Payload, ClientError> {
        let fault =
            |e: serde_json::Error| ClientError::Answer { what: "a message".into(), reason: e.to_string() };
        serde_json::value::to_raw_value(value).map(Payload::Json).map_err(fault)
    }

    /// Text that is JSON goes as it is, other text as a JSON string; bytes that are no text stay bytes.
    pub fn guess(bytes: Vec<u8>) -> Payload {
        match String::from_utf8(bytes) {
            Ok(text) => match RawValue::from_string(text.trim().to_owned()) {
                Ok(json) => Payload::Json(json),
                Err(_) => text.into(),
            },
            Err(other) => Payload::Binary(other.into_bytes().into()),
        }
    }

    /// The JSON text, if it is JSON.
    pub fn as_json(&self) -> Option<&str> {
        match self {
            Payload::Json(json) => Some(json.get()),
            Payload::Binary(_) => None,
        }
    }

    /// Reads it as a value.
    ///
    /// # Errors
    /// [`ClientError::Answer`] when it is something else.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, ClientError> {
        let fault = |reason: String| ClientError::Answer { what: "the data of a message".into(), reason };
        let json = self.as_json().ok_or_else(|| fault("it is binary".into()))?;
        serde_json::from_str(json).map_err(|e| fault(e.to_string()))
    }

    /// The bare message, as plain mode has it: a JSON string is its text. `kept`: it comes from a channel that keeps
    /// JSON and nothing else, where a string is a string.
    pub fn into_message(self, kept: bool) -> Message {
        match self {
            Payload::Binary(bytes) => Message::Binary(bytes),
            Payload::Json(json) => match serde_json::from_str::<String>(json.get()) {
                Ok(text) if !kept => Message::Text(text),
                _ => Message::Text(Box::<str>::from(json).into()),
            },
        }
    }

    /// As a frame has it.
    pub(super) fn read(json: Option<&RawValue>, base64: Option<&str>) -> Result<Payload, String> {
        match (json, base64) {
            (Some(json), _) => Ok(Payload::Json(json.to_owned())),
            (None, Some(text)) => {
                BASE64_STANDARD.decode(text).map(|b| Payload::Binary(b.into())).map_err(|e| e.to_string())
            }
            // serde takes `null` for nothing
            (None, None) => Ok(Payload::Json(RawValue::NULL.to_owned())),
        }
    }
}

impl From<&str> for Payload {
    fn from(text: &str) -> Payload {
        Payload::Json(serde_json::value::to_raw_value(text).expect("a string always serialises"))
    }
}

impl From<String> for Payload {
    fn from(text: String) -> Payload {
        text.as_str().into()
    }
}

impl From<Box<RawValue>> for Payload {
    fn from(json: Box<RawValue>) -> Payload {
        Payload::Json(json)
    }
}

impl From<serde_json::Value> for Payload {
    fn from(value: serde_json::Value) -> Payload {
        Payload::Json(serde_json::value::to_raw_value(&value).expect("a value always serialises"))
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Payload::Json(json) => f.write_str(json.get()),
            Payload::Binary(bytes) => write!(f, "<{} bytes of binary data>", bytes.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_stays_as_it_is_and_text_becomes_a_string() {
        let told = |text: &str| Payload::guess(text.into()).to_string();
        assert_eq!(told(r#" {"a": 1} "#), r#"{"a": 1}"#);
        assert_eq!((told("hello"), told("")), (r#""hello""#.into(), r#""""#.into()));
        assert!(matches!(Payload::guess(vec![0xff]), Payload::Binary(_)));
        assert_eq!(Payload::json(&[1, 2]).unwrap().parse::<Vec<u8>>().unwrap(), [1, 2]);
    }

    #[test]
    fn what_plain_mode_would_have_shown_comes_back() {
        assert_eq!(Payload::from("x\n").into_message(false), Message::Text("x\n".into()));
        assert_eq!(Payload::from("x").into_message(true), Message::Text(r#""x""#.into()));
        assert_eq!(Payload::guess(b"[1, 2]".to_vec()).into_message(false), Message::Text("[1, 2]".into()));
        let binary = Payload::read(None, Some("AP8=")).unwrap();
        assert_eq!(binary.into_message(false), Message::Binary(Bytes::from_static(&[0, 255])));
        assert_eq!(Payload::read(None, None).unwrap().as_json(), Some("null"));
        assert!(Payload::read(None, Some("?")).is_err());
    }
}
