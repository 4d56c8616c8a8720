//! `/api/v1/locks`: named locks over HTTP. A name is one segment of the path; what it has of slashes is percent-encoded.

use super::jobs::parse;
use super::permit::Granted;
use super::problem::Refusal;
use super::query::{Pairs, one, only, pairs};
use super::{App, body, json};
use axum::Extension;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use http::{StatusCode, Uri};
use minium_protocol::{ErrorCode, LockExtension, LockHold, LockRequest, LockToken};
use minium_queue::{LockFilter, rules};
use serde_json::json;
use std::sync::Arc;

/// GET `/api/v1/locks`: a page of what is held, in the order in which it was taken. Tokens are not shown.
pub(crate) async fn list(State(app): State<Arc<App>>, uri: Uri) -> Result<Response, Refusal> {
    let filter = filter(&pairs(&uri)?)?;
    let page = app.database.store()?.locks(&filter).await?;
    Ok(json(StatusCode::OK, json!({ "locks": page.locks, "next": page.next }).to_string()))
}

/// POST `/api/v1/locks/{name}`: takes it, or is answered `conflict`. A span of zero only asks.
pub(crate) async fn take(
    State(app): State<Arc<App>>,
    Extension(granted): Extension<Granted>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    let bytes = body::read(request.into_body(), app.limits.request_bytes, app.limits.patience).await?;
    granted.check_lock(&name)?;
    let wanted: LockRequest = parse(&bytes)?;
    let store = app.database.store()?;
    let Some(held) = store.lock(&name, &wanted.owner, wanted.span, wanted.limit).await? else {
        let detail = match wanted.limit {
            1 => format!("the lock {name:?} is held"),
            n => format!("the lock {name:?} is held by {n} or more"),
        };
        return Err(Refusal::new(ErrorCode::Conflict, detail));
    };
    if wanted.span.is_zero() {
        let free = LockHold { name, token: None, until: None };
        return Ok(json(StatusCode::OK, text(&free)));
    }
    let hold = LockHold { name, token: Some(held.token), until: Some(held.until) };
    Ok(json(StatusCode::CREATED, text(&hold)))
}

/// PATCH `/api/v1/locks/{name}`: extends one's own hold.
pub(crate) async fn extend(
    State(app): State<Arc<App>>,
    Extension(granted): Extension<Granted>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    let bytes = body::read(request.into_body(), app.limits.request_bytes, app.limits.patience).await?;
    granted.check_lock(&name)?;
    let LockExtension { token, span } = parse(&bytes)?;
    match app.database.store()?.extend_lock(&name, token, span).await? {
        Some(until) => {
            let hold = LockHold { name, token: Some(token), until: Some(until) };
            Ok(json(StatusCode::OK, text(&hold)))
        }
        None => Err(ended(&name)),
    }
}

/// DELETE `/api/v1/locks/{name}`: lets one's own hold go, by its token, or ends all holds of the name, without one.
pub(crate) async fn release(
    State(app): State<Arc<App>>,
    Extension(granted): Extension<Granted>,
    Path(name): Path<String>,
    uri: Uri,
) -> Result<Response, Refusal> {
    granted.check_lock(&name)?;
    let pairs = pairs(&uri)?;
    // not `token`: that is how a bearer's token would stand in a URL, and it must not
    only(&pairs, &["lock_token"])?;
    let token = one(&pairs, "lock_token")?.map(str::parse::<LockToken>).transpose();
    let token = token.map_err(|why| Refusal::invalid(format!("lock_token: {why}")))?;
    let store = app.database.store()?;
    let ended_count = match token {
        Some(token) if store.unlock(&name, token).await? => 1,
        Some(_) => return Err(ended(&name)),
        None => store.unlock_any(&name).await?,
    };
    Ok(json(StatusCode::OK, json!({ "released": ended_count }).to_string()))
}

fn ended(name: &str) -> Refusal {
    let detail = format!("nobody holds the lock {name:?} by this token: it ran out, or was ended");
    Refusal::new(ErrorCode::Conflict, detail)
}

fn text(hold: &LockHold) -> String {
    serde_json::to_string(hold).expect("a hold is plain JSON")
}

fn filter(pairs: &Pairs) -> Result<LockFilter, Refusal> {
    only(pairs, &["name", "after", "limit"])?;
    let number = |name: &str, most: i64| -> Result<Option<i64>, Refusal> {
        let read = |text: &str| text.parse().ok().filter(|n| (1..=most).contains(n));
        let fault = || Refusal::invalid(format!("{name} must be a whole number from 1 to {most}"));
        one(pairs, name)?.map(|text| read(text).ok_or_else(fault)).transpose()
    };
    let usual = LockFilter::default();
    let limit = number("limit", rules::PAGE_MAX.into())?.and_then(|n| u32::try_from(n).ok());
    Ok(LockFilter {
        // not parted by commas: a name may have one
        names: pairs.iter().filter(|(n, _)| n == "name").map(|(_, v)| v.clone()).collect(),
        after: number("after", i64::MAX)?,
        limit: limit.unwrap_or(usual.limit),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_becomes_a_filter() {
        let asked = |query: &str| filter(&pairs(&format!("/api/v1/locks{query}").parse().unwrap())?);
        let some = asked("?name=a,b&name=c%2Fd&after=7&limit=1000").unwrap();
        assert_eq!((some.names, some.after, some.limit), (vec!["a,b".into(), "c/d".into()], Some(7), 1_000));
        for bad in ["?limit=0", "?limit=1001", "?after=x", "?after=-1", "?nmae=a", "?limit=1&limit=2"] {
            assert!(asked(bad).is_err(), "{bad}");
        }
    }
}
