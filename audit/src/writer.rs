//! Writes an archive: block by block, each on the disk when [`Writer::append`] returns.
//!
//! **Invariants.** What is committed is what the last whole block says; there is no second place that could disagree. A
//! block is one write and one fdatasync; a segment's name is on the disk before its first block. What does not reach the
//! disk in whole is cut off before anything else is written. On start everything behind the last whole block is cut off:
//! nobody was told of it. If something that somebody was told of stands behind a block that is not whole, nothing is
//! written at all.

use crate::block::{At, Batch, Chain, DATA_BYTES_MAX, LINES_BYTES_MAX, Note, RECORD_BYTES_MAX, Record};
use crate::blocks::{Blocks, Broken, claimed, later_record};
use crate::disk::{Disk, Medium, Real};
use crate::error::{AuditError, disk};
use crate::home::{Home, SEGMENTS_MAX, lock, segment_name};
use crate::manifest::{Line, Manifest, Tally};
use crate::seal::SealKey;
use crate::tail::tail_start;
use jiff::{SignedDuration, Timestamp};
use minium_protocol::Position;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;
use tokio::sync::watch;
use tracing::warn;
use zstd::zstd_safe::compress_bound;

/// When a segment is closed.
#[derive(Debug, Clone)]
pub struct SegmentLimits {
    /// With so many bytes.
    pub bytes_max: u64,
    /// So long after its first block.
    pub age_max: SignedDuration,
}

impl Default for SegmentLimits {
    fn default() -> SegmentLimits {
        SegmentLimits { bytes_max: 256 << 20, age_max: SignedDuration::from_hours(24) }
    }
}

/// Writes to one archive, alone.
#[derive(Debug)]
pub struct Writer {
    home: Home,
    on: Box<dyn Disk>,
    chain: Chain,
    segment: Option<Segment>,
    /// The number of the last segment.
    number: u64,
    /// The last fact on record, while nothing came behind it.
    last_note: Option<(String, Note)>,
    key: Option<SealKey>,
    limits: SegmentLimits,
    /// Segments that the manifest knows may be gone from here.
    spool: bool,
    /// So many segments are closed.
    sealed: watch::Sender<u64>,
    _lock: File,
}

/// The segment that is written.
struct Segment {
    file: Box<dyn Medium>,
    tally: Tally,
    begun: Option<Timestamp>,
    /// It may have half a block at its end.
    torn: bool,
}

impl std::fmt::Debug for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Segment").field("bytes", &self.tally.bytes()).finish_non_exhaustive()
    }
}

impl Writer {
    /// Opens the archive of these topics in `dir`, or makes it; finds where it ends, and cuts off what is not whole.
    ///
    /// # Errors
    /// [`AuditError::InUse`] while another recorder writes to it; [`AuditError::Mismatch`] when it is of other topics or
    /// another key; [`AuditError::Damaged`] when what was confirmed is not as it was written.
    pub fn open(
        dir: &Path,
        topics: &[String],
        key: Option<SealKey>,
        limits: SegmentLimits,
    ) -> Result<Writer, AuditError> {
        Writer::open_on(Box::new(Real), dir, topics, key, limits)
    }

    /// The same of an archive whose closed segments leave it once they are in a bucket. `prepare` is asked when nobody else can
    /// write to it.
    #[cfg(feature = "s3")]
    pub(crate) fn open_spool(
        dir: &Path,
        topics: &[String],
        key: Option<SealKey>,
        limits: SegmentLimits,
        prepare: &dyn Fn() -> Result<(), AuditError>,
    ) -> Result<Writer, AuditError> {
        let lock = lock(dir)?;
        prepare()?;
        Writer::open_locked(lock, Box::new(Real), dir, topics, key, limits, true)
    }

    pub(crate) fn open_on(
        on: Box<dyn Disk>,
        dir: &Path,
        topics: &[String],
        key: Option<SealKey>,
        limits: SegmentLimits,
    ) -> Result<Writer, AuditError> {
        Writer::open_locked(lock(dir)?, on, dir, topics, key, limits, false)
    }

