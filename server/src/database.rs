//! The database as handlers see it: there, or not there yet.
//!
//! A node starts without its database and comes whole when it appears. Until then the bus works for all that is not
//! durable, and whatever needs the store is answered 503.

use async_trait::async_trait;
use minium_bus::{Bounds, Draft, History, HistoryError, Page};
use minium_notifier::{Journal, StoreSlot};
use minium_protocol::{ErrorCode, Filter, Position, Problem};
use minium_queue::Store;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

/// A database that does not answer a ping within this is not there.
const PING_TIMEOUT: Duration = Duration::from_secs(2);
/// What a ping brought is told to whoever asks within this.
const PULSE_LIFE: Duration = Duration::from_secs(1);

/// A database that is there.
#[derive(Clone)]
pub(crate) struct Open {
    /// The queue.
    pub(crate) store: Arc<dyn Store>,
    /// The journal itself.
    pub(crate) journal: Journal,
    /// The journal, read.
    pub(crate) history: Arc<dyn History>,
    /// Is the journal being relayed to the bus?
    pub(crate) relaying: Arc<dyn Fn() -> bool + Send + Sync>,
}

#[derive(Clone)]
enum State {
    /// Not opened yet, and why not.
    Awaited(Arc<str>),
    Open(Open),
}

/// It is not there. Why not is for the operator, in the log and in `/readyz`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Missing;

impl From<Missing> for Problem {
    fn from(_: Missing) -> Problem {
        Problem::new(ErrorCode::Unavailable, "the database is not available yet")
    }
}

/// What handlers hold. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Database {
    state: watch::Receiver<State>,
    store: StoreSlot,
    pulse: Arc<Pulse>,
}

/// What the node holds, to say how it stands.
pub(crate) struct Door {
    state: watch::Sender<State>,
    store: watch::Sender<Option<Arc<dyn Store>>>,
}

/// A database that is not there yet.
pub(crate) fn awaited() -> (Door, Database) {
    let (state, seen) = watch::channel(State::Awaited("it has not been opened yet".into()));
    let (store, slot) = watch::channel(None);
    (Door { state, store }, Database { state: seen, store: slot, pulse: Arc::new(Pulse::new()) })
}

impl Door {
    /// It was tried in vain.
    pub(crate) fn refused(&self, why: &str) {
        self.state.send_replace(State::Awaited(why.into()));
    }

    /// It is there.
    pub(crate) fn opened(&self, open: Open) {
        self.store.send_replace(Some(open.store.clone()));
        self.state.send_replace(State::Open(open));
    }
}

impl Database {
    /// Everything about it.
    pub(crate) fn open(&self) -> Result<Open, Missing> {
        match &*self.state.borrow() {
            State::Open(open) => Ok(open.clone()),
            State::Awaited(_) => Err(Missing),
        }
    }

    /// The queue, to be waited for.
    pub(crate) fn store_slot(&self) -> StoreSlot {
        self.store.clone()
    }

    /// The queue.
    pub(crate) fn store(&self) -> Result<Arc<dyn Store>, Missing> {
        self.open().map(|open| open.store)
    }

    /// Is it there now? Else why not, without what a database's own words might give away.
    pub(crate) async fn check(&self) -> Result<(), String> {
        let open = match &*self.state.borrow() {
            State::Open(open) => open.clone(),
            State::Awaited(why) => return Err(why.to_string()),
        };
        let ping = async {
            match tokio::time::timeout(PING_TIMEOUT, open.store.ping()).await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err("the database does not answer".into()),
            }
        };
        // where something else is down, what was well a moment ago may be so no more
        let life = if (open.relaying)() { PULSE_LIFE } else { Duration::ZERO };
        self.pulse.feel(ping, life).await
    }

    /// Does what is durable reach the bus?
    pub(crate) fn is_relaying(&self) -> bool {
        let open = match &*self.state.borrow() {
            State::Open(open) => open.clone(),
            State::Awaited(_) => return false,
        };
        (open.relaying)()
    }
}

