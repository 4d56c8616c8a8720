//! Many jobs or workers, page by page: streams over whole lists, and one action on all that a filter finds.

use crate::client::Client;
use crate::error::ClientError;
use crate::http::Request;
use crate::jobs::{JobInfo, JobQuery, RetryRequest, read, text};
use crate::workers::{WorkerInfo, WorkerQuery};
use futures::stream::{self, Stream, TryStreamExt};
use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What is to be done with each job that a filter finds.
#[derive(Debug, Clone)]
pub enum BulkAction {
    /// Make it wait again.
    Retry(RetryRequest),
    /// Call it off.
    Cancel,
    /// Delete it.
    Remove,
}

/// What an action on many jobs brought.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BulkDone {
    /// Jobs that the filter found.
    pub matched: u64,
    /// Of these, acted on; or that would be.
    pub changed: u64,
    /// Of these, passed over: their states forbid it.
    pub refused: u64,
    /// `before` of the next piece, if there is one.
    #[serde(default, skip_serializing)]
    pub next: Option<i64>,
}

impl BulkAction {
    fn word(&self) -> &'static str {
        match self {
            BulkAction::Retry(_) => "retry",
            BulkAction::Cancel => "cancel",
            BulkAction::Remove => "remove",
        }
    }
}

impl Client {
    /// All jobs that a query finds, the newest first; `limit` is how many are asked for at once. Jobs that are enqueued
    /// meanwhile are not among them.
    pub fn every_job(
        &self,
        query: JobQuery,
    ) -> impl Stream<Item = Result<JobInfo, ClientError>> + Send + use<> {
        let client = self.clone();
        pages(query, move |query| {
            let client = client.clone();
            async move {
                let page = client.list(&query).await?;
                Ok((page.jobs, page.next.map(|before| JobQuery { before: Some(before), ..query })))
            }
        })
    }

    /// All workers that a query finds, those that came last first; `limit` is how many are asked for at once.
    pub fn every_worker(
        &self,
        query: WorkerQuery,
    ) -> impl Stream<Item = Result<WorkerInfo, ClientError>> + Send + use<> {
        let client = self.clone();
        pages(query, move |query| {
            let client = client.clone();
            async move {
                let page = client.workers(&query).await?;
                Ok((page.workers, page.next.map(|before| WorkerQuery { before: Some(before), ..query })))
            }
        })
    }

    /// Acts on one piece of the jobs that a query finds, the newest first; its `limit` means nothing here. With `dry_run` only
    /// tells on how many it would. The answer's `next` is the `before` of the next piece.
    ///
    /// # Errors
    /// `invalid_request` for a query that names nothing, or that the server cannot be reached; what was done stays done.
    pub async fn bulk(
        &self,
        action: &BulkAction,
        query: &JobQuery,
        dry_run: bool,
    ) -> Result<BulkDone, ClientError> {
        const PATH: &str = "api/v1/jobs:bulk";
        let list = |all: &[String]| (!all.is_empty()).then(|| json!(all));
        // a node refuses members that say nothing, and those that it does not know: rather that than act on more
        let said = [
            ("state", (!query.states.is_empty()).then(|| json!(query.states))),
            ("task", list(&query.tasks)),
            ("queue", list(&query.queues)),
            ("note", list(&query.notes)),
            ("id", (!query.ids.is_empty()).then(|| json!(query.ids))),
            ("before", query.before.map(|before| json!(before))),
            ("origin", query.origin.map(|origin| json!(origin))),
            ("phase", (!query.phases.is_empty()).then(|| json!(query.phases))),
            ("arg", list(&query.args)),
            ("q", query.text.as_ref().map(|text| json!(text))),
        ];
        let said = said.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        let filter = Value::Object(said.collect());
        let options = match action {
            BulkAction::Retry(options) => json!(options),
            BulkAction::Cancel | BulkAction::Remove => json!({}),
        };
        let body =
            json!({ "action": action.word(), "filter": filter, "options": options, "dry_run": dry_run });
        let answer = self.request(Request::new(Method::POST, PATH).json(text(&body)?)).await?;
        read(PATH, &answer.body)
    }
}

/// What stands on a page and on those behind it, each asked for when it is come to: a page answers with the query of the next.
fn pages<Q, T, F>(first: Q, page: impl Fn(Q) -> F) -> impl Stream<Item = Result<T, ClientError>>
where
    F: Future<Output = Result<(Vec<T>, Option<Q>), ClientError>>,
{
    let pages = stream::try_unfold(Some(first), move |query| {
        let page = query.map(&page);
        async move {
            let Some(page) = page else { return Ok::<_, ClientError>(None) };
            let (found, next) = page.await?;
            Ok(Some((stream::iter(found.into_iter().map(Ok)), next)))
        }
    });
    pages.try_flatten()
}
