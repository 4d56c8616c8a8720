//! An archive in an object store: a directory of its own, the *spool*, is written as any archive is, and what is closed of it
//! is put into the bucket.
//!
//! **Invariants.** An object of a segment is put once and never changed: where another one stands already, another recorder
//! works on the same archive, and this one ends. The manifest's object is put last, in place of exactly the one that was
//! seen before. Both are the fence: of two recorders one goes on. Whatever step a crash comes behind, the next start does
//! the following one: a segment that stands there with the same bytes was put by a start before. Nothing leaves the
//! spool before the bucket's manifest names it.
//!
//! Who records never waits for an upload: that has a task of its own, which reads beside the runtime and holds one segment
//! in memory at a time. What is closed meanwhile waits on the disk.

use crate::bucket::{Bucket, Put};
use crate::digest::Digest;
use crate::disk::{Disk, Real};
use crate::error::{AuditError, disk};
use crate::home::{ARCHIVE, Home, segment_name};
use crate::manifest::{Line, Manifest, NAME};
use crate::place::Place;
use crate::record::{RecordOptions, Recorded, Uploaded, record};
use crate::seal::SealKey;
use crate::spool::{Closed, Spool};
use crate::writer::{SegmentLimits, Writer, line_of};
use minium_client::Client;
use std::path::Path;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
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
    spool: Spool,
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
        Upload { bucket, spool: Spool { dir: dir.to_owned() }, confirm }
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
        Writer::open_spool(&self.spool.dir, topics, key, limits, &|| self.prepare())
    }

    fn taken(&self) -> AuditError {
        AuditError::Taken { at: self.bucket.to_string(), spool: self.spool.dir.display().to_string() }
    }

    /// Holds the spool against the bucket, or makes it from there. The spool is locked.
    fn prepare(&self) -> Result<(), AuditError> {
        let theirs = Place::Bucket(self.bucket.clone());
        let Some(archive) = theirs.read(ARCHIVE)? else { return Ok(()) };
        let ours = Place::Dir(self.spool.dir.clone());
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
        let path = self.spool.dir.join(name);
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
        // it ends with this
        let mut uploading = JoinSet::new();
        uploading.spawn(self.run(sealed, uploaded));
        tokio::select! {
            recorded = &mut recording => {
                // its writer is gone, and so the rest is put and that ends, too
                let put = outcome(uploading.join_next().await);
                let recorded = recorded?;
                put.map(|()| recorded)
            }
            put = uploading.join_next() => {
                ended.cancel();
                let recorded = recording.await?;
                outcome(put).map(|()| recorded)
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
                let last = found.segments;
                uploaded.send_replace(self.spool.beside(move |spool| spool.reached(last)).await?);
            }
            *standing = Some(found);
        }
        let standing = standing.as_mut().expect("it was found just now");
        while standing.segments < closed {
            let number = standing.segments + 1;
            let Closed { bytes, line, positions } =
                self.spool.beside(move |spool| spool.closed(number)).await?;
            self.put_segment(&segment_name(number), bytes, &line).await?;
            self.put_manifest(standing, number, &line).await?;
            debug!(segment = number, "A segment is in the bucket.");
            uploaded.send_replace(positions);
            self.spool.beside(move |spool| spool.tidy(number)).await?;
        }
        Ok(())
    }

    /// What stands in the bucket, which must be the beginning of what the spool has.
    async fn find(&self) -> Result<Standing, AuditError> {
        let (own, lines) = self.spool.beside(|spool| Ok((spool.own(ARCHIVE)?, spool.own(NAME)?))).await?;
        // as a rule it stands there, and then it is that one
        if self.bucket.put(ARCHIVE, own.clone(), None).await? == Put::Other
            && self.bucket.get(ARCHIVE).await?.is_none_or(|(bytes, _)| bytes != own)
        {
            return Err(self.taken());
        }
        let Some((manifest, e_tag)) = self.bucket.get(NAME).await? else { return Ok(Standing::default()) };
        if !lines.starts_with(&manifest) {
            return Err(self.taken());
        }
        let segments = manifest.iter().filter(|byte| **byte == b'\n').count() as u64;
        Ok(Standing { manifest, e_tag, segments })
    }

    /// Puts a segment where none stands.
    async fn put_segment(&self, name: &str, bytes: Vec<u8>, line: &Line) -> Result<(), AuditError> {
        if let Put::Done(_) = self.bucket.put(name, bytes, None).await? {
            return Ok(());
        }
        // a start before may have put it and not have heard so
        let Some((bytes, _)) = self.bucket.get(name).await? else { return Err(self.taken()) };
        let sha256 = self.spool.beside(move |_| Ok(Digest::of(&bytes))).await?;
        if sha256 == line.sha256 { Ok(()) } else { Err(self.taken()) }
    }

    async fn put_manifest(
        &self,
        standing: &mut Standing,
        number: u64,
        line: &Line,
    ) -> Result<(), AuditError> {
        let mut text = standing.manifest.clone();
        text.extend_from_slice(line.text().as_bytes());
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
}

/// How the task that uploads has ended. There is one, and it is waited for once.
fn outcome(ended: Option<Result<Result<(), AuditError>, JoinError>>) -> Result<(), AuditError> {
    ended.map_or(Ok(()), |ended| ended.map_err(|e| AuditError::Reader(e.into()))?)
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
