//! Tasks that are programs, in any language: one process for each job, or long-lived ones ([`lasting`]).
//!
//! Arguments come as JSON on stdin, the result is what the program writes to stdout (JSON if it parses, else the text
//! without its last line end; nothing is `null`), lines `::progress 40 text`, `::note key=value`, `::step name` and
//! `::log level text` on stderr become progress, notes and lines of the job's log, as other lines do, an exit code other
//! than 0 is a failure with the end of stderr as its error. `MINIUM_JOB_ID`, `MINIUM_TASK`, `MINIUM_ATTEMPT`,
//! `MINIUM_PARENTS` (ids, parted by commas, if it has any) and, if known, `TRACEPARENT` and `TRACESTATE` stand in its environment, and of the
//! worker's own whatever does not begin with `MINIUM_`, and `MINIUM_URL`: tokens and database URLs are no command's business. No shell is
//! involved unless asked for.
//!
//! Time-out, cancellation and a lost lease end the whole process group: SIGTERM, and SIGKILL after a grace.

mod lasting;
mod launch;
mod lines;
mod process;
mod words;

pub use lasting::Lasting;
pub(crate) use lasting::LastingRunner;

use crate::context::JobContext;
use crate::error::WorkerError;
use crate::options::{Output, WorkerOptions};
use crate::sandbox::{LAUNCH_FAILED, Probe, Sandbox};
use crate::task::{Failure, Task};
use async_trait::async_trait;
use launch::Start;
use lines::Line;
use minium_protocol::{ErrorCode, LOG_TEXT_BYTES_MAX, LogLevel};
use process::{Ended, Limits};
use serde_json::value::RawValue;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

/// A log line that is longer than it may be is seen to be cut.
const LINE_BYTES_MAX: usize = LOG_TEXT_BYTES_MAX + 1;
/// An environment is small: of a job with more parents it does not have them.
const PARENTS_MAX: usize = 1_000;
const PIPE_GRACE: Duration = Duration::from_secs(1);
/// Above the grace between SIGTERM and SIGKILL, so that the group is seen to end before the run is given up.
const STOP_MARGIN: Duration = Duration::from_secs(5);

/// A task that runs a command.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommandTask {
    /// The task.
    pub name: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// A run without a time-out of its own ends after this.
    pub timeout: Option<Duration>,
    /// The words, joined by blanks, are a line for `/bin/sh`.
    pub shell: bool,
    /// Its processes are long-lived and take one job after the other, a line each.
    pub lasting: Option<Lasting>,
    /// What holds it back, in place of what holds all commands of the worker back
    /// ([`WorkerOptions::sandbox`]).
    pub sandbox: Option<Sandbox>,
}

impl CommandTask {
    /// From `NAME=COMMAND`. Without a shell the command is split into words here, by quotes and backslashes alone.
    ///
    /// # Errors
    /// [`WorkerError::Command`], if there is no `=`, no command, or a quotation without an end.
    pub fn parse(text: &str, shell: bool) -> Result<CommandTask, WorkerError> {
        let refuse = |reason: String| WorkerError::Command { command: text.into(), reason };
        let (name, line) = text.split_once('=').ok_or_else(|| refuse("it is not NAME=COMMAND".into()))?;
        let command = words::split(line).map_err(refuse)?;
        let command = if shell { vec![line.trim().into()] } else { command };
        Ok(CommandTask { name: name.trim().into(), command, shell, ..CommandTask::default() })
    }

    pub(crate) fn check(&self) -> Result<(), WorkerError> {
        let reason = match self.command.first() {
            None => "it is empty",
            Some(program) if program.trim().is_empty() => "its first word is empty",
            Some(_) if self.command.iter().any(|w| w.contains('\0')) => "it has a NUL character",
            Some(_) => return self.sandbox.iter().try_for_each(check_sandbox),
        };
        Err(WorkerError::Command { command: self.command.join(" "), reason: reason.into() })
    }

    fn words(&self) -> Vec<String> {
        if self.shell {
            vec!["/bin/sh".into(), "-c".into(), self.command.join(" ")]
        } else {
            self.command.clone()
        }
    }
}

/// Refuses a sandbox that contradicts itself.
pub(crate) fn check_sandbox(sandbox: &Sandbox) -> Result<(), WorkerError> {
    sandbox.check().map_err(|(field, why)| WorkerError::SandboxField { field, why })
}

/// A [`CommandTask`] as a worker runs it: a process for each job.
pub(crate) struct CommandRunner {
    start: Start,
    timeout: Option<Duration>,
    limits: Limits,
    stderr: Stderr,
}

/// The bounds of every command.
fn limits(options: &WorkerOptions) -> Limits {
    Limits {
        stdout_bytes_max: options.result_bytes_max,
        // the words before the tail need room too, or the end of it would be cut
        tail_bytes_max: options.error_bytes_max.saturating_sub(64),
        line_bytes_max: LINE_BYTES_MAX,
        stop_grace: options.stop_grace,
        pipe_grace: PIPE_GRACE,
    }
}

impl CommandRunner {
    pub(crate) fn new(task: &CommandTask, options: &WorkerOptions) -> CommandRunner {
        CommandRunner {
            start: Start::new(task, options),
            timeout: task.timeout,
            limits: limits(options),
            stderr: Stderr::new(options),
        }
    }
}

/// What becomes of the lines of a command's stderr, besides the tail.
struct Stderr {
    output: Option<Output>,
    /// Ordinary lines stand in the job's log.
    log: bool,
}

