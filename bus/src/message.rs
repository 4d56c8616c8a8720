//! A message as it comes in: one frame of a client, or the body of a POST.

use bytes::Bytes;

/// One message. Text stays text and binary stays binary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// UTF-8; what is not is refused.
    Text(Bytes),
    /// Any bytes.
    Binary(Bytes),
}

impl Message {
    /// What it says.
    pub fn bytes(&self) -> &Bytes {
        match self {
            Message::Text(b) | Message::Binary(b) => b,
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
