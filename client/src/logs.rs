//! Logs of jobs over HTTP, by the page.

use crate::client::Client;
use crate::error::ClientError;
use crate::http::Request;
use crate::jobs::read;
use http::Method;
use minium_protocol::KeptLine;
use serde::Deserialize;

/// One page of a job's log, in the order of its lines.
#[derive(Debug, Clone, Deserialize)]
pub struct LogList {
    /// The lines.
    pub lines: Vec<KeptLine>,
    /// `after` of the next page, if there is one.
    pub next: Option<i64>,
    /// So many lines, the job's first ones, are kept no more.
    pub dropped: i64,
}

impl Client {
    /// Lines of a job's log behind the one with this number; 0 is before the first.
    ///
    /// # Errors
    /// `not_found`, or that the server cannot be reached.
    pub async fn log(&self, job: i64, after: i64, limit: Option<u32>) -> Result<LogList, ClientError> {
        let path = format!("api/v1/jobs/{job}/log");
        let limit = limit.map(|n| ("limit", n.to_string()));
        let query = [("after", after.to_string())].into_iter().chain(limit).collect();
        let answer = self.request(Request { query, ..Request::new(Method::GET, &path) }).await?;
        read(&path, &answer.body)
    }
}
