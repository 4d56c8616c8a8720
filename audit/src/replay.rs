//! Publishes an archive's events once more, at the pace at which they happened or at another.
//!
//! They go below a prefix of their own, so that nobody takes them for life.

use crate::error::AuditError;
use crate::place::Place;
use crate::read::{Entry, Selection, read_while};
use futures::future::BoxFuture;
use jiff::Timestamp;
use minium_client::{Connection, Payload};
use minium_protocol::Topic;
use serde_json::value::RawValue;
use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::pin::pin;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Events that were read and are not published yet, and those that are published and not acknowledged yet.
const AHEAD: usize = 256;
/// Who stops it waits so long for what was published last to be acknowledged.
const LAST_WORD: Duration = Duration::from_secs(2);

/// How to replay.
#[derive(Debug, Clone)]
pub struct ReplayOptions {
    /// Which events.
    pub selection: Selection,
    /// So many times as fast as it happened; `None` as fast as it goes.
    pub speed: Option<f64>,
    /// Goes before each topic.
    pub prefix: Topic,
}

/// What is told while it replays.
#[derive(Debug, Clone, Copy)]
pub struct Replayed {
    /// So many events; at the end those that the server acknowledged.
    pub events: u64,
    /// When the last one happened.
    pub time: Option<Timestamp>,
}

/// One event, on its way from the disk.
struct Loaded {
    topic: Topic,
    time: Option<Timestamp>,
    data: Box<RawValue>,
}

/// Replays until the end, or until `stop`.
///
/// # Errors
/// What cannot be read, and what the server refuses.
pub async fn replay(
    connection: &Connection,
    place: impl Into<Place>,
    options: ReplayOptions,
    stop: CancellationToken,
    tell: &mut (dyn FnMut(Replayed) + Send),
) -> Result<Replayed, AuditError> {
    let place = place.into();
    let (loaded, mut events) = mpsc::channel(AHEAD);
    let ReplayOptions { selection, speed, prefix } = options;
    let reading = tokio::task::spawn_blocking(move || {
        // whoever ends it drops the receiver
        read_while(place, &selection, &|| !loaded.is_closed(), &mut |_, _| (), &mut |_| (), &mut |entry| {
            let next = load(entry, &prefix)?;
            // nobody wants more
            let sent = loaded.blocking_send(next);
            Ok(if sent.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })
    });
    let mut clock = Clock { speed, began: None };
    let mut done = Replayed { events: 0, time: None };
    let mut waiting: VecDeque<BoxFuture<'_, Result<(), AuditError>>> = VecDeque::new();
    while let Some(next) = stop.run_until_cancelled(events.recv()).await.flatten() {
        if stop.run_until_cancelled(clock.wait_for(next.time)).await.is_none() {
            break;
        }
        let offered = connection.offer(&next.topic, Payload::Json(next.data), None);
        let Some(receipt) = stop.run_until_cancelled(offered).await.transpose()? else { break };
        waiting.push_back(Box::pin(async move { Ok(receipt.await.map(drop)?) }));
        done = Replayed { events: done.events + 1, time: next.time.or(done.time) };
        tell(done);
        if waiting.len() >= AHEAD
            && let Some(first) = waiting.front_mut()
        {
            let Some(receipt) = stop.run_until_cancelled(first).await else { break };
            receipt?;
            waiting.pop_front();
        }
    }
    // a server that is away keeps nobody from ending
    let mut patience = pin!(async {
        stop.cancelled().await;
        tokio::time::sleep(LAST_WORD).await;
    });
    while let Some(first) = waiting.front_mut() {
        tokio::select! {
            biased;
            receipt = first => {
                receipt?;
                waiting.pop_front();
            }
            () = &mut patience => break,
        }
    }
    done.events -= waiting.len() as u64;
    drop(events);
    reading.await.map_err(|e| AuditError::Reader(e.into()))??;
    Ok(done)
}

fn load(entry: &Entry<'_>, prefix: &Topic) -> Result<Loaded, AuditError> {
    let topic = entry.topic();
    let unfit = |reason: String| AuditError::Unfit { topic: topic.clone(), reason };
    let beneath = format!("{prefix}/{topic}").parse().map_err(|e| unfit(format!("below {prefix}: {e}")))?;
    let data = entry.data.ok_or_else(|| unfit("it has no data".into()))?;
    Ok(Loaded { topic: beneath, time: entry.time, data: data.to_owned() })
}

/// Maps the time of events to that of this run.
struct Clock {
    speed: Option<f64>,
    began: Option<(Instant, Timestamp)>,
}

impl Clock {
    async fn wait_for(&mut self, time: Option<Timestamp>) {
        let (Some(speed), Some(time)) = (self.speed, time) else { return };
        let (began, first) = *self.began.get_or_insert_with(|| (Instant::now(), time));
        let seconds = time.duration_since(first).as_secs_f64().max(0.0) / speed;
        if let Ok(after) = Duration::try_from_secs_f64(seconds)
            && let Some(due) = began.checked_add(after)
        {
            tokio::time::sleep_until(due).await;
        }
    }
}
