//! The machine: what holds commands back, its clock, its limits, and the places where files are written.

use super::finding::Finding;
use crate::config::Config;
use crate::spools;
use minium_worker::Ability;
use rustix::fs::{Access, access, statvfs};
use rustix::process::{Resource, getrlimit};
use std::path::{Path, PathBuf};

/// Files that a node needs besides one for each connection and session.
const FILES_OWN: u64 = 200;
/// With less room a disk is soon full.
const ROOM_MIN_BYTES: u64 = 1 << 30;
/// So many connections wait in the kernel for a node that is busy; the listener asks for more.
const SOMAXCONN_MIN: u64 = 1_024;

/// What the machine has to hold commands back, and whether it has what is asked for.
pub(super) async fn sandbox(config: Option<&Config>) -> Vec<Finding> {
    const NAME: &str = "sandbox";
    let commands = |config: &Config| -> Vec<_> {
        config.tasks.iter().filter_map(|(name, task)| task.command(name, &config.worker).sandbox).collect()
    };
    let asked = config.map(commands).unwrap_or_default();
    let needs = |name: &str| {
        asked.iter().any(|sandbox| {
            let scope = sandbox.scope_memory_bytes.is_some() || sandbox.scope_processes.is_some();
            sandbox.wall.name() == name || name == "systemd-run" && scope
        })
    };
    let finding = |ability: Ability| {
        let words = format!("{}: {}", ability.name, ability.words);
        match (ability.usable, needs(ability.name)) {
            (true, _) => Finding::ok(NAME, words),
            (false, false) => Finding::ok(NAME, words + "; no task asks for it"),
            (false, true) => Finding::fail(NAME, words, "docs/security.md says what each mode needs"),
        }
    };
    let mut findings: Vec<_> = minium_worker::abilities().await.into_iter().map(finding).collect();
    if asked.iter().any(|sandbox| sandbox.processes.is_some()) && rustix::process::getuid().is_root() {
        let hint = "run the node as another user, or use sandbox.scope_processes";
        findings.push(Finding::fail(NAME, "processes: a limit does not hold root", hint));
    }
    findings
}

pub(super) fn open_files(config: Option<&Config>) -> Finding {
    const NAME: &str = "files";
    let limit = getrlimit(Resource::Nofile).maximum;
    let Some(limit) = limit else { return Finding::ok(NAME, "without a limit") };
    let wanted =
        config.map_or(0, |c| u64::from(c.server.limits.connections) + u64::from(c.server.limits.sessions));
    if limit < wanted + FILES_OWN {
        let words = format!("{limit}, and server.limits admit {wanted} connections and sessions");
        let hint =
            format!("raise it (ulimit -n {}, LimitNOFILE=), or lower server.limits", wanted + FILES_OWN);
        return Finding::warn(NAME, words, hint);
    }
    Finding::ok(NAME, limit.to_string())
}

/// Connections that come all at once (a node restarts, and everybody comes back) wait in the kernel.
pub(super) fn waiting_connections() -> Finding {
    const NAME: &str = "somaxconn";
    const PLACE: &str = "/proc/sys/net/core/somaxconn";
    let limit = std::fs::read_to_string(PLACE).ok().and_then(|text| text.trim().parse::<u64>().ok());
    match limit {
        None => Finding::ok(NAME, format!("{PLACE} cannot be read")),
        Some(limit) if limit < SOMAXCONN_MIN => {
            let words = format!("{limit}: when many clients come back at once some of them are turned away");
            Finding::warn(NAME, words, "sysctl net.core.somaxconn=4096")
        }
        Some(limit) => Finding::ok(NAME, limit.to_string()),
    }
}

/// Where workers keep results until they are handed in.
pub(super) fn spool() -> Finding {
    const NAME: &str = "spool";
    let Some(dir) = spools::state_dir() else {
        let words =
            "neither XDG_STATE_HOME nor HOME is set: results wait in memory when the database is away";
        return Finding::warn(NAME, words, "set one of them, or give workers --spool DIR");
    };
    let existing = nearest(&dir);
    if access(&existing, Access::WRITE_OK).is_err() {
        let words = format!("{} is not writable: results wait in memory", existing.display());
        return Finding::warn(NAME, words, "let this user write there, or give workers --spool DIR");
    }
    room(NAME, &dir).unwrap_or_else(|| Finding::ok(NAME, dir.display().to_string()))
}

/// Is the disk on which `path` lies, or will lie, nearly full?
pub(super) fn room(name: &'static str, path: &Path) -> Option<Finding> {
    let disk = statvfs(nearest(path)).ok()?;
    let (free, all) = (disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize);
    (free < ROOM_MIN_BYTES && all > 0).then(|| {
        let words = format!("{} has {} MiB left on its disk", path.display(), free >> 20);
        Finding::warn(name, words, "make room: what cannot be kept is refused")
    })
}

/// The path itself, or what there is of the way to it.
fn nearest(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    absolute.ancestors().find(|place| place.exists()).unwrap_or(Path::new("/")).to_owned()
}
