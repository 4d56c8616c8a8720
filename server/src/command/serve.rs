//! `minium serve`.

use clap::Args;

/// Arguments of `minium serve`.
#[derive(Debug, Args)]
pub(crate) struct Serve {}

impl Serve {
    /// Does it.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        anyhow::bail!("to come")
    }
}
