//! What can go wrong with an archive.

use minium_client::ClientError;
use minium_protocol::Position;
use std::io;
use std::path::Path;

/// Why something did not work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// The disk, or who may use it.
    #[error("cannot {attempted} {path}: {source}")]
    Disk {
        /// What was attempted.
        attempted: &'static str,
        /// On what.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// Another recorder writes to this archive.
    #[error("another recorder writes to {0}")]
    InUse(String),
    /// Another recorder went on with the archive in a bucket.
    #[error("another recorder has gone on with {at}: what {spool} has beyond that cannot be added any more")]
    Taken {
        /// The place in the object store.
        at: String,
        /// This recorder's directory.
        spool: String,
    },
    /// There is no archive here, or one of another kind.
    #[error("{path} is no archive that can be used: {reason}")]
    NoArchive {
        /// The directory.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The archive was made for something else than what is asked of it now.
    #[error("this archive {0}")]
    Mismatch(String),
    /// A confirmed block is not as it was written.
    #[error("{file} is damaged at byte {offset}: {reason} — `minium audit verify` tells everything")]
    Damaged {
        /// The segment.
        file: String,
        /// Where the block begins.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// Events are gone from the journal that the archive does not have.
    #[error(
        "a hole in {topic}: what follows {} is no longer kept, the oldest lies behind {earliest}; it is on record now, and \
        --accept-gaps goes on",
        behind.map_or_else(|| "the beginning".into(), |p| p.to_string())
    )]
    Gap {
        /// Of which topic.
        topic: String,
        /// The last event that the archive has.
        behind: Option<Position>,
        /// Behind this the journal goes on.
        earliest: Position,
    },
    /// An event is longer than is taken.
    #[error(
        "event {at} of {topic} has {bytes} bytes, and at most {limit} are taken; that is on record now: a larger --event-max \
        takes it, and --accept-gaps goes on without it"
    )]
    TooLong {
        /// Of which topic.
        topic: String,
        /// Where it stands.
        at: Position,
        /// So many bytes does it have.
        bytes: usize,
        /// So many are taken.
        limit: usize,
    },
    /// A message without a position came.
    #[error("{0} is not durable: what is not kept cannot be archived without holes")]
    NotDurable(String),
    /// A message that cannot stand in an archive.
    #[error("a message of {topic} cannot be archived: {reason}")]
    Unfit {
        /// Of which topic.
        topic: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A key that cannot be used.
    #[error("{0}")]
    Key(String),
    /// The server, or the way to it.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Whoever reads an archive's events does not want more.
    #[error("{0}")]
    Reader(Box<dyn std::error::Error + Send + Sync>),
}

impl AuditError {
    /// Is it that the disk has no room? That passes.
    pub fn is_full(&self) -> bool {
        matches!(
            self,
            AuditError::Disk { source, .. }
                if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        )
    }
}

/// For `map_err`.
pub(crate) fn disk(attempted: &'static str, path: &Path) -> impl FnOnce(io::Error) -> AuditError {
    let path = path.display().to_string();
    move |source| AuditError::Disk { attempted, path, source }
}
