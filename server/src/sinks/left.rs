//! What is left to be told where no node has a sink any more: it must end, and nobody else does it.
//!
//! A node with sinks has a worker for deliveries, which also ends those whose sink is gone. Where there is none, each node
//! looks now and then, and has such a worker for as long as it takes. What must hold: while any sink is registered nothing is
//! touched, since a node may have it and be about to tell.

use super::told::QUEUE;
use minium_notifier::{Journal, is_any_registered};
use minium_queue::{Store, causes};
use minium_worker::Worker;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::debug;

/// Soon after a start, since that is when sinks go; later it is only what somebody retries.
const LOOK_FIRST: Duration = Duration::from_secs(1);
const LOOK_MAX: Duration = Duration::from_secs(60);

/// Until the node goes down. `worker` makes one that ends when there is nothing to do.
pub(crate) async fn finish_left(
    store: Arc<dyn Store>,
    journal: Journal,
    worker: impl Fn() -> Worker,
    closing: CancellationToken,
) {
    let mut pause = LOOK_FIRST;
    while closing.run_until_cancelled(sleep(pause)).await.is_some() {
        pause = (pause * 2).min(LOOK_MAX);
        match closing.run_until_cancelled(is_anything_left(&*store, &journal)).await {
            Some(Ok(true)) => {
                if let Err(error) = worker().run(closing.clone()).await {
                    debug!(error = %causes(&error), "Deliveries of sinks that are gone could not be ended.");
                }
            }
            Some(Ok(false)) | None => {}
            // whoever follows the journal tells of a database that fails
            Some(Err(why)) => debug!(%why, "It cannot be seen whether deliveries are left."),
        }
    }
}

async fn is_anything_left(store: &dyn Store, journal: &Journal) -> Result<bool, String> {
    let queues = store.queues().await.map_err(|error| causes(&error))?;
    let waits = queues.iter().any(|queue| queue.name == QUEUE && queue.ready > 0 && queue.paused.is_none());
    Ok(waits && !is_any_registered(journal).await.map_err(|error| causes(&error))?)
}
