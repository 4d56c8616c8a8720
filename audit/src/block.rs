//! A block: whole lines in one zstd frame, and behind it a record of them in a frame that zstd skips.
//!
//! `zstdcat` of a segment therefore gives plain NDJSON. The record says what the block holds and where it stands in the
//! chain: `head` = SHA-256(previous head ‖ the record's text up to its head ‖ the lines). The record also has the digest of the
//! zstd frame, since a frame has bits that its contents do not depend on. A fact that is no event (a hole, a new
//! numbering) is a block without lines whose record has a `note`, so that it is chained like everything else.

use crate::digest::Digest;
use crate::error::AuditError;
use crate::line;
use crate::seal::SealKey;
use jiff::Timestamp;
use minium_protocol::Position;
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use zstd::bulk::Compressor;

/// One of the sixteen numbers that begin a frame that zstd skips.
pub(crate) const RECORD_MAGIC: [u8; 4] = [0x5a, 0x2a, 0x4d, 0x18];
/// What begins a frame of zstd.
pub(crate) const FRAME_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// No record is longer: sixteen topics of 255 bytes, twice, and the rest.
pub(crate) const RECORD_BYTES_MAX: usize = 64 << 10;
/// No block of several events has more bytes of lines.
pub(crate) const DATA_BYTES_MAX: usize = 32 << 20;
/// No event in an archive has more bytes: no database hands out a larger one. Above 32 MiB it is a block by itself.
pub const EVENT_BYTES_MAX: usize = 1 << 30;
/// No block has more bytes of lines: the largest event and its line end.
pub(crate) const LINES_BYTES_MAX: usize = EVENT_BYTES_MAX + 1;
/// Level 3 packs events to about a tenth; higher ones cost more than they save here.
const LEVEL: i32 = 3;
const HEAD: &str = ",\"head\":\"";
const SIGNATURE: &str = "\",\"signature\":\"";

/// A position as it is written in records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct At(pub(crate) Position);

impl Serialize for At {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for At {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<At, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map(At).map_err(serde::de::Error::custom)
    }
}

/// A fact that is no event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum Note {
    /// Events are missing: the journal had let them go before they came here, or one was larger than was taken.
    Gap {
        /// The last event before.
        behind: Option<At>,
        /// Behind this the journal goes on.
        resumes: At,
        /// Did the recorder go on?
        accepted: bool,
        /// What is missing is the one event at `resumes`, which has so many bytes.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        bytes: Option<u64>,
    },
    /// The journal counts anew. What it keeps comes again under the new epoch.
    Epoch {
        /// The last event of the old one.
        behind: Option<At>,
        /// Behind this the new one begins.
        resumes: At,
    },
}

/// What a record says, but for its head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Summary {
    /// From 1, through all segments.
    pub(crate) block: u64,
    /// When it was written, by the recorder's clock.
    pub(crate) at: Timestamp,
    /// The subscription that brought it.
    pub(crate) topic: String,
    pub(crate) events: u64,
    /// Of the lines.
    pub(crate) bytes: u64,
    /// Of the zstd frame.
    pub(crate) stored: u64,
    /// The zstd frame's SHA-256.
    pub(crate) frame: Digest,
    pub(crate) first: Option<At>,
    pub(crate) last: Option<At>,
    /// The earliest time of an event, and the latest.
    pub(crate) from: Option<String>,
    pub(crate) to: Option<String>,
    /// How far each topic is recorded with this block.
    pub(crate) positions: BTreeMap<String, At>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) note: Option<Note>,
    pub(crate) previous: Digest,
}

impl Summary {
    /// Where its topic stands behind it, if this block says so.
    fn moved(&self) -> Option<At> {
        self.last.or(self.note.as_ref().and_then(Note::moves_to).map(At))
    }
}

/// A whole record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) summary: Summary,
    /// The summary as it is written: what the head speaks of.
    text: String,
    pub(crate) head: Digest,
    pub(crate) signature: Option<String>,
}

