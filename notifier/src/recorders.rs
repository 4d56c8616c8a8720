//! Who archives the journal, and how far each has it: what a recorder has not confirmed stays, up to a limit.
//!
//! A recorder says up to which offset everything that it follows is on its disk. Retention keeps what lies behind that
//! for as long as each channel's [`Hold`] goes beyond what it keeps anyhow. What is beyond that too is let go of, and
//! told loudly: a recorder that never comes back must not fill the database.

use crate::error::NotifierError;
use crate::journal::Journal;
use crate::retention::Retention;
use jiff::Timestamp;
use minium_protocol::{Filter, Position};
use std::time::Duration;

/// More recorders than this are not registered at one time.
pub const RECORDERS_MAX: u32 = 100;

/// No more of them by one owner, where there are owners: so that none can leave the others without.
pub const RECORDERS_OF_ONE_MAX: u32 = 20;

/// How much more than its retention a channel keeps for those who have not confirmed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// So much older may an entry become.
    pub age: Duration,
    /// So many more entries are kept.
    pub count: u64,
    /// So many more bytes are kept, of a channel whose retention bounds its bytes.
    pub bytes: u64,
}

impl Default for Hold {
    /// 30 days, a million entries, 10 GiB.
    fn default() -> Hold {
        Hold { age: Duration::from_secs(30 * 86_400), count: 1_000_000, bytes: 10 << 30 }
    }
}

impl Hold {
    /// For a journal in memory: 100,000 entries.
    pub fn in_memory() -> Hold {
        Hold { count: 100_000, ..Hold::default() }
    }

    /// What a channel keeps at most, whoever has not confirmed it.
    pub(crate) fn beyond(&self, usual: &Retention) -> Retention {
        Retention {
            age: usual.age.saturating_add(self.age),
            count: usual.count.saturating_add(self.count),
            bytes: usual.bytes.saturating_add(self.bytes),
        }
    }
}

/// A recorder as the journal knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorder {
    /// Its name, which is its own.
    pub name: String,
    /// Who registered it; empty where nobody needs a token.
    pub owner: String,
    /// What it follows.
    pub topics: Vec<Filter>,
    /// Everything up to here that they match is on its disk.
    pub offset: u64,
    /// When it was first heard of.
    pub registered: Timestamp,
    /// When it was last heard of.
    pub confirmed: Timestamp,
    /// How long ago that was, by the database's clock.
    pub silence: Duration,
}

/// What a recorder says.
#[derive(Debug, Clone)]
pub struct Confirmation {
    /// Its name.
    pub name: String,
    /// Who says it.
    pub owner: String,
    /// May it be said for a recorder that somebody else registered?
    pub for_anyone: bool,
    /// What it follows.
    pub topics: Vec<Filter>,
    /// How far it is.
    pub position: Position,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Confirmed {
    /// It was not known before.
    New,
    /// It is where it said it is.
    Known,
    /// The position is one of another epoch; nothing has changed.
    OtherEpoch,
    /// No entry has that offset yet; nothing has changed.
    Ahead,
    /// The name is somebody else's; nothing has changed.
    Foreign,
    /// There are [`RECORDERS_MAX`] already, or [`RECORDERS_OF_ONE_MAX`] by its owner; nothing has changed.
    TooMany,
}

impl Journal {
    /// Registers a recorder, or moves it to where it is now. It may go back: an archive that was lost begins anew.
    ///
    /// # Errors
    /// When the database is not there, or fails.
    pub async fn confirm(&self, confirmation: &Confirmation) -> Result<Confirmed, NotifierError> {
        self.store.confirm(confirmation).await
    }

    /// All recorders, by name.
    ///
    /// # Errors
    /// When the database is not there, or fails.
    pub async fn recorders(&self) -> Result<Vec<Recorder>, NotifierError> {
        self.store.recorders().await
    }

    /// Nothing is kept for it any more. Answers whether it was known.
    ///
    /// # Errors
    /// When the database is not there, or fails.
    pub async fn forget_recorder(&self, name: &str) -> Result<bool, NotifierError> {
        self.store.forget_recorder(name).await
    }
}

/// How far all those have a channel who follow anything that may be in it; nothing when nobody does. The empty prefix
/// is what belongs to no channel, and may be anything.
pub(crate) fn confirmed_of(prefix: &str, recorders: &[Recorder]) -> Option<u64> {
    let channel: Option<Filter> = prefix.parse().ok();
    let follows = |recorder: &&Recorder| match &channel {
        Some(channel) => recorder.topics.iter().any(|topic| topic.meets(channel)),
        None => true,
    };
    recorders.iter().filter(follows).map(|recorder| recorder.offset).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorder(topics: &[&str], offset: u64) -> Recorder {
        Recorder {
            name: "r".into(),
            owner: String::new(),
            topics: topics.iter().map(|topic| topic.parse().unwrap()).collect(),
            offset,
            registered: Timestamp::UNIX_EPOCH,
            confirmed: Timestamp::UNIX_EPOCH,
            silence: Duration::ZERO,
        }
    }

    #[test]
    fn a_channel_waits_for_the_last_of_those_who_follow_it() {
        let all = [recorder(&["task"], 70), recorder(&["livesys/+", "task/import"], 50)];
        let of = |prefix| confirmed_of(prefix, &all);
        assert_eq!(of("task"), Some(50), "a part of it");
        assert_eq!(of("task/mail"), Some(70), "below what it follows");
        assert_eq!(of("livesys/7/log"), Some(50));
        assert_eq!(of("livesys"), Some(50), "above it");
        assert_eq!(of("news"), None);
        assert_eq!(of(""), Some(50), "anything may be there");
        assert_eq!(confirmed_of("", &[]), None);
    }

    #[test]
    fn a_hold_never_makes_less_of_what_is_kept() {
        let hold = Hold { age: Duration::from_secs(5), count: 3, bytes: 7 };
        let usual = Retention { age: Duration::from_secs(10), count: 10, bytes: u64::MAX };
        let beyond = hold.beyond(&usual);
        assert_eq!((beyond.age.as_secs(), beyond.count, beyond.bytes), (15, 13, u64::MAX));
        let ever = Retention { age: Duration::MAX, ..usual };
        assert_eq!(hold.beyond(&ever).age, Duration::MAX);
    }
}
