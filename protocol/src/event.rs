//! The event: one journal entry as it goes over the wire, a CloudEvents 1.0 object in JSON.
//!
//! The relay writes envelopes around data that the store made, unparsed ([`Envelope`]); those who receive them read
//! them as [`CloudEvent`]. An event is the same to the byte in every mode, on replay and after a restart.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::io::Write;
use uuid::Uuid;

macro_rules! types {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// What happened to a job.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum EventType { $($(#[$doc])* $name,)* }

        impl EventType {
            /// All of them.
            pub const ALL: &[EventType] = &[$(EventType::$name,)*];

            /// The word on the wire and in the journal.
            pub fn as_str(self) -> &'static str {
                match self { $(EventType::$name => $text,)* }
            }

            /// Which event a word means.
            pub fn parse(text: &str) -> Option<EventType> {
                EventType::ALL.iter().copied().find(|t| t.as_str() == text)
            }
        }
    };
}

types! {
    /// Created.
    Enqueue = "task.enqueue",
    /// Claimed by a worker.
    Dequeue = "task.dequeue",
    /// Notes, progress or log.
    Progress = "task.progress",
    /// Options changed by hand.
    Changed = "task.changed",
    /// Ended well.
    Finished = "task.finished",
    /// Failed, also when attempts are left.
    Failed = "task.failed",
    /// Called off.
    Cancelled = "task.cancelled",
    /// Waiting again, automatically or by hand.
    Retry = "task.retry",
    /// Its lease expired.
    Lost = "task.lost",
    /// Never started in time, and deleted.
    Expired = "task.expired",
    /// Deleted.
    Removed = "task.removed",
    /// An outcome came under a lease that was gone.
    LateResult = "task.late_result",
}

impl EventType {
    /// Minion::Notifier's word for it, if it has one.
    pub fn minion_action(self) -> Option<&'static str> {
        match self {
            EventType::Enqueue => Some("enqueue"),
            EventType::Dequeue => Some("dequeue"),
            EventType::Finished => Some("finished"),
            EventType::Failed => Some("failed"),
            EventType::Progress
            | EventType::Changed
            | EventType::Cancelled
            | EventType::Retry
            | EventType::Lost
            | EventType::Expired
            | EventType::Removed
            | EventType::LateResult => None,
        }
    }
}

/// The offset as it stands in `sequence`: zero-padded to 20 digits, so that text sorts as numbers do.
pub fn sequence(offset: u64) -> String {
    format!("{offset:020}")
}

/// What the relay knows of one entry; borrowed, to be written once.
#[derive(Debug, Clone, Copy)]
pub struct Envelope<'a> {
    /// The event's own id, made with the transition.
    pub id: Uuid,
    /// `/minium/<name of the installation>`.
    pub source: &'a str,
    /// `task.…` or `message`.
    pub kind: &'a str,
    /// The job's id, or the topic.
    pub subject: &'a str,
    /// When it happened.
    pub time: Timestamp,
    /// URL of the schema of `data`.
    pub dataschema: Option<&'a str>,
    /// Generation of the numbering.
    pub epoch: u64,
    /// Dense number.
    pub offset: u64,
    /// W3C trace context, as stores keep it: see [`crate::TraceContext`].
    pub trace: Option<&'a str>,
    /// What a late result brought, as JSON text; goes out as a string, since an extension cannot be an object.
    pub late: Option<&'a str>,
    /// JSON text, not looked into.
    pub data: &'a str,
}

/// Writes `,"name":"value"` with the value escaped.
fn member(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    serde_json::to_writer(out, value).expect("a string always serialises into memory");
}

