//! What the bus needs from a journal, whoever keeps it: the notifier's, or none.
//!
//! Durable topics are relayed to the bus in offset order and can be read back by position. What clients publish on
//! durable channels the bus gives to the journal, and it comes back by the relay like everything else.

use async_trait::async_trait;
use bytes::Bytes;
use minium_protocol::{Filter, Position, Problem, Topic};

/// One durable entry, as it goes to subscribers.
#[derive(Debug, Clone)]
pub struct Relayed {
    /// Where it stands.
    pub position: Position,
    /// Where it was sent.
    pub topic: Topic,
    /// The event as JSON: what CloudEvents mode gets, and every mode of a task event.
    pub event: Bytes,
    /// The bare message, for what a client published: what the other modes get. Nothing for a task event.
    pub data: Option<Bytes>,
}

impl Relayed {
    /// What a reader gets who did not ask for events.
    pub fn message(&self) -> &Bytes {
        self.data.as_ref().unwrap_or(&self.event)
    }
}

/// A message on its way into the journal.
#[derive(Debug, Clone)]
pub struct Draft {
    /// Where it was sent.
    pub topic: Topic,
    /// Makes a retry harmless: the same id on the same topic again, within two minutes, is the same message.
    pub id: Option<Box<str>>,
    /// JSON text, checked.
    pub data: Bytes,
}

/// What the journal holds now, for one filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Generation of the numbering.
    pub epoch: u64,
    /// Everything that matches from this offset on is kept; `last + 1` when nothing is.
    pub first: u64,
    /// The newest offset that was given, whatever it matches; 0 before the first.
    pub last: u64,
}

/// A bounded piece of history.
#[derive(Debug, Default, Clone)]
pub struct Page {
    /// Entries that match, in offset order.
    pub entries: Vec<Relayed>,
    /// Everything that matches up to this offset is in `entries` or before them; the next page begins behind it.
    pub scanned_to: u64,
}

/// A read of history failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum HistoryError {
    /// What follows `after` is no longer kept; this is the oldest offset that is.
    #[error("the oldest offset that is kept is {first}")]
    Expired {
        /// The oldest offset that is kept.
        first: u64,
    },
    /// The store cannot be read now.
    #[error("the journal cannot be read: {0}")]
    Unavailable(String),
}

/// Reads durable topics back, and takes what is published on them.
#[async_trait]
pub trait History: Send + Sync + 'static {
    /// What the journal holds now of what `filter` matches.
    async fn bounds(&self, filter: &Filter) -> Result<Bounds, HistoryError>;

    /// Entries that match `filter` with `after < offset <= to`, in order: at most `count_max` of them, and no more
    /// after the first that passes `bytes_max`. `to` may lie beyond the journal's end.
    async fn read(
        &self,
        filter: &Filter,
        after: u64,
        to: u64,
        count_max: u32,
        bytes_max: usize,
    ) -> Result<Page, HistoryError>;

    /// The offset behind which the last `count` entries that match begin.
    async fn before_last(&self, filter: &Filter, count: u32) -> Result<u64, HistoryError>;

    /// Keeps messages, all or none, in their order. Answers when they are committed and numbered: one position each,
    /// for a repeated id the first one's.
    ///
    /// # Errors
    /// `unavailable` and `storage_full`; then it is not known whether they are kept, and an `id` makes trying again
    /// harmless.
    async fn keep(&self, drafts: Vec<Draft>) -> Result<Vec<Position>, Problem>;
}
