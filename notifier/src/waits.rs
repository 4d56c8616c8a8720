//! Who waits for the number of an entry: publishers whose messages are committed and not numbered yet.
//!
//! The relay brings the numbers as it brings the entries. What it does not bring, because it is down, went ahead, or
//! another node's message was waited for, is looked up by whoever keeps messages ([`Waits::overdue`]).

use crate::journal::Place;
use minium_protocol::Position;
use std::collections::HashMap;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use uuid::Uuid;

/// Entries whose numbers are waited for.
#[derive(Debug, Default)]
pub(crate) struct Waits {
    entries: Mutex<HashMap<Uuid, Wait>>,
    /// How many there are, so that a relay that nobody waits for takes no lock.
    count: AtomicUsize,
    /// Something was committed: whoever numbers need not wait for its next look.
    pub(crate) committed: Notify,
    /// There is somebody who waits.
    pub(crate) some: Notify,
}

#[derive(Debug)]
struct Wait {
    since: Instant,
    /// Known once it is committed.
    place: Option<Place>,
    tell: Vec<oneshot::Sender<Position>>,
}

impl Waits {
    fn entries(&self) -> MutexGuard<'_, HashMap<Uuid, Wait>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of an entry, when it comes. To be called before the entry is committed, or the relay may have passed
    /// it already.
    pub(crate) fn expect(&self, entry: Uuid) -> oneshot::Receiver<Position> {
        let (tell, told) = oneshot::channel();
        let mut entries = self.entries();
        let new = Wait { since: Instant::now(), place: None, tell: Vec::new() };
        entries.entry(entry).or_insert(new).tell.push(tell);
        self.count.store(entries.len(), Release);
        told
    }

    /// It is committed, and waits there.
    pub(crate) fn placed(&self, entry: Uuid, place: Place) {
        if let Some(wait) = self.entries().get_mut(&entry) {
            wait.place = Some(place);
        }
        self.some.notify_one();
    }

    /// It was not written, or it is not known whether it was.
    pub(crate) fn forget(&self, entry: Uuid) {
        let mut entries = self.entries();
        entries.remove(&entry);
        self.count.store(entries.len(), Release);
    }

    /// These have their numbers.
    pub(crate) fn numbered(&self, numbers: impl Iterator<Item = (Uuid, Position)>) {
        if self.count.load(Acquire) == 0 {
            return;
        }
        let mut entries = self.entries();
        for (entry, position) in numbers {
            for tell in entries.remove(&entry).into_iter().flat_map(|wait| wait.tell) {
                // whoever asked may have gone
                tell.send(position).ok();
            }
        }
        self.count.store(entries.len(), Release);
    }

    /// At most `count_max` that are committed and have waited for so long; those for whom nobody waits any more are
    /// dropped.
    pub(crate) fn overdue(&self, waited: Duration, count_max: usize) -> Vec<(Uuid, Place)> {
        let mut entries = self.entries();
        entries.retain(|_, wait| wait.tell.iter().any(|tell| !tell.is_closed()));
        self.count.store(entries.len(), Release);
        let due = |wait: &Wait| wait.place.filter(|_| wait.since.elapsed() >= waited);
        entries.iter().filter_map(|(entry, wait)| Some((*entry, due(wait)?))).take(count_max).collect()
    }

    /// Does nobody wait?
    pub(crate) fn is_empty(&self) -> bool {
        self.count.load(Acquire) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place { seq: 1, behind: 0 };
    const POSITION: Position = Position { epoch: 1, offset: 7 };

    #[tokio::test]
    async fn everybody_who_waits_for_an_entry_is_told_once() {
        let waits = Waits::default();
        let (one, other) = (Uuid::now_v7(), Uuid::now_v7());
        let (first, second, third) = (waits.expect(one), waits.expect(one), waits.expect(other));
        waits.placed(one, PLACE);
        waits.numbered([(one, POSITION), (Uuid::nil(), POSITION)].into_iter());
        assert_eq!((first.await, second.await), (Ok(POSITION), Ok(POSITION)));
        assert!(!waits.is_empty());
        waits.forget(other);
        assert!(waits.is_empty() && third.await.is_err());
    }

    #[tokio::test]
    async fn only_what_is_committed_and_still_waited_for_is_looked_up() {
        let waits = Waits::default();
        let (one, two, gone) = (Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7());
        let kept = (waits.expect(one), waits.expect(two));
        waits.placed(one, PLACE);
        drop(waits.expect(gone));
        waits.placed(gone, PLACE);
        assert_eq!(waits.overdue(Duration::ZERO, 10), [(one, PLACE)]);
        assert_eq!(waits.overdue(Duration::from_secs(60), 10), []);
        assert_eq!(waits.overdue(Duration::ZERO, 0), []);
        drop(kept);
        assert_eq!(waits.overdue(Duration::ZERO, 10), []);
        assert!(waits.is_empty());
    }
}
