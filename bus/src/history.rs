//! What the bus needs from a journal, whoever keeps it: the notifier's, or none.
//!
//! Durable topics are relayed to the bus in offset order and can be read back by position. The bus never writes here.

use async_trait::async_trait;
use bytes::Bytes;
use minium_protocol::{Filter, Position, Topic};

/// One durable entry, as it goes to subscribers.
#[derive(Debug, Clone)]
pub struct Relayed {
    /// Where it stands.
    pub position: Position,
    /// Where it was sent.
    pub topic: Topic,
    /// The event as JSON: the same bytes in every mode.
    pub event: Bytes,
}

/// What the journal holds now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Generation of the numbering.
    pub epoch: u64,
    /// The oldest offset that is kept; `last + 1` when nothing is.
    pub first: u64,
    /// The newest offset that was given; 0 before the first.
    pub last: u64,
}

/// A bounded piece of history.
#[derive(Debug, Default)]
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

/// Reads durable topics back.
#[async_trait]
pub trait History: Send + Sync + 'static {
    /// What the journal holds now.
    async fn bounds(&self) -> Result<Bounds, HistoryError>;

    /// Entries that match `filter` with `after < offset <= to`, in order: at most `count_max` of them, and no more
    /// after the first that passes `bytes_max`.
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
}
