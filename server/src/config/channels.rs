//! What holds on each channel, once it is known what its parents say: a key that a channel does not set is what the
//! nearest configured prefix above it says, for each pattern.

use super::check::Findings;
use super::section::path_of;
use super::value::SlowPolicy;
use super::{Channel, Config};
use minium_bus::{Pattern, Slow};
use minium_notifier::{Policy, Retention};
use minium_protocol::{Topic, format_duration};
use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

/// The channel of task events: it is there whether it is configured or not.
const TASK: &str = "task";
/// How long a puller's lease holds when nothing is said.
const LEASE: Duration = Duration::from_secs(30);

/// The configured channels, by prefix.
struct Tree<'a>(BTreeMap<Topic, &'a Channel>);

impl<'a> Tree<'a> {
    /// Of those whose prefix is a topic; the others are told of elsewhere.
    fn new(channels: &'a BTreeMap<String, Channel>) -> Tree<'a> {
        Tree(channels.iter().filter_map(|(name, channel)| Some((name.parse().ok()?, channel))).collect())
    }

    /// A channel and those above it, the nearest first.
    fn line(&self, prefix: &Topic) -> impl Iterator<Item = (Topic, &'a Channel)> {
        let levels: Vec<Topic> = prefix.levels().filter_map(|level| level.parse().ok()).collect();
        levels.into_iter().filter_map(|level| self.0.get(&level).map(|channel| (level, *channel)))
    }

    /// The same, of those that hold for a pattern.
    fn line_for(&self, prefix: &Topic, pattern: Pattern) -> impl Iterator<Item = (Topic, &'a Channel)> {
        self.line(prefix).filter(move |(level, _)| self.patterns(level).contains(&pattern))
    }

    fn patterns(&self, prefix: &Topic) -> Vec<Pattern> {
        if is_of_tasks(prefix) {
            return vec![Pattern::Sub];
        }
        let said = self.line(prefix).find_map(|(_, channel)| channel.patterns.as_ref());
        said.map_or(Pattern::ALL.to_vec(), |names| names.iter().filter_map(|n| pattern(n)).collect())
    }

    fn said<T>(&self, prefix: &Topic, pattern: Pattern, key: impl Fn(&Channel) -> Option<T>) -> Option<T> {
        self.line_for(prefix, pattern).find_map(|(_, channel)| key(channel))
    }

    fn is_durable(&self, prefix: &Topic, pattern: Pattern) -> bool {
        let tasks = is_of_tasks(prefix) && pattern == Pattern::Sub;
        tasks || self.said(prefix, pattern, |c| c.durable).unwrap_or(false)
    }

    fn channel(&self, prefix: &Topic, pattern: Pattern) -> minium_bus::Channel {
        let durable = self.is_durable(prefix, pattern);
        let usual = if durable { Slow::Replay } else { Slow::Close };
        minium_bus::Channel {
            prefix: prefix.clone(),
            patterns: vec![pattern],
            durable,
            reserved: is_of_tasks(prefix),
            slow: self.said(prefix, pattern, |c| c.slow).map_or(usual, Slow::from),
            lease: self.said(prefix, pattern, |c| c.lease).unwrap_or(LEASE),
        }
    }

    fn retention(&self, prefix: &Topic, usual: &Retention) -> Retention {
        let said = |key: fn(&Channel) -> Option<u64>| self.said(prefix, Pattern::Sub, key);
        let bytes = said(|c| c.retention.bytes.map(|size| size.0));
        let count = said(|c| c.retention.count.map(u64::from));
        Retention {
            age: self.said(prefix, Pattern::Sub, |c| c.retention.age).unwrap_or(usual.age),
            // who bounds the bytes need not bound the count as well
            count: count.unwrap_or(if bytes.is_some() { u64::MAX } else { usual.count }),
            bytes: bytes.unwrap_or(usual.bytes),
        }
    }
}

fn is_of_tasks(prefix: &Topic) -> bool {
    prefix.levels().any(|level| level == TASK)
}

fn pattern(name: &str) -> Option<Pattern> {
    Pattern::ALL.into_iter().find(|pattern| pattern.as_str() == name)
}

impl From<SlowPolicy> for Slow {
    fn from(policy: SlowPolicy) -> Slow {
        policy.0
    }
}

impl Config {
    /// The channels as the bus wants them.
    pub(crate) fn bus_channels(&self) -> Vec<minium_bus::Channel> {
        let tree = Tree::new(&self.channels);
        let of = |prefix: &Topic| -> Vec<_> {
            tree.patterns(prefix).into_iter().map(|pattern| tree.channel(prefix, pattern)).collect()
        };
        tree.0.keys().flat_map(of).collect()
    }

