//! Words about one job: try again, call off, note, delete. 409 where its state forbids it.

use super::super::problem::Refusal;
use super::super::{App, body, json, path};
use super::{find, parse};
use axum::extract::{Path, Request, State};
use axum::response::Response;
use http::StatusCode;
use minium_protocol::{Topic, parse_duration};
use minium_queue::{Amendment, Annotation, RetryOptions, Store};
use serde_json::{Map, Value};
use std::sync::Arc;
use std::time::Duration;

/// POST `/api/v1/jobs/{id}/retry`, with options in the body or without one. Answers the job as it is then.
pub(crate) async fn retry(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    let id = path::job(&id)?;
    let options = options(&object(&app, request).await?)?;
    let store = app.database.store()?;
    store.retry(id, &options).await?;
    shown(&*store, id).await
}

/// POST `/api/v1/jobs/{id}/cancel`. Answers the job as it is then; with `{"cascade":true}`, which calls off all that it
/// enqueued as well, how many were called off.
pub(crate) async fn cancel(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    let id = path::job(&id)?;
    let mut body = object(&app, request).await?;
    let cascade = match body.remove("cascade") {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::Bool(true)) => true,
        Some(_) => return Err(Refusal::invalid("cascade must be true or false")),
    };
    if let Some(name) = body.keys().next() {
        return Err(Refusal::invalid(format!("there is no option {name:?} here; there is cascade")));
    }
    let store = app.database.store()?;
    if cascade {
        let cancelled = store.cancel_cascade(id).await?;
        return Ok(json(StatusCode::OK, serde_json::json!({ "cancelled": cancelled }).to_string()));
    }
    store.cancel(id).await?;
    shown(&*store, id).await
}

/// PATCH `/api/v1/jobs/{id}`: notes, merged member by member, where `null` deletes one; delay, priority and queue of a job that
/// waits. Answers the job as it is then.
pub(crate) async fn change(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    let id = path::job(&id)?;
    let amendment = amendment(&object(&app, request).await?)?;
    let store = app.database.store()?;
    // notes by themselves may be changed in any state
    if amendment.delay.is_none() && amendment.priority.is_none() && amendment.queue.is_none() {
        store.annotate(id, None, &Annotation { notes: amendment.notes, ..Annotation::default() }).await?;
    } else {
        store.amend(id, &amendment).await?;
    }
    shown(&*store, id).await
}

