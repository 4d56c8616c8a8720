//! Where a spool's file is, and whose it is.
//!
//! A file bears a name made from all addresses of its server, and beside it lies a lock that lists them. So what an
//! earlier run left is found whatever the order of the addresses, whether some came or went, and whichever of several
//! workers left it: whoever has one address in common with a file that nobody uses takes its outcomes over. Of the others
//! the log tells, since no other server may get them.

use super::{Spool, SpoolError, SpoolOptions, disk, open};
use rustix::fs::{FlockOperation, flock};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use tracing::{info, warn};

/// Workers of one machine that report to one server have a file each.
pub(super) const FILES_MAX: u32 = 64;
/// So many files of a directory are looked at.
const LOOKED_AT_MAX: usize = 4_096;
/// No list of addresses is longer.
const LIST_BYTES_MAX: u64 = 64 * 1024;

/// All addresses of one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Server(BTreeSet<String>);

impl Server {
    pub(super) fn new(addresses: &[&str]) -> Server {
        Server(addresses.iter().map(|a| a.trim_end_matches('/').to_owned()).collect())
    }

    /// A file name, whatever the addresses have in them.
    fn name(&self) -> String {
        let lines: Vec<&str> = self.0.iter().map(String::as_str).collect();
        let digest = Sha256::digest(lines.join("\n").as_bytes());
        digest[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Does a file with this name, whose lock lists these, belong to it?
    fn owns(&self, file: &Path, listed: &Server) -> bool {
        if !listed.0.is_empty() {
            return !self.0.is_disjoint(&listed.0);
        }
        // the list was lost, or never written: earlier versions named files by the first address
        let stem = file.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
        let named = stem.split('-').next().unwrap_or_default();
        let alone = |address: &String| Server(BTreeSet::from([address.clone()])).name() == named;
        self.name() == named || self.0.iter().any(alone)
    }

    fn write(&self, lock: &mut File) -> std::io::Result<()> {
        let lines: String = self.0.iter().flat_map(|address| [address, "\n"]).collect();
        lock.set_len(0)?;
        lock.rewind()?;
        lock.write_all(lines.as_bytes())
    }

    fn read(lock: &File) -> std::io::Result<Server> {
        let mut text = String::new();
        lock.take(LIST_BYTES_MAX).read_to_string(&mut text)?;
        Ok(Server(text.lines().map(str::to_owned).collect()))
    }
}

/// The first file of this server that no other worker has.
pub(super) fn take(dir: &Path, server: &Server, options: SpoolOptions) -> Result<Spool, SpoolError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(dir).map_err(|e| disk("create", dir, e))?;
    for n in 1..=FILES_MAX {
        let path = dir.join(format!("{}-{n}.spool", server.name()));
        if let Some(mut lock) = lock(&path)? {
            server.write(&mut lock).map_err(|e| disk("write to the lock of", &path, e))?;
            return Spool::read(path, lock, options);
        }
    }
    Err(SpoolError::InUse(dir.display().to_string()))
}

/// Takes over what other files of the same server hold that nobody uses, as far as there is room.
pub(super) fn adopt(spool: &mut Spool, dir: &Path, server: &Server) {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) => return warn!(%error, dir = %dir.display(), "The other spools cannot be looked at."),
    };
    let files = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let mut files: Vec<PathBuf> = files
        .filter(|path| path.extension().is_some_and(|e| e == "spool") && path != spool.path())
        .filter(|path| fs::metadata(path).is_ok_and(|file| file.len() > 0))
        .take(LOOKED_AT_MAX)
        .collect();
    files.sort_unstable();
    for path in files {
        if let Err(error) = adopt_file(spool, &path, server) {
            warn!(%error, spool = %path.display(), "What another spool holds cannot be taken over.");
        }
    }
}

fn adopt_file(spool: &mut Spool, path: &Path, server: &Server) -> Result<(), SpoolError> {
    // whoever has it reports what it holds
    let Some(lock) = lock(path)? else { return Ok(()) };
    let listed = Server::read(&lock).map_err(|e| disk("read the lock of", path, e))?;
    if !server.owns(path, &listed) {
        let outcomes = Spool::peek(path)?;
        if outcomes > 0 {
            let addresses = listed.0.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
            warn!(
                outcomes, addresses, spool = %path.display(),
                "Outcomes for another server wait in a spool that nobody uses: start a worker for it."
            );
        }
        return Ok(());
    }
    let mut other = Spool::read(path.to_owned(), lock, spool.options.clone())?;
    if other.is_empty() {
        return Ok(());
    }
    if spool.is_full() {
        let outcomes = other.len();
        warn!(outcomes, spool = %path.display(), "The spool is full: what another one holds waits for the next start.");
        return Ok(());
    }
    let outcomes: Vec<_> = other.outcomes().cloned().collect();
    spool.append(&outcomes)?;
    other.settle(&outcomes.iter().map(|outcome| outcome.lease).collect::<Vec<_>>());
    other.rewrite()?;
    info!(outcomes = outcomes.len(), spool = %path.display(), "Outcomes of a spool that nobody uses are taken over.");
    Ok(())
}

/// The lock of a spool; nothing when another worker has it.
fn lock(path: &Path) -> Result<Option<File>, SpoolError> {
    let path = path.with_extension("lock");
    let file = open(&path, false)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(disk("lock", &path, error.into())),
    }
}
