//! `minium doctor`: would a node, a worker or an application run well here, and does a node that runs do what it should? One
//! line a finding, with a remedy where something is wrong.
//!
//! The names of the findings stand in docs/operations.md and stay. Checks change nothing and leave nothing behind.

mod clock;
mod database;
mod finding;
mod machine;
mod node;
mod round_trip;

use crate::cli::output::{Output, quietly};
use crate::cli::remote;
use crate::cli::trust::Trust;
use crate::config::{Config, Flags, load};
use crate::exit::{Exit, fault};
use clap::{Args, ValueEnum};
use finding::{Finding, Report};
use minium_queue::postgres::DatabaseRole;
use secrecy::SecretString;
use std::path::PathBuf;

/// Arguments of `minium doctor`.
#[derive(Debug, Args)]
#[command(
    after_help = "It changes nothing. With --url it publishes a message on the topic minium-doctor, and enqueues a job of the task \
    minium-doctor, which it removes again; two events of it stay in the journal.

Examples:
  minium doctor                                       would a node run well here?
  minium doctor --role worker --database postgres://render@db/minium
  minium doctor --url https://hub:3000 --token-file ops.jwt
  minium doctor --json | jq '.findings[] | select(.level != \"ok\")'"
)]
pub(crate) struct Doctor {
    #[command(flatten)]
    flags: Flags,
    /// What is to run here, or to use the database
    #[arg(long, value_enum, default_value_t, conflicts_with = "url")]
    role: Role,
    /// Look at this node, which runs, from the outside
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// With --url: token that shows who asks; others on this machine can see it, so better set MINIUM_TOKEN or a file
    #[arg(long, value_name = "TOKEN", env = "MINIUM_TOKEN", hide_env_values = true)]
    token: Option<SecretString>,
    /// With --url: file that holds the token; it counts before the others
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long, display_order = 800)]
    json: bool,
    #[command(flatten)]
    trust: Trust,
}

/// Who is to run well.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Role {
    /// `minium serve`
    #[default]
    Node,
    /// `minium worker --database`
    Worker,
    /// An application that enqueues by SQL
    Enqueuer,
    /// Whoever reads jobs and journal by SQL
    Reader,
}

impl From<Role> for DatabaseRole {
    fn from(role: Role) -> DatabaseRole {
        match role {
            Role::Node => DatabaseRole::Node,
            Role::Worker => DatabaseRole::Worker,
            Role::Enqueuer => DatabaseRole::Enqueuer,
            Role::Reader => DatabaseRole::Reader,
        }
    }
}

impl Doctor {
    /// Does it.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let mut report = Report::new(Output::new(self.json));
        let looked = match &self.url {
            Some(url) => self.look_from_outside(url, &mut report).await,
            None => self.look_from_inside(&mut report).await,
        };
        // a reader that is gone (`| head`) has what it wanted
        let mut failed = 0;
        quietly(looked.and_then(|()| {
            failed = report.end()?;
            Ok(())
        }))?;
        match failed {
            0 => Ok(()),
            1 => Err(fault(Exit::Failed, "1 check failed")),
            n => Err(fault(Exit::Failed, format!("{n} checks failed"))),
        }
    }

    async fn look_from_outside(&self, url: &str, report: &mut Report) -> anyhow::Result<()> {
        let token = remote::read_token(self.token.as_ref(), self.token_file.as_ref())?;
        let client = remote::client(url, token, &self.trust)?;
        let findings = Box::pin(round_trip::look(&client)).await;
        client.close().await;
        report.tell_all(findings)?;
        report.tell(clock::clock())
    }

    async fn look_from_inside(&self, report: &mut Report) -> anyhow::Result<()> {
        let config = match load(&self.flags) {
            Ok(loaded) => {
                let place = loaded.file.map_or("no file, defaults".to_owned(), |f| f.display().to_string());
                report.tell(Finding::ok("config", place))?;
                Some(loaded.config)
            }
            Err(error) => {
                let remedy = "docs/configuration.md lists every key";
                report.tell(Finding::fail("config", error.to_string(), remedy))?;
                None
            }
        };
        if let Some(config) = &config {
            report.tell_all(Box::pin(database::look(config, self.role.into())).await)?;
            if self.role == Role::Node {
                whole_node(config, report).await?;
            }
        }
        if matches!(self.role, Role::Node | Role::Worker) {
            report.tell_all(machine::sandbox(config.as_ref()).await)?;
            report.tell(machine::spool())?;
        }
        if self.role == Role::Node {
            report.tell(machine::open_files(config.as_ref()))?;
            report.tell(machine::waiting_connections())?;
        }
        report.tell(clock::clock())
    }
}

/// What only a node needs.
async fn whole_node(config: &Config, report: &mut Report) -> anyhow::Result<()> {
    report.tell(node::schemas(config))?;
    report.tell(node::port(config).await)?;
    report.tell(node::tls(config))?;
    report.tell_all(node::keys(config))?;
    report.tell_all(node::sinks(config))
}
