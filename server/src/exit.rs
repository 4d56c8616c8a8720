//! What the process ends with: the exit codes of docs/protocol.md, and how errors come to theirs.

use minium_protocol::ErrorCode;
use minium_protocol::Problem;
use minium_queue::QueueError;
use std::io::Write;
use std::process::ExitCode;

/// Wrappers such as `timeout` signal a process and its group: what comes so soon after the first signal to end is the
/// same word.
pub(crate) const SAME_WORD: std::time::Duration = std::time::Duration::from_secs(1);

/// Why the process ends badly. 0 is for all that went well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It failed.
    Failed = 1,
    /// It was called or configured wrongly.
    Usage = 2,
    /// There is no such thing.
    NotFound = 3,
    /// Not allowed.
    NotAllowed = 4,
    /// Nobody answers.
    NoConnection = 5,
    /// A schema says no.
    Schema = 6,
    /// The state of the thing forbids it.
    Conflict = 7,
    /// The wait has ended.
    TimedOut = 8,
}

/// An error that knows its exit code, and is worded for people.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Fault {
    exit: Exit,
    message: String,
}

/// An error with an exit code, for `?` in commands.
pub(crate) fn fault(exit: Exit, message: impl Into<String>) -> anyhow::Error {
    Fault { exit, message: message.into() }.into()
}

/// A command that was run for somebody ended with this status, and has said itself what there was to say.
#[derive(Debug, thiserror::Error)]
#[error("the command ended with {0}")]
pub(crate) struct Passed(pub(crate) u8);

/// Says on stderr what went wrong and gives the exit code.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    if let Some(Passed(status)) = error.downcast_ref() {
        return ExitCode::from(*status);
    }
    // A closed stderr is no reason to fail differently.
    writeln!(std::io::stderr(), "minium: {error:#}").ok();
    ExitCode::from(code_of(error) as u8)
}

/// The code of the outermost error that has one.
fn code_of(error: &anyhow::Error) -> Exit {
    let known = error.chain().find_map(|e| {
        if let Some(fault) = e.downcast_ref::<Fault>() {
            return Some(fault.exit);
        }
        if let Some(problem) = e.downcast_ref::<Problem>() {
            return Some(exit_of(problem.code));
        }
        e.downcast_ref::<QueueError>().map(|q| exit_of(q.code()))
    });
    known.unwrap_or(Exit::Failed)
}

/// The exit code that goes with a problem's code.
pub(crate) fn exit_of(code: ErrorCode) -> Exit {
    match code {
        ErrorCode::SchemaViolation => Exit::Schema,
        ErrorCode::TopicInvalid | ErrorCode::InvalidJson | ErrorCode::InvalidRequest => Exit::Usage,
        ErrorCode::NotFound => Exit::NotFound,
        ErrorCode::Unauthorized | ErrorCode::Forbidden => Exit::NotAllowed,
        ErrorCode::Conflict | ErrorCode::LeaseLost => Exit::Conflict,
        ErrorCode::Timeout => Exit::TimedOut,
        ErrorCode::Unavailable => Exit::NoConnection,
        _ => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn the_exit_code_is_found_beneath_the_context() {
        let problem = Problem::new(ErrorCode::NotFound, "there is no job 7");
        let error = Err::<(), _>(problem).context("Cannot show job 7").unwrap_err();
        assert_eq!(code_of(&error), Exit::NotFound);
        assert_eq!(code_of(&QueueError::LeaseLost(7).into()), Exit::Conflict);
        assert_eq!(code_of(&fault(Exit::TimedOut, "too late")), Exit::TimedOut);
        assert_eq!(code_of(&anyhow::anyhow!("something else")), Exit::Failed);
    }
}
