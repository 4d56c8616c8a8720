//! A task event, read whole.

use super::Received;
use crate::error::ClientError;
use jiff::Timestamp;
use minium_protocol::{CloudEvent, EventType, Job, KeptLine};
use serde::Deserialize;

/// What happened to a job, and the job right after it.
#[derive(Debug, Clone)]
pub struct TaskEvent {
    /// The event's own id.
    pub id: String,
    /// What happened.
    pub kind: EventType,
    /// When.
    pub time: Option<Timestamp>,
    /// The job as it stood right after.
    pub job: Job,
    /// Lines that it has said, if the event brings some.
    pub log: Vec<KeptLine>,
    /// What a late result brought, as JSON text.
    pub late: Option<String>,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// What vendors say besides, within that trace.
    pub tracestate: Option<String>,
}

impl Received {
    /// Reads it as a task event. `None`: it is none, or one of a type that is newer than this program.
    ///
    /// # Errors
    /// [`ClientError::Answer`] when it says that it is one and cannot be read.
    pub fn task_event(&self) -> Result<Option<TaskEvent>, ClientError> {
        let Some(event) =
            self.payload.as_json().and_then(|json| serde_json::from_str::<CloudEvent>(json).ok())
        else {
            return Ok(None);
        };
        let Some(kind) = EventType::parse(&event.kind) else { return Ok(None) };
        let fault = |reason: String| ClientError::Answer { what: format!("the event {}", event.id), reason };
        let data = event.data.as_ref().ok_or_else(|| fault("it has no data".into()))?;
        let job = serde_json::from_str(data.get()).map_err(|e| fault(e.to_string()))?;
        // not part of the snapshot
        #[derive(Deserialize)]
        struct Said {
            #[serde(default)]
            log: Vec<KeptLine>,
        }
        let said =
            (kind == EventType::Progress).then(|| serde_json::from_str::<Said>(data.get())).transpose();
        let log = said.map_err(|e| fault(e.to_string()))?.map_or_else(Vec::new, |said| said.log);
        let CloudEvent { id, time, late, traceparent, tracestate, .. } = event;
        Ok(Some(TaskEvent { id, kind, time, job, log, late, traceparent, tracestate }))
    }
}