    /// How much is kept of each channel that is kept, and of what belongs to none of them any more.
    pub(crate) fn retention_policy(&self) -> Policy {
        let others = if self.is_in_memory() { Retention::in_memory() } else { Retention::default() };
        let tree = Tree::new(&self.channels);
        let task: Topic = TASK.parse().expect("it is a topic");
        let kept = tree.0.keys().filter(|prefix| {
            tree.patterns(prefix).contains(&Pattern::Sub) && tree.is_durable(prefix, Pattern::Sub)
        });
        let retention = |prefix: &Topic| (prefix.clone(), tree.retention(prefix, &others));
        let mut channels: BTreeMap<_, _> = kept.chain([&task]).map(retention).collect();
        if let Some((deliveries, events)) = self.delivery_events(&channels[&task]) {
            channels.entry(deliveries).or_insert(events);
        }
        Policy { others, channels }
    }
}

/// Looks at what the channels say together.
pub(super) fn check(channels: &BTreeMap<String, Channel>, findings: &mut Findings<'_>) {
    let tree = Tree::new(channels);
    for (name, channel) in channels {
        let here = path_of(&["channels", name]);
        match name.parse::<Topic>() {
            Ok(prefix) => check_channel(&tree, &prefix, channel, &here, findings),
            Err(error) => findings.add(here, error.to_string()),
        }
    }
}

fn check_channel(
    tree: &Tree<'_>,
    prefix: &Topic,
    channel: &Channel,
    here: &str,
    findings: &mut Findings<'_>,
) {
    let path = |key: &str| format!("{here}.{key}");
    check_values(channel, &path, findings);
    if is_of_tasks(prefix) {
        if channel.durable == Some(false) {
            findings.add(path("durable"), "task is always durable");
        }
        if channel.patterns.as_ref().is_some_and(|names| names.iter().any(|name| name != "sub")) {
            findings.add(path("patterns"), "task is for subscribers alone: it must be [\"sub\"]");
        }
    }
    let for_subscribers = tree.patterns(prefix).contains(&Pattern::Sub);
    let kept = for_subscribers && tree.is_durable(prefix, Pattern::Sub);
    if for_subscribers && channel.durable == Some(false) && !is_of_tasks(prefix) {
        let above =
            tree.line_for(prefix, Pattern::Sub).skip(1).find(|(p, _)| tree.is_durable(p, Pattern::Sub));
        if let Some((above, _)) = above {
            let words = format!("must be true since {above} is durable: its subscribers resume by position");
            findings.add(path("durable"), words);
        }
    }
    let retention = &channel.retention;
    if !kept && (retention.age.is_some() || retention.count.is_some() || retention.bytes.is_some()) {
        let why = if for_subscribers { "durable = true is missing" } else { "its patterns lack sub" };
        findings.add(path("retention"), format!("nothing is kept here: {why}"));
    }
    if !kept && channel.slow.is_some_and(|slow| slow.0 == Slow::Replay) {
        findings.add(path("slow"), "nothing can be replayed that is not kept: durable = true is missing");
    }
}

/// Ranges of single keys.
fn check_values(channel: &Channel, path: &impl Fn(&str) -> String, findings: &mut Findings<'_>) {
    let retention = &channel.retention;
    if retention.age.is_some_and(|age| age < Duration::from_secs(1)) {
        findings.add(path("retention.age"), "must be 1s or more");
    }
    if retention.count == Some(0) {
        findings.add(path("retention.count"), "must be 1 or more");
    }
    if retention.bytes.is_some_and(|size| size.0 == 0) {
        findings.add(path("retention.bytes"), "must be 1 or more");
    }
    let most = Duration::from_secs(86_400);
    if channel.lease.is_some_and(|lease| lease < Duration::from_secs(1) || lease > most) {
        findings.add(path("lease"), format!("must be 1s to {}", format_duration(most)));
    }
    if let Some(names) = &channel.patterns {
        let distinct: HashSet<_> = names.iter().collect();
        if names.is_empty()
            || names.iter().any(|name| pattern(name).is_none())
            || distinct.len() < names.len()
        {
            findings.add(path("patterns"), "must be some of \"sub\", \"push\" and \"bus\", each once");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::load::from_text;
    use super::*;

    fn wrong(text: &str) -> Vec<String> {
        from_text(text).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_not_said_is_what_the_nearest_prefix_says_for_that_pattern() {
        let text = r#"
            [channels.livesys]
            durable = true
            lease = "1m"
            retention = { age = "30d", bytes = "1GiB" }
            [channels."livesys/7"]
            slow = "gap"
            [channels."livesys/7/raw"]
            retention = { count = 5 }
            [channels.work]
            patterns = ["push"]
            durable = true
            [channels."work/fast"]
            patterns = ["sub", "push"]
        "#;
        let config = from_text(text).unwrap();
        let channels = config.bus_channels();
        let of = |prefix: &str, pattern| {
            let found = channels.iter().find(|c| c.prefix.as_str() == prefix && c.patterns == [pattern]);
            found.map(|c| (c.durable, c.slow, c.lease.as_secs()))
        };
        assert_eq!(of("livesys", Pattern::Push), Some((true, Slow::Replay, 60)));
        assert_eq!(of("livesys/7", Pattern::Sub), Some((true, Slow::Gap, 60)));
        assert_eq!(of("livesys/7/raw", Pattern::Sub), Some((true, Slow::Gap, 60)));
        assert_eq!(of("work", Pattern::Sub), None);
        assert_eq!(
            of("work/fast", Pattern::Sub),
            Some((false, Slow::Close, 30)),
            "work says nothing for sub"
        );
        assert_eq!(of("work/fast", Pattern::Push), Some((true, Slow::Replay, 30)));
        minium_bus::Channels::new(channels).unwrap();

        let Policy { others, channels: kept } = config.retention_policy();
        assert_eq!(others, Retention::default());
        let names: Vec<_> = kept.keys().map(Topic::as_str).collect();
        assert_eq!(names, ["livesys", "livesys/7", "livesys/7/raw", "task"]);
        let of = |prefix: &str| {
            let r = &kept[&prefix.parse().unwrap()];
            (r.age.as_secs() / 86_400, r.count, r.bytes)
        };
        assert_eq!(of("livesys"), (30, u64::MAX, 1 << 30));
        assert_eq!(of("livesys/7/raw"), (30, 5, 1 << 30));
        assert_eq!(of("task"), (30, 1_000_000, u64::MAX));
    }

    #[test]
    fn tasks_are_kept_whatever_is_said_and_belong_to_the_journal() {
        let config = from_text("[channels.task]\nslow = \"close\"\n[channels.\"task/import\"]\n").unwrap();
        let channels = config.bus_channels();
        assert_eq!(channels.len(), 2);
        assert!(channels.iter().all(|c| c.durable && c.reserved && c.slow == Slow::Close));
        minium_bus::Channels::new(channels).unwrap();
        assert!(wrong("[channels.task]\ndurable = false")[0].contains("task is always durable"));
        assert!(wrong("[channels.\"task/x\"]\npatterns = [\"push\"]")[0].contains("must be [\"sub\"]"));
    }

    #[test]
    fn mistakes_are_told_with_their_keys_all_at_once() {
        let text = r#"
            [channels."a/+"]
            [channels.b]
            retention = { count = 1 }
            slow = "replay"
            [channels.c]
            durable = true
            [channels."c/d"]
            durable = false
            [channels.e]
            durable = true
            patterns = ["push"]
            retention = { age = "1d" }
            [channels.f]
            durable = true
            lease = "1ms"
            patterns = ["sub", "pull"]
            retention = { age = "1ms", count = 0, bytes = 0 }
            [channels.g]
            slow = "drop"
        "#;
        let told = wrong(text);
        let expected = [
            "channels.\"a/+\": ",
            "channels.b.retention: nothing is kept here: durable = true is missing",
            "channels.b.slow: nothing can be replayed",
            "channels.\"c/d\".durable: must be true since c is durable",
            "channels.e.retention: nothing is kept here: its patterns lack sub",
            "channels.f.lease: must be 1s to 1d",
            "channels.f.patterns: must be some of",
            "channels.f.retention.age: must be 1s or more",
            "channels.f.retention.count: must be 1 or more",
            "channels.f.retention.bytes: must be 1 or more",
            "channels.g.slow: \"drop\" must be \"replay\"",
        ];
        for start in expected {
            assert!(told.iter().any(|t| t.starts_with(start)), "{start} is not among {told:#?}");
        }
        assert_eq!(told.len(), expected.len(), "{told:#?}");
    }
}
