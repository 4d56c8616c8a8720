//! The recorder: everything that topics say, kept for ever, in an archive that shows whether anybody changed it.
//!
//! ```no_run
//! use minium_audit::{Selection, VerifyOptions, read, verify};
//! use std::ops::ControlFlow;
//! use std::path::Path;
//!
//! # fn run() -> Result<(), minium_audit::AuditError> {
//! let verdict = verify(Path::new("archive"), &VerifyOptions::default(), &mut |_| ())?;
//! println!("{} events, {} findings", verdict.events, verdict.findings.len());
//! let of_job = Selection { job: Some(42), ..Selection::default() };
//! read(Path::new("archive"), &of_job, &mut |_, _| (), &mut |entry| {
//!     println!("{}", entry.text);
//!     Ok(ControlFlow::Continue(()))
//! })?;
//! # Ok(())
//! # }
//! ```
//!
//! **Map.** `block` is the format, `blocks` reads it, `tail` finds where its end begins; `writer` writes an archive, `home` is its directory, `manifest` its
//! index, `disk` what is done to files, `place` where they are read from; `record` follows topics and fills the writer, `pace` says how that goes; `verify`, `read` and `replay` are what
//! an archive is good for. With the feature `parquet` there are `columns`, with `s3` a `bucket` and the `upload` to it.
//!
//! **Invariants.** An event is in the archive once, in the order of its topic, as it came on the wire, or a record says
//! why it is not. The position is in the data: there is no second place that could disagree. What [`Writer::append`]
//! returned for is on the disk. Whatever byte of an archive is changed, [`verify()`] finds it. All buffers have bounds.
//!
//! **Allowed imports**: client, protocol, zstd, ring. No SQL, no axum; neither environment nor files but those of archives.

mod block;
mod blocks;
#[cfg(feature = "s3")]
mod bucket;
#[cfg(feature = "parquet")]
mod columns;
mod confirm;
mod digest;
mod disk;
mod error;
mod home;
mod line;
mod manifest;
mod pace;
mod place;
mod read;
mod record;
mod replay;
mod seal;
#[cfg(feature = "s3")]
mod spool;
mod tail;
#[cfg(feature = "s3")]
mod upload;
mod verify;
mod writer;

pub use block::{Batch, EVENT_BYTES_MAX};
#[cfg(feature = "s3")]
pub use bucket::{Bucket, BucketError};
#[cfg(feature = "parquet")]
pub use columns::ParquetWriter;
pub use digest::{Digest, DigestError};
pub use error::AuditError;
pub use place::Place;
pub use read::{Entry, Selection, read, read_with_facts};
pub use record::{HEARTBEAT, RecordOptions, Recorded, TOPICS_MAX, Uploaded, record};
pub use replay::{ReplayOptions, Replayed, replay};
pub use seal::{CheckKey, SealKey};
#[cfg(feature = "s3")]
pub use upload::{Confirm, Upload};
pub use verify::{Fact, Finding, Seen, Verdict, VerifyOptions, verify};
pub use writer::{SegmentLimits, Writer};

#[cfg(test)]
mod tests;
