//! What happened in the last minute, counted from the events: how many of which kind in each second, how long jobs
//! waited and ran, and the longest wait of each queue.

use jiff::Timestamp;
use std::collections::{BTreeMap, VecDeque};

/// So many seconds are kept.
pub(super) const SECONDS: usize = 60;
/// So many waits and runs are kept; of more the newest.
const TIMES_MAX: usize = 2_000;
/// So many queues have waits of their own.
const QUEUES_MAX: usize = 200;

/// One second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Second {
    enqueued: u64,
    finished: u64,
    failed: u64,
}

/// A series of counts, the oldest second first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Series {
    pub(super) counts: Vec<u64>,
    /// Over how many seconds they were counted.
    pub(super) seconds: usize,
}

impl Series {
    /// How many a second on the average.
    pub(super) fn rate(&self) -> f64 {
        self.counts.iter().sum::<u64>() as f64 / self.seconds.max(1) as f64
    }
}

/// The last minute.
#[derive(Debug, Clone, Default)]
pub(super) struct Rates {
    /// The newest last.
    seconds: VecDeque<Second>,
    /// The second that the newest is of.
    newest: i64,
    waits: VecDeque<(i64, f64)>,
    runs: VecDeque<(i64, f64)>,
    queues: BTreeMap<String, VecDeque<(i64, f64)>>,
}

impl Rates {
    /// Counts what happened now.
    pub(super) fn count(
        &mut self,
        what: &str,
        queue: &str,
        wait: Option<f64>,
        run: Option<f64>,
        now: Timestamp,
    ) {
        self.pass(now);
        if let Some(second) = self.seconds.back_mut() {
            match what {
                "enqueue" => second.enqueued += 1,
                "finished" => second.finished += 1,
                "failed" => second.failed += 1,
                _ => {}
            }
        }
        let at = self.newest;
        if let Some(wait) = wait {
            keep(&mut self.waits, at, wait);
            if self.queues.len() < QUEUES_MAX || self.queues.contains_key(queue) {
                keep_longest(self.queues.entry(queue.to_owned()).or_default(), at, wait);
            }
        }
        if let Some(run) = run {
            keep(&mut self.runs, at, run);
        }
    }

    /// Lets seconds pass in which nothing happened.
    pub(super) fn pass(&mut self, now: Timestamp) {
        let now = now.as_second();
        if self.seconds.is_empty() {
            self.newest = now;
            self.seconds.push_back(Second::default());
        }
        // a clock that was set back stands still here until it has caught up
        let passed = usize::try_from(now - self.newest).unwrap_or(0);
        for _ in 0..passed.min(SECONDS) {
            self.seconds.push_back(Second::default());
        }
        self.newest = self.newest.max(now);
        while self.seconds.len() > SECONDS {
            self.seconds.pop_front();
        }
        let oldest = self.newest - SECONDS as i64;
        let forget = |times: &mut VecDeque<(i64, f64)>| {
            while times.front().is_some_and(|(at, _)| *at <= oldest) {
                times.pop_front();
            }
        };
        forget(&mut self.waits);
        forget(&mut self.runs);
        self.queues.values_mut().for_each(forget);
        self.queues.retain(|_, waits| !waits.is_empty());
    }

    pub(super) fn enqueued(&self) -> Series {
        self.series(|second| second.enqueued)
    }

    pub(super) fn finished(&self) -> Series {
        self.series(|second| second.finished)
    }

    pub(super) fn failed(&self) -> Series {
        self.series(|second| second.failed)
    }

    fn series(&self, of: impl Fn(&Second) -> u64) -> Series {
        Series { counts: self.seconds.iter().map(of).collect(), seconds: self.seconds.len() }
    }

    /// Median and 95th percentile of how long jobs waited before they began, in seconds.
    pub(super) fn wait(&self) -> Option<(f64, f64)> {
        quantiles(&self.waits)
    }

    /// The same of how long they ran.
    pub(super) fn run(&self) -> Option<(f64, f64)> {
        quantiles(&self.runs)
    }

    /// The longest wait of a job of this queue that began in the last minute, in seconds.
    pub(super) fn longest_wait(&self, queue: &str) -> Option<f64> {
        self.queues.get(queue)?.front().map(|(_, wait)| *wait)
    }
}

fn keep(times: &mut VecDeque<(i64, f64)>, at: i64, span: f64) {
    if times.len() == TIMES_MAX {
        times.pop_front();
    }
    times.push_back((at, span));
}

/// Keeps falling values only, so that the first is the longest and there is at most one a second.
fn keep_longest(times: &mut VecDeque<(i64, f64)>, at: i64, span: f64) {
    while times.back().is_some_and(|(_, last)| *last <= span) {
        times.pop_back();
    }
    if times.back().is_none_or(|(last, _)| *last != at) {
        times.push_back((at, span));
    }
}

fn quantiles(times: &VecDeque<(i64, f64)>) -> Option<(f64, f64)> {
    let mut sorted: Vec<f64> = times.iter().map(|(_, span)| *span).collect();
    sorted.sort_by(f64::total_cmp);
    let at = |part: f64| sorted.get(((sorted.len() as f64 - 1.0) * part).round() as usize).copied();
    at(0.5).zip(at(0.95))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(n: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + n).unwrap()
    }

    #[test]
    fn a_minute_is_kept_and_no_more() {
        let mut rates = Rates::default();
        for n in 0..200 {
            rates.count("enqueue", "q", Some(0.5), None, second(n));
            rates.count("finished", "q", None, Some(2.0), second(n));
        }
        assert_eq!((rates.enqueued().counts.len(), rates.enqueued().rate()), (SECONDS, 1.0));
        assert_eq!((rates.wait(), rates.run()), (Some((0.5, 0.5)), Some((2.0, 2.0))));
        rates.pass(second(229));
        assert_eq!(rates.finished().rate(), 0.5);
        rates.pass(second(10_000));
        assert_eq!((rates.finished().rate(), rates.wait(), rates.longest_wait("q")), (0.0, None, None));
        // the clock is set back
        rates.count("failed", "q", None, None, second(0));
        assert_eq!(rates.failed().counts.iter().sum::<u64>(), 1);
    }

    #[test]
    fn rates_are_of_the_time_that_was_watched() {
        let mut rates = Rates::default();
        rates.count("enqueue", "q", None, None, second(0));
        rates.count("enqueue", "q", None, None, second(0));
        assert_eq!(rates.enqueued().rate(), 2.0);
        rates.pass(second(3));
        assert_eq!(rates.enqueued(), Series { counts: vec![2, 0, 0, 0], seconds: 4 });
        assert_eq!(rates.enqueued().rate(), 0.5);
    }

    #[test]
    fn the_longest_wait_of_a_queue_is_forgotten_after_a_minute() {
        let mut rates = Rates::default();
        for (at, wait) in [(0, 9.0), (1, 1.0), (2, 3.0), (2, 2.0)] {
            rates.count("dequeue", "q", Some(wait), None, second(at));
        }
        assert_eq!((rates.longest_wait("q"), rates.longest_wait("other")), (Some(9.0), None));
        rates.pass(second(61));
        assert_eq!(rates.longest_wait("q"), Some(3.0));
        for n in 0..1_000 {
            rates.count("dequeue", &n.to_string(), Some(1.0), None, second(61));
        }
        assert!(rates.queues.len() <= QUEUES_MAX && rates.waits.len() <= TIMES_MAX);
    }
}
