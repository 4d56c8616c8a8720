//! Reads events back: by job, task, topic and time. Blocks of another time are not unpacked, and closed
//! segments of another time, by the manifest, not even read.

use crate::block::Summary;
use crate::blocks::{Block, Blocks};
use crate::error::{AuditError, disk};
use crate::home::{Home, segment_name};
use crate::manifest::Manifest;
use crate::place::Place;
use crate::verify::Fact;
use jiff::Timestamp;
use minium_protocol::{Filter, Job, Position};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::ops::ControlFlow;

/// Which events. Empty means all.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Of this job.
    pub job: Option<i64>,
    /// Of jobs of this task.
    pub task: Option<String>,
    /// That a subscriber of this would have got.
    pub topic: Option<Filter>,
    /// Not before.
    pub since: Option<Timestamp>,
    /// Before.
    pub until: Option<Timestamp>,
}

/// An event of an archive.
#[derive(Debug, Deserialize)]
pub struct Entry<'a> {
    /// The line, as it came on the wire.
    #[serde(skip)]
    pub text: &'a str,
    /// The event's own; the same where it was recorded twice.
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    /// `task.finished`, `message` and so on.
    #[serde(rename = "type", borrow)]
    pub kind: Cow<'a, str>,
    /// The job's id, or the topic.
    #[serde(borrow)]
    pub subject: Cow<'a, str>,
    /// When it happened.
    pub time: Option<Timestamp>,
    #[serde(borrow)]
    epoch: Cow<'a, str>,
    #[serde(borrow)]
    sequence: Cow<'a, str>,
    /// The job, or the message.
    #[serde(borrow, default)]
    pub data: Option<&'a RawValue>,
}

impl Entry<'_> {
    /// Reads a line.
    pub(crate) fn parse(text: &str) -> Result<Entry<'_>, serde_json::Error> {
        let entry: Entry<'_> = serde_json::from_str(text)?;
        Ok(Entry { text, ..entry })
    }

    /// Where it stands in the journal.
    pub fn position(&self) -> Option<Position> {
        format!("{}:{}", self.epoch, self.sequence).parse().ok()
    }

    /// Is it of a job?
    pub fn is_of_job(&self) -> bool {
        self.kind.starts_with("task.")
    }

    /// The job's task.
    pub fn task(&self) -> Option<Cow<'_, str>> {
        #[derive(Deserialize)]
        struct Task<'a> {
            #[serde(borrow)]
            task: Cow<'a, str>,
        }
        let data = self.data.filter(|_| self.is_of_job())?;
        serde_json::from_str::<Task<'_>>(data.get()).ok().map(|found| found.task)
    }

    /// The job as it stood, if it can be read as one.
    pub fn job(&self) -> Option<Job> {
        serde_json::from_str(self.data.filter(|_| self.is_of_job())?.get()).ok()
    }

    /// On which topic it was heard.
    pub fn topic(&self) -> String {
        match self.task() {
            Some(task) => format!("task/{task}/{}", self.subject),
            None => self.subject.clone().into_owned(),
        }
    }
}

impl Selection {
    /// May the block have some of them?
    fn may_be_in(&self, summary: &Summary) -> bool {
        summary.events > 0 && self.may_be_within(&summary.from, &summary.to)
    }

    /// May it be about some of them?
    fn may_concern(&self, fact: &Fact) -> bool {
        let of: Option<Filter> = fact.topic.parse().ok();
        self.topic.as_ref().zip(of).is_none_or(|(topic, of)| topic.meets(&of))
    }

    /// May some of them be of between these times?
    fn may_be_within(&self, from: &Option<String>, to: &Option<String>) -> bool {
        let time = |text: &Option<String>| text.as_deref().and_then(|t| t.parse::<Timestamp>().ok());
        let late = self.until.zip(time(from)).is_some_and(|(until, from)| from >= until);
        let early = self.since.zip(time(to)).is_some_and(|(since, to)| to < since);
        !late && !early
    }

    /// May the line be one of them? Looks for what it must have, whatever it is.
    fn may_be(&self, line: &str) -> bool {
        let job = self.job.is_none_or(|job| line.contains(&format!("\"subject\":\"{job}\"")));
        job && self.task.as_ref().is_none_or(|task| line.contains(task.as_str()))
    }

    fn is(&self, entry: &Entry<'_>) -> bool {
        self.job.is_none_or(|job| entry.is_of_job() && *entry.subject == job.to_string())
            && self.task.as_ref().is_none_or(|task| entry.task().is_some_and(|t| t == task.as_str()))
            && self.topic.as_ref().is_none_or(|topic| topic.matches_str(&entry.topic()))
            && self.since.is_none_or(|since| entry.time.is_some_and(|time| time >= since))
            && self.until.is_none_or(|until| entry.time.is_some_and(|time| time < until))
    }
}

