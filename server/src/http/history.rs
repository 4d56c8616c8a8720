//! GET `/history/T`: a page of what is kept, for whoever wants it without a subscription.
//!
//! The position is judged as a subscription's is. Each answer names the position that the next one begins behind, so
//! that pages join without a gap, and an empty page is one to ask for again later.

use super::events::{NDJSON, answer};
use super::problem::Refusal;
use super::query::{one, only, pairs};
use super::session::{accepts, begin};
use super::{App, path, query};
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Uri};
use minium_bus::{History, HistoryError, Start};
use minium_protocol::{After, ErrorCode, Filter, Position, Problem};
use std::sync::Arc;
use tokio::time::timeout;

/// Where the next page begins.
pub(super) const NEXT: HeaderName = HeaderName::from_static("minium-next");
/// Events in one page when nothing is said, and at most.
const LIMIT: u32 = 100;
const LIMIT_MAX: u32 = 1_000;
/// A page has no more events after the first that passes so many bytes.
const BYTES_MAX: usize = 4 << 20;

/// The handler.
pub(crate) async fn history(State(app): State<Arc<App>>, request: Request) -> Result<Response, Refusal> {
    let (parts, _) = request.into_parts();
    let filter = path::filter(&parts.uri)?;
    let (after, limit) = asked(&parts.uri)?;
    let open = app.database.open()?;
    let Some(start) = begin(&app, &filter, after).await? else {
        return Err(Refusal::new(ErrorCode::Internal, "a page begins nowhere"));
    };
    let room = timeout(app.limits.patience, app.histories.clone().acquire_owned()).await;
    let Ok(Ok(room)) = room else {
        return Err(Refusal::new(ErrorCode::Unavailable, "too many histories are being read already"));
    };
    let (events, next) = page(&*open.history, &filter, start, limit).await?;
    let mut response =
        answer(events, accepts(&parts, NDJSON), room, "{\"messages\":[", format!("],\"next\":\"{next}\"}}"));
    let next = HeaderValue::from_str(&next.to_string()).expect("a position is made of digits and a colon");
    response.headers_mut().insert(NEXT, next);
    Ok(response)
}

/// From where, and how many. Without a position from the oldest that is kept.
fn asked(uri: &Uri) -> Result<(After, u32), Refusal> {
    let pairs = pairs(uri)?;
    only(&pairs, &["after", "last", "limit"])?;
    let limit = query::limit(&pairs, LIMIT, LIMIT_MAX)?;
    let said = one(&pairs, "after")?.is_some() || one(&pairs, "last")?.is_some();
    let after = match query::after(uri)? {
        After::Latest if said => After::Last(0), // where the end is, to come back to
        After::Latest => After::Earliest,
        other => other,
    };
    Ok((after, limit))
}

async fn page(
    history: &dyn History,
    filter: &Filter,
    start: Start,
    limit: u32,
) -> Result<(Vec<Bytes>, Position), Refusal> {
    let to = history.bounds(filter).await.map_err(|e| refused(start, &e))?.last;
    let (mut events, mut bytes, mut after) = (Vec::new(), 0, start.after);
    while after < to && events.len() < limit as usize && bytes < BYTES_MAX {
        let count = limit - events.len() as u32;
        let page = match history.read(filter, after, to, count, BYTES_MAX - bytes).await {
            Ok(page) => page,
            // let go of meanwhile: what was read is a page, and the next one is told
            Err(_) if !events.is_empty() => break,
            Err(error) => return Err(refused(start, &error)),
        };
        bytes += page.entries.iter().map(|entry| entry.event.len()).sum::<usize>();
        events.extend(page.entries.into_iter().map(|entry| entry.event));
        if page.scanned_to <= after {
            break;
        }
        after = page.scanned_to;
    }
    Ok((events, Position { epoch: start.epoch, offset: after }))
}

fn refused(start: Start, error: &HistoryError) -> Refusal {
    let (code, earliest) = match error {
        HistoryError::Expired { first } => {
            let earliest = Position { epoch: start.epoch, offset: first.saturating_sub(1) };
            (ErrorCode::OffsetExpired, Some(earliest.to_string()))
        }
        _ => (ErrorCode::Unavailable, None),
    };
    Problem { earliest, ..Problem::new(code, error.to_string()) }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Option<(After, u32)> {
        asked(&format!("/history/a{query}").parse().unwrap()).ok()
    }

    #[test]
    fn a_page_begins_with_the_oldest_unless_a_position_is_said() {
        assert_eq!(parse(""), Some((After::Earliest, LIMIT)));
        assert_eq!(parse("?after=latest"), Some((After::Last(0), LIMIT)));
        assert_eq!(parse("?last=5&limit=1000"), Some((After::Last(5), 1_000)));
        let position = Position { epoch: 1, offset: 2 };
        assert_eq!(parse("?after=1:2&limit=1"), Some((After::Position(position), 1)));
        for bad in ["?limit=0", "?limit=1001", "?limit=x", "?after=x", "?after=1&last=1", "?count=1"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
