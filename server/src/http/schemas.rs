//! The schema files, by the path that `dataschema` names.

use super::App;
use super::problem::Refusal;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use minium_protocol::ErrorCode;
use std::sync::Arc;

/// GET `/schemas/sub/livesys.json`.
pub(crate) async fn schema(
    State(app): State<Arc<App>>,
    Path(path): Path<String>,
) -> Result<Response, Refusal> {
    let text = app.schemas.text(&path);
    let text = text.ok_or_else(|| Refusal::new(ErrorCode::NotFound, "there is no such schema"))?;
    let headers = [(CONTENT_TYPE, "application/schema+json"), (CACHE_CONTROL, "no-cache")];
    Ok((headers, text.to_string()).into_response())
}