/// Gives `each` the events of an archive that are selected, in the order in which they were recorded, until it says stop.
/// `tell` hears how many bytes on the disk were read, of how many.
///
/// # Errors
/// [`AuditError::Damaged`] where a block is not as it was written, or a segment is missing; what `each` says.
pub fn read(
    place: impl Into<Place>,
    selection: &Selection,
    tell: &mut dyn FnMut(u64, u64),
    each: &mut dyn FnMut(&Entry<'_>) -> Result<ControlFlow<()>, AuditError>,
) -> Result<(), AuditError> {
    read_while(place.into(), selection, &|| true, tell, &mut |_| (), each)
}

/// The same, and gives `fact` what is on record between them that is no event: holes, and where the journal began to count
/// anew. What is of other topics is left out; a fact has no time, and stands where it was recorded.
///
/// # Errors
/// As [`read`].
pub fn read_with_facts(
    place: impl Into<Place>,
    selection: &Selection,
    fact: &mut dyn FnMut(Fact),
    each: &mut dyn FnMut(&Entry<'_>) -> Result<ControlFlow<()>, AuditError>,
) -> Result<(), AuditError> {
    read_while(place.into(), selection, &|| true, &mut |_, _| (), fact, each)
}

/// The same, as long as somebody wants it: that is asked for each block, also where nothing is selected.
pub(crate) fn read_while(
    place: Place,
    selection: &Selection,
    wanted: &dyn Fn() -> bool,
    tell: &mut dyn FnMut(u64, u64),
    fact: &mut dyn FnMut(Fact),
    each: &mut dyn FnMut(&Entry<'_>) -> Result<ControlFlow<()>, AuditError>,
) -> Result<(), AuditError> {
    let home = Home::open(place)?;
    let known = Manifest::read(&home)?.lines;
    let lengths = home.lengths()?;
    let last = lengths.last_key_value().map_or(0, |(number, _)| *number);
    let (mut seen, all) = (0, lengths.values().sum());
    for number in 1..=last {
        let name = segment_name(number);
        let path = home.path(&name);
        let missing =
            || AuditError::Damaged { file: name.clone(), offset: 0, reason: "it is missing".into() };
        let length = *lengths.get(&number).ok_or_else(missing)?;
        // an index that does not go with the segment is not believed
        let line = known.iter().find(|line| line.file == name && line.bytes == length);
        if line.is_some_and(|line| !selection.may_be_within(&line.from, &line.to)) {
            seen += length;
            continue;
        }
        let file = home.place.open(&name)?.ok_or_else(missing)?;
        let mut blocks = Blocks::new(file).map_err(disk("read", &path))?;
        while let Some(next) = blocks.next().map_err(disk("read", &path))? {
            let mut block = match next {
                Ok(block) => block,
                // being written, or never confirmed
                Err(broken) if broken.torn && number == last && home.place.dir().is_some() => break,
                Err(broken) => {
                    let (offset, reason) = (broken.offset, broken.reason);
                    return Err(AuditError::Damaged { file: name, offset, reason });
                }
            };
            seen += block.bytes.len() as u64;
            tell(seen, all);
            if !wanted() {
                return Ok(());
            }
            if let Some(found) = fact_in(&name, &block).filter(|found| selection.may_concern(found)) {
                fact(found);
            }
            if selection.may_be_in(&block.record.summary)
                && block_of(&name, &mut block, selection, each)?.is_break()
            {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// What a block says that is no event.
fn fact_in(name: &str, block: &Block<'_>) -> Option<Fact> {
    let summary = &block.record.summary;
    let what = summary.note.as_ref()?.to_string();
    Some(Fact { file: name.into(), offset: block.offset, topic: summary.topic.clone(), what })
}

fn block_of(
    name: &str,
    block: &mut Block<'_>,
    selection: &Selection,
    each: &mut dyn FnMut(&Entry<'_>) -> Result<ControlFlow<()>, AuditError>,
) -> Result<ControlFlow<()>, AuditError> {
    let offset = block.offset;
    let damaged = |reason: String| AuditError::Damaged { file: name.into(), offset, reason };
    let lines = block.lines().map_err(damaged)?;
    let text = std::str::from_utf8(lines).map_err(|_| damaged("its lines are not UTF-8".into()))?;
    for line in text.lines().filter(|line| selection.may_be(line)) {
        let entry = Entry::parse(line).map_err(|e| damaged(format!("a line is no event: {e}")))?;
        if selection.is(&entry) && each(&entry)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}