impl Record {
    /// Reads the contents of a record's frame.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Record, String> {
        let text = std::str::from_utf8(bytes).map_err(|_| "the record is not UTF-8")?;
        let at = text.rfind(HEAD).ok_or("the record has no head")?;
        let (summary, rest) = (format!("{}}}", &text[..at]), &text[at + HEAD.len()..]);
        let rest = rest.strip_suffix("\"}").ok_or("the record does not end as it should")?;
        let (head, signature) = match rest.split_once(SIGNATURE) {
            Some((head, signature)) => (head, Some(signature.to_owned())),
            None => (rest, None),
        };
        let head = head.parse().map_err(|_| "the record's head is none")?;
        let read = serde_json::from_str(&summary).map_err(|e| format!("the record cannot be read: {e}"))?;
        Ok(Record { summary: read, text: summary, head, signature })
    }

    /// The head that goes with these lines.
    pub(crate) fn head_of(&self, data: &[u8]) -> Digest {
        head_of(&self.summary.previous, &self.text, data)
    }

    fn frame(&self) -> Vec<u8> {
        let open = &self.text[..self.text.len() - 1];
        let signature = self.signature.as_ref().map(|s| format!("{SIGNATURE}{s}")).unwrap_or_default();
        let text = format!("{open}{HEAD}{}{signature}\"}}", self.head);
        let length = u32::try_from(text.len()).expect("a record is far below 4 GiB");
        [&RECORD_MAGIC[..], &length.to_le_bytes(), text.as_bytes()].concat()
    }
}

fn head_of(previous: &Digest, text: &str, data: &[u8]) -> Digest {
    let mut context = Context::new(&SHA256);
    context.update(previous.as_bytes());
    context.update(text.as_bytes());
    context.update(data);
    Digest::finished(&context.finish())
}

/// Lines that wait to become a block.
#[derive(Debug, Default)]
pub struct Batch {
    pub(crate) topic: String,
    pub(crate) data: Vec<u8>,
    pub(crate) events: u64,
    pub(crate) first: Option<Position>,
    pub(crate) last: Option<Position>,
    pub(crate) from: Option<String>,
    pub(crate) to: Option<String>,
}

impl Batch {
    /// None yet, of this subscription.
    pub fn new(topic: &str) -> Batch {
        Batch { topic: topic.into(), ..Batch::default() }
    }

    /// Takes an event as it came on the wire. Line ends between the tokens of its data become spaces: an event is one line.
    ///
    /// # Errors
    /// [`AuditError::NotDurable`] without a position; [`AuditError::Unfit`] when it is too long or does not come behind
    /// the one before.
    pub fn push(&mut self, event: &str) -> Result<Position, AuditError> {
        let found = line::mark(event).ok_or_else(|| AuditError::NotDurable(self.topic.clone()))?;
        let unfit = |reason: String| AuditError::Unfit { topic: self.topic.clone(), reason };
        if !self.fits(event) {
            return Err(unfit(format!("it has {} bytes", event.len())));
        }
        let got = found.position;
        if let Some(last) = self.last.filter(|last| (last.epoch, last.offset) >= (got.epoch, got.offset)) {
            return Err(unfit(format!("event {got} came after {last}")));
        }
        let start = self.data.len();
        self.data.extend_from_slice(event.as_bytes());
        self.data[start..].iter_mut().filter(|b| matches!(b, b'\n' | b'\r')).for_each(|b| *b = b' ');
        self.data.push(b'\n');
        self.events += 1;
        self.first.get_or_insert(got);
        self.last = Some(got);
        if let Some(time) = found.time {
            if self.from.as_deref().is_none_or(|from| time < from) {
                self.from = Some(time.into());
            }
            if self.to.as_deref().is_none_or(|to| time > to) {
                self.to = Some(time.into());
            }
        }
        Ok(got)
    }

    /// Has it room for this event? An empty one has, up to [`EVENT_BYTES_MAX`].
    pub fn fits(&self, event: &str) -> bool {
        let most = if self.is_empty() { LINES_BYTES_MAX } else { DATA_BYTES_MAX };
        self.data.len() + event.len() < most
    }

    /// Has it no event?
    pub fn is_empty(&self) -> bool {
        self.events == 0
    }

    /// How many events it has.
    pub fn len(&self) -> u64 {
        self.events
    }

    /// How many bytes its lines have.
    pub fn bytes(&self) -> usize {
        self.data.len()
    }
}

/// Where the chain stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chain {
    /// The number of the last block.
    pub(crate) block: u64,
    pub(crate) head: Digest,
    pub(crate) positions: BTreeMap<String, At>,
}

impl Chain {
    /// Before the first block: it hangs on the bytes of `archive.json`.
    pub(crate) fn begin(archive: &[u8]) -> Chain {
        Chain { block: 0, head: Digest::of(archive), positions: BTreeMap::new() }
    }

