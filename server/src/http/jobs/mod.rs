//! `/api/v1/jobs`: the queue over HTTP. Snapshots go out as the store made them, unparsed.

mod act;
mod bulk;
pub(super) mod bulks;
mod enqueue;
mod events;
mod filter;
mod kin;
mod log;
mod read;
mod wait;

pub(crate) use act::{cancel, change, remove, retry};
pub(crate) use bulk::bulk;
pub(super) use enqueue::check_args;
pub(crate) use enqueue::enqueue;
#[cfg(test)]
pub(super) use events::EARLIEST;
pub(crate) use events::{HISTORIES_MAX, events};
pub(crate) use kin::parents;
pub(crate) use log::log;
pub(crate) use read::{failures, list, show, stats};
pub(crate) use wait::wait;

use super::problem::Refusal;
use minium_protocol::{ErrorCode, Job, JobView};
use minium_queue::{QueueError, Store};

/// One job, or 404.
pub(super) async fn find(store: &dyn Store, id: i64) -> Result<JobView, Refusal> {
    Ok(store.get(id).await?.ok_or(QueueError::NotFound(id))?)
}

/// What a view says.
fn whole(view: &JobView) -> Result<Job, Refusal> {
    view.job().map_err(|_| Refusal::new(ErrorCode::Internal, "a snapshot cannot be read"))
}

/// Reads JSON. What is no JSON at all is told apart from JSON that says the wrong thing.
pub(super) fn parse<'a, T: serde::Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Refusal> {
    serde_json::from_slice(bytes).map_err(|error| {
        let code = match error.classify() {
            serde_json::error::Category::Data => ErrorCode::InvalidRequest,
            serde_json::error::Category::Io
            | serde_json::error::Category::Syntax
            | serde_json::error::Category::Eof => ErrorCode::InvalidJson,
        };
        Refusal::new(code, error.to_string())
    })
}
