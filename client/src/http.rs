//! Requests over HTTP: sent once, answers bounded, refusals read as problems.

use crate::client::Client;
use crate::error::ClientError;
use crate::message::{Message, excerpt};
use bytes::Bytes;
use minium_protocol::{Problem, Topic};
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Method, StatusCode};
use std::time::Duration;

/// One request.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) method: Method,
    /// Begins without a slash.
    pub(crate) path: &'a str,
    pub(crate) query: Vec<(&'a str, String)>,
    /// Content type and body.
    pub(crate) body: Option<(&'static str, Bytes)>,
    /// Longer than the client's usual time-out, for answers that are waited for.
    pub(crate) timeout: Option<Duration>,
}

/// A successful answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

impl<'a> Request<'a> {
    pub(crate) fn new(method: Method, path: &'a str) -> Request<'a> {
        Request { method, path, query: vec![], body: None, timeout: None }
    }

    pub(crate) fn json(mut self, body: impl Into<Bytes>) -> Request<'a> {
        self.body = Some(("application/json", body.into()));
        self
    }
}

impl Client {
    /// Publishes one message.
    ///
    /// # Errors
    /// The server's problem, or that it cannot be reached.
    pub async fn publish(&self, topic: &Topic, message: impl Into<Message>) -> Result<(), ClientError> {
        self.post("pub", topic, message.into()).await
    }

    /// Hands out one message to one taker.
    ///
    /// # Errors
    /// The server's problem, `no_puller` among them, or that it cannot be reached.
    pub async fn push(&self, topic: &Topic, message: impl Into<Message>) -> Result<(), ClientError> {
        self.post("push", topic, message.into()).await
    }

    /// Sends one message to all peers of a bus.
    ///
    /// # Errors
    /// The server's problem, or that it cannot be reached.
    pub async fn send(&self, topic: &Topic, message: impl Into<Message>) -> Result<(), ClientError> {
        self.post("bus", topic, message.into()).await
    }

    async fn post(&self, role: &str, topic: &Topic, message: Message) -> Result<(), ClientError> {
        let body = match message {
            Message::Text(text) => ("text/plain; charset=utf-8", text.into()),
            Message::Binary(bytes) => ("application/octet-stream", bytes),
        };
        let path = format!("{role}/{topic}");
        self.request(Request { body: Some(body), ..Request::new(Method::POST, &path) }).await.map(drop)
    }

    pub(crate) async fn request(&self, request: Request<'_>) -> Result<Answer, ClientError> {
        let url = self.address().url(request.path, &request.query);
        let mut builder = self.http().request(request.method, url).header(ACCEPT, "application/json");
        if let Some((kind, body)) = request.body {
            builder = builder.header(CONTENT_TYPE, kind).body(body);
        }
        if let Some(token) = self.token() {
            builder = builder.bearer_auth(token);
        }
        let limit = request.timeout.unwrap_or(self.options().request_timeout);
        let response = builder.timeout(limit).send().await.map_err(|e| self.unanswered(&e, limit))?;
        let status = response.status();
        let body = self.body(response, limit).await?;
        if status.is_success() { Ok(Answer { status, body }) } else { Err(refusal(status.as_u16(), &body)) }
    }

    /// Reads an answer, up to the client's limit.
    async fn body(&self, mut response: reqwest::Response, limit: Duration) -> Result<Bytes, ClientError> {
        let bytes_max = self.options().message_bytes_max;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| self.unanswered(&e, limit))? {
            if body.len() + chunk.len() > bytes_max {
                let reason = format!("it is longer than {bytes_max} bytes");
                return Err(ClientError::Answer { what: response.url().path().into(), reason });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.into())
    }

    fn unanswered(&self, error: &reqwest::Error, limit: Duration) -> ClientError {
        let reason = innermost(error);
        if error.is_connect() {
            return ClientError::Connect { url: self.base_url().into(), source: reason.into() };
        }
        if error.is_timeout() {
            return ClientError::Timeout { what: "the server's answer".into(), limit };
        }
        ClientError::Cut { url: self.base_url().into(), reason }
    }
}

/// reqwest wraps what the network said in several layers that repeat each other and the URL.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// What a status that is no success says.
pub(crate) fn refusal(status: u16, body: &[u8]) -> ClientError {
    match serde_json::from_slice::<Problem>(body) {
        Ok(problem) => problem.into(),
        // A newer server's code, a proxy's page, Mercury's 401: the beginning says enough.
        Err(_) => {
            let detail = serde_json::from_slice::<serde_json::Value>(body).ok();
            let detail = detail.as_ref().and_then(|d| d["detail"].as_str());
            let text = detail.map_or_else(|| String::from_utf8_lossy(body).into_owned(), str::to_owned);
            ClientError::Status { status, text: excerpt(&text) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use minium_protocol::ErrorCode;

    #[test]
    fn refusals_are_problems_where_they_can_be() {
        let body = serde_json::to_vec(&Problem::new(ErrorCode::Conflict, "it runs")).unwrap();
        assert_eq!(refusal(409, &body).code(), Some(ErrorCode::Conflict));
        let newer = br#"{"code":"not_invented_yet","detail":"the moon is full","status":418}"#;
        assert_eq!(refusal(418, newer).to_string(), "the server answered 418: the moon is full");
        assert_eq!(refusal(401, b"Origin check failed").exit_code(), 4);
    }
}
