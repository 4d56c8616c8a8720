//! A long run under mixed load, to see whether a node grows: `just soak [MINUTES]`, 30 by default.
//!
//! Starts the `minium` beside this program on a SQLite file, lets clients of every kind come and go (`load`), and every
//! ten seconds writes down the node's memory and descriptors. What comes in the first quarter is warm-up; of the rest,
//! the median of the last third may exceed that of the first third by [`RESIDENT_KIB_SPARE`] and
//! [`DESCRIPTORS_SPARE`], else the run fails. It fails, too, when a kind of client has done nothing in a third.

#![allow(clippy::print_stdout, reason = "it is a program with a report")]

mod load;
mod node;

use load::{Ground, KINDS};
use node::Node;
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::Instant;

type Fault = Box<dyn std::error::Error + Send + Sync>;

/// Between samples.
const SAMPLE_EVERY: Duration = Duration::from_secs(10);

/// What the allocator may keep more at one time than at another. In half an hour the load ends some 65,000 sessions
/// and sends some 950,000 messages, half of them between the two medians: half a KiB lost with each session, or 35
/// bytes with each message, is more.
const RESIDENT_KIB_SPARE: u64 = 16 * 1024;

/// The load itself has more connections at one time than at another.
const DESCRIPTORS_SPARE: u64 = 24;

/// One look at the node.
struct Sample {
    resident_kib: u64,
    descriptors: u64,
    done: [u64; KINDS.len()],
}

#[tokio::main]
async fn main() -> ExitCode {
    let minutes = std::env::args().nth(1).map_or(Ok(30.0), |m| m.parse::<f64>());
    let Ok(minutes @ 2.0..=10_000.0) = minutes else {
        println!("usage: soak [MINUTES], at least 2");
        return ExitCode::from(2);
    };
    match run(Duration::from_secs_f64(minutes * 60.0)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            println!("FAILED: {fault}");
            ExitCode::FAILURE
        }
    }
}

async fn run(length: Duration) -> Result<(), Fault> {
    let node = Node::start().await?;
    let ground = Ground::new(node.address());
    let mut load = ground.start();
    let began = Instant::now();
    let mut samples = Vec::new();
    println!("{:>6} {:>12} {:>12}  {}", "s", "resident KiB", "descriptors", KINDS.join(" "));
    while began.elapsed() < length {
        tokio::select! {
            // nothing in the load ends by itself
            Some(ended) = load.join_next() => return Err(format!("the load broke: {ended:?}\n{}", node.log_end()).into()),
            () = tokio::time::sleep(SAMPLE_EVERY) => {}
        }
        let (resident_kib, descriptors) = node.look()?;
        let sample = Sample { resident_kib, descriptors, done: ground.done() };
        let done: Vec<_> = sample.done.iter().map(u64::to_string).collect();
        println!("{:>6} {resident_kib:>12} {descriptors:>12}  {}", began.elapsed().as_secs(), done.join(" "));
        samples.push(sample);
    }
    load.shutdown().await;
    node.stop().await?;
    judge(&samples)
}

/// Compares the first third after warm-up with the last.
fn judge(samples: &[Sample]) -> Result<(), Fault> {
    let warm = &samples[samples.len() / 4..];
    let third = warm.len() / 3;
    let (first, last) = (&warm[..third], &warm[warm.len() - third..]);
    let median = |part: &[Sample], figure: fn(&Sample) -> u64| {
        let mut figures: Vec<_> = part.iter().map(figure).collect();
        figures.sort_unstable();
        figures[figures.len() / 2]
    };
    let mut faults = Vec::new();
    for (name, figure, spare) in [
        ("resident KiB", (|s| s.resident_kib) as fn(&Sample) -> u64, RESIDENT_KIB_SPARE),
        ("descriptors", |s| s.descriptors, DESCRIPTORS_SPARE),
    ] {
        let (before, after) = (median(first, figure), median(last, figure));
        println!("{name}: median {before} in the first third, {after} in the last; {spare} more are allowed");
        if after > before + spare {
            faults.push(format!("{name} grew from {before} to {after}"));
        }
    }
    for part in [first, last] {
        let (from, to) = (&part[0].done, &part[part.len() - 1].done);
        let idle = KINDS.iter().zip(from.iter().zip(to)).filter(|(_, (from, to))| from == to);
        faults.extend(idle.map(|(kind, _)| format!("{kind} did nothing for a third of the time")));
    }
    if faults.is_empty() { Ok(()) } else { Err(faults.join("; ").into()) }
}
