//! How the queue stands, looked up when somebody scrapes.
//!
//! One look serves all who ask within some seconds, so that scrapes cost the database the same however many there are. Without
//! an answer of the database there are no such figures at all: old ones would tell a depth that nobody knows. The names of
//! queues are as bounded as those of the counters are, and one that was seen stays, so that an empty queue is told as empty.

use super::text::Text;
use crate::database::Database;
use minium_queue::{QueueError, QueueView, QueueWait, Stats, Store};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tracing::debug;

/// What was looked up is told to whoever asks within this.
const LIFE: Duration = Duration::from_secs(5);
/// A scrape waits no longer than this for the database.
const PATIENCE: Duration = Duration::from_secs(2);
/// So many names of queues become labels.
const NAMES_MAX: usize = 200;
/// The label of all other names.
const OTHER: &str = "other";

const JOBS: &str = "minium_queue_jobs";
const WAITING: &str = "minium_queue_jobs_waiting";
const READY: &str = "minium_queue_jobs_ready";
const OLDEST: &str = "minium_queue_oldest_ready_seconds";
const PAUSED: &str = "minium_queue_paused";
const WORKERS: &str = "minium_queue_workers";
const LOCKS: &str = "minium_queue_locks_held";
const SCHEDULES: &str = "minium_queue_schedules";

/// What is told of one queue.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Queue {
    ready: i64,
    oldest_seconds: f64,
    paused: bool,
}

/// The figures as they were last looked up.
#[derive(Debug)]
pub(crate) struct Figures {
    /// Whoever has it looks.
    turn: Semaphore,
    last: Mutex<Option<(Instant, Arc<str>)>>,
    names: Mutex<BTreeMap<String, Queue>>,
}

impl Figures {
    pub(crate) fn new() -> Figures {
        Figures { turn: Semaphore::new(1), last: Mutex::default(), names: Mutex::default() }
    }

    /// As lines for Prometheus; none without the database.
    pub(super) async fn text(&self, database: &Database) -> Arc<str> {
        let Ok(store) = database.store() else { return "".into() };
        // never closed
        let _turn = self.turn.acquire().await;
        let fresh = self.last().as_ref().filter(|(at, _)| at.elapsed() < LIFE).map(|(_, text)| text.clone());
        if let Some(text) = fresh {
            return text;
        }
        let text: Arc<str> = match timeout(PATIENCE, look(&*store)).await {
            Ok(Ok((stats, queues, waits))) => self.lines(&stats, &queues, &waits).into(),
            Ok(Err(error)) => {
                debug!(%error, "The figures for a scrape could not be read.");
                "".into()
            }
            Err(_) => "".into(),
        };
        // nothing is remembered as well: a database that does not answer is not asked again at once
        *self.last() = Some((Instant::now(), text.clone()));
        text
    }

    fn last(&self) -> MutexGuard<'_, Option<(Instant, Arc<str>)>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lines(&self, stats: &Stats, queues: &[QueueView], waits: &[QueueWait]) -> String {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        note(&mut names, queues, waits);
        let mut text = Text::default();
        tell_stats(&mut text, stats);
        tell_queues(&mut text, &names);
        text.into_string()
    }
}

type Looked = (Stats, Vec<QueueView>, Vec<QueueWait>);

async fn look(store: &dyn Store) -> Result<Looked, QueueError> {
    store.tell_figures();
    Ok((store.stats().await?, store.queues().await?, store.queue_waits().await?))
}

/// Takes over what was seen; what was not is empty.
fn note(names: &mut BTreeMap<String, Queue>, queues: &[QueueView], waits: &[QueueWait]) {
    names.values_mut().for_each(|queue| *queue = Queue::default());
    for view in queues {
        let queue = entry(names, &view.name);
        queue.ready += view.ready;
        queue.paused |= view.paused.is_some();
    }
    for wait in waits {
        let queue = entry(names, &wait.name);
        queue.oldest_seconds = queue.oldest_seconds.max(wait.waited.as_secs_f64());
    }
}

fn entry<'a>(names: &'a mut BTreeMap<String, Queue>, name: &str) -> &'a mut Queue {
    let label = if names.contains_key(name) || names.len() < NAMES_MAX { name } else { OTHER };
    names.entry(label.to_owned()).or_default()
}

fn tell_stats(text: &mut Text, stats: &Stats) {
    text.family(JOBS, "gauge", "Jobs by state.");
    for (state, n) in [
        ("inactive", stats.inactive),
        ("active", stats.active),
        ("finished", stats.finished),
        ("failed", stats.failed),
        ("cancelled", stats.cancelled),
    ] {
        text.sample(JOBS, &[("state", state)], n);
    }
    text.family(WAITING, "gauge", "Inactive jobs by what they wait for.");
    let ready = (stats.inactive - stats.delayed - stats.blocked).max(0);
    for (phase, n) in [("ready", ready), ("delayed", stats.delayed), ("blocked", stats.blocked)] {
        text.sample(WAITING, &[("phase", phase)], n);
    }
    text.family(
        WORKERS,
        "gauge",
        "Workers that are known, by whether they run jobs and were heard of lately; own do a node's own tasks alone.",
    );
    for (state, n) in [
        ("active", stats.active_workers),
        ("inactive", stats.inactive_workers),
        ("stale", stats.stale_workers),
        ("own", stats.own_workers),
    ] {
        text.sample(WORKERS, &[("state", state)], n);
    }
    text.single(LOCKS, "gauge", "Holds of named locks.", stats.active_locks);
    text.family(SCHEDULES, "gauge", "Schedules.");
    for (state, n) in
        [("active", stats.schedules - stats.inactive_schedules), ("paused", stats.inactive_schedules)]
    {
        text.sample(SCHEDULES, &[("state", state)], n);
    }
}

fn tell_queues(text: &mut Text, names: &BTreeMap<String, Queue>) {
    text.family(READY, "gauge", "Jobs that could be claimed at once, counted up to 10000.");
    names.iter().for_each(|(name, queue)| text.sample(READY, &[("queue", name)], queue.ready));
    text.family(OLDEST, "gauge", "How long the job that waits longest could have been claimed.");
    names.iter().for_each(|(name, queue)| text.sample(OLDEST, &[("queue", name)], queue.oldest_seconds));
    text.family(PAUSED, "gauge", "1 while nothing is claimed from the queue.");
    names.iter().for_each(|(name, queue)| text.sample(PAUSED, &[("queue", name)], u8::from(queue.paused)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(name: &str, ready: i64) -> QueueView {
        QueueView { name: name.to_owned(), paused: None, ready }
    }

    #[test]
    fn a_queue_that_was_seen_is_told_as_empty_and_names_are_bounded() {
        let mut names = BTreeMap::new();
        let wait = |name: &str, secs| QueueWait { name: name.to_owned(), waited: Duration::from_secs(secs) };
        note(&mut names, &[view("a", 3)], &[wait("a", 9)]);
        assert_eq!(names["a"], Queue { ready: 3, oldest_seconds: 9.0, paused: false });
        note(&mut names, &[], &[]);
        assert_eq!(names["a"], Queue::default());
        let many: Vec<QueueView> = (0..300).map(|n| view(&format!("q{n}"), 2)).collect();
        note(&mut names, &many, &[wait("q298", 5), wait("q299", 7)]);
        assert_eq!((names.len(), names["q0"].ready), (NAMES_MAX + 1, 2));
        assert_eq!(names[OTHER], Queue { ready: 2 * 101, oldest_seconds: 7.0, paused: false });
    }
}
