//! Channels: what is configured for a prefix of topics. The nearest prefix governs.
//!
//! Replaced as a whole while the bus runs. Who remembers an answer remembers the generation with it.

use crate::options::Slow;
use crate::pattern::Pattern;
use arc_swap::ArcSwap;
use minium_protocol::{Filter, Topic};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::Duration;

/// In metrics, the channel of what no channel governs, or more than one at once. It is no topic.
pub(crate) const NO_CHANNEL: &str = "*";

/// What holds on one channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Channel {
    /// The prefix of topics.
    pub prefix: Topic,
    /// Only for these patterns.
    pub patterns: Vec<Pattern>,
    /// For subscribers: kept in the journal. For pullers: a task.
    pub durable: bool,
    /// Only the journal fills it: clients may not publish.
    pub reserved: bool,
    /// What happens to a subscriber that falls behind.
    pub slow: Slow,
    /// How long a puller's lease holds unless it is extended.
    pub lease: Duration,
}

impl Channel {
    /// An ephemeral channel for all patterns, with defaults.
    pub fn new(prefix: Topic) -> Channel {
        Channel {
            prefix,
            patterns: Pattern::ALL.to_vec(),
            durable: false,
            reserved: false,
            slow: Slow::Close,
            lease: Duration::from_secs(30),
        }
    }

    /// A durable channel for all patterns, with defaults.
    pub fn durable(prefix: Topic) -> Channel {
        Channel { durable: true, slow: Slow::Replay, ..Channel::new(prefix) }
    }

    /// The channel of task events.
    pub fn tasks() -> Channel {
        let prefix = "task".parse().expect("it is a topic");
        Channel { patterns: vec![Pattern::Sub], reserved: true, ..Channel::durable(prefix) }
    }
}

/// Two channels that cannot both be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelsError {
    /// What lies below a durable channel must be durable, or its subscribers could not resume.
    #[error("{below} must be durable since {above} is")]
    NotDurable {
        /// The durable one.
        above: Topic,
        /// The one below it.
        below: Topic,
    },
    /// Two configurations of one prefix.
    #[error("{0} is configured twice for the same pattern")]
    Twice(Topic),
}

type Table = HashMap<(Pattern, Arc<str>), Arc<Channel>>;

/// All channels that are configured. `task` always is.
#[derive(Debug)]
pub struct Channels {
    table: ArcSwap<Table>,
    generation: AtomicU64,
}

impl Default for Channels {
    fn default() -> Channels {
        Channels::new(Vec::new()).expect("one channel does not contradict itself")
    }
}

impl Channels {
    /// With these, and `task` when it is not among them.
    ///
    /// # Errors
    /// When they contradict one another.
    pub fn new(channels: Vec<Channel>) -> Result<Channels, ChannelsError> {
        let table = tabulate(channels)?;
        Ok(Channels { table: ArcSwap::from_pointee(table), generation: AtomicU64::new(1) })
    }

    /// In place of those that were. Sessions that are open keep what they began with.
    ///
    /// # Errors
    /// When they contradict one another: then nothing changes.
    pub fn replace(&self, channels: Vec<Channel>) -> Result<(), ChannelsError> {
        self.table.store(Arc::new(tabulate(channels)?));
        self.generation.fetch_add(1, Release);
        Ok(())
    }

    /// Changes whenever an answer may.
    pub fn generation(&self) -> u64 {
        self.generation.load(Acquire)
    }

    /// The channel that governs a topic; nothing where the defaults hold.
    pub fn governing(&self, pattern: Pattern, topic: &Topic) -> Option<Arc<Channel>> {
        let table = self.table.load();
        topic.levels().find_map(|level| table.get(&(pattern, level.into())).cloned())
    }

    /// All of them with the pattern for which they are, in the order of their prefixes.
    pub fn list(&self) -> Vec<(Pattern, Arc<Channel>)> {
        let table = self.table.load();
        let mut all: Vec<_> =
            table.iter().map(|((pattern, _), channel)| (*pattern, channel.clone())).collect();
        all.sort_by(|(p, a), (q, b)| (a.prefix.as_str(), p).cmp(&(b.prefix.as_str(), q)));
        all
    }

