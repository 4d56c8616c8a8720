//! `minium doctor --url`: a node that runs, from the outside: is it whole, which time has it, does a message come through, does
//! a job's event?
//!
//! What must hold: nothing is left behind but the two events of a job that nobody could run. The job is removed, and where
//! that fails it expires.

use super::clock;
use super::finding::Finding;
use crate::cli::remote::explained;
use futures::StreamExt;
use jiff::Timestamp;
use minium_client::{
    Client, ClientError, ConnectOptions, Connection, Event, Payload, Received, Subscription,
};
use minium_protocol::{After, EnqueueRequest, ErrorCode, EventType, JobOptions};
use serde_json::json;
use serde_json::value::RawValue;
use std::time::Duration;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

/// The scratch topic, and the task that nobody has.
const PLACE: &str = "minium-doctor";
/// Its queue, from which nobody takes jobs.
const QUEUE: &str = "minium-doctor";
/// What takes longer does not come.
const PATIENCE: Duration = Duration::from_secs(10);
/// No worker may have the job meanwhile, and it is gone by itself after this.
const JOB_DELAY: Duration = Duration::from_secs(3_600);
const JOB_EXPIRE: Duration = Duration::from_secs(60);

/// Looks at the node.
pub(super) async fn look(client: &Client) -> Vec<Finding> {
    let mut findings = Vec::new();
    let begun = Instant::now();
    match client.readiness().await {
        Err(error) => {
            let words = explained(&error).to_string();
            return vec![Finding::fail("node", words, "start it, or say another --url")];
        }
        Ok(readiness) => findings.push(match readiness.why {
            None => Finding::ok("node", format!("{} is ready, {}", client.base_url(), took(begun))),
            Some(why) => Finding::fail("node", format!("{}: {why}", client.base_url()), "its log says why"),
        }),
    }
    let before = Timestamp::now();
    match client.server_time().await {
        Ok(Some(told)) => findings.push(clock::node(before, told, Timestamp::now())),
        Ok(None) => findings.push(Finding::ok("clock.node", "something on the way takes its time away")),
        Err(error) => findings.push(refused("clock.node", &error, "")),
    }
    let begun = Instant::now();
    findings.push(match client.stats().await {
        Ok(stats) => Finding::ok("node.figures", format!("{} workers, {}", stats.workers, took(begun))),
        Err(error) => refused("node.figures", &error, "jobs:read"),
    });
    let connection = match client.connect(ConnectOptions::default()) {
        Ok(connection) => connection,
        Err(error) => {
            findings.push(refused("node.message", &error, ""));
            return findings;
        }
    };
    findings.push(Box::pin(message(&connection)).await);
    findings.push(Box::pin(job(client, &connection)).await);
    connection.close().await;
    findings
}

/// A message is published and comes back.
async fn message(connection: &Connection) -> Finding {
    const NAME: &str = "node.message";
    const SCOPES: &str = "sub:minium-doctor pub:minium-doctor";
    let begun = Instant::now();
    let mark = Uuid::new_v4().to_string();
    let walked = async {
        let mut messages = subscribe(connection, PLACE).await?;
        connection
            .publish(&PLACE.parse().expect("this is a topic"), Payload::from(json!(mark)), None)
            .await?;
        let sent = begun.elapsed();
        let is_ours = |message: &Received| message.payload.parse::<String>().is_ok_and(|text| text == mark);
        await_message(&mut messages, is_ours).await?;
        Ok::<_, ClientError>(sent)
    };
    match within(walked).await {
        Ok(sent) => {
            let words = format!("published {}, received {}", milliseconds(sent), took(begun));
            Finding::ok(NAME, words)
        }
        Err(error) => refused(NAME, &error, SCOPES),
    }
}

