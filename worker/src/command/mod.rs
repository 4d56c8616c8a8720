//! Tasks that are programs, in any language.
//!
//! Arguments come as JSON on stdin, the result is what the program writes to stdout (JSON if it parses, else the text
//! without its last line end; nothing is `null`), lines `::progress 40 text`, `::note key=value`, `::step name` and
//! `::log level text` on stderr become progress, notes and lines of the job's log, as other lines do, an exit code other
//! than 0 is a failure with the end of stderr as its error. `MINIUM_JOB_ID`, `MINIUM_TASK`, `MINIUM_ATTEMPT`,
//! `MINIUM_PARENTS` (ids, parted by commas, if it has any) and, if known, `TRACEPARENT` stand in its environment, and of the
//! worker's own whatever does not begin with `MINIUM_`: tokens and database URLs are no command's business. No shell is
//! involved unless asked for.
//!
//! Time-out, cancellation and a lost lease end the whole process group: SIGTERM, and SIGKILL after a grace.

mod guard;
mod lines;
mod process;
mod words;

pub use guard::become_command;

use crate::context::JobContext;
use crate::error::WorkerError;
use crate::options::{Output, WorkerOptions};
use crate::task::{Failure, Task};
use async_trait::async_trait;
use lines::Line;
use minium_protocol::{LOG_TEXT_BYTES_MAX, LogLevel};
use process::{Ended, Limits};
use serde_json::value::RawValue;
use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;
use tokio::process::Command;

/// A log line that is longer than it may be is seen to be cut.
const LINE_BYTES_MAX: usize = LOG_TEXT_BYTES_MAX + 1;
/// An environment is small: of a job with more parents it does not have them.
const PARENTS_MAX: usize = 1_000;
const PIPE_GRACE: Duration = Duration::from_secs(1);
/// Above the grace between SIGTERM and SIGKILL, so that the group is seen to end before the run is given up.
const STOP_MARGIN: Duration = Duration::from_secs(5);

/// A task that runs a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandTask {
    /// The task.
    pub name: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// A run without a time-out of its own ends after this.
    pub timeout: Option<Duration>,
    /// The words, joined by blanks, are a line for `/bin/sh`.
    pub shell: bool,
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
        Ok(CommandTask { name: name.trim().into(), command, timeout: None, shell })
    }

    pub(crate) fn check(&self) -> Result<(), WorkerError> {
        let reason = match self.command.first() {
            None => "it is empty",
            Some(program) if program.trim().is_empty() => "its first word is empty",
            Some(_) if self.command.iter().any(|w| w.contains('\0')) => "it has a NUL character",
            Some(_) => return Ok(()),
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

/// A [`CommandTask`] as a worker runs it.
pub(crate) struct CommandRunner {
    words: Vec<String>,
    timeout: Option<Duration>,
    limits: Limits,
    /// Variables that it does not inherit.
    hidden: Vec<OsString>,
    output: Option<Output>,
    log_stderr: bool,
}

/// What tells this program its settings, with tokens and passwords among them: by name, and nothing is read.
fn own_variables() -> Vec<OsString> {
    let names = std::env::vars_os().map(|(name, _)| name);
    names.filter(|name| name.as_encoded_bytes().starts_with(b"MINIUM_")).collect()
}

impl CommandRunner {
    pub(crate) fn new(task: &CommandTask, options: &WorkerOptions) -> CommandRunner {
        CommandRunner {
            words: options.launcher.iter().cloned().chain(task.words()).collect(),
            timeout: task.timeout,
            limits: Limits {
                stdout_bytes_max: options.result_bytes_max,
                // the words before the tail need room too, or the end of it would be cut
                tail_bytes_max: options.error_bytes_max.saturating_sub(64),
                line_bytes_max: LINE_BYTES_MAX,
                stop_grace: options.stop_grace,
                pipe_grace: PIPE_GRACE,
            },
            hidden: own_variables(),
            output: options.output.clone(),
            log_stderr: options.log_stderr,
        }
    }
}

#[async_trait]
impl Task for CommandRunner {
    async fn run(&self, context: JobContext, args: Box<RawValue>) -> Result<Box<RawValue>, Failure> {
        let (program, arguments) = self.words.split_first().expect("checked before the worker starts");
        let mut command = Command::new(program);
        for name in &self.hidden {
            command.env_remove(name);
        }
        command
            .args(arguments)
            .env("MINIUM_JOB_ID", context.id().to_string())
            .env("MINIUM_TASK", context.task())
            .env("MINIUM_ATTEMPT", context.attempt().to_string());
        if (1..=PARENTS_MAX).contains(&context.parents().len()) {
            let parents: Vec<String> = context.parents().iter().map(i64::to_string).collect();
            command.env("MINIUM_PARENTS", parents.join(","));
        }
        match context.trace() {
            Some(trace) => command.env("TRACEPARENT", trace),
            None => command.env_remove("TRACEPARENT"),
        };
        // a line end, for programs that read lines
        let input = format!("{}\n", args.get());
        let read = |text: &str| match Line::read(text) {
            Line::Progress(progress) => {
                context.report(progress);
                false
            }
            Line::Note(key, value) => {
                context.note(key, value);
                false
            }
            Line::Log(level, text) => {
                context.log(level, text);
                false
            }
            Line::Other => {
                let text = text.trim_end();
                if self.log_stderr && !text.is_empty() {
                    context.log(LogLevel::Info, text);
                }
                true
            }
        };
        let line = |text: &str| {
            self.output.iter().for_each(|output| output.line(text));
            read(text)
        };
        context.signals().take_all();
        let words = (&context.cancelled(), context.signals());
        let ended = process::run(command, input.as_bytes(), words, &self.limits, line)
            .await
            .map_err(|e| Failure::retryable(format!("cannot run {program:?}: {e}")))?;
        self.judge(&ended)
    }

    fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    fn stop_grace(&self, usual: Duration) -> Duration {
        usual + STOP_MARGIN
    }
}

impl CommandRunner {
    fn judge(&self, ended: &Ended) -> Result<Box<RawValue>, Failure> {
        if ended.too_much {
            let max = self.limits.stdout_bytes_max;
            return Err(Failure::retryable(format!("stdout has more than {max} bytes")));
        }
        if !ended.status.success() {
            let how = describe(ended.status);
            let error = if ended.tail.is_empty() { how } else { format!("{how}: {}", ended.tail) };
            return Err(Failure::retryable(error));
        }
        Ok(result(&ended.stdout))
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
