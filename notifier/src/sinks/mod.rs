//! Sinks: those outside who are told of events. A sink follows the journal as a recorder does, and what it finds to be told
//! becomes a job; whoever runs that job tells it.
//!
//! What must hold: a position is confirmed only behind jobs that are committed, so a sink misses nothing that the journal
//! keeps; each event's job has a key, so that what is read twice is told by one job; and no event of the node's own tasks
//! is ever looked at, or deliveries would be told of by deliveries for ever.

mod batch;
mod follow;
mod strangers;

pub use follow::{FollowOptions, follow};
pub use strangers::{FORGET_AFTER_MIN, forget_strangers, is_any_registered, is_registered};

use minium_protocol::{EnqueueRequest, Filter, Position, Topic};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The recorder of the sink NAME is named `sink/NAME`, and so is the lock of the node that follows for it, below `minium/`.
pub const SINK_PREFIX: &str = "sink/";

/// So long an event that is read again finds the job that it was given. It has to outlast the time between an enqueue and the
/// confirmation of what was read, which is that of one statement while any node runs: only when a node is killed
/// between the two and no other takes over is it as long as all of them stay away. Each event has a key for so long.
pub const REMEMBER: Duration = Duration::from_secs(86_400);

/// Where a sink begins that was not there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Begin {
    /// With what comes from now on.
    #[default]
    Now,
    /// With the oldest event that is kept.
    Earliest,
}

/// An event as a rule sees it.
#[derive(Debug, Clone, Copy)]
pub struct SinkEvent<'a> {
    /// Where it was sent.
    pub topic: &'a Topic,
    /// Where it stands.
    pub position: Position,
    /// The event as JSON, to the byte as subscribers get it.
    pub event: &'a [u8],
}

/// Which events are told, and by which job. Pure: no clock, no await.
pub trait Rule: Send + Sync + 'static {
    /// The job that tells of this event; nothing when nobody is told of it. Its key is the follower's affair.
    fn delivery(&self, event: &SinkEvent<'_>) -> Option<EnqueueRequest>;
}

/// A sink to be followed for. Cheap to clone.
#[derive(Clone)]
pub struct Sink {
    /// Its name.
    pub name: Arc<str>,
    /// What it follows.
    pub topics: Vec<Filter>,
    /// Where it begins.
    pub begin: Begin,
    /// What becomes of an event.
    pub rule: Arc<dyn Rule>,
}

impl Sink {
    /// Its name among the recorders.
    pub(crate) fn recorder(&self) -> String {
        format!("{SINK_PREFIX}{}", self.name)
    }
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sink").field("name", &self.name).field("topics", &self.topics).finish_non_exhaustive()
    }
}