    fn open_locked(
        lock: File,
        on: Box<dyn Disk>,
        dir: &Path,
        topics: &[String],
        key: Option<SealKey>,
        limits: SegmentLimits,
        spool: bool,
    ) -> Result<Writer, AuditError> {
        let home = Home::make(&*on, dir, topics, key.as_ref().map(SealKey::check_key))?;
        let numbers = home.segments()?;
        let chain = home.chain();
        let (number, last_note) = (numbers.last().copied().unwrap_or(0), None);
        let (segment, sealed) = (None, watch::Sender::new(0));
        let mut writer =
            Writer { home, on, chain, segment, number, last_note, key, limits, spool, sealed, _lock: lock };
        writer.recover(&numbers)?;
        writer.complete_manifest()?;
        let closed = if writer.segment.is_some() { number.saturating_sub(1) } else { number };
        writer.sealed.send_replace(closed);
        Ok(writer)
    }

    /// Is what is closed of it put elsewhere?
    pub(crate) fn is_spool(&self) -> bool {
        self.spool
    }

    /// Hears how many segments are closed.
    #[cfg(feature = "s3")]
    pub(crate) fn sealed(&self) -> watch::Receiver<u64> {
        self.sealed.subscribe()
    }

    /// The segment is old enough to be closed after so long, whether anything comes or not.
    pub(crate) fn seal_in(&self) -> Option<Duration> {
        let begun = self.segment.as_ref()?.begun?;
        let left = self.limits.age_max.saturating_sub(Timestamp::now().duration_since(begun));
        Some(Duration::try_from(left).unwrap_or_default())
    }

    /// Closes the segment, if it has any block: nothing more comes into it.
    pub(crate) fn seal(&mut self) -> Result<(), AuditError> {
        match &self.segment {
            Some(segment) if segment.begun.is_some() => self.close_segment(),
            _ => Ok(()),
        }
    }

    /// How far a topic is recorded.
    pub fn position(&self, topic: &str) -> Option<Position> {
        self.chain.positions.get(topic).map(|at| at.0)
    }

    /// The newest head.
    pub fn head(&self) -> crate::Digest {
        self.chain.head
    }

    /// Writes a block. When this returns, it is on the disk.
    ///
    /// # Errors
    /// [`AuditError::Disk`]: nothing of it is there, and it may be offered again.
    pub fn append(&mut self, batch: &Batch) -> Result<(), AuditError> {
        self.write(batch, None)
    }

    /// Puts on record that events of a topic are missing. The same hole is recorded once while nothing comes behind it.
    ///
    /// # Errors
    /// As [`Writer::append`].
    pub fn note_gap(&mut self, topic: &str, resumes: Position, accepted: bool) -> Result<(), AuditError> {
        self.note_missing(topic, resumes, accepted, None)
    }

    /// The same of one event that is too large: where it stands, and how many bytes it has.
    ///
    /// # Errors
    /// As [`Writer::append`].
    pub fn note_large(
        &mut self,
        topic: &str,
        at: Position,
        bytes: u64,
        accepted: bool,
    ) -> Result<(), AuditError> {
        self.note_missing(topic, at, accepted, Some(bytes))
    }

    fn note_missing(
        &mut self,
        topic: &str,
        resumes: Position,
        accepted: bool,
        bytes: Option<u64>,
    ) -> Result<(), AuditError> {
        let behind = self.position(topic).map(At);
        let told = self.last_note.as_ref().is_some_and(|(of, note)| {
            let same = |b: &Option<At>, of: &Option<u64>| *b == behind && of.is_some() == bytes.is_some();
            of == topic
                && matches!(note, Note::Gap { behind: b, accepted: false, bytes, .. } if same(b, bytes))
        });
        if told && !accepted {
            return Ok(());
        }
        self.write(&Batch::new(topic), Some(Note::Gap { behind, resumes: At(resumes), accepted, bytes }))
    }

    /// Puts on record that the journal counts anew, and where this topic goes on.
    ///
    /// # Errors
    /// As [`Writer::append`].
    pub fn note_epoch(&mut self, topic: &str, resumes: Position) -> Result<(), AuditError> {
        let behind = self.position(topic).map(At);
        self.write(&Batch::new(topic), Some(Note::Epoch { behind, resumes: At(resumes) }))
    }

    fn write(&mut self, batch: &Batch, note: Option<Note>) -> Result<(), AuditError> {
        if let (Some(last), Some(first)) = (self.position(&batch.topic), batch.first)
            && (first.epoch, first.offset) <= (last.epoch, last.offset)
        {
            let reason = format!("event {first} came after {last}");
            return Err(AuditError::Unfit { topic: batch.topic.clone(), reason });
        }
        self.roll()?;
        let path = self.home.path(&segment_name(self.number));
        let failed = || disk("write to", &path);
        let (bytes, record) = self.chain.encode(batch, note, self.key.as_ref()).map_err(failed())?;
        let segment = self.segment.as_mut().expect("there is one after rolling");
        segment.cut_back().map_err(failed())?;
        segment.torn = true;
        segment.file.write_all(&bytes).and_then(|()| segment.file.sync()).map_err(|error| {
            // if it cannot be cut now it is cut before the next block
            segment.cut_back().ok();
            failed()(error)
        })?;
        segment.torn = false;
        segment.tally.add(&bytes, &record);
        segment.begun.get_or_insert(record.summary.at);
        self.chain.advance(&record);
        self.last_note = record.summary.note.map(|note| (record.summary.topic, note));
        Ok(())
    }

