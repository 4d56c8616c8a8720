//! All that shards share: who is interested in what, one inbox for each, the lanes of work, and what never changes.
//!
//! Publishers remember the answer together with the table's generation, so that the table's lock is taken when
//! somebody came or went, not for each message.

use crate::channels::Channels;
use crate::encode::Encoding;
use crate::follow::Follow;
use crate::inbox::Inbox;
use crate::lanes::Lanes;
use crate::latest::Latest;
use crate::options::Options;
use crate::outside::Outside;
use crate::pattern::Pattern;
use crate::routing::Routes;
use crate::schemas::Schemas;
use crate::tally::Tallies;
use jiff::Timestamp;
use minium_protocol::{Position, Topic};
use std::collections::HashMap;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use tokio::sync::Semaphore;

/// Which shards have receivers, for each encoding one bit a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Targets([u64; Encoding::ALL.len()]);

impl Targets {
    /// Shards with a receiver of any kind.
    pub(crate) fn shards(self) -> u64 {
        self.0.iter().fold(0, |a, b| a | b)
    }

    /// Does anybody receive it so?
    pub(crate) fn wants(self, encoding: Encoding) -> bool {
        self.0[encoding as usize] != 0
    }

    /// Does nobody receive it?
    pub(crate) fn is_empty(self) -> bool {
        self == Targets::default()
    }

    fn set(&mut self, encoding: Encoding, shard: usize, live: bool) {
        let bit = 1 << shard;
        let bits = &mut self.0[encoding as usize];
        *bits = if live { *bits | bit } else { *bits & !bit };
    }

    fn add(&mut self, other: &Targets) {
        self.0.iter_mut().zip(other.0).for_each(|(a, b)| *a |= b);
    }
}

#[derive(Debug, Default)]
struct Interest {
    subscribers: Routes<Targets>,
    peers: HashMap<Arc<str>, Targets>,
}

/// Shared by the shards and the handle.
pub(crate) struct Hub {
    pub(crate) options: Arc<Options>,
    pub(crate) schemas: Arc<Schemas>,
    pub(crate) channels: Arc<Channels>,
    pub(crate) outside: Outside,
    pub(crate) inboxes: Vec<Inbox>,
    pub(crate) lanes: Lanes,
    pub(crate) tallies: Tallies,
    /// Room for questions.
    pub(crate) asking: Arc<Semaphore>,
    pub(crate) sessions: AtomicUsize,
    pub(crate) closing: AtomicBool,
    next: AtomicUsize,
    /// Of the session that was opened last.
    session: AtomicU64,
    interest: RwLock<Interest>,
    generation: AtomicU64,
    relayed: Mutex<Option<Position>>,
    latest: Mutex<Latest>,
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub").field("sessions", &self.sessions).finish_non_exhaustive()
    }
}

impl Hub {
    pub(crate) fn new(
        options: Options,
        schemas: Arc<Schemas>,
        channels: Arc<Channels>,
        outside: Outside,
    ) -> Arc<Hub> {
        let latest_bytes_max = options.latest_bytes_max;
        let options = Arc::new(options);
        // what an inbox holds is appended at once: it must not be what makes a ring run over
        let inbox_bytes_max = options.inbox_bytes_max.min(options.ring_bytes_max / 8);
        Arc::new(Hub {
            inboxes: (0..options.shards).map(|_| Inbox::new(inbox_bytes_max)).collect(),
            lanes: Lanes::new(&options),
            tallies: Tallies::new(options.topics_max),
            asking: Arc::new(Semaphore::new(options.lists_max)),
            options,
            schemas,
            channels,
            outside,
            sessions: AtomicUsize::new(0),
            closing: AtomicBool::new(false),
            next: AtomicUsize::new(0),
            session: AtomicU64::new(first_session(Timestamp::now())),
            interest: RwLock::default(),
            generation: AtomicU64::new(1),
            relayed: Mutex::new(None),
            latest: Mutex::new(Latest::new(latest_bytes_max)),
        })
    }

    /// Without schemas, channels, journal or queue.
    #[cfg(test)]
    pub(crate) fn alone(options: Options) -> Arc<Hub> {
        let outside = Outside::new(None, None, None, options.outside_patience);
        Hub::new(options, Arc::new(Schemas::empty()), Arc::default(), outside)
    }

    /// The shard that takes the next session.
    pub(crate) fn next_shard(&self) -> &Inbox {
        let n = self.next.fetch_add(1, Release);
        &self.inboxes[n % self.inboxes.len()]
    }

    /// A number for a session.
    pub(crate) fn next_session(&self) -> u64 {
        self.session.fetch_add(1, Relaxed) + 1
    }

