//! Named locks as they go over the wire: what is asked for, what was taken, and what is listed.

use crate::amount;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;
use uuid::Uuid;

/// Fences every later word about one hold of a lock. Only whoever took the lock knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LockToken(pub Uuid);

impl LockToken {
    /// A token that nobody has.
    pub fn fresh() -> LockToken {
        LockToken(Uuid::new_v4())
    }
}

impl fmt::Display for LockToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for LockToken {
    type Err = String;

    fn from_str(text: &str) -> Result<LockToken, String> {
        text.parse().map(LockToken).map_err(|_| "a token is a UUID, as the lock's taking answered it".into())
    }
}

/// The body of `POST /api/v1/locks/{name}`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockRequest {
    /// How long it is held unless it is extended; zero asks whether it could be had, and takes nothing.
    #[serde(rename = "for", deserialize_with = "amount::duration_given")]
    pub span: Duration,
    /// How many may hold it at once.
    #[serde(default = "one")]
    pub limit: u32,
    /// Who takes it, for people.
    #[serde(default)]
    pub owner: String,
}

fn one() -> u32 {
    1
}

/// What a client sends; the inverse of reading one.
impl Serialize for LockRequest {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let mut map = s.serialize_map(Some(3))?;
        map.serialize_entry("for", &self.span.as_secs_f64())?;
        map.serialize_entry("limit", &self.limit)?;
        map.serialize_entry("owner", &self.owner)?;
        map.end()
    }
}

/// The body of `PATCH /api/v1/locks/{name}`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockExtension {
    /// Whose hold it is.
    pub token: LockToken,
    /// How long from now.
    #[serde(rename = "for", deserialize_with = "amount::duration_given")]
    pub span: Duration,
}

/// What a client sends; the inverse of reading one.
impl Serialize for LockExtension {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let mut map = s.serialize_map(Some(2))?;
        map.serialize_entry("token", &self.token)?;
        map.serialize_entry("for", &self.span.as_secs_f64())?;
        map.end()
    }
}

/// A lock that was taken or extended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockHold {
    /// Its name.
    pub name: String,
    /// Fences later words about it; none where it was only asked for.
    pub token: Option<LockToken>,
    /// When it ends, by the database's clock.
    pub until: Option<Timestamp>,
}

/// One hold of a lock, as everybody may see it: without its token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockView {
    /// The lock's name.
    pub name: String,
    /// Who has it, in words of its own.
    pub owner: String,
    /// How many might hold it at once when this one took it.
    pub limit: u32,
    /// Since when.
    pub taken: Timestamp,
    /// Until when, unless it is extended.
    pub until: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_reads_back() {
        let request = LockRequest { span: Duration::from_millis(1_500), limit: 3, owner: "me".into() };
        let back: LockRequest = serde_json::from_str(&serde_json::to_string(&request).unwrap()).unwrap();
        assert_eq!(format!("{back:?}"), format!("{request:?}"));
        let usual: LockRequest = serde_json::from_str(r#"{"for":"30s"}"#).unwrap();
        assert_eq!((usual.span.as_secs(), usual.limit, usual.owner.as_str()), (30, 1, ""));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, word) in [
            ("{}", "for"),
            (r#"{"for":null}"#, "duration"),
            (r#"{"for":"soon"}"#, "duration"),
            (r#"{"for":-1}"#, "duration"),
            (r#"{"for":1,"limt":2}"#, "limt"),
            (r#"{"for":1,"limit":-2}"#, "u32"),
        ] {
            let error = serde_json::from_str::<LockRequest>(text).unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
        assert!(serde_json::from_str::<LockExtension>(r#"{"for":1}"#).is_err());
        assert!("x".parse::<LockToken>().is_err());
    }
}
