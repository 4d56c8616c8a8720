//! What the machine did meanwhile, read from /proc: CPU and memory of one process, CPU of everybody.
//!
//! Times are in clock ticks of 10 ms (`USER_HZ`, 100 on every Linux that Minium runs on), so short runs are coarse.

use anyhow::Context;
use std::collections::HashMap;
use std::time::Duration;

const TICK: Duration = Duration::from_millis(10);

/// CPU time, user and system, that a process has used.
pub(crate) fn cpu_of(pid: u32) -> anyhow::Result<Duration> {
    let fields = stat_of(pid).context("reading the CPU time of a process")?;
    let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<u32>().ok());
    let (user, system) = ticks(11).zip(ticks(12)).context("/proc/PID/stat has another form")?;
    Ok(TICK * (user + system))
}

/// CPU time of all processes whose command line begins with `name`, such as a database's.
pub(crate) fn cpu_of_all(name: &str) -> Duration {
    let Ok(processes) = std::fs::read_dir("/proc") else { return Duration::ZERO };
    let pids = processes.flatten().filter_map(|p| p.file_name().to_str().and_then(|n| n.parse::<u32>().ok()));
    let named = pids.filter(|pid| {
        let command = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        command.trim_end() == name
    });
    named.filter_map(|pid| cpu_of(pid).ok()).sum()
}

/// CPU time of a process and of all below it, those included that have ended and were waited for.
pub(crate) fn cpu_of_tree(root: u32) -> Duration {
    let Ok(processes) = std::fs::read_dir("/proc") else { return Duration::ZERO };
    let pids = processes.flatten().filter_map(|p| p.file_name().to_str().and_then(|n| n.parse::<u32>().ok()));
    // pid, its parent, ticks of its own and of its children that have ended
    let all: HashMap<u32, (u32, u32)> = pids
        .filter_map(|pid| {
            let fields = stat_of(pid)?;
            let number = |i: usize| fields.get(i).and_then(|f| f.parse::<u32>().ok());
            Some((pid, (number(1)?, [11, 12, 13, 14].iter().filter_map(|i| number(*i)).sum())))
        })
        .collect();
    let is_below = |pid: u32| {
        let parent = |pid: &u32| all.get(pid).map(|(parent, _)| *parent).filter(|parent| *parent > 0);
        std::iter::successors(Some(pid), parent).any(|above| above == root)
    };
    TICK * all.iter().filter(|(pid, _)| is_below(**pid)).map(|(_, (_, ticks))| ticks).sum()
}

/// The process above a process, if both are on this machine.
pub(crate) fn parent_of(pid: u32) -> Option<u32> {
    stat_of(pid)?.get(1)?.parse().ok().filter(|parent| *parent > 1)
}

/// The fields of /proc/PID/stat behind the name: state, parent, …
fn stat_of(pid: u32) -> Option<Vec<String>> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // the name may hold blanks and brackets: the fields are counted behind the last bracket
    let (_, rest) = stat.rsplit_once(')')?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

/// CPU time that the whole machine has used.
pub(crate) fn cpu_of_machine() -> Duration {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields: Vec<u64> =
        stat.lines().next().unwrap_or("").split_whitespace().skip(1).filter_map(|f| f.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal
    let busy: u64 = [0, 1, 2, 5, 6].iter().filter_map(|i| fields.get(*i)).sum();
    TICK * u32::try_from(busy).unwrap_or(u32::MAX)
}

/// Resident memory of a process, in bytes.
pub(crate) fn rss_of(pid: u32) -> anyhow::Result<u64> {
    memory_of(pid, "VmRSS:")
}

/// The most resident memory that a process ever had, in bytes.
pub(crate) fn peak_rss_of(pid: u32) -> anyhow::Result<u64> {
    memory_of(pid, "VmHWM:")
}

fn memory_of(pid: u32, name: &str) -> anyhow::Result<u64> {
    let status =
        std::fs::read_to_string(format!("/proc/{pid}/status")).context("reading the memory of a process")?;
    let line = status.lines().find_map(|l| l.strip_prefix(name));
    let line = line.with_context(|| format!("/proc/PID/status has no {name}"))?;
    let kib: u64 =
        line.trim().trim_end_matches(" kB").parse().with_context(|| format!("{name} is no number"))?;
    Ok(kib * 1024)
}

/// Lets this process open as many files as the system allows.
pub(crate) fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // refused: the run says soon enough that connections fail
    let _refused = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// The name of this machine.
pub(crate) fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Processor and number of cores, for the report.
pub(crate) fn description() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|l| l.strip_prefix("model name")).unwrap_or("unknown");
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    format!("{cores} cores, {}", model.trim_start_matches(['\t', ' ', ':']))
}
