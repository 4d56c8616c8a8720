//! `minium config`.

use clap::Subcommand;

/// Subcommands of `minium config`.
#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Print the configuration that a node would run with, secrets masked
    Show,
}

impl Config {
    /// Does it.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        anyhow::bail!("to come")
    }
}
