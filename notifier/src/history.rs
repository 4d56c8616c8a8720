//! The bus's history on top of a journal: reads by filter, a bounded number at once.
//!
//! A thousand readers that come back together share a few connections and wait for one another: the queue's own work
//! must not wait for them.

use crate::error::NotifierError;
use crate::journal::{Found, JournalStore, Range};
use crate::keep::Keeper;
use async_trait::async_trait;
use minium_bus::{Bounds, Draft, History, HistoryError, Page};
use minium_protocol::{Filter, Position, Problem};
use std::sync::Arc;
use tokio::sync::{Semaphore, SemaphorePermit};

pub(crate) struct JournalHistory {
    store: Arc<dyn JournalStore>,
    reads: Semaphore,
    keeper: Keeper,
}

impl JournalHistory {
    pub(crate) fn new(store: Arc<dyn JournalStore>, reads_max: usize, keeper: Keeper) -> JournalHistory {
        JournalHistory { store, reads: Semaphore::new(reads_max.max(1)), keeper }
    }

    async fn turn(&self) -> SemaphorePermit<'_> {
        self.reads.acquire().await.expect("the semaphore is never closed")
    }
}

fn unavailable(error: &NotifierError) -> HistoryError {
    // a database that is away is told once, by who looks for it
    if minium_queue::is_told(error) {
        tracing::debug!(error = error.story(), "History cannot be read.");
    } else {
        tracing::warn!(error = error.story(), "History cannot be read.");
    }
    // what the database said is for the log
    HistoryError::Unavailable(error.to_string())
}

/// What a read found, unless what it asked for is gone.
fn page(found: Found, after: u64) -> Result<Page, HistoryError> {
    let first = found.bounds.first;
    if after.saturating_add(1) < first {
        return Err(HistoryError::Expired { first });
    }
    Ok(Page { entries: found.entries, scanned_to: found.scanned_to.max(after) })
}

#[async_trait]
impl History for JournalHistory {
    async fn bounds(&self, filter: &Filter) -> Result<Bounds, HistoryError> {
        let _turn = self.turn().await;
        self.store.bounds_of(filter.clone()).await.map_err(|e| unavailable(&e))
    }

    async fn read(
        &self,
        filter: &Filter,
        after: u64,
        to: u64,
        count_max: u32,
        bytes_max: usize,
    ) -> Result<Page, HistoryError> {
        let _turn = self.turn().await;
        let range = Range { filter: filter.clone(), after, to, count_max, bytes_max };
        let found = self.store.read(range).await.map_err(|e| unavailable(&e))?;
        page(found, after)
    }

    async fn before_last(&self, filter: &Filter, count: u32) -> Result<u64, HistoryError> {
        let _turn = self.turn().await;
        self.store.before_last(filter.clone(), count).await.map_err(|e| unavailable(&e))
    }

    async fn keep(&self, drafts: Vec<Draft>) -> Result<Vec<Position>, Problem> {
        self.keeper.keep(drafts).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(first: u64) -> Found {
        Found { bounds: Bounds { epoch: 1, first, last: 20 }, entries: vec![], scanned_to: 15 }
    }

    #[test]
    fn what_was_let_go_is_never_skipped_in_silence() {
        assert_eq!(page(found(11), 10).unwrap().scanned_to, 15);
        assert!(matches!(page(found(11), 9), Err(HistoryError::Expired { first: 11 })));
        assert_eq!(page(found(1), 0).unwrap().scanned_to, 15);
    }

    #[test]
    fn a_reader_never_goes_back() {
        assert_eq!(page(found(1), 18).unwrap().scanned_to, 18);
    }
}
