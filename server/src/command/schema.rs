//! `minium schema`.

use clap::Subcommand;

/// Subcommands of `minium schema`.
#[derive(Debug, Subcommand)]
pub(crate) enum Schema {
    /// Check schema files: are they valid, and do they stay inside the rules?
    Check,
}

impl Schema {
    /// Does it.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        anyhow::bail!("to come")
    }
}