impl Envelope<'_> {
    /// Appends the event as JSON.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.reserve(self.data.len() + 512);
        out.extend_from_slice(br#"{"specversion":"1.0""#);
        let mut buffer = Uuid::encode_buffer();
        member(out, "id", self.id.hyphenated().encode_lower(&mut buffer));
        member(out, "source", self.source);
        member(out, "type", self.kind);
        member(out, "subject", self.subject);
        write!(out, ",\"time\":\"{:.6}\"", self.time).expect("memory takes every byte");
        member(out, "datacontenttype", "application/json");
        if let Some(url) = self.dataschema {
            member(out, "dataschema", url);
        }
        write!(out, ",\"epoch\":\"{}\",\"sequence\":\"{:020}\"", self.epoch, self.offset)
            .expect("memory takes every byte");
        if let Some(trace) = self.trace {
            let (parent, state) = crate::trace::parts(trace);
            member(out, "traceparent", parent);
            if let Some(state) = state {
                member(out, "tracestate", state);
            }
        }
        if let Some(late) = self.late {
            member(out, "late", late);
        }
        out.extend_from_slice(b",\"data\":");
        out.extend_from_slice(self.data.as_bytes());
        out.push(b'}');
    }
}

/// An event as a receiver reads it. Unknown extensions are ignored: events may gain fields.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CloudEvent {
    /// Always `1.0`.
    pub specversion: String,
    /// Unique with `source`.
    pub id: String,
    /// Where it comes from.
    pub source: String,
    /// `task.…` or `message`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The job's id, or the topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// When it happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Timestamp>,
    /// Generation of the numbering.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<String>,
    /// Dense number, padded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<String>,
    /// W3C trace context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// What vendors say besides, within that trace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracestate: Option<String>,
    /// What a late result brought, as JSON text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub late: Option<String>,
    /// What it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Box<RawValue>>,
    /// What it says, if that is not JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_base64: Option<String>,
}

impl CloudEvent {
    /// Where it stands in the journal, if it does.
    pub fn position(&self) -> Option<crate::Position> {
        let epoch = self.epoch.as_deref()?.parse().ok()?;
        let offset = self.sequence.as_deref()?.parse().ok()?;
        Some(crate::Position { epoch, offset })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_reads_back() {
        let envelope = Envelope {
            id: Uuid::nil(),
            source: "/minium/default",
            kind: EventType::Finished.as_str(),
            subject: "42",
            time: "2026-11-22T02:00:00.123456Z".parse().unwrap(),
            dataschema: Some("http://127.0.0.1:3000/schemas/job.json"),
            epoch: 1,
            offset: 12_345,
            trace: Some("00-x a=1,b=2"),
            late: Some(r#"{"result":1}"#),
            data: r#"{"id":42}"#,
        };
        let mut out = Vec::new();
        envelope.write(&mut out);
        let event: CloudEvent = serde_json::from_slice(&out).unwrap();
        assert_eq!(event.kind, "task.finished");
        assert_eq!(event.sequence.as_deref(), Some("00000000000000012345"));
        assert_eq!(event.position(), Some(crate::Position { epoch: 1, offset: 12_345 }));
        assert_eq!(event.late.as_deref(), Some(r#"{"result":1}"#));
        assert_eq!(
            (event.traceparent.as_deref(), event.tracestate.as_deref()),
            (Some("00-x"), Some("a=1,b=2"))
        );
        let json: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(json["time"], "2026-11-22T02:00:00.123456Z");
        assert_eq!(json["data"]["id"], 42);
    }

    #[test]
    fn hostile_text_stays_text() {
        let mut out = Vec::new();
        let time = Timestamp::UNIX_EPOCH;
        let text = "a\"},\"data\":1\u{7}";
        Envelope {
            id: Uuid::nil(),
            source: text,
            kind: "message",
            subject: text,
            time,
            dataschema: None,
            epoch: 1,
            offset: 1,
            trace: Some(text),
            late: None,
            data: "null",
        }
        .write(&mut out);
        let json: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!((json["source"].as_str(), json["subject"].as_str()), (Some(text), Some(text)));
        assert!(json["data"].is_null());
    }

    #[test]
    fn types_are_known_by_their_words() {
        for t in EventType::ALL {
            assert_eq!(EventType::parse(t.as_str()), Some(*t));
        }
        assert_eq!(EventType::Lost.minion_action(), None);
        assert_eq!(EventType::Enqueue.minion_action(), Some("enqueue"));
    }
}
