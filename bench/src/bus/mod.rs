//! The bus: one publisher to many subscribers, flat out and at a steady rate, and sessions that do nothing.
//!
//! Flat out, at most `--window` messages are on their way at once. Deliveries per second of the *server's* CPU time is
//! the figure to compare, since load and server share the machine; beside it stands the floor, a relay that only
//! copies bytes, driven by the same load in the same run.

mod floor;
mod load;
mod wire;

use crate::node::Node;
use crate::report::{Figures, Report, rounded};
use crate::samples::percentile;
use crate::{Common, machine};
use anyhow::ensure;
use load::{Flood, Subscribers};
use serde_json::json;
use std::time::Duration;

/// Options of `minium bench bus`.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// How many subscribers
    #[arg(long, default_value_t = 1_000)]
    subscribers: usize,
    /// Bytes of one message
    #[arg(long, default_value_t = 128)]
    size: usize,
    /// How many messages may be on their way
    #[arg(long, default_value_t = 64)]
    window: u64,
    /// How long to publish
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Messages per second in the part that takes latency
    #[arg(long, default_value_t = 100)]
    rate: u64,
    /// How many sessions in the part that takes memory; 0 leaves it out
    #[arg(long, default_value_t = 10_000)]
    idle: usize,
    /// How often to run it; medians are told
    #[arg(long, default_value_t = 5)]
    runs: usize,
    #[command(flatten)]
    common: Common,
}

/// Who is under load: where it listens and which process its CPU time is read from.
struct Target {
    address: String,
    pid: u32,
}

/// Runs the bench.
pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    if floor::is_wanted() {
        return tokio::task::spawn_blocking(floor::serve).await?;
    }
    ensure!(options.size >= wire::STAMP_BYTES, "--size must be at least {}", wire::STAMP_BYTES);
    machine::raise_open_files();
    let settings = json!({ "subscribers": options.subscribers, "size": options.size, "window": options.window,
        "seconds": options.seconds, "rate": options.rate, "idle": options.idle });
    let mut report = Report::new("bus", settings);
    for _ in 0..options.runs {
        report.add(one_run(options).await?);
    }
    report.finish(&options.common)
}

async fn one_run(options: &Options) -> anyhow::Result<Figures> {
    let mut figures = Figures::new();
    let node = Node::start("sqlite::memory:").await?;
    node.ready().await?;
    let target = Target { address: node.address.clone(), pid: node.pid };
    let ours = flood(options, &target, "", &mut figures).await?;
    steady(options, &target, "", &mut figures).await?;
    if options.idle > 0 {
        idle(options.idle, &target, &mut figures).await?;
    }
    node.stop().await?;

    let relay = floor::Floor::start().await?;
    let target = Target { address: relay.address.clone(), pid: relay.pid };
    let floor = flood(options, &target, "floor_", &mut figures).await?;
    relay.stop().await?;
    figures.insert("ratio_to_floor".into(), rounded(ours / floor));
    Ok(figures)
}

/// As fast as it goes; answers deliveries per second of the server's CPU time.
async fn flood(options: &Options, target: &Target, name: &str, figures: &mut Figures) -> anyhow::Result<f64> {
    let all = machine::cpu_of_machine();
    let us = machine::cpu_of(std::process::id())?;
    let mut subscribers = Subscribers::open(&target.address, "/sub/bench/flood", options.subscribers).await?;
    let cpu = machine::cpu_of(target.pid)?;
    let flood = Flood {
        window: options.window,
        size: options.size,
        time: Duration::from_secs(options.seconds),
        rate: None,
    };
    let done = subscribers.flood(&target.address, "/pub/bench/flood", &flood).await?;
    let server = (machine::cpu_of(target.pid)? - cpu).as_secs_f64().max(0.01);
    subscribers.close().await;
    let us = machine::cpu_of(std::process::id())? - us;
    let foreign = (machine::cpu_of_machine().saturating_sub(all).saturating_sub(us)).as_secs_f64() - server;
    let deliveries = done.deliveries as f64;
    let per_cpu = deliveries / server;
    let mut put = |what: &str, value: f64| figures.insert(format!("{name}{what}"), rounded(value));
    put("deliveries_per_second", (deliveries / done.seconds).round());
    put("deliveries_per_server_cpu_second", per_cpu.round());
    put("foreign_cpu_seconds", foreign.max(0.0));
    Ok(per_cpu)
}

/// At a steady rate, where latency means something.
async fn steady(options: &Options, target: &Target, name: &str, figures: &mut Figures) -> anyhow::Result<()> {
    let mut subscribers =
        Subscribers::open(&target.address, "/sub/bench/steady", options.subscribers).await?;
    let time = Duration::from_secs(options.seconds);
    let flood = Flood { window: u64::MAX, size: options.size, time, rate: Some(options.rate) };
    let mut done = subscribers.flood(&target.address, "/pub/bench/steady", &flood).await?;
    subscribers.close().await;
    figures.insert(format!("{name}latency_p50_ms"), rounded(percentile(&mut done.latencies_ms, 50.0)));
    figures.insert(format!("{name}latency_p99_ms"), rounded(percentile(&mut done.latencies_ms, 99.0)));
    Ok(())
}

/// Memory of sessions that do nothing, and how fast they open.
async fn idle(count: usize, target: &Target, figures: &mut Figures) -> anyhow::Result<()> {
    let rss = machine::rss_of(target.pid)?;
    let started = std::time::Instant::now();
    let subscribers = Subscribers::open(&target.address, "/sub/bench/idle", count).await?;
    let seconds = started.elapsed().as_secs_f64();
    let grown = machine::rss_of(target.pid)?.saturating_sub(rss);
    subscribers.close().await;
    figures.insert("idle_rss_bytes_per_session".into(), rounded((grown as f64 / count as f64).round()));
    figures.insert("openings_per_second".into(), rounded((count as f64 / seconds).round()));
    Ok(())
}
