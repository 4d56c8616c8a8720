//! Which jobs are meant, by the query of a list or by the `filter` of a bulk action: the same words in both.

use super::super::path;
use super::super::problem::Refusal;
use super::super::query::{Pairs, limit, many, one, only};
use jiff::Timestamp;
use minium_protocol::{Phase, State};
use minium_queue::{JobFilter, Span, ValueAt, rules};
use serde::de::value::SeqAccessDeserializer;
use serde::de::{self, IntoDeserializer, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

/// What a list's query may say.
const KNOWN: [&str; 15] = [
    "state",
    "phase",
    "task",
    "queue",
    "note",
    "arg",
    "q",
    "enqueued_after",
    "enqueued_before",
    "ended_after",
    "ended_before",
    "id",
    "origin",
    "before",
    "limit",
];

/// The conditions as they are said, each text still to be read.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Said {
    state: Many<String>,
    phase: Many<String>,
    task: Many<String>,
    queue: Many<String>,
    note: Many<String>,
    arg: Many<String>,
    #[serde(deserialize_with = "given")]
    q: Option<String>,
    #[serde(deserialize_with = "given")]
    enqueued_after: Option<String>,
    #[serde(deserialize_with = "given")]
    enqueued_before: Option<String>,
    #[serde(deserialize_with = "given")]
    ended_after: Option<String>,
    #[serde(deserialize_with = "given")]
    ended_before: Option<String>,
    id: Many<i64>,
    #[serde(deserialize_with = "given")]
    origin: Option<i64>,
    before: Option<i64>,
}

/// What is named is there: a null, as an unset variable of a script makes it, is no wish for all that there is.
fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(d: D) -> Result<Option<T>, D::Error> {
    T::deserialize(d).map(Some)
}

/// What a query asks for. Lists are parameters that are repeated, or parted by commas.
pub(super) fn of_query(pairs: &Pairs) -> Result<JobFilter, Refusal> {
    only(pairs, &KNOWN)?;
    let names = |name| many(pairs, name).map(|all| Many(all.into_iter().map(str::to_owned).collect()));
    let text = |name| one(pairs, name).map(|text| text.map(str::to_owned));
    let said = Said {
        state: names("state")?,
        phase: names("phase")?,
        task: names("task")?,
        queue: names("queue")?,
        note: Many(notes(pairs)?),
        arg: Many(pairs.iter().filter(|(name, _)| name == "arg").map(|(_, arg)| arg.clone()).collect()),
        q: text("q")?,
        enqueued_after: text("enqueued_after")?,
        enqueued_before: text("enqueued_before")?,
        ended_after: text("ended_after")?,
        ended_before: text("ended_before")?,
        id: Many(many(pairs, "id")?.into_iter().map(path::job).collect::<Result<_, _>>()?),
        origin: one(pairs, "origin")?.map(path::job).transpose()?,
        before: one(pairs, "before")?.map(path::job).transpose()?,
    };
    let limit = limit(pairs, JobFilter::default().limit, rules::PAGE_MAX)?;
    Ok(JobFilter { limit, ..said.read()? })
}

/// Names may be parted by commas; a value may have commas in it.
fn notes(pairs: &Pairs) -> Result<Vec<String>, Refusal> {
    let mut notes: Vec<String> = Vec::new();
    for (name, said) in pairs.iter().filter(|(name, _)| name == "note") {
        if said.contains('=') {
            notes.push(said.clone());
        } else {
            let names = vec![(name.clone(), said.clone())];
            notes.extend(many(&names, "note")?.into_iter().map(str::to_owned));
        }
    }
    Ok(notes)
}

impl Said {
    /// Does it narrow anything? A cursor alone does not.
    pub(super) fn says_something(&self) -> bool {
        let texts = [&self.state, &self.phase, &self.task, &self.queue, &self.note, &self.arg];
        let single =
            [&self.q, &self.enqueued_after, &self.enqueued_before, &self.ended_after, &self.ended_before];
        texts.iter().any(|all| !all.0.is_empty())
            || single.iter().any(|text| text.is_some())
            || !self.id.0.is_empty()
            || self.origin.is_some()
    }

