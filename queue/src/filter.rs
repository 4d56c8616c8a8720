//! Which jobs a list shows.
//!
//! A filter is conditions that all must hold. Those that look into what a job says (its arguments, its notes, its texts) compare
//! what anybody may see: a place that is masked is `***`, so that nobody finds a secret by asking for it piece by piece.

use crate::error::QueueError;
use crate::rules::{FILTER_NAMES_MAX, storable};
use jiff::Timestamp;
use minium_protocol::{Phase, State};
use serde_json::value::RawValue;

/// A condition's text has no more bytes.
pub const FILTER_TEXT_BYTES_MAX: usize = 1_024;
/// So many values at places are looked for at most: each of them in each job.
pub const FILTER_PLACES_MAX: usize = 10;
/// A path leads through no more levels.
const PATH_STEPS_MAX: usize = 64;

/// Stands before each step of a path on its way into PostgreSQL.
pub(crate) const STEP_MARK: char = '\u{1}';

/// A place in a JSON document, and what has to stand there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueAt {
    /// From the root, each step a member's name or an element's number.
    pub path: Vec<String>,
    /// A string as it is read, anything else as it is written in JSON.
    pub value: String,
}

/// A part of time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Span {
    /// From then on.
    pub after: Option<Timestamp>,
    /// Up to then, and not at that moment any more.
    pub before: Option<Timestamp>,
}

/// Which jobs to list.
#[derive(Debug, Clone)]
pub struct JobFilter {
    /// Any of these states; empty means all.
    pub states: Vec<State>,
    /// Waits for any of these reasons; empty means all jobs, also those that do not wait.
    pub phases: Vec<Phase>,
    /// Any of these tasks; empty means all.
    pub tasks: Vec<String>,
    /// Any of these queues; empty means all.
    pub queues: Vec<String>,
    /// Has all of these notes (top-level keys).
    pub notes: Vec<String>,
    /// Has all of these values in its notes.
    pub notes_at: Vec<ValueAt>,
    /// Has all of these values in its arguments, as they are shown.
    pub args_at: Vec<ValueAt>,
    /// Was enqueued in this time.
    pub enqueued: Span,
    /// Ended in this time.
    pub ended: Span,
    /// Has this text in its task, its arguments as they are shown, its notes or its error; ASCII letters of either case count
    /// as one.
    pub text: Option<String>,
    /// Any of these jobs; empty means all.
    pub ids: Vec<i64>,
    /// Was enqueued by this job: the next step of a cascade.
    pub origin: Option<i64>,
    /// Only ids below this: the cursor.
    pub before: Option<i64>,
    /// At most so many.
    pub limit: u32,
    /// And no more behind the one with which their snapshots have so many bytes together.
    pub bytes_max: usize,
    /// After so many jobs that were looked at the page ends where it stands.
    pub looked_max: u32,
}

impl Default for JobFilter {
    fn default() -> JobFilter {
        JobFilter {
            states: vec![],
            phases: vec![],
            tasks: vec![],
            queues: vec![],
            notes: vec![],
            notes_at: vec![],
            args_at: vec![],
            enqueued: Span::default(),
            ended: Span::default(),
            text: None,
            ids: vec![],
            origin: None,
            before: None,
            limit: 50,
            bytes_max: 8 << 20,
            looked_max: 50_000,
        }
    }
}

impl JobFilter {
    /// Does it look into what jobs say, or at when they were there? Few lists do, and no index helps them.
    pub(crate) fn looks_closely(&self) -> bool {
        !(self.phases.is_empty() && self.notes_at.is_empty() && self.args_at.is_empty())
            || self.text.is_some()
            || self.enqueued != Span::default()
            || self.ended != Span::default()
    }

    /// Does it show every job, or those that one job has enqueued? Then nothing that is walked over is left out.
    pub(crate) fn shows_all(&self) -> bool {
        let lists = [self.states.len(), self.tasks.len(), self.queues.len(), self.notes.len()];
        self.ids.is_empty() && lists.iter().all(|count| *count == 0) && !self.looks_closely()
    }

    /// Checks what a list is to be narrowed by: each of its names is a condition of its own.
    pub(crate) fn check(&self) -> Result<(), QueueError> {
        let lists = [
            ("state", self.states.len()),
            ("phase", self.phases.len()),
            ("task", self.tasks.len()),
            ("queue", self.queues.len()),
            ("note", self.notes.len()),
            ("id", self.ids.len()),
        ];
        let places = [("note with a value", self.notes_at.len()), ("arg", self.args_at.len())];
        let lists = lists.map(|(what, count)| (what, count, FILTER_NAMES_MAX));
        let places = places.map(|(what, count)| (what, count, FILTER_PLACES_MAX));
        if let Some((what, count, most)) =
            lists.into_iter().chain(places).find(|(_, count, most)| count > most)
        {
            let words = format!("{count} times {what} are asked for, at most {most} may be");
            return Err(QueueError::Invalid(words));
        }
        let places = || self.notes_at.iter().chain(&self.args_at);
        let at = |at: &ValueAt| at.value.len() + at.path.iter().map(String::len).sum::<usize>();
        let names = self.tasks.iter().chain(&self.queues).chain(&self.notes).chain(&self.text);
        if places().map(at).chain(names.map(String::len)).any(|bytes| bytes > FILTER_TEXT_BYTES_MAX) {
            let words = format!("a text to look for has at most {FILTER_TEXT_BYTES_MAX} bytes");
            return Err(QueueError::Invalid(words));
        }
        if places().flat_map(|at| &at.path).any(|step| step.contains(STEP_MARK)) {
            return Err(QueueError::Invalid("a step of a path has no U+0001 in it".into()));
        }
        if places().any(|at| at.path.len() > PATH_STEPS_MAX) {
            return Err(QueueError::Invalid(format!("a path has at most {PATH_STEPS_MAX} steps")));
        }
        Ok(())
    }

