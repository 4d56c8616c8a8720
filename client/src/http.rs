//! Requests over HTTP: sent once, answers bounded, refusals read as problems.

use crate::client::Client;
use crate::dial::{Connector, fault_of};
use crate::error::ClientError;
use crate::message::{Message, excerpt};
use crate::tls::{TlsFault, causes};
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, DATE, HeaderValue, USER_AGENT};
use http::{Method, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use minium_protocol::{Problem, TLS_ONLY, Topic};
use std::error::Error;
use std::time::Duration;
use tokio::time::timeout;

/// Connections that wait for the next request, and how long.
const IDLE_MAX: usize = 8;
const IDLE: Duration = Duration::from_secs(90);

/// The HTTP connections to one server.
pub(crate) type Pool = legacy::Client<Connector, Full<Bytes>>;

/// A pool; nothing is connected yet.
pub(crate) fn pool(connector: Connector) -> Pool {
    legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(IDLE_MAX)
        .build(connector)
}

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
    /// What the server's clock said, to the second.
    pub(crate) date: Option<Timestamp>,
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
        let limit = request.timeout.unwrap_or(self.options().request_timeout);
        let exchange = Box::pin(self.exchange(request));
        match timeout(limit, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(ClientError::Timeout { what: "the server's answer".into(), limit }),
        }
    }

    async fn exchange(&self, request: Request<'_>) -> Result<Answer, ClientError> {
        let path = request.path.to_owned();
        let response = self.response(request).await?;
        let status = response.status();
        let date = response.headers().get(DATE).and_then(|date| read_date(date.to_str().ok()?));
        let body = self.body(&path, response).await?;
        if status.is_success() {
            Ok(Answer { status, date, body })
        } else {
            Err(refusal(self.base_url(), status.as_u16(), &body))
        }
    }

    /// The first bytes of an answer, however long it is: what comes behind them is not read.
    pub(crate) async fn beginning(&self, request: Request<'_>, bytes: usize) -> Result<Bytes, ClientError> {
        let limit = self.options().request_timeout;
        let path = request.path.to_owned();
        let exchange = async {
            let response = self.response(request).await?;
            let status = response.status();
            if !status.is_success() {
                let body = self.body(&path, response).await?;
                return Err(refusal(self.base_url(), status.as_u16(), &body));
            }
            let (mut incoming, mut body) = (response.into_body(), Vec::new());
            while body.len() < bytes
                && let Some(frame) = incoming.frame().await
            {
                body.extend_from_slice(
                    &frame.map_err(|e| self.unanswered(&e))?.into_data().unwrap_or_default(),
                );
            }
            Ok(body.into())
        };
        match timeout(limit, Box::pin(exchange)).await {
            Ok(body) => body,
            Err(_) => Err(ClientError::Timeout { what: "the server's answer".into(), limit }),
        }
    }

    async fn response(&self, request: Request<'_>) -> Result<Response<Incoming>, ClientError> {
        let response = self.http().request(self.written(request)?).await;
        response.map_err(|e| match e.connect_info().and_then(fault_of) {
            Some((fault, detail)) => ClientError::tls(self.base_url(), fault, &detail),
            None => self.unanswered(&e),
        })
    }

    fn written(&self, request: Request<'_>) -> Result<http::Request<Full<Bytes>>, ClientError> {
        let fault = |e: http::Error| ClientError::Url { url: self.base_url().into(), reason: e.to_string() };
        let url = self.address().url(request.path, &request.query);
        let mut head = http::Request::builder()
            .method(request.method)
            .uri(url.as_str())
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, concat!("minium/", env!("CARGO_PKG_VERSION")));
        if let Some(token) = self.token() {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|e| fault(e.into()))?;
            value.set_sensitive(true);
            head = head.header(AUTHORIZATION, value);
        }
        let (kind, body) = request.body.unzip();
        if let Some(kind) = kind {
            head = head.header(CONTENT_TYPE, kind);
        }
        head.body(Full::new(body.unwrap_or_default())).map_err(fault)
    }

    /// Reads an answer, up to the client's limit.
    async fn body(&self, path: &str, response: Response<Incoming>) -> Result<Bytes, ClientError> {
        let bytes_max = self.options().message_bytes_max;
        let mut incoming = response.into_body();
        let mut body = Vec::new();
        while let Some(frame) = incoming.frame().await {
            let Ok(chunk) = frame.map_err(|e| self.unanswered(&e))?.into_data() else { continue };
            if body.len() + chunk.len() > bytes_max {
                let reason = format!("it is longer than {bytes_max} bytes");
                return Err(ClientError::Answer { what: format!("/{path}"), reason });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.into())
    }

    fn unanswered(&self, error: &(dyn Error + 'static)) -> ClientError {
        // the connector's own word
        if let Some(told) = causes(error).find_map(|e| e.downcast_ref::<ClientError>()) {
            return told.again();
        }
        if let Some((fault, detail)) = TlsFault::of(error) {
            return ClientError::tls(self.base_url(), fault, &detail);
        }
        let reason = causes(error).last().map_or_else(String::new, |innermost| innermost.to_string());
        let hyper = causes(error).find_map(|e| e.downcast_ref::<hyper::Error>());
        if hyper.is_some_and(hyper::Error::is_parse) {
            return ClientError::Answer { what: "an HTTP request".into(), reason };
        }
        ClientError::Cut { url: self.base_url().into(), reason }
    }
}

/// HTTP's form of a time is one of those of mail.
fn read_date(text: &str) -> Option<Timestamp> {
    rfc2822::DateTimeParser::new().parse_timestamp(text).ok()
}

/// What a status that is no success says.
pub(crate) fn refusal(url: &str, status: u16, body: &[u8]) -> ClientError {
    if status == 400 && body == TLS_ONLY.as_bytes() {
        return ClientError::tls(url, TlsFault::Wanted, "");
    }
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
    fn the_time_of_an_answer_is_read() {
        let read = |text| read_date(text).map(|time| time.to_string());
        assert_eq!(read("Sat, 28 Nov 2026 07:26:01 GMT").as_deref(), Some("2026-11-28T07:26:01Z"));
        assert_eq!(read("yesterday"), None);
    }

    #[test]
    fn refusals_are_problems_where_they_can_be() {
        let body = serde_json::to_vec(&Problem::new(ErrorCode::Conflict, "it runs")).unwrap();
        assert_eq!(refusal("u", 409, &body).code(), Some(ErrorCode::Conflict));
        let newer = br#"{"code":"not_invented_yet","detail":"the moon is full","status":418}"#;
        assert_eq!(refusal("u", 418, newer).to_string(), "the server answered 418: the moon is full");
        assert_eq!(refusal("u", 401, b"Origin check failed").exit_code(), 4);
    }
}
