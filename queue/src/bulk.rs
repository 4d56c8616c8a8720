//! One action on all jobs that a filter finds, in pieces.
//!
//! A piece is a page of the list, and each of its jobs is acted on by itself, as if somebody had named it: one whose state
//! forbids it, or which the options do not fit, is passed over. The cursor goes down the ids, so that what an action changes is
//! not met again.

use crate::error::QueueError;
use crate::filter::JobFilter;
use crate::rules;
use crate::store::{RetryOptions, Store};
use futures::{StreamExt, TryStreamExt, stream};
use minium_protocol::State;
use serde::Deserialize;

/// So many jobs are acted on at once: their commits go together where the database lets them.
const AT_ONCE: usize = 4;

/// What is to be done with each job.
#[derive(Debug, Clone)]
pub enum BulkAction {
    /// [`Store::retry`].
    Retry(RetryOptions),
    /// [`Store::cancel`].
    Cancel,
    /// [`Store::remove`].
    Remove,
}

/// What one piece brought.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BulkDone {
    /// Jobs that the filter found.
    pub matched: u64,
    /// Of these, acted on; or that would be.
    pub changed: u64,
    /// Of these, passed over: their states forbid it, the options do not fit them, or somebody else was quicker.
    pub refused: u64,
    /// `before` of the next piece, if there is one.
    pub next: Option<i64>,
}

/// Acts on one page of the filter's jobs, the newest first; with `dry_run` only tells on how many it would.
///
/// # Errors
/// Of the store, and [`QueueError::Invalid`] for options that fit no job. What was done before stays done.
pub async fn bulk(
    store: &dyn Store,
    action: &BulkAction,
    filter: &JobFilter,
    dry_run: bool,
) -> Result<BulkDone, QueueError> {
    check_bulk(action, filter)?;
    let page = store.list(filter).await?;
    let jobs: Vec<Brief> = page
        .jobs
        .iter()
        .map(|snapshot| {
            serde_json::from_str(snapshot.get()).expect("a snapshot has its id, state and attempts")
        })
        .collect();
    let act = |job: Brief| async move {
        if dry_run {
            return Ok(match action {
                BulkAction::Retry(options) => may_retry(&job, options),
                BulkAction::Cancel => rules::may_cancel(job.id, job.state).is_ok(),
                BulkAction::Remove => rules::may_remove(job.id, job.state).is_ok(),
            });
        }
        let done = match action {
            BulkAction::Retry(options) => store.retry(job.id, options).await,
            BulkAction::Cancel => store.cancel(job.id).await,
            BulkAction::Remove => store.remove(job.id).await,
        };
        match done {
            Ok(()) => Ok(true),
            // what can be seen to fit no job was refused before
            Err(QueueError::Conflict { .. } | QueueError::NotFound(_) | QueueError::Invalid(_)) => Ok(false),
            Err(error) => Err(error),
        }
    };
    let matched = jobs.len() as u64;
    let done: Vec<bool> = stream::iter(jobs).map(act).buffer_unordered(AT_ONCE).try_collect().await?;
    let changed = done.into_iter().filter(|changed| *changed).count() as u64;
    Ok(BulkDone { matched, changed, refused: matched - changed, next: page.next })
}

/// Checks what is to be done, and with whom, before anything is.
///
/// # Errors
/// [`QueueError::Invalid`].
pub fn check_bulk(action: &BulkAction, filter: &JobFilter) -> Result<(), QueueError> {
    if let BulkAction::Retry(options) = action {
        rules::check_retry(options)?;
    }
    filter.check()
}

/// What is looked at of a job before it is acted on.
#[derive(Deserialize)]
struct Brief {
    id: i64,
    state: State,
    attempt: i32,
    attempts: i32,
}

/// Would it be retried? A snapshot does not tell that a job runs on a failure, nor whether its key is free: of those it is said
/// too readily.
fn may_retry(job: &Brief, options: &RetryOptions) -> bool {
    rules::may_retry(job.id, job.state, false).is_ok()
        && rules::check_retry_of(job.id, job.attempt, false, options).is_ok()
        && rules::attempts_after_retry(job.attempt, job.attempts, options.attempts).is_ok()
}
