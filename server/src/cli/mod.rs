//! The command line: the root, and the commands that are clients of a node.
//!
//! Commands that are a node or look after one (serve, dev, migrate, doctor, attach, config, schema, token) live in `command`. Data
//! goes to stdout; progress, hints and logs to stderr. Exit codes are those of `exit`.

mod audit;
mod audit_keys;
mod audit_place;
mod audit_show;
mod completions;
mod job;
mod job_enqueue;
mod job_log;
mod job_many;
mod job_run;
mod job_show;
mod lock;
mod lock_run;
mod man;
mod man_config;
pub(crate) mod output;
mod queue;
pub(crate) mod remote;
mod schedule;
mod schemas;
mod session;
mod stream;
mod stream_input;
mod stream_render;
mod stream_send;
#[cfg(feature = "top")]
mod top;
mod topic;
pub(crate) mod trust;
pub(crate) mod worker;
mod workers;

pub(crate) use schemas::SchemaList;

use crate::command::{attach, config, dev, doctor, migrate, schema, serve, token};
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
    /// How log lines on stderr look: text or json
    #[arg(long, global = true, value_enum, default_value_t, env = "MINIUM_LOG_FORMAT", hide_env = true)]
    #[arg(hide_possible_values = true, value_name = "FORMAT", display_order = 950)]
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
    /// Make the events of another queue those of this one
    #[command(subcommand)]
    Attach(attach::Attach),
    /// Look at the configuration
    #[command(subcommand)]
    Config(config::Config),
    /// Look after schemas
    #[command(subcommand)]
    Schema(schema::Schema),
    /// Make tokens, and look at them
    #[command(subcommand)]
    Token(token::Token),
    /// Enqueue jobs, look at them, steer them, wait for them
    Job(job::Job),
    /// Look at queues, pause them, see limits and the last day
    Queue(queue::Queue),
    /// Take named locks, let them go, and run commands under them
    Lock(lock::Lock),
    /// Look after work that repeats
    Schedule(schedule::Schedule),
    /// Run jobs by commands, over the database or over a node's WebSocket; look at workers and steer them
    Worker(worker::Worker),
    /// See which topics a node has
    #[command(subcommand)]
    Topic(topic::Topic),
    /// See who is connected to a node, and close sessions
    #[command(subcommand)]
    Session(session::Session),
    /// Watch a node: jobs, queues, workers, sessions, failures, and what happens
    #[cfg(feature = "top")]
    Top(top::Top),
    /// Subscribe to a topic and all below it
    Sub(stream::Sub),
    /// Publish to all subscribers of a topic
    Pub(stream_send::Pub),
    /// Hand out work to one puller each
    Push(stream_send::Push),
    /// Take work
    Pull(stream::Pull),
    /// Talk with the peers of a bus
    Bus(stream_send::Bus),
    /// Keep everything that topics say in an archive that shows changes; look at it
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Measure what queue, bus and the whole road do on this machine
    #[command(subcommand)]
    Bench(minium_bench::Bench),
    /// Print what a shell needs to complete commands and options
    Completions(completions::Completions),
    /// Write the manual pages
    Man(man::Man),
    /// Become a command that dies with its worker
    #[command(hide = true)]
    Become(worker::Become),
}

impl Command {
    /// Does it have spans that can be exported? Those that answer requests and run jobs do.
    pub(crate) fn has_spans(&self) -> bool {
        match self {
            Command::Serve(_) | Command::Dev(_) => true,
            Command::Worker(worker) => worker.runs_jobs(),
            _ => false,
        }
    }

    /// Does it.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        match self {
            Command::Serve(serve) => serve.run().await,
            Command::Dev(dev) => dev.run().await,
            Command::Migrate(migrate) => migrate.run().await,
            Command::Doctor(doctor) => doctor.run().await,
            Command::Attach(attach) => attach.run().await,
            Command::Config(config) => config.run(),
            Command::Schema(schema) => schema.run().await,
            Command::Token(token) => token.run().await,
            Command::Job(job) => job.run().await,
            Command::Queue(queue) => queue.run().await,
            Command::Lock(lock) => lock.run().await,
            Command::Schedule(schedule) => schedule.run().await,
            Command::Worker(worker) => worker.run().await,
            Command::Topic(topic) => topic.run().await,
            Command::Session(session) => session.run().await,
            #[cfg(feature = "top")]
            Command::Top(top) => top.run().await,
            Command::Sub(sub) => sub.run().await,
            Command::Pub(publish) => publish.run().await,
            Command::Push(push) => push.run().await,
            Command::Pull(pull) => pull.run().await,
            Command::Bus(bus) => bus.run().await,
            Command::Audit(audit) => audit.run().await,
            Command::Bench(bench) => minium_bench::run(bench).await,
            Command::Completions(completions) => completions.run(),
            Command::Man(man) => man.run(),
            // done before there is a runtime: see main
            Command::Become(command) => command.run(),
        }
    }
}
