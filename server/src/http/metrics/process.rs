//! What the system says of this process, under the names that every Prometheus dashboard knows. Where there is no `/proc`, less
//! is told.

use super::text::Text;
use rustix::process::{Resource, getrlimit};
use std::fs;

/// When it began, since 1970.
const START_TIME: &str = "process_start_time_seconds";
/// The kernel tells processor time in these, on every machine that this runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// Remembers when it began. Once, at start.
pub(super) fn started() {
    metrics::describe_gauge!(START_TIME, metrics::Unit::Seconds, "When this process began.");
    metrics::gauge!(START_TIME).set(jiff::Timestamp::now().as_millisecond() as f64 / 1e3);
}

/// The rest. Blocks for as long as the list of open files takes.
pub(super) fn text() -> String {
    let mut text = Text::default();
    if let Some(bytes) = memory("VmRSS:") {
        text.single("process_resident_memory_bytes", "gauge", "Memory in use.", bytes);
    }
    if let Some(bytes) = memory("VmSize:") {
        text.single("process_virtual_memory_bytes", "gauge", "Memory that is mapped.", bytes);
    }
    if let Some(seconds) = processor() {
        text.single("process_cpu_seconds_total", "counter", "Processor time used.", seconds);
    }
    if let Ok(files) = fs::read_dir("/proc/self/fd") {
        // but for the one by which they are listed
        text.single("process_open_fds", "gauge", "Open files.", files.count().saturating_sub(1));
    }
    if let Some(most) = getrlimit(Resource::Nofile).current {
        text.single("process_max_fds", "gauge", "Files that may be open.", most);
    }
    text.into_string()
}

fn memory(name: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let kibibytes = status.lines().find_map(|line| line.strip_prefix(name))?.trim().strip_suffix(" kB")?;
    kibibytes.parse::<u64>().ok().map(|k| k * 1_024)
}

/// In user and system mode.
fn processor() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // the name before it may have anything in it
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / TICKS_PER_SECOND)
}
