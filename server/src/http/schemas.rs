//! The schema files, by the path that `dataschema` names; a list of them; and what one says of a document.

use super::problem::Refusal;
use super::{App, body, json, topics};
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use minium_bus::{Governs, Schema, SchemaView, Schemas};
use minium_protocol::ErrorCode;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::sync::Arc;

/// GET `/schemas/sub/livesys.json`.
pub(crate) async fn schema(
    State(app): State<Arc<App>>,
    Path(path): Path<String>,
) -> Result<Response, Refusal> {
    let text = app.schemas.text(&path).ok_or_else(nothing)?;
    let headers = [(CONTENT_TYPE, "application/schema+json"), (CACHE_CONTROL, "no-cache")];
    Ok((headers, text.to_string()).into_response())
}

/// GET `/api/v1/schemas`: all of them, by path.
pub(crate) async fn list(State(app): State<Arc<App>>) -> Response {
    let schemas: Vec<Value> = app.schemas.list().iter().map(shown).collect();
    json(StatusCode::OK, json!({ "schemas": schemas }).to_string())
}

/// POST `/api/v1/schemas:test`: does a document fit? Nothing is sent, and nothing enqueued.
pub(crate) async fn test(State(app): State<Arc<App>>, request: Request) -> Result<Response, Refusal> {
    let bytes = body::read(request.into_body(), app.limits.request_bytes, app.limits.patience).await?;
    let asked: Asked = super::jobs::parse(&bytes)?;
    let schema = asked.schema(&app.schemas)?;
    let document: Value = super::jobs::parse(asked.document.get().as_bytes())?;
    let errors = schema.as_ref().and_then(|schema| schema.check(&document).err()).unwrap_or_default();
    let path = schema.as_ref().map(|schema| schema.path());
    let answer = json!({ "valid": errors.is_empty(), "schema": path, "errors": errors });
    Ok(json(StatusCode::OK, answer.to_string()))
}

/// A document, and by what it is to be judged: one of the three.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    pattern: Option<String>,
    topic: Option<String>,
    task: Option<String>,
    path: Option<String>,
    document: Box<RawValue>,
}

impl Asked {
    /// The schema; nothing when none governs such messages or arguments.
    fn schema(&self, schemas: &Schemas) -> Result<Option<Arc<Schema>>, Refusal> {
        let Asked { pattern, topic, task, path, .. } = self;
        match (pattern, topic, task, path) {
            (Some(pattern), Some(topic), None, None) => {
                let (pattern, topic) = (topics::pattern(pattern)?, topics::topic(topic)?);
                Ok(schemas.governing(pattern, topic.as_str()))
            }
            (None, None, Some(task), None) => Ok(schemas.for_task(topics::topic(task)?.as_str())),
            (None, None, None, Some(path)) => schemas.get(path).map(Some).ok_or_else(nothing),
            _ => Err(Refusal::invalid("say pattern and topic, or task, or path, and nothing else")),
        }
    }
}

fn nothing() -> Refusal {
    Refusal::new(ErrorCode::NotFound, "there is no such schema")
}

fn shown(view: &SchemaView) -> Value {
    let path = view.schema.path();
    let (pattern, topic, task) = match &view.governs {
        Governs::Channel(pattern, topic) => (Some(pattern.as_str()), Some(topic), None),
        Governs::Task(task) => (None, None, Some(task)),
        Governs::Nothing => (None, None, None),
    };
    json!({
        "path": path,
        "url": format!("/schemas/{path}"),
        "pattern": pattern,
        "topic": topic,
        "task": task,
        "title": view.schema.title(),
        "built_in": view.built_in,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Result<Option<String>, ()> {
        let asked: Asked = super::super::jobs::parse(text.as_bytes()).map_err(drop)?;
        let schema = asked.schema(&Schemas::built_in()).map_err(drop)?;
        Ok(schema.map(|schema| schema.path().to_owned()))
    }

    #[test]
    fn one_of_three_says_which_schema() {
        let of = |text| path(text).unwrap();
        assert_eq!(of(r#"{"pattern":"sub","topic":"task/x/1","document":1}"#).unwrap(), "sub/task.json");
        assert_eq!(of(r#"{"path":"job.json","document":1}"#).unwrap(), "job.json");
        assert_eq!(of(r#"{"pattern":"bus","topic":"task","document":1}"#), None);
        assert_eq!(of(r#"{"task":"nothing/like/it","document":null}"#), None);
        for bad in [
            r#"{"document":1}"#,
            r#"{"topic":"a","document":1}"#,
            r#"{"pattern":"sub","topic":"a","path":"job.json","document":1}"#,
            r#"{"pattern":"pub","topic":"a","document":1}"#,
            r#"{"pattern":"sub","topic":"a/+","document":1}"#,
            r#"{"path":"no.json","document":1}"#,
            r#"{"path":"job.json"}"#,
            r#"{"path":"job.json","document":1,"strict":true}"#,
        ] {
            assert!(path(bad).is_err(), "{bad}");
        }
    }
}
