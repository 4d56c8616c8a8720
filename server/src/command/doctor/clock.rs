//! Clocks: this machine's, the database's, a node's. Leases go by the database's alone; logs, tokens, certificates and
//! schedules do not.

use super::finding::Finding;
use crate::node::causes;
use jiff::Timestamp;
use minium_queue::QueueError;
use minium_queue::postgres::ClockReading;

/// Logs of two machines are hard to read together.
const WARN_US: i64 = 1_000_000;
/// Tokens count as expired or not yet valid, and leases seem to have ended.
const FAIL_US: i64 = 30_000_000;

pub(super) fn clock() -> Finding {
    let now = jiff::Timestamp::now();
    // Nothing of this program is older.
    let born: jiff::Timestamp = "2026-01-01T00:00:00Z".parse().expect("this is a time");
    if now < born {
        return Finding::fail(
            "clock",
            format!("it is {now:.0}, before this program was written"),
            "set the clock, run an NTP client",
        );
    }
    Finding::ok("clock", format!("{now:.0}"))
}

/// The database's clock beside this machine's.
pub(super) fn database(reading: Result<&ClockReading, &QueueError>) -> Finding {
    const NAME: &str = "clock.database";
    match reading {
        Ok(reading) => judged(NAME, "the database's", reading),
        Err(error) => Finding::warn(NAME, causes(error), "it could not be read: look at the database"),
    }
}

/// A node's clock, which it tells by whole seconds, between what this machine's said before and after.
pub(super) fn node(before: Timestamp, told: Timestamp, after: Timestamp) -> Finding {
    let ClockReading { ahead_us, uncertain_us } = ClockReading::of(before, told, after);
    // what it told has lost up to a second, half a second in the middle
    let reading = ClockReading { ahead_us: ahead_us + 500_000, uncertain_us: uncertain_us + 500_000 };
    judged("clock.node", "the node's", &reading)
}

fn judged(name: &'static str, whose: &str, reading: &ClockReading) -> Finding {
    let ClockReading { ahead_us, uncertain_us } = *reading;
    // what can be explained by the way there and back is no skew
    let surely_us = ahead_us.saturating_abs().saturating_sub(uncertain_us).max(0);
    let seconds = |us: i64| us as f64 / 1e6;
    let way = if ahead_us < 0 { "behind" } else { "ahead of" };
    let words = format!(
        "{whose} is {:.3} s {way} this machine's, give or take {:.3} s",
        seconds(ahead_us.saturating_abs()),
        seconds(uncertain_us)
    );
    let remedy = "run an NTP client on both";
    match surely_us {
        FAIL_US.. => Finding::fail(name, words, remedy),
        WARN_US.. => Finding::warn(name, words, remedy),
        _ => Finding::ok(name, words),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level::{Fail, Ok, Warn};
    use super::*;

    #[test]
    fn clocks_that_are_apart_are_told() {
        let level =
            |ahead_us, uncertain_us| judged("x", "its", &ClockReading { ahead_us, uncertain_us }).level;
        assert_eq!((level(900_000, 0), level(-900_000, 0)), (Ok, Ok));
        assert_eq!((level(1_100_000, 0), level(-1_100_000, 1_000)), (Warn, Warn));
        assert_eq!((level(31_000_000, 1_000), level(-31_000_000, 1_000)), (Fail, Fail));
        // a slow network explains it
        assert_eq!((level(2_000_000, 1_500_000), level(i64::MIN, 0)), (Ok, Fail));
    }

    #[test]
    fn a_node_tells_whole_seconds() {
        let at = |ms: i64| Timestamp::from_millisecond(1_800_000_000_000 + ms).unwrap();
        assert_eq!(node(at(900), at(0), at(910)).level, Ok);
        assert_eq!(node(at(900), at(3_000), at(910)).level, Warn);
        assert_eq!(node(at(900), at(-60_000), at(910)).level, Fail);
    }
}
