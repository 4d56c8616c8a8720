//! `/api/v1/sessions`: who is connected to this node, and how one of them is closed.
//!
//! Where clients are and whom their tokens name is for those with the scope `admin`; with `jobs:read` the rest is seen.

use super::permit::Granted;
use super::problem::Refusal;
use super::query::{Pairs, limit, one, only, pairs};
use super::{App, json};
use axum::extract::{Extension, Path, State};
use axum::response::Response;
use http::{StatusCode, Uri};
use minium_bus::{SessionQuery, SessionView};
use minium_protocol::{CloseCode, ErrorCode, Verb};
use serde_json::{Value, json};
use std::sync::Arc;

/// Sessions on a page, when nothing is said and at most.
const PAGE: u32 = 100;
const PAGE_MAX: u32 = 1_000;
/// What the client is told.
const REASON: &str = "an operator closed the session";

/// GET `/api/v1/sessions`: a page, those that were opened first first.
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    Extension(Granted(grant)): Extension<Granted>,
    uri: Uri,
) -> Result<Response, Refusal> {
    let query = query(&pairs(&uri)?)?;
    let page = app.bus.sessions(query).await?;
    let whole = grant.is_none_or(|grant| grant.scopes.allow_admin());
    let sessions: Vec<Value> = page.sessions.iter().map(|session| shown(session, whole)).collect();
    Ok(json(StatusCode::OK, json!({ "sessions": sessions, "next": page.next }).to_string()))
}

/// DELETE `/api/v1/sessions/{id}`: closes it so that its client comes back, with `reconnect=0` so that it stays away.
pub(crate) async fn close(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Response, Refusal> {
    let (id, code) = (number(&id)?, code(&pairs(&uri)?)?);
    if !app.bus.close_session(id, code, REASON).await? {
        return Err(Refusal::new(ErrorCode::NotFound, format!("there is no session {id}")));
    }
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

fn number(text: &str) -> Result<u64, Refusal> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    let number = digits.then(|| text.parse().ok()).flatten();
    number.ok_or_else(|| Refusal::invalid("a session's id is a whole number"))
}

fn query(pairs: &Pairs) -> Result<SessionQuery, Refusal> {
    only(pairs, &["after", "limit"])?;
    let after = one(pairs, "after")?.map(number).transpose()?.unwrap_or(0);
    Ok(SessionQuery { after, count_max: limit(pairs, PAGE, PAGE_MAX)? as usize })
}

fn code(pairs: &Pairs) -> Result<CloseCode, Refusal> {
    only(pairs, &["reconnect"])?;
    match one(pairs, "reconnect")? {
        None | Some("1" | "true") => Ok(CloseCode::Restart),
        Some("0" | "false") => Ok(CloseCode::Policy),
        Some(_) => Err(Refusal::invalid("reconnect must be 1 or 0")),
    }
}

/// A session that does one thing has bare filters; those of one that does several have their verbs before them.
fn shown(session: &SessionView, whole: bool) -> Value {
    let name = |(verb, filter): &(Verb, String)| match session.verb {
        Some(_) => filter.clone(),
        None => format!("{}/{filter}", verb.as_str()),
    };
    json!({
        "id": session.id,
        "mode": session.mode,
        "pattern": session.verb.map(Verb::as_str),
        "filters": session.filters.iter().map(name).collect::<Vec<_>>(),
        "more_filters": session.more_filters,
        "remote": session.remote.filter(|_| whole).map(|remote| remote.to_string()),
        "subject": session.subject.as_ref().filter(|_| whole),
        "since": session.since,
        "behind": session.behind,
        "sent": session.sent,
        "received": session.received,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(query: &str) -> Pairs {
        pairs(&format!("/api/v1/sessions{query}").parse().unwrap()).unwrap()
    }

    #[test]
    fn a_query_is_read_whole() {
        assert_eq!(query(&asked("?after=7&limit=3")).unwrap(), SessionQuery { after: 7, count_max: 3 });
        assert_eq!(query(&asked("")).unwrap(), SessionQuery { after: 0, count_max: 100 });
        for bad in ["?after=x", "?after=-1", "?limit=0", "?limit=1001", "?before=1"] {
            assert!(query(&asked(bad)).is_err(), "{bad}");
        }
        assert_eq!(code(&asked("")).unwrap(), CloseCode::Restart);
        assert_eq!(code(&asked("?reconnect=0")).unwrap(), CloseCode::Policy);
        assert!(code(&asked("?reconnect=no")).is_err());
    }

    #[test]
    fn who_is_no_admin_sees_neither_addresses_nor_subjects() {
        let session = SessionView {
            id: 1,
            mode: "plain",
            verb: Some(Verb::Sub),
            filters: vec![(Verb::Sub, "a/+".into())],
            more_filters: 0,
            remote: Some(([10, 0, 0, 7], 5).into()),
            subject: Some("ops".into()),
            since: jiff::Timestamp::UNIX_EPOCH,
            behind: false,
            sent: 3,
            received: 0,
        };
        let (all, less) = (shown(&session, true), shown(&session, false));
        assert_eq!((&all["remote"], &all["subject"]), (&json!("10.0.0.7:5"), &json!("ops")));
        assert_eq!((&less["remote"], &less["subject"]), (&Value::Null, &Value::Null));
        assert_eq!((&less["filters"], &less["sent"]), (&json!(["a/+"]), &json!(3)));
        let several = SessionView { verb: None, ..session };
        assert_eq!(shown(&several, true)["filters"], json!(["sub/a/+"]));
    }
}