    /// Makes sure that there is a segment with room.
    fn roll(&mut self) -> Result<(), AuditError> {
        if self.segment.as_ref().is_some_and(|segment| segment.is_full(&self.limits)) {
            self.close_segment()?;
        }
        if self.segment.is_some() {
            return Ok(());
        }
        let number = self.number + 1;
        if number > SEGMENTS_MAX {
            return Err(AuditError::Mismatch("has as many segments as it may have".into()));
        }
        let path = self.home.path(&segment_name(number));
        let file = self.on.open(&path).map_err(disk("create", &path))?;
        let tally = Tally::new(number, self.chain.head);
        // a file that an attempt before left behind is empty, or is made so
        self.segment = Some(Segment { file, tally, begun: None, torn: true });
        self.number = number;
        Ok(())
    }

    fn close_segment(&mut self) -> Result<(), AuditError> {
        let Some(segment) = &mut self.segment else { return Ok(()) };
        let path = self.home.path(&segment_name(self.number));
        segment.cut_back().map_err(disk("cut", &path))?;
        let line = match segment.tally.is_whole() {
            true => segment.tally.line(),
            false => line_of(&self.home, self.number)?,
        };
        let manifest = Manifest::read(&self.home)?;
        let missing = !manifest.lines.iter().any(|known| known.file == line.file);
        if missing && manifest.is_torn_at_most() {
            manifest.append(&*self.on, &self.home, &[line])?;
        }
        self.segment = None;
        self.sealed.send_replace(self.number);
        Ok(())
    }

    /// Finds the end of the chain in the last segments, and cuts off what is not whole.
    fn recover(&mut self, numbers: &[u64]) -> Result<(), AuditError> {
        let first = numbers.first().copied().unwrap_or(1);
        let gone = self.spool && first > 1 && first <= Manifest::read(&self.home)?.lines.len() as u64 + 1;
        if (first > 1 && !gone) || numbers.iter().copied().ne(first..=self.number) {
            let path = self.home.path("").display().to_string();
            return Err(AuditError::NoArchive { path, reason: "segments are missing".into() });
        }
        // only the last one can be without a block
        for number in numbers.iter().rev().take(2).rev() {
            let (tally, begun) = self.follow(*number, *number == self.number)?;
            if *number == self.number {
                let path = self.home.path(&segment_name(*number));
                let file = self.on.open(&path).map_err(disk("open", &path))?;
                self.segment = Some(Segment { file, tally, begun, torn: true });
            }
        }
        if let Some(segment) = &mut self.segment {
            let path = self.home.path(&segment_name(self.number));
            segment.cut_back().map_err(disk("cut", &path))?;
            // a process that was killed between write and sync leaves a block that is whole, but in memory only
            segment.file.sync().map_err(disk("write", &path))?;
        }
        Ok(())
    }

