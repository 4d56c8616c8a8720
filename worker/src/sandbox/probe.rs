//! Can the sandbox be had that is asked for? Found out by launching something in it, before any job is claimed: what a kernel,
//! a container or a systemd refuses is told when the worker starts, and not job by job.

use super::{LAUNCH_FAILED, Sandbox, wall, words_before};
use crate::error::WorkerError;
use crate::run_dir::RunDir;
use minium_protocol::ErrorCode;
use std::process::{Output, Stdio};
use std::time::Duration;
use tokio::process::Command;
use tokio::time::timeout;

/// Whatever takes longer does not work.
const PATIENCE: Duration = Duration::from_secs(20);
/// So much of what it says is told.
const WORDS_MAX: usize = 1_000;

/// A launch that shows whether a sandbox can be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Probe {
    pub(crate) launcher: Vec<String>,
    pub(crate) sandbox: Sandbox,
}

impl Probe {
    /// Launches a shell that says one word.
    pub(crate) async fn run(&self) -> Result<(), WorkerError> {
        let refuse = |why: String| Err(WorkerError::Sandbox(why));
        if self.launcher.is_empty() {
            return refuse(
                "this worker has no launcher, a program that limits itself and becomes the command".into(),
            );
        }
        let dir = match RunDir::make(self.sandbox.work_dir.as_deref()).await {
            Ok(dir) => dir,
            Err(why) => return refuse(why),
        };
        let path = dir.as_ref().map(|dir| dir.path().to_owned());
        let words = words_before(&self.launcher, Some(&self.sandbox), path);
        let (program, args) = words.split_first().expect("there is a launcher");
        let mut command = Command::new(program);
        command.args(args).args(["/bin/sh", "-c", "echo sandboxed"]);
        let answer = timeout(PATIENCE, command.stdin(Stdio::null()).kill_on_drop(true).output()).await;
        if let Some(dir) = dir {
            dir.remove().await;
        }
        match answer {
            Ok(Ok(output)) if output.status.success() && output.stdout == b"sandboxed\n" => Ok(()),
            Ok(Ok(output)) => refuse(words_of(&output)),
            Ok(Err(error)) => refuse(format!("the launcher {program:?} cannot be run: {error}")),
            Err(_) => refuse("a launch in it does not end".into()),
        }
    }
}

/// What a launch that failed has said.
fn words_of(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let text = text.trim();
    let code = format!("{}: ", ErrorCode::SandboxUnavailable);
    let said: String = text.strip_prefix(&code).unwrap_or(text).chars().take(WORDS_MAX).collect();
    match output.status.code() {
        Some(code) if code == i32::from(LAUNCH_FAILED) => said,
        _ => format!("a launch in it ended with {}: {said}", output.status),
    }
}

/// What this machine has for sandboxes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ability {
    /// What it is about.
    pub name: &'static str,
    /// How it is there.
    pub words: String,
    /// It can be asked for.
    pub usable: bool,
}

/// What this machine has: Landlock by asking the kernel, the programs by running them.
pub async fn abilities() -> Vec<Ability> {
    let landlock = match wall::landlock_version() {
        0 => Ability { name: "landlock", words: "not in this kernel, or switched off".into(), usable: false },
        n if n < 3 => Ability {
            name: "landlock",
            words: format!("version {n}: 3 is needed for files (Linux 6.2), 4 for ports, 6 for alone"),
            usable: false,
        },
        n => {
            let newer = if n >= 6 { " or newer" } else { ": ports need 4 (Linux 6.7), alone needs 6 (6.12)" };
            Ability { name: "landlock", words: format!("version {n}{newer}"), usable: true }
        }
    };
    let namespaces = ["--unshare-pid", "--unshare-ipc", "--unshare-net", "--ro-bind", "/", "/", "/bin/true"];
    let is_root = rustix::process::getuid().is_root();
    let scope =
        Sandbox { scope_processes: Some(100), ..Sandbox::default() }.scope(is_root).unwrap_or_default();
    let scope: Vec<&str> = scope.iter().skip(1).map(String::as_str).chain(["/bin/true"]).collect();
    vec![landlock, program("bwrap", &namespaces).await, program("systemd-run", &scope).await]
}

/// Does a program do what is asked of it?
async fn program(name: &'static str, args: &[&str]) -> Ability {
    let mut command = Command::new(name);
    let output = timeout(PATIENCE, command.args(args).stdin(Stdio::null()).kill_on_drop(true).output()).await;
    let (words, usable) = match output {
        Ok(Ok(output)) if output.status.success() => ("works".into(), true),
        Ok(Ok(output)) => {
            let said = String::from_utf8_lossy(&output.stderr);
            (format!("does not work here: {}", said.lines().next().unwrap_or_default()), false)
        }
        Ok(Err(error)) => (format!("cannot be run: {error}"), false),
        Err(_) => ("does not answer".into(), false),
    };
    Ability { name, words, usable }
}
