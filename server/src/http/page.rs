//! The page at `/`: live events, in plain HTML and one script. The full console comes later.

use super::problem::Refusal;
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use minium_protocol::ErrorCode;

/// Nothing from elsewhere, nothing inline.
const POLICY: &str =
    "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

fn content(kind: &'static str, text: &'static str) -> Response {
    let headers: [(HeaderName, &'static str); 5] = [
        (CONTENT_TYPE, kind),
        (CONTENT_SECURITY_POLICY, POLICY),
        (CACHE_CONTROL, "no-cache"),
        (REFERRER_POLICY, "no-referrer"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, text).into_response()
}

/// GET `/`.
pub(crate) async fn index() -> Response {
    content("text/html; charset=utf-8", include_str!("../page/index.html"))
}

/// GET `/page/…`.
pub(crate) async fn file(Path(name): Path<String>) -> Result<Response, Refusal> {
    match name.as_str() {
        "app.js" => Ok(content("text/javascript; charset=utf-8", include_str!("../page/app.js"))),
        "style.css" => Ok(content("text/css; charset=utf-8", include_str!("../page/style.css"))),
        _ => Err(Refusal::new(ErrorCode::NotFound, "the page has no such file")),
    }
}

/// GET `/sdk.js`: the client for pages and for Node.
pub(crate) async fn sdk() -> Response {
    content("text/javascript; charset=utf-8", include_str!("../../../console/sdk.js"))
}

/// Browsers ask for it unbidden.
pub(crate) async fn icon() -> StatusCode {
    StatusCode::NO_CONTENT
}
