//! The directory of an archive: what it is of, who writes to it, and which segments it has.

use crate::block::Chain;
use crate::disk::{Disk, sync_name};
use crate::error::{AuditError, disk};
use crate::place::Place;
use crate::seal::CheckKey;
use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// The one that is written now.
const FORMAT: u32 = 1;
/// The file that says what an archive is of.
pub(crate) const ARCHIVE: &str = "archive.json";
const SUFFIX: &str = ".ndjson.zst";
/// So many segments of 256 MiB are 240 TiB.
pub(crate) const SEGMENTS_MAX: u64 = 999_999;
/// So many times a lock is tried that only lookers hold.
const TRIES: u32 = 1_000;

/// What `archive.json` says. It never changes: the first block hangs on its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Archive {
    pub(crate) format: u32,
    /// What is recorded, in order.
    pub(crate) topics: Vec<String>,
    pub(crate) created: Timestamp,
    /// Each head is signed by the private half of this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<String>,
}

/// A directory that is an archive.
#[derive(Debug, Clone)]
pub(crate) struct Home {
    pub(crate) place: Place,
    pub(crate) archive: Archive,
    bytes: Vec<u8>,
}

/// The name of a segment.
pub(crate) fn segment_name(number: u64) -> String {
    format!("{number:06}{SUFFIX}")
}

fn number_of(name: &str) -> Option<u64> {
    let number = name.strip_suffix(SUFFIX)?.parse().ok()?;
    (segment_name(number) == name).then_some(number)
}

impl Home {
    /// Opens an archive to look at it.
    pub(crate) fn open(place: Place) -> Result<Home, AuditError> {
        let fault = |reason: String| AuditError::NoArchive { path: place.to_string(), reason };
        let bytes = place.read(ARCHIVE)?.ok_or_else(|| fault("there is no archive.json in it".into()))?;
        let archive: Archive = serde_json::from_slice(&bytes)
            .map_err(|e| fault(format!("its archive.json cannot be read: {e}")))?;
        if archive.format != FORMAT {
            return Err(fault(format!("its format is {}, and this is {FORMAT}", archive.format)));
        }
        Ok(Home { place, archive, bytes })
    }

    /// Opens an archive of these topics, or makes it.
    pub(crate) fn make(
        on: &dyn Disk,
        dir: &Path,
        topics: &[String],
        key: Option<CheckKey>,
    ) -> Result<Home, AuditError> {
        if !archive_path(dir).exists() {
            let archive = Archive {
                format: FORMAT,
                topics: topics.to_vec(),
                created: Timestamp::now(),
                key: key.map(|key| key.to_string()),
            };
            let mut bytes = serde_json::to_vec(&archive).expect("this is always JSON");
            bytes.push(b'\n');
            on.replace(&archive_path(dir), &bytes).map_err(disk("write", &archive_path(dir)))?;
        }
        let home = Home::open(dir.into())?;
        if home.archive.topics != topics {
            let has = home.archive.topics.join(", ");
            return Err(AuditError::Mismatch(format!("is of {has}, not of {}", topics.join(", "))));
        }
        match (&home.archive.key, key) {
            (None, Some(_)) => Err(AuditError::Mismatch("is not signed from its beginning".into())),
            (Some(_), None) => Err(AuditError::Mismatch("is signed: say by which key".into())),
            (Some(has), Some(key)) if *has != key.to_string() => {
                Err(AuditError::Mismatch(format!("is signed by {has}, not by {key}")))
            }
            _ => Ok(home),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.place.path(name)
    }

    /// Before the first block.
    pub(crate) fn chain(&self) -> Chain {
        Chain::begin(&self.bytes)
    }

    /// The numbers of all segments, in order.
    pub(crate) fn segments(&self) -> Result<Vec<u64>, AuditError> {
        Ok(self.lengths()?.into_keys().collect())
    }

    /// How long each segment is, by its number.
    pub(crate) fn lengths(&self) -> Result<BTreeMap<u64, u64>, AuditError> {
        let files = self.place.files()?.into_iter();
        Ok(files.filter_map(|(name, length)| Some((number_of(&name)?, length))).collect())
    }
}

fn archive_path(dir: &Path) -> PathBuf {
    dir.join(ARCHIVE)
}

/// The directory and its lock, which holds as long as the file is open.
pub(crate) fn lock(dir: &Path) -> Result<File, AuditError> {
    let mut builder = fs::DirBuilder::new();
    let fresh: Vec<&Path> = dir.ancestors().take_while(|dir| !dir.exists()).collect();
    builder.recursive(true).mode(0o700).create(dir).map_err(disk("create", dir))?;
    for made in fresh {
        sync_name(made).map_err(disk("create", made))?;
    }
    let path = dir.join("lock");
    let open = File::options().write(true).create(true).truncate(false).open(&path);
    let file = open.map_err(disk("open", &path))?;
    for _ in 0..TRIES {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) => {}
            Err(error) => return Err(disk("lock", &path)(error.into())),
        }
        // whoever only looks holds it for a moment, together with others who do
        if flock(&file, FlockOperation::NonBlockingLockShared).is_err() {
            break;
        }
        std::thread::yield_now();
    }
    Err(AuditError::InUse(dir.display().to_string()))
}

/// Does a recorder write to it now?
pub(crate) fn is_locked(dir: &Path) -> bool {
    File::open(dir.join("lock")).is_ok_and(|file| {
        flock(&file, FlockOperation::NonBlockingLockShared) == Err(rustix::io::Errno::WOULDBLOCK)
    })
}
