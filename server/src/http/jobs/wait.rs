//! GET `/api/v1/jobs/{id}/wait`: answers when the job has ended.
//!
//! It waits on the job's own events, as any subscriber does; the database is asked only when one has come that may be the
//! end, and seldom besides, since the relay may be behind or down. A job that says much costs who waits for it nothing.

use super::super::problem::Refusal;
use super::super::query::{one, only, pairs};
use super::super::{App, json, path};
use super::{find, whole};
use axum::extract::{Path, State};
use axum::response::Response;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::{StatusCode, Uri};
use minium_protocol::{ErrorCode, EventType, Job, JobView, Topic, parse_duration};
use minium_queue::Store;
use serde::Deserialize;
use std::borrow::Cow;
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
    // the job is looked at once more behind it: what ends later sends an event
    let events = app.bus.subscribe(topic.into(), None, None, permit).await?;
    let ended = || {
        let store = store.clone();
        async move {
            let (view, job) = look(&*store, id).await?;
            Ok(ended(view, job).ok())
        }
    };
    tokio::select! {
        () = app.closing.cancelled() => {
            Err(Refusal::new(ErrorCode::Unavailable, "the node is going down; ask again"))
        }
        view = until_ended(events, ended, deadline) => match view? {
            Some(view) => Ok(json(StatusCode::OK, view.to_json())),
            None => Err(Refusal::new(ErrorCode::Timeout, format!("job {id} has not ended yet"))),
        }
    }
}

/// What `look` finds in the end; nothing when the deadline comes first.
async fn until_ended<T, L: Future<Output = Result<Option<T>, Refusal>>>(
    mut events: impl Stream<Item = Bytes> + Unpin,
    mut look: impl FnMut() -> L,
    deadline: Instant,
) -> Result<Option<T>, Refusal> {
    loop {
        if let Some(found) = look().await? {
            return Ok(Some(found));
        }
        let now = Instant::now();
        if now >= deadline {
            return Ok(None);
        }
        // no matter which it was
        timeout_at(deadline.min(now + LOOK_INTERVAL), end_is_told(&mut events)).await.ok();
    }
}

/// Waits for an event that may be the job's end; for ever when there are no more.
async fn end_is_told(events: &mut (impl Stream<Item = Bytes> + Unpin)) {
    while let Some(chunk) = events.next().await {
        if may_end(&chunk) {
            return;
        }
    }
    std::future::pending().await
}

/// May the job have ended with one of these events? A chunk is whole server-sent events; what cannot be read may be
/// anything.
fn may_end(chunk: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Told<'a> {
        #[serde(borrow, rename = "type")]
        kind: Cow<'a, str>,
    }
    let data = chunk.split(|byte| *byte == b'\n').filter_map(|line| line.strip_prefix(b"data:"));
    let mut told = data.map(|event| match serde_json::from_slice::<Told<'_>>(event) {
        Ok(told) => !EventType::parse(&told.kind).is_some_and(leaves_it_living),
        Err(_) => true,
    });
    told.any(|may_end| may_end)
}

/// Events after which a job still waits or runs.
fn leaves_it_living(event: EventType) -> bool {
    matches!(
        event,
        EventType::Enqueue | EventType::Dequeue | EventType::Progress | EventType::Changed | EventType::Retry
    )
}

async fn look(store: &dyn Store, id: i64) -> Result<(JobView, Job), Refusal> {
    let view = find(store, id).await?;
    let job = whole(&view)?;
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
    fn event(kind: &str) -> Bytes {
        Bytes::from(format!(
            "id: 1:7\ndata: {{\"specversion\":\"1.0\",\"type\":\"{kind}\",\"data\":{{\"id\":1}}}}\n\n"
        ))
    }

    #[test]
    fn some_events_may_be_the_end() {
        for kind in ["task.enqueue", "task.dequeue", "task.progress", "task.changed", "task.retry"] {
            assert!(!may_end(&event(kind)), "{kind}");
        }
        let ends =
            ["finished", "failed", "cancelled", "lost", "expired", "removed", "late_result", "unheard_of"];
        for kind in ends {
            assert!(may_end(&event(&format!("task.{kind}"))), "{kind}");
        }
        assert!(may_end(&[event("task.progress"), event("task.finished")].concat()));
        assert!(may_end(b"event: close\ndata: what\n\n"));
        assert!(!may_end(b": ping\n\n"));
    }

    #[tokio::test]
    async fn a_job_that_says_much_is_looked_at_when_it_may_have_ended() {
        let told = std::cell::Cell::new(0);
        let all = (0..100).map(|_| event("task.progress")).chain([event("task.finished")]);
        let events = futures::stream::iter(all).inspect(|_| told.set(told.get() + 1));
        let mut looks = 0;
        let look = || {
            looks += 1;
            std::future::ready(Ok((told.get() > 100).then_some("ended")))
        };
        let deadline = Instant::now() + TIMEOUT_MAX;
        let found = until_ended(events.chain(futures::stream::pending()), look, deadline).await.unwrap();
        assert_eq!((found, looks), (Some("ended"), 2), "once before, once at the end");
    }
}
