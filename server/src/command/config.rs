//! `minium config`: what a node would run with.

use crate::config::{Flags, load, show};
use clap::{Args, Subcommand};
use std::io::Write;

/// Subcommands of `minium config`.
#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Print the configuration that a node would run with, defaults included, secrets masked
    Show(Show),
}

/// Arguments of `minium config show`.
#[derive(Debug, Args)]
pub(crate) struct Show {
    #[command(flatten)]
    flags: Flags,
}

impl Config {
    /// Does it.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let Config::Show(Show { flags }) = self;
        let loaded = load(&flags)?;
        let mut out = std::io::stdout().lock();
        let place = loaded.file.map_or("no file".to_owned(), |file| file.display().to_string());
        writeln!(out, "# from {place}, MINIUM_… variables and flags\n{}", show(&loaded.config))?;
        Ok(())
    }
}
