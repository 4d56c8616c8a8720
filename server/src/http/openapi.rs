//! GET `/openapi.json`: what the node speaks over HTTP.

use super::etag;
use axum::response::Response;
use http::HeaderMap;

/// The handler. The document is made once.
pub(crate) async fn document(headers: HeaderMap) -> Response {
    etag::tagged(&headers, crate::openapi::text().to_owned())
}