/// A job is enqueued, its event seen, and both ends of it taken away again.
async fn job(client: &Client, connection: &Connection) -> Finding {
    const NAME: &str = "node.job";
    let begun = Instant::now();
    let filter = format!("task/{PLACE}");
    let mut events = match within(subscribe(connection, &filter)).await {
        Ok(events) => Ok(events),
        Err(error) if error.code() == Some(ErrorCode::Forbidden) => Err(error),
        Err(error) => return refused(NAME, &error, "sub:task"),
    };
    let options = JobOptions {
        queue: QUEUE.into(),
        delay: JOB_DELAY,
        expire: Some(JOB_EXPIRE),
        ..JobOptions::default()
    };
    let args = RawValue::from_string("[]".into()).expect("this is JSON");
    let request = EnqueueRequest { options, ..EnqueueRequest::new(PLACE, args) };
    let id = match within(client.enqueue(&request)).await {
        Ok(job) => job.id,
        Err(error) => return refused(NAME, &error, "jobs:write"),
    };
    let enqueued = begun.elapsed();
    let seen = match &mut events {
        Ok(events) => within(await_event(events, id, EventType::Enqueue)).await.map(|()| begun.elapsed()),
        Err(error) => Err(std::mem::replace(error, ClientError::ClientClosed)),
    };
    // whatever was seen: nothing is left behind
    if let Err(error) = within(client.remove(id)).await {
        let words =
            format!("job {id} could not be removed, and goes by itself in a minute: {}", explained(&error));
        return Finding::warn(NAME, words, "does the token have jobs:write?");
    }
    let seen = match seen {
        Ok(seen) => seen,
        Err(error) if error.code() == Some(ErrorCode::Forbidden) => {
            let words = format!(
                "enqueued {}, removed {}; its events may not be seen",
                milliseconds(enqueued),
                took(begun)
            );
            return Finding::warn(NAME, words, "a token with the scope sub:task sees them");
        }
        Err(error) => {
            let words = format!(
                "enqueued {}, but its event did not come: {}",
                milliseconds(enqueued),
                explained(&error)
            );
            return Finding::fail(
                NAME,
                words,
                "does the relay run? See /readyz, and minium_notifier_… at /metrics",
            );
        }
    };
    let gone = match &mut events {
        Ok(events) => within(await_event(events, id, EventType::Removed)).await,
        Err(_) => Ok(()),
    };
    match gone {
        Ok(()) => {
            let words = format!(
                "enqueued {}, its event came {}, removed {}",
                milliseconds(enqueued),
                milliseconds(seen),
                took(begun)
            );
            Finding::ok(NAME, words)
        }
        Err(error) => refused(NAME, &error, "sub:task"),
    }
}

async fn subscribe(connection: &Connection, filter: &str) -> Result<Subscription, ClientError> {
    connection.subscribe(&filter.parse().expect("this is a filter"), After::Latest).await
}

async fn await_event(events: &mut Subscription, id: i64, kind: EventType) -> Result<(), ClientError> {
    let is_it = |message: &Received| {
        message.task_event().ok().flatten().is_some_and(|event| event.kind == kind && event.job.id == id)
    };
    await_message(events, is_it).await
}

async fn await_message(
    messages: &mut Subscription,
    is_it: impl Fn(&Received) -> bool,
) -> Result<(), ClientError> {
    while let Some(event) = messages.next().await {
        match event? {
            Event::Message(message) if is_it(&message) => return Ok(()),
            _ => {}
        }
    }
    Err(ClientError::ClientClosed)
}

async fn within<T>(work: impl Future<Output = Result<T, ClientError>>) -> Result<T, ClientError> {
    let late = |_| Err(ClientError::Timeout { what: "the node's answer".into(), limit: PATIENCE });
    timeout(PATIENCE, Box::pin(work)).await.unwrap_or_else(late)
}

/// A step that was refused or failed. One that the token may not do says with which scopes it might.
fn refused(name: &'static str, error: &ClientError, scopes: &str) -> Finding {
    let words = explained(error).to_string();
    match error.code() {
        Some(ErrorCode::Forbidden) if !scopes.is_empty() => Finding::warn(
            name,
            format!("not tried: {words}"),
            format!("a token with the scopes {scopes} can"),
        ),
        Some(ErrorCode::Unauthorized) => {
            Finding::fail(name, words, "give it a token by --token-file or MINIUM_TOKEN")
        }
        _ => Finding::fail(name, words, "the node's log says more"),
    }
}

fn took(begun: Instant) -> String {
    format!("in {}", span(begun.elapsed()))
}

fn milliseconds(span_so_far: Duration) -> String {
    format!("after {}", span(span_so_far))
}

fn span(span: Duration) -> String {
    format!("{:.1} ms", span.as_secs_f64() * 1e3)
}
