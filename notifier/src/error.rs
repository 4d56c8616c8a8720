//! What can go wrong in the notifier.

use minium_protocol::{ErrorCode, Problem};
use minium_queue::{QueueError, causes};

/// An operation on the journal failed. What had been numbered stays so; nothing is relayed twice for it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotifierError {
    /// The database is not there, or ended the connection.
    #[error("the database is not available while trying to {attempted}")]
    Unavailable {
        /// What was attempted.
        attempted: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The database refused or failed.
    #[error("the database failed while trying to {attempted}")]
    Database {
        /// What was attempted.
        attempted: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The database does not take what it was given, and will not take it later either.
    #[error("the database refused what it was given while trying to {attempted}")]
    Refused {
        /// What was attempted.
        attempted: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// There is no room left where the database is kept.
    #[error("the database has no room left while trying to {attempted}")]
    StorageFull {
        /// What was attempted.
        attempted: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The journal's tables are not there, or hold what this program does not understand.
    #[error("the journal cannot be read: {0}")]
    Schema(String),
}

impl NotifierError {
    /// The stable code that tells a client what happened.
    pub fn code(&self) -> ErrorCode {
        match self {
            NotifierError::Unavailable { .. } | NotifierError::Schema(_) => ErrorCode::Unavailable,
            NotifierError::Database { .. } => ErrorCode::Internal,
            NotifierError::Refused { .. } => ErrorCode::InvalidRequest,
            NotifierError::StorageFull { .. } => ErrorCode::StorageFull,
        }
    }

    /// The problem document for a client. It never shows what the database said.
    pub fn problem(&self) -> Problem {
        Problem::new(self.code(), self.to_string())
    }

    pub(crate) fn unavailable(
        attempted: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> NotifierError {
        NotifierError::Unavailable { attempted, source: source.into() }
    }

    /// The error and all its causes in one line, for logs and `/readyz`.
    pub(crate) fn story(&self) -> String {
        causes(self)
    }
}

impl From<QueueError> for NotifierError {
    fn from(error: QueueError) -> NotifierError {
        match error {
            QueueError::Unavailable { attempted, source } => NotifierError::Unavailable { attempted, source },
            busy @ QueueError::Busy { attempted } => NotifierError::unavailable(attempted, busy),
            QueueError::Refused { attempted, source } => NotifierError::Refused { attempted, source },
            QueueError::StorageFull { attempted, source } => NotifierError::StorageFull { attempted, source },
            QueueError::Schema(words) => NotifierError::Schema(words),
            other => NotifierError::Database { attempted: "use the queue's database", source: other.into() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_story_names_every_cause() {
        let cause = std::io::Error::other("no route");
        let error = NotifierError::unavailable("number the journal", cause);
        assert_eq!(
            error.story(),
            "the database is not available while trying to number the journal: no route"
        );
        assert_eq!(error.code(), ErrorCode::Unavailable);
    }
}