    pub(super) fn read(self) -> Result<JobFilter, Refusal> {
        if self.id.0.iter().chain(&self.before).chain(&self.origin).any(|id| *id < 0) {
            return Err(Refusal::invalid("a job's id is a whole number"));
        }
        let lists = [("task", &self.task), ("queue", &self.queue), ("note", &self.note)];
        let lists = lists.into_iter().flat_map(|(name, all)| all.0.iter().map(move |text| (name, text)));
        if let Some((name, _)) =
            lists.chain(self.q.iter().map(|q| ("q", q))).find(|(_, text)| text.is_empty())
        {
            return Err(Refusal::invalid(format!("{name} is empty; leave it out to ask for all")));
        }
        let (mut notes, mut notes_at) = (Vec::new(), Vec::new());
        for note in self.note.0 {
            match note.split_once('=') {
                Some((name, value)) => {
                    notes_at.push(ValueAt { path: vec![name.to_owned()], value: value.to_owned() })
                }
                None => notes.push(note),
            }
        }
        Ok(JobFilter {
            states: words::<State>("state", &self.state)?,
            phases: words::<Phase>("phase", &self.phase)?,
            tasks: self.task.0,
            queues: self.queue.0,
            notes,
            notes_at,
            args_at: self.arg.0.iter().map(|arg| argument(arg)).collect::<Result<_, _>>()?,
            enqueued: Span {
                after: moment("enqueued_after", self.enqueued_after.as_deref())?,
                before: moment("enqueued_before", self.enqueued_before.as_deref())?,
            },
            ended: Span {
                after: moment("ended_after", self.ended_after.as_deref())?,
                before: moment("ended_before", self.ended_before.as_deref())?,
            },
            text: self.q,
            ids: self.id.0,
            origin: self.origin,
            before: self.before,
            ..JobFilter::default()
        })
    }
}

fn words<T: FromStr<Err = String>>(name: &str, said: &Many<String>) -> Result<Vec<T>, Refusal> {
    let words = said.0.iter().map(|word| word.parse());
    words.collect::<Result<_, _>>().map_err(|why| Refusal::invalid(format!("{name}: {why}")))
}

fn moment(name: &str, text: Option<&str>) -> Result<Option<Timestamp>, Refusal> {
    let read = |text: &str| {
        let told = |_| Refusal::invalid(format!("{name} must be a time as \"2026-11-22T02:00:00Z\""));
        text.parse().map_err(told)
    };
    text.map(read).transpose()
}

/// `/0/serial=ABC`: a JSON pointer, and what stands there.
fn argument(said: &str) -> Result<ValueAt, Refusal> {
    let fault = || Refusal::invalid("arg must be a JSON pointer and a value, as \"/0/serial=ABC\"");
    let (pointer, value) = said.split_once('=').ok_or_else(fault)?;
    let path = match pointer.strip_prefix('/') {
        Some(steps) => {
            let step = |step| unescaped(step).filter(|step| !counts_from_the_end(step)).ok_or_else(fault);
            steps.split('/').map(step).collect::<Result<_, _>>()?
        }
        None if pointer.is_empty() => vec![],
        None => return Err(fault()),
    };
    Ok(ValueAt { path, value: value.to_owned() })
}

/// PostgreSQL would take it for an element from the end, and SQLite for a member's name; a JSON pointer has no such element.
fn counts_from_the_end(step: &str) -> bool {
    step.strip_prefix('-')
        .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
}

/// A step of a pointer as it is meant: `~1` is a slash, `~0` a tilde, and no other tilde is allowed.
fn unescaped(step: &str) -> Option<String> {
    let mut parts = step.split('~');
    let mut meant = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        meant.push(match part.as_bytes().first()? {
            b'0' => '~',
            b'1' => '/',
            _ => return None,
        });
        meant.push_str(&part[1..]);
    }
    Some(meant)
}

/// One, or an array of them. Read by hand: serde's untagged enums do not say what is wrong.
pub(super) struct Many<T>(Vec<T>);

