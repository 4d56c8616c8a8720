//! `minium migrate`: brings the database's schema up to date, or says what that would take.

use crate::config::{Flags, load};
use crate::exit::{Exit, fault};
use crate::node::{causes, open_backend};
use anyhow::Context;
use clap::Args;
use minium_queue::{Backend, DatabaseUrl, QueueError};
use std::io::Write;
use std::path::PathBuf;

/// Arguments of `minium migrate`.
#[derive(Debug, Args)]
pub(crate) struct Migrate {
    /// Configuration file; without it ./minium.toml, else /etc/minium/minium.toml, else defaults
    #[arg(long, value_name = "FILE", env = "MINIUM_CONFIG", hide_env = true)]
    config: Option<PathBuf>,
    /// Database: sqlite:FILE or postgres://USER@HOST/NAME
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// Only say which migrations have been applied
    #[arg(long, conflicts_with = "dry_run")]
    status: bool,
    /// Only print the SQL that would be run
    #[arg(long)]
    dry_run: bool,
}

impl Migrate {
    /// Does it.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let flags =
            Flags { config: self.config.clone(), database: self.database.clone(), ..Flags::default() };
        let config = load(&flags)?.config;
        let url: DatabaseUrl = config.database.url.parse()?;
        if let (DatabaseUrl::Sqlite(_), true) = (&url, self.status || self.dry_run) {
            no_new_file(&url)?;
        }
        let told = |error: QueueError| told(&url, &error);
        let backend = open_backend(&config, &url).await.map_err(told)?;
        if self.status {
            return status(&backend).await.map_err(|e| e.context(format!("Looking at {url}")));
        }
        if self.dry_run {
            return dry_run(&backend).await.map_err(|e| e.context(format!("Looking at {url}")));
        }
        let applied = backend.migrate().await.map_err(told)?;
        let words = match applied {
            0 => "up to date, nothing to do".to_owned(),
            1 => "1 migration applied".to_owned(),
            n => format!("{n} migrations applied"),
        };
        writeln!(std::io::stdout(), "{url}: {words}").context("Writing to stdout")
    }
}

/// Looking must not make a database.
fn no_new_file(url: &DatabaseUrl) -> anyhow::Result<()> {
    let DatabaseUrl::Sqlite(minium_queue::SqlitePlace::File(path)) = url else { return Ok(()) };
    if path.exists() {
        return Ok(());
    }
    Err(fault(Exit::NotFound, format!("There is no database {}; `minium migrate` makes it", path.display())))
}

fn told(url: &DatabaseUrl, error: &QueueError) -> anyhow::Error {
    let exit = if error.is_away() { Exit::NoConnection } else { Exit::Failed };
    fault(exit, format!("The database {url} cannot be migrated: {}", causes(error)))
}

async fn status(backend: &Backend) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    for migration in backend.migration_status().await? {
        let when = migration.applied.map_or("pending".to_owned(), |at| format!("applied {at:.0}"));
        writeln!(out, "{:04} {:<24} {when}", migration.number, migration.name)?;
    }
    Ok(())
}

async fn dry_run(backend: &Backend) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    for migration in backend.pending_sql().await? {
        writeln!(out, "-- {:04} {}\n{}", migration.number, migration.name, migration.sql)?;
    }
    Ok(())
}