    /// A filter that every database can read. No job has a name with a NUL character in it, and none was there before 1970.
    pub(crate) fn storable(&self) -> JobFilter {
        let each = |names: &[String]| names.iter().map(|name| storable(name).into_owned()).collect();
        let at = |places: &[ValueAt]| {
            let place =
                |at: &ValueAt| ValueAt { path: each(&at.path), value: storable(&at.value).into_owned() };
            places.iter().map(place).collect()
        };
        let since_1970 = |span: Span| Span {
            after: span.after.map(|at| at.max(Timestamp::UNIX_EPOCH)),
            before: span.before.map(|at| at.max(Timestamp::UNIX_EPOCH)),
        };
        JobFilter {
            tasks: each(&self.tasks),
            queues: each(&self.queues),
            notes: each(&self.notes),
            notes_at: at(&self.notes_at),
            args_at: at(&self.args_at),
            enqueued: since_1970(self.enqueued),
            ended: since_1970(self.ended),
            text: self.text.as_ref().map(|text| storable(text).to_ascii_lowercase()),
            ..self.clone()
        }
    }
}

impl ValueAt {
    /// Does it stand in this document? Of members with one name the last counts, as the databases have it.
    pub(crate) fn stands_in(&self, json: &str) -> bool {
        // PostgreSQL cannot read a text with this in it, so that none of its values are found there
        if json.contains("\\u0000") {
            return false;
        }
        let Some(found) = self.path.iter().try_fold(json.to_owned(), |json, step| below(&json, step)) else {
            return false;
        };
        match serde_json::from_str::<String>(&found) {
            Ok(text) => text == self.value,
            Err(_) => found == self.value,
        }
    }
}

/// What stands one step below, as it is written.
fn below(json: &str, step: &str) -> Option<String> {
    let found: &RawValue = match json.trim_start().as_bytes().first()? {
        b'{' => {
            let members: std::collections::HashMap<String, &RawValue> = serde_json::from_str(json).ok()?;
            members.get(step).copied()?
        }
        b'[' => {
            let elements: Vec<&RawValue> = serde_json::from_str(json).ok()?;
            let place: usize = step.bytes().all(|b| b.is_ascii_digit()).then(|| step.parse().ok())??;
            elements.get(place).copied()?
        }
        _ => return None,
    };
    Some(found.get().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stands(path: &[&str], value: &str, json: &str) -> bool {
        let path = path.iter().map(|step| (*step).to_owned()).collect();
        ValueAt { path, value: value.into() }.stands_in(json)
    }

    #[test]
    fn a_value_is_found_at_its_place_and_compared_as_text() {
        let json = r#" [{"serial":"A\u0042C","n":[1,2.50,true,null]}, "x"]"#;
        for (path, value) in [
            (&["0", "serial"][..], "ABC"),
            (&["0", "n", "1"], "2.50"),
            (&["0", "n", "2"], "true"),
            (&["0", "n", "3"], "null"),
            (&["1"], "x"),
        ] {
            assert!(stands(path, value, json), "{path:?}");
        }
        for (path, value) in [
            (&["0", "serial"][..], "abc"),
            (&["0", "n", "1"], "2.5"),
            (&["0", "n", "9"], "null"),
            (&["2"], "null"),
            (&["-1"], "x"),
            (&["1", "0"], "x"),
            (&["0", "none"], "null"),
        ] {
            assert!(!stands(path, value, json), "{path:?}");
        }
        assert!(stands(&["a"], "2", r#"{"a":1,"a":2}"#) && stands(&[], "7", "7"));
        assert!(!stands(&["a"], "1", r#"{"a":1,"b":"\u0000"}"#));
    }

    #[test]
    fn what_is_asked_for_is_bounded() {
        let long = "x".repeat(FILTER_TEXT_BYTES_MAX + 1);
        let at = |path: Vec<String>, value: &str| vec![ValueAt { path, value: value.into() }];
        for bad in [
            JobFilter { text: Some(long.clone()), ..JobFilter::default() },
            JobFilter { args_at: at(vec![long.clone()], ""), ..JobFilter::default() },
            JobFilter { notes_at: at(vec![], &long), ..JobFilter::default() },
            JobFilter { args_at: at(vec!["0".into(); PATH_STEPS_MAX + 1], ""), ..JobFilter::default() },
            JobFilter { phases: vec![Phase::Ready; FILTER_NAMES_MAX + 1], ..JobFilter::default() },
            JobFilter {
                args_at: vec![at(vec![], "")[0].clone(); FILTER_PLACES_MAX + 1],
                ..JobFilter::default()
            },
            JobFilter { queues: vec![long.clone()], ..JobFilter::default() },
        ] {
            assert!(matches!(bad.check(), Err(QueueError::Invalid(_))), "{bad:?}");
        }
    }
}
