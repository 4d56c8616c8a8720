//! GET: one job, a page of jobs, the figures.

use super::super::problem::Refusal;
use super::super::query::pairs;
use super::super::{App, etag, json, path};
use super::{filter, find};
use axum::extract::{Path, State};
use axum::response::Response;
use http::{HeaderMap, StatusCode, Uri};
use std::sync::Arc;

/// GET `/api/v1/jobs/{id}`: the snapshot, and what is derived. Whoever has it already is told so.
pub(crate) async fn show(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let store = app.database.store()?;
    let view = find(&*store, path::job(&id)?).await?;
    Ok(etag::tagged(&headers, view.to_json()))
}

/// GET `/api/v1/jobs/{id}/failures`: why each run failed that did, the first one first.
pub(crate) async fn failures(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    let (store, id) = (app.database.store()?, path::job(&id)?);
    let failures = store.failures(id).await?;
    if failures.is_empty() {
        find(&*store, id).await?;
    }
    Ok(json(StatusCode::OK, serde_json::json!({ "failures": failures }).to_string()))
}

/// GET `/api/v1/jobs`: a page, newest first.
pub(crate) async fn list(State(app): State<Arc<App>>, uri: Uri) -> Result<Response, Refusal> {
    let filter = filter::of_query(&pairs(&uri)?)?;
    let page = app.database.store()?.list(&filter).await?;
    let mut text = String::from("{\"jobs\":[");
    for (i, job) in page.jobs.iter().enumerate() {
        if i > 0 {
            text.push(',');
        }
        text.push_str(job.get());
    }
    let next = page.next.map_or("null".into(), |id| id.to_string());
    text.push_str(&format!("],\"next\":{next}}}"));
    Ok(json(StatusCode::OK, text))
}

/// GET `/api/v1/stats`: figures of the whole queue, and of this node's bus.
pub(crate) async fn stats(State(app): State<Arc<App>>) -> Result<Response, Refusal> {
    let stats = app.database.store()?.stats().await?;
    let mut value = serde_json::to_value(&stats).expect("figures are plain JSON");
    if let Some(members) = value.as_object_mut() {
        let bus = app.bus.stats();
        members.insert("sessions".into(), bus.sessions.into());
        members.insert("uptime".into(), app.started.elapsed().as_secs().into());
        members.insert("position".into(), bus.relayed.map(|p| p.to_string()).into());
    }
    Ok(json(StatusCode::OK, value.to_string()))
}
