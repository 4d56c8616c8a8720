//! What was sent on each topic since the node started: how many messages, when the last one, and how fast they come.
//!
//! Senders keep the [`Tally`] of their topic and add to it once a burst, so that a message costs nothing here. The time
//! is a coarse one that the shards' sweeps keep. The number of topics is bounded: those go that were longest quiet.

use crate::pattern::Pattern;
use jiff::Timestamp;
use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The steps of the coarse time: tenths of a second. They last for 13 years.
const STEP: Duration = Duration::from_millis(100);
/// After so many steps a message counts for a third in the rate.
const SPAN_STEPS: f32 = 50.0;
/// Rates below this are none.
const LEAST_PER_SECOND: f32 = 0.005;
/// One in so many topics goes when there is no room, so that making room is rare.
const SHARE: usize = 8;
/// Task events are counted by task: each job has a topic of its own.
const TASK_EVENTS: &str = "task/";

/// The coarse time of a node, in steps since it began.
#[derive(Debug)]
pub(crate) struct Clock {
    began: Instant,
    at_ms: i64,
    steps: AtomicU32,
}

impl Clock {
    pub(crate) fn new() -> Clock {
        let at_ms = Timestamp::now().as_millisecond();
        Clock { began: Instant::now(), at_ms, steps: AtomicU32::new(0) }
    }

    /// To be called about once a step.
    pub(crate) fn tick(&self) {
        let steps = self.began.elapsed().as_millis() / STEP.as_millis();
        self.steps.store(u32::try_from(steps).unwrap_or(u32::MAX), Relaxed);
    }

    fn now(&self) -> u32 {
        self.steps.load(Relaxed)
    }

    fn time(&self, step: u32) -> Timestamp {
        let since_ms = i64::from(step) * STEP.as_millis() as i64;
        Timestamp::from_millisecond(self.at_ms + since_ms).unwrap_or(Timestamp::MAX)
    }
}

/// A count that decays: what was added lately counts for more. Pure.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Pace {
    level: f32,
    /// The step when something was added last.
    at: u32,
}

impl Pace {
    fn decayed(self, now: u32) -> f32 {
        let steps = now.saturating_sub(self.at);
        if steps == 0 { self.level } else { self.level * (-(steps as f32) / SPAN_STEPS).exp() }
    }

    fn add(self, messages: u32, now: u32) -> Pace {
        Pace { level: self.decayed(now) + messages as f32, at: now.max(self.at) }
    }

    /// Messages a second.
    fn per_second(self, now: u32) -> f32 {
        let rate = self.decayed(now) / (SPAN_STEPS * STEP.as_secs_f32());
        if rate < LEAST_PER_SECOND { 0.0 } else { rate }
    }

    fn packed(self) -> u64 {
        u64::from(self.level.to_bits()) << 32 | u64::from(self.at)
    }

    fn unpacked(bits: u64) -> Pace {
        Pace { level: f32::from_bits((bits >> 32) as u32), at: bits as u32 }
    }
}

/// What was sent on one topic.
#[derive(Debug)]
pub(crate) struct Tally {
    messages: AtomicU64,
    pace: AtomicU64,
    /// Its place was needed: whoever holds it has to ask for a new one.
    gone: AtomicBool,
}

/// What a tally says at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Told {
    pub(crate) messages: u64,
    pub(crate) last: Timestamp,
    pub(crate) per_second: f32,
}

impl Tally {
    fn new() -> Tally {
        let pace = Pace { level: 0.0, at: 0 };
        Tally {
            messages: AtomicU64::new(0),
            pace: AtomicU64::new(pace.packed()),
            gone: AtomicBool::new(false),
        }
    }

    fn add(&self, messages: u32, now: u32) {
        self.messages.fetch_add(u64::from(messages), Relaxed);
        let added = |bits| Some(Pace::unpacked(bits).add(messages, now).packed());
        // it never says no
        _ = self.pace.fetch_update(Relaxed, Relaxed, added);
    }

