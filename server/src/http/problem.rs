//! Problems over HTTP: everything that is not 2xx is an RFC 9457 document, whoever refused.

use crate::database::Missing;
use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, StatusCode};
use minium_protocol::{ErrorCode, Problem};
use minium_queue::QueueError;
use tracing::error;

/// The media type of problems.
pub(crate) const PROBLEM_JSON: &str = "application/problem+json";

/// How many seconds a client should wait before it asks again.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("2");

/// A refused request.
#[derive(Debug)]
pub(crate) struct Refusal(Box<Document>);

/// What a refusal says; [`finish`] writes it when it knows the path.
#[derive(Debug, Clone)]
struct Document {
    problem: Problem,
    headers: HeaderMap,
    /// Members beyond the usual ones.
    more: serde_json::Map<String, serde_json::Value>,
}

impl Refusal {
    /// A refusal with its particular words.
    pub(crate) fn new(code: ErrorCode, detail: impl Into<String>) -> Refusal {
        Problem::new(code, detail).into()
    }

    /// A refusal because of what was asked.
    pub(crate) fn invalid(detail: impl Into<String>) -> Refusal {
        Refusal::new(ErrorCode::InvalidRequest, detail)
    }

    /// Its code.
    pub(crate) fn code(&self) -> ErrorCode {
        self.0.problem.code
    }

    /// With a header.
    pub(crate) fn with_header(mut self, name: http::HeaderName, value: HeaderValue) -> Refusal {
        self.0.headers.insert(name, value);
        self
    }

    /// With one member more.
    pub(crate) fn with_member(mut self, name: &str, value: serde_json::Value) -> Refusal {
        self.0.more.insert(name.to_owned(), value);
        self
    }

