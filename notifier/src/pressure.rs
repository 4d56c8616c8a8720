//! Looks how far this node is behind the journal, tells it by metrics, and asks for fewer claims while it is too far (ADR 0013).
//!
//! A task of its own with connections of the pool: a relay that stands still, whatever holds it, cannot tell that it does. What
//! it looks at is everything that is not on this node's bus: entries that nobody has numbered yet, and those whose numbers it
//! has not relayed.

use crate::journal::{JournalStore, Lag};
use crate::metrics;
use crate::relay::RelayState;
use minium_queue::{Pressure, Store};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Bounds of what may wait for the relay, with defaults.
#[derive(Debug, Clone)]
pub struct LagOptions {
    /// When more entries wait, claims are slowed.
    pub events_max: u64,
    /// When the oldest has waited longer, they are, too.
    pub age_max: Duration,
    /// Between two looks.
    pub interval: Duration,
}

impl Default for LagOptions {
    fn default() -> LagOptions {
        LagOptions { events_max: 100_000, age_max: Duration::from_secs(30), interval: Duration::from_secs(1) }
    }
}

/// What is said about this node: pure.
#[derive(Debug, Default, Clone, Copy)]
struct Judge {
    /// The last look found it beyond a bound.
    beyond: bool,
    said: Option<Pressure>,
}

impl Judge {
    /// Twice in a row beyond a bound is too far: a batch that was committed this moment is none. It is well again below half of
    /// each bound.
    fn look(&mut self, lag: Lag, options: &LagOptions) -> Option<Pressure> {
        let beyond = lag.events > options.events_max || lag.age > options.age_max;
        let well = lag.events <= options.events_max / 2 && lag.age <= options.age_max / 2;
        let again = std::mem::replace(&mut self.beyond, beyond);
        self.said = match self.said {
            _ if beyond && (again || self.said.is_some()) => Some(Pressure::Rising),
            Some(_) if !well => Some(Pressure::Easing),
            Some(_) | None => None,
        };
        self.said
    }
}

/// Looks until it is told to stop.
pub(crate) async fn watch(
    journal: Arc<dyn JournalStore>,
    queue: Arc<dyn Store>,
    options: LagOptions,
    state: watch::Receiver<RelayState>,
    stop: CancellationToken,
) {
    let node = Uuid::new_v4();
    let (mut judge, mut relayed) = (Judge::default(), None);
    let looks = async {
        loop {
            tokio::time::sleep(options.interval).await;
            if let RelayState::Relaying(position) = *state.borrow() {
                relayed = Some(position.offset);
            }
            // who cannot look says nothing: what it said before counts for a few seconds, and the database is down anyway
            let Ok(lag) = journal.lag(relayed, options.events_max.saturating_add(1)).await else { continue };
            ::metrics::gauge!(metrics::JOURNAL_LAG_EVENTS).set(lag.events as f64);
            ::metrics::gauge!(metrics::JOURNAL_LAG_SECONDS).set(lag.age.as_secs_f64());
            let before = judge.said;
            let now = judge.look(lag, &options);
            tell(before, now, lag);
            if (before.is_some() || now.is_some())
                && let Err(error) = queue.press(node, now).await
            {
                tracing::debug!(%error, "It could not be told how far the journal is relayed.");
            }
        }
    };
    stop.run_until_cancelled(looks).await;
    if judge.said.is_some() {
        // else it counts for a few seconds more
        queue.press(node, None).await.ok();
    }
}

fn tell(before: Option<Pressure>, now: Option<Pressure>, lag: Lag) {
    let (events, age_seconds) = (lag.events, lag.age.as_secs_f64());
    ::metrics::gauge!(metrics::RELAY_BEHIND).set(u32::from(now.is_some()));
    match (before.is_some(), now.is_some()) {
        (false, true) => {
            tracing::warn!(
                events,
                age_seconds,
                "This node cannot follow the journal; claims are slowed until it does."
            );
        }
        (true, false) => tracing::info!(events, age_seconds, "This node follows the journal again."),
        (true, true) | (false, false) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lag(events: u64, seconds: u64) -> Lag {
        Lag { events, age: Duration::from_secs(seconds) }
    }

    #[test]
    fn it_is_said_from_the_second_look_beyond_a_bound_until_half_of_both() {
        let options =
            LagOptions { events_max: 100, age_max: Duration::from_secs(10), ..LagOptions::default() };
        let mut judge = Judge::default();
        let looks = [
            (lag(101, 0), None),
            (lag(0, 0), None),
            (lag(0, 11), None),
            (lag(500, 0), Some(Pressure::Rising)),
            (lag(60, 0), Some(Pressure::Easing)),
            (lag(101, 0), Some(Pressure::Rising)),
            (lag(0, 6), Some(Pressure::Easing)),
            (lag(50, 5), None),
            (lag(60, 6), None),
        ];
        for (n, (lag, said)) in looks.into_iter().enumerate() {
            assert_eq!(judge.look(lag, &options), said, "look {n}");
        }
    }
}
