//! Reads of history for all sessions: so many at once, and the same page only once.
//!
//! When a node comes back, all its subscribers come back together, most of them with the same position. Whoever asks for
//! a page that is being read waits for it, and pages are kept for a while for those who come a little later. The reads
//! run where the bus was started.

use crate::history::{HistoryError, Page};
use crate::hub::Hub;
use crate::shard::Shard;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use minium_protocol::Filter;
use std::collections::{HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tokio::sync::Semaphore;

/// What follows an offset, for one filter.
type Key = (u64, Filter, u64);
type Reading = Shared<BoxFuture<'static, Result<Arc<Page>, HistoryError>>>;

pub(crate) struct Reads {
    hub: Weak<Hub>,
    permits: Arc<Semaphore>,
    pages: Mutex<Pages>,
}

/// Pages that are being read or were read lately.
#[derive(Default)]
struct Pages {
    by_key: HashMap<Key, Reading>,
    /// What was read, the oldest first, and what it weighs.
    kept: VecDeque<(Key, usize)>,
    bytes: usize,
}

/// What a page weighs besides its entries.
const PAGE_BYTES: usize = 256;

fn unavailable(e: impl std::fmt::Display) -> HistoryError {
    HistoryError::Unavailable(e.to_string())
}

impl Reads {
    pub(crate) fn new(hub: &Arc<Hub>) -> Reads {
        let permits = Arc::new(Semaphore::new(hub.options.replays_max));
        Reads { hub: Arc::downgrade(hub), permits, pages: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What follows `after`.
    pub(crate) async fn page(
        self: &Arc<Self>,
        filter: &Filter,
        after: u64,
        sh: &Shard,
    ) -> Result<Arc<Page>, HistoryError> {
        let epoch = sh.relayed.get().map_or(0, |p| p.epoch);
        let key = (epoch, filter.clone(), after);
        let reading = {
            let mut pages = self.lock();
            match pages.by_key.get(&key) {
                Some(reading) => reading.clone(),
                None => {
                    let reading = self.begin(&key)?;
                    pages.by_key.insert(key, reading.clone());
                    reading
                }
            }
        };
        reading.await
    }

    /// Reads it where the bus was started.
    fn begin(self: &Arc<Self>, key: &Key) -> Result<Reading, HistoryError> {
        let hub = self.hub.upgrade().ok_or_else(|| unavailable("the bus ends"))?;
        let history = hub.outside.history().cloned().ok_or_else(|| unavailable("there is none"))?;
        let (count, bytes) = (hub.options.page_count_max, hub.options.page_bytes_max);
        let (bytes_max, patience) = (hub.options.pages_bytes_max, hub.options.outside_patience);
        let (reads, key) = (self.clone(), key.clone());
        let read = async move {
            let _permit = reads.permits.acquire().await.map_err(unavailable)?;
            let after = key.2;
            let read = AssertUnwindSafe(history.read(&key.1, after, u64::MAX, count, bytes)).catch_unwind();
            let page = match tokio::time::timeout(patience, read).await {
                Ok(Ok(Ok(page))) if page.scanned_to <= after => {
                    Err(HistoryError::Unavailable(format!("a page behind {after} made no progress")))
                }
                Ok(Ok(page)) => page.map(Arc::new),
                Ok(Err(_)) => Err(unavailable("the read panicked")),
                Err(_) => Err(unavailable("it did not answer in time")),
            };
            reads.lock().came(key, page.as_deref().ok(), bytes_max);
            page
        };
        let task = hub.outside.spawn(read).ok_or_else(|| unavailable("the bus ends"))?;
        Ok(task.map(|done| done.map_err(unavailable).and_then(|page| page)).boxed().shared())
    }
}

impl Pages {
    /// It was read. What failed is asked for again by the next.
    fn came(&mut self, key: Key, page: Option<&Page>, bytes_max: usize) {
        let Some(page) = page else {
            self.by_key.remove(&key);
            return;
        };
        let entries: usize = page.entries.iter().map(|e| e.event.len()).sum();
        self.bytes += entries + PAGE_BYTES;
        self.kept.push_back((key, entries + PAGE_BYTES));
        while self.bytes > bytes_max
            && let Some((old, bytes)) = self.kept.pop_front()
        {
            self.by_key.remove(&old);
            self.bytes -= bytes;
        }
    }
}
