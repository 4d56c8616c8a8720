//! The client: one server, one HTTP pool, and the owner of all its sockets' tasks.

use crate::address::Address;
use crate::connection::{ConnectOptions, Connection};
use crate::dial::Connector;
use crate::error::ClientError;
use crate::http::{Pool, pool};
use crate::link::{Peer, Publisher};
use crate::subscription::{SubscribeOptions, Subscription};
use crate::tls::TlsOptions;
use minium_protocol::{Filter, Topic};
use secrecy::{ExposeSecret, SecretString};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What a session speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// A frame is one message, bare.
    #[default]
    Plain,
    /// A frame is one CloudEvent, also on topics that are not durable.
    CloudEvents,
    /// What a [`Connection`] speaks.
    V1,
}

impl Mode {
    /// Its subprotocol, if it needs one.
    pub(crate) fn subprotocol(self) -> Option<&'static str> {
        match self {
            Mode::Plain => None,
            Mode::CloudEvents => Some("cloudevents.json"),
            Mode::V1 => Some("minium.v1"),
        }
    }
}

/// Bounds of everything that a client does, and whom it trusts.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// From the first packet to the end of the handshake.
    pub connect_timeout: Duration,
    /// One HTTP request, answer included. Waits for jobs have their own.
    pub request_timeout: Duration,
    /// A session on which nothing came for so long is pinged; if nothing comes for as long again, it is dead.
    pub idle: Duration,
    /// How long a closing session waits for the server's Close.
    pub close_timeout: Duration,
    /// Larger messages end a session, larger answers fail.
    pub message_bytes_max: usize,
    /// Messages that wait between the socket and the program, each way. Beyond, the socket is not read.
    pub buffered_messages_max: usize,
    /// Bytes of them on a plain subscription; a message that has more waits alone.
    pub buffered_bytes_max: usize,
    /// Whom to trust where TLS is spoken, and what to show.
    pub tls: TlsOptions,
}

impl Default for ClientOptions {
    fn default() -> ClientOptions {
        ClientOptions {
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            idle: Duration::from_secs(40),
            close_timeout: Duration::from_secs(5),
            message_bytes_max: 16 << 20,
            buffered_messages_max: 64,
            buffered_bytes_max: 32 << 20,
            tls: TlsOptions::default(),
        }
    }
}

