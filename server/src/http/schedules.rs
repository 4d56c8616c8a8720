//! `/api/v1/schedules`: work that repeats, over HTTP. A name is one segment of the path; what it has of slashes is
//! percent-encoded.

use super::jobs::{check_args, find, parse};
use super::permit::Granted;
use super::problem::Refusal;
use super::query::{Pairs, limit, one, only, pairs};
use super::{App, body, json};
use axum::Extension;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use http::{StatusCode, Uri};
use minium_protocol::ScheduleRequest;
use minium_queue::{QueueError, Schedule, ScheduleFilter, Store, rules};
use std::sync::Arc;

/// GET `/api/v1/schedules`: a page, by name.
pub(crate) async fn list(State(app): State<Arc<App>>, uri: Uri) -> Result<Response, Refusal> {
    let filter = filter(&pairs(&uri)?)?;
    let page = app.database.store()?.schedules(&filter).await?;
    let all: Vec<String> = page.schedules.iter().map(|schedule| schedule.to_json()).collect();
    let next = serde_json::Value::from(page.next);
    Ok(json(StatusCode::OK, format!("{{\"schedules\":[{}],\"next\":{next}}}", all.join(","))))
}

/// GET `/api/v1/schedules/{name}`.
pub(crate) async fn show(State(app): State<Arc<App>>, Path(name): Path<String>) -> Result<Response, Refusal> {
    shown(&*app.database.store()?, &name, StatusCode::OK).await
}

/// PUT `/api/v1/schedules/{name}`: in place of one of this name, if there is one. Arguments are judged as at an enqueue.
pub(crate) async fn put(
    State(app): State<Arc<App>>,
    Extension(granted): Extension<Granted>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    let bytes = body::read(request.into_body(), app.limits.request_bytes, app.limits.patience).await?;
    let schedule = Schedule::new(name, parse::<ScheduleRequest>(&bytes)?)?;
    granted.check_task(&schedule.request.task)?;
    check_args(&app.schemas, &schedule.request)?;
    let store = app.database.store()?;
    let status = match store.put_schedule(&schedule).await? {
        true => StatusCode::CREATED,
        false => StatusCode::OK,
    };
    shown(&*store, &schedule.name, status).await
}

/// DELETE `/api/v1/schedules/{name}`.
pub(crate) async fn remove(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
) -> Result<StatusCode, Refusal> {
    app.database.store()?.remove_schedule(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// POST `/api/v1/schedules/{name}/pause`. Answers the schedule as it is then.
pub(crate) async fn pause(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
) -> Result<Response, Refusal> {
    rest(&app, &name, true).await
}

/// POST `/api/v1/schedules/{name}/resume`. Answers the schedule as it is then.
pub(crate) async fn resume(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
) -> Result<Response, Refusal> {
    rest(&app, &name, false).await
}

async fn rest(app: &App, name: &str, paused: bool) -> Result<Response, Refusal> {
    let store = app.database.store()?;
    store.pause_schedule(name, paused).await?;
    shown(&*store, name, StatusCode::OK).await
}

/// POST `/api/v1/schedules/{name}/run`: enqueues its job now. Answers the job, as an enqueue does.
pub(crate) async fn run(State(app): State<Arc<App>>, Path(name): Path<String>) -> Result<Response, Refusal> {
    let store = app.database.store()?;
    let enqueued = store.run_schedule(&name).await?;
    // It may have run and have been removed already; then its number is all that there is to say.
    let text = match find(&*store, enqueued.id).await {
        Ok(view) => view.to_json(),
        Err(_) => format!("{{\"id\":{}}}", enqueued.id),
    };
    if enqueued.existing {
        let open = text.strip_suffix('}').unwrap_or(&text);
        return Ok(json(StatusCode::OK, format!("{open},\"existing\":true}}")));
    }
    Ok(json(StatusCode::CREATED, text))
}

async fn shown(store: &dyn Store, name: &str, status: StatusCode) -> Result<Response, Refusal> {
    let view = store.schedule(name).await?.ok_or_else(|| QueueError::NoSchedule(name.into()))?;
    Ok(json(status, view.to_json()))
}

fn filter(pairs: &Pairs) -> Result<ScheduleFilter, Refusal> {
    only(pairs, &["after", "limit"])?;
    let limit = limit(pairs, ScheduleFilter::default().limit, rules::PAGE_MAX)?;
    Ok(ScheduleFilter { after: one(pairs, "after")?.map(str::to_owned), limit })
}
