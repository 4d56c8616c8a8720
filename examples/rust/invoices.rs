//! A worker in Rust: one typed task, and a JSON Schema of its arguments that is written from their type.
//!
//! `cargo run -p minium-worker --example invoices -- sqlite:minium.db` works on the jobs of `mail/invoice` in that database.
//! The test below keeps `schemas/tasks/mail/invoice.json`, beside this file, as the type has it.

use minium_protocol::EnqueueRequest;
use minium_queue::Backend;
use minium_worker::{Failure, JobContext, StoreSource, Worker, WorkerOptions};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

/// What is to be sent.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Invoice {
    /// The invoice's number.
    number: u32,
    /// To whom; the customer's usual address when left out.
    #[serde(default)]
    to: Vec<String>,
}

/// Sends an invoice, and enqueues the reminder: its origin is this job, so that both can be cancelled together.
async fn send(job: JobContext, (invoice,): (Invoice,)) -> Result<usize, Failure> {
    job.progress(50.0, format!("sending invoice {}", invoice.number));
    let args = serde_json::value::to_raw_value(&[invoice.number])?;
    let mut reminder = EnqueueRequest::new("mail/reminder", args);
    reminder.options.delay = std::time::Duration::from_secs(14 * 86_400);
    // a second attempt of this job must not remind twice
    reminder.options.key = Some(format!("invoice {}", invoice.number));
    job.enqueue(reminder).await?;
    Ok(invoice.to.len().max(1))
}

fn tasks(worker: Worker) -> Worker {
    worker.described("mail/invoice", send)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "sqlite:minium.db".into());
    let backend = Backend::open(&url.parse()?).await?;
    backend.migrate().await?;
    let stop = CancellationToken::new();
    let worker = tasks(Worker::new(StoreSource::new(backend.store()), WorkerOptions::default()));
    let work = worker.run(stop.clone());
    tokio::pin!(work);
    tokio::select! {
        ended = &mut work => return Ok(ended?),
        asked = tokio::signal::ctrl_c() => asked?,
    }
    stop.cancel();
    Ok(work.await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use minium_protocol::State;
    use minium_queue::Store;
    use std::path::Path;
    use std::sync::Arc;

    async fn store() -> Arc<dyn Store> {
        let backend = Backend::open(&"sqlite::memory:".parse().unwrap()).await.unwrap();
        backend.migrate().await.unwrap();
        backend.store()
    }

    #[tokio::test]
    async fn the_schemas_are_those_of_the_types() {
        let worker = tasks(Worker::new(StoreSource::new(store().await), WorkerOptions::default()));
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/rust/schemas");
        minium_worker::schema::assert_same(dir, worker.schemas());
    }

    #[tokio::test]
    async fn an_invoice_is_sent_and_its_reminder_enqueued() {
        let store = store().await;
        let args = serde_json::value::to_raw_value(&[Invoice { number: 7, to: Vec::new() }]).unwrap();
        let id = store.enqueue(&[EnqueueRequest::new("mail/invoice", args)]).await.unwrap()[0].id;
        let stop = CancellationToken::new();
        let worker = tasks(Worker::new(StoreSource::new(store.clone()), WorkerOptions::default()));
        let work = tokio::spawn(worker.run(stop.clone()));
        let sent = loop {
            let job = store.get(id).await.unwrap().unwrap().job().unwrap();
            if job.state.is_ended() {
                break job;
            }
            tokio::task::yield_now().await;
        };
        stop.cancel();
        work.await.unwrap().unwrap();
        assert_eq!((sent.state, sent.result.unwrap().get()), (State::Finished, "1"));
        let reminder = store.get(id + 1).await.unwrap().unwrap().job().unwrap();
        assert_eq!((reminder.task.as_str(), reminder.origin), ("mail/reminder", Some(id)));
    }
}
