//! May this request do what it asks for? Each route says what it needs ([`Need`]), and this stands before its handler:
//! first the rate of the address, then the token, then the scope, then the rate of the token.

use super::limit::Remote;
use super::problem::Refusal;
use super::upgrade::{self, Goodbye, Slot};
use super::{App, path, sse, token};
use crate::auth::{ClientIdentity, Why};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{HeaderValue, ORIGIN, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderMap, Method, Version};
use minium_bus::Grant;
use minium_protocol::{CloseCode, ErrorCode, Problem, Scope, Verb};
use std::sync::Arc;
use std::time::Duration;
use tracing::debug;

/// What a route needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// Nothing.
    Open,
    /// A signature, which the handler looks at; a token is not looked at. Here it is held to the rate of its address.
    Signed,
    /// Any scope at all: each word of the session is judged by itself.
    Session,
    /// The verb, on the topic or filter of the path.
    Topic(Verb),
    /// `jobs:read` to look, `jobs:write` to change.
    Jobs,
    /// `jobs:read`; or, for who says a job's lease, any scope to pull: the handler looks whether it is that job's.
    Kin,
    /// `jobs:read`.
    Figures,
    /// `admin`.
    Admin,
}

/// What the request may do; nothing where everybody may do everything.
#[derive(Debug, Clone)]
pub(crate) struct Granted(pub(crate) Option<Arc<Grant>>);

impl Granted {
    /// The node's own tasks are for `admin`.
    pub(super) fn check_task(&self, task: &str) -> Result<(), Refusal> {
        self.0.as_ref().map_or(Ok(()), |grant| grant.check_task(task).map_err(Refusal::from))
    }

    /// And so are its locks: whoever held one could keep its sinks from being followed.
    pub(super) fn check_lock(&self, name: &str) -> Result<(), Refusal> {
        self.0.as_ref().map_or(Ok(()), |grant| grant.check_lock(name).map_err(Refusal::from))
    }
}

/// Who comes without a good token hears this, whatever is wrong.
const UNAUTHORIZED: &str = "this needs a valid token";

/// Stands before each handler.
pub(super) async fn stand_before(
    State((app, need)): State<(Arc<App>, Need)>,
    request: Request,
    next: Next,
) -> Response {
    if need == Need::Open {
        return next.run(request).await;
    }
    let (mut parts, body) = request.into_parts();
    if need == Need::Signed {
        return match app.limiter.message(None, parts.extensions.get::<Remote>()) {
            Ok(()) => next.run(Request::from_parts(parts, body)).await,
            Err(refusal) => {
                hear_out(&parts, body).await;
                refusal.into_response()
            }
        };
    }
    match judge(&app, need, &parts).await {
        Ok(grant) => {
            parts.extensions.insert(Granted(grant));
            next.run(Request::from_parts(parts, body)).await
        }
        Err(refusal) => {
            hear_out(&parts, body).await;
            refuse(&parts, refusal).await
        }
    }
}

/// Of a request that is refused so much is read over HTTP/2, in so much time.
const HEARD_BYTES_MAX: usize = 64 * 1024;
const HEARD_TIME_MAX: Duration = Duration::from_secs(1);

/// Over HTTP/2 an answer that overtakes its request resets the stream, which some clients (curl 7.88) tell as an error
/// in place of the answer. So a small body is read to its end first.
pub(super) async fn hear_out(parts: &Parts, body: Body) {
    if parts.version == Version::HTTP_2 {
        // what it says is of no interest
        drop(super::body::read(body, HEARD_BYTES_MAX, HEARD_TIME_MAX).await);
    }
}

/// Why not.
enum No {
    /// No good proof of who asks.
    Unauthorized,
    /// Known, but not allowed.
    Forbidden(Box<Problem>),
    /// For a reason that has nothing to do with who asks, or with how much they may.
    Other(Refusal),
}

async fn judge(app: &App, need: Need, parts: &Parts) -> Result<Option<Arc<Grant>>, No> {
    let remote = parts.extensions.get::<Remote>();
    if opens_session(need, parts) {
        app.limiter.opening(remote).map_err(No::Other)?;
    }
    let current = app.auth.now();
    let identity = parts.extensions.get::<ClientIdentity>();
    let admitted = current.table.admit(&token::presented(&parts.headers), identity).await;
    let grant = admitted.map_err(|why| {
        told(&why, parts, remote);
        No::Unauthorized
    })?;
    if let Some(grant) = &grant {
        match check(need, grant, parts) {
            Ok(()) => {}
            Err(No::Forbidden(_)) if grant.key.is_none() => return Err(No::Unauthorized),
            Err(no) => return Err(no),
        }
    }
    if changes(&parts.method) {
        app.limiter.message(grant.as_deref(), remote).map_err(No::Other)?;
    }
    Ok(grant)
}

