//! What keeps a worker from starting. Once it runs, nothing but the word to stop ends it.

use minium_protocol::ErrorCode;
use minium_queue::QueueError;

/// A worker could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// It has nothing to run.
    #[error("a worker needs at least one task")]
    NoTasks,
    /// Two tasks have one name.
    #[error("the task {0:?} is given twice")]
    TaskTwice(String),
    /// A task's name is no topic.
    #[error("the task name {name:?} cannot be used: {reason}")]
    TaskName {
        /// The name.
        name: String,
        /// Which rule it breaks.
        reason: String,
    },
    /// A command of the program's own cannot have this name.
    #[error("no command of the program's own can be named {0:?}: workers know it, or it is no name")]
    CommandName(String),
    /// A command line cannot be understood.
    #[error("the command {command:?} cannot be used: {reason}")]
    Command {
        /// The command line.
        command: String,
        /// Why.
        reason: String,
    },
    /// A sandbox contradicts itself.
    #[error("the sandbox cannot be used: {field} {why}")]
    SandboxField {
        /// What of it.
        field: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The sandbox that commands are to run in cannot be had here.
    #[error("{code}: {0}", code = ErrorCode::SandboxUnavailable)]
    Sandbox(String),
    /// An option makes no sense.
    #[error("{0}")]
    Option(&'static str),
    /// The database's schema is not one that this program knows; waiting does not help.
    #[error("the queue cannot be used")]
    Source(#[source] QueueError),
}

impl WorkerError {
    /// The stable code that tells a client what happened.
    pub fn code(&self) -> ErrorCode {
        match self {
            WorkerError::Source(e) => e.code(),
            WorkerError::Sandbox(_) => ErrorCode::SandboxUnavailable,
            WorkerError::NoTasks
            | WorkerError::TaskTwice(_)
            | WorkerError::TaskName { .. }
            | WorkerError::CommandName(_)
            | WorkerError::Command { .. }
            | WorkerError::SandboxField { .. }
            | WorkerError::Option(_) => ErrorCode::InvalidRequest,
        }
    }
}
