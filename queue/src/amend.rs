//! What may be changed by hand of a job that waits: when it runs, how urgent it is, and where.
//!
//! A retry changes the same and more, but counts as one, and makes an ended job wait again. This leaves everything else of the
//! job as it is, so that only a job that waits can be amended: one that runs has been given out, and one that has ended will
//! not run. Either way it queues up anew behind those that wait where it goes.

use crate::error::QueueError;
use crate::rules;
use crate::store::{Annotation, RetryOptions};
use minium_protocol::State;
use serde_json::{Map, Value};
use std::time::Duration;

/// What is to be different of a job that waits. All of it is one change, and one event `task.changed`.
#[derive(Debug, Clone, Default)]
pub struct Amendment {
    /// Not before so long from now; nothing leaves the time that it has.
    pub delay: Option<Duration>,
    /// A new priority.
    pub priority: Option<i32>,
    /// Another queue.
    pub queue: Option<String>,
    /// Merged into the job's notes member by member; `null` deletes one.
    pub notes: Map<String, Value>,
}

impl Amendment {
    /// The notes by themselves, as they are written.
    pub(crate) fn annotation(&self) -> Annotation {
        Annotation { notes: self.notes.clone(), ..Annotation::default() }
    }
}

/// Checks an amendment by the rules of an enqueue.
///
/// # Errors
/// [`QueueError::Invalid`], also where there is nothing but notes; [`QueueError::TooLarge`].
pub fn check_amendment(amendment: &Amendment) -> Result<(), QueueError> {
    if amendment.delay.is_none() && amendment.priority.is_none() && amendment.queue.is_none() {
        return Err(QueueError::Invalid("an amendment says a delay, a priority or a queue".into()));
    }
    rules::check_annotation(&amendment.annotation())?;
    rules::check_retry(&RetryOptions {
        delay: amendment.delay,
        priority: amendment.priority,
        queue: amendment.queue.clone(),
        ..RetryOptions::default()
    })
}

/// May a job in this state be amended?
///
/// # Errors
/// [`QueueError::Conflict`] while it runs and when it has ended.
pub fn may_amend(job: i64, state: State) -> Result<(), QueueError> {
    let reason = match state {
        State::Inactive => return Ok(()),
        State::Active => "it is running",
        State::Finished | State::Failed | State::Cancelled => {
            "it has ended; a retry changes what it waits for"
        }
    };
    Err(QueueError::Conflict { job, state, reason })
}