    /// The channel that governs everything that a filter matches; nothing when part of it may be without.
    pub fn governing_all(&self, pattern: Pattern, filter: &Filter) -> Option<Arc<Channel>> {
        let prefix: Topic = filter.fixed_prefix().parse().ok()?;
        self.governing(pattern, &prefix)
    }

    /// How metrics name the channel of a topic.
    pub(crate) fn label(&self, pattern: Pattern, topic: &Topic) -> Arc<str> {
        label(self.governing(pattern, topic).as_deref())
    }

    /// How metrics name what governs all that these match: [`NO_CHANNEL`] where it is not one and the same.
    pub(crate) fn label_of<'a>(&self, follows: impl IntoIterator<Item = (Pattern, &'a Filter)>) -> Arc<str> {
        let mut channels = follows.into_iter().map(|(pattern, filter)| self.governing_all(pattern, filter));
        let first = channels.next().flatten();
        let same =
            |first: &Arc<Channel>| channels.all(|other| other.is_some_and(|o| o.prefix == first.prefix));
        label(first.filter(same).as_deref())
    }

    /// Is everything that a filter matches kept?
    pub fn is_durable(&self, pattern: Pattern, filter: &Filter) -> bool {
        self.governing_all(pattern, filter).is_some_and(|c| c.durable)
    }
}

/// How metrics name a channel: by its prefix, or [`NO_CHANNEL`].
pub(crate) fn label(channel: Option<&Channel>) -> Arc<str> {
    channel.map_or_else(|| NO_CHANNEL.into(), |channel| channel.prefix.shared())
}

fn tabulate(mut channels: Vec<Channel>) -> Result<Table, ChannelsError> {
    let tasks = Channel::tasks();
    if !channels.iter().any(|c| c.prefix == tasks.prefix && c.patterns.contains(&Pattern::Sub)) {
        channels.push(tasks);
    }
    let mut table = Table::new();
    for channel in channels {
        let channel = Arc::new(channel);
        for pattern in &channel.patterns {
            let key = (*pattern, channel.prefix.shared());
            if table.insert(key, channel.clone()).is_some() {
                return Err(ChannelsError::Twice(channel.prefix.clone()));
            }
        }
    }
    for ((pattern, _), below) in &table {
        let above = below.prefix.levels().skip(1).filter_map(|level| table.get(&(*pattern, level.into())));
        // push and pull have no hierarchy: one name more is another task
        let above = above.filter(|_| *pattern == Pattern::Sub).find(|c| c.durable && !below.durable);
        if let Some(above) = above {
            let (above, below) = (above.prefix.clone(), below.prefix.clone());
            return Err(ChannelsError::NotDurable { above, below });
        }
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(text: &str) -> Topic {
        text.parse().unwrap()
    }

    #[test]
    fn the_nearest_prefix_governs_by_whole_segments() {
        let gap = Channel { slow: Slow::Gap, ..Channel::durable(topic("a/b")) };
        let channels = Channels::new(vec![Channel::durable(topic("a")), gap]).unwrap();
        let slow = |t: &str| channels.governing(Pattern::Sub, &topic(t)).map(|c| c.slow);
        assert_eq!(slow("a/b/c"), Some(Slow::Gap));
        assert_eq!(slow("a/bb"), Some(Slow::Replay));
        assert_eq!(slow("ab"), None);
        let durable = |f: &str| channels.is_durable(Pattern::Sub, &f.parse().unwrap());
        assert!(durable("a/+") && durable("a") && durable("task/x/1"));
        assert!(!durable("+") && !durable("+/a"));
        assert!(!channels.is_durable(Pattern::Push, &"task".parse().unwrap()));
    }

    #[test]
    fn what_contradicts_itself_changes_nothing() {
        let channels = Channels::default();
        let before = channels.generation();
        let below = vec![Channel::durable(topic("a")), Channel::new(topic("a/b"))];
        assert!(matches!(channels.replace(below), Err(ChannelsError::NotDurable { .. })));
        let twice = vec![Channel::new(topic("a")), Channel::new(topic("a"))];
        assert!(matches!(channels.replace(twice), Err(ChannelsError::Twice(_))));
        assert_eq!(channels.generation(), before);
        channels.replace(vec![Channel::durable(topic("a"))]).unwrap();
        assert_ne!(channels.generation(), before);
        assert!(channels.is_durable(Pattern::Sub, &"a/x".parse().unwrap()));
    }
}
