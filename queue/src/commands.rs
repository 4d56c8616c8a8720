//! What workers can be told: the commands that all of them know, and those of a program's own.
//!
//! Arguments are judged where a command is given, so that whoever gives it hears what is wrong; a worker that takes one
//! out of its inbox reads it by the same function.

use crate::error::QueueError;
use minium_protocol::Topic;
use serde_json::Value;

/// The arguments of a command are no longer than this, as JSON.
pub const COMMAND_BYTES_MAX: usize = 8 * 1024;
/// A worker runs no more jobs at once than this, whatever it is told.
pub const CONCURRENCY_MAX: u32 = 10_000;

/// A signal for one job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JobSignal {
    /// SIGINT.
    Int,
    /// SIGTERM.
    Term,
    /// SIGKILL.
    Kill,
    /// SIGUSR1.
    Usr1,
    /// SIGUSR2.
    Usr2,
    /// SIGHUP.
    Hup,
}

impl JobSignal {
    const ALL: [(JobSignal, &'static str); 6] = [
        (JobSignal::Int, "INT"),
        (JobSignal::Term, "TERM"),
        (JobSignal::Kill, "KILL"),
        (JobSignal::Usr1, "USR1"),
        (JobSignal::Usr2, "USR2"),
        (JobSignal::Hup, "HUP"),
    ];

    /// Its name, without `SIG`.
    pub fn as_str(self) -> &'static str {
        JobSignal::ALL.iter().find(|(signal, _)| *signal == self).map_or("?", |(_, name)| name)
    }

    /// Does it end a program that does nothing about it on purpose?
    pub fn ends(self) -> bool {
        matches!(self, JobSignal::Int | JobSignal::Term | JobSignal::Kill)
    }

    fn named(name: &str) -> Option<JobSignal> {
        let name = name.to_ascii_uppercase();
        let name = name.strip_prefix("SIG").unwrap_or(&name);
        JobSignal::ALL.iter().find(|(_, known)| *known == name).map(|(signal, _)| *signal)
    }
}

/// What a worker can be told.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Claim nothing until told to go on; what runs goes on.
    Pause,
    /// Claim again.
    Resume,
    /// Run so many jobs at once; 0 claims nothing, as a pause does.
    Concurrency(u32),
    /// Keep so many slots more for jobs of high priority.
    Spare(u32),
    /// Stop the run of this job, and kill it if it does not heed that. It has failed then, and is tried again while attempts
    /// are left: whoever does not want that cancels the job.
    Stop(i64),
    /// Send a signal to the command that runs this job.
    Signal(i64, JobSignal),
    /// End, as by SIGTERM: no more claims, running jobs get their time.
    Shutdown,
    /// What the program itself knows to do.
    Own {
        /// Its name.
        name: String,
        /// Its arguments.
        args: Vec<Value>,
    },
}

impl Command {
    /// Reads what somebody said.
    ///
    /// # Errors
    /// [`QueueError::Invalid`] for a known command with wrong arguments, a name that cannot be one, or arguments that are
    /// too long. A name that nobody knows is the program's own affair.
    pub fn parse(name: &str, args: &[Value]) -> Result<Command, QueueError> {
        let wrong = |must: &str| QueueError::Invalid(format!("the command {name} {must}"));
        let number = |value: &Value, max: u32| {
            let n = value.as_u64().and_then(|n| u32::try_from(n).ok()).filter(|n| *n <= max);
            n.ok_or_else(|| wrong(&format!("takes a whole number from 0 to {max}")))
        };
        let job = |value: &Value| value.as_i64().filter(|n| *n > 0).ok_or_else(|| wrong("takes a job's id"));
        match (name, args) {
            ("pause", []) => Ok(Command::Pause),
            ("resume", []) => Ok(Command::Resume),
            ("shutdown", []) => Ok(Command::Shutdown),
            ("concurrency", [n]) => number(n, CONCURRENCY_MAX).map(Command::Concurrency),
            ("spare", [n]) => number(n, CONCURRENCY_MAX).map(Command::Spare),
            ("stop", [id]) => job(id).map(Command::Stop),
            ("signal", [id, signal]) => {
                let signal = signal.as_str().and_then(JobSignal::named);
                let signal = signal.ok_or_else(|| wrong("takes INT, TERM, KILL, USR1, USR2 or HUP"))?;
                Ok(Command::Signal(job(id)?, signal))
            }
            ("pause" | "resume" | "shutdown", _) => Err(wrong("takes no arguments")),
            ("concurrency" | "spare", _) => Err(wrong("takes one number")),
            ("stop", _) => Err(wrong("takes one argument, a job's id")),
            ("signal", _) => Err(wrong("takes two arguments, a job's id and a signal")),
            (own, args) => Command::own(own, args),
        }
    }

