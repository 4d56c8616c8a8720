//! How fast a recorder is and how late, for the log: told now and then while anything comes, and not at all otherwise.

use jiff::Timestamp;
use minium_protocol::Position;
use std::time::Duration;
use tokio::time::Instant;
use tracing::info;

/// So often it is told how it goes, while anything comes.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// How it goes, for the log.
pub(crate) struct Pace {
    since: Instant,
    events: u64,
    last: Option<(Position, Option<String>)>,
}

impl Pace {
    /// Nothing yet.
    pub(crate) fn new() -> Pace {
        Pace { since: Instant::now(), events: 0, last: None }
    }

    /// A block was written.
    pub(crate) fn note(&mut self, events: u64, position: Position, time: Option<String>) {
        self.events += events;
        self.last = Some((position, time));
    }

    /// Until it is to be told.
    pub(crate) async fn due(&self) {
        match &self.last {
            Some(_) => tokio::time::sleep_until(self.since + TELL_EVERY).await,
            None => std::future::pending().await,
        }
    }

    /// Tells it, and begins anew.
    pub(crate) fn tell(&mut self) {
        let seconds = self.since.elapsed().as_secs_f64();
        if let Some((position, time)) = self.last.take() {
            let time = time.and_then(|t| t.parse::<Timestamp>().ok());
            let lag_seconds = time.map(|t| Timestamp::now().duration_since(t).as_secs_f64().max(0.0));
            let events_per_second = (self.events as f64 / seconds).round();
            info!(%position, events_per_second, lag_seconds, "Recording.");
        }
        *self = Pace::new();
    }
}
