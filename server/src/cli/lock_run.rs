//! `minium lock run`: a command that runs while a lock is held, and not without it.
//!
//! The lock is extended while the command runs. Should it be lost, the command is ended; should this process be killed,
//! the command dies with it and the lock ends by itself.

use super::lock::Wanted;
use super::output::Output;
use super::remote::Remote;
use crate::exit::{Exit, Passed, fault};
use async_trait::async_trait;
use clap::Args;
use jiff::Timestamp;
use minium_client::{Client, ClientError};
use minium_protocol::{ErrorCode, LockRequest, LockToken};
use minium_queue::{LockFilter, LockHeld, LockPage, Locks, QueueError, locks};
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsString;
use std::io::IsTerminal;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

/// A command that was told to end because its lock is gone has so long.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
#[command(
    after_help = "The exit code is the command's; 7 when the lock cannot be had, 1 when it was lost.\n\nExamples:\n  \
    minium lock run nightly -- ./backup.sh /srv\n  minium lock run slots --limit 3 --wait 1h -- ./render.sh 7"
)]
pub(super) struct Run {
    #[command(flatten)]
    wanted: Wanted,
    /// The command and its arguments
    #[arg(required = true, last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
    #[command(flatten)]
    remote: Remote,
}

impl Run {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let output = Output::new(false);
        let client = self.remote.client()?;
        if self.wanted.span.is_zero() {
            return Err(fault(Exit::Usage, "--for must be more than 0 while a command runs"));
        }
        let (hold, asked) = self.wanted.take(&client, output).await?;
        let Some(token) = hold.token else {
            return Err(fault(Exit::Failed, "the server took the lock and gave no token for it"));
        };
        let store = Arc::new(RemoteLocks(client));
        let guard = locks::keep(store, &self.wanted.name, token, self.wanted.span, asked);
        let ended = self.under(&guard, output).await;
        let held = guard.release().await;
        let status = ended?;
        if !held {
            let name = &self.wanted.name;
            return Err(fault(
                Exit::Failed,
                format!("the lock {name:?} was lost before the command had ended"),
            ));
        }
        match status.code().or(status.signal().map(|n| 128 + n)) {
            Some(0) => Ok(()),
            other => Err(Passed(other.and_then(|n| u8::try_from(n).ok()).unwrap_or(1)).into()),
        }
    }

    /// Runs the command to its end.
    async fn under(&self, guard: &locks::LockGuard, output: Output) -> anyhow::Result<ExitStatus> {
        let launcher = super::worker::launcher();
        let (program, arguments) = launcher.split_first().expect("a launcher is a program");
        let mut command = Command::new(program);
        command.args(arguments).arg("--").args(&self.command).kill_on_drop(true);
        // before the command is there: a signal that comes now must not leave it alone
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let mut child = command.spawn().map_err(|e| fault(Exit::Failed, format!("cannot run it: {e}")))?;
        // from a terminal, the command gets what is typed by itself
        let is_typed = std::io::stdin().is_terminal();
        loop {
            tokio::select! {
                ended = child.wait() => return Ok(ended?),
                () = guard.lost().cancelled() => {
                    output.notice("minium: the lock was lost; ending the command");
                    return end(&mut child).await;
                }
                _ = interrupt.recv() => if !is_typed { tell(&child, Signal::INT) },
                _ = terminate.recv() => tell(&child, Signal::TERM),
            }
        }
    }
}

/// Ends the command, by force if it must be.
async fn end(child: &mut Child) -> anyhow::Result<ExitStatus> {
    tell(child, Signal::TERM);
    tokio::select! {
        ended = child.wait() => return Ok(ended?),
        () = sleep(PATIENCE) => {}
    }
    child.start_kill()?;
    Ok(child.wait().await?)
}

fn tell(child: &Child, signal: Signal) {
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // it may have ended just now
        kill_process(pid, signal).ok();
    }
}

/// A node's locks, as the guard keeps them.
struct RemoteLocks(Client);

#[async_trait]
impl Locks for RemoteLocks {
    async fn lock(
        &self,
        name: &str,
        owner: &str,
        span: Duration,
        limit: u32,
    ) -> Result<Option<LockHeld>, QueueError> {
        let hold = self.0.lock(name, &LockRequest { span, limit, owner: owner.into() }).await;
        let held = hold.map_err(|e| unavailable("take a lock", e))?;
        Ok(held.and_then(|hold| Some(LockHeld { token: hold.token?, until: hold.until? })))
    }

    async fn extend_lock(
        &self,
        name: &str,
        token: LockToken,
        span: Duration,
    ) -> Result<Option<Timestamp>, QueueError> {
        match self.0.extend_lock(name, token, span).await {
            Ok(hold) => Ok(hold.until),
            Err(error) if error.code() == Some(ErrorCode::Conflict) => Ok(None),
            Err(error) => Err(unavailable("extend a lock", error)),
        }
    }

    async fn unlock(&self, name: &str, token: LockToken) -> Result<bool, QueueError> {
        match self.0.unlock(name, Some(token)).await {
            Ok(released) => Ok(released > 0),
            Err(error) if error.code() == Some(ErrorCode::Conflict) => Ok(false),
            Err(error) => Err(unavailable("let a lock go", error)),
        }
    }

    async fn unlock_any(&self, name: &str) -> Result<u64, QueueError> {
        self.0.unlock(name, None).await.map_err(|e| unavailable("end a lock", e))
    }

    async fn locks(&self, filter: &LockFilter) -> Result<LockPage, QueueError> {
        let page = self.0.locks(&filter.names, filter.after, Some(filter.limit)).await;
        let page = page.map_err(|e| unavailable("list locks", e))?;
        Ok(LockPage { locks: page.locks, next: page.next })
    }
}

fn unavailable(attempted: &'static str, error: ClientError) -> QueueError {
    QueueError::Unavailable { attempted, source: error.into() }
}
