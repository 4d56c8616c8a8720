//! `/api/v1/recorders`: who archives the journal, and how far each is. Retention waits for them, up to a limit, so a name
//! belongs to whoever registered it.

use super::jobs::parse;
use super::permit::{Granted, unauthorized};
use super::problem::Refusal;
use super::query::{only, pairs};
use super::{App, body, json};
use axum::Extension;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use http::{StatusCode, Uri};
use minium_bus::Grant;
use minium_notifier::{
    Confirmation, Confirmed, NotifierError, RECORDERS_MAX, RECORDERS_OF_ONE_MAX, Recorder, SINK_PREFIX,
};
use minium_protocol::{ErrorCode, Filter, Position, Verb};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// A name is no longer than this, in bytes.
const NAME_MAX: usize = 200;
/// One recorder follows no more than so many topics.
const TOPICS_MAX: usize = 100;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    position: String,
    topics: Vec<Filter>,
}

impl From<NotifierError> for Refusal {
    fn from(error: NotifierError) -> Refusal {
        error.problem().into()
    }
}

/// GET `/api/v1/recorders`: all of them, by name, and how far the journal is on this node. Whose they are is for admins.
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    Extension(granted): Extension<Granted>,
    uri: Uri,
) -> Result<Response, Refusal> {
    only(&pairs(&uri)?, &[])?;
    let recorders = app.database.open()?.journal.recorders().await?;
    let whole = is_admin(granted.0.as_deref());
    let recorders: Vec<Value> = recorders.iter().map(|recorder| shown(recorder, whole)).collect();
    let position = app.bus.stats().relayed.map(|position| position.to_string());
    Ok(json(StatusCode::OK, json!({ "recorders": recorders, "position": position }).to_string()))
}

fn shown(recorder: &Recorder, whole: bool) -> Value {
    json!({
        "name": recorder.name,
        "owner": whole.then_some(&recorder.owner),
        "topics": recorder.topics,
        "offset": recorder.offset,
        "registered": recorder.registered,
        "confirmed": recorder.confirmed,
    })
}

/// PUT `/api/v1/recorders/{name}`: so far everything that it follows is on its disk. The first time registers it.
pub(crate) async fn confirm(
    State(app): State<Arc<App>>,
    Extension(granted): Extension<Granted>,
    Path(name): Path<String>,
    request: Request,
) -> Result<StatusCode, Refusal> {
    let bytes = body::read(request.into_body(), app.limits.request_bytes, app.limits.patience).await?;
    let Wire { position, topics } = parse(&bytes)?;
    let position: Position = position.parse().map_err(|why| Refusal::invalid(format!("position: {why}")))?;
    if name.is_empty() || name.len() > NAME_MAX || name.chars().any(char::is_control) {
        return Err(Refusal::invalid(format!(
            "a recorder's name has 1 to {NAME_MAX} bytes, none of them a control"
        )));
    }
    if topics.is_empty() || topics.len() > TOPICS_MAX {
        return Err(Refusal::invalid(format!("a recorder follows 1 to {TOPICS_MAX} topics")));
    }
    let grant = granted.0.as_deref();
    may_follow(grant, &topics)?;
    if name.starts_with(SINK_PREFIX) && !is_admin(grant) {
        return Err(Refusal::new(
            ErrorCode::Forbidden,
            format!("{SINK_PREFIX}… are the node's own recorders"),
        ));
    }
    let confirmation = Confirmation {
        owner: owner(grant),
        for_anyone: is_admin(grant),
        name: name.clone(),
        topics,
        position,
    };
    let refused = |code, detail: String| Err(Refusal::new(code, detail));
    match app.database.open()?.journal.confirm(&confirmation).await? {
        Confirmed::New => Ok(StatusCode::CREATED),
        Confirmed::Known => Ok(StatusCode::NO_CONTENT),
        Confirmed::OtherEpoch => refused(
            ErrorCode::EpochChanged,
            format!("the journal's numbers are not those of epoch {}", position.epoch),
        ),
        Confirmed::Ahead => refused(
            ErrorCode::InvalidRequest,
            format!("nothing in the journal has the offset {}", position.offset),
        ),
        Confirmed::Foreign => Err(foreign(&name)),
        Confirmed::TooMany => refused(
            ErrorCode::Conflict,
            format!(
                "there are {RECORDERS_MAX} recorders already, or {RECORDERS_OF_ONE_MAX} of yours: forget one"
            ),
        ),
        _ => refused(ErrorCode::Internal, "the journal's answer is not known here".into()),
    }
}

/// DELETE `/api/v1/recorders/{name}`: nothing is kept for it any more. For whoever registered it, and for `admin`.
pub(crate) async fn forget(
    State(app): State<Arc<App>>,
    Extension(granted): Extension<Granted>,
    Path(name): Path<String>,
) -> Result<StatusCode, Refusal> {
    let grant = granted.0.as_deref();
    // before anything is told of what there is
    somebody(grant)?;
    let journal = app.database.open()?.journal;
    let known = journal.recorders().await?.into_iter().find(|recorder| recorder.name == name);
    let Some(recorder) = known else {
        return Err(Refusal::new(ErrorCode::NotFound, format!("there is no recorder {name:?}")));
    };
    if !is_admin(grant) && recorder.owner != owner(grant) {
        return Err(foreign(&name));
    }
    journal.forget_recorder(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What is kept for a recorder costs room: it takes somebody who may read it, and who is somebody.
fn may_follow(grant: Option<&Grant>, topics: &[Filter]) -> Result<(), Refusal> {
    somebody(grant)?;
    let Some(grant) = grant else { return Ok(()) };
    topics.iter().try_for_each(|topic| grant.check(Verb::Sub, topic).map_err(Refusal::from))
}

/// Not for who came without a token where some have one.
fn somebody(grant: Option<&Grant>) -> Result<(), Refusal> {
    match grant {
        Some(grant) if grant.key.is_none() && grant.subject == "anonymous" => Err(unauthorized()),
        Some(_) | None => Ok(()),
    }
}

fn foreign(name: &str) -> Refusal {
    Refusal::new(ErrorCode::Forbidden, format!("the recorder {name:?} was registered by somebody else"))
}

fn is_admin(grant: Option<&Grant>) -> bool {
    grant.is_none_or(|grant| grant.scopes.allow_admin())
}

/// Whose a recorder is. A subject is somebody for whoever vouches for it, so the name of the key is part of it; not what
/// tells one key from the next of that name, or a recorder would be locked out when its key is replaced.
fn owner(grant: Option<&Grant>) -> String {
    let Some(grant) = grant else { return String::new() };
    let key = grant.key.as_deref().map_or("", |key| key.rsplit_once(':').map_or(key, |(name, _)| name));
    format!("{key}/{}", grant.subject)
}