/// Asks it for a WebSocket or an event stream? What is read and done, such as a page of history, is none.
fn opens_session(need: Need, parts: &Parts) -> bool {
    let streams = || need == Need::Topic(Verb::Sub) && sse::is_wanted(parts);
    matches!(need, Need::Topic(_) | Need::Session)
        && parts.method == Method::GET
        && (upgrade::is_wanted(&parts.headers) || streams())
}

fn changes(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

fn check(need: Need, grant: &Grant, parts: &Parts) -> Result<(), No> {
    let scopes = &grant.scopes;
    let lacks = |allowed: bool, what: &str, scope: &str| {
        let words = || format!("{} may not {what}: it has no scope {scope}", grant.subject);
        if allowed {
            Ok(())
        } else {
            Err(No::Forbidden(Box::new(Problem::new(ErrorCode::Forbidden, words()))))
        }
    };
    match need {
        Need::Open | Need::Signed => Ok(()),
        Need::Session => lacks(!scopes.is_empty(), "open a session", "at all"),
        Need::Topic(verb) => {
            // as the handler will read it
            let filter = match verb {
                Verb::Sub => path::filter(&parts.uri),
                Verb::Pub | Verb::Push | Verb::Pull | Verb::Bus => path::topic(&parts.uri).map(Into::into),
            };
            grant.check(verb, &filter.map_err(No::Other)?).map_err(|problem| No::Forbidden(Box::new(problem)))
        }
        Need::Jobs if changes(&parts.method) => lacks(scopes.allow_jobs_write(), "change jobs", "jobs:write"),
        Need::Jobs => lacks(scopes.allow_jobs_read(), "see jobs", "jobs:read"),
        Need::Kin if lease(&parts.uri).is_some() && scopes.iter().any(pulls) => Ok(()),
        Need::Kin => lacks(scopes.allow_jobs_read(), "see jobs", "jobs:read"),
        Need::Admin => lacks(scopes.allow_admin(), "steer others", "admin"),
        Need::Figures => lacks(scopes.allow_jobs_read(), "see figures", "jobs:read"),
    }
}

fn pulls(scope: &Scope) -> bool {
    matches!(scope, Scope::On(Verb::Pull, _))
}

/// The lease that a query names.
fn lease(uri: &http::Uri) -> Option<String> {
    let pairs = super::query::pairs(uri).ok()?;
    pairs.into_iter().find(|(name, _)| name == "lease").map(|(_, lease)| lease)
}

/// The reason is for the log, and never what was presented.
fn told(why: &Why, parts: &Parts, remote: Option<&Remote>) {
    let remote_addr = remote.map(|r| r.0.to_string()).unwrap_or_default();
    debug!(%why, remote_addr, path = parts.uri.path(), "A token was refused.");
}

async fn refuse(parts: &Parts, no: No) -> Response {
    let (code, reason) = match &no {
        No::Unauthorized => (CloseCode::Unauthenticated, UNAUTHORIZED.to_owned()),
        No::Forbidden(problem) => (CloseCode::Forbidden, problem.detail.clone().unwrap_or_default()),
        No::Other(_) => return no.into_response(),
    };
    // A page cannot read the status of a handshake; one that offers our subprotocols can read a close code.
    if let (true, Some(slot)) = (is_page(&parts.headers), parts.extensions.get::<Slot>())
        && let Ok(handshake) = upgrade::check(&parts.method, parts.version, &parts.headers)
    {
        match upgrade::hand_over(slot, Goodbye { answer: handshake.answer, code, reason }).await {}
    }
    no.into_response()
}

fn is_page(headers: &HeaderMap) -> bool {
    headers.contains_key(ORIGIN)
        && upgrade::is_wanted(headers)
        && token::subprotocols(headers).any(|name| name.starts_with("minium."))
}

/// Whoever shows nothing may show something.
pub(super) fn unauthorized() -> Refusal {
    Refusal::new(ErrorCode::Unauthorized, UNAUTHORIZED)
        .with_header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"minium\""))
}

impl IntoResponse for No {
    fn into_response(self) -> Response {
        match self {
            No::Unauthorized => unauthorized().into_response(),
            No::Forbidden(problem) => Refusal::from(*problem).into_response(),
            No::Other(refusal) => refusal.into_response(),
        }
    }
}
