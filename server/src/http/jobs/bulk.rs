//! POST `/api/v1/jobs:bulk`: one action on the jobs that a filter finds: a piece for each request, or all behind one.

use super::super::problem::Refusal;
use super::super::{App, body, json};
use super::act::options;
use super::bulks::{self, Order};
use super::filter::Said;
use super::parse;
use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;
use minium_queue::{BulkAction, JobFilter};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::sync::Arc;

/// One request acts on so many jobs at most, so that it is answered in time; the answer's `next` leads to the others.
const PIECE: u32 = 500;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    action: String,
    filter: Said,
    #[serde(default)]
    options: Map<String, Value>,
    #[serde(default)]
    dry_run: bool,
    #[serde(default)]
    all: bool,
}

/// The handler.
pub(crate) async fn bulk(State(app): State<Arc<App>>, request: Request) -> Result<Response, Refusal> {
    let bytes = body::read(request.into_body(), app.limits.request_bytes, app.limits.patience).await?;
    let wire: Wire = parse(&bytes)?;
    let (dry_run, all) = (wire.dry_run, wire.all);
    let (action, filter) = read(wire)?;
    let store = app.database.store()?;
    if all {
        // what is wrong with it is told now, not by its progress
        minium_queue::check_bulk(&action, &filter)?;
        return bulks::begin(&app, store, Order { action, filter, dry_run });
    }
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
    if !wire.filter.says_something() {
        // a mistake in a script must not be all jobs that there are
        let detail = "filter must name a state, phase, task, queue, note, arg, q, time, id or origin";
        return Err(Refusal::invalid(detail));
    }
    Ok((action, JobFilter { limit: PIECE, ..wire.filter.read()? }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use minium_protocol::State as JobState;

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
        let closely = r#"{"action":"cancel","filter":{"note":["a","b=1"],"arg":"/0=x","q":"disk"}}"#;
        let filter = asked(closely).unwrap().1;
        assert_eq!((filter.notes, filter.notes_at[0].value.as_str()), (vec!["a".to_owned()], "1"));
        assert_eq!((filter.args_at[0].path[0].as_str(), filter.text.as_deref()), ("0", Some("disk")));
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
            r#"{"action":"retry","filter":{"before":7},"all":true}"#,
            r#"{"action":"retry","filter":{"q":""}}"#,
            r#"{"action":"retry","filter":{"task":["a",""]}}"#,
            r#"{"action":"retry","filter":{"queue":""}}"#,
            r#"{"action":"retry","filter":{"state":"failed","q":null}}"#,
            r#"{"action":"retry","filter":{"state":"failed","origin":null}}"#,
            r#"{"action":"retry","filter":{"enqueued_after":7}}"#,
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
