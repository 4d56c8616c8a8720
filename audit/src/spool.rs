//! The directory that an upload takes from. Everything here waits for a disk, and segments are large: who records must not
//! stand still for it, so it is done beside the runtime ([`Spool::beside`]).

use crate::blocks::Blocks;
use crate::digest::Digest;
use crate::error::{AuditError, disk};
use crate::home::{Home, segment_name};
use crate::manifest::{Line, Manifest, NAME};
use crate::place::Place;
use crate::record::Uploaded;
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

/// A spool.
#[derive(Debug, Clone)]
pub(crate) struct Spool {
    pub(crate) dir: PathBuf,
}

/// A closed segment that is what the spool's manifest says. One is in memory at a time.
pub(crate) struct Closed {
    pub(crate) bytes: Vec<u8>,
    pub(crate) line: Line,
    /// How far each topic is with its last block.
    pub(crate) positions: Uploaded,
}

impl Spool {
    /// Does it on a thread that may wait.
    pub(crate) async fn beside<T: Send + 'static>(
        &self,
        what: impl FnOnce(&Spool) -> Result<T, AuditError> + Send + 'static,
    ) -> Result<T, AuditError> {
        let spool = self.clone();
        let done = tokio::task::spawn_blocking(move || what(&spool));
        done.await.map_err(|e| AuditError::Reader(e.into()))?
    }

    /// A file's bytes; none where it is not there.
    pub(crate) fn own(&self, name: &str) -> Result<Vec<u8>, AuditError> {
        let path = self.dir.join(name);
        match fs::read(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            read => read.map_err(disk("read", &path)),
        }
    }

    /// A closed segment, held against the manifest.
    pub(crate) fn closed(&self, number: u64) -> Result<Closed, AuditError> {
        let name = segment_name(number);
        let (bytes, line) = (self.own(&name)?, self.line(number)?);
        if line.sha256 != Digest::of(&bytes) {
            let reason = "it is not what the manifest says".into();
            return Err(AuditError::Damaged { file: name, offset: 0, reason });
        }
        let positions = self.positions(&name, &bytes)?;
        Ok(Closed { bytes, line, positions })
    }

    /// How far each topic is with the last block of a segment that is in the bucket. It is still here.
    pub(crate) fn reached(&self, number: u64) -> Result<Uploaded, AuditError> {
        let name = segment_name(number);
        self.positions(&name, &self.own(&name)?)
    }

    /// What the spool's manifest says of a segment.
    fn line(&self, number: u64) -> Result<Line, AuditError> {
        let lines = Manifest::parse(&self.own(NAME)?).lines;
        let line = usize::try_from(number - 1).ok().and_then(|n| lines.into_iter().nth(n));
        let reason = || format!("segment {number} has no line in it");
        line.ok_or_else(|| AuditError::Damaged { file: NAME.into(), offset: 0, reason: reason() })
    }

    fn positions(&self, name: &str, bytes: &[u8]) -> Result<Uploaded, AuditError> {
        let path = self.dir.join(name);
        let mut blocks = Blocks::new(bytes).map_err(disk("read", &path))?;
        let mut positions = Uploaded::new();
        while let Some(Ok(block)) = blocks.next().map_err(disk("read", &path))? {
            let of_block = block.record.summary.positions;
            positions = of_block.into_iter().map(|(topic, at)| (topic, at.0)).collect();
        }
        Ok(positions)
    }

    /// Lets go of what is uploaded. The last closed segment stays: the next start begins with it.
    pub(crate) fn tidy(&self, uploaded: u64) -> Result<(), AuditError> {
        let home = Home::open(Place::Dir(self.dir.clone()))?;
        for number in home.segments()?.into_iter().filter(|number| *number < uploaded) {
            let path = home.path(&segment_name(number));
            fs::remove_file(&path).map_err(disk("remove", &path))?;
        }
        Ok(())
    }
}
