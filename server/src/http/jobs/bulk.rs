//! POST `/api/v1/jobs:bulk`: one action on the jobs that a filter finds, a piece for each request.

use super::super::problem::Refusal;
use super::super::{App, body, json};
use super::act::options;
use super::parse;
use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;
use minium_protocol::State as JobState;
use minium_queue::{BulkAction, JobFilter};
use serde::de::value::SeqAccessDeserializer;
use serde::de::{self, IntoDeserializer, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

/// One request acts on so many jobs at most, so that it is answered in time; the answer's `next` leads to the others.
const PIECE: u32 = 500;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    action: String,
    filter: Filter,
    #[serde(default)]
    options: Map<String, Value>,
    #[serde(default)]
    dry_run: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct Filter {
    state: Many<String>,
    task: Many<String>,
    queue: Many<String>,
    note: Many<String>,
    id: Many<i64>,
    origin: Option<i64>,
    before: Option<i64>,
}

/// One, or an array of them. Read by hand: serde's untagged enums do not say what is wrong.
struct Many<T>(Vec<T>);

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
        Vec::deserialize(SeqAccessDeserializer::new(all)).map(Many)
    }
}

/// The handler.
pub(crate) async fn bulk(State(app): State<Arc<App>>, request: Request) -> Result<Response, Refusal> {
    let bytes = body::read(request.into_body(), app.limits.request_bytes, app.limits.patience).await?;
    let wire: Wire = parse(&bytes)?;
    let dry_run = wire.dry_run;
    let (action, filter) = read(wire)?;
    let store = app.database.store()?;
    let done = minium_queue::bulk(&*store, &action, &filter, dry_run).await?;
    let answer = serde_json::json!({
        "dry_run": dry_run,
        "matched": done.matched,
        "changed": done.changed,
        "refused": done.refused,
        "next": done.next,
    });
    Ok(json(StatusCode::OK, answer.to_string()))
}

fn read(wire: Wire) -> Result<(BulkAction, JobFilter), Refusal> {
    let action = match wire.action.as_str() {
        "retry" => BulkAction::Retry(options(&wire.options)?),
        "cancel" | "remove" if !wire.options.is_empty() => {
            return Err(Refusal::invalid(format!("{} has no options", wire.action)));
        }
        "cancel" => BulkAction::Cancel,
        "remove" => BulkAction::Remove,
        _ => return Err(Refusal::invalid("action must be retry, cancel or remove")),
    };
    let named = wire.filter;
    let states = named.state.0.iter().map(|state| state.parse::<JobState>()).collect::<Result<_, _>>();
    if named.id.0.iter().chain(&named.before).chain(&named.origin).any(|id| *id < 0) {
        return Err(Refusal::invalid("a job's id is a whole number"));
    }
    let filter = JobFilter {
        states: states.map_err(|why| Refusal::invalid(format!("state: {why}")))?,
        tasks: named.task.0,
        queues: named.queue.0,
        notes: named.note.0,
        ids: named.id.0,
        origin: named.origin,
        before: named.before,
        limit: PIECE,
        ..JobFilter::default()
    };
    let names = [filter.tasks.len(), filter.queues.len(), filter.notes.len(), filter.ids.len()];
    if filter.states.is_empty() && filter.origin.is_none() && names.iter().all(|count| *count == 0) {
        // a mistake in a script must not be all jobs that there are
        return Err(Refusal::invalid("filter must name a state, task, queue, note, id or origin"));
    }
    Ok((action, filter))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(json: &str) -> Result<(BulkAction, JobFilter), Refusal> {
        read(parse(json.as_bytes())?)
    }

    #[test]
    fn an_action_and_whom_it_is_for_are_read() {
        let (action, filter) = asked(
            r#"{"action":"retry","filter":{"state":"failed","task":["a","b"],"before":7},"options":{"delay":5}}"#,
        )
        .unwrap();
        assert!(matches!(action, BulkAction::Retry(options) if options.delay.is_some()));
        assert_eq!((filter.states, filter.tasks.len()), (vec![JobState::Failed], 2));
        assert_eq!((filter.before, filter.limit), (Some(7), PIECE));
        assert_eq!(asked(r#"{"action":"remove","filter":{"id":[3,4]}}"#).unwrap().1.ids, [3, 4]);
        assert_eq!(asked(r#"{"action":"cancel","filter":{"origin":2}}"#).unwrap().1.origin, Some(2));
    }

    #[test]
    fn what_could_be_meant_otherwise_is_refused() {
        for bad in [
            r#"{"action":"retry","filter":{}}"#,
            r#"{"action":"retry"}"#,
            r#"{"action":"burn","filter":{"id":1}}"#,
            r#"{"action":"retry","filter":{"colour":"red"}}"#,
            r#"{"action":"retry","filter":{"state":"done"}}"#,
            r#"{"action":"retry","filter":{"id":-1}}"#,
            r#"{"action":"retry","filter":{"id":1.5}}"#,
            r#"{"action":"retry","filter":{"task":null}}"#,
            r#"{"action":"retry","filter":{"state":"failed","before":-7}}"#,
            r#"{"action":"cancel","filter":{"id":1},"options":{"delay":5}}"#,
            r#"{"action":"retry","filter":{"id":1},"dryrun":true}"#,
        ] {
            assert!(asked(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_filter_is_refused_in_words_that_help() {
        let says = |json: &str, words: &str| {
            let told = format!("{:?}", asked(json).unwrap_err());
            assert!(told.contains(words), "{json}: {told}");
        };
        says(r#"{"action":"retry","filter":{"state":"done"}}"#, "is none of inactive, active");
        says(r#"{"action":"retry","filter":{"state":["failed","done"]}}"#, "is none of inactive, active");
        says(r#"{"action":"retry","filter":{"task":{"a":1}}}"#, "one, or an array of them");
        says(r#"{"action":"retry","filter":{"id":"x"}}"#, "expected i64");
        says(r#"{"action":"retry","filter":{"id":[3,-4]}}"#, "a job's id is a whole number");
    }
}
