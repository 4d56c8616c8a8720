//! GET on the bus's paths: a WebSocket, or an event stream on `/sub`, or 426.
//!
//! Everything that can be refused is refused here, before the 101, so that a client that reads statuses hears why:
//! the handshake, the topic, the position, the room for one session more.

use super::permit::Granted;
use super::problem::Refusal;
use super::upgrade::{Session, Slot, announcing, check, hand_over, is_wanted, needed};
use super::{App, path, query, sse};
use axum::extract::{Extension, Request, State};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{Method, Version};
use minium_bus::{Grant, Mode, Pattern, Role, Start};
use minium_protocol::{After, ErrorCode, Filter};
use std::sync::Arc;

/// `/pub/T`.
pub(crate) async fn publish(app: State<Arc<App>>, slot: Extension<Slot>, request: Request) -> Response {
    sender(app, slot, request, Role::Publish).await
}

/// `/push/T`.
pub(crate) async fn push(app: State<Arc<App>>, slot: Extension<Slot>, request: Request) -> Response {
    sender(app, slot, request, Role::Push).await
}

/// `/pull/T`; with `ack=1`, on a durable channel, each job is acknowledged.
pub(crate) async fn pull(app: State<Arc<App>>, slot: Extension<Slot>, request: Request) -> Response {
    let pairs = query::pairs(request.uri()).unwrap_or_default();
    let acks = pairs.iter().any(|(k, v)| k == "ack" && query::is_true(Some(v)));
    if let (true, Ok(topic)) = (acks, path::topic(request.uri()))
        && !app.channels.is_durable(Pattern::Push, &topic.clone().into())
    {
        let detail = format!("{topic} is not durable: nothing is acknowledged there");
        return Refusal::invalid(detail).into_response();
    }
    sender(app, slot, request, Role::Pull { acks }).await
}

/// `/ws`: one socket for many topics.
pub(crate) async fn talk(
    State(app): State<Arc<App>>,
    Extension(slot): Extension<Slot>,
    request: Request,
) -> Response {
    let (parts, _) = request.into_parts();
    let asked = async {
        // it has no topic; every session has a filter
        let filter: Filter = "ws".parse().map_err(|e| Refusal::invalid(format!("{e}")))?;
        let asked = ask(&app, &parts, Role::Talk, filter, After::Latest).await?;
        if asked.mode != Mode::V1 {
            return Err(Refusal::invalid("/ws speaks minium.v1 only: offer that subprotocol"));
        }
        Ok(asked)
    };
    answer(&slot, asked.await).await
}

/// `/bus/T`.
pub(crate) async fn peer(app: State<Arc<App>>, slot: Extension<Slot>, request: Request) -> Response {
    let pairs = query::pairs(request.uri()).unwrap_or_default();
    let echo = pairs.iter().find(|(name, _)| name == "echo").map(|(_, value)| value.as_str());
    let role = Role::Peer { echo: query::is_true(echo) };
    sender(app, slot, request, role).await
}

/// `/sub/T`.
pub(crate) async fn subscribe(app: State<Arc<App>>, slot: Extension<Slot>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    if !is_wanted(&parts.headers) {
        return if sse::is_wanted(&parts) {
            sse::stream(app, &parts).await
        } else {
            no_session(&parts, true)
        };
    }
    let asked = async {
        let filter = path::filter(&parts.uri)?;
        let after = query::after(&parts.uri)?;
        ask(&app, &parts, Role::Subscribe, filter, after).await
    };
    answer(&slot, asked.await).await
}

/// The roles that are on one exact topic and have no position.
async fn sender(
    State(app): State<Arc<App>>,
    Extension(slot): Extension<Slot>,
    request: Request,
    role: Role,
) -> Response {
    let (parts, _) = request.into_parts();
    if !is_wanted(&parts.headers) {
        return no_session(&parts, false);
    }
    let asked = async {
        let topic = path::topic(&parts.uri)?;
        ask(&app, &parts, role, topic.into(), After::Latest).await
    };
    answer(&slot, asked.await).await
}

/// A GET that wants no session. The topic is judged all the same: the words about it help more.
fn no_session(parts: &Parts, streams: bool) -> Response {
    let judged = if streams { path::filter(&parts.uri).map(drop) } else { path::topic(&parts.uri).map(drop) };
    if let Err(refusal) = judged {
        return refusal.into_response();
    }
    let detail = if parts.version == Version::HTTP_2 {
        "a WebSocket begins with HTTP/1.1 here: connect without offering h2"
    } else if streams {
        "this path speaks WebSocket, or Server-Sent Events with Accept: text/event-stream"
    } else {
        "this path speaks WebSocket; ask for an upgrade"
    };
    needed(detail).into_response()
}

async fn ask(app: &App, parts: &Parts, role: Role, filter: Filter, after: After) -> Result<Session, Refusal> {
    let handshake = check(&parts.method, parts.version, &parts.headers)?;
    if app.closing.is_cancelled() {
        return Err(Refusal::new(ErrorCode::Unavailable, "the node is going down"));
    }
    let permit = app.bus.admit()?;
    let start = if role == Role::Subscribe { begin(app, &filter, after).await? } else { None };
    let answer = announcing(handshake.answer, start);
    let grant = granted(parts)?;
    Ok(Session { role, mode: handshake.mode, filter, start, answer, grant, permit })
}

/// What was granted by whoever stands before the handlers.
pub(crate) fn granted(parts: &Parts) -> Result<Option<Arc<Grant>>, Refusal> {
    let granted = parts.extensions.get::<Granted>().map(|granted| granted.0.clone());
    // a route that nobody guards must open nothing
    granted.ok_or_else(|| Refusal::new(ErrorCode::Internal, "the server failed"))
}

/// The position, found in good time or not at all.
pub(crate) async fn begin(app: &App, filter: &Filter, after: After) -> Result<Option<Start>, Refusal> {
    match tokio::time::timeout(app.limits.patience, app.bus.resolve(filter, after)).await {
        Ok(found) => Ok(found?),
        Err(_) => Err(Refusal::new(ErrorCode::Unavailable, "the journal did not answer in time")),
    }
}

async fn answer(slot: &Slot, asked: Result<Session, Refusal>) -> Response {
    match asked {
        Ok(asked) => match hand_over(slot, asked).await {},
        Err(refusal) => refusal.into_response(),
    }
}

/// Does the client take what `kind` names? Without quality values: whoever names it means it.
pub(crate) fn accepts(parts: &Parts, kind: &str) -> bool {
    let values = parts.headers.get_all(http::header::ACCEPT).iter().filter_map(|v| v.to_str().ok());
    let named = values.flat_map(|v| v.split(',')).map(|v| v.split(';').next().unwrap_or_default().trim());
    parts.method == Method::GET && named.into_iter().any(|name| name.eq_ignore_ascii_case(kind))
}
