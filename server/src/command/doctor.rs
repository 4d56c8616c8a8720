//! `minium doctor`.

use clap::Args;

/// Arguments of `minium doctor`.
#[derive(Debug, Args)]
pub(crate) struct Doctor {}

impl Doctor {
    /// Does it.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        anyhow::bail!("to come")
    }
}
