//! An archive in an object store: a directory of its own, the *spool*, is written as any archive is, and what is closed of it
//! is put into the bucket.
//!
//! **Invariants.** An object of a segment is put once and never changed: where another one stands already, another recorder
//! works on the same archive, and this one ends. The manifest's object is put last, in place of exactly the one that was
//! seen before. Both are the fence: of two recorders one goes on. Whatever step a crash comes behind, the next start does
//! the following one: a segment that stands there with the same bytes was put by a start before. Nothing leaves the
//! spool before the bucket's manifest names it.

use crate::blocks::Blocks;
use crate::bucket::{Bucket, Put};
use crate::digest::Digest;
use crate::disk::{Disk, Real};
use crate::error::{AuditError, disk};
use crate::home::{ARCHIVE, Home, segment_name};
use crate::manifest::{Line, Manifest, NAME};
use crate::place::Place;
use crate::record::{RecordOptions, Recorded, Uploaded, record};
use crate::seal::SealKey;
use crate::writer::{SegmentLimits, Writer, line_of};
use minium_client::Client;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// Pauses while the store does not answer, doubled from the first to the longest.
const AWAY_FIRST: Duration = Duration::from_secs(1);
const AWAY_MAX: Duration = Duration::from_secs(60);

/// Of what the server is told that it is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confirm {
    /// What is on the spool's disk.
    Spooled,
    /// What is in the bucket.
    Uploaded,
}

/// From a spool to a bucket.
#[derive(Debug)]
pub struct Upload {
    bucket: Bucket,
    dir: PathBuf,
    confirm: Confirm,
}

/// What stands in the bucket.
#[derive(Debug, Default)]
struct Standing {
    /// The manifest's lines, as one text.
    manifest: Vec<u8>,
    e_tag: Option<String>,
    /// So many segments are named by it.
    segments: u64,
}

impl Upload {
    /// From this directory to this bucket.
    pub fn new(bucket: Bucket, dir: &Path, confirm: Confirm) -> Upload {
        Upload { bucket, dir: dir.to_owned(), confirm }
    }

    /// Opens the spool. Where there is none yet and the bucket has an archive, that one is gone on with: a machine that was lost
    /// is replaced so. Waits for the store: not from within a task of the runtime.
    ///
    /// # Errors
    /// As [`Writer::open`]; [`AuditError::Taken`] when another recorder has gone on with the archive.
    pub fn writer(
        &self,
        topics: &[String],
        key: Option<SealKey>,
        limits: SegmentLimits,
    ) -> Result<Writer, AuditError> {
        Writer::open_spool(&self.dir, topics, key, limits, &|| self.prepare())
    }

    fn taken(&self) -> AuditError {
        AuditError::Taken { at: self.bucket.to_string(), spool: self.dir.display().to_string() }
    }

    /// Holds the spool against the bucket, or makes it from there. The spool is locked.
    fn prepare(&self) -> Result<(), AuditError> {
        let theirs = Place::Bucket(self.bucket.clone());
        let Some(archive) = theirs.read(ARCHIVE)? else { return Ok(()) };
        let ours = Place::Dir(self.dir.clone());
        match ours.read(ARCHIVE)? {
            Some(own) if own == archive => {
                let (own, other) =
                    (ours.read(NAME)?.unwrap_or_default(), theirs.read(NAME)?.unwrap_or_default());
                if own.starts_with(&other) { Ok(()) } else { Err(self.taken()) }
            }
            Some(_) => Err(self.taken()),
            None => self.restore(&archive),
        }
    }

    /// The last segment and the manifest are what a recorder needs to go on; what says that there is an archive comes last.
    fn restore(&self, archive: &[u8]) -> Result<(), AuditError> {
        let home = Home::open(Place::Bucket(self.bucket.clone()))?;
        let mut lines = Manifest::read(&home)?.lines;
        let last = home.segments()?.last().copied().unwrap_or(0);
        if last == lines.len() as u64 + 1 {
            // whoever put it did not come to the manifest
            lines.push(line_of(&home, last)?);
        }
        if last != lines.len() as u64 {
            let path = self.bucket.to_string();
            return Err(AuditError::NoArchive { path, reason: "segments are missing".into() });
        }
        if last > 0 {
            let name = segment_name(last);
            let bytes = home.place.read(&name)?.unwrap_or_default();
            if lines.last().is_some_and(|line| line.sha256 != Digest::of(&bytes)) {
                let reason = "it is not what the manifest says".into();
                return Err(AuditError::Damaged { file: name, offset: 0, reason });
            }
            self.keep(&name, &bytes)?;
            self.keep(NAME, lines.iter().map(Line::text).collect::<String>().as_bytes())?;
        }
        self.keep(ARCHIVE, archive)?;
        info!(archive = %self.bucket, segments = last, "The spool is empty; the archive is gone on with where it ends.");
        Ok(())
    }

