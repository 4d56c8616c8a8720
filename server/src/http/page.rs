//! The console at `/`, and `/sdk.js`: the files of `console/`, embedded in the binary. A debug build reads them from
//! the checkout at each request, so that whoever works on a page sees it by loading it again.
//!
//! What must hold: a page runs nothing and loads nothing that does not come from this node ([`POLICY`]), and a browser
//! asks each time whether a file has changed, so that no page is put together of two versions.

use super::etag::has_it;
use super::problem::Refusal;
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, StatusCode};
use minium_protocol::ErrorCode;
use rust_embed::{Embed, EmbeddedFile};

/// Nothing from elsewhere, nothing inline.
const POLICY: &str =
    "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What stands in `console/`.
#[derive(Embed)]
#[folder = "../console/"]
struct Console;

/// What a browser is told that a file is. What it needs for nothing, such as the notes on the libraries, is not served;
/// their licences are.
fn kind(name: &str) -> Option<&'static str> {
    let base = name.rsplit('/').next().unwrap_or(name);
    if base.starts_with("LICENSE-") {
        return Some("text/plain; charset=utf-8");
    }
    match base.rsplit_once('.')?.1 {
        "html" => Some("text/html; charset=utf-8"),
        "js" => Some("text/javascript; charset=utf-8"),
        "css" => Some("text/css; charset=utf-8"),
        "svg" => Some("image/svg+xml"),
        _ => None,
    }
}

fn tag(file: &EmbeddedFile) -> String {
    format!("\"{}\"", URL_SAFE_NO_PAD.encode(&file.metadata.sha256_hash()[..16]))
}

fn serve(name: &str, headers: &HeaderMap) -> Result<Response, Refusal> {
    let none = || Refusal::new(ErrorCode::NotFound, "the console has no such file");
    let kind = kind(name).ok_or_else(none)?;
    let file = Console::get(name).ok_or_else(none)?;
    let tag = tag(&file);
    let known = has_it(headers, &tag);
    let text = |text: &'static str| HeaderValue::from_static(text);
    let etag = HeaderValue::from_str(&tag).map_err(|_| none())?;
    let told: [(HeaderName, HeaderValue); 6] = [
        (CONTENT_TYPE, text(kind)),
        (ETAG, etag),
        (CONTENT_SECURITY_POLICY, text(POLICY)),
        (CACHE_CONTROL, text("no-cache")),
        (REFERRER_POLICY, text("no-referrer")),
        (X_CONTENT_TYPE_OPTIONS, text("nosniff")),
    ];
    if known {
        return Ok((StatusCode::NOT_MODIFIED, told).into_response());
    }
    Ok((told, file.data.into_owned()).into_response())
}

/// GET `/`.
pub(crate) async fn index(headers: HeaderMap) -> Result<Response, Refusal> {
    serve("index.html", &headers)
}

/// GET `/console/…`.
pub(crate) async fn file(Path(name): Path<String>, headers: HeaderMap) -> Result<Response, Refusal> {
    serve(&name, &headers)
}

/// GET `/sdk.js`: the client for pages and for Node.
pub(crate) async fn sdk(headers: HeaderMap) -> Result<Response, Refusal> {
    serve("sdk.js", &headers)
}

/// Browsers ask for it unbidden.
pub(crate) async fn icon() -> StatusCode {
    StatusCode::NO_CONTENT
}