    /// Walks the chain through the end of a segment. Where that begins it is believed: `verify` looks at all.
    fn follow(&mut self, number: u64, is_last: bool) -> Result<(Tally, Option<Timestamp>), AuditError> {
        let name = segment_name(number);
        let path = self.home.path(&name);
        let mut file = File::open(&path).map_err(disk("open", &path))?;
        let length = file.metadata().map_err(disk("read", &path))?.len();
        let start = tail_start(&mut file, length).map_err(disk("read", &path))?;
        let mut begun = match start {
            0 => None,
            _ => begun_at(&mut file).map_err(disk("read", &path))?,
        };
        file.seek(SeekFrom::Start(start)).map_err(disk("read", &path))?;
        let mut blocks = Blocks::new_at(file, start).map_err(disk("read", &path))?;
        let mut tally = Tally::behind(number, self.chain.head, start);
        let mut believed = start == 0 && (number == 1 || self.chain.block > 0);
        let broken = loop {
            let mut block = match blocks.next().map_err(disk("read", &path))? {
                None => break None,
                Some(Err(broken)) => break Some(broken),
                Some(Ok(block)) => block,
            };
            if !std::mem::replace(&mut believed, true) {
                self.chain.believe(&block.record);
            }
            if let Err(reason) = block.check(&self.chain) {
                break Some(Broken { offset: block.offset, reason, torn: false });
            }
            tally.add(block.bytes, &block.record);
            begun.get_or_insert(block.record.summary.at);
            self.chain.advance(&block.record);
            let Record { summary, .. } = block.record;
            self.last_note = summary.note.map(|note| (summary.topic, note));
        };
        let Some(Broken { offset, reason, .. }) = broken else { return Ok((tally, begun)) };
        // more than a block is not what a crash leaves of one
        let confirmed = !is_last || {
            let rest = rest_of(&path, offset)?;
            let lines = claimed(&rest).unwrap_or(0).max(DATA_BYTES_MAX);
            rest.len() > compress_bound(lines) + RECORD_BYTES_MAX || later_record(&rest, self.chain.block + 1)
        };
        if confirmed {
            return Err(AuditError::Damaged { file: name, offset, reason });
        }
        let bytes = length.saturating_sub(offset);
        warn!(segment = %name, offset, bytes, reason, "What a crash left of a block that nobody was told of is cut off.");
        Ok((tally, begun))
    }

    /// A crash between a segment's end and its line leaves the line out.
    fn complete_manifest(&mut self) -> Result<(), AuditError> {
        let manifest = Manifest::read(&self.home)?;
        let closed = self.number.saturating_sub(1);
        let known = manifest.lines.len() as u64;
        if !manifest.is_torn_at_most() {
            warn!("The manifest is damaged; `minium audit verify --rebuild-manifest` makes it anew.");
            return Ok(());
        }
        if known > closed {
            // closed before the crash: nothing more comes into it, whatever the limits are now
            self.segment = None;
        }
        if known >= closed && manifest.rest.is_empty() {
            return Ok(());
        }
        let lines = (known + 1..=closed).map(|number| line_of(&self.home, number));
        let lines = lines.collect::<Result<Vec<Line>, _>>()?;
        manifest.append(&*self.on, &self.home, &lines)
    }
}

impl Segment {
    fn is_full(&self, limits: &SegmentLimits) -> bool {
        let old = self.begun.is_some_and(|begun| Timestamp::now().duration_since(begun) >= limits.age_max);
        old || self.tally.bytes() >= limits.bytes_max
    }

    /// Back to what was written in whole.
    fn cut_back(&mut self) -> std::io::Result<()> {
        if self.torn {
            self.file.cut(self.tally.bytes())?;
            self.torn = false;
        }
        Ok(())
    }
}

/// When the first block of a segment was written.
fn begun_at(file: &mut File) -> std::io::Result<Option<Timestamp>> {
    file.seek(SeekFrom::Start(0))?;
    let first = Blocks::new(file)?.next()?.map(|block| block.map(|block| block.record.summary.at));
    Ok(first.and_then(Result::ok))
}

/// What stands behind the last block that is whole: of a crash one block that is not, and no more is read than shows that it is
/// more.
fn rest_of(path: &Path, offset: u64) -> Result<Vec<u8>, AuditError> {
    let bytes_max = (compress_bound(LINES_BYTES_MAX) + RECORD_BYTES_MAX + 1) as u64;
    let read = || {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(offset))?;
        let mut rest = Vec::new();
        file.take(bytes_max).read_to_end(&mut rest).map(|_| rest)
    };
    read().map_err(disk("read", path))
}

/// What the manifest says of a segment, from the segment itself. Only its shape is looked at.
pub(crate) fn line_of(home: &Home, number: u64) -> Result<Line, AuditError> {
    let name = segment_name(number);
    let path = home.path(&name);
    let missing = || AuditError::Damaged { file: name.clone(), offset: 0, reason: "it is missing".into() };
    let file = home.place.open(&name)?.ok_or_else(missing)?;
    let mut blocks = Blocks::new(file).map_err(disk("read", &path))?;
    let mut tally: Option<Tally> = None;
    while let Some(found) = blocks.next().map_err(disk("read", &path))? {
        let block = found.map_err(|b| AuditError::Damaged {
            file: name.clone(),
            offset: b.offset,
            reason: b.reason,
        })?;
        let previous = block.record.summary.previous;
        tally.get_or_insert_with(|| Tally::new(number, previous)).add(block.bytes, &block.record);
    }
    Ok(tally.unwrap_or_else(|| Tally::new(number, home.chain().head)).line())
}
