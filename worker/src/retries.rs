//! How long the jobs of a task wait for their automatic retries.

use std::time::Duration;

/// A first pause that grows with each retry, up to a longest one, a little more or less.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TaskBackoff {
    /// After the first failed run.
    pub first: Duration,
    /// Each further one is so many times longer; 1 keeps it.
    pub factor: f64,
    /// None is longer.
    pub max: Duration,
    /// So much of it more or less, 0 to 1, so that what failed together does not come back together.
    pub jitter: f64,
}

impl Default for TaskBackoff {
    fn default() -> TaskBackoff {
        TaskBackoff {
            first: Duration::from_secs(15),
            factor: 2.0,
            max: Duration::from_secs(3_600),
            jitter: 0.1,
        }
    }
}

impl TaskBackoff {
    /// The pause after the run of this number, from 1. `random` is -1 to 1.
    pub fn pause(&self, attempt: i32, random: f64) -> Duration {
        let (first, max) = (self.first.as_secs_f64(), self.max.as_secs_f64());
        let grown = first * self.factor.max(1.0).powi(attempt.saturating_sub(1).max(0));
        let capped = if grown.is_finite() { grown.min(max) } else { max };
        let jittered = capped * (1.0 + self.jitter.clamp(0.0, 1.0) * random.clamp(-1.0, 1.0));
        Duration::try_from_secs_f64(jittered.min(max)).unwrap_or(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_the_longest_a_little_more_or_less() {
        let backoff = TaskBackoff {
            first: Duration::from_secs(2),
            factor: 3.0,
            max: Duration::from_secs(30),
            jitter: 0.5,
        };
        let seconds = |attempt, random| backoff.pause(attempt, random).as_secs_f64();
        assert_eq!(
            [1, 2, 3, 4, 2_000_000_000].map(|attempt| seconds(attempt, 0.0)),
            [2.0, 6.0, 18.0, 30.0, 30.0]
        );
        assert_eq!((seconds(1, -1.0), seconds(1, 1.0), seconds(9, 1.0)), (1.0, 3.0, 30.0));
        let steady = TaskBackoff { factor: 0.0, ..backoff };
        assert_eq!(steady.pause(9, 0.0), Duration::from_secs(2));
    }
}
