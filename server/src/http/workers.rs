//! `/api/v1/workers`: who there is, and what they are told.

use super::problem::Refusal;
use super::query::{Pairs, limit, many, one, only, pairs};
use super::{App, body, json, path};
use axum::extract::{Path, Request, State};
use axum::response::Response;
use http::{StatusCode, Uri};
use minium_protocol::ErrorCode;
use minium_queue::{Command, WorkerFilter, WorkerState, rules};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// A broadcast names so many workers at most; without any it goes to all.
const RECIPIENTS_MAX: usize = 1_000;

/// GET `/api/v1/workers`: a page, those that came last first.
pub(crate) async fn list(State(app): State<Arc<App>>, uri: Uri) -> Result<Response, Refusal> {
    let filter = filter(&pairs(&uri)?)?;
    let page = app.database.store()?.workers(&filter).await?;
    let text = serde_json::to_string(&page).expect("a list of workers is plain JSON");
    Ok(json(StatusCode::OK, text))
}

/// GET `/api/v1/workers/{id}`.
pub(crate) async fn show(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Response, Refusal> {
    let id = path::worker(&id)?;
    let filter = WorkerFilter { ids: vec![id], limit: 1, ..WorkerFilter::default() };
    let page = app.database.store()?.workers(&filter).await?;
    let worker = page.workers.first().ok_or_else(|| nobody(id))?;
    Ok(json(StatusCode::OK, serde_json::to_string(worker).expect("a worker is plain JSON")))
}

/// POST `/api/v1/workers/{id}/command`, with `{"command","args"}`. 409 when the worker has too much in its inbox.
pub(crate) async fn command(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    let id = path::worker(&id)?;
    let words: Words = words(&app, request).await?;
    if words.workers.is_some() {
        return Err(Refusal::invalid("the path names the worker; workers is for :broadcast"));
    }
    let (store, command) = (app.database.store()?, Command::parse(&words.command, &words.args)?);
    if store.send_command(Some(&[id]), &command).await? == 0 {
        let filter = WorkerFilter { ids: vec![id], limit: 1, ..WorkerFilter::default() };
        let there = !store.workers(&filter).await?.workers.is_empty();
        let full = || Refusal::new(ErrorCode::Conflict, "the worker has not taken what it was told before");
        return Err(if there { full() } else { nobody(id) });
    }
    Ok(sent(1))
}

/// POST `/api/v1/workers:broadcast`, with `{"command","args"}`, and `workers` where it is not for all.
pub(crate) async fn broadcast(State(app): State<Arc<App>>, request: Request) -> Result<Response, Refusal> {
    let words: Words = words(&app, request).await?;
    let command = Command::parse(&words.command, &words.args)?;
    if words.workers.as_ref().is_some_and(|ids| ids.len() > RECIPIENTS_MAX) {
        return Err(Refusal::invalid(format!("workers must be at most {RECIPIENTS_MAX} ids")));
    }
    let count = app.database.store()?.send_command(words.workers.as_deref(), &command).await?;
    Ok(sent(count))
}

/// What somebody says to workers.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Words {
    command: String,
    #[serde(default)]
    args: Vec<Value>,
    #[serde(default)]
    workers: Option<Vec<i64>>,
}

async fn words(app: &App, request: Request) -> Result<Words, Refusal> {
    let bytes = body::read(request.into_body(), app.limits.request_bytes, app.limits.patience).await?;
    super::jobs::parse(&bytes)
}

fn sent(count: u64) -> Response {
    json(StatusCode::OK, json!({ "sent": count }).to_string())
}

fn nobody(id: i64) -> Refusal {
    Refusal::new(ErrorCode::NotFound, format!("there is no worker {id}"))
}

/// What the query asks for. Lists are parameters that are repeated, or parted by commas.
fn filter(pairs: &Pairs) -> Result<WorkerFilter, Refusal> {
    only(pairs, &["state", "before", "limit"])?;
    let states = many(pairs, "state")?.into_iter().map(str::parse::<WorkerState>).collect();
    let limit = limit(pairs, WorkerFilter::default().limit, rules::PAGE_MAX)?;
    Ok(WorkerFilter {
        states: Result::map_err(states, |why: String| Refusal::invalid(format!("state: {why}")))?,
        before: one(pairs, "before")?.map(path::worker).transpose()?,
        limit,
        ..WorkerFilter::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(query: &str) -> Result<WorkerFilter, Refusal> {
        filter(&pairs(&format!("/api/v1/workers{query}").parse().unwrap())?)
    }

    #[test]
    fn a_query_becomes_a_filter() {
        let filter = asked("?state=idle,stale&state=processing&before=7&limit=3").unwrap();
        assert_eq!(filter.states, [WorkerState::Idle, WorkerState::Stale, WorkerState::Processing]);
        assert_eq!((filter.before, filter.limit), (Some(7), 3));
        for bad in ["?state=dead", "?state=", "?limit=0", "?before=x", "?host=h"] {
            assert!(asked(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn words_have_a_command_and_nothing_unknown() {
        let read = |text: &str| super::super::jobs::parse::<Words>(text.as_bytes());
        let words = read(r#"{"command":"stop","args":[4]}"#).unwrap();
        assert_eq!((words.command.as_str(), words.args.len()), ("stop", 1));
        for bad in ["{}", r#"{"command":1}"#, r#"{"command":"a","arguments":[]}"#, "x"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
