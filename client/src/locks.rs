//! Named locks over HTTP: taken, extended, let go, listed.

use crate::client::Client;
use crate::error::ClientError;
use crate::http::Request;
use crate::jobs::{read, text};
use crate::segment;
use http::Method;
use minium_protocol::{ErrorCode, LockExtension, LockHold, LockRequest, LockToken, LockView};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::time::Duration;

/// One page of holds, in the order in which they were taken.
#[derive(Debug, Clone)]
pub struct LockList {
    /// The holds.
    pub locks: Vec<LockView>,
    /// `after` of the next page, if there is one.
    pub next: Option<i64>,
    /// What the server answered.
    pub raw: Box<RawValue>,
}

impl Client {
    /// Takes a lock, or says that it is held: `None`.
    ///
    /// # Errors
    /// The server's problem, or that it cannot be reached; then the lock may have been taken, and ends by itself.
    pub async fn lock(&self, name: &str, request: &LockRequest) -> Result<Option<LockHold>, ClientError> {
        let path = path(name);
        match self.request(Request::new(Method::POST, &path).json(text(request)?)).await {
            Ok(answer) => read(&path, &answer.body).map(Some),
            Err(ClientError::Problem(p)) if p.code == ErrorCode::Conflict => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Extends one's own hold to `span` from now.
    ///
    /// # Errors
    /// `conflict` when it has ended, or that the server cannot be reached.
    pub async fn extend_lock(
        &self,
        name: &str,
        token: LockToken,
        span: Duration,
    ) -> Result<LockHold, ClientError> {
        let path = path(name);
        let body = text(&LockExtension { token, span })?;
        let answer = self.request(Request::new(Method::PATCH, &path).json(body)).await?;
        read(&path, &answer.body)
    }

    /// Lets one's own hold go, or without a token ends all of the name. Answers how many there were.
    ///
    /// # Errors
    /// `conflict` when one's own has ended, or that the server cannot be reached.
    pub async fn unlock(&self, name: &str, token: Option<LockToken>) -> Result<u64, ClientError> {
        #[derive(Deserialize)]
        struct Wire {
            released: u64,
        }
        let path = path(name);
        let query = token.map(|token| ("lock_token", token.to_string())).into_iter().collect();
        let answer = self.request(Request { query, ..Request::new(Method::DELETE, &path) }).await?;
        read::<Wire>(&path, &answer.body).map(|wire| wire.released)
    }

    /// A page of what is held: of these names, or of all.
    ///
    /// # Errors
    /// The server's problem, or that it cannot be reached.
    pub async fn locks(
        &self,
        names: &[String],
        after: Option<i64>,
        limit: Option<u32>,
    ) -> Result<LockList, ClientError> {
        #[derive(Deserialize)]
        struct Wire {
            locks: Vec<LockView>,
            next: Option<i64>,
        }
        let mut query: Vec<_> = names.iter().map(|name| ("name", name.clone())).collect();
        query.extend(after.map(|after| ("after", after.to_string())));
        query.extend(limit.map(|limit| ("limit", limit.to_string())));
        let what = "api/v1/locks";
        let answer = self.request(Request { query, ..Request::new(Method::GET, what) }).await?;
        let raw: Box<RawValue> = read(what, &answer.body)?;
        let Wire { locks, next } = read(what, raw.get().as_bytes())?;
        Ok(LockList { locks, next, raw })
    }
}

fn path(name: &str) -> String {
    format!("api/v1/locks/{}", segment::of(name))
}
