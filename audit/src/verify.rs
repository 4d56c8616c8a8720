//! Looks at every byte of an archive: is it what was written, all of it, in that order?
//!
//! What a chain cannot see by itself is that its newest blocks were taken away: what is left is a chain as well. Whoever
//! wrote down an earlier head can ask whether it is still there.

use crate::block::{At, Chain, Note, Record};
use crate::blocks::{Block, Blocks};
use crate::digest::Digest;
use crate::disk::Real;
use crate::error::{AuditError, disk};
use crate::home::{Home, is_locked, lock, segment_name};
use crate::manifest::{Line, Manifest, Tally};
use crate::place::Place;
use crate::seal::CheckKey;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::File;

/// So many findings are listed; an archive that was mixed up has one for each block.
const FINDINGS_MAX: usize = 100;
/// So many facts are listed; a recorder that goes on over holes may meet one after another for years.
const FACTS_MAX: usize = 1_000;

/// What to look for.
#[derive(Debug, Clone, Default)]
pub struct VerifyOptions {
    /// Who must have signed every head. Without it the archive's own key is used, which anybody could have put there.
    pub key: Option<CheckKey>,
    /// A head that must be in the chain: the newest one that somebody wrote down elsewhere.
    pub head: Option<Digest>,
    /// Write the manifest anew when it is not that of the segments. Only if those are as they should be.
    pub rebuild_manifest: bool,
}

/// Something that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// In which file.
    pub file: String,
    /// Where the block begins in it.
    pub offset: u64,
    /// What is wrong.
    pub what: String,
}

/// A fact on record that is no event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fact {
    /// In which file.
    pub file: String,
    /// Where its block begins.
    pub offset: u64,
    /// Of which topic.
    pub topic: String,
    /// What happened.
    pub what: String,
}

/// What was found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Verdict {
    /// So many segments.
    pub segments: u64,
    /// So many blocks.
    pub blocks: u64,
    /// So many events.
    pub events: u64,
    /// So many bytes of lines.
    pub bytes: u64,
    /// So many bytes on the disk.
    pub stored: u64,
    /// The newest head. Written down elsewhere it tells one day whether blocks were taken away at the end.
    pub head: Option<Digest>,
    /// How far each topic is recorded.
    pub positions: BTreeMap<String, String>,
    /// Were signatures checked, and by which key?
    pub key: Option<String>,
    /// Holes, and where the journal began to count anew.
    pub facts: Vec<Fact>,
    /// So many more are not listed.
    pub facts_more: u64,
    /// What is wrong. Empty: nothing.
    pub findings: Vec<Finding>,
    /// So many more are not listed.
    pub findings_more: u64,
    /// A recorder is writing the block at the end of the last segment: it is not judged.
    pub in_use: bool,
}

/// How far a long look has come.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// So many bytes on the disk.
    pub bytes: u64,
    /// Of so many.
    pub bytes_all: u64,
    /// So many events.
    pub events: u64,
}

/// Looks at everything in an archive. `tell` hears now and then how far it has come.
///
/// # Errors
/// What cannot be read at all. What can be read and is wrong stands in the verdict. [`AuditError::InUse`] when the manifest is
/// to be made anew while a recorder writes to the archive.
pub fn verify(
    place: impl Into<Place>,
    options: &VerifyOptions,
    tell: &mut dyn FnMut(Seen),
) -> Result<Verdict, AuditError> {
    let home = Home::open(place.into())?;
    // nobody writes to a manifest that is made anew
    let lock = match (options.rebuild_manifest, home.place.dir()) {
        (true, Some(dir)) => Some(lock(dir)?),
        (true, None) => {
            return Err(AuditError::Mismatch("is in no directory: its manifest is its recorder's".into()));
        }
        (false, _) => None,
    };
    let mut look = Look::new(home, options, lock);
    // before the segments: one that is closed while they are looked at is not known as closed then
    let manifest = Manifest::read(&look.home)?;
    let lengths = look.home.lengths()?;
    look.bytes_all = lengths.values().sum();
    let last = lengths.last_key_value().map_or(0, |(number, _)| *number);
    for number in 1..=last {
        if !lengths.contains_key(&number) {
            look.found(&segment_name(number), 0, "it is missing");
            look.lost = true;
            continue;
        }
        look.segment(number, number == last, tell)?;
    }
    look.manifest(&manifest)?;
    Ok(look.finish())
}

