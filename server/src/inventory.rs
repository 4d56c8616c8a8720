//! The task `livesys/inventory`: reads this machine's hardware and publishes what it found to `livesys/<hostname>`.
//!
//! It is the first real task: it notes its progress while it goes, its result is the report, and the report fits
//! `schemas/sub/livesys.json`. What a machine or a container does not show is null; only a report that nobody
//! could be told of is a failure, and a job that was meant for another machine.

mod hardware;

use futures::future::BoxFuture;
use hardware::{Block, Cpu, Dmi, Memory, Network, Roots};
use jiff::Timestamp;
use minium_bus::{Bus, Message};
use minium_protocol::{Problem, Topic};
use minium_worker::{Failure, JobContext, Worker};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The task's name.
pub(crate) const TASK: &str = "livesys/inventory";

/// Hands a message to whoever listens to a topic.
pub(crate) type Publish =
    Arc<dyn Fn(Topic, Vec<u8>) -> BoxFuture<'static, Result<(), Problem>> + Send + Sync>;

/// Adds the task to a worker; its reports go to the bus.
pub(crate) fn add(worker: Worker, bus: Bus) -> Worker {
    let publish: Publish = Arc::new(move |topic, text| {
        let bus = bus.clone();
        Box::pin(async move { bus.publish(&topic, Message::Text(text.into()), None).await.map(drop) })
    });
    task(worker, Roots::default(), publish)
}

fn task(worker: Worker, roots: Roots, publish: Publish) -> Worker {
    let roots = Arc::new(roots);
    worker.task(TASK, move |job, args| inventory(job, args, roots.clone(), publish.clone()))
}

/// What to read. Each is one step of the progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Section {
    Dmi,
    Cpu,
    Memory,
    Block,
    Network,
}

impl Section {
    /// In the order in which they are read: who the machine is comes first.
    const ALL: [Section; 5] = [Section::Dmi, Section::Cpu, Section::Memory, Section::Block, Section::Network];

    fn words(self) -> &'static str {
        match self {
            Section::Dmi => "asking the firmware",
            Section::Cpu => "counting processors",
            Section::Memory => "measuring memory",
            Section::Block => "looking for disks",
            Section::Network => "looking for network interfaces",
        }
    }
}

/// The one argument, if there is one.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    /// Serial number of the machine that is meant.
    #[serde(default)]
    serial: Option<String>,
    /// Only these.
    #[serde(default)]
    sections: Option<Vec<Section>>,
}

/// What was found; a livesys message of type `inventory`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    #[serde(rename = "type")]
    kind: &'static str,
    host: String,
    time: Timestamp,
    job: i64,
    kernel: Option<String>,
    architecture: &'static str,
    dmi: Option<Dmi>,
    cpu: Option<Cpu>,
    memory: Option<Memory>,
    block: Option<Vec<Block>>,
    network: Option<Vec<Network>>,
}

async fn inventory(
    job: JobContext,
    args: Vec<Wish>,
    roots: Arc<Roots>,
    publish: Publish,
) -> Result<Report, Failure> {
    let wish = match <[Wish; 1]>::try_from(args) {
        Ok([wish]) => wish,
        Err(none) if none.is_empty() => Wish::default(),
        Err(_) => return Err(Failure::permanent("livesys/inventory takes one object or nothing")),
    };
    let mut report = Report {
        kind: "inventory",
        host: hardware::host(&roots),
        time: Timestamp::now(),
        job: job.id(),
        kernel: hardware::kernel(&roots),
        architecture: std::env::consts::ARCH,
        dmi: None,
        cpu: None,
        memory: None,
        block: None,
        network: None,
    };
    job.note("host", report.host.as_str());
    if let Some(serial) = &wish.serial {
        is_meant(serial, hardware::dmi(&roots).and_then(|dmi| dmi.serial))?;
    }
    let sections = wish.sections.unwrap_or_else(|| Section::ALL.to_vec());
    for (i, section) in sections.iter().enumerate() {
        job.progress(90.0 * i as f64 / sections.len() as f64, section.words());
        job.flush().await;
        report = read(report, *section, roots.clone()).await?;
    }
    job.progress(90.0, "publishing the report");
    job.flush().await;
    let topic = topic(&report.host);
    let text = serde_json::to_vec(&report).map_err(|e| Failure::permanent(e.to_string()))?;
    publish(topic.clone(), text).await.map_err(|problem| {
        Failure::retryable(format!("the report could not be published to {topic}: {problem}"))
    })?;
    job.note("topic", topic.as_str());
    job.progress(100.0, "done");
    Ok(report)
}

/// Reads one section. The files are the kernel's, but a dying disk or card may answer late: not on a thread that
/// others wait for.
async fn read(mut report: Report, section: Section, roots: Arc<Roots>) -> Result<Report, Failure> {
    let work = move || {
        match section {
            Section::Dmi => report.dmi = hardware::dmi(&roots),
            Section::Cpu => report.cpu = hardware::cpu(&roots),
            Section::Memory => report.memory = hardware::memory(&roots),
            Section::Block => report.block = hardware::block(&roots),
            Section::Network => report.network = hardware::network(&roots),
        }
        report
    };
    tokio::task::spawn_blocking(work).await.map_err(Failure::from)
}

/// Refuses a job that was meant for another machine.
fn is_meant(wanted: &str, have: Option<String>) -> Result<(), Failure> {
    match have {
        Some(serial) if serial == wanted => Ok(()),
        Some(serial) => {
            Err(Failure::permanent(format!("this machine's serial number is {serial}, not {wanted}")))
        }
        None => Err(Failure::permanent("this machine's serial number cannot be read")),
    }
}

/// `livesys/<host>`, whatever characters the name has.
fn topic(host: &str) -> Topic {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || "_.~:@-".contains(c) { c } else { '-' };
    let segment: String = host.chars().take(128).map(allowed).collect();
    let topic = format!("livesys/{segment}").parse();
    topic.unwrap_or_else(|_| "livesys/unknown".parse().expect("a fixed topic is one"))
}

#[cfg(test)]
mod tests;
