//! One process group, from start to end: fed, read within bounds, and gone when this returns or is dropped.
//!
//! The command leads a group of its own, so that a signal reaches its children and theirs too. Whatever still lives
//! in the group when the command has ended is killed: a job's processes end with the job. Only a process that leaves
//! the group on purpose (`setsid`) escapes.

use super::lines::{Splitter, Tail};
use crate::signals::Signals;
use minium_queue::JobSignal;
use rustix::process::{Pid, Signal, kill_process_group};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// Bounds of one run.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    /// More on stdout ends the command.
    pub(super) stdout_bytes_max: usize,
    /// So much of the end of stderr is kept.
    pub(super) tail_bytes_max: usize,
    /// A longer line of stderr is cut.
    pub(super) line_bytes_max: usize,
    /// From SIGTERM to SIGKILL.
    pub(super) stop_grace: Duration,
    /// After the command's own end its pipes may be held open, by children that flush, for so long.
    pub(super) pipe_grace: Duration,
}

/// How it went.
#[derive(Debug)]
pub(super) struct Ended {
    /// Exit code or signal.
    pub(super) status: ExitStatus,
    /// All of stdout, unless there was too much.
    pub(super) stdout: Vec<u8>,
    /// stdout was more than is allowed, and the command was killed for it.
    pub(super) too_much: bool,
    /// The end of stderr.
    pub(super) tail: String,
}

/// Kills the whole group when dropped, whatever happened before.
pub(super) struct Group(Option<Pid>);

impl Group {
    /// That which a child leads that was just started for it.
    pub(super) fn of(child: &Child) -> Group {
        Group(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw))
    }

    pub(super) fn signal(&self, signal: Signal) {
        if let Some(pid) = self.0 {
            // no such group: everyone has ended already
            _ = kill_process_group(pid, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

struct Running<'a> {
    child: Child,
    group: Group,
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    limits: &'a Limits,
    collected: Vec<u8>,
    too_much: bool,
    splitter: Splitter,
    tail: Tail,
    status: Option<ExitStatus>,
    /// When to become stricter: kill, then give up on pipes.
    deadline: Option<Instant>,
    killed: bool,
}

/// Runs the command to its end. `line` gets each line of stderr and says whether it belongs to the tail.
pub(super) async fn run(
    mut command: Command,
    input: &[u8],
    (stop, signals): (&CancellationToken, &Signals),
    limits: &Limits,
    line: impl FnMut(&str) -> bool,
) -> std::io::Result<Ended> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.process_group(0).kill_on_drop(true).spawn()?;
    let running = Running {
        group: Group::of(&child),
        stdin: child.stdin.take(),
        stdout: child.stdout.take(),
        stderr: child.stderr.take(),
        child,
        limits,
        collected: Vec::new(),
        too_much: false,
        splitter: Splitter::new(limits.line_bytes_max),
        tail: Tail::new(limits.tail_bytes_max),
        status: None,
        deadline: None,
        killed: false,
    };
    running.lead(input, (stop, signals), line).await
}

impl Running<'_> {
    async fn lead(
        mut self,
        mut input: &[u8],
        (stop, signals): (&CancellationToken, &Signals),
        mut line: impl FnMut(&str) -> bool,
    ) -> std::io::Result<Ended> {
        let (mut out, mut err) = (vec![0; 16 * 1024], vec![0; 8 * 1024]);
        let mut stopping = false;
        loop {
            if let (Some(status), None, None) = (self.status, &self.stdout, &self.stderr) {
                self.splitter.finish(|text| keep(&mut self.tail, text, &mut line));
                return Ok(Ended {
                    status,
                    stdout: self.collected,
                    too_much: self.too_much,
                    tail: self.tail.into_text(),
                });
            }
            tokio::select! {
                // a program may end without reading its input: that is its right
                written = write(&mut self.stdin, input), if self.stdin.is_some() => match written {
                    Ok(n) if n < input.len() => input = &input[n..],
                    Ok(_) | Err(_) => self.stdin = None,
                },
                read = read(&mut self.stdout, &mut out), if self.stdout.is_some() => match read {
                    Ok(n) if n > 0 => self.collect(&out[..n]),
                    Ok(_) | Err(_) => self.stdout = None,
                },
                read = read(&mut self.stderr, &mut err), if self.stderr.is_some() => match read {
                    Ok(n) if n > 0 => {
                        self.splitter.feed(&err[..n], |text| keep(&mut self.tail, text, &mut line));
                    }
                    Ok(_) | Err(_) => self.stderr = None,
                },
                status = self.child.wait(), if self.status.is_none() => self.exited(status?),
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    self.group.signal(Signal::TERM);
                    self.deadline = Some(Instant::now() + self.limits.stop_grace);
                }
                signal = signals.next(), if self.status.is_none() => self.group.signal(number(signal)),
                () = until(self.deadline), if self.deadline.is_some() => self.stricter(),
            }
        }
    }

    fn collect(&mut self, bytes: &[u8]) {
        if self.collected.len() + bytes.len() > self.limits.stdout_bytes_max {
            self.too_much = true;
            self.collected = Vec::new();
            self.stdout = None;
            self.kill();
        } else {
            self.collected.extend_from_slice(bytes);
        }
    }

    fn exited(&mut self, status: ExitStatus) {
        self.status = Some(status);
        self.stdin = None;
        let patience = Instant::now() + self.limits.pipe_grace;
        // an earlier deadline, of a stop, stays
        self.deadline = Some(self.deadline.map_or(patience, |d| d.min(patience)));
    }

    /// A deadline has passed: kill the group; if that does not close the pipes either, whoever holds them has left
    /// the group and is not waited for.
    fn stricter(&mut self) {
        self.deadline = None;
        if !self.killed {
            self.kill();
        } else if self.status.is_some() {
            (self.stdout, self.stderr) = (None, None);
        }
    }

    fn kill(&mut self) {
        self.group.signal(Signal::KILL);
        self.killed = true;
        self.deadline = Some(Instant::now() + self.limits.pipe_grace);
    }
}

pub(super) fn number(signal: JobSignal) -> Signal {
    match signal {
        JobSignal::Int => Signal::INT,
        JobSignal::Term => Signal::TERM,
        JobSignal::Kill => Signal::KILL,
        JobSignal::Usr1 => Signal::USR1,
        JobSignal::Usr2 => Signal::USR2,
        JobSignal::Hup => Signal::HUP,
    }
}

pub(super) fn keep(tail: &mut Tail, text: &str, line: &mut impl FnMut(&str) -> bool) {
    if line(text) {
        tail.push(text);
    }
}

async fn write(to: &mut Option<ChildStdin>, bytes: &[u8]) -> std::io::Result<usize> {
    match to {
        Some(to) => to.write(bytes).await,
        None => std::future::pending().await,
    }
}

pub(super) async fn read<R: AsyncReadExt + Unpin>(
    from: &mut Option<R>,
    into: &mut [u8],
) -> std::io::Result<usize> {
    match from {
        Some(from) => from.read(into).await,
        None => std::future::pending().await,
    }
}

pub(super) async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
