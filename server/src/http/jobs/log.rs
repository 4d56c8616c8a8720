//! GET `/api/v1/jobs/{id}/log`: what a job has said, line by line.

use super::super::problem::Refusal;
use super::super::query::{Pairs, limit, one, only, pairs};
use super::super::{App, json, path};
use super::find;
use axum::extract::{Path, State};
use axum::response::Response;
use http::{StatusCode, Uri};
use minium_queue::rules::PAGE_MAX;
use std::sync::Arc;

/// A page has so many lines unless it is said.
const LIMIT: u32 = 100;

/// A page, the oldest line first.
pub(crate) async fn log(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Response, Refusal> {
    let (after, limit) = asked(&pairs(&uri)?)?;
    let (store, id) = (app.database.store()?, path::job(&id)?);
    let page = store.log(id, after, limit).await?;
    if page.lines.is_empty() {
        find(&*store, id).await?;
    }
    Ok(json(StatusCode::OK, serde_json::to_string(&page).expect("lines are plain JSON")))
}

/// The number to begin behind, and how many lines.
fn asked(pairs: &Pairs) -> Result<(i64, u32), Refusal> {
    only(pairs, &["after", "limit"])?;
    let after = one(pairs, "after")?.map_or(Ok(0), |text| {
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        let number = digits.then(|| text.parse().ok()).flatten();
        number.ok_or_else(|| Refusal::invalid("after must be the number of a line"))
    })?;
    let limit = limit(pairs, LIMIT, PAGE_MAX)?;
    Ok((after, limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_says_where_to_begin_and_how_many() {
        let asked = |query: &str| asked(&pairs(&format!("/log{query}").parse().unwrap())?);
        assert_eq!(asked("").unwrap(), (0, LIMIT));
        assert_eq!(asked("?after=7&limit=1000").unwrap(), (7, 1_000));
        for bad in
            ["?after=-1", "?after=x", "?after=", "?limit=0", "?limit=1001", "?level=info", "?after=1&after=2"]
        {
            assert!(asked(bad).is_err(), "{bad}");
        }
    }
}
