//! Pushes: messages become jobs. What many callers push at once goes into one enqueue.

use super::options::WorkOptions;
use super::{Store, StoreSlot, notes_bytes, problem, received, unavailable};
use minium_bus::Pushed;
use minium_protocol::{EnqueueRequest, ErrorCode, Problem, Topic};
use minium_queue::QueueError;
use serde_json::value::RawValue;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// One caller's jobs.
#[derive(Debug)]
pub(super) struct Push {
    pub(super) requests: Vec<EnqueueRequest>,
    pub(super) answer: oneshot::Sender<Result<Vec<i64>, Problem>>,
}

/// Makes messages the jobs of a task.
pub(super) fn requests(
    task: &Topic,
    pushed: Vec<Pushed>,
    check: &super::ArgsCheck,
) -> Result<Vec<EnqueueRequest>, Problem> {
    let request = |message: Pushed| {
        let unreadable = |why: String| Problem::new(ErrorCode::InvalidJson, format!("the message: {why}"));
        let text = String::from_utf8(message.data.to_vec()).map_err(|e| unreadable(e.to_string()))?;
        let args = RawValue::from_string(text).map_err(|e| unreadable(e.to_string()))?;
        let mut request = EnqueueRequest::new(task.as_str(), args);
        request.options = message.options;
        request.check().map_err(|why| Problem::new(ErrorCode::InvalidRequest, why))?;
        check(&request.task, &request.args)?;
        Ok(request)
    };
    pushed.into_iter().map(request).collect()
}

/// Enqueues one caller's jobs.
pub(super) async fn enqueue(store: &StoreSlot, requests: &[EnqueueRequest]) -> Result<Vec<i64>, Problem> {
    let store = store.borrow().clone().ok_or_else(unavailable)?;
    answer(store.enqueue(requests).await)
}

fn answer(enqueued: Result<Vec<minium_queue::Enqueued>, QueueError>) -> Result<Vec<i64>, Problem> {
    enqueued.map(|all| all.into_iter().map(|e| e.id).collect()).map_err(|e| problem(&e))
}

/// Takes whatever waits, and enqueues it at once. While the database commits, the next batch gathers; so one who pushes
/// alone waits for nobody.
pub(super) async fn run(
    mut waiting: mpsc::Receiver<Push>,
    store: StoreSlot,
    options: Arc<WorkOptions>,
    end: CancellationToken,
) {
    let mut kept = None;
    while let Some(first) = next(&mut kept, &mut waiting, &end).await {
        let mut batch = vec![first];
        let (mut jobs, mut bytes) = size(&batch[0]);
        while let Ok(push) = waiting.try_recv() {
            let (more, larger) = size(&push);
            if jobs + more > options.batch_max || bytes + larger > options.batch_bytes_max {
                kept = Some(push);
                break;
            }
            (jobs, bytes) = (jobs + more, bytes + larger);
            batch.push(push);
        }
        let current = store.borrow().clone();
        match current {
            Some(store) => enqueue_all(store.as_ref(), batch).await,
            None => batch.into_iter().for_each(|push| tell(push.answer, Err(unavailable()))),
        }
    }
}

async fn next(
    kept: &mut Option<Push>,
    waiting: &mut mpsc::Receiver<Push>,
    end: &CancellationToken,
) -> Option<Push> {
    match kept.take() {
        Some(push) => Some(push),
        None => received(waiting, end).await,
    }
}

fn size(push: &Push) -> (usize, usize) {
    let bytes = |r: &EnqueueRequest| r.args.get().len() + notes_bytes(&r.options.notes);
    (push.requests.len(), push.requests.iter().map(bytes).sum())
}

/// All of them by one call. If one caller's jobs are refused, that is no reason to refuse the others'.
async fn enqueue_all(store: &dyn Store, batch: Vec<Push>) {
    let (mut requests, mut callers) = (Vec::new(), Vec::with_capacity(batch.len()));
    for push in batch {
        callers.push((push.requests.len(), push.answer));
        requests.extend(push.requests);
    }
    match store.enqueue(&requests).await {
        Err(error) if error.is_refusal() && callers.len() > 1 => {
            let mut requests = VecDeque::from(requests);
            for (count, caller) in callers {
                let own: Vec<EnqueueRequest> = requests.drain(..count).collect();
                tell(caller, answer(store.enqueue(&own).await));
            }
        }
        Err(error) => callers.into_iter().for_each(|(_, caller)| tell(caller, Err(problem(&error)))),
        Ok(enqueued) => {
            let mut ids = enqueued.into_iter().map(|e| e.id);
            for (count, caller) in callers {
                tell(caller, Ok(ids.by_ref().take(count).collect()));
            }
        }
    }
}

/// A caller that is gone needs no answer; his jobs are enqueued all the same.
fn tell<T>(caller: oneshot::Sender<T>, answer: T) {
    drop(caller.send(answer));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_weigh_as_arguments_do() {
        let mut request = EnqueueRequest::new("t", RawValue::NULL.to_owned());
        request.options.notes.insert("n".into(), "x".repeat(1_000).into());
        let (count, bytes) = size(&Push { requests: vec![request], answer: oneshot::channel().0 });
        assert!(count == 1 && bytes > 1_000, "{bytes}");
    }
}
