//! How a connection behaves.

use crate::backoff::Backoff;
use futures::future::BoxFuture;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

/// How a [`Connection`](super::Connection) behaves. Times and sizes that all sockets share are in
/// [`ClientOptions`](crate::ClientOptions).
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// Base URLs of further nodes. When a node goes down or cannot be reached the next one is tried, in turn.
    pub elsewhere: Vec<String>,
    /// Pauses between attempts to come back; their `failures_max` bounds the attempts.
    pub backoff: Backoff,
    /// Keep trying when the very first attempt fails, too.
    pub patient: bool,
    /// Asked for a new token when the server says that there is none or that it has expired.
    pub tokens: Option<TokenSource>,
    /// Frames whose answers are awaited. Beyond, what is published waits.
    pub unanswered_max: usize,
    /// Sockets for subscriptions. More than one are needed only where two filters can match the same topic.
    pub subscribing_sockets_max: usize,
}

impl Default for ConnectOptions {
    fn default() -> ConnectOptions {
        ConnectOptions {
            elsewhere: Vec::new(),
            backoff: Backoff::default(),
            patient: false,
            tokens: None,
            unanswered_max: 256,
            subscribing_sockets_max: 16,
        }
    }
}

/// Where new tokens come from.
#[derive(Clone)]
pub struct TokenSource {
    ask: Arc<dyn Fn() -> BoxFuture<'static, Option<String>> + Send + Sync>,
}

impl TokenSource {
    /// Asked each time that a token is needed. `None`: there is none to be had, and the connection ends.
    pub fn new<F, Fut>(ask: F) -> TokenSource
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Option<String>> + Send + 'static,
    {
        TokenSource { ask: Arc::new(move || Box::pin(ask())) }
    }

    pub(super) async fn token(&self) -> Option<String> {
        (self.ask)().await
    }
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSource")
    }
}
