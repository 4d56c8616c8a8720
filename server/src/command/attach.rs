//! `minium attach minion`: makes the events of a Perl Minion those of this journal, says how that stands, or ends it.

use crate::config::{Flags, load};
use crate::exit::{Exit, exit_of, fault};
use crate::node::causes;
use anyhow::Context;
use clap::{Args, Subcommand};
use minium_notifier::{AttachError, AttachOptions, MinionDatabase, Report};
use minium_queue::DatabaseUrl;
use minium_queue::postgres::{PgOptions, PgStore};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

/// The schema of the Minion that the tests attach: 10.25. Of others it is known that their tables are understood, no more.
const TRIED_VERSION: i64 = 23;

/// What can be attached.
#[derive(Debug, Subcommand)]
pub(crate) enum Attach {
    /// Minion, the job queue of Perl's Mojolicious, on PostgreSQL
    Minion(Minion),
}

/// Arguments of `minium attach minion`.
#[derive(Debug, Args)]
pub(crate) struct Minion {
    /// Configuration file; without it ./minium.toml, else /etc/minium/minium.toml, else defaults
    #[arg(long, value_name = "FILE", env = "MINIUM_CONFIG", hide_env = true)]
    config: Option<PathBuf>,
    /// Minion's database: postgres://USER@HOST/NAME
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// Schema of Minion's tables; without it the first on the search path that has them
    #[arg(long)]
    schema: Option<String>,
    /// The events' source is /minion/NAME; without it the name of the database
    #[arg(long)]
    name: Option<String>,
    /// Only say what is there, and whether attaching would work
    #[arg(long, conflicts_with = "detach")]
    check: bool,
    /// Take off what was attached; the journal stays
    #[arg(long, conflicts_with_all = ["schema", "name"])]
    detach: bool,
    /// One JSON document in place of words
    #[arg(long)]
    json: bool,
}

impl Attach {
    /// Does it.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let Attach::Minion(minion) = self;
        minion.run().await
    }
}

impl Minion {
    async fn run(self) -> anyhow::Result<()> {
        let flags =
            Flags { config: self.config.clone(), database: self.database.clone(), ..Flags::default() };
        let config = load(&flags)?.config;
        let url: DatabaseUrl = config.database.url.parse()?;
        let told = |error: AttachError| {
            let what = if self.detach { "detached" } else { "attached" };
            let words = format!("Minion cannot be {what} in {url}: {}", causes(&error));
            fault(exit_of(error.code()), words)
        };
        let DatabaseUrl::Postgres(text) = &url else {
            let words =
                format!("{url} is SQLite; only a Minion on PostgreSQL can be attached (--database URL)");
            return Err(fault(Exit::Usage, words));
        };
        // nothing in here waits for what others do
        let store = PgStore::open(text, PgOptions { connections: 2, listen: false, ..PgOptions::default() })?;
        let options = AttachOptions { schema: self.schema.clone(), name: self.name.clone() };
        let minion = MinionDatabase::new(Arc::new(store), options).map_err(told)?;
        if self.detach {
            let was_there = minion.detach().await.map_err(told)?;
            return self.tell_detached(was_there);
        }
        if self.check {
            let report = minion.check().await.map_err(told)?;
            self.tell(&report)?;
            return match &report.attached {
                Some(attached) if !attached.faults.is_empty() => {
                    Err(fault(Exit::Conflict, "It is attached, but not whole: attach it again"))
                }
                _ => Ok(()),
            };
        }
        let report = minion.attach().await.map_err(told)?;
        self.tell(&report)
    }

    fn tell_detached(&self, was_there: bool) -> anyhow::Result<()> {
        let mut out = std::io::stdout();
        if self.json {
            return writeln!(out, "{}", serde_json::json!({ "detached": was_there }))
                .context("Writing to stdout");
        }
        let words = match was_there {
            true => "detached; its events up to here stay in the journal",
            false => "nothing was attached",
        };
        writeln!(out, "{words}").context("Writing to stdout")
    }

    fn tell(&self, report: &Report) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        if self.json {
            return writeln!(out, "{}", serde_json::to_string(report)?).context("Writing to stdout");
        }
        for line in words(report) {
            writeln!(out, "{line}").context("Writing to stdout")?;
        }
        Ok(())
    }
}

/// The report for people, one line a subject.
fn words(report: &Report) -> Vec<String> {
    let version = match report.minion_version {
        Some(n @ TRIED_VERSION) => format!("schema version {n}"),
        Some(n) => format!("schema version {n}, which was not tried; its tables are understood"),
        None => "of a version that cannot be read".to_owned(),
    };
    let schema = match report.migrations_pending {
        0 => "up to date".to_owned(),
        1 => "1 migration is to be applied".to_owned(),
        n => format!("{n} migrations are to be applied"),
    };
    let mut lines = vec![
        format!("postgres  {}", report.server_version),
        format!("minion    {}, {version}", report.jobs),
        format!("minium    schema {schema}"),
    ];
    match &report.attached {
        None => lines.push("attached  no; it would work".into()),
        Some(attached) => {
            lines.push(format!(
                "attached  as {} since {:.0}, version {}",
                attached.source, attached.since, attached.version
            ));
            lines.extend(attached.faults.iter().map(|fault| format!("fault     {fault}")));
        }
    }
    lines.extend(report.warnings.iter().map(|warning| format!("warning   {warning}")));
    lines
}
