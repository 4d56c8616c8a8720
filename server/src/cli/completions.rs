//! `minium completions`: what shells need to complete commands and options.

use super::Cli;
use super::output::{Output, quietly};
use clap::{Args, CommandFactory};
use clap_complete::Shell;

/// Arguments of `minium completions`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  minium completions bash > ~/.local/share/bash-completion/completions/minium\n  \
    minium completions zsh > \"${fpath[1]}/_minium\"\n  minium completions fish > ~/.config/fish/completions/minium.fish"
)]
pub(crate) struct Completions {
    /// For which shell
    shell: Shell,
}

impl Completions {
    /// Does it.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "minium", &mut script);
        quietly(Output::new(false).whole(&script))
    }
}
