//! What the launcher does in the end: it limits itself, and becomes the command.
//!
//! Also without a sandbox it makes the command die with its worker, even if the worker is killed: the system can send a
//! signal to a process when its parent dies, but only the process itself can ask for it. The request outlives exec, unless the
//! program is set-user-id. Only the command itself gets the signal; its children notice by their pipes, or run on until they
//! end: the lease keeps their outcome from counting.

use super::{Launch, Sandbox, Wall, wall};
use minium_protocol::ErrorCode;
use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, Signal, getppid, getrlimit, setrlimit, umask};
use rustix::process::{getuid, set_parent_process_death_signal};
use rustix::thread::set_no_new_privs;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// What a launcher exits with when there is no command to run in the sandbox that was asked for.
pub const LAUNCH_FAILED: u8 = 125;

/// A process could not become a command.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BecomeError {
    /// The sandbox that was asked for cannot be had.
    #[error("{code}: {0}", code = ErrorCode::SandboxUnavailable)]
    Sandbox(String),
    /// The command itself cannot be run.
    #[error("cannot run {program:?}: {source}{hint}")]
    Command {
        /// The program.
        program: String,
        /// What to look at.
        hint: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// Turns this process into `words`, to be killed when its parent dies and held back as `launch` says. Returns only if
/// that fails.
///
/// `parent` is the process that is to be outlived by nobody, if the caller knows it: when it is gone already, this
/// process has been handed to another parent and would wait for that one's death.
pub fn become_command(parent: Option<u32>, launch: Option<&Launch>, words: &[OsString]) -> BecomeError {
    let Some((program, args)) = words.split_first() else {
        return refused(words, io::Error::new(io::ErrorKind::InvalidInput, "no command to become"), "");
    };
    if let Err(e) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return refused(words, e.into(), "");
    }
    let now = getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
    if parent.is_some() && now != parent {
        return refused(words, io::Error::other("the worker is gone"), "");
    }
    let Some(launch) = launch else {
        return refused(words, Command::new(program).args(args).exec(), "");
    };
    let mut command = match prepared(launch, words) {
        Ok(command) => command,
        Err(why) => return BecomeError::Sandbox(why),
    };
    let error = command.exec();
    match launch.sandbox.wall {
        Wall::Bwrap => BecomeError::Sandbox(format!("cannot run bwrap: {error}")),
        Wall::Landlock if error.kind() == io::ErrorKind::PermissionDenied => {
            refused(words, error, " (does it lie below a path that the sandbox may read?)")
        }
        Wall::Landlock | Wall::None => refused(words, error, ""),
    }
}

fn refused(words: &[OsString], source: io::Error, hint: &'static str) -> BecomeError {
    let program = words.first().map_or_else(String::new, |word| word.to_string_lossy().into_owned());
    BecomeError::Command { program, hint, source }
}

/// Limits this process, and gives the command that is to be run in its place. What needs memory and files comes before
/// their limits.
fn prepared(launch: &Launch, words: &[OsString]) -> Result<Command, String> {
    let sandbox = &launch.sandbox;
    sandbox.check().map_err(|(field, why)| format!("{field} {why}"))?;
    let words = match sandbox.wall {
        Wall::Bwrap => [wall::bwrap(launch).as_slice(), words].concat(),
        Wall::Landlock | Wall::None => words.to_vec(),
    };
    let (program, args) = words.split_first().expect("there is a command");
    let mut command = Command::new(program);
    command.args(args).env_clear().envs(std::env::vars_os().filter(|(name, _)| sandbox.shows(name)));
    if let Some(dir) = &launch.dir {
        std::env::set_current_dir(dir).map_err(|e| format!("cannot work in {}: {e}", dir.display()))?;
        command.env("TMPDIR", dir);
    }
    umask(Mode::from_raw_mode(sandbox.umask));
    if !sandbox.new_privileges {
        set_no_new_privs(true).map_err(|e| format!("cannot do without new privileges: {e}"))?;
    }
    if sandbox.wall == Wall::Landlock {
        wall::landlock(launch)?;
    }
    limit(sandbox)?;
    Ok(command)
}

fn limit(sandbox: &Sandbox) -> Result<(), String> {
    if sandbox.processes.is_some() && getuid().is_root() {
        let why = "a limit of processes does not hold root: run the worker as another user, or use a limit of a scope";
        return Err(why.into());
    }
    let limits = [
        ("core dumps", Resource::Core, (!sandbox.core_dumps).then_some(0)),
        ("processor time", Resource::Cpu, sandbox.cpu_seconds),
        ("file size", Resource::Fsize, sandbox.file_bytes),
        ("processes", Resource::Nproc, sandbox.processes),
        ("open files", Resource::Nofile, sandbox.open_files),
        ("memory", Resource::As, sandbox.memory_bytes),
    ];
    for (what, resource, wanted) in limits {
        let Some(wanted) = wanted else { continue };
        // one that is lower already stays
        let have = getrlimit(resource).maximum.unwrap_or(u64::MAX);
        let most = wanted.min(have);
        // at the lower one of the two the system still says why: SIGXCPU
        let kill = if resource == Resource::Cpu { most.saturating_add(1).min(have) } else { most };
        let limit = Rlimit { current: Some(most), maximum: Some(kill) };
        setrlimit(resource, limit).map_err(|e| format!("cannot limit {what} to {wanted}: {e}"))?;
    }
    Ok(())
}
