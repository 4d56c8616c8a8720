//! Whose turn it is to number the journal.
//!
//! The database decides: whoever wins a step leads. What is decided here is only how often to try: a leader at each
//! look, a follower rarely, and then only for what the leader left lying. Pure: no clock, no await.

use std::time::Duration;
use tokio::time::Instant;

/// How a node that does not lead behaves.
#[derive(Debug, Clone)]
pub(crate) struct TurnOptions {
    /// Between two attempts of a follower.
    pub(crate) follower_step: Duration,
    /// A follower numbers only what has waited for so long.
    pub(crate) patience: Duration,
}

/// What a look at the journal may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// Number what has waited for so long.
    Step(Duration),
    /// Only see what others have numbered.
    Watch,
}

/// What a step met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Met {
    /// We numbered.
    Won,
    /// Somebody else is numbering, or has.
    Another,
    /// Nothing to number.
    Nothing,
}

/// Do we lead?
#[derive(Debug)]
pub(crate) struct Turn {
    options: TurnOptions,
    leads: bool,
    next_try: Instant,
}

impl Turn {
    /// Who starts tries.
    pub(crate) fn new(options: TurnOptions, now: Instant) -> Turn {
        Turn { options, leads: true, next_try: now }
    }

    pub(crate) fn leads(&self) -> bool {
        self.leads
    }

    /// What the next look may do.
    pub(crate) fn look(&mut self, now: Instant) -> Look {
        if self.leads {
            return Look::Step(Duration::ZERO);
        }
        if now < self.next_try {
            return Look::Watch;
        }
        self.next_try = now + self.options.follower_step;
        Look::Step(self.options.patience)
    }

    /// What it met.
    pub(crate) fn met(&mut self, now: Instant, met: Met) {
        match met {
            Met::Won => self.leads = true,
            Met::Another if self.leads => {
                self.leads = false;
                self.next_try = now + self.options.follower_step;
            }
            // a follower's next attempt was set when it made the last: others at work must not put it off for ever
            Met::Another | Met::Nothing => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: TurnOptions =
        TurnOptions { follower_step: Duration::from_millis(500), patience: Duration::from_millis(300) };

    #[test]
    fn who_meets_another_watches_and_tries_rarely() {
        let start = Instant::now();
        let mut turn = Turn::new(OPTIONS, start);
        assert_eq!(turn.look(start), Look::Step(Duration::ZERO));
        turn.met(start, Met::Another);
        assert!(!turn.leads());
        assert_eq!(turn.look(start), Look::Watch);
        let later = start + OPTIONS.follower_step;
        assert_eq!(turn.look(later), Look::Step(OPTIONS.patience));
        turn.met(later, Met::Nothing);
        assert_eq!(turn.look(later), Look::Watch, "one try at a time");
        turn.met(later, Met::Another);
        let much_later = later + OPTIONS.follower_step;
        assert_eq!(turn.look(much_later), Look::Step(OPTIONS.patience), "others at work do not put it off");
    }

    #[test]
    fn who_wins_leads() {
        let start = Instant::now();
        let mut turn = Turn::new(OPTIONS, start);
        turn.met(start, Met::Another);
        turn.met(start, Met::Won);
        assert_eq!(turn.look(start), Look::Step(Duration::ZERO));
        turn.met(start, Met::Nothing);
        assert!(turn.leads(), "silence changes nothing");
    }
}
