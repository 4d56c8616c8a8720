//! `minium dev`.

use clap::Args;

/// Arguments of `minium dev`.
#[derive(Debug, Args)]
pub(crate) struct Dev {}

impl Dev {
    /// Does it.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        anyhow::bail!("to come")
    }
}