    fn own(name: &str, args: &[Value]) -> Result<Command, QueueError> {
        name.parse::<Topic>()
            .map_err(|error| QueueError::Invalid(format!("{name:?} is no name of a command: {error}")))?;
        let bytes = serde_json::to_string(args).expect("values are JSON").len();
        if bytes > COMMAND_BYTES_MAX {
            let why = format!("the arguments have {bytes} bytes, at most {COMMAND_BYTES_MAX} are allowed");
            return Err(QueueError::TooLarge(why));
        }
        Ok(Command::Own { name: name.into(), args: args.to_vec() })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        match self {
            Command::Pause => "pause",
            Command::Resume => "resume",
            Command::Concurrency(_) => "concurrency",
            Command::Spare(_) => "spare",
            Command::Stop(_) => "stop",
            Command::Signal(..) => "signal",
            Command::Shutdown => "shutdown",
            Command::Own { name, .. } => name,
        }
    }

    /// Its arguments.
    pub fn args(&self) -> Vec<Value> {
        match self {
            Command::Pause | Command::Resume | Command::Shutdown => Vec::new(),
            Command::Concurrency(n) | Command::Spare(n) => vec![(*n).into()],
            Command::Stop(job) => vec![(*job).into()],
            Command::Signal(job, signal) => vec![(*job).into(), signal.as_str().into()],
            Command::Own { args, .. } => args.clone(),
        }
    }

    pub(crate) fn args_json(&self) -> String {
        serde_json::to_string(&self.args()).expect("values are JSON")
    }

    /// What was kept. `None` when another program wrote what this one cannot read.
    pub(crate) fn from_row(name: &str, args: &str) -> Option<Command> {
        let args: Vec<Value> = serde_json::from_str(args).ok()?;
        Command::parse(name, &args).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(name: &str, args: &Value) -> Result<Command, QueueError> {
        Command::parse(name, args.as_array().unwrap())
    }

    #[test]
    fn commands_come_back_as_they_went() {
        for (name, args, command) in [
            ("pause", json!([]), Command::Pause),
            ("resume", json!([]), Command::Resume),
            ("concurrency", json!([0]), Command::Concurrency(0)),
            ("spare", json!([3]), Command::Spare(3)),
            ("stop", json!([42]), Command::Stop(42)),
            ("signal", json!([42, "USR1"]), Command::Signal(42, JobSignal::Usr1)),
            ("shutdown", json!([]), Command::Shutdown),
            (
                "reload",
                json!([{"a": 1}]),
                Command::Own { name: "reload".into(), args: vec![json!({"a": 1})] },
            ),
        ] {
            assert_eq!(read(name, &args).unwrap(), command);
            assert_eq!(Command::from_row(command.name(), &command.args_json()), Some(command));
        }
        assert_eq!(read("signal", &json!([1, "sigterm"])).unwrap(), Command::Signal(1, JobSignal::Term));
    }

    #[test]
    fn a_known_command_with_wrong_arguments_is_refused() {
        for (name, args) in [
            ("pause", json!([1])),
            ("concurrency", json!([])),
            ("concurrency", json!([-1])),
            ("concurrency", json!([CONCURRENCY_MAX + 1])),
            ("concurrency", json!(["4"])),
            ("spare", json!([1, 2])),
            ("stop", json!(["x"])),
            ("stop", json!([0])),
            ("signal", json!([1, "STOP"])),
            ("signal", json!([1])),
            ("a b", json!([])),
            ("", json!([])),
        ] {
            assert!(matches!(read(name, &args), Err(QueueError::Invalid(_))), "{name} {args}");
        }
        let long = json!(["x".repeat(COMMAND_BYTES_MAX)]);
        assert!(matches!(read("mine", &long), Err(QueueError::TooLarge(_))));
    }
}
