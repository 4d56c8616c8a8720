//! `minium serve`: everything in one process.

use crate::config::{Flags, load};
use crate::listener;
use crate::node::{self, Extras, Reread};
use clap::Args;
use std::net::TcpListener;
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
    /// What listens already.
    #[arg(skip)]
    sockets: Vec<TcpListener>,
}

impl Serve {
    /// Takes the sockets that whoever started this process hands over. To be called before there are threads.
    pub(crate) fn take_sockets(&mut self) -> anyhow::Result<()> {
        self.sockets = listener::handed_over()?;
        Ok(())
    }

    /// Does it, until a signal ends it.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let loaded = load(&self.flags)?;
        if let Some(file) = &loaded.file {
            info!(file = %file.display(), "Configuration read.");
        }
        let flags = self.flags;
        let reread: Reread = Arc::new(move || load(&flags).map(|loaded| loaded.config));
        let extras = Extras {
            insecure: self.insecure_no_auth,
            reread: Some(reread),
            sockets: self.sockets,
            ..Extras::default()
        };
        node::run(loaded.config, extras).await
    }
}
