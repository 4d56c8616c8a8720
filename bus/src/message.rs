//! A message as it comes in: one frame of a client, or the body of a POST.

use bytes::Bytes;
use minium_protocol::check_json;

/// One message. Text stays text and binary stays binary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// UTF-8; what is not is refused.
    Text(Bytes),
    /// Text that is known to be JSON: its sender said so, or its channel takes nothing else.
    Json(Bytes),
    /// Any bytes.
    Binary(Bytes),
}

impl Message {
    /// What it says.
    pub fn bytes(&self) -> &Bytes {
        match self {
            Message::Text(b) | Message::Json(b) | Message::Binary(b) => b,
        }
    }

    /// The same, looked at closely: JSON that every reader can read.
    ///
    /// # Errors
    /// Why it is none.
    pub(crate) fn into_json(self) -> Result<Message, String> {
        match self {
            Message::Text(text) | Message::Json(text) => {
                let words = std::str::from_utf8(&text).map_err(|e| e.to_string())?;
                check_json(words)?;
                Ok(Message::Json(text))
            }
            Message::Binary(_) => Err("it is binary".into()),
        }
    }
}

impl From<String> for Message {
    fn from(text: String) -> Message {
        Message::Text(text.into())
    }
}

impl From<&'static str> for Message {
    fn from(text: &'static str) -> Message {
        Message::Text(text.into())
    }
}
