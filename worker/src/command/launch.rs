//! How a command's process is started, whatever is said to it afterwards.

use super::CommandTask;
use crate::options::WorkerOptions;
use crate::run_dir::RunDir;
use crate::sandbox::{Probe, Sandbox, words_before};
use crate::task::Failure;
use minium_protocol::ErrorCode;
use std::ffi::OsString;
use std::io;
use tokio::process::Command;

/// What is started, and in what.
pub(super) struct Start {
    launcher: Vec<String>,
    words: Vec<String>,
    sandbox: Option<Sandbox>,
    /// Variables that it does not inherit.
    hidden: Vec<OsString>,
}

/// Of this program's variables those that a command sees: where the node is, and whom to trust that it is that. Without them
/// what it enqueues would go to whichever node listens where one usually does.
const PASSED_ON: [&str; 2] = ["MINIUM_URL", "MINIUM_CA"];

/// Meant by the service manager for this process alone: a command that heeded them would speak in the worker's name.
const OF_THE_SERVICE: [&str; 6] =
    ["NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];

/// What tells this program its settings, with tokens and passwords among them: by name, and nothing is read.
fn own_variables() -> Vec<OsString> {
    let names = std::env::vars_os().map(|(name, _)| name);
    let own = |name: &OsString| {
        name.as_encoded_bytes().starts_with(b"MINIUM_") || OF_THE_SERVICE.iter().any(|of_it| name == of_it)
    };
    names.filter(|name| own(name) && !PASSED_ON.iter().any(|passed| name == passed)).collect()
}

impl Start {
    pub(super) fn new(task: &CommandTask, options: &WorkerOptions) -> Start {
        Start {
            launcher: options.launcher.clone(),
            words: task.words(),
            sandbox: task.sandbox.clone().or_else(|| options.sandbox.clone()),
            hidden: own_variables(),
        }
    }

    /// The command, and the directory that it has to itself.
    pub(super) async fn command(&self) -> Result<(Command, Option<RunDir>), Failure> {
        let place = self.sandbox.as_ref().and_then(|sandbox| sandbox.work_dir.as_deref());
        let unavailable = |why| Failure::retryable(format!("{}: {why}", ErrorCode::SandboxUnavailable));
        let dir = RunDir::make(place).await.map_err(unavailable)?;
        let path = dir.as_ref().map(|dir| dir.path().to_owned());
        let mut words = words_before(&self.launcher, self.sandbox.as_ref(), path);
        words.extend(self.words.iter().cloned());
        let (program, arguments) = words.split_first().expect("checked before the worker starts");
        let mut command = Command::new(program);
        command.args(arguments);
        for name in &self.hidden {
            command.env_remove(name);
        }
        Ok((command, dir))
    }

    /// It could not be started.
    pub(super) fn cannot(&self, error: &io::Error) -> Failure {
        let program = self.launcher.first().or(self.words.first()).map_or("", String::as_str);
        Failure::retryable(format!("cannot run {program:?}: {error}"))
    }

    /// What shows whether it can be had.
    pub(super) fn probe(&self) -> Option<Probe> {
        let sandbox = self.sandbox.clone()?;
        Some(Probe { launcher: self.launcher.clone(), sandbox })
    }
}