    /// The bytes of the next block, and its record.
    pub(crate) fn encode(
        &self,
        batch: &Batch,
        note: Option<Note>,
        key: Option<&SealKey>,
    ) -> std::io::Result<(Vec<u8>, Record)> {
        let mut compressor = Compressor::new(LEVEL)?;
        compressor.set_parameter(zstd::zstd_safe::CParameter::ChecksumFlag(true))?;
        let mut bytes = compressor.compress(&batch.data)?;
        let mut positions = self.positions.clone();
        let resumes = note.as_ref().and_then(Note::moves_to);
        if let Some(position) = batch.last.or(resumes) {
            positions.insert(batch.topic.clone(), At(position));
        }
        let summary = Summary {
            block: self.block + 1,
            at: Timestamp::now(),
            topic: batch.topic.clone(),
            events: batch.events,
            bytes: batch.data.len() as u64,
            stored: bytes.len() as u64,
            frame: Digest::of(&bytes),
            first: batch.first.map(At),
            last: batch.last.map(At),
            from: batch.from.clone(),
            to: batch.to.clone(),
            positions,
            note,
            previous: self.head,
        };
        let text = serde_json::to_string(&summary)?;
        let head = head_of(&self.head, &text, &batch.data);
        let record = Record { summary, text, head, signature: key.map(|key| key.sign(&head)) };
        bytes.extend_from_slice(&record.frame());
        Ok((bytes, record))
    }

    /// Right before this record, whatever stands there.
    pub(crate) fn believe(&mut self, record: &Record) {
        let summary = &record.summary;
        self.block = summary.block.saturating_sub(1);
        self.head = summary.previous;
        self.positions.clone_from(&summary.positions);
        if summary.moved().is_some() {
            self.positions.remove(&summary.topic);
        }
    }

    /// Behind this block.
    pub(crate) fn advance(&mut self, record: &Record) {
        self.block = record.summary.block;
        self.head = record.head;
        self.positions.clone_from(&record.summary.positions);
    }

    /// Does this record come next? `data` are its lines.
    pub(crate) fn judge(&self, record: &Record, data: &[u8]) -> Result<(), String> {
        let summary = &record.summary;
        if summary.block != self.block + 1 {
            return Err(format!("block {} stands where block {} belongs", summary.block, self.block + 1));
        }
        if summary.previous != self.head {
            return Err("it does not follow from what stands before it".into());
        }
        if record.head_of(data) != record.head {
            return Err("its lines or its record are not those that its head was made of".into());
        }
        let scanned = scan(&summary.topic, data)?;
        let same = scanned.events == summary.events
            && scanned.first.map(At) == summary.first
            && scanned.last.map(At) == summary.last
            && scanned.from == summary.from.as_deref()
            && scanned.to == summary.to.as_deref();
        if !same {
            return Err("its record says something else than its lines".into());
        }
        self.judge_positions(summary)
    }

    fn judge_positions(&self, summary: &Summary) -> Result<(), String> {
        let order = |at: &At| (at.0.epoch, at.0.offset);
        let before = self.positions.get(&summary.topic);
        if let (Some(before), Some(first)) = (before, &summary.first)
            && order(first) <= order(before)
        {
            return Err(format!("event {} does not come behind {}", first.0, before.0));
        }
        let mut expected = self.positions.clone();
        expected.extend(summary.moved().map(|at| (summary.topic.clone(), at)));
        if expected != summary.positions {
            return Err("its record says of other topics what it cannot know".into());
        }
        Ok(())
    }
}

impl Note {
    /// Where its topic goes on.
    pub(crate) fn moves_to(&self) -> Option<Position> {
        match self {
            Note::Gap { accepted: false, .. } => None,
            Note::Gap { resumes, .. } | Note::Epoch { resumes, .. } => Some(resumes.0),
        }
    }
}

/// Reads lines again as they were taken.
fn scan<'a>(topic: &str, data: &'a [u8]) -> Result<Scanned<'a>, String> {
    let mut scanned = Scanned::default();
    let text = std::str::from_utf8(data).map_err(|_| "its lines are not UTF-8")?;
    let mut rest = text;
    while !rest.is_empty() {
        let end = memchr::memchr(b'\n', rest.as_bytes()).ok_or("its last line has no end")?;
        let found = line::mark(&rest[..end]).ok_or_else(|| format!("a line is no event of {topic}"))?;
        rest = &rest[end + 1..];
        let order = |p: Position| (p.epoch, p.offset);
        if scanned.last.is_some_and(|last| order(last) >= order(found.position)) {
            return Err(format!("event {} stands behind a later one", found.position));
        }
        scanned.events += 1;
        scanned.first.get_or_insert(found.position);
        scanned.last = Some(found.position);
        if let Some(time) = found.time {
            scanned.from = Some(scanned.from.map_or(time, |from| from.min(time)));
            scanned.to = Some(scanned.to.map_or(time, |to| to.max(time)));
        }
    }
    Ok(scanned)
}

/// What [`scan`] found.
#[derive(Default)]
struct Scanned<'a> {
    events: u64,
    first: Option<Position>,
    last: Option<Position>,
    from: Option<&'a str>,
    to: Option<&'a str>,
}