    /// Changes whenever an answer of [`Hub::targets`] may.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Acquire)
    }

    fn interest(&self) -> RwLockReadGuard<'_, Interest> {
        self.interest.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who receives what is sent to a topic: the subscribers whose filters match, or the peers of that very topic.
    pub(crate) fn targets(&self, pattern: Pattern, topic: &Topic) -> Targets {
        let interest = self.interest();
        let mut all = Targets::default();
        match pattern {
            Pattern::Sub => interest.subscribers.matching(topic, |t| all.add(t)),
            Pattern::Bus => interest.peers.get(topic.as_str()).into_iter().for_each(|t| all.add(t)),
            Pattern::Push => {}
        }
        all
    }

    /// The first receiver of a filter in an encoding came to a shard, or its last one left.
    pub(crate) fn set_interest(&self, follow: &Follow, encoding: Encoding, shard: usize, live: bool) {
        let Follow { pattern, filter } = follow;
        let mut interest = self.interest.write().unwrap_or_else(PoisonError::into_inner);
        let targets = match pattern {
            Pattern::Sub => interest.subscribers.entry(filter, Targets::default),
            Pattern::Bus | Pattern::Push => interest.peers.entry(filter.as_str().into()).or_default(),
        };
        targets.set(encoding, shard, live);
        if targets.is_empty() {
            match pattern {
                Pattern::Sub => interest.subscribers.remove(filter),
                Pattern::Bus | Pattern::Push => _ = interest.peers.remove(filter.as_str()),
            }
        }
        drop(interest);
        self.generation.fetch_add(1, Release);
    }

    /// Filters and topics that somebody receives.
    pub(crate) fn channels(&self) -> usize {
        let interest = self.interest();
        interest.subscribers.len() + interest.peers.len() + self.lanes.len()
    }

    /// Their names, at most `max`.
    pub(crate) fn channel_names(&self, max: usize) -> Vec<(Pattern, String)> {
        let interest = self.interest();
        let subscribers = interest.subscribers.iter().map(|(f, _)| (Pattern::Sub, f.to_owned()));
        let peers = interest.peers.keys().map(|t| (Pattern::Bus, t.to_string()));
        let mut names: Vec<_> = subscribers.chain(peers).take(max).collect();
        drop(interest);
        let pullers = self.lanes.names(max - names.len());
        names.extend(pullers.into_iter().map(|t| (Pattern::Push, t)));
        names
    }

    /// Shows the names of topics that somebody receives or that have work waiting, without filters that have a `+`.
    pub(crate) fn topics(&self, mut show: impl FnMut(Pattern, &str)) {
        let interest = self.interest();
        interest.subscribers.fixed().for_each(|topic| show(Pattern::Sub, topic));
        interest.peers.keys().for_each(|topic| show(Pattern::Bus, topic));
        drop(interest);
        self.lanes.each(|topic| show(Pattern::Push, topic));
    }

    /// The last durable messages, known here before any shard has them.
    pub(crate) fn latest(&self) -> MutexGuard<'_, Latest> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How far every shard's inbox has the journal; nothing before the relay began.
    pub(crate) fn relayed(&self) -> Option<Position> {
        *self.relayed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every shard's inbox has the journal up to here now.
    pub(crate) fn set_relayed(&self, position: Position) {
        *self.relayed.lock().unwrap_or_else(PoisonError::into_inner) = Some(position);
    }
}

/// Numbers of sessions begin with the second of the start, so that a number from before a restart names nobody else: a
/// node would have to open a million sessions a second from its start on. (They stay whole numbers in JavaScript, too.)
fn first_session(start: Timestamp) -> u64 {
    u64::try_from(start.as_second()).unwrap_or(0) << 20
}

#[cfg(test)]
mod tests {
    use super::*;
    use minium_protocol::Filter;

    fn hub() -> Arc<Hub> {
        Hub::alone(Options { shards: 3, ..Options::default() })
    }

    #[test]
    fn interest_is_known_by_shard_and_encoding_and_goes_with_the_last_log() {
        let hub = hub();
        let (filter, topic): (Filter, Topic) = ("a/+".parse().unwrap(), "a/b/c".parse().unwrap());
        let before = hub.generation();
        hub.set_interest(&Follow::new(Pattern::Sub, filter.clone()), Encoding::Plain, 2, true);
        hub.set_interest(&Follow::new(Pattern::Sub, "a".parse().unwrap()), Encoding::Sse, 0, true);
        let targets = hub.targets(Pattern::Sub, &topic);
        assert_eq!(targets.shards(), 0b101);
        assert!(targets.wants(Encoding::Plain) && targets.wants(Encoding::Sse));
        assert!(!targets.wants(Encoding::CloudEvents));
        assert!(hub.targets(Pattern::Bus, &topic).is_empty());
        assert_ne!(hub.generation(), before);
        hub.set_interest(&Follow::new(Pattern::Sub, filter.clone()), Encoding::Plain, 2, false);
        hub.set_interest(&Follow::new(Pattern::Sub, "a".parse().unwrap()), Encoding::Sse, 0, false);
        assert!(hub.targets(Pattern::Sub, &topic).is_empty());
        assert_eq!(hub.channels(), 0);
    }

    #[test]
    fn peers_have_no_hierarchy() {
        let hub = hub();
        hub.set_interest(&Follow::new(Pattern::Bus, "a".parse().unwrap()), Encoding::Plain, 1, true);
        assert_eq!(hub.targets(Pattern::Bus, &"a".parse().unwrap()).shards(), 0b10);
        assert!(hub.targets(Pattern::Bus, &"a/b".parse().unwrap()).is_empty());
    }
}
