//! `minium serve`: everything in one process.

use crate::config::{Flags, load};
use crate::node::{self, Extras, Reread};
use clap::Args;
use std::sync::Arc;
use tracing::info;

/// Arguments of `minium serve`.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    #[command(flatten)]
    flags: Flags,
    /// Listen wherever it is said, open to everybody who reaches the port
    #[arg(long)]
    insecure_no_auth: bool,
}

impl Serve {
    /// Does it, until a signal ends it.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let loaded = load(&self.flags)?;
        if let Some(file) = &loaded.file {
            info!(file = %file.display(), "Configuration read.");
        }
        let flags = self.flags;
        let reread: Reread = Arc::new(move || load(&flags).map(|loaded| loaded.config));
        let extras = Extras { insecure: self.insecure_no_auth, reread: Some(reread), ..Extras::default() };
        node::run(loaded.config, extras).await
    }
}
