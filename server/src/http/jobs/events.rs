//! GET `/api/v1/jobs/{id}/events`: a job's history, read from the journal, whole or by the page.
//!
//! What is not there is told: `next` says that there is more behind this page, `earliest` from where on the journal still
//! has all of it. Pages join as those of `/history` do.

use super::super::events::{NDJSON, answer};
use super::super::history::NEXT;
use super::super::problem::Refusal;
use super::super::query::{self, Pairs, one, only, pairs};
use super::super::session::{accepts, begin};
use super::super::{App, path};
use super::{find, whole};
use crate::node::SOURCE;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Uri};
use minium_bus::{Bounds, History, HistoryError, Start};
use minium_protocol::{After, ErrorCode, Filter, Position, Topic};
use serde::Deserialize;
use std::borrow::Cow;
use std::sync::Arc;
use tokio::time::timeout;

/// Behind this position everything that the journal was told of the job is still there.
pub(in super::super) const EARLIEST: HeaderName = HeaderName::from_static("minium-earliest");
/// Histories that are read or held at once; who comes next waits a little, and is told to come again.
pub(crate) const HISTORIES_MAX: usize = 4;
/// Events of one job in one answer, when nothing is said and at most. A job that has more was noted thousands of times.
const EVENTS_MAX: u32 = 10_000;
/// Bytes of events in one answer.
const BYTES_MAX: usize = 64 << 20;
/// One read of the journal.
const PAGE_COUNT: u32 = 1_000;
const PAGE_BYTES: usize = 4 << 20;

/// The handler. `?task=` finds the events of a job that was removed, or of an attached Minion's.
pub(crate) async fn events(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    let (parts, _) = request.into_parts();
    let id = path::job(&id)?;
    let query = pairs(&parts.uri)?;
    only(&query, &["task", "after", "limit"])?;
    let limit = query::limit(&query, EVENTS_MAX, EVENTS_MAX)? as usize;
    let open = app.database.open()?;
    let named = one(&query, "task")?.map(str::to_owned);
    let gone = named.is_some();
    let task = match named {
        Some(task) => task,
        None => whole(&find(&*open.store, id).await?)?.task,
    };
    let topic = Topic::of_job(&task, id).map_err(|e| Refusal::new(ErrorCode::TopicInvalid, e.to_string()))?;
    let start = start(&app, &parts.uri, &query, &topic).await?;
    let room = timeout(app.limits.patience, app.histories.clone().acquire_owned()).await;
    let Ok(Ok(room)) = room else {
        return Err(Refusal::new(ErrorCode::Unavailable, "too many histories are being read already"));
    };
    // an attached Minion may have had a job of that task and number too, which is another
    let which = if gone { Whose::Anybodys } else { Whose::Ours };
    let page = read(&*open.history, &topic, which, start, limit).await?;
    if page.events.is_empty() && gone && start.is_none() {
        return Err(Refusal::new(ErrorCode::NotFound, "the journal knows no such job of this task"));
    }
    Ok(page.answer(accepts(&parts, NDJSON), room))
}

/// Where to begin, judged as a subscription's position is; nothing is the oldest that is kept.
async fn start(app: &App, uri: &Uri, query: &Pairs, topic: &Topic) -> Result<Option<Start>, Refusal> {
    if one(query, "after")?.is_none() {
        return Ok(None);
    }
    let after = match query::after(uri)? {
        After::Latest => After::Last(0), // where the end is, to come back to
        other => other,
    };
    begin(app, &topic.clone().into(), after).await
}

/// A piece of a job's history.
struct Page {
    events: Vec<Bytes>,
    /// Where the next one begins, if this one does not reach up to now.
    next: Option<Position>,
    earliest: Position,
}

impl Page {
    fn answer(self, lines: bool, room: tokio::sync::OwnedSemaphorePermit) -> Response {
        let next = self.next.map_or("null".into(), |next| format!("\"{next}\""));
        let tail = format!("],\"next\":{next},\"earliest\":\"{}\"}}", self.earliest);
        let mut response = answer(self.events, lines, room, "{\"events\":[", tail);
        for (name, position) in [(NEXT, self.next), (EARLIEST, Some(self.earliest))] {
            if let Some(position) = position {
                let value = HeaderValue::from_str(&position.to_string());
                response.headers_mut().insert(name, value.expect("a position is made of digits and a colon"));
            }
        }
        response
    }
}

async fn read(
    history: &dyn History,
    topic: &Topic,
    which: Whose,
    start: Option<Start>,
    limit: usize,
) -> Result<Page, Refusal> {
    let filter = Filter::from(topic.clone());
    let bounds = history.bounds(&filter).await.map_err(refusal)?;
    let mut earliest = before(bounds, bounds.first);
    let (mut events, mut bytes) = (Vec::new(), 0);
    let mut after = start.map_or(earliest.offset, |start| start.after);
    while after < bounds.last && events.len() < limit && bytes < BYTES_MAX {
        let count = PAGE_COUNT.min(u32::try_from(limit - events.len()).unwrap_or(PAGE_COUNT));
        let page = match history.read(&filter, after, bounds.last, count, PAGE_BYTES).await {
            Ok(page) => page,
            // trimmed between the two reads, before anything was said
            Err(HistoryError::Expired { first })
                if start.is_none() && events.is_empty() && first > after + 1 =>
            {
                earliest = before(bounds, first);
                after = earliest.offset;
                continue;
            }
            // let go of meanwhile: what was read is a page, and the next one is told
            Err(HistoryError::Expired { .. }) if !events.is_empty() => break,
            Err(error) => return Err(refusal(error)),
        };
        // A filter hears everything below it too; a job of the task `import/42` is below job 42 of `import`.
        for entry in page.entries.into_iter().filter(|entry| entry.topic == *topic) {
            if which == Whose::Ours && !is_ours(&entry.event) {
                continue;
            }
            bytes += entry.event.len();
            events.push(entry.event);
        }
        if page.scanned_to <= after {
            break;
        }
        after = page.scanned_to;
    }
    let next = (after < bounds.last).then_some(Position { epoch: bounds.epoch, offset: after });
    Ok(Page { events, next, earliest })
}

/// Whose events are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    Ours,
    Anybodys,
}

/// Is it an event of this installation's own jobs?
fn is_ours(event: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Of<'a> {
        #[serde(borrow)]
        source: Cow<'a, str>,
    }
    serde_json::from_slice::<Of<'_>>(event).is_ok_and(|of| of.source == SOURCE)
}

/// The position behind which an offset is the first.
fn before(bounds: Bounds, first: u64) -> Position {
    Position { epoch: bounds.epoch, offset: first.saturating_sub(1) }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err calls")]
fn refusal(error: HistoryError) -> Refusal {
    Refusal::new(ErrorCode::Unavailable, error.to_string())
}
