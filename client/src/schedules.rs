//! Schedules over HTTP: put, looked at, paused, run.

use crate::client::Client;
use crate::error::ClientError;
use crate::http::Request;
use crate::jobs::{EnqueuedJob, read, text};
use crate::segment;
use http::Method;
use jiff::Timestamp;
use minium_protocol::{Missed, ScheduleRequest};
use serde::Deserialize;
use serde_json::value::RawValue;

/// A schedule as the server told it.
#[derive(Debug, Clone)]
pub struct ScheduleInfo {
    /// What is known of it.
    pub schedule: ScheduleFields,
    /// The JSON text, for passing on unchanged.
    pub raw: Box<RawValue>,
}

/// What is known of a schedule. A newer server may tell more.
#[derive(Debug, Clone, Deserialize)]
pub struct ScheduleFields {
    /// Its name.
    pub name: String,
    /// The task that it enqueues.
    pub task: String,
    /// How often, in seconds.
    pub every: Option<f64>,
    /// When, in five fields.
    pub cron: Option<String>,
    /// In whose clock time.
    pub zone: String,
    /// What becomes of firings that nobody was there for.
    pub missed: Missed,
    /// It does not fire.
    pub paused: bool,
    /// It comes from the configuration.
    pub configured: bool,
    /// When it fires next.
    pub due: Timestamp,
    /// When it fired last.
    pub fired: Option<Timestamp>,
    /// The job that it enqueued last.
    pub job: Option<i64>,
}

/// One page of schedules, by name.
#[derive(Debug, Clone)]
pub struct ScheduleList {
    /// The schedules.
    pub schedules: Vec<ScheduleInfo>,
    /// `after` of the next page, if there is one.
    pub next: Option<String>,
    /// What the server answered.
    pub raw: Box<RawValue>,
}

impl Client {
    /// Puts a schedule, in place of one of its name.
    ///
    /// # Errors
    /// `conflict` for a name of the configuration, what else the server refuses, or that it cannot be reached.
    pub async fn put_schedule(
        &self,
        name: &str,
        schedule: &ScheduleRequest,
    ) -> Result<ScheduleInfo, ClientError> {
        let path = path(name, "");
        let answer = self.request(Request::new(Method::PUT, &path).json(text(schedule)?)).await?;
        ScheduleInfo::read(&path, &answer.body)
    }

    /// Removes a schedule.
    ///
    /// # Errors
    /// `not_found`, `conflict` for one of the configuration, or that the server cannot be reached.
    pub async fn remove_schedule(&self, name: &str) -> Result<(), ClientError> {
        self.request(Request::new(Method::DELETE, &path(name, ""))).await.map(drop)
    }

    /// One schedule.
    ///
    /// # Errors
    /// `not_found`, or that the server cannot be reached.
    pub async fn schedule(&self, name: &str) -> Result<ScheduleInfo, ClientError> {
        let path = path(name, "");
        let answer = self.request(Request::new(Method::GET, &path)).await?;
        ScheduleInfo::read(&path, &answer.body)
    }

    /// A page of schedules, by name.
    ///
    /// # Errors
    /// The server's problem, or that it cannot be reached.
    pub async fn schedules(
        &self,
        after: Option<&str>,
        limit: Option<u32>,
    ) -> Result<ScheduleList, ClientError> {
        #[derive(Deserialize)]
        struct Wire {
            schedules: Vec<Box<RawValue>>,
            next: Option<String>,
        }
        let mut query: Vec<_> = after.map(|after| ("after", after.to_owned())).into_iter().collect();
        query.extend(limit.map(|limit| ("limit", limit.to_string())));
        let what = "api/v1/schedules";
        let answer = self.request(Request { query, ..Request::new(Method::GET, what) }).await?;
        let raw: Box<RawValue> = read(what, &answer.body)?;
        let wire: Wire = read(what, raw.get().as_bytes())?;
        let each = wire.schedules.iter().map(|s| ScheduleInfo::read(what, s.get().as_bytes()));
        Ok(ScheduleList { schedules: each.collect::<Result<_, _>>()?, next: wire.next, raw })
    }

    /// Lets a schedule rest, or go on.
    ///
    /// # Errors
    /// `not_found`, or that the server cannot be reached.
    pub async fn pause_schedule(&self, name: &str, paused: bool) -> Result<ScheduleInfo, ClientError> {
        let path = path(name, if paused { "/pause" } else { "/resume" });
        let answer = self.request(Request::new(Method::POST, &path)).await?;
        ScheduleInfo::read(&path, &answer.body)
    }

    /// Enqueues a schedule's job now.
    ///
    /// # Errors
    /// `not_found`, or that the server cannot be reached; then it is not known whether the job was enqueued.
    pub async fn run_schedule(&self, name: &str) -> Result<EnqueuedJob, ClientError> {
        let path = path(name, "/run");
        let answer = self.request(Request::new(Method::POST, &path)).await?;
        EnqueuedJob::read(&path, &answer.body)
    }
}

impl ScheduleInfo {
    fn read(what: &str, body: &[u8]) -> Result<ScheduleInfo, ClientError> {
        let raw: Box<RawValue> = read(what, body)?;
        Ok(ScheduleInfo { schedule: read(what, raw.get().as_bytes())?, raw })
    }
}

fn path(name: &str, action: &str) -> String {
    format!("api/v1/schedules/{}{action}", segment::of(name))
}
