//! GET `/api/v1/jobs/{id}/events`: a job's history, read from the journal.

use super::super::events::{NDJSON, answer};
use super::super::problem::Refusal;
use super::super::query::{one, only, pairs};
use super::super::session::accepts;
use super::super::{App, path};
use super::find;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use bytes::Bytes;
use minium_bus::{History, HistoryError};
use minium_protocol::{ErrorCode, Filter, Topic};
use std::sync::Arc;
use tokio::time::timeout;

/// Histories that are read or held at once; who comes next waits a little, and is told to come again.
pub(crate) const HISTORIES_MAX: usize = 4;
/// Events of one job in one answer. A job that has more was retried or noted thousands of times.
const EVENTS_MAX: usize = 10_000;
/// Bytes of events in one answer.
const BYTES_MAX: usize = 64 << 20;
/// One read of the journal.
const PAGE_COUNT: u32 = 1_000;
const PAGE_BYTES: usize = 4 << 20;

/// The handler. `?task=` finds the events of a job that was removed.
pub(crate) async fn events(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    let (parts, _) = request.into_parts();
    let id = path::job(&id)?;
    let query = pairs(&parts.uri)?;
    only(&query, &["task"])?;
    let open = app.database.open()?;
    let named = one(&query, "task")?.map(str::to_owned);
    let gone = named.is_some();
    let task = match named {
        Some(task) => task,
        None => {
            let view = find(&*open.store, id).await?;
            view.job().map_err(|_| Refusal::new(ErrorCode::Internal, "a snapshot cannot be read"))?.task
        }
    };
    let topic = Topic::of_job(&task, id).map_err(|e| Refusal::new(ErrorCode::TopicInvalid, e.to_string()))?;
    let room = timeout(app.limits.patience, app.histories.clone().acquire_owned()).await;
    let Ok(Ok(room)) = room else {
        return Err(Refusal::new(ErrorCode::Unavailable, "too many histories are being read already"));
    };
    let events = read(&*open.history, &topic).await?;
    if events.is_empty() && gone {
        return Err(Refusal::new(ErrorCode::NotFound, "the journal knows no such job of this task"));
    }
    let lines = accepts(&parts, NDJSON);
    Ok(answer(events, lines, room, "{\"events\":[", "]}".into()))
}

async fn read(history: &dyn History, topic: &Topic) -> Result<Vec<Bytes>, Refusal> {
    let filter = Filter::from(topic.clone());
    let bounds = history.bounds(&filter).await.map_err(refusal)?;
    let (mut events, mut bytes) = (Vec::new(), 0);
    let mut after = bounds.first.saturating_sub(1);
    while after < bounds.last && events.len() < EVENTS_MAX && bytes < BYTES_MAX {
        let page = match history.read(&filter, after, bounds.last, PAGE_COUNT, PAGE_BYTES).await {
            Ok(page) => page,
            // Trimmed between the two reads.
            Err(HistoryError::Expired { first }) if first > after + 1 => {
                after = first - 1;
                continue;
            }
            Err(error) => return Err(refusal(error)),
        };
        // A filter hears everything below it too; a job of the task `import/42` is below job 42 of `import`.
        for entry in page.entries.into_iter().filter(|entry| entry.topic == *topic) {
            bytes += entry.event.len();
            events.push(entry.event);
        }
        if page.scanned_to <= after {
            break;
        }
        after = page.scanned_to;
    }
    Ok(events)
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err calls")]
fn refusal(error: HistoryError) -> Refusal {
    Refusal::new(ErrorCode::Unavailable, error.to_string())
}
