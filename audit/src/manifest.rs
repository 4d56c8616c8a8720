//! `manifest.ndjson`: a line for each segment that is closed, for people and for speed. The truth is in the segments.

use crate::block::{At, Record};
use crate::digest::Digest;
use crate::disk::Disk;
use crate::error::{AuditError, disk};
use crate::home::{Home, segment_name};
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};
use std::io::Write;

/// Its file.
pub(crate) const NAME: &str = "manifest.ndjson";

/// What is known of a segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Line {
    pub(crate) file: String,
    pub(crate) bytes: u64,
    pub(crate) sha256: Digest,
    pub(crate) blocks: u64,
    pub(crate) events: u64,
    pub(crate) first: Option<At>,
    pub(crate) last: Option<At>,
    pub(crate) from: Option<String>,
    pub(crate) to: Option<String>,
    /// The last block's.
    pub(crate) head: Digest,
}

impl Line {
    /// As it is written, with its end.
    pub(crate) fn text(&self) -> String {
        format!("{}\n", serde_json::to_string(self).expect("this is always JSON"))
    }
}

/// A segment as it grows.
#[derive(Clone)]
pub(crate) struct Tally {
    line: Line,
    digest: Context,
    /// Of so many bytes before the first block that was added nothing else is known.
    unread: u64,
}

impl Tally {
    pub(crate) fn new(number: u64, head: Digest) -> Tally {
        Tally::behind(number, head, 0)
    }

    /// Of a segment that is not looked at before this place.
    pub(crate) fn behind(number: u64, head: Digest, unread: u64) -> Tally {
        let line = Line {
            file: segment_name(number),
            bytes: 0,
            sha256: Digest::of(&[]),
            blocks: 0,
            events: 0,
            first: None,
            last: None,
            from: None,
            to: None,
            head,
        };
        Tally { line, digest: Context::new(&SHA256), unread }
    }

    /// One block more, with all its bytes.
    pub(crate) fn add(&mut self, bytes: &[u8], record: &Record) {
        let (line, summary) = (&mut self.line, &record.summary);
        self.digest.update(bytes);
        line.bytes += bytes.len() as u64;
        line.blocks += 1;
        line.events += summary.events;
        line.first = line.first.or(summary.first);
        line.last = summary.last.or(line.last);
        line.from = [line.from.take(), summary.from.clone()].into_iter().flatten().min();
        line.to = line.to.take().max(summary.to.clone());
        line.head = record.head;
    }

    /// Of the whole blocks so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.unread + self.line.bytes
    }

    /// Was everything looked at? Only then is its line that of the segment.
    pub(crate) fn is_whole(&self) -> bool {
        self.unread == 0
    }

    pub(crate) fn line(&self) -> Line {
        Line { sha256: Digest::finished(&self.digest.clone().finish()), ..self.line.clone() }
    }
}

/// What the manifest holds.
#[derive(Debug, Default)]
pub(crate) struct Manifest {
    pub(crate) lines: Vec<Line>,
    /// Of the file, up to the end of the last line that can be read.
    pub(crate) whole: u64,
    /// What comes behind: nothing, a torn line, or something else.
    pub(crate) rest: Vec<u8>,
}

impl Manifest {
    pub(crate) fn read(home: &Home) -> Result<Manifest, AuditError> {
        let bytes = home.place.read(NAME)?.unwrap_or_default();
        Ok(Manifest::parse(&bytes))
    }

    pub(crate) fn parse(bytes: &[u8]) -> Manifest {
        let mut manifest = Manifest::default();
        let mut rest = bytes;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let Ok(line) = serde_json::from_slice::<Line>(&rest[..end]) else { break };
            if line.text().as_bytes() != &rest[..=end] {
                break;
            }
            manifest.lines.push(line);
            rest = &rest[end + 1..];
        }
        manifest.whole = (bytes.len() - rest.len()) as u64;
        manifest.rest = rest.to_vec();
        manifest
    }

    /// Is there nothing behind the last line but what a crash may leave?
    pub(crate) fn is_torn_at_most(&self) -> bool {
        !self.rest.contains(&b'\n')
    }

    /// Adds lines behind those that are whole.
    pub(crate) fn append(&self, on: &dyn Disk, home: &Home, lines: &[Line]) -> Result<(), AuditError> {
        let path = home.path(NAME);
        let added = || {
            let mut file = on.open(&path)?;
            if !self.rest.is_empty() {
                file.cut(self.whole)?;
            }
            file.write_all(lines.iter().map(Line::text).collect::<String>().as_bytes())?;
            file.sync()
        };
        added().map_err(disk("write to", &path))
    }

    /// Puts other lines in the place of all.
    pub(crate) fn replace(on: &dyn Disk, home: &Home, lines: &[Line]) -> Result<(), AuditError> {
        let text: String = lines.iter().map(Line::text).collect();
        on.replace(&home.path(NAME), text.as_bytes()).map_err(disk("write", &home.path(NAME)))
    }
}
