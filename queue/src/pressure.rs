//! What nodes say when they cannot follow the journal, and how claims give way to it.
//!
//! A claim writes at least two events, and nobody is kept waiting by fewer claims a second but jobs that wait anyway; so it is
//! claims that are slowed when the journal grows faster than it is relayed, and never enqueues (ADR 0013). Each process
//! slows its own: it looks once a second what is said, halves its rate with each look while the journal is beyond a bound,
//! keeps it while that falls, and doubles it when nobody says anything any more. It always goes on at
//! [`RATE_MIN`]: a relay that stands still for ever must not stop the work.

use crate::error::QueueError;
use crate::metrics::CLAIMS_SLOWED;
use async_trait::async_trait;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tracing::{info, warn};
use uuid::Uuid;

/// What was said so long ago no longer counts: who said it is gone, or well.
pub const PRESSURE_LIFE: Duration = Duration::from_secs(5);
/// Between two looks of one process.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Jobs a second that a process may claim whatever is said.
const RATE_MIN: f64 = 1.0;

/// How far behind somebody is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pressure {
    /// Beyond a bound: fewer must be claimed.
    Rising,
    /// Below it, and not yet well: as many as now.
    Easing,
}

/// What nodes say about themselves.
#[async_trait]
pub trait Pressured: Send + Sync {
    /// A node is behind, or no more. What it says counts for [`PRESSURE_LIFE`].
    async fn press(&self, node: Uuid, pressure: Option<Pressure>) -> Result<(), QueueError>;

    /// The worst of what nodes say now.
    async fn pressure(&self) -> Result<Option<Pressure>, QueueError>;
}

/// The rate of one process's claims: pure, times are since its start.
#[derive(Debug, Default)]
struct Throttle {
    /// Jobs a second; without one, as many as are asked for.
    rate: Option<f64>,
    /// Before it was slowed.
    usual: f64,
    tokens: f64,
    filled: Duration,
    /// Claimed since the last look.
    taken: u64,
    looked: Duration,
}

impl Throttle {
    fn heard(&mut self, pressure: Option<Pressure>, now: Duration) {
        let span = now.saturating_sub(self.looked).max(LOOK_EVERY).as_secs_f64();
        let measured = self.taken as f64 / span;
        (self.taken, self.looked) = (0, now);
        match (pressure, self.rate) {
            (Some(Pressure::Rising), None) => {
                self.usual = measured;
                self.rate = Some((measured / 2.0).max(RATE_MIN));
                (self.tokens, self.filled) = (0.0, now);
            }
            (Some(Pressure::Rising), Some(rate)) => self.rate = Some((rate / 2.0).max(RATE_MIN)),
            (Some(Pressure::Easing), _) | (None, None) => {}
            (None, Some(rate)) => self.rate = Some(rate * 2.0).filter(|rate| *rate < self.usual * 2.0),
        }
    }

    /// So many of `wanted` may be claimed now.
    fn allow(&mut self, wanted: u32, now: Duration) -> u32 {
        let Some(rate) = self.rate else { return wanted };
        let span = now.saturating_sub(self.filled).as_secs_f64();
        self.filled = now;
        self.tokens = (self.tokens + rate * span).min(rate);
        wanted.min(self.tokens as u32)
    }

    fn took(&mut self, count: usize) {
        self.taken += count as u64;
        if self.rate.is_some() {
            self.tokens -= count as f64;
        }
    }
}

/// The same with a clock, for a store.
#[derive(Debug)]
pub(crate) struct Slowing {
    began: Instant,
    inner: Mutex<(Throttle, Option<Instant>)>,
}

impl Slowing {
    pub(crate) fn new() -> Slowing {
        Slowing { began: Instant::now(), inner: Mutex::default() }
    }

    fn inner(&self) -> MutexGuard<'_, (Throttle, Option<Instant>)> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Is it time to look again? Then somebody looks, and nobody else meanwhile.
    fn must_look(&self) -> bool {
        let (now, mut inner) = (Instant::now(), self.inner());
        let due = inner.1.is_none_or(|looked| now.duration_since(looked) >= LOOK_EVERY);
        if due {
            inner.1 = Some(now);
        }
        due
    }

    fn heard(&self, pressure: Option<Pressure>) {
        let (before, after) = {
            let mut inner = self.inner();
            let before = inner.0.rate.is_some();
            inner.0.heard(pressure, self.began.elapsed());
            (before, inner.0.rate.is_some())
        };
        match (before, after) {
            (false, true) => warn!("The journal is not relayed as fast as it grows: claims are slowed."),
            (true, false) => info!("The journal is relayed again: claims are as fast as before."),
            (true, true) | (false, false) => {}
        }
        metrics::gauge!(CLAIMS_SLOWED).set(u32::from(after));
    }

    /// So many of `wanted` jobs may be claimed now.
    pub(crate) async fn room(&self, store: &dyn Pressured, wanted: u32) -> u32 {
        if wanted == 0 {
            return 0;
        }
        // what cannot be looked at is told by the claim itself
        if self.must_look()
            && let Ok(pressure) = store.pressure().await
        {
            self.heard(pressure);
        }
        self.inner().0.allow(wanted, self.began.elapsed())
    }

    /// So many were claimed.
    pub(crate) fn took(&self, count: usize) {
        self.inner().0.took(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RISING: Option<Pressure> = Some(Pressure::Rising);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// A process that claims as much as it may, for a second.
    fn second(throttle: &mut Throttle, pressure: Option<Pressure>, now: u64) -> u32 {
        throttle.heard(pressure, at(now));
        let mut claimed = 0;
        for tenth in 1..10 {
            let got = throttle.allow(100, at(now) + Duration::from_millis(100 * tenth));
            throttle.took(got as usize);
            claimed += got;
        }
        claimed
    }

    #[test]
    fn claims_are_halved_while_it_rises_kept_while_it_falls_and_come_back() {
        let mut throttle = Throttle::default();
        assert_eq!(second(&mut throttle, None, 1), 900);
        let slowed: Vec<u32> = (2..16).map(|now| second(&mut throttle, RISING, now)).collect();
        assert!(slowed[0] > 300 && slowed[0] < 500, "{slowed:?}");
        assert!(slowed.windows(2).all(|two| two[1] <= two[0].max(1)), "{slowed:?}");
        assert!(slowed.iter().sum::<u32>() < 1_000);
        assert!(slowed[9..].iter().all(|n| *n <= 1) && slowed[9..].contains(&1), "never none: {slowed:?}");
        let held = (second(&mut throttle, Some(Pressure::Easing), 16), throttle.rate);
        assert!(held.0 <= 1 && held.1 == Some(RATE_MIN));
        let mut now = 17;
        while throttle.rate.is_some() {
            second(&mut throttle, None, now);
            now += 1;
        }
        assert!(now < 30, "it comes back within seconds: {now}");
        assert_eq!(second(&mut throttle, None, now), 900);
    }

    #[test]
    fn who_hears_only_of_an_end_is_not_slowed() {
        let mut throttle = Throttle::default();
        throttle.heard(Some(Pressure::Easing), at(1));
        assert_eq!(throttle.allow(1_000, at(1)), 1_000);
    }
}