/// A look that is under way.
struct Look<'a> {
    home: Home,
    options: &'a VerifyOptions,
    key: Option<CheckKey>,
    chain: Chain,
    /// The chain was broken where nothing can be told of what follows: the next block is believed.
    lost: bool,
    /// The head that was asked for is in the chain.
    met: bool,
    lines: Vec<Line>,
    bytes_all: u64,
    verdict: Verdict,
    /// Held where no recorder may write meanwhile.
    lock: Option<File>,
}

impl<'a> Look<'a> {
    fn new(home: Home, options: &'a VerifyOptions, lock: Option<File>) -> Look<'a> {
        let chain = home.chain();
        let own = home.archive.key.as_deref().map(str::parse::<CheckKey>).transpose();
        let mut verdict = Verdict::default();
        let own = own.unwrap_or_else(|e| {
            verdict.findings.push(Finding { file: "archive.json".into(), offset: 0, what: e.to_string() });
            None
        });
        let key = options.key.or(own);
        verdict.key = key.map(|key| key.to_string());
        let met = options.head == Some(chain.head);
        let (lines, bytes_all) = (Vec::new(), 0);
        let mut look = Look { home, options, key, chain, lost: false, met, lines, bytes_all, verdict, lock };
        if options.key.is_some() && own.is_some() && options.key != own {
            look.found("archive.json", 0, "it names another key");
        }
        look
    }

    fn found(&mut self, file: &str, offset: u64, what: impl Into<String>) {
        if self.verdict.findings.len() < FINDINGS_MAX {
            self.verdict.findings.push(Finding { file: file.into(), offset, what: what.into() });
        } else {
            self.verdict.findings_more += 1;
        }
    }

    fn segment(&mut self, number: u64, is_last: bool, tell: &mut dyn FnMut(Seen)) -> Result<(), AuditError> {
        let name = segment_name(number);
        let path = self.home.path(&name);
        // of interest only where somebody may be writing
        let length = if is_last { self.home.place.length(&name)?.unwrap_or(0) } else { 0 };
        let Some(file) = self.home.place.open(&name)? else {
            self.found(&name, 0, "it is missing");
            self.lost = true;
            return Ok(());
        };
        let mut blocks = Blocks::new(file).map_err(disk("read", &path))?;
        let mut tally = Tally::new(number, self.chain.head);
        self.verdict.segments += 1;
        let mut any = false;
        while let Some(next) = blocks.next().map_err(disk("read", &path))? {
            match next {
                Ok(mut block) => {
                    any = true;
                    tally.add(block.bytes, &block.record);
                    self.block(&name, &mut block);
                    let Verdict { stored, events, .. } = self.verdict;
                    tell(Seen { bytes: stored, bytes_all: self.bytes_all, events });
                }
                Err(broken) if broken.torn && is_last && self.is_written(&name, length)? => break,
                Err(broken) => {
                    let torn = "; if a recorder was killed here, this was never confirmed, and its next start cuts it off";
                    let hint =
                        if broken.torn && is_last && self.home.place.dir().is_some() { torn } else { "" };
                    self.found(&name, broken.offset, format!("{}{hint}", broken.reason));
                    self.lost = true;
                    break;
                }
            }
        }
        if !any && !is_last && !self.lost {
            self.found(&name, 0, "it is empty");
        }
        self.lines.push(tally.line());
        Ok(())
    }

    /// Is the end of this segment being written? A block that is not whole is no finding then. The lock is looked at only when
    /// there is such a block, and before the length: its writer may have just gone.
    fn is_written(&mut self, name: &str, length: u64) -> Result<bool, AuditError> {
        let locked = self.lock.is_none() && self.home.place.dir().is_some_and(is_locked);
        self.verdict.in_use = locked || self.home.place.length(name)?.is_some_and(|now| now != length);
        Ok(self.verdict.in_use)
    }

    /// Judges one block. What stands in it counts even if it is not where it belongs.
    fn block(&mut self, name: &str, block: &mut Block<'_>) {
        if std::mem::take(&mut self.lost) {
            self.chain.believe(&block.record);
        }
        let offset = block.offset;
        if let Err(reason) = block.check(&self.chain) {
            self.found(name, offset, reason);
        }
        if let Some(reason) = self.seal(&block.record) {
            self.found(name, offset, reason);
        }
        let summary = &block.record.summary;
        self.verdict.blocks += 1;
        self.verdict.events += summary.events;
        self.verdict.bytes += summary.bytes;
        self.verdict.stored += block.bytes.len() as u64;
        if let Some(note) = &summary.note {
            let (file, topic) = (name.to_owned(), summary.topic.clone());
            if self.verdict.facts.len() < FACTS_MAX {
                self.verdict.facts.push(Fact { file, offset, topic, what: note.to_string() });
            } else {
                self.verdict.facts_more += 1;
            }
        }
        // what comes behind is held against what stands here, so that one finding is not one for each block
        self.chain.advance(&block.record);
        self.met |= self.options.head == Some(block.record.head);
    }

    fn seal(&self, record: &Record) -> Option<&'static str> {
        match (&self.key, &record.signature) {
            (None, None) => None,
            (None, Some(_)) => Some("it is signed, and the archive says that nothing is"),
            (Some(_), None) => Some("it is not signed"),
            (Some(key), Some(signature)) if key.accepts(&record.head, signature) => None,
            (Some(_), Some(_)) => Some("its signature is not of this key"),
        }
    }

