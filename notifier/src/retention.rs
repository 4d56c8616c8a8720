//! How much of the journal is kept, channel by channel, and the task that lets the rest go.
//!
//! A channel is a prefix of topics, and the nearest one governs an entry. Each keeps so much for itself: what is older
//! or more is let go of, the oldest first, so that what is kept of a channel has no holes. Entries are counted as they
//! are numbered, and once; only what is counted, relayed by this node and old enough for other nodes to have relayed it
//! is let go of.

use crate::error::NotifierError;
use crate::journal::JournalStore;
use crate::metrics;
use crate::reach::Reach;
use crate::recorders::{Hold, Recorder, confirmed_of};
use crate::relay::RelayState;
use jiff::Timestamp;
use minium_protocol::Topic;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How much is kept: what is older or more is let go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// How old an entry may become.
    pub age: Duration,
    /// How many entries are kept.
    pub count: u64,
    /// How many bytes are kept, as the database stores the entries' data.
    pub bytes: u64,
}

impl Default for Retention {
    /// 30 days, a million entries.
    fn default() -> Retention {
        Retention { age: Duration::from_secs(30 * 86_400), count: 1_000_000, bytes: u64::MAX }
    }
}

impl Retention {
    /// For a journal in memory: 100,000 entries.
    pub fn in_memory() -> Retention {
        Retention { count: 100_000, ..Retention::default() }
    }
}

/// How much is kept of which channel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// Of what belongs to no channel: one that is not configured any more.
    pub others: Retention,
    /// Of each channel, by its prefix.
    pub channels: BTreeMap<Topic, Retention>,
}

impl Policy {
    /// What holds for each channel; the empty prefix is that of all others.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, &Retention)> {
        let channels = self.channels.iter().map(|(prefix, retention)| (prefix.as_str(), retention));
        channels.chain([("", &self.others)])
    }

    pub(crate) fn prefixes(&self) -> Vec<String> {
        self.channels.keys().map(ToString::to_string).collect()
    }
}

/// A policy that may be replaced while a relay keeps to it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Retentions(Arc<watch::Sender<Arc<Policy>>>);

impl Retentions {
    /// To begin with.
    pub fn new(policy: Policy) -> Retentions {
        Retentions(Arc::new(watch::Sender::new(Arc::new(policy))))
    }

    /// From the next round on.
    pub fn set(&self, policy: Policy) {
        self.0.send_replace(Arc::new(policy));
    }

    fn watch(&self) -> watch::Receiver<Arc<Policy>> {
        self.0.subscribe()
    }
}

/// How the work is done.
#[derive(Debug, Clone)]
pub(crate) struct Upkeep {
    /// The store's usual one when nothing was said.
    pub(crate) retention: Option<Retentions>,
    /// Between two rounds.
    pub(crate) interval: Duration,
    /// So many entries go in one transaction.
    pub(crate) batch: u32,
    /// Nothing younger than this goes.
    pub(crate) grace: Duration,
    /// Between two looks at the days.
    pub(crate) days_interval: Duration,
    /// How much more is kept for recorders.
    pub(crate) hold: Hold,
}

/// What may be let go of in one step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trim {
    /// Nothing behind this offset.
    pub(crate) to: u64,
    /// Nothing younger than this.
    pub(crate) grace: Duration,
    /// At most so many entries.
    pub(crate) batch: u32,
}

/// What was let go of in one step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Trimmed {
    /// So many entries.
    pub(crate) gone: u64,
    /// There may be more to let go of.
    pub(crate) more: bool,
}

/// Keeps at it until it is stopped. A failed round is told and tried again at the next.
pub(crate) async fn keep(
    store: Arc<dyn JournalStore>,
    upkeep: Upkeep,
    states: watch::Receiver<RelayState>,
    stop: CancellationToken,
) {
    let keeping = async {
        let retentions = match &upkeep.retention {
            Some(retentions) => retentions.clone(),
            None => usual(&*store, upkeep.interval).await,
        };
        let mut keeper = Keeper {
            store,
            upkeep,
            policies: retentions.watch(),
            states,
            assigned: None,
            tended: None,
            reach: Reach::default(),
        };
        let mut failing = false;
        loop {
            match keeper.round().await {
                Ok(()) => failing = false,
                Err(error) => {
                    // the relay tells about a database that is gone; this one need not say it each time
                    if !failing {
                        tracing::warn!(error = error.story(), "The journal's retention is not kept up.");
                    }
                    failing = true;
                }
            }
            keeper.rest().await;
        }
    };
    stop.run_until_cancelled(keeping).await;
}

/// The policy of a journal of which nothing was said, once the store can tell.
async fn usual(store: &dyn JournalStore, pause: Duration) -> Retentions {
    loop {
        if let Ok(others) = store.retention().await {
            return Retentions::new(Policy { others, ..Policy::default() });
        }
        tokio::time::sleep(pause).await;
    }
}

