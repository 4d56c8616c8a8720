//! What of the configuration may change while a node runs: the channels, and how much is kept of them.
//!
//! Asked for by SIGHUP. A configuration with mistakes changes nothing, and the log names them all.

use super::asked::Asked;
use super::trust::Reread;
use minium_bus::Channels;
use minium_notifier::Retentions;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Reads the channels again whenever it is asked to.
pub(super) async fn channels(
    reread: Reread,
    channels: Arc<Channels>,
    retentions: Retentions,
    asked: Arc<Asked>,
    closing: CancellationToken,
) {
    while closing.run_until_cancelled(asked.notified()).await.is_some() {
        let reading = reread.clone();
        // a file is read where nobody waits for it
        let read = tokio::task::spawn_blocking(move || reading()).await;
        let Ok(read) = read else { return };
        let done = read.and_then(|config| {
            channels.replace(config.bus_channels())?;
            retentions.set(config.retention_policy());
            Ok(config.channels.len())
        });
        match done {
            Ok(configured) => info!(configured, "Channels read again."),
            Err(error) => {
                warn!(
                    error = format!("{error:#}"),
                    "The configuration cannot be used; the channels stay as they are."
                );
            }
        }
    }
}
