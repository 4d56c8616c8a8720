//! Queues, limits and figures over HTTP.

use crate::client::Client;
use crate::error::ClientError;
use crate::http::Request;
use http::Method;
use jiff::Timestamp;
use minium_protocol::WorkerRef;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// A queue in which jobs are ready, or that is paused.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct QueueInfo {
    /// Its name.
    pub name: String,
    /// Since when nothing is claimed from it, if it is paused.
    pub paused: Option<Timestamp>,
    /// Jobs that could be claimed at once, counted up to 10,000.
    pub ready: i64,
}

/// A limit of a task, and how many run under it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LimitInfo {
    /// The task; those below it are limited with it.
    pub task: String,
    /// So many run at once in all.
    pub running: Option<u32>,
    /// So many run at once of each partition.
    pub per_partition: Option<u32>,
    /// So many are started in `per` seconds.
    pub rate: Option<u32>,
    /// Seconds.
    pub per: Option<f64>,
    /// So many run just now.
    pub active: u32,
}

/// What one hour brought.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HourInfo {
    /// When it began.
    pub hour: Timestamp,
    /// Jobs that finished.
    pub finished: i64,
    /// Runs that failed.
    pub failed: i64,
    /// Jobs that were called off.
    pub cancelled: i64,
}

/// Why one run of a job failed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FailureInfo {
    /// Number of the run.
    pub attempt: i32,
    /// When it failed.
    pub at: Timestamp,
    /// Who ran it.
    pub worker: Option<WorkerRef>,
    /// Why.
    pub error: String,
    /// Where it happened, if that was told.
    pub backtrace: Option<String>,
}

impl Client {
    /// Queues with jobs that are ready, and those that are paused.
    ///
    /// # Errors
    /// The server's problem, or that it cannot be reached.
    pub async fn queues(&self) -> Result<Vec<QueueInfo>, ClientError> {
        self.list_of("api/v1/queues", "queues").await
    }

    /// Lets nothing be claimed from a queue any more. Answers whether it was not paused before.
    ///
    /// # Errors
    /// As [`Client::queues`].
    pub async fn pause_queue(&self, queue: &str) -> Result<bool, ClientError> {
        self.turn(queue, "pause").await
    }

    /// Lets jobs be claimed from a queue again. Answers whether it was paused.
    ///
    /// # Errors
    /// As [`Client::queues`].
    pub async fn resume_queue(&self, queue: &str) -> Result<bool, ClientError> {
        self.turn(queue, "resume").await
    }

    /// Limits of tasks.
    ///
    /// # Errors
    /// As [`Client::queues`].
    pub async fn limits(&self) -> Result<Vec<LimitInfo>, ClientError> {
        self.list_of("api/v1/limits", "limits").await
    }

    /// What each of the last 24 hours brought, the oldest first.
    ///
    /// # Errors
    /// As [`Client::queues`].
    pub async fn history(&self) -> Result<Vec<HourInfo>, ClientError> {
        self.list_of("api/v1/history", "hours").await
    }

    /// Why the runs of a job failed, the first one first.
    ///
    /// # Errors
    /// `not_found`, or as [`Client::queues`].
    pub async fn failures(&self, job: i64) -> Result<Vec<FailureInfo>, ClientError> {
        self.list_of(&format!("api/v1/jobs/{job}/failures"), "failures").await
    }

    async fn turn(&self, queue: &str, word: &str) -> Result<bool, ClientError> {
        #[derive(Deserialize)]
        struct Answer {
            changed: bool,
        }
        let queue = utf8_percent_encode(queue, NON_ALPHANUMERIC);
        let path = format!("api/v1/queues/{queue}/{word}");
        let answer = self.request(Request::new(Method::POST, &path)).await?;
        crate::jobs::read::<Answer>(&format!("POST /{path}"), &answer.body).map(|answer| answer.changed)
    }

    async fn list_of<T: DeserializeOwned>(&self, path: &str, member: &str) -> Result<Vec<T>, ClientError> {
        let answer = self.request(Request::new(Method::GET, path)).await?;
        let what = format!("GET /{path}");
        let mut document: std::collections::HashMap<String, Vec<T>> = crate::jobs::read(&what, &answer.body)?;
        Ok(document.remove(member).unwrap_or_default())
    }
}