/// DELETE `/api/v1/jobs/{id}`.
pub(crate) async fn remove(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<StatusCode, Refusal> {
    let id = path::job(&id)?;
    app.database.store()?.remove(id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn shown(store: &dyn Store, id: i64) -> Result<Response, Refusal> {
    Ok(json(StatusCode::OK, find(store, id).await?.to_json()))
}

/// The body as an object; an empty body is an empty one.
async fn object(app: &App, request: Request) -> Result<Map<String, Value>, Refusal> {
    let bytes = body::read(request.into_body(), app.limits.request_bytes, app.limits.patience).await?;
    if bytes.trim_ascii().is_empty() { Ok(Map::new()) } else { parse(&bytes) }
}

fn amendment(body: &Map<String, Value>) -> Result<Amendment, Refusal> {
    let mut amendment = Amendment::default();
    for (name, value) in body.iter().filter(|(_, value)| !value.is_null()) {
        match name.as_str() {
            "notes" => {
                let notes = value.as_object().ok_or_else(|| Refusal::invalid("notes must be an object"))?;
                amendment.notes = notes.clone();
            }
            "delay" => amendment.delay = Some(delay(value)?),
            "priority" => amendment.priority = Some(priority(value)?),
            "queue" => amendment.queue = Some(queue(value)?),
            _ => {
                let known = "notes, delay, priority, queue";
                return Err(Refusal::invalid(format!("there is no option {name:?} here; there are {known}")));
            }
        }
    }
    if body.values().all(Value::is_null) {
        return Err(Refusal::invalid("there is nothing to change: notes, delay, priority, queue"));
    }
    Ok(amendment)
}

fn fault(name: &str, must: &str) -> Refusal {
    Refusal::invalid(format!("{name} must be {must}"))
}

fn delay(value: &Value) -> Result<Duration, Refusal> {
    span(value).ok_or_else(|| fault("delay", "seconds or a text as \"90s\""))
}

fn priority(value: &Value) -> Result<i32, Refusal> {
    whole(value).ok_or_else(|| fault("priority", "a whole number"))
}

fn queue(value: &Value) -> Result<String, Refusal> {
    let name = value.as_str().filter(|name| name.parse::<Topic>().is_ok());
    name.map(str::to_owned).ok_or_else(|| fault("queue", "the name of a queue"))
}

pub(super) fn options(body: &Map<String, Value>) -> Result<RetryOptions, Refusal> {
    let mut options = RetryOptions::default();
    for (name, value) in body.iter().filter(|(_, value)| !value.is_null()) {
        let fault = |must: &str| fault(name, must);
        match name.as_str() {
            "delay" => options.delay = Some(delay(value)?),
            "priority" => options.priority = Some(priority(value)?),
            "attempts" => options.attempts = Some(whole(value).ok_or_else(|| fault("a whole number"))?),
            "queue" => options.queue = Some(queue(value)?),
            "expire" => {
                options.expire = Some(span(value).ok_or_else(|| fault("seconds or a text as \"90s\""))?)
            }
            "lax" => options.lax = Some(value.as_bool().ok_or_else(|| fault("true or false"))?),
            "parents" => {
                let parents =
                    serde_json::from_value(value.clone()).map_err(|_| fault("an array of job numbers"))?;
                options.parents = Some(parents);
            }
            _ => {
                let known = "delay, priority, queue, attempts, expire, lax, parents";
                return Err(Refusal::invalid(format!("there is no option {name:?} here; there are {known}")));
            }
        }
    }
    Ok(options)
}

fn whole(value: &Value) -> Option<i32> {
    value.as_i64().and_then(|n| i32::try_from(n).ok())
}

fn span(value: &Value) -> Option<Duration> {
    match value {
        Value::Number(n) => parse_duration(&n.to_string()).ok(),
        other => parse_duration(other.as_str()?).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(text: &str) -> Map<String, Value> {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn retry_takes_its_options_and_names_what_it_does_not_know() {
        let read = options(&map(r#"{"delay":"5m","priority":-3,"queue":"slow/lane","attempts":4}"#)).unwrap();
        assert_eq!((read.delay, read.priority), (Some(Duration::from_secs(300)), Some(-3)));
        assert_eq!((read.queue.as_deref(), read.attempts), (Some("slow/lane"), Some(4)));
        assert_eq!(options(&map(r#"{"delay":1.5}"#)).unwrap().delay, Some(Duration::from_millis(1_500)));
        assert!(options(&map(r#"{"delay":null}"#)).unwrap().delay.is_none());
        let read = options(&map(r#"{"expire":60,"lax":true,"parents":[3,1]}"#)).unwrap();
        assert_eq!((read.expire, read.lax), (Some(Duration::from_secs(60)), Some(true)));
        assert_eq!(read.parents, Some(vec![3, 1]));
        for bad in [
            r#"{"delay":"soon"}"#,
            r#"{"priority":1.5}"#,
            r#"{"queue":"a b"}"#,
            r#"{"attempts":"3"}"#,
            r#"{"colour":1}"#,
            r#"{"lax":"yes"}"#,
            r#"{"parents":[1,"x"]}"#,
            r#"{"parents":7}"#,
        ] {
            assert!(options(&map(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn patch_takes_notes_and_what_may_be_amended() {
        assert_eq!(amendment(&map(r#"{"notes":{"a":1,"b":null}}"#)).unwrap().notes.len(), 2);
        let read = amendment(&map(r#"{"delay":"5m","priority":-3,"queue":null,"notes":null}"#)).unwrap();
        assert_eq!((read.delay, read.priority), (Some(Duration::from_secs(300)), Some(-3)));
        assert!(read.queue.is_none() && read.notes.is_empty());
        for bad in ["{}", r#"{"notes":[]}"#, r#"{"queue":null}"#, r#"{"attempts":3}"#, r#"{"delay":"soon"}"#]
        {
            assert!(amendment(&map(bad)).is_err(), "{bad}");
        }
    }
}
