//! What a delivery's job carries: the name of the sink and the event, and no secret. Pure.

use bytes::Bytes;
use minium_notifier::SinkEvent;
use minium_protocol::{EnqueueRequest, EventType, Job, State};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use std::time::Duration;

/// Tasks below it are the node's own.
pub(crate) const TASK_NAMESPACE: &str = "minium";
/// The task of deliveries.
pub(super) const TASK: &str = "minium/deliver";
/// Their queue, so that they neither wait for others nor keep them waiting.
pub(crate) const QUEUE: &str = "minium";
/// A run may take so much longer than the request that it makes: some make a second one.
const RUN_GRACE: Duration = Duration::from_secs(15);

/// How a sink's jobs are made.
#[derive(Debug, Clone)]
pub(super) struct Terms {
    pub(super) sink: String,
    pub(super) attempts: i32,
    pub(super) backoff: Option<Duration>,
    pub(super) timeout: Duration,
}

impl Terms {
    /// The job that tells of an event.
    pub(super) fn request(&self, event: &SinkEvent<'_>) -> Option<EnqueueRequest> {
        let sink = Value::from(self.sink.as_str());
        let text = std::str::from_utf8(event.event).ok()?;
        let args = |event: &str| {
            let text = format!("[{{\"sink\":{sink},\"event\":{event}}}]");
            let mut request = EnqueueRequest::new(TASK, RawValue::from_string(text).ok()?);
            let options = &mut request.options;
            options.queue = QUEUE.into();
            options.attempts = self.attempts;
            options.backoff = self.backoff;
            options.timeout = Some(self.timeout * 2 + RUN_GRACE);
            options.notes.insert("sink".into(), sink.clone());
            Some(request)
        };
        // what arguments may not have, such as too many levels, passes as a text
        let plain = args(text).filter(|request| request.check().is_ok());
        plain.or_else(|| args(&Value::from(text).to_string()))
    }
}

/// The arguments of a delivery.
#[derive(Debug, Deserialize)]
pub(super) struct Delivery {
    pub(super) sink: String,
    event: Box<RawValue>,
}

impl Delivery {
    /// The event's very bytes.
    pub(super) fn event(&self) -> Bytes {
        let text = self.event.get();
        match serde_json::from_str::<String>(text) {
            Ok(event) => event.into(),
            Err(_) => Bytes::copy_from_slice(text.as_bytes()),
        }
    }
}

/// An event, as far as sinks look into it.
#[derive(Debug, Deserialize)]
pub(super) struct Told {
    pub(super) id: String,
    pub(super) source: String,
    #[serde(rename = "type")]
    kind: String,
    pub(super) data: Box<RawValue>,
}

impl Told {
    pub(super) fn read(event: &[u8]) -> Option<Told> {
        serde_json::from_slice(event).ok()
    }

    /// What happened, of a job.
    pub(super) fn transition(&self) -> Option<EventType> {
        EventType::parse(&self.kind)
    }

    /// The job's snapshot.
    pub(super) fn job(&self) -> Option<Job> {
        self.transition()?;
        serde_json::from_str(self.data.get()).ok()
    }

    /// The state of that snapshot; nothing of an event that is none of a job.
    pub(super) fn state(&self) -> Option<State> {
        #[derive(Deserialize)]
        struct Stated {
            state: State,
        }
        self.transition()?;
        serde_json::from_str::<Stated>(self.data.get()).ok().map(|stated| stated.state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use minium_protocol::Position;

    fn terms() -> Terms {
        Terms { sink: "ops".into(), attempts: 3, backoff: None, timeout: Duration::from_secs(15) }
    }

    fn told_again(text: &str) -> Bytes {
        let topic = "task/import/7".parse().unwrap();
        let event =
            SinkEvent { topic: &topic, position: Position { epoch: 1, offset: 1 }, event: text.as_bytes() };
        let request = terms().request(&event).unwrap();
        request.check().unwrap();
        let all: Vec<Delivery> = serde_json::from_str(request.args.get()).unwrap();
        assert_eq!((all.len(), all[0].sink.as_str()), (1, "ops"));
        all[0].event()
    }

    #[test]
    fn an_event_comes_out_as_it_went_in() {
        for text in [
            r#"{"id":"a","data":{"n":1.50,"x" : "\u00e9"}}"#.to_owned(),
            format!("{{\"id\":\"a\",\"data\":{}{}}}", "[".repeat(120), "]".repeat(120)),
            r#"{"id":"a","data":"\ud800"}"#.to_owned(),
        ] {
            assert_eq!(told_again(&text), text.as_bytes());
        }
    }

    #[test]
    fn its_own_queue_and_terms_go_with_it() {
        let topic = "news".parse().unwrap();
        let event = SinkEvent { topic: &topic, position: Position { epoch: 1, offset: 1 }, event: b"{}" };
        let request = terms().request(&event).unwrap();
        assert!(minium_protocol::is_own_task(&request.task));
        assert_eq!((request.options.queue.as_str(), request.options.attempts), (QUEUE, 3));
        assert_eq!(request.options.notes["sink"], "ops");
    }
}
