//! Outcomes on disk, until they are reported: they survive a connection that is away, and the worker that is killed.
//!
//! One file, to which records are appended ([`record`]). An outcome is on the disk (fdatasync) when [`Spool::append`]
//! returns; that it was reported is written without waiting for the disk, since reporting it again is harmless. When most
//! of the file is of no more use, it is written anew and put in its place by a rename. A file beside it is locked, so
//! that no two workers write to one spool ([`place`]).
//!
//! **Invariants.** What was appended is there after any crash until it is settled. A torn end is cut off; damage before
//! the end is told, the damaged file kept, and costs no record that is whole.

mod place;
mod record;

use minium_protocol::LeaseToken;
use minium_queue::Outcome;
use place::{FILES_MAX, Server};
use record::Record;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Below so many bytes a file is not written anew.
const COMPACT_BYTES_MIN: u64 = 1 << 20;

/// Bounds of a spool.
#[derive(Debug, Clone)]
pub struct SpoolOptions {
    /// While it holds so many outcomes, it is full.
    pub count_max: usize,
    /// While its outcomes take so many bytes on the disk, it is full.
    pub bytes_max: usize,
}

impl Default for SpoolOptions {
    fn default() -> SpoolOptions {
        SpoolOptions { count_max: 10_000, bytes_max: 256 << 20 }
    }
}

/// A spool that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpoolError {
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
    /// Other workers use every file that there may be.
    #[error("all {FILES_MAX} spools in {0} are in use by other workers")]
    InUse(String),
}

/// What a spool does to its file, so that a test sees in which order.
trait Medium: Write + Seek + fmt::Debug + Send + Sync {
    /// What was written is on the disk when this returns.
    fn sync_data(&self) -> io::Result<()>;

    fn set_len(&self, length: u64) -> io::Result<()>;
}

impl Medium for File {
    fn sync_data(&self) -> io::Result<()> {
        File::sync_data(self)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        File::set_len(self, length)
    }
}

/// Outcomes on disk.
#[derive(Debug)]
pub struct Spool {
    path: PathBuf,
    file: Box<dyn Medium>,
    length: u64,
    options: SpoolOptions,
    /// In the order in which they came, each with the bytes of its record.
    live: BTreeMap<u64, (Outcome, usize)>,
    places: HashMap<LeaseToken, u64>,
    last: u64,
    /// Of all live records.
    bytes: usize,
    /// The file may hold half a record at its end: it is written anew before anything is appended.
    torn: bool,
    /// Locked as long as this lives.
    _lock: File,
}

impl Spool {
    /// Opens or creates the spool for one server in `dir`. `addresses` are all those under which the server is known:
    /// outcomes for another one are never reported to it. Of several files, the first that no other worker has; what
    /// others hold that nobody uses is taken over.
    ///
    /// # Errors
    /// [`SpoolError`].
    pub fn open(dir: &Path, addresses: &[&str], options: SpoolOptions) -> Result<Spool, SpoolError> {
        let server = Server::new(addresses);
        let mut spool = place::take(dir, &server, options)?;
        place::adopt(&mut spool, dir, &server);
        Ok(spool)
    }

    /// How many outcomes a file holds.
    fn peek(path: &Path) -> Result<usize, SpoolError> {
        let bytes = fs::read(path).map_err(|e| disk("read", path, e))?;
        let mut open = HashSet::new();
        for (record, _) in record::scan(&bytes).records {
            match record {
                Record::Outcome(outcome) => open.insert(outcome.lease),
                Record::Done(lease) => open.remove(&lease),
            };
        }
        Ok(open.len())
    }

