//! One sweep a shard in place of a timer a session: pings, goodbyes that take too long, crowds, memory of quiet logs.

use crate::shard::Shard;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior};

/// Between sweeps.
const TICK: Duration = Duration::from_millis(100);
/// All sessions are looked at, and quiet logs, once in so many ticks.
const SLOW_TICKS: u32 = 10;
/// Sessions looked at before other tasks get a turn.
const STRIDE: usize = 1024;

/// How many ticks a duration has, one at least.
pub(crate) fn ticks(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis() / TICK.as_millis()).unwrap_or(u32::MAX / 4).clamp(1, u32::MAX / 4)
}

impl Shard {
    /// The tick of a new session's first ping.
    pub(crate) fn first_ping(&self) -> u32 {
        self.tick.get().wrapping_add(ticks(self.hub.options.ping_interval))
    }

    /// Runs as long as the shard does.
    pub(crate) async fn look_after(self: Rc<Self>) {
        let (ping, comment) = (self.hub.options.ping_interval, self.hub.options.comment_interval);
        // pings that come often are asked for in tests; otherwise once a second will do
        let often = ping.min(comment) < TICK * SLOW_TICKS * 2;
        let mut stopwatch = tokio::time::interval(TICK);
        stopwatch.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            stopwatch.tick().await;
            self.hub.tallies.clock.tick();
            let tick = self.tick.get().wrapping_add(1);
            self.tick.set(tick);
            let slow = tick.is_multiple_of(SLOW_TICKS);
            self.guarded(|| {
                self.cut_lingering();
                self.lose_patience();
                if slow {
                    self.cool_logs();
                }
            });
            let mut next = if slow || often { Some(0) } else { None };
            while let Some(first) = next {
                next = self.guarded(|| self.ping_some(first, tick, ticks(ping), ticks(comment))).flatten();
                tokio::task::yield_now().await;
            }
            if self.ends.get().is_some() {
                self.wake();
            }
        }
    }

    /// A fault in a sweep must not end all sweeps.
    fn guarded<T>(&self, sweep: impl FnOnce() -> T) -> Option<T> {
        let swept = catch_unwind(AssertUnwindSafe(sweep));
        swept.inspect_err(|_| tracing::error!(shard = self.id, "A sweep panicked.")).ok()
    }

    fn cut_lingering(&self) {
        let now = Instant::now();
        self.lingering.borrow_mut().retain(|(until, s)| match s.upgrade() {
            Some(s) if now >= *until => {
                s.cut();
                false
            }
            s => s.is_some(),
        });
    }

    /// Publishers stop waiting for subscribers of whom none makes progress.
    fn lose_patience(&self) {
        let patience = ticks(self.hub.options.patience) + 1;
        let crowds = self.crowds.borrow().clone();
        for log in crowds {
            let idle = if log.makes_progress() { 0 } else { log.idle_ticks.get() + 1 };
            log.idle_ticks.set(idle);
            if idle >= patience {
                log.impatient.set(true);
                self.disperse(&log);
            } else {
                self.mark(&log); // to be judged anew
            }
        }
    }

    /// Answers where to go on. Those who change places meanwhile are looked at by the next sweep.
    fn ping_some(&self, first: usize, tick: u32, ping: u32, comment: u32) -> Option<usize> {
        let now = jiff::Timestamp::now();
        let sessions = self.sessions.borrow();
        let stop = sessions.len().min(first + STRIDE);
        for s in sessions.get(first..stop).unwrap_or_default() {
            self.check_expiry(s, now);
            s.check_reading(tick, ticks(self.hub.options.message_time_max));
            s.ping(tick, if s.is_stream() { comment } else { ping });
        }
        (stop < sessions.len()).then_some(stop)
    }

    fn cool_logs(&self) {
        for log in self.shelf.borrow().iter().filter(|log| !log.hot.take()) {
            log.cool();
        }
    }
}
