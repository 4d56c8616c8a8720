//! Load benches behind `minium bench`: what the queue, the bus and the whole road do on this machine.
//!
//! Each bench starts the real binary or opens the real store, loads it through public ways only, checks that nothing
//! was lost, and prints medians over several runs with the CPU that each side used, and the CPU that others used
//! meanwhile. With `--save DIR` the figures are kept beside the name of the machine, so that claims can be traced.
//!
//! ```text
//! minium bench queue --database postgres:///minium?host=/tmp/pg --jobs 50000
//! minium bench queue --peers --only drain,bulk --save bench/runs --database postgres:///postgres?host=/tmp/pg
//! minium bench road --database postgres:///minium?host=/tmp/pg
//! minium bench bus --list
//! minium bench bus --only thousand,latency --peers --save bench/runs
//! ```
//!
//! **Invariants.** A run that lost or doubled anything fails; it has no figures. Tests never call benches: speed is
//! measured here and asserted nowhere.
//!
//! **Allowed imports**: the queue and the worker as their users see them, sockets, /proc. No `minium-bus`, no server
//! internals.

mod bus;
mod machine;
mod node;
mod queue;
mod report;
mod road;
mod samples;

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// What to measure.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// The queue alone: bulk enqueue and drain of no-op jobs, with all their events; by rows also beside other queues
    Queue(queue::Options),
    /// The whole road: enqueue, worker, three events a job, one WebSocket subscriber
    Road(road::Options),
    /// The bus: fan-out, latency, idle sessions, openings, beside a bare relay and other brokers
    Bus(bus::Options),
}

/// What all benches share.
#[derive(Debug, Clone, Args)]
pub struct Common {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    /// Keep the figures under this folder, in DATE-HOST
    #[arg(long, value_name = "DIR")]
    save: Option<PathBuf>,
}

/// Runs a bench and prints what it found.
pub async fn run(bench: Bench) -> anyhow::Result<()> {
    match bench {
        Bench::Queue(options) => queue::run(&options).await,
        Bench::Road(options) => road::run(&options).await,
        Bench::Bus(options) => bus::run(&options).await,
    }
}
