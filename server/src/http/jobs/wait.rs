//! GET `/api/v1/jobs/{id}/wait`: answers when the job has ended.
//!
//! It waits on the job's own events, as any subscriber does; the database is asked only when one has come, and seldom
//! besides, since the relay may be behind or down.

use super::super::problem::Refusal;
use super::super::query::{one, only, pairs};
use super::super::{App, json, path};
use axum::extract::{Path, State};
use axum::response::Response;
use futures::StreamExt;
use http::{StatusCode, Uri};
use minium_protocol::{ErrorCode, Job, JobView, Topic, parse_duration};
use minium_queue::{QueueError, Store};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// How long it waits when nothing is said.
const TIMEOUT_USUAL: Duration = Duration::from_secs(30);
/// Whoever wants to wait longer asks again.
const TIMEOUT_MAX: Duration = Duration::from_secs(300);
/// Between looks at the database when no event comes.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// The handler.
pub(crate) async fn wait(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Response, Refusal> {
    let id = path::job(&id)?;
    let query = pairs(&uri)?;
    only(&query, &["timeout"])?;
    let deadline = Instant::now() + span(one(&query, "timeout")?)?;
    let store = app.database.store()?;
    let (view, job) = look(&*store, id).await?;
    let task = match ended(view, job) {
        Ok(view) => return Ok(json(StatusCode::OK, view.to_json())),
        Err(task) => task,
    };
    let too_many = || Refusal::new(ErrorCode::Unavailable, "too many requests wait already");
    let _room = app.waits.try_acquire().map_err(|_| too_many())?;
    let topic = Topic::of_job(&task, id).map_err(|e| Refusal::new(ErrorCode::TopicInvalid, e.to_string()))?;
    let permit = app.bus.admit()?;
    let mut events = app.bus.subscribe(topic.into(), None, None, permit).await?;
    let mut streaming = true;
    loop {
        // Looked at after the subscription stands: what ends later sends an event.
        let (view, job) = look(&*store, id).await?;
        if let Ok(view) = ended(view, job) {
            return Ok(json(StatusCode::OK, view.to_json()));
        }
        let next_look = deadline.min(Instant::now() + LOOK_INTERVAL);
        tokio::select! {
            () = app.closing.cancelled() => {
                return Err(Refusal::new(ErrorCode::Unavailable, "the node is going down; ask again"));
            }
            event = timeout_at(next_look, events.next()), if streaming => streaming = !matches!(event, Ok(None)),
            () = tokio::time::sleep_until(next_look), if !streaming => {}
        }
        if Instant::now() >= deadline {
            return Err(Refusal::new(ErrorCode::Timeout, format!("job {id} has not ended yet")));
        }
    }
}

async fn look(store: &dyn Store, id: i64) -> Result<(JobView, Job), Refusal> {
    let view = store.get(id).await?.ok_or(QueueError::NotFound(id))?;
    let job = view.job().map_err(|_| Refusal::new(ErrorCode::Internal, "a snapshot cannot be read"))?;
    Ok((view, job))
}

/// The job if it has ended, else its task.
fn ended(view: JobView, job: Job) -> Result<JobView, String> {
    if job.state.is_ended() { Ok(view) } else { Err(job.task) }
}

fn span(text: Option<&str>) -> Result<Duration, Refusal> {
    let Some(text) = text else { return Ok(TIMEOUT_USUAL) };
    let span = parse_duration(text).map_err(|e| Refusal::invalid(format!("timeout: {e}")))?;
    if span > TIMEOUT_MAX {
        return Err(Refusal::invalid("timeout must be 5m or less; ask again when it has passed"));
    }
    Ok(span)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_bounded() {
        assert_eq!(span(None).unwrap(), Duration::from_secs(30));
        assert_eq!(span(Some("1500ms")).unwrap(), Duration::from_millis(1_500));
        assert_eq!(span(Some("5m")).unwrap(), TIMEOUT_MAX);
        assert!(span(Some("301s")).is_err() && span(Some("soon")).is_err());
    }
}