    fn read(path: PathBuf, lock: File, options: SpoolOptions) -> Result<Spool, SpoolError> {
        let mut file = open(&path, false)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|e| disk("read", &path, e))?;
        let found = record::scan(&bytes);
        if found.damaged > 0 {
            let kept = path.with_extension(format!("damaged-{}", std::process::id()));
            let copied = fs::copy(&path, &kept).map(|_| kept.display().to_string());
            tracing::error!(
                spool = %path.display(),
                bytes = found.damaged,
                kept = copied.unwrap_or_else(|e| e.to_string()),
                "The spool is damaged; what was whole goes on."
            );
        }
        let mut spool = Spool {
            path,
            file: Box::new(file),
            length: bytes.len() as u64,
            options,
            live: BTreeMap::new(),
            places: HashMap::new(),
            last: 0,
            bytes: 0,
            torn: false,
            _lock: lock,
        };
        for (record, bytes) in found.records {
            match record {
                Record::Outcome(outcome) => spool.remember(outcome, bytes),
                Record::Done(lease) => spool.forget(lease),
            }
        }
        if found.end < bytes.len() || found.damaged > 0 || spool.live.is_empty() {
            spool.rewrite()?;
        }
        Ok(spool)
    }

    /// Keeps outcomes. When this returns, they are on the disk.
    ///
    /// # Errors
    /// [`SpoolError::Disk`]: none of them is kept.
    pub fn append(&mut self, outcomes: &[Outcome]) -> Result<(), SpoolError> {
        let (mut bytes, mut fresh) = (Vec::new(), Vec::new());
        for outcome in outcomes.iter().filter(|o| !self.places.contains_key(&o.lease)) {
            let before = bytes.len();
            record::write_outcome(&mut bytes, outcome);
            fresh.push((outcome, bytes.len() - before));
        }
        if fresh.is_empty() {
            return Ok(());
        }
        self.write(&bytes, true)?;
        fresh.into_iter().for_each(|(outcome, bytes)| self.remember(outcome.clone(), bytes));
        Ok(())
    }

    /// Does the disk take anything? Writes a record that means nothing.
    ///
    /// # Errors
    /// [`SpoolError::Disk`].
    pub fn probe(&mut self) -> Result<(), SpoolError> {
        let mut bytes = Vec::new();
        record::write_done(&mut bytes, LeaseToken::fresh());
        self.write(&bytes, true)
    }

    /// These were reported. If the disk does not take it, they are reported again one day, which is harmless.
    pub fn settle(&mut self, leases: &[LeaseToken]) {
        let mut bytes = Vec::new();
        for lease in leases.iter().filter(|lease| self.places.contains_key(lease)) {
            record::write_done(&mut bytes, *lease);
        }
        leases.iter().for_each(|lease| self.forget(*lease));
        if !bytes.is_empty()
            && let Err(error) = self.write(&bytes, false)
        {
            tracing::warn!(%error, "The spool could not note what was reported.");
        }
        let worth = self.length >= COMPACT_BYTES_MIN && self.length > 2 * self.bytes as u64;
        if worth && let Err(error) = self.rewrite() {
            tracing::warn!(%error, "The spool could not be written anew.");
        }
    }

    /// What is to be reported, the oldest first.
    pub fn outcomes(&self) -> impl Iterator<Item = &Outcome> {
        self.live.values().map(|(outcome, _)| outcome)
    }

    /// How many outcomes it holds.
    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// Is there nothing to be reported?
    pub fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    /// Is it as full as it may be? Nothing more should be claimed; what runs is kept all the same.
    pub fn is_full(&self) -> bool {
        self.live.len() >= self.options.count_max || self.bytes >= self.options.bytes_max
    }

    /// From now on the disk takes nothing, until the spool's directory is there again.
    #[cfg(test)]
    pub(crate) fn lose_disk(&mut self) {
        self.file = Box::new(File::open("/dev/null").unwrap());
        fs::remove_dir_all(self.path.parent().unwrap()).unwrap();
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn remember(&mut self, outcome: Outcome, bytes: usize) {
        self.forget(outcome.lease);
        self.last += 1;
        self.bytes += bytes;
        self.places.insert(outcome.lease, self.last);
        self.live.insert(self.last, (outcome, bytes));
    }

    fn forget(&mut self, lease: LeaseToken) {
        if let Some((_, bytes)) = self.places.remove(&lease).and_then(|place| self.live.remove(&place)) {
            self.bytes -= bytes;
        }
    }

    /// Appends records, whole or not at all.
    fn write(&mut self, bytes: &[u8], sync: bool) -> Result<(), SpoolError> {
        if self.torn {
            self.rewrite()?;
        }
        let written = self.file.write_all(bytes);
        match written.and_then(|()| if sync { self.file.sync_data() } else { Ok(()) }) {
            Ok(()) => {
                self.length += bytes.len() as u64;
                Ok(())
            }
            Err(error) => {
                // half a record would hide those behind it from nobody, but would be there for ever
                self.cut_back();
                Err(disk("write to", &self.path, error))
            }
        }
    }

    /// Back to what was written in whole.
    fn cut_back(&mut self) {
        let cut = self.file.set_len(self.length).and_then(|()| self.file.seek(SeekFrom::Start(self.length)));
        if let Err(error) = cut {
            tracing::warn!(%error, "The spool could not be cut back; it is written anew before it is used again.");
            self.torn = true;
        }
    }

    /// Writes what is to be reported into a new file, which takes the old one's place.
    fn rewrite(&mut self) -> Result<(), SpoolError> {
        let fresh = self.path.with_extension("new");
        let mut bytes = Vec::new();
        self.live.values().for_each(|(outcome, _)| record::write_outcome(&mut bytes, outcome));
        let mut file = open(&fresh, true)?;
        file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(|e| disk("write", &fresh, e))?;
        fs::rename(&fresh, &self.path).map_err(|e| disk("replace", &self.path, e))?;
        (self.file, self.length, self.torn) = (Box::new(file), bytes.len() as u64, false);
        let dir = self.path.parent().unwrap_or(Path::new("."));
        File::open(dir).and_then(|d| d.sync_all()).map_err(|e| disk("write", dir, e))
    }
}

fn open(path: &Path, anew: bool) -> Result<File, SpoolError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(anew).mode(0o600);
    options.open(path).map_err(|e| disk("open", path, e))
}

fn disk(attempted: &'static str, path: &Path, source: io::Error) -> SpoolError {
    SpoolError::Disk { attempted, path: path.display().to_string(), source }
}

#[cfg(test)]
mod tests;