impl<T> Default for Many<T> {
    fn default() -> Many<T> {
        Many(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Many<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Many<T>, D::Error> {
        d.deserialize_any(OneOrAll(PhantomData))
    }
}

struct OneOrAll<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for OneOrAll<T> {
    type Value = Many<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("one, or an array of them")
    }

    fn visit_str<E: de::Error>(self, one: &str) -> Result<Many<T>, E> {
        T::deserialize(one.into_deserializer()).map(|one| Many(vec![one]))
    }

    fn visit_u64<E: de::Error>(self, one: u64) -> Result<Many<T>, E> {
        T::deserialize(one.into_deserializer()).map(|one| Many(vec![one]))
    }

    fn visit_i64<E: de::Error>(self, one: i64) -> Result<Many<T>, E> {
        T::deserialize(one.into_deserializer()).map(|one| Many(vec![one]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, all: A) -> Result<Many<T>, A::Error> {
        let all = Vec::deserialize(SeqAccessDeserializer::new(all))?;
        match all.is_empty() {
            // as an empty parameter of a query, it is no wish for all that there is
            true => Err(de::Error::custom("an empty array; leave it out to ask for all")),
            false => Ok(Many(all)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::query::pairs;
    use super::*;

    fn asked(query: &str) -> Result<JobFilter, Refusal> {
        of_query(&pairs(&format!("/api/v1/jobs{query}").parse().unwrap())?)
    }

    fn at(path: &[&str], value: &str) -> ValueAt {
        ValueAt { path: path.iter().map(|step| (*step).to_owned()).collect(), value: value.into() }
    }

    #[test]
    fn a_query_becomes_a_filter() {
        let filter =
            asked("?state=active,failed&state=finished&task=a/b&queue=q&note=x&note=y&before=7&limit=1000&id=3,4&id=5&origin=2")
                .unwrap();
        assert_eq!(filter.states, [State::Active, State::Failed, State::Finished]);
        assert_eq!((filter.tasks, filter.queues), (vec!["a/b".to_owned()], vec!["q".to_owned()]));
        assert_eq!((filter.notes.len(), filter.before, filter.limit), (2, Some(7), 1_000));
        assert_eq!((filter.ids, filter.origin), (vec![3, 4, 5], Some(2)));
        assert_eq!(asked("").unwrap().limit, 50);
    }

    #[test]
    fn a_query_may_look_closely() {
        let filter = asked(
            "?phase=ready,blocked&note=a,b&note=rack=x,y&arg=/0/a~1b~0=1=2&arg==null&q=Lost%20disk\
             &enqueued_after=2026-11-22T02:00:00Z&ended_before=2026-11-23T00:00:00%2B01:00",
        )
        .unwrap();
        assert_eq!(filter.phases, [Phase::Ready, Phase::Blocked]);
        assert_eq!(
            (filter.notes, filter.notes_at),
            (vec!["a".into(), "b".into()], vec![at(&["rack"], "x,y")])
        );
        assert_eq!(filter.args_at, [at(&["0", "a/b~"], "1=2"), at(&[], "null")]);
        assert_eq!(filter.text.as_deref(), Some("Lost disk"));
        assert_eq!(filter.enqueued.after, Some("2026-11-22T02:00:00Z".parse().unwrap()));
        assert_eq!(filter.ended.before, Some("2026-11-22T23:00:00Z".parse().unwrap()));
        assert_eq!((filter.enqueued.before, filter.ended.after), (None, None));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for bad in [
            "?state=done",
            "?phase=active",
            "?limit=0",
            "?limit=1001",
            "?limit=x",
            "?before=x",
            "?id=x",
            "?task=",
            "?state=failed,",
            "?note=",
            "?note=a,",
            "?task=a&queue=",
            "?origin=x",
            "?origin=1&origin=2",
            "?q=",
            "?q=a&q=b",
            "?arg=/0",
            "?arg=0=1",
            "?arg=/~2=1",
            "?arg=/~=1",
            "?enqueued_after=yesterday",
            "?ended_before=",
            "?colour=red",
            "?limit=1&limit=2",
        ] {
            assert!(asked(bad).is_err(), "{bad}");
        }
    }
}