    /// Holds the manifest against the segments.
    fn manifest(&mut self, manifest: &Manifest) -> Result<(), AuditError> {
        const NAME: &str = "manifest.ndjson";
        let closed = self.lines.len().saturating_sub(1);
        let mut wrong = Vec::new();
        for (n, line) in manifest.lines.iter().enumerate() {
            // a segment has its line before the next one is there
            if self.lines.get(n) != Some(line) {
                wrong.push(format!("what it says of {} is not so", line.file));
            }
        }
        // a line that a crash cut short is made whole by the next start of a recorder
        let next = self.lines.get(manifest.lines.len());
        let torn = next.is_some_and(|line| line.text().as_bytes().starts_with(&manifest.rest));
        if !manifest.rest.is_empty() && !torn {
            wrong.push("a line of it cannot be read".into());
        }
        let behind = manifest.lines.len() < closed || !manifest.rest.is_empty();
        let whole = self.verdict.findings.is_empty() && !self.verdict.in_use;
        if self.options.rebuild_manifest && whole && (behind || !wrong.is_empty()) {
            return Manifest::replace(&Real, &self.home, &self.lines[..closed]);
        }
        for what in wrong {
            self.found(NAME, 0, what);
        }
        Ok(())
    }

    fn finish(mut self) -> Verdict {
        if self.options.head.is_some() && !self.met {
            let what = "the head that was asked for is not in the chain: what it stood behind was taken away or changed";
            self.found("archive.json", 0, what);
        }
        let text = |(topic, at): (String, At)| (topic, at.0.to_string());
        self.verdict.positions = std::mem::take(&mut self.chain.positions).into_iter().map(text).collect();
        self.verdict.head = Some(self.chain.head);
        self.verdict
    }
}

impl std::fmt::Display for Note {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let word = |at: &Option<At>| at.map_or_else(|| "the beginning".to_owned(), |at| at.0.to_string());
        match self {
            Note::Gap { resumes, accepted, bytes: Some(bytes), .. } => {
                let then = if *accepted { "recorded on" } else { "stopped" };
                write!(
                    f,
                    "event {} is missing: its {bytes} bytes are more than were taken; {then}",
                    resumes.0
                )
            }
            Note::Gap { behind, resumes, accepted, bytes: None } => {
                let then = if *accepted { "recorded on" } else { "stopped" };
                write!(f, "events are missing between {} and {}; {then}", word(behind), resumes.0)
            }
            Note::Epoch { behind, resumes } => {
                write!(
                    f,
                    "a new numbering after {}: what is kept comes again behind {}",
                    word(behind),
                    resumes.0
                )
            }
        }
    }
}