impl Stderr {
    fn new(options: &WorkerOptions) -> Stderr {
        Stderr { output: options.output.clone(), log: options.log_stderr }
    }

    /// A line that belongs to no job.
    fn pass_on(&self, text: &str) {
        self.output.iter().for_each(|output| output.line(text));
    }

    /// Takes a line of a job, and says whether it belongs to the tail.
    fn heed(&self, context: &JobContext, text: &str) -> bool {
        self.pass_on(text);
        match Line::read(text) {
            Line::Progress(progress) => context.report(progress),
            Line::Note(key, value) => context.note(key, value),
            Line::Log(level, text) => context.log(level, text),
            Line::Other => {
                let text = text.trim_end();
                if self.log && !text.is_empty() {
                    context.log(LogLevel::Info, text);
                }
                return true;
            }
        }
        false
    }
}

/// The variables that tell a run of its job, or are not there.
pub(crate) const SET_FOR_EACH_RUN: [&str; 6] =
    ["MINIUM_JOB_ID", "MINIUM_TASK", "MINIUM_ATTEMPT", "MINIUM_PARENTS", "TRACEPARENT", "TRACESTATE"];

/// What each of [`SET_FOR_EACH_RUN`] says of this job.
fn values_for(context: &JobContext) -> [Option<String>; SET_FOR_EACH_RUN.len()] {
    let parents = context.parents();
    let parents = (1..=PARENTS_MAX)
        .contains(&parents.len())
        .then(|| parents.iter().map(i64::to_string).collect::<Vec<_>>().join(","));
    [
        Some(context.id().to_string()),
        Some(context.task().to_owned()),
        Some(context.attempt().to_string()),
        parents,
        context.trace().map(str::to_owned),
        context.tracestate().map(str::to_owned),
    ]
}

#[async_trait]
impl Task for CommandRunner {
    async fn run(&self, context: JobContext, args: Box<RawValue>) -> Result<Box<RawValue>, Failure> {
        let (mut command, dir) = self.start.command().await?;
        for (name, value) in SET_FOR_EACH_RUN.iter().zip(values_for(&context)) {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        // a line end, for programs that read lines
        let input = format!("{}\n", args.get());
        let line = |text: &str| self.stderr.heed(&context, text);
        context.signals().take_all();
        let words = (&context.cancelled(), context.signals());
        let ended = process::run(command, input.as_bytes(), words, &self.limits, line).await;
        if let Some(dir) = dir {
            dir.remove().await;
        }
        self.judge(&ended.map_err(|e| self.start.cannot(&e))?)
    }

    fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    fn stop_grace(&self, usual: Duration) -> Duration {
        usual + STOP_MARGIN
    }

    fn probe(&self) -> Option<Probe> {
        self.start.probe()
    }
}

impl CommandRunner {
    fn judge(&self, ended: &Ended) -> Result<Box<RawValue>, Failure> {
        if ended.too_much {
            let max = self.limits.stdout_bytes_max;
            return Err(Failure::retryable(format!("stdout has more than {max} bytes")));
        }
        if !ended.status.success() {
            return Err(Failure::retryable(how(ended.status, &ended.tail)));
        }
        Ok(result(&ended.stdout))
    }
}

/// How a process ended, with its last words. What a launcher says for want of a sandbox stands alone.
fn how(status: ExitStatus, tail: &str) -> String {
    let launch = status.code() == Some(i32::from(LAUNCH_FAILED));
    match describe(status) {
        _ if launch && tail.starts_with(ErrorCode::SandboxUnavailable.as_str()) => tail.into(),
        how if tail.is_empty() => how,
        how => format!("{how}: {tail}"),
    }
}

/// JSON if it is JSON that others can read too, else the text.
fn result(stdout: &[u8]) -> Box<RawValue> {
    let text = String::from_utf8_lossy(stdout);
    if text.trim().is_empty() {
        return RawValue::NULL.to_owned();
    }
    // as a value first: it refuses nesting without bound and half characters, which a raw value lets pass
    if serde_json::from_str::<serde_json::Value>(&text).is_ok()
        && let Ok(raw) = RawValue::from_string(text.trim().to_owned())
    {
        return raw;
    }
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    serde_json::value::to_raw_value(line).expect("a string is JSON")
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(signal)) => match signal_name(signal) {
            Some(name) => format!("killed by signal {signal} ({name})"),
            None => format!("killed by signal {signal}"),
        },
        (None, None) => format!("ended oddly: {status}"),
    }
}

fn signal_name(signal: i32) -> Option<&'static str> {
    use rustix::process::Signal;
    let names = [
        (Signal::HUP, "SIGHUP"),
        (Signal::INT, "SIGINT"),
        (Signal::QUIT, "SIGQUIT"),
        (Signal::ILL, "SIGILL"),
        (Signal::TRAP, "SIGTRAP"),
        (Signal::ABORT, "SIGABRT"),
        (Signal::BUS, "SIGBUS"),
        (Signal::FPE, "SIGFPE"),
        (Signal::KILL, "SIGKILL"),
        (Signal::SEGV, "SIGSEGV"),
        (Signal::PIPE, "SIGPIPE"),
        (Signal::ALARM, "SIGALRM"),
        (Signal::TERM, "SIGTERM"),
        (Signal::XCPU, "SIGXCPU"),
    ];
    names.iter().find(|(s, _)| s.as_raw() == signal).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests;