    fn keep(&self, name: &str, bytes: &[u8]) -> Result<(), AuditError> {
        let path = self.dir.join(name);
        Real.replace(&path, bytes).map_err(disk("write", &path))
    }

    /// Records until `stop`, as [`record`] does, and puts what is closed into the bucket meanwhile.
    ///
    /// # Errors
    /// As [`record`]; [`AuditError::Taken`] when another recorder goes on with the archive; with `once`, or when it ends, what
    /// the store says if not everything that is closed can be put there.
    pub async fn record(
        self,
        client: &Client,
        writer: Writer,
        options: RecordOptions,
        stop: CancellationToken,
    ) -> Result<Recorded, AuditError> {
        let sealed = writer.sealed();
        let (uploaded, known) = watch::channel(Uploaded::new());
        let options =
            RecordOptions { uploaded: (self.confirm == Confirm::Uploaded).then_some(known), ..options };
        let ended = stop.child_token();
        let mut recording = Box::pin(record(client, writer, options, ended.clone()));
        let mut uploading = Box::pin(self.run(sealed, uploaded));
        tokio::select! {
            recorded = &mut recording => {
                // its writer is gone, and so the rest is put and that ends, too
                let put = uploading.await;
                let recorded = recorded?;
                put.map(|()| recorded)
            }
            put = &mut uploading => {
                ended.cancel();
                let recorded = recording.await?;
                put.map(|()| recorded)
            }
        }
    }

