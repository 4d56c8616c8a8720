//! What a node's bus has over HTTP: its sessions, its topics, its schemas.

use crate::client::Client;
use crate::error::ClientError;
use crate::http::Request;
use crate::jobs::read;
use http::Method;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;

/// A session as the server shows it. A newer server may tell more: `raw` of its list has all of it.
#[derive(Debug, Clone, Deserialize)]
pub struct SessionInfo {
    /// Its number.
    pub id: u64,
    /// `plain`, `cloudevents`, `minium.v1` or `sse`.
    pub mode: String,
    /// `sub`, `pub`, `push`, `pull` or `bus`; nothing where it does several things.
    pub pattern: Option<String>,
    /// With what; where it does several things each has its pattern before it.
    #[serde(default)]
    pub filters: Vec<String>,
    /// How many there are beyond those.
    #[serde(default)]
    pub more_filters: u64,
    /// Where its client is; only shown to `admin`.
    #[serde(default)]
    pub remote: Option<String>,
    /// Whom its token names; only shown to `admin`.
    #[serde(default)]
    pub subject: Option<String>,
    /// When it was opened.
    pub since: Timestamp,
    /// It reads history, or has much still to get.
    #[serde(default)]
    pub behind: bool,
    /// Messages that it was given.
    #[serde(default)]
    pub sent: u64,
    /// Messages that it sent.
    #[serde(default)]
    pub received: u64,
}

/// One page of sessions, those that were opened first first.
#[derive(Debug, Clone)]
pub struct SessionList {
    /// The sessions.
    pub sessions: Vec<SessionInfo>,
    /// `after` of the next page, if there is one.
    pub next: Option<u64>,
    /// What the server answered.
    pub raw: Box<RawValue>,
}

/// A topic as the server shows it.
#[derive(Debug, Clone, Deserialize)]
pub struct TopicInfo {
    /// Its name.
    pub topic: String,
    /// `sub`, `push` or `bus`.
    pub pattern: String,
    /// The prefix of the channel that governs it.
    #[serde(default)]
    pub channel: Option<String>,
    /// Is it kept in the journal, or a task?
    #[serde(default)]
    pub durable: bool,
    /// Sessions that subscribe to it.
    #[serde(default)]
    pub subscribers: u64,
    /// Sessions that take work from it.
    #[serde(default)]
    pub pullers: u64,
    /// Sessions that are peers of it.
    #[serde(default)]
    pub peers: u64,
    /// Messages since the node started.
    #[serde(default)]
    pub messages: u64,
    /// When the last one was sent.
    #[serde(default)]
    pub last: Option<Timestamp>,
    /// Messages a second, of late.
    #[serde(default)]
    pub rate: f64,
}

/// Which topics to list.
#[derive(Debug, Clone, Default)]
pub struct TopicListQuery {
    /// Only of this name space: `sub`, `push` or `bus`.
    pub pattern: Option<String>,
    /// Only this topic and what lies below it.
    pub prefix: Option<String>,
    /// What the page before said as `next`.
    pub after: Option<String>,
    /// At most so many.
    pub limit: Option<u32>,
}

/// One page of topics, by name.
#[derive(Debug, Clone)]
pub struct TopicList {
    /// The topics.
    pub topics: Vec<TopicInfo>,
    /// `after` of the next page, if there is one.
    pub next: Option<String>,
    /// What the server answered.
    pub raw: Box<RawValue>,
}

/// A schema as the server shows it.
#[derive(Debug, Clone, Deserialize)]
pub struct SchemaInfo {
    /// Where it stands: `sub/livesys.json`.
    pub path: String,
    /// The path of its file on the server.
    pub url: String,
    /// The name space whose messages it governs.
    #[serde(default)]
    pub pattern: Option<String>,
    /// On which topic, and below.
    #[serde(default)]
    pub topic: Option<String>,
    /// The task whose arguments it governs.
    #[serde(default)]
    pub task: Option<String>,
    /// What it calls itself.
    #[serde(default)]
    pub title: Option<String>,
    /// It comes with the server.
    #[serde(default)]
    pub built_in: bool,
}

impl Client {
    /// A page of the sessions of the node.
    ///
    /// # Errors
    /// The server's problem, or that it cannot be reached.
    pub async fn sessions(&self, after: Option<u64>, limit: Option<u32>) -> Result<SessionList, ClientError> {
        #[derive(Deserialize)]
        struct Wire {
            sessions: Vec<SessionInfo>,
            #[serde(default)]
            next: Option<u64>,
        }
        const WHAT: &str = "GET /api/v1/sessions";
        let after = after.map(|id| ("after", id.to_string()));
        let limit = limit.map(|n| ("limit", n.to_string()));
        let query = after.into_iter().chain(limit).collect();
        let answer = self.request(Request { query, ..Request::new(Method::GET, "api/v1/sessions") }).await?;
        let raw: Box<RawValue> = read(WHAT, &answer.body)?;
        let wire: Wire = read(WHAT, raw.get().as_bytes())?;
        Ok(SessionList { sessions: wire.sessions, next: wire.next, raw })
    }

    /// Closes one session. Its client comes back, or with `reconnect` false is told to stay away.
    ///
    /// # Errors
    /// `not_found` when it is gone, or that the server cannot be reached.
    pub async fn close_session(&self, id: u64, reconnect: bool) -> Result<(), ClientError> {
        let path = format!("api/v1/sessions/{id}");
        let query = if reconnect { vec![] } else { vec![("reconnect", "0".to_owned())] };
        self.request(Request { query, ..Request::new(Method::DELETE, &path) }).await.map(drop)
    }

    /// A page of the topics of the node.
    ///
    /// # Errors
    /// The server's problem, or that it cannot be reached.
    pub async fn topics(&self, query: &TopicListQuery) -> Result<TopicList, ClientError> {
        #[derive(Deserialize)]
        struct Wire {
            topics: Vec<TopicInfo>,
            #[serde(default)]
            next: Option<String>,
        }
        const WHAT: &str = "GET /api/v1/topics";
        let said = [
            ("pattern", query.pattern.clone()),
            ("prefix", query.prefix.clone()),
            ("after", query.after.clone()),
            ("limit", query.limit.map(|n| n.to_string())),
        ];
        let query = said.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        let answer = self.request(Request { query, ..Request::new(Method::GET, "api/v1/topics") }).await?;
        let raw: Box<RawValue> = read(WHAT, &answer.body)?;
        let wire: Wire = read(WHAT, raw.get().as_bytes())?;
        Ok(TopicList { topics: wire.topics, next: wire.next, raw })
    }

    /// All schemas that are in force, and what the server answered.
    ///
    /// # Errors
    /// The server's problem, or that it cannot be reached.
    pub async fn schemas(&self) -> Result<(Vec<SchemaInfo>, Box<RawValue>), ClientError> {
        #[derive(Deserialize)]
        struct Wire {
            schemas: Vec<SchemaInfo>,
        }
        const WHAT: &str = "GET /api/v1/schemas";
        let answer = self.request(Request::new(Method::GET, "api/v1/schemas")).await?;
        let raw: Box<RawValue> = read(WHAT, &answer.body)?;
        let wire: Wire = read(WHAT, raw.get().as_bytes())?;
        Ok((wire.schemas, raw))
    }
}
