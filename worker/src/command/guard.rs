//! Makes a command die with its worker, even if the worker is killed: without `unsafe`, by way of a launcher.
//!
//! The system can send a signal to a process when its parent dies, but only the process itself can ask for it,
//! between fork and exec, which safe Rust does not reach. So the worker starts a launcher (its own binary, see
//! [`WorkerOptions::launcher`](crate::WorkerOptions::launcher)) which asks for the signal and then *becomes* the
//! command: the request outlives exec, unless the program is set-user-id. Only the command itself gets the signal;
//! its children notice by their pipes, or run on until they end: the lease keeps their outcome from counting.

use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Turns this process into `words`, to be killed when its parent dies. Returns only if that fails.
///
/// `parent` is the process that is to be outlived by nobody, if the caller knows it: when it is gone already, this
/// process has been handed to another parent and would wait for that one's death.
pub fn become_command(parent: Option<u32>, words: &[OsString]) -> io::Error {
    let Some((program, args)) = words.split_first() else {
        return io::Error::new(io::ErrorKind::InvalidInput, "no command to become");
    };
    if let Err(e) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return e.into();
    }
    let now = getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
    if parent.is_some() && now != parent {
        return io::Error::other("the worker is gone");
    }
    Command::new(program).args(args).exec()
}
