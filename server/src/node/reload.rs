//! What of the configuration may change while a node runs: the channels, how much is kept of them, and the hooks.
//!
//! Asked for by SIGHUP. A configuration with mistakes changes nothing, and the log names them all.

use super::asked::Asked;
use super::trust::Reread;
use crate::exit::{Exit, fault};
use crate::hooks::{self, Hooks};
use minium_bus::Channels;
use minium_notifier::Retentions;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// What is in force until it is read again.
pub(super) struct InForce {
    pub(super) channels: Arc<Channels>,
    pub(super) retentions: Retentions,
    pub(super) hooks: Arc<Hooks>,
}

/// Reads them again whenever it is asked to.
pub(super) async fn watch(reread: Reread, in_force: InForce, asked: Arc<Asked>, closing: CancellationToken) {
    while closing.run_until_cancelled(asked.notified()).await.is_some() {
        let reading = reread.clone();
        // files are read where nobody waits for them
        let read = tokio::task::spawn_blocking(move || {
            let config = reading()?;
            let hooks = hooks::build(&config).map_err(|wrong| fault(Exit::Usage, wrong.join("; ")))?;
            Ok::<_, anyhow::Error>((config, hooks))
        });
        let Ok(read) = read.await else { return };
        let done = read.and_then(|(config, hooks)| {
            in_force.channels.replace(config.bus_channels())?;
            in_force.retentions.set(config.retention_policy());
            in_force.hooks.replace(hooks);
            Ok((config.channels.len(), config.hooks.len()))
        });
        match done {
            Ok((configured, hooks)) => info!(configured, hooks, "Channels and hooks read again."),
            Err(error) => {
                warn!(
                    error = format!("{error:#}"),
                    "The configuration cannot be used; channels and hooks stay as they are."
                );
            }
        }
    }
}
