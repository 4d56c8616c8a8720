//! Measures how many messages are kept a second:
//! `cargo run --release -p minium-notifier --example keep -- postgres://… [SECONDS [PUBLISHERS [IN_FLIGHT [BYTES]]]]`
//!
//! Makes the schema in the database that is named (PostgreSQL, or `sqlite:FILE`), and lets publishers keep so many
//! messages in flight, each a call of its own. Prints what was acknowledged in each of five runs, and the medians.

#![allow(clippy::print_stdout, reason = "it is what this program is for")]

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use minium_bus::{Backing, Bus, Draft, History, Options};
use minium_notifier::{EnvelopeOptions, Journal, Relay, RelayOptions, RelayState};
use minium_queue::Backend;
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

type Fault = Box<dyn Error + Send + Sync>;

const RUNS: usize = 5;

/// Publishes for so long, and tells how long each message took.
async fn publisher(
    history: Arc<dyn History>,
    name: String,
    in_flight: usize,
    data: bytes::Bytes,
    span: Duration,
) -> Result<Vec<Duration>, Fault> {
    let topic: minium_protocol::Topic = format!("bench/{name}").parse()?;
    let begun = Instant::now();
    let publish = || {
        let draft = Draft { topic: topic.clone(), id: None, data: data.clone() };
        let history = history.clone();
        async move {
            let sent = Instant::now();
            history.keep(vec![draft]).await.map(|_| sent.elapsed())
        }
    };
    let mut flying: FuturesUnordered<_> = (0..in_flight).map(|_| publish()).collect();
    let mut took = Vec::new();
    while let Some(kept) = flying.next().await {
        took.push(kept.map_err(|problem| format!("{problem:?}"))?);
        if begun.elapsed() < span {
            flying.push(publish());
        }
    }
    Ok(took)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[tokio::main]
async fn main() -> Result<(), Fault> {
    let mut words = std::env::args().skip(1);
    let url = words.next().ok_or("which database?")?;
    let mut number = |usual: usize| words.next().map_or(Ok(usual), |word| word.parse());
    let (seconds, publishers, in_flight, bytes) = (number(5)?, number(4)?, number(64)?, number(128)?);
    let backend = Backend::open(&url.parse()?).await?;
    backend.migrate().await?;
    let journal = Journal::open(&backend, EnvelopeOptions::default());
    let history = journal.history();
    let bus =
        Bus::start(Options::default(), Backing { history: Some(history.clone()), ..Backing::default() })?;
    let stop = CancellationToken::new();
    let relay = Relay::start(&journal, bus.clone(), RelayOptions::default(), stop.clone());
    relay.states().wait_for(|s| matches!(s, RelayState::Relaying(_))).await?;

    let data = bytes::Bytes::from(format!("\"{}\"", "x".repeat(bytes.saturating_sub(2))));
    let (mut rates, mut halves, mut worst) = (Vec::new(), Vec::new(), Vec::new());
    for run in 1..=RUNS {
        let begun = Instant::now();
        let publishing = (0..publishers).map(|n| {
            let span = Duration::from_secs(seconds as u64);
            tokio::spawn(publisher(history.clone(), n.to_string(), in_flight, data.clone(), span))
        });
        let mut took = Vec::new();
        for publisher in publishing.collect::<Vec<_>>() {
            took.extend(publisher.await??);
        }
        let rate = took.len() as f64 / begun.elapsed().as_secs_f64();
        took.sort_unstable();
        let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
        println!("run {run}: {rate:.0} acked/s, p50 {:.1} ms, p99 {:.1} ms", at(0.5), at(0.99));
        rates.push(rate);
        halves.push(at(0.5));
        worst.push(at(0.99));
    }
    println!(
        "medians: {:.0} acked/s, p50 {:.1} ms, p99 {:.1} ms ({publishers} publishers, {in_flight} in flight each, {bytes} B)",
        median(rates),
        median(halves),
        median(worst)
    );
    stop.cancel();
    relay.join().await;
    bus.shutdown(Duration::from_secs(1)).await;
    Ok(())
}