    /// Puts each segment that is closed, until nobody closes any more.
    pub(crate) async fn run(
        self,
        mut sealed: watch::Receiver<u64>,
        uploaded: watch::Sender<Uploaded>,
    ) -> Result<(), AuditError> {
        let (mut standing, mut pause) = (None, AWAY_FIRST);
        loop {
            let ended = sealed.has_changed().is_err();
            let closed = *sealed.borrow_and_update();
            match self.catch_up(&mut standing, closed, &uploaded).await {
                Ok(()) if ended => return Ok(()),
                Ok(()) => {
                    if pause > AWAY_FIRST {
                        info!(archive = %self.bucket, "The object store answers again.");
                    }
                    pause = AWAY_FIRST;
                    // an end is looked at above
                    sealed.changed().await.ok();
                }
                Err(error) if is_away(&error) && !ended => {
                    if pause == AWAY_FIRST {
                        warn!(%error, "The object store does not take what is closed; the spool keeps it.");
                    }
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = closed_for_good(&sealed) => {}
                    }
                    pause = (pause * 2).min(AWAY_MAX);
                    standing = None;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn catch_up(
        &self,
        standing: &mut Option<Standing>,
        closed: u64,
        uploaded: &watch::Sender<Uploaded>,
    ) -> Result<(), AuditError> {
        if standing.is_none() {
            let found = self.find().await?;
            if found.segments > 0 {
                uploaded.send_replace(self.positions(found.segments)?);
            }
            *standing = Some(found);
        }
        let standing = standing.as_mut().expect("it was found just now");
        while standing.segments < closed {
            let number = standing.segments + 1;
            self.put_segment(number).await?;
            self.put_manifest(standing, number).await?;
            debug!(segment = number, "A segment is in the bucket.");
            uploaded.send_replace(self.positions(number)?);
            self.tidy(number)?;
        }
        Ok(())
    }

    /// What stands in the bucket, which must be the beginning of what the spool has.
    async fn find(&self) -> Result<Standing, AuditError> {
        let own = self.own(ARCHIVE)?;
        // as a rule it stands there, and then it is that one
        if self.bucket.put(ARCHIVE, own.clone(), None).await? == Put::Other
            && self.bucket.get(ARCHIVE).await?.is_none_or(|(bytes, _)| bytes != own)
        {
            return Err(self.taken());
        }
        let Some((manifest, e_tag)) = self.bucket.get(NAME).await? else { return Ok(Standing::default()) };
        if !self.own(NAME)?.starts_with(&manifest) {
            return Err(self.taken());
        }
        let segments = manifest.iter().filter(|byte| **byte == b'\n').count() as u64;
        Ok(Standing { manifest, e_tag, segments })
    }

    fn own(&self, name: &str) -> Result<Vec<u8>, AuditError> {
        let path = self.dir.join(name);
        match fs::read(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            read => read.map_err(disk("read", &path)),
        }
    }

    async fn put_segment(&self, number: u64) -> Result<(), AuditError> {
        let name = segment_name(number);
        let bytes = self.own(&name)?;
        let line = self.line(number)?;
        if line.sha256 != Digest::of(&bytes) {
            let reason = "it is not what the manifest says".into();
            return Err(AuditError::Damaged { file: name, offset: 0, reason });
        }
        match self.bucket.put(&name, bytes, None).await? {
            Put::Done(_) => Ok(()),
            // a start before may have put it and not have heard so
            Put::Other => match self.bucket.get(&name).await? {
                Some((bytes, _)) if Digest::of(&bytes) == line.sha256 => Ok(()),
                _ => Err(self.taken()),
            },
        }
    }

    async fn put_manifest(&self, standing: &mut Standing, number: u64) -> Result<(), AuditError> {
        let mut text = standing.manifest.clone();
        text.extend_from_slice(self.line(number)?.text().as_bytes());
        let put = self.bucket.put(NAME, text.clone(), standing.e_tag.clone()).await?;
        let e_tag = match put {
            Put::Done(Some(e_tag)) => Some(e_tag),
            // either it is ours and the answer was lost, or it is another's
            Put::Done(None) | Put::Other => match self.bucket.get(NAME).await? {
                Some((bytes, e_tag)) if bytes == text => e_tag,
                _ => return Err(self.taken()),
            },
        };
        *standing = Standing { manifest: text, e_tag, segments: number };
        Ok(())
    }

    /// What the spool's manifest says of a segment.
    fn line(&self, number: u64) -> Result<Line, AuditError> {
        let lines = Manifest::parse(&self.own(NAME)?).lines;
        let line = usize::try_from(number - 1).ok().and_then(|n| lines.into_iter().nth(n));
        let reason = || format!("segment {number} has no line in it");
        line.ok_or_else(|| AuditError::Damaged { file: NAME.into(), offset: 0, reason: reason() })
    }

    /// How far each topic is with the last block of a segment.
    fn positions(&self, number: u64) -> Result<Uploaded, AuditError> {
        let path = self.dir.join(segment_name(number));
        let bytes = self.own(&segment_name(number))?;
        let mut blocks = Blocks::new(&bytes[..]).map_err(disk("read", &path))?;
        let mut positions = Uploaded::new();
        while let Some(Ok(block)) = blocks.next().map_err(disk("read", &path))? {
            let of_block = block.record.summary.positions;
            positions = of_block.into_iter().map(|(topic, at)| (topic, at.0)).collect();
        }
        Ok(positions)
    }

    /// The last closed segment stays: the next start begins with it.
    fn tidy(&self, uploaded: u64) -> Result<(), AuditError> {
        let home = Home::open(Place::Dir(self.dir.clone()))?;
        for number in home.segments()?.into_iter().filter(|number| *number < uploaded) {
            let path = home.path(&segment_name(number));
            fs::remove_file(&path).map_err(disk("remove", &path))?;
        }
        Ok(())
    }
}

/// Is it the store that does not answer, or does not want to now?
fn is_away(error: &AuditError) -> bool {
    let AuditError::Disk { source, .. } = error else { return false };
    source.get_ref().is_some_and(|inner| inner.is::<object_store::Error>())
}

async fn closed_for_good(sealed: &watch::Receiver<u64>) {
    let mut sealed = sealed.clone();
    while sealed.changed().await.is_ok() {}
}
