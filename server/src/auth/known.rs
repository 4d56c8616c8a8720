//! Tokens that were found good a moment ago: not checked again for each request, and each with what is left of its
//! rate. Only good tokens come in here, so nobody fills it without one.

use jiff::Timestamp;
use minium_bus::{Allowance, Grant};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Tokens that are remembered. Beyond, the oldest half is forgotten, and checked again when it comes.
const KNOWN_MAX: usize = 8_192;

type Digest = [u8; 32];

#[derive(Debug)]
struct Entry {
    grant: Arc<Grant>,
    /// Good until then.
    until: Timestamp,
    /// The state of the keys under which it was found good.
    generation: u64,
    /// Goes up with each entry.
    age: u64,
}

/// What is remembered.
#[derive(Debug, Default)]
pub(super) struct Known(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    entries: HashMap<Digest, Entry>,
    ages: u64,
}

impl Known {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The grant of a token, if it is good now and no key has changed since.
    pub(super) fn get(&self, digest: &Digest, generation: u64, now: Timestamp) -> Option<Arc<Grant>> {
        let state = self.lock();
        let entry = state.entries.get(digest)?;
        (entry.generation == generation && now < entry.until).then(|| entry.grant.clone())
    }

    /// What is left of a token's rate.
    pub(super) fn allowance(&self, digest: &Digest) -> Option<Arc<Allowance>> {
        self.lock().entries.get(digest).and_then(|entry| entry.grant.allowance.clone())
    }

    /// Remembers a good token.
    pub(super) fn put(
        &self,
        digest: Digest,
        grant: Arc<Grant>,
        until: Timestamp,
        generation: u64,
        now: Timestamp,
    ) {
        let mut state = self.lock();
        if state.entries.len() >= KNOWN_MAX && !state.entries.contains_key(&digest) {
            state.entries.retain(|_, entry| now < entry.until);
        }
        if state.entries.len() >= KNOWN_MAX {
            let mut ages: Vec<u64> = state.entries.values().map(|entry| entry.age).collect();
            let (_, middle, _) = ages.select_nth_unstable(KNOWN_MAX / 2);
            let middle = *middle;
            state.entries.retain(|_, entry| entry.age >= middle);
        }
        state.ages += 1;
        let age = state.ages;
        state.entries.insert(digest, Entry { grant, until, generation, age });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use minium_protocol::Scopes;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn digest(n: usize) -> Digest {
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&n.to_le_bytes());
        digest
    }

    fn grant() -> Arc<Grant> {
        let scopes = Scopes::default();
        Arc::new(Grant { subject: "s".into(), key: None, scopes, expires: None, allowance: None })
    }

    #[test]
    fn a_token_is_good_until_it_ends_or_a_key_changes() {
        let known = Known::default();
        known.put(digest(1), grant(), at(10), 7, at(0));
        assert!(known.get(&digest(1), 7, at(9)).is_some());
        assert!(known.get(&digest(1), 7, at(10)).is_none());
        assert!(known.get(&digest(1), 8, at(9)).is_none());
        assert!(known.get(&digest(2), 7, at(9)).is_none());
    }

    #[test]
    fn it_does_not_grow_and_forgets_the_old_ones_first() {
        let known = Known::default();
        for n in 0..KNOWN_MAX * 2 {
            known.put(digest(n), grant(), at(10), 0, at(0));
            assert!(known.lock().entries.len() <= KNOWN_MAX);
            assert!(known.get(&digest(n), 0, at(0)).is_some(), "the newest is always there");
        }
        assert!(known.get(&digest(0), 0, at(0)).is_none());
        // what has ended goes before what is good
        let known = Known::default();
        for n in 0..KNOWN_MAX {
            known.put(digest(n), grant(), at(if n == 0 { 100 } else { 10 }), 0, at(0));
        }
        known.put(digest(KNOWN_MAX), grant(), at(100), 0, at(50));
        assert!(known.get(&digest(0), 0, at(50)).is_some());
        assert_eq!(known.lock().entries.len(), 2);
    }
}