/// How the database is, asked by one for all: whoever may ask may do so as often as he likes, and each question takes one
/// of the few connections that everything else needs.
struct Pulse {
    /// Whoever has it asks.
    turn: Semaphore,
    last: Mutex<Option<(Instant, Result<(), String>)>>,
}

impl Pulse {
    fn new() -> Pulse {
        Pulse { turn: Semaphore::new(1), last: Mutex::default() }
    }

    fn last(&self) -> MutexGuard<'_, Option<(Instant, Result<(), String>)>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was heard after `since`, or so short a time ago that it counts.
    fn heard(&self, since: Instant, life: Duration) -> Option<Result<(), String>> {
        let last = self.last();
        let (at, answer) = last.as_ref()?;
        (*at >= since || at.elapsed() < life).then(|| answer.clone())
    }

    /// The answer of `ping`, or the one that somebody else has just got.
    async fn feel(
        &self,
        ping: impl Future<Output = Result<(), String>>,
        life: Duration,
    ) -> Result<(), String> {
        let came = Instant::now();
        if let Some(answer) = self.heard(came, life) {
            return answer;
        }
        // never closed
        let _turn = self.turn.acquire().await;
        if let Some(answer) = self.heard(came, life) {
            return answer;
        }
        let answer = ping.await;
        *self.last() = Some((Instant::now(), answer.clone()));
        answer
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let open = matches!(&*self.state.borrow(), State::Open(_));
        f.debug_struct("Database").field("open", &open).finish_non_exhaustive()
    }
}

impl Database {
    fn history(&self) -> Result<Arc<dyn History>, HistoryError> {
        self.open()
            .map(|open| open.history)
            .map_err(|_| HistoryError::Unavailable("the database is not there yet".into()))
    }
}

/// The bus is started before the database is there, and reads history once it is.
#[async_trait]
impl History for Database {
    async fn bounds(&self, filter: &Filter) -> Result<Bounds, HistoryError> {
        self.history()?.bounds(filter).await
    }

    async fn read(
        &self,
        filter: &Filter,
        after: u64,
        to: u64,
        count_max: u32,
        bytes_max: usize,
    ) -> Result<Page, HistoryError> {
        self.history()?.read(filter, after, to, count_max, bytes_max).await
    }

    async fn before_last(&self, filter: &Filter, count: u32) -> Result<u64, HistoryError> {
        self.history()?.before_last(filter, count).await
    }

    async fn keep(&self, drafts: Vec<Draft>) -> Result<Vec<Position>, Problem> {
        self.open()?.history.keep(drafts).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::Notify;

    /// However many ask at once, and whatever becomes of them, one question is under way.
    #[tokio::test]
    async fn one_asks_for_all() {
        // nothing is remembered beyond those who wait
        let pulse = Pulse::new();
        let (asked, answer) = (AtomicUsize::new(0), Notify::new());
        let ask = || {
            let ping = async {
                asked.fetch_add(1, Ordering::SeqCst);
                answer.notified().await;
                Err("away".into())
            };
            pulse.feel(ping, Duration::ZERO)
        };
        let mut first = Box::pin(ask());
        assert!(futures::poll!(&mut first).is_pending());
        let mut all = futures::future::join_all((0..100).map(|_| ask()));
        assert!(futures::poll!(&mut all).is_pending());
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        // who has asked goes away: another one asks in his place
        drop(first);
        assert!(futures::poll!(&mut all).is_pending());
        answer.notify_one();
        let answers = all.await;
        assert_eq!(asked.load(Ordering::SeqCst), 2);
        assert!(answers.iter().all(|a| a.as_ref().is_err_and(|why| why == "away")));
        answer.notify_one();
        ask().await.unwrap_err();
        assert_eq!(asked.load(Ordering::SeqCst), 3, "it is over, so it is asked anew");
    }

    #[tokio::test]
    async fn an_answer_counts_for_a_while() {
        let (pulse, day) = (Pulse::new(), Duration::from_secs(86_400));
        pulse.feel(async { Ok(()) }, day).await.unwrap();
        pulse.feel(async { Err("nobody asks".into()) }, day).await.unwrap();
        pulse.feel(async { Err("away".into()) }, Duration::ZERO).await.unwrap_err();
    }
}
