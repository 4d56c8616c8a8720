//! Workers over HTTP: who there is, and what they are told.

use crate::client::Client;
use crate::error::ClientError;
use crate::http::Request;
use crate::jobs::{read, text};
use http::Method;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// A worker as the server shows it. A newer server may tell more: `raw` has all of it.
#[derive(Debug, Clone, Deserialize)]
pub struct WorkerInfo {
    /// Its number.
    pub id: i64,
    /// The machine.
    pub host: String,
    /// The process.
    pub pid: u32,
    /// What it is.
    pub kind: String,
    /// The version of its program.
    pub version: String,
    /// `idle`, `processing` or `stale`.
    pub state: String,
    /// When it registered.
    pub started: Timestamp,
    /// When it was last heard of.
    pub heartbeat: Timestamp,
    /// From which queues it takes jobs.
    #[serde(default)]
    pub queues: Vec<String>,
    /// Which tasks it has.
    #[serde(default)]
    pub tasks: Vec<String>,
    /// How many jobs it runs at once.
    #[serde(default)]
    pub concurrency: u32,
    /// How many more if they are urgent.
    #[serde(default)]
    pub spare: u32,
    /// How many of one task at once, where that is bounded.
    #[serde(default)]
    pub limits: BTreeMap<String, u32>,
    /// It claims nothing until it is told to go on.
    #[serde(default)]
    pub paused: bool,
    /// How many jobs it runs.
    #[serde(default)]
    pub running: u32,
    /// Which.
    #[serde(default)]
    pub jobs: Vec<i64>,
    /// How many runs it has led to their end.
    #[serde(default)]
    pub performed: u64,
}

/// Which workers to list.
#[derive(Debug, Clone, Default)]
pub struct WorkerQuery {
    /// Any of these states; empty means all.
    pub states: Vec<String>,
    /// Only ids below this one.
    pub before: Option<i64>,
    /// At most so many.
    pub limit: Option<u32>,
}

/// One page of workers, those that came last first.
#[derive(Debug, Clone)]
pub struct WorkerList {
    /// The workers.
    pub workers: Vec<WorkerInfo>,
    /// `before` of the next page, if there is one.
    pub next: Option<i64>,
    /// What the server answered.
    pub raw: Box<RawValue>,
}

#[derive(Serialize)]
struct Words<'a> {
    command: &'a str,
    args: &'a [Value],
    #[serde(skip_serializing_if = "Option::is_none")]
    workers: Option<&'a [i64]>,
}

#[derive(Deserialize)]
struct Sent {
    sent: u64,
}

impl Client {
    /// A page of workers.
    ///
    /// # Errors
    /// The server's problem, or that it cannot be reached.
    pub async fn workers(&self, query: &WorkerQuery) -> Result<WorkerList, ClientError> {
        #[derive(Deserialize)]
        struct Wire {
            workers: Vec<WorkerInfo>,
            #[serde(default)]
            next: Option<i64>,
        }
        const WHAT: &str = "GET /api/v1/workers";
        let states = query.states.iter().map(|state| ("state", state.clone()));
        let before = query.before.map(|id| ("before", id.to_string()));
        let limit = query.limit.map(|n| ("limit", n.to_string()));
        let pairs = states.chain(before).chain(limit).collect();
        let request = Request { query: pairs, ..Request::new(Method::GET, "api/v1/workers") };
        let answer = self.request(request).await?;
        let raw: Box<RawValue> = read(WHAT, &answer.body)?;
        let wire: Wire = read(WHAT, raw.get().as_bytes())?;
        Ok(WorkerList { workers: wire.workers, next: wire.next, raw })
    }

    /// One worker, and what the server answered.
    ///
    /// # Errors
    /// `not_found`, or that the server cannot be reached.
    pub async fn worker(&self, id: i64) -> Result<(WorkerInfo, Box<RawValue>), ClientError> {
        let path = format!("api/v1/workers/{id}");
        let answer = self.request(Request::new(Method::GET, &path)).await?;
        let raw: Box<RawValue> = read(&path, &answer.body)?;
        Ok((read(&path, raw.get().as_bytes())?, raw))
    }

    /// Tells one worker something. It is done when the worker has taken it, which the list of workers shows.
    ///
    /// # Errors
    /// `invalid_request` for arguments that do not fit the command, `not_found`, `conflict` when the worker does not take
    /// what it is told, or that the server cannot be reached.
    pub async fn command(&self, worker: i64, command: &str, args: &[Value]) -> Result<(), ClientError> {
        let path = format!("api/v1/workers/{worker}/command");
        let words = text(&Words { command, args, workers: None })?;
        self.request(Request::new(Method::POST, &path).json(words)).await.map(drop)
    }

    /// Tells these workers something, or without any all of them. Answers how many.
    ///
    /// # Errors
    /// As [`Client::command`], without `not_found` and `conflict`.
    pub async fn broadcast(
        &self,
        workers: Option<&[i64]>,
        command: &str,
        args: &[Value],
    ) -> Result<u64, ClientError> {
        const PATH: &str = "api/v1/workers:broadcast";
        let words = text(&Words { command, args, workers })?;
        let answer = self.request(Request::new(Method::POST, PATH).json(words)).await?;
        read::<Sent>(PATH, &answer.body).map(|answer| answer.sent)
    }
}