/// A client of one server. Cheap to clone; clones share the pool and the end.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    connector: Connector,
    token: Option<SecretString>,
    http: Pool,
    options: ClientOptions,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Client {
    /// A client of the server at `base_url`, as `http://127.0.0.1:3000` or `https://hub.example`; `ws` and `wss` mean the same
    /// two. Nothing is connected yet.
    ///
    /// # Errors
    /// [`ClientError::Url`] for a URL that cannot be used; [`ClientError::TlsSetup`] where TLS is asked for and cannot be
    /// set up.
    pub fn new(base_url: &str, token: Option<String>) -> Result<Client, ClientError> {
        Client::with_options(base_url, token, ClientOptions::default())
    }

    /// As [`Client::new`], with other bounds.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn with_options(
        base_url: &str,
        token: Option<String>,
        options: ClientOptions,
    ) -> Result<Client, ClientError> {
        check_token(base_url, token.as_deref())?;
        let connector = Connector::new(Address::parse(base_url)?, &options)?;
        let http = pool(connector.clone());
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let token = token.map(SecretString::from);
        Ok(Client { inner: Arc::new(Inner { connector, token, http, options, tasks, stop }) })
    }

    /// A connection in `minium.v1`: subscriptions, publishing, work and peers that survive cuts. Nothing is connected
    /// yet.
    ///
    /// # Errors
    /// As [`Client::new`], for one of [`ConnectOptions::elsewhere`] that cannot be used.
    pub fn connect(&self, options: ConnectOptions) -> Result<Connection, ClientError> {
        Connection::new(self, options)
    }

    /// Subscribes in plain mode or in that of CloudEvents. When this returns, delivery is certain from here on; the subscription then comes back by itself,
    /// and on durable topics resumes behind the last event that it delivered.
    ///
    /// # Errors
    /// When the first connection fails, unless the options say to be patient: [`ClientError::Connect`], or the
    /// server's problem.
    pub async fn plain_subscribe(
        &self,
        filter: &Filter,
        options: SubscribeOptions,
    ) -> Result<Subscription, ClientError> {
        Subscription::open(self, "sub", filter.as_str(), options).await
    }

    /// Takes work in plain mode, at most once. Comes back by itself like a subscription.
    ///
    /// # Errors
    /// As [`Client::plain_subscribe`].
    pub async fn plain_puller(&self, topic: &Topic) -> Result<Subscription, ClientError> {
        self.plain_puller_with(topic, SubscribeOptions::default()).await
    }

    /// As [`Client::plain_puller`], with options; positions mean nothing here.
    ///
    /// # Errors
    /// As [`Client::plain_subscribe`].
    pub async fn plain_puller_with(
        &self,
        topic: &Topic,
        options: SubscribeOptions,
    ) -> Result<Subscription, ClientError> {
        Subscription::open(self, "pull", topic.as_str(), options).await
    }

    /// Publishes over one socket, in plain mode.
    ///
    /// # Errors
    /// When the connection fails or is refused.
    pub async fn plain_publisher(&self, topic: &Topic) -> Result<Publisher, ClientError> {
        Publisher::open(self, "pub", topic).await
    }

    /// Hands out work over one socket, in plain mode.
    ///
    /// # Errors
    /// When the connection fails or is refused.
    pub async fn plain_pusher(&self, topic: &Topic) -> Result<Publisher, ClientError> {
        Publisher::open(self, "push", topic).await
    }

    /// Joins a bus in plain mode: everyone gets what the others send; with `echo`, also one's own.
    ///
    /// # Errors
    /// When the connection fails or is refused.
    pub async fn plain_peer(&self, topic: &Topic, echo: bool) -> Result<Peer, ClientError> {
        Peer::open(self, topic, echo).await
    }

    /// Closes all sessions of this client orderly and waits until they are.
    pub async fn close(&self) {
        self.inner.stop.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }

    /// The same client of another node.
    pub(crate) fn at(&self, base_url: &str) -> Result<Client, ClientError> {
        let connector = self.inner.connector.to(Address::parse(base_url)?, self.options())?;
        let http = pool(connector.clone());
        Ok(self.but(connector, http, self.inner.token.clone()))
    }

    /// The same client with another token.
    pub(crate) fn with_token(&self, token: &str) -> Result<Client, ClientError> {
        check_token(self.base_url(), Some(token))?;
        Ok(self.but(self.inner.connector.clone(), self.inner.http.clone(), Some(token.into())))
    }

    fn but(&self, connector: Connector, http: Pool, token: Option<SecretString>) -> Client {
        let Inner { options, tasks, stop, .. } = &*self.inner;
        let (options, tasks, stop) = (options.clone(), tasks.clone(), stop.clone());
        Client { inner: Arc::new(Inner { connector, token, http, options, tasks, stop }) }
    }

    /// The server's base URL.
    pub fn base_url(&self) -> &str {
        self.address().as_str()
    }

    pub(crate) fn address(&self) -> &Address {
        self.inner.connector.address()
    }

    pub(crate) fn connector(&self) -> &Connector {
        &self.inner.connector
    }

    pub(crate) fn token(&self) -> Option<&str> {
        self.inner.token.as_ref().map(|token| token.expose_secret())
    }

    pub(crate) fn http(&self) -> &Pool {
        &self.inner.http
    }

    pub(crate) fn options(&self) -> &ClientOptions {
        &self.inner.options
    }

    /// Where sessions run, so that [`Client::close`] can wait for them.
    pub(crate) fn tasks(&self) -> &TaskTracker {
        &self.inner.tasks
    }

    /// Ends one session; ended itself when the client is closed.
    pub(crate) fn session_token(&self) -> CancellationToken {
        self.inner.stop.child_token()
    }
}

fn check_token(url: &str, token: Option<&str>) -> Result<(), ClientError> {
    if token.is_some_and(|t| t.is_empty() || !t.bytes().all(|b| b.is_ascii_graphic())) {
        let reason = "the token has characters that no header may have".into();
        return Err(ClientError::Url { url: url.into(), reason });
    }
    Ok(())
}

impl fmt::Debug for Client {
    // The token stays out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("url", &self.base_url()).finish_non_exhaustive()
    }
}
