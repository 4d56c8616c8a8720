//! `minium migrate`.

use clap::Args;

/// Arguments of `minium migrate`.
#[derive(Debug, Args)]
pub(crate) struct Migrate {}

impl Migrate {
    /// Does it.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        anyhow::bail!("to come")
    }
}
