//! GET `/api/v1/jobs/{id}/parents`: what those have brought that a job waited for. A worker over WebSocket asks for it with
//! nothing but the lease of the job that it runs.

use super::super::permit::Granted;
use super::super::problem::Refusal;
use super::super::query::{one, only, pairs};
use super::super::{App, json, path};
use super::{find, whole};
use axum::Extension;
use axum::extract::{Path, State};
use axum::response::Response;
use http::{StatusCode, Uri};
use minium_protocol::{LeaseToken, Topic, Verb};
use minium_queue::{Annotation, JobFilter, Store, rules};
use std::sync::Arc;

/// The handler: a page, from the parent at the place `from` on.
pub(crate) async fn parents(
    State(app): State<Arc<App>>,
    Extension(granted): Extension<Granted>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Response, Refusal> {
    let (id, pairs) = (path::job(&id)?, pairs(&uri)?);
    only(&pairs, &["from", "lease"])?;
    let from = one(&pairs, "from")?.map_or(Ok(0), path::job);
    let from = from.ok().and_then(|from| usize::try_from(from).ok());
    let from = from.ok_or_else(|| Refusal::invalid("from must be a whole number"))?;
    let lease = one(&pairs, "lease")?.map(|text| text.parse().map(LeaseToken)).transpose();
    let lease = lease.map_err(|_| Refusal::invalid("lease must be a UUID"))?;
    let store = app.database.store()?;
    let job = whole(&find(&*store, id).await?)?;
    if let Some(lease) = lease {
        may_ask(&granted, &*store, (id, &job.task), lease).await?;
    }
    let rest = job.parents.get(from..).unwrap_or_default();
    let asked = &rest[..rest.len().min(rules::RESULTS_MAX)];
    let parents = store.results(asked, JobFilter::default().bytes_max).await?;
    let next = (parents.len() < rest.len()).then_some(from + parents.len());
    let parents = serde_json::to_string(&parents).expect("results are JSON");
    let next = next.map_or("null".into(), |place| place.to_string());
    Ok(json(StatusCode::OK, format!("{{\"parents\":{parents},\"next\":{next}}}")))
}

/// Whoever may not see jobs has to run this one, and be allowed to.
async fn may_ask(
    granted: &Granted,
    store: &dyn Store,
    (id, task): (i64, &str),
    lease: LeaseToken,
) -> Result<(), Refusal> {
    if let Some(grant) = granted.0.as_ref().filter(|grant| !grant.scopes.allow_jobs_read()) {
        let topic: Topic = task.parse().map_err(|_| Refusal::invalid("the job's task is no channel"))?;
        grant.check(Verb::Pull, &topic.into()).map_err(Refusal::from)?;
    }
    // an annotation of nothing writes nothing, and is refused when the lease is gone
    Ok(store.annotate(id, Some(lease), &Annotation::default()).await?)
}
