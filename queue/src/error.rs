//! What can go wrong in the queue.

use minium_protocol::{ErrorCode, Problem, State};

/// An operation of the queue failed. Nothing was changed, unless a variant says otherwise.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// The request breaks a rule; the words are for whoever sent it.
    #[error("{0}")]
    Invalid(String),
    /// It breaks no rule but is larger than anything is kept; the words are for whoever sent it.
    #[error("{0}")]
    TooLarge(String),
    /// There is no such job.
    #[error("there is no job {0}")]
    NotFound(i64),
    /// There is no such worker (any more): upkeep forgot it, and it registers anew.
    #[error("worker {0} is not registered")]
    Unregistered(i64),
    /// There is no such schedule.
    #[error("there is no schedule {0:?}")]
    NoSchedule(String),
    /// The schedule is the configuration's, and is changed there.
    #[error("the schedule {0:?} belongs to the configuration: change it there")]
    Configured(String),
    /// The job's state forbids it.
    #[error("job {job} is {state}: {reason}")]
    Conflict {
        /// The job.
        job: i64,
        /// Its state.
        state: State,
        /// Why not.
        reason: &'static str,
    },
    /// Somebody else has the job, or it was cancelled.
    #[error("the lease on job {0} is gone")]
    LeaseLost(i64),
    /// The database is not there, or ended the connection. Whether a write counted is unknown.
    #[error("the database is not available while trying to {attempted}")]
    Unavailable {
        /// What was attempted.
        attempted: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// All connections that this process may have are in use, and stayed so. Nothing was done.
    #[error("all connections to the database were in use while trying to {attempted}")]
    Busy {
        /// What was attempted.
        attempted: &'static str,
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
    /// The database does not take what it was given: too large, or against a constraint. It will not take it later
    /// either.
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
    /// The schema is newer than this program, or was changed by hand.
    #[error("{0}")]
    Schema(String),
}

impl QueueError {
    /// The stable code that tells a client what happened.
    pub fn code(&self) -> ErrorCode {
        match self {
            // what the database does not take was asked for all the same, and will not be taken later either
            QueueError::Invalid(_) | QueueError::Refused { .. } => ErrorCode::InvalidRequest,
            QueueError::TooLarge(_) => ErrorCode::PayloadTooLarge,
            QueueError::NotFound(_) | QueueError::Unregistered(_) | QueueError::NoSchedule(_) => {
                ErrorCode::NotFound
            }
            QueueError::Conflict { .. } | QueueError::Configured(_) => ErrorCode::Conflict,
            QueueError::LeaseLost(_) => ErrorCode::LeaseLost,
            QueueError::Unavailable { .. } | QueueError::Busy { .. } | QueueError::Schema(_) => {
                ErrorCode::Unavailable
            }
            QueueError::Database { .. } => ErrorCode::Internal,
            QueueError::StorageFull { .. } => ErrorCode::StorageFull,
        }
    }

    /// Is what was asked to blame, so that asking again is in vain? Anything else may be well again later: a database
    /// that is away, has no room, is not migrated yet, or is damaged.
    pub fn is_refusal(&self) -> bool {
        matches!(self, QueueError::Invalid(_) | QueueError::TooLarge(_) | QueueError::Refused { .. })
    }

    /// Is it that the database is not there, or has no connection left? The same may be tried again a little later.
    pub fn is_away(&self) -> bool {
        matches!(self, QueueError::Unavailable { .. } | QueueError::Busy { .. })
    }

    /// The problem document for a client. It never shows what the database said.
    pub fn problem(&self) -> Problem {
        Problem::new(self.code(), self.to_string())
    }
}

/// The server is known not to be there, or not to let us in. Who found that out has told it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Away(pub(crate) std::sync::Arc<str>);

/// Was the outage that caused this told already, when the database was found to be away?
pub fn is_told(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(|error| error.is::<Away>())
}

/// An error with its causes, on one line.
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        // Drivers like to repeat what the layer below has said.
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_refused_is_not_told_to_try_again() {
        let refused = QueueError::Refused { attempted: "finish", source: "too large".into() };
        for error in [QueueError::Invalid("no".into()), QueueError::TooLarge("no".into()), refused] {
            assert!(error.is_refusal() && !error.problem().retryable, "{error}");
        }
        let broken = QueueError::Database { attempted: "finish", source: "damaged".into() };
        assert!(!broken.is_refusal() && broken.problem().retryable);
    }
}
