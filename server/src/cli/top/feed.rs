//! What a node says by itself and what it is asked for, as news for the model. Two tasks; both end with their reader.

use super::look::{Look, text};
use super::model::{EventRow, News, Stream};
use crate::cli::remote::explained;
use futures::StreamExt;
use minium_client::{Client, ClientError, ConnectOptions, Event, Received, State, TaskEvent};
use minium_protocol::{After, EventType, Filter};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Events of the past that are shown at the start.
const PAST: u32 = 100;
/// After a stream that ended.
const PAUSE: Duration = Duration::from_secs(2);

/// Looks at the node again and again, `every` so often and never twice at once. It has been looked at just now.
pub(super) async fn look(client: Client, every: Duration, news: mpsc::Sender<News>) {
    tokio::time::sleep(every).await;
    loop {
        let begun = Instant::now();
        let word = match Look::take(&client).await {
            Ok(look) => News::Look(Box::new(look)),
            Err(error) => News::Away(text(&error.to_string())),
        };
        if news.send(word).await.is_err() {
            return;
        }
        // a node that is slow to answer is not asked more than half of the time
        let took = begun.elapsed();
        tokio::time::sleep(every.saturating_sub(took).max(took)).await;
    }
}

/// Follows the task events, over cuts and restarts.
pub(super) async fn listen(client: Client, news: mpsc::Sender<News>) {
    loop {
        let ended = match follow(&client, &news).await {
            Ok(()) => return,
            Err(error) => Stream::Shut(text(&explained(&error).to_string())),
        };
        if news.send(News::Stream(ended)).await.is_err() {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// `Ok` when nobody takes the news any more.
async fn follow(client: &Client, news: &mpsc::Sender<News>) -> Result<(), ClientError> {
    let connection = client.connect(ConnectOptions::default())?;
    let filter: Filter = "task".parse().expect("this is a filter");
    let mut events = connection.subscribe(&filter, After::Last(PAST)).await?;
    if news.send(News::Stream(Stream::Opening)).await.is_err() {
        return Ok(());
    }
    let mut state = connection.state();
    let mut live = false;
    loop {
        let event = tokio::select! {
            biased;
            changed = state.changed() => {
                if changed.is_err() {
                    return Err(ClientError::ClientClosed);
                }
                let word = match &*state.borrow_and_update() {
                    State::Connecting { last: Some(why), .. } => Stream::Shut(text(why)),
                    State::Open { .. } => Stream::Live,
                    State::Connecting { .. } | State::Idle | State::Ended => continue,
                };
                if news.send(News::Stream(word)).await.is_err() {
                    return Ok(());
                }
                continue;
            }
            event = events.next() => event,
        };
        match event {
            None => return Err(ClientError::ClientClosed),
            Some(Err(error)) => return Err(error),
            Some(Ok(Event::Lost(_))) => events.begin(After::Latest).await?,
            Some(Ok(Event::CaughtUp { .. })) => {
                live = true;
                if news.send(News::Stream(Stream::Live)).await.is_err() {
                    return Ok(());
                }
            }
            Some(Ok(Event::Message(message))) => {
                let Some(word) = event_of(&message, live) else { continue };
                if news.send(word).await.is_err() {
                    return Ok(());
                }
            }
            Some(Ok(_)) => {}
        }
    }
}

/// An event as a line. One that cannot be read is passed over: a newer node may say more than this program knows.
fn event_of(message: &Received, live: bool) -> Option<News> {
    let TaskEvent { kind, time, job, .. } = message.task_event().ok()??;
    let span = |from: Option<jiff::Timestamp>, to: Option<jiff::Timestamp>| {
        Some(to?.duration_since(from?).as_secs_f64().max(0.0))
    };
    let ready = job.retried.map_or(job.delayed, |retried| retried.max(job.delayed));
    let wait = (kind == EventType::Dequeue).then(|| span(Some(ready), job.started)).flatten();
    let ended = matches!(kind, EventType::Finished | EventType::Failed);
    let run = ended.then(|| span(job.started, job.finished.or(time))).flatten();
    let gist = match kind {
        EventType::Failed | EventType::Lost | EventType::Retry => job.error.clone().unwrap_or_default(),
        EventType::Dequeue => job.worker.as_ref().map_or_else(String::new, |worker| worker.host.clone()),
        EventType::Progress => job.progress.as_ref().map_or_else(String::new, |progress| {
            let words = progress.text.as_deref().unwrap_or("");
            format!("{} % {words}", progress.percent)
        }),
        EventType::Finished => {
            job.result.as_ref().map_or_else(String::new, |result| crate::cli::output::one_line(result.get()))
        }
        _ => crate::cli::output::one_line(job.args.get()),
    };
    let what = kind.as_str().strip_prefix("task.").unwrap_or(kind.as_str());
    let row = EventRow {
        at: time,
        what,
        job: job.id,
        task: text(&job.task),
        queue: text(&job.queue),
        gist: text(&gist),
    };
    Some(News::Event { row, live, wait, run })
}
