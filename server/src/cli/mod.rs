//! The command line: the root, and the commands that are clients of a node.
//!
//! Commands that are a node or look after one (serve, dev, migrate, doctor, config, schema) live in `command`. Data
//! goes to stdout; progress, hints and logs to stderr. Exit codes are those of `exit`.

use crate::command::{config, dev, doctor, migrate, schema, serve};
use crate::logging::LogFormat;
use clap::{Args, Parser, Subcommand};

/// A job queue, a WebSocket broker and a notifier between them.
#[derive(Debug, Parser)]
#[command(name = "minium", version, propagate_version = true, disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// What goes with every command.
    #[command(flatten)]
    pub(crate) global: Global,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What goes with every command.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// How log lines on stderr look
    #[arg(long, global = true, value_enum, default_value_t, env = "MINIUM_LOG_FORMAT", hide_env = true)]
    pub(crate) log_format: LogFormat,
}

/// Every command.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run everything in one process
    Serve(serve::Serve),
    /// Run everything in memory, with a real task and a schedule, to look at
    Dev(dev::Dev),
    /// Bring the database's schema up to date
    Migrate(migrate::Migrate),
    /// Check whether a node would run well here
    Doctor(doctor::Doctor),
    /// Look at the configuration
    #[command(subcommand)]
    Config(config::Config),
    /// Look after schemas
    #[command(subcommand)]
    Schema(schema::Schema),
}

impl Command {
    /// Does it.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        match self {
            Command::Serve(serve) => serve.run().await,
            Command::Dev(dev) => dev.run().await,
            Command::Migrate(migrate) => migrate.run().await,
            Command::Doctor(doctor) => doctor.run().await,
            Command::Config(config) => config.run(),
            Command::Schema(schema) => schema.run(),
        }
    }
}
