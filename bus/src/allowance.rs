//! How many messages somebody may send: a rate with a burst, kept by governor (GCRA: one number, no timer).

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use std::fmt;
use std::num::NonZero;
use std::time::Duration;

/// So many a second, and so many at once after a while of silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// In the long run.
    pub per_second: NonZero<u32>,
    /// At once.
    pub burst: NonZero<u32>,
}

impl Rate {
    /// The same for governor.
    fn quota(self) -> Quota {
        Quota::per_second(self.per_second).allow_burst(self.burst)
    }
}

/// What is left of a [`Rate`]. Whoever shares one shares what is left.
pub struct Allowance {
    limiter: DefaultDirectRateLimiter,
    rate: Rate,
}

impl Allowance {
    /// A whole burst is left.
    pub fn new(rate: Rate) -> Allowance {
        Allowance { limiter: RateLimiter::direct(rate.quota()), rate }
    }

    /// Takes `n`, all or nothing. More than a burst counts as a burst, since it would never be there.
    ///
    /// # Errors
    /// How long until as many will be there, if nobody takes any before.
    pub fn take(&self, n: u32) -> Result<(), Duration> {
        let Some(n) = NonZero::new(n) else { return Ok(()) };
        match self.limiter.check_n(n.min(self.rate.burst)) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(not_until)) => Err(not_until.wait_time_from(DefaultClock::default().now())),
            // cannot be: never more than a burst is asked for
            Err(_) => Err(Duration::from_secs(1)),
        }
    }
}

impl fmt::Debug for Allowance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Allowance").field("rate", &self.rate).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowance(per_second: u32, burst: u32) -> Allowance {
        let count = |n| NonZero::new(n).unwrap();
        Allowance::new(Rate { per_second: count(per_second), burst: count(burst) })
    }

    #[test]
    fn a_burst_is_there_at_once_and_no_more() {
        // so slow that none comes back while the test runs
        let quota = allowance(1, 3);
        let taken = (0..10).filter(|_| quota.take(1).is_ok()).count();
        assert!((3..=4).contains(&taken), "{taken}");
        let wait = quota.take(1).unwrap_err();
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(1), "{wait:?}");
    }

    #[test]
    fn what_is_taken_at_once_is_taken_whole_or_not_at_all() {
        let quota = allowance(1, 5);
        assert!(quota.take(4).is_ok());
        assert!(quota.take(4).is_err());
        assert!(quota.take(1).is_ok(), "what was refused was not taken");
        assert!(quota.take(0).is_ok());
    }

    #[test]
    fn more_than_a_burst_is_a_burst() {
        let quota = allowance(1, 5);
        assert!(quota.take(1_000).is_ok(), "else it could never be sent");
        assert!(quota.take(1).is_err());
    }
}
