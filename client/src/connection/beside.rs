//! What a worker asks over HTTP, beside its sockets: answers that may be large, and jobs of any task.
//!
//! Each node is asked in turn until one answers. What must not be done twice goes to the next one only when the node before
//! it was not even reached.

use super::Connection;
use crate::error::ClientError;
use crate::http::{Answer, Request};
use crate::jobs::{ParentPage, read, text};
use bytes::Bytes;
use http::Method;
use minium_protocol::{EnqueueRequest, ErrorCode, LeaseToken};
use serde::Deserialize;
use std::sync::PoisonError;
use std::time::Duration;
use tokio::time::timeout;

impl Connection {
    /// What the parents of a job have brought, from the one at this place on: a page. Who holds the job's lease may ask, and
    /// needs no other scope than the one to pull it.
    ///
    /// # Errors
    /// `lease_lost`, `not_found`, another problem of the server's, or that no node can be reached.
    pub async fn parent_results(
        &self,
        job: i64,
        lease: LeaseToken,
        from: usize,
    ) -> Result<ParentPage, ClientError> {
        let path = format!("api/v1/jobs/{job}/parents");
        let request = || Request {
            query: vec![("from", from.to_string()), ("lease", lease.to_string())],
            ..Request::new(Method::GET, &path)
        };
        read(&path, &self.ask(request, ClientError::is_away).await?.body)
    }

    /// Enqueues all or none, of whatever tasks. Answers their ids in order. It needs the scope `jobs:write`.
    ///
    /// # Errors
    /// As [`Client::enqueue_all`](crate::Client::enqueue_all).
    pub async fn enqueue_all(&self, requests: &[EnqueueRequest]) -> Result<Vec<i64>, ClientError> {
        #[derive(Deserialize)]
        struct Wire {
            ids: Vec<i64>,
        }
        const PATH: &str = "api/v1/jobs";
        let body = Bytes::from(text(requests)?);
        let request = || Request::new(Method::POST, PATH).json(body.clone());
        let answer = self.ask(request, |error| matches!(error, ClientError::Connect { .. })).await?;
        read::<Wire>("POST /api/v1/jobs", &answer.body).map(|wire| wire.ids)
    }

    /// Asks the nodes in turn, while `elsewhere` says of an error that the next one may be asked.
    async fn ask<'a>(
        &self,
        request: impl Fn() -> Request<'a>,
        elsewhere: fn(&ClientError) -> bool,
    ) -> Result<Answer, ClientError> {
        let mut last = None;
        for client in &self.inner.clients {
            let client = match self.renewed() {
                Some(token) => client.with_token(&token)?,
                None => client.clone(),
            };
            let mut answer = client.request(request()).await;
            if let Err(error) = &answer
                && error.code() == Some(ErrorCode::Unauthorized)
                && let Some(new) = self.renew(client.options().request_timeout).await?
            {
                answer = client.with_token(&new)?.request(request()).await;
            }
            match answer {
                Err(error) if elsewhere(&error) => last = Some(error),
                answer => return answer,
            }
        }
        Err(last.unwrap_or(ClientError::ClientClosed))
    }

    /// The token in place of the one that the connection began with.
    fn renewed(&self) -> Option<String> {
        self.inner.renewed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Gets a new token and keeps it; nothing where nobody has one.
    async fn renew(&self, limit: Duration) -> Result<Option<String>, ClientError> {
        let Some(tokens) = &self.inner.options.tokens else { return Ok(None) };
        let late = |_| ClientError::Timeout { what: "a new token".into(), limit };
        let token = timeout(limit, tokens.token()).await.map_err(late)?;
        if token.is_some() {
            self.inner.renewed.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&token);
        }
        Ok(token)
    }
}
