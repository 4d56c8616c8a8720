//! When to look at the journal again.
//!
//! While events flow the journal is polled: a notification in each writer's transaction would make all commits wait
//! for one lock. After some silence the flag is armed, from then on writers notify, and the relay sleeps. A writer
//! that read the flag just before may commit just after, so a few passes follow the arming; and a slow poll always
//! runs, for what they miss and for connections on which notifications never arrive. Pure: no clock, no await.

use std::time::Duration;
use tokio::time::Instant;

/// How often the journal is looked at.
#[derive(Debug, Clone)]
pub struct WakeOptions {
    /// Between two looks while events flow.
    pub poll: Duration,
    /// After so long without events the relay goes to sleep.
    pub silence: Duration,
    /// So many looks follow the arming before it sleeps.
    pub passes: u32,
    /// Between two looks while it sleeps.
    pub slow_poll: Duration,
}

impl Default for WakeOptions {
    fn default() -> WakeOptions {
        WakeOptions {
            poll: Duration::from_millis(5),
            silence: Duration::from_secs(1),
            passes: 5,
            slow_poll: Duration::from_millis(250),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Events flow, or did a moment ago.
    Awake,
    /// The flag is armed, and so many looks are still due.
    Arming(u32),
    /// Whoever writes wakes us.
    Asleep,
}

/// What to do after a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Decision {
    /// Set the flag to this.
    pub(crate) arm: Option<bool>,
    /// Look again after so long,
    pub(crate) wait: Duration,
    /// or when something was signalled.
    pub(crate) listen: bool,
}

/// How wakeful the relay is.
#[derive(Debug)]
pub(crate) struct Wakefulness {
    options: WakeOptions,
    /// Every commit is signalled: there is nothing to poll for.
    signalled: bool,
    phase: Phase,
    active: Instant,
}

impl Wakefulness {
    pub(crate) fn new(options: WakeOptions, signalled: bool, now: Instant) -> Wakefulness {
        Wakefulness { options, signalled, phase: Phase::Awake, active: now }
    }

    /// After a look: did it find anything?
    pub(crate) fn after_look(&mut self, now: Instant, found: bool) -> Decision {
        if self.signalled {
            return Decision { arm: None, wait: self.options.slow_poll, listen: true };
        }
        if found {
            let slept = self.phase != Phase::Awake;
            self.phase = Phase::Awake;
            self.active = now;
            return self.poll(slept.then_some(false));
        }
        match self.phase {
            Phase::Awake if now.duration_since(self.active) < self.options.silence => self.poll(None),
            Phase::Awake => {
                self.phase = Phase::Arming(self.options.passes);
                self.poll(Some(true))
            }
            Phase::Arming(left) if left > 1 => {
                self.phase = Phase::Arming(left - 1);
                self.poll(None)
            }
            Phase::Arming(_) => {
                self.phase = Phase::Asleep;
                Decision { arm: None, wait: self.options.slow_poll, listen: true }
            }
            // another node may have woken and disarmed what we rely on
            Phase::Asleep => Decision { arm: Some(true), wait: self.options.slow_poll, listen: true },
        }
    }

    fn poll(&self, arm: Option<bool>) -> Decision {
        Decision { arm, wait: self.options.poll, listen: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> WakeOptions {
        WakeOptions { passes: 3, ..WakeOptions::default() }
    }

    #[test]
    fn it_arms_after_silence_looks_a_few_times_and_sleeps() {
        let start = Instant::now();
        let mut wake = Wakefulness::new(options(), false, start);
        let poll = Decision { arm: None, wait: options().poll, listen: false };
        assert_eq!(wake.after_look(start, true), poll);
        assert_eq!(wake.after_look(start + options().silence / 2, false), poll);
        let late = start + options().silence;
        assert_eq!(wake.after_look(late, false), Decision { arm: Some(true), ..poll });
        assert_eq!(wake.after_look(late, false), poll);
        assert_eq!(wake.after_look(late, false), poll);
        let sleep = Decision { arm: None, wait: options().slow_poll, listen: true };
        assert_eq!(wake.after_look(late, false), sleep);
        assert_eq!(
            wake.after_look(late, false),
            Decision { arm: Some(true), ..sleep },
            "armed again, to be sure"
        );
    }

    #[test]
    fn what_it_finds_while_armed_disarms_it() {
        let start = Instant::now();
        for looks in 1..8 {
            let mut wake = Wakefulness::new(options(), false, start);
            let late = start + options().silence;
            for _ in 0..looks {
                wake.after_look(late, false);
            }
            let woken = wake.after_look(late, true);
            assert_eq!(woken, Decision { arm: Some(false), wait: options().poll, listen: false });
            assert_eq!(wake.after_look(late, true).arm, None, "once is enough");
        }
    }

    #[test]
    fn where_every_commit_is_signalled_nothing_is_polled_or_armed() {
        let start = Instant::now();
        let mut wake = Wakefulness::new(options(), true, start);
        for found in [true, false, true] {
            let sleep = Decision { arm: None, wait: options().slow_poll, listen: true };
            assert_eq!(wake.after_look(start, found), sleep);
        }
    }
}
