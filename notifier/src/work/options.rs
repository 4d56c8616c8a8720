//! Bounds and paces of the work behind durable push/pull channels.

use std::time::Duration;

/// Bounds and paces, with defaults.
#[derive(Debug, Clone)]
pub struct WorkOptions {
    /// This node in the list of workers; the machine's name when left out.
    pub host: Option<String>,
    /// How often pullers are looked for work when nothing said that there is any; jittered by a quarter either way.
    pub poll: Duration,
    /// At most so many jobs in one claim.
    pub claim_jobs_max: usize,
    /// Claims are made smaller when the jobs of the last one would take more memory together.
    pub claim_bytes_max: usize,
    /// After a claim that brought nothing, so many times its own length passes before the next: however often a busy
    /// queue wakes this node in vain, its database is not kept busy by that.
    pub vain_pause_factor: u32,
    /// But no more than this.
    pub vain_pause_max: Duration,
    /// A puller's credit never adds up to more.
    pub credit_max: u32,
    /// So many calls may wait for a turn, of pushes and of words each; further callers wait outside.
    pub waiting_max: usize,
    /// At most so many messages, or words, go to the database at once.
    pub batch_max: usize,
    /// And so many bytes of them, but for a single larger one.
    pub batch_bytes_max: usize,
    /// So many notes are written at the same time.
    pub notes_at_once: usize,
    /// How often this node says that it is alive, while it has pullers.
    pub heartbeat: Duration,
    /// The first pause after a failure; it doubles each time, with jitter,
    pub backoff_min: Duration,
    /// up to this.
    pub backoff_max: Duration,
    /// Of so many running jobs it is remembered who has them, so that they are told of a cancellation at once.
    pub held_max: usize,
    /// How long a note extends a lease that was given out by another node.
    pub foreign_lease: Duration,
}

impl Default for WorkOptions {
    fn default() -> WorkOptions {
        WorkOptions {
            host: None,
            poll: Duration::from_secs(1),
            claim_jobs_max: 1_000,
            claim_bytes_max: 32 << 20,
            vain_pause_factor: 4,
            vain_pause_max: Duration::from_millis(250),
            credit_max: 100_000,
            waiting_max: 1_024,
            batch_max: 500,
            batch_bytes_max: 8 << 20,
            notes_at_once: 4,
            heartbeat: Duration::from_secs(15),
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(5),
            held_max: 1_000_000,
            foreign_lease: Duration::from_secs(30),
        }
    }
}

/// A span that varies by a quarter either way.
pub(super) fn jittered(span: Duration) -> Duration {
    span.mul_f64(0.75 + fastrand::f64() / 2.0)
}

/// Pauses between attempts that fail.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// How long to wait after one more failure: half to all of the doubled span.
    pub(super) fn pause(&mut self, options: &WorkOptions) -> Duration {
        let span = options.backoff_min.saturating_mul(1 << self.failures.min(16)).min(options.backoff_max);
        self.failures = self.failures.saturating_add(1);
        span.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// It works again. Answers whether it had failed.
    pub(super) fn reset(&mut self) -> bool {
        std::mem::take(&mut self.failures) > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_bound_and_start_anew() {
        let options = WorkOptions::default();
        let mut backoff = Backoff::default();
        assert!(backoff.pause(&options) <= options.backoff_min);
        for _ in 0..30 {
            assert!(backoff.pause(&options) <= options.backoff_max);
        }
        assert!(backoff.pause(&options) >= options.backoff_max / 2);
        assert!(backoff.reset() && !backoff.reset());
        assert!(backoff.pause(&options) <= options.backoff_min);
    }
}
