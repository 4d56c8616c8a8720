//! Pauses between calls that fail: doubling, bounded, and never in step with other workers.

use crate::options::WorkerOptions;
use std::time::Duration;

/// Grows with each failure, starts anew with each success.
#[derive(Debug)]
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    pub(crate) fn new(options: &WorkerOptions) -> Backoff {
        Backoff { min: options.retry_min, max: options.retry_max.max(options.retry_min), failures: 0 }
    }

    /// How long to wait after one more failure: half to all of the doubled span.
    pub(crate) fn pause(&mut self) -> Duration {
        let span = self.min.saturating_mul(1 << self.failures.min(20)).min(self.max);
        self.failures = self.failures.saturating_add(1);
        span.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// Failures since the last success.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

/// A span that varies by a quarter either way.
pub(crate) fn jittered(span: Duration) -> Duration {
    span.mul_f64(0.75 + fastrand::f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_bound_and_start_anew() {
        let options = WorkerOptions::default();
        let mut backoff = Backoff::new(&options);
        let first = backoff.pause();
        assert!(first >= options.retry_min / 2 && first <= options.retry_min);
        for _ in 0..40 {
            assert!(backoff.pause() <= options.retry_max);
        }
        assert!(backoff.pause() >= options.retry_max / 2);
        backoff.reset();
        assert!(backoff.pause() <= options.retry_min);
    }
}
