//! Every member that a client's frame may have, written down once: clients write it, nodes read it.

use crate::job::{LeaseToken, Progress};
use crate::log::LogLine;
use crate::position::After;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};
use std::borrow::Cow;

/// The members of a client's frame; what is not set is not there. Which of them go with which `op`,
/// [`read_client_frame`](super::read_client_frame) says.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "they are the words of the protocol, which documents them")]
pub struct FrameMembers<'a> {
    #[serde(borrow)]
    pub op: Cow<'a, str>,
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<Cow<'a, str>>,
    /// A text, or a bare offset as a number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Cow<'a, RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<u32>,
    /// `null` is a message like any other.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub data: Option<Cow<'a, RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub options: Option<Cow<'a, Map<String, Value>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credit: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tasks: Option<Vec<Cow<'a, str>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseToken>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<Cow<'a, RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notes: Option<Cow<'a, Map<String, Value>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<Cow<'a, Progress>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<Cow<'a, [LogLine]>>,
}

/// Only a member that is not there is missing.
fn present<'de, 'a, D: serde::Deserializer<'de>>(d: D) -> Result<Option<Cow<'a, RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(d).map(|data| Some(Cow::Owned(data)))
}

impl<'a> FrameMembers<'a> {
    /// A frame with nothing but its `op`.
    pub fn new(op: &'a str) -> FrameMembers<'a> {
        FrameMembers { op: op.into(), ..FrameMembers::default() }
    }

    /// A frame about a topic, or a filter.
    pub fn about(op: &'a str, topic: &'a str) -> FrameMembers<'a> {
        FrameMembers { topic: Some(topic.into()), ..FrameMembers::new(op) }
    }

    /// A subscription that begins there.
    pub fn sub(filter: &'a str, from: After) -> FrameMembers<'a> {
        let (after, last) = match from {
            After::Latest => (None, None),
            After::Earliest => (Some("earliest".to_owned()), None),
            After::Offset(offset) => (Some(offset.to_string()), None),
            After::Position(position) => (Some(position.to_string()), None),
            After::Last(count) => (None, Some(count)),
        };
        let after = after.map(|text| Cow::Owned(to_raw_value(&text).expect("a text always serialises")));
        FrameMembers { after, last, ..FrameMembers::about("sub", filter) }
    }

    /// As it goes over the wire, with this `ref`.
    pub fn text(mut self, reference: u64) -> String {
        self.reference = Some(reference.to_string().into());
        serde_json::to_string(&self).expect("it is plain JSON")
    }

    /// The names of the members that are there, `op` and `ref` aside.
    pub(super) fn present(&self) -> impl Iterator<Item = &'static str> {
        let all = [
            ("topic", self.topic.is_some()),
            ("after", self.after.is_some()),
            ("last", self.last.is_some()),
            ("data", self.data.is_some()),
            ("id", self.id.is_some()),
            ("options", self.options.is_some()),
            ("credit", self.credit.is_some()),
            ("queue", self.queue.is_some()),
            ("tasks", self.tasks.is_some()),
            ("job", self.job.is_some()),
            ("lease", self.lease.is_some()),
            ("result", self.result.is_some()),
            ("error", self.error.is_some()),
            ("retry", self.retry.is_some()),
            ("notes", self.notes.is_some()),
            ("progress", self.progress.is_some()),
            ("log", self.log.is_some()),
        ];
        all.into_iter().filter(|(_, there)| *there).map(|(name, _)| name)
    }
}
