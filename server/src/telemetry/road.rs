//! How a batch of spans gets to the collector: one bounded POST, as sinks send theirs.

use crate::sinks::outbound::{Road, parse_url};
use async_trait::async_trait;
use http::{Request, Response};
use opentelemetry_http::{Bytes, HttpClient, HttpError};
use std::sync::{Arc, Mutex, PoisonError};

/// Why the last request came to nothing: the exporter passes on that it did, and not why.
#[derive(Debug, Clone, Default)]
pub(super) struct LastError(Arc<Mutex<Option<String>>>);

impl LastError {
    fn set(&self, error: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }

    /// Takes it.
    pub(super) fn take(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// An [`HttpClient`] over [`Road`].
#[derive(Debug)]
pub(super) struct ToCollector {
    pub(super) road: Road,
    pub(super) error: LastError,
}

#[async_trait]
impl HttpClient for ToCollector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (parts, body) = request.into_parts();
        let target =
            parse_url(&parts.uri.to_string()).inspect_err(|why| self.error.set(Some(why.clone())))?;
        // the name of a header that stands there more than once is told once only
        let mut name = None;
        let headers = parts.headers.into_iter().filter_map(|(next, value)| {
            name = next.or_else(|| name.clone());
            Some((name.clone()?, value))
        });
        let answer = self.road.post(&target, headers.collect(), body).await;
        let answer = answer.inspect_err(|error| self.error.set(Some(error.to_string())))?;
        let refused = !answer.status.is_success();
        self.error.set(refused.then(|| format!("the collector answers {}", answer.status)));
        // of what it says nothing is needed: a part of the spans that it did not like is gone
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = answer.status;
        *response.headers_mut() = answer.headers;
        Ok(response)
    }
}
