//! What SQLite's errors mean to those who use the queue.

use crate::error::QueueError;
use rusqlite::ErrorCode as Sqlite;
use std::sync::Arc;

/// Says what was attempted when SQLite refused. A database that is locked or cannot be reached may be there again
/// later; one without room says so, and so does one that does not take what it was given; everything else is a fault.
pub fn failure(attempted: &'static str, error: rusqlite::Error) -> QueueError {
    sorted(attempted, error.sqlite_error_code(), Box::new(error))
}

fn sorted(
    attempted: &'static str,
    code: Option<Sqlite>,
    source: Box<dyn std::error::Error + Send + Sync>,
) -> QueueError {
    match code {
        Some(Sqlite::DiskFull) => QueueError::StorageFull { attempted, source },
        Some(
            Sqlite::DatabaseBusy
            | Sqlite::DatabaseLocked
            | Sqlite::CannotOpen
            | Sqlite::SystemIoFailure
            | Sqlite::FileLockingProtocolFailed,
        ) => QueueError::Unavailable { attempted, source },
        Some(Sqlite::TooBig | Sqlite::ConstraintViolation | Sqlite::TypeMismatch) => {
            QueueError::Refused { attempted, source }
        }
        _ => QueueError::Database { attempted, source },
    }
}

/// A commit that failed takes every call down that shared it, so its cause is told several times.
#[derive(Debug, Clone, thiserror::Error)]
#[error(transparent)]
pub(super) struct Shared(Arc<rusqlite::Error>);

impl From<rusqlite::Error> for Shared {
    fn from(error: rusqlite::Error) -> Shared {
        Shared(Arc::new(error))
    }
}

impl Shared {
    /// The failure of one of these calls.
    pub(super) fn of(&self, attempted: &'static str) -> QueueError {
        sorted(attempted, self.0.sqlite_error_code(), Box::new(self.clone()))
    }
}

/// A call that panicked. Its change was rolled back; the store lives on.
pub(super) fn panicked(attempted: &'static str, payload: &(dyn std::any::Any + Send)) -> QueueError {
    let words = payload
        .downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no words".into());
    QueueError::Database { attempted, source: format!("it panicked: {words}").into() }
}

/// The connection's thread is gone: the store was closed.
pub(super) fn closed(attempted: &'static str) -> QueueError {
    QueueError::Unavailable { attempted, source: "the store is closed".into() }
}
