//! How much of the journal is kept, and the task that lets the rest go.

use crate::error::NotifierError;
use crate::journal::JournalStore;
use crate::metrics;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How much of the journal is kept: what is older or more is let go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// How old an entry may become.
    pub age: Duration,
    /// How many entries are kept.
    pub count: u64,
}

impl Default for Retention {
    /// 30 days, a million entries.
    fn default() -> Retention {
        Retention { age: Duration::from_secs(30 * 86_400), count: 1_000_000 }
    }
}

impl Retention {
    /// For a journal in memory: 100,000 entries.
    pub fn in_memory() -> Retention {
        Retention { count: 100_000, ..Retention::default() }
    }
}

/// How the work is done.
#[derive(Debug, Clone)]
pub(crate) struct Upkeep {
    /// The store's usual one when nothing was said.
    pub(crate) retention: Option<Retention>,
    /// Between two rounds.
    pub(crate) interval: Duration,
    /// So many entries go in one transaction.
    pub(crate) batch: u32,
    /// Between two looks at the days.
    pub(crate) days_interval: Duration,
}

/// Keeps at it until it is stopped. A failed round is told and tried again at the next.
pub(crate) async fn keep(store: Arc<dyn JournalStore>, upkeep: Upkeep, stop: CancellationToken) {
    let mut tended: Option<Instant> = None;
    let mut failing = false;
    loop {
        match stop.run_until_cancelled(round(&*store, &upkeep, &mut tended)).await {
            None => return,
            Some(Ok(())) => failing = false,
            // the relay tells about a database that is gone; this one need not say it each time
            Some(Err(error)) if !failing => {
                failing = true;
                tracing::warn!(error = error.story(), "The journal's retention is not kept up.");
            }
            Some(Err(_)) => {}
        }
        if stop.run_until_cancelled(tokio::time::sleep(upkeep.interval)).await.is_none() {
            return;
        }
    }
}

async fn round(
    store: &dyn JournalStore,
    upkeep: &Upkeep,
    tended: &mut Option<Instant>,
) -> Result<(), NotifierError> {
    let retention = match &upkeep.retention {
        Some(retention) => retention.clone(),
        None => store.retention().await?,
    };
    if tended.is_none_or(|at| at.elapsed() >= upkeep.days_interval) {
        store.tend(&retention).await?;
        *tended = Some(Instant::now());
    }
    while store.forget_ids(upkeep.batch).await? >= u64::from(upkeep.batch) {}
    loop {
        let gone = store.trim(&retention, upkeep.batch).await?;
        ::metrics::counter!(metrics::ENTRIES_TRIMMED).increment(gone);
        if gone < u64::from(upkeep.batch) {
            return Ok(());
        }
    }
}
