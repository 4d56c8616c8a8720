//! The one binary, `minium`.
//!
//! Only this crate reads files, flags and environment, and only here is axum. The other crates get options structs.
//!
//! **Map.** `cli` is the command line and the commands that are clients of a node; `command` are the commands that
//! are a node or look after one; `config` reads the configuration; `auth` says who may do what; `http` is everything that speaks HTTP, up to the
//! moment at which a checked upgrade is handed to the bus; `openapi` describes it; `node` says what is started in which order and stopped
//! in reverse; `listener` takes connections; `supervisor` is told how the process is; `hooks` turn what comes from outside
//! into jobs, `sinks` tell those outside of events, `telemetry` sends spans to a collector.

mod auth;
mod cli;
mod command;
mod config;
mod database;
mod exit;
mod hooks;
mod http;
mod inventory;
mod listener;
mod logging;
mod node;
mod openapi;
mod schema_files;
mod sinks;
mod spools;
mod supervisor;
mod telemetry;
mod tls;
mod webhook_signature;

use clap::Parser;
use std::process::ExitCode;
use telemetry::Telemetry;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let mut cli = cli::Cli::parse();
    // What becomes a command limits itself, and threads that start meanwhile would meet the limits: it has none.
    if let cli::Command::Become(command) = cli.command {
        logging::start(cli.global.log_format, None);
        return status(command.run());
    }
    if let cli::Command::Serve(serve) = &mut cli.command
        && let Err(error) = serve.take_sockets()
    {
        return exit::report(&error);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return exit::report(&anyhow::Error::new(error).context("The async runtime cannot start"));
        }
    };
    let telemetry = Telemetry::begin(&runtime, cli.command.has_spans());
    logging::start(cli.global.log_format, telemetry.layer());
    telemetry.tell();
    let result = runtime.block_on(Box::pin(cli.command.run()));
    runtime.block_on(telemetry.end(result.is_ok()));
    // A blocked stdin reader or name look-up must not hold the process.
    runtime.shutdown_background();
    status(result)
}

fn status(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report(&error),
    }
}