    /// What is refused is one part of the request: its name goes before the words.
    pub(crate) fn within(mut self, part: &str) -> Refusal {
        let detail = self.0.problem.detail.take().unwrap_or_default();
        self.0.problem.detail = Some(format!("{part}: {detail}"));
        self
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Refusal {
        Refusal(Box::new(Document { problem, headers: HeaderMap::new(), more: serde_json::Map::new() }))
    }
}

impl From<Missing> for Refusal {
    fn from(missing: Missing) -> Refusal {
        Problem::from(missing).into()
    }
}

impl From<QueueError> for Refusal {
    fn from(error: QueueError) -> Refusal {
        let problem = error.problem();
        if problem.code == ErrorCode::Internal {
            // The client must not see what the database said, so somebody else has to.
            error!(error = &error as &dyn std::error::Error, "The database failed.");
        }
        problem.into()
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = status.into_response();
        response.headers_mut().extend(self.0.headers.clone());
        response.extensions_mut().insert(*self.0);
        response
    }
}

/// Writes the document of every response that is an error: ours, and those that the framework made.
pub(crate) async fn finish(request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let head = request.method() == http::Method::HEAD;
    let mut response = next.run(request).await;
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let document = match response.extensions_mut().remove::<Document>() {
        Some(document) => document,
        None if response.headers().contains_key(CONTENT_TYPE) && !is_frameworks(&response) => {
            return response;
        }
        None => *Refusal::from(of_framework(status, &response)).0,
    };
    write(response, document, path, head)
}

/// The framework's own refusals are plain text.
fn is_frameworks(response: &Response) -> bool {
    let kind = response.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    kind.is_some_and(|k| k.starts_with(b"text/plain")) && response.extensions().get::<Plain>().is_none()
}

/// Marks an error that is plain text on purpose.
#[derive(Clone)]
pub(crate) struct Plain;

fn write(mut response: Response, document: Document, path: String, head: bool) -> Response {
    let Document { mut problem, more, .. } = document;
    problem.instance = Some(path);
    if problem.code.retryable() && problem.status == StatusCode::SERVICE_UNAVAILABLE.as_u16() {
        response.headers_mut().entry(RETRY_AFTER).or_insert(RETRY_AFTER_SECONDS);
    }
    let mut text = serde_json::to_string(&problem).expect("a problem is plain JSON");
    for (name, value) in more {
        text.pop();
        text.push_str(&format!(",{}:{value}}}", serde_json::Value::from(name)));
    }
    let headers = response.headers_mut();
    headers.remove(http::header::CONTENT_LENGTH);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    *response.body_mut() = if head { Body::empty() } else { Body::from(text) };
    response
}

fn of_framework(status: StatusCode, response: &Response) -> Problem {
    match status {
        StatusCode::NOT_FOUND => Problem::new(ErrorCode::NotFound, "nothing is at this path"),
        StatusCode::METHOD_NOT_ALLOWED => {
            let allow = response.headers().get(ALLOW).and_then(|v| v.to_str().ok());
            let detail = allow.map_or("another method is needed".into(), |a| format!("allowed here: {a}"));
            Problem::new(ErrorCode::MethodNotAllowed, detail)
        }
        StatusCode::PAYLOAD_TOO_LARGE => Problem::new(ErrorCode::PayloadTooLarge, "the body is too large"),
        s if s.is_client_error() => {
            let mut problem = Problem::new(ErrorCode::InvalidRequest, "the request cannot be understood");
            problem.status = s.as_u16();
            problem
        }
        _ => Problem::new(ErrorCode::Internal, "the server failed"),
    }
}

/// What a code means, for whoever follows a problem's `type`.
pub(crate) async fn page(axum::extract::Path(code): axum::extract::Path<String>) -> Result<String, Refusal> {
    let known = ErrorCode::ALL.iter().find(|c| c.as_str() == code);
    let code = known.ok_or_else(|| Refusal::new(ErrorCode::NotFound, "there is no such problem"))?;
    let again = if code.retryable() {
        "The same request may succeed later: wait, then try again."
    } else {
        "The same request will fail again: something about it, or about what it asks for, has to change."
    };
    Ok(format!("{code} ({})\n\n{}.\n\n{again}\n", code.status(), code.title()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::middleware::from_fn;
    use axum::routing::{get, post};
    use tower::ServiceExt;

    async fn asked(method: &str, path: &str) -> (u16, HeaderMap, serde_json::Value) {
        let refused = || async { Refusal::invalid("this way not").with_member("down", "database".into()) };
        let plain = || async {
            let mut response = (StatusCode::UNAUTHORIZED, "in plain words").into_response();
            response.extensions_mut().insert(Plain);
            response
        };
        let router = Router::new()
            .route("/refused", get(refused))
            .route("/busy", get(|| async { Refusal::new(ErrorCode::Unavailable, "later") }))
            .route("/post", post(|| async { "ok" }))
            .route("/number/{n}", get(|_: axum::extract::Path<u32>| async { "ok" }))
            .route("/plain", get(plain));
        let router = Router::new().fallback_service(router).layer(from_fn(finish));
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        let response = router.oneshot(request).await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = axum::body::to_bytes(response.into_body(), 4096).await.unwrap();
        (status, headers, serde_json::from_slice(&body).unwrap_or_default())
    }

    #[tokio::test]
    async fn whoever_refuses_the_answer_is_a_problem_document() {
        let cases = [
            ("GET", "/refused", 400, "invalid_request"),
            ("GET", "/nowhere", 404, "not_found"),
            ("GET", "/post", 405, "method_not_allowed"),
            ("GET", "/number/x", 400, "invalid_request"),
            ("GET", "/busy", 503, "unavailable"),
        ];
        for (method, path, status, code) in cases {
            let (got, headers, problem) = asked(method, path).await;
            assert_eq!(got, status, "{path}");
            assert_eq!(headers[CONTENT_TYPE], PROBLEM_JSON, "{path}");
            assert_eq!((problem["code"].as_str(), problem["instance"].as_str()), (Some(code), Some(path)));
            assert_eq!(problem["status"], status, "{path}");
        }
        assert_eq!(asked("GET", "/refused").await.2["down"], "database");
        let (_, headers, problem) = asked("GET", "/post").await;
        assert_eq!(
            (headers[ALLOW].to_str().unwrap(), problem["detail"].as_str()),
            ("POST", Some("allowed here: POST"))
        );
        assert!(asked("GET", "/busy").await.1.contains_key(RETRY_AFTER));
    }

    #[tokio::test]
    async fn what_is_plain_on_purpose_stays_plain() {
        let (status, headers, problem) = asked("GET", "/plain").await;
        assert_eq!(status, 401);
        assert!(headers[CONTENT_TYPE].to_str().unwrap().starts_with("text/plain") && problem.is_null());
    }
}
