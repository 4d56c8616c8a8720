//! How long to wait before coming back: doubling, jittered, bounded.

use std::time::Duration;

/// Pauses between attempts to come back. The count starts anew with each message that gets through.
#[derive(Debug, Clone)]
pub struct Backoff {
    /// Upper bound of the first pause.
    pub first: Duration,
    /// Upper bound of every pause, also of one that the server asks for.
    pub max: Duration,
    /// After so many failures in a row the subscription gives up; `None` never does: a dashboard and a recorder
    /// outlive every outage.
    pub failures_max: Option<u32>,
}

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff { first: Duration::from_millis(200), max: Duration::from_secs(15), failures_max: None }
    }
}

impl Backoff {
    /// No pauses at all; for tests, and for who paces elsewhere.
    pub fn none() -> Backoff {
        Backoff { first: Duration::ZERO, max: Duration::ZERO, failures_max: None }
    }

    /// The pause after the n-th failure in a row: anything up to `first · 2ⁿ⁻¹`, at most `max`. All of it is random, or
    /// the clients of a node that went down come back in the same instant.
    pub(crate) fn pause(&self, failures: u32, random: &mut fastrand::Rng) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let bound = self.first.saturating_mul(1 << doublings).min(self.max);
        bound.mul_f64(random.f64())
    }

    /// Was this failure one too many?
    pub(crate) fn gives_up(&self, failures: u32) -> bool {
        self.failures_max.is_some_and(|max| failures >= max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_with_jitter_and_never_pass_the_bound() {
        let backoff =
            Backoff { first: Duration::from_millis(100), max: Duration::from_secs(2), failures_max: None };
        let mut random = fastrand::Rng::with_seed(7);
        for failures in 1..200 {
            let bound = Duration::from_millis(100 << (failures - 1).min(10)).min(backoff.max);
            for _ in 0..50 {
                let pause = backoff.pause(failures, &mut random);
                assert!(pause <= bound, "failure {failures}: {pause:?} of {bound:?}");
            }
        }
        let many: Vec<_> = (0..200).map(|_| backoff.pause(3, &mut random)).collect();
        let quarter = Duration::from_millis(100);
        assert!(many.iter().any(|p| *p < quarter) && many.iter().any(|p| *p > 3 * quarter), "{many:?}");
    }

    #[test]
    fn nothing_is_waited_for_when_nothing_was_asked() {
        let mut random = fastrand::Rng::with_seed(1);
        assert!((0..100).all(|n| Backoff::none().pause(n, &mut random).is_zero()));
        assert!(!Backoff::none().gives_up(u32::MAX));
        assert!(Backoff { failures_max: Some(3), ..Backoff::none() }.gives_up(3));
    }
}