    fn quiet_since(&self) -> u32 {
        Pace::unpacked(self.pace.load(Relaxed)).at
    }
}

/// What a sender keeps of its topic.
#[derive(Debug, Default)]
pub(crate) struct Counted(Option<Arc<Tally>>);

/// The tallies of a node.
#[derive(Debug)]
pub(crate) struct Tallies {
    pub(crate) clock: Clock,
    topics: Mutex<Topics>,
    topics_max: usize,
    forgotten: AtomicU64,
}

type Topics = [HashMap<Arc<str>, Arc<Tally>>; Pattern::ALL.len()];

impl Tallies {
    pub(crate) fn new(topics_max: usize) -> Tallies {
        let topics = Mutex::default();
        Tallies { clock: Clock::new(), topics, topics_max: topics_max.max(1), forgotten: AtomicU64::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, Topics> {
        // nothing panics while it is held, and the tables are whole after every statement
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A sender's burst.
    pub(crate) fn count(&self, counted: &mut Counted, pattern: Pattern, topic: &str, messages: u32) {
        if messages == 0 {
            return;
        }
        let tally = match counted.0.take().filter(|tally| !tally.gone.load(Relaxed)) {
            Some(tally) => tally,
            None => self.of(&mut self.lock(), pattern, topic),
        };
        tally.add(messages, self.clock.now());
        counted.0 = Some(tally);
    }

    /// One message of somebody who keeps nothing.
    pub(crate) fn count_one(&self, pattern: Pattern, topic: &str) {
        self.count(&mut Counted::default(), pattern, topic, 1);
    }

    /// What the journal relays.
    pub(crate) fn count_relayed<'a>(&self, topics: impl Iterator<Item = &'a str>) {
        let (mut table, now) = (self.lock(), self.clock.now());
        for topic in topics {
            let counted = match topic.starts_with(TASK_EVENTS) {
                true => topic.rsplit_once('/').map_or(topic, |(task, _)| task),
                false => topic,
            };
            self.of(&mut table, Pattern::Sub, counted).add(1, now);
        }
    }

    fn of(&self, topics: &mut Topics, pattern: Pattern, topic: &str) -> Arc<Tally> {
        if let Some(tally) = topics[pattern as usize].get(topic) {
            return tally.clone();
        }
        if topics.iter().map(HashMap::len).sum::<usize>() >= self.topics_max {
            self.make_room(topics);
        }
        let tally = Arc::new(Tally::new());
        topics[pattern as usize].insert(topic.into(), tally.clone());
        tally
    }

    /// Those go that were quiet for longest.
    fn make_room(&self, topics: &mut Topics) {
        let mut quiet: Vec<u32> = topics.iter().flat_map(HashMap::values).map(|t| t.quiet_since()).collect();
        let count = quiet.len().div_ceil(SHARE);
        let (_, until, _) = quiet.select_nth_unstable(count - 1);
        let (until, mut left) = (*until, count);
        for table in topics {
            table.retain(|_, tally| {
                let goes = left > 0 && tally.quiet_since() <= until;
                if goes {
                    left -= 1;
                    tally.gone.store(true, Relaxed);
                }
                !goes
            });
        }
        self.forgotten.fetch_add(count as u64, Relaxed);
        crate::metrics::topics_forgotten(count as u64);
    }

    /// What is known of a topic.
    pub(crate) fn told(&self, pattern: Pattern, topic: &str) -> Option<Told> {
        let tally = self.lock()[pattern as usize].get(topic)?.clone();
        let pace = Pace::unpacked(tally.pace.load(Relaxed));
        Some(Told {
            messages: tally.messages.load(Relaxed),
            last: self.clock.time(pace.at),
            per_second: pace.per_second(self.clock.now()),
        })
    }

    /// Shows the names of all topics, in no order. Senders wait for a copy of what points to them, some 20 ns each, and for
    /// nothing that is done with them.
    pub(crate) fn names(&self, mut show: impl FnMut(Pattern, &str)) {
        let of = |topics: &Topics, pattern: Pattern| -> Vec<Arc<str>> {
            topics[pattern as usize].keys().cloned().collect()
        };
        let names = {
            let topics = self.lock();
            Pattern::ALL.map(|pattern| of(&topics, pattern))
        };
        for (pattern, names) in Pattern::ALL.into_iter().zip(names) {
            names.iter().for_each(|topic| show(pattern, topic));
        }
    }

    /// Topics whose tallies were given up for others, so far.
    pub(crate) fn forgotten(&self) -> u64 {
        self.forgotten.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn steady(per_step: u32, steps: u32) -> Pace {
        (0..steps).fold(Pace { level: 0.0, at: 0 }, |pace, now| pace.add(per_step, now))
    }

    #[test]
    fn a_steady_rate_is_told_after_a_while_and_fades_when_it_ends() {
        let rate = steady(10, 400).per_second(399);
        assert!((98.0..103.0).contains(&rate), "{rate}");
        assert!((13.0..14.0).contains(&steady(10, 400).per_second(499)), "ten seconds later");
        assert_eq!(steady(10, 400).per_second(2_000), 0.0);
        let one = Pace { level: 0.0, at: 0 }.add(1, 7);
        assert!((0.1..0.3).contains(&one.per_second(7)));
    }

    proptest! {
        /// Whatever comes and in what order: a rate is a number, never below nothing or above what came at once, and
        /// it survives being packed.
        #[test]
        fn a_rate_is_bounded_by_what_came(bursts in prop::collection::vec((0u32..5_000, 0u32..300), 1..50)) {
            let mut pace = Pace { level: 0.0, at: 0 };
            let mut sum = 0u64;
            for (messages, now) in bursts {
                pace = Pace::unpacked(pace.add(messages, now).packed());
                sum += u64::from(messages);
                let rate = f64::from(pace.per_second(now));
                prop_assert!(rate.is_finite() && rate >= 0.0 && rate <= sum as f64 / 5.0 * 1.001, "{rate} of {sum}");
            }
        }
    }

    #[test]
    fn each_name_space_has_its_own_topics_and_jobs_are_counted_by_task() {
        let tallies = Tallies::new(10);
        let mut counted = Counted::default();
        tallies.count(&mut counted, Pattern::Sub, "a/b", 3);
        tallies.count(&mut counted, Pattern::Sub, "a/b", 4);
        tallies.count_one(Pattern::Bus, "a/b");
        tallies.count_relayed(["task/x/y/1", "task/x/y/2", "kept"].into_iter());
        let messages = |pattern, topic| tallies.told(pattern, topic).map(|told| told.messages);
        assert_eq!((messages(Pattern::Sub, "a/b"), messages(Pattern::Bus, "a/b")), (Some(7), Some(1)));
        assert_eq!((messages(Pattern::Sub, "task/x/y"), messages(Pattern::Sub, "kept")), (Some(2), Some(1)));
        assert_eq!((messages(Pattern::Push, "a/b"), messages(Pattern::Sub, "task/x/y/1")), (None, None));
    }

    #[test]
    fn those_go_that_were_quiet_for_longest_and_who_counts_them_still_counts_anew() {
        let tallies = Tallies::new(16);
        let mut first = Counted::default();
        tallies.count(&mut first, Pattern::Sub, "first", 5);
        tallies.clock.steps.store(10, Relaxed);
        for i in 0..16 {
            tallies.count_one(Pattern::Push, &format!("later/{i}"));
        }
        assert_eq!(tallies.told(Pattern::Sub, "first"), None);
        assert_eq!(tallies.forgotten(), 2, "one in eight");
        let mut names = 0;
        tallies.names(|_, _| {
            assert!(tallies.topics.try_lock().is_ok(), "nobody waits for who looks at the names");
            names += 1;
        });
        assert_eq!(names, 15);
        tallies.count(&mut first, Pattern::Sub, "first", 1);
        assert_eq!(tallies.told(Pattern::Sub, "first").map(|told| told.messages), Some(1));
    }
}