/// How long ago it is that the most silent one was heard of.
fn tell(recorders: &[Recorder], hold: &Hold) {
    let silence = recorders.iter().map(|recorder| recorder.silence).max().unwrap_or_default();
    ::metrics::gauge!(metrics::RECORDERS).set(recorders.len() as f64);
    ::metrics::gauge!(metrics::RECORDERS_SILENCE).set(silence.as_secs_f64());
    ::metrics::gauge!(metrics::RECORDERS_HOLD).set(hold.count as f64);
    ::metrics::gauge!(metrics::RECORDERS_HOLD_SECONDS).set(hold.age.as_secs_f64());
}

/// How far the last of them is behind. One that says again and again that it is where it was is not silent, and stands still all
/// the same. What lies behind a recorder and is nothing that it follows does not count: they were moved over that.
fn tell_behind(recorders: &[Recorder], to: u64, oldest: Option<Timestamp>) {
    let entries = recorders.iter().map(|recorder| to.saturating_sub(recorder.offset)).max().unwrap_or(0);
    let age =
        oldest.filter(|_| entries > 0).map_or(0.0, |at| Timestamp::now().duration_since(at).as_secs_f64());
    ::metrics::gauge!(metrics::RECORDERS_BEHIND).set(entries as f64);
    ::metrics::gauge!(metrics::RECORDERS_BEHIND_SECONDS).set(age.max(0.0));
}

struct Keeper {
    store: Arc<dyn JournalStore>,
    upkeep: Upkeep,
    policies: watch::Receiver<Arc<Policy>>,
    states: watch::Receiver<RelayState>,
    /// The channels that we have told the store of.
    assigned: Option<Vec<String>>,
    tended: Option<Instant>,
    reach: Reach,
}

impl Keeper {
    async fn round(&mut self) -> Result<(), NotifierError> {
        let policy = self.policies.borrow_and_update().clone();
        let (store, batch) = (self.store.clone(), self.upkeep.batch);
        while store.forget_ids(batch).await? >= u64::from(batch) {}
        let prefixes = policy.prefixes();
        if self.assigned.as_ref() != Some(&prefixes) {
            store.assign(&prefixes).await?;
            self.assigned = Some(prefixes);
        }
        while store.count(batch).await? >= u64::from(batch) {}
        // what this node has not relayed yet is not let go of
        let relayed = match &*self.states.borrow() {
            RelayState::Relaying(position) => Some(position.offset),
            RelayState::Starting | RelayState::Waiting { .. } => None,
        };
        let mut recorders = store.recorders().await?;
        tell(&recorders, &self.upkeep.hold);
        if let Some(to) = relayed {
            let oldest = self.reach.stretch(&*store, &mut recorders, to).await?;
            tell_behind(&recorders, to, oldest);
            for (prefix, retention) in policy.all() {
                let free = confirmed_of(prefix, &recorders).map_or(to, |confirmed| confirmed.min(to));
                self.trim(prefix, retention, free).await?;
                if free < to {
                    self.overrun(prefix, retention, to).await?;
                }
            }
        }
        store.sweep().await?;
        if self.tended.is_none_or(|at| at.elapsed() >= self.upkeep.days_interval) {
            store.tend().await?;
            self.tended = Some(Instant::now());
        }
        Ok(())
    }

    /// Lets go of what a channel has beyond its retention, as far as an offset; how many that were.
    async fn trim(&self, prefix: &str, retention: &Retention, to: u64) -> Result<u64, NotifierError> {
        let trim = Trim { to, grace: self.upkeep.grace, batch: self.upkeep.batch };
        let mut gone = 0;
        loop {
            let trimmed = self.store.trim(prefix, retention, trim).await?;
            ::metrics::counter!(metrics::ENTRIES_TRIMMED).increment(trimmed.gone);
            gone += trimmed.gone;
            if !trimmed.more {
                return Ok(gone);
            }
        }
    }

    /// What is beyond what is kept for recorders goes although somebody has not got it.
    async fn overrun(&self, prefix: &str, retention: &Retention, to: u64) -> Result<(), NotifierError> {
        let gone = self.trim(prefix, &self.upkeep.hold.beyond(retention), to).await?;
        if gone > 0 {
            ::metrics::counter!(metrics::RECORDERS_OVERRUN).increment(gone);
            tracing::error!(
                channel = prefix,
                entries = gone,
                "Entries were let go of that a recorder has not confirmed: it is too far behind."
            );
        }
        Ok(())
    }

    /// Until the next round, which comes at once when the policy was replaced.
    async fn rest(&mut self) {
        let changed = async {
            if self.policies.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        drop(tokio::time::timeout(self.upkeep.interval, changed).await);
    }
}
