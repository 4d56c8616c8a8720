//! Judges the positions of a durable subscription. Pure: no socket, no clock.
//!
//! What must hold: who reads through it gets each event once and in order, whatever is cut and sent again. An event
//! that was already delivered may come once more right after a resume (it is dropped); anywhere else a step back
//! means that the order is broken, and that is an error.

use minium_protocol::Position;
use serde::Deserialize;
use std::borrow::Cow;

/// The last position delivered, and what this connection has shown so far.
#[derive(Debug, Default)]
pub(crate) struct Order {
    last: Option<Position>,
    advanced: bool,
}

/// What to do with an event.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// Deliver it.
    New,
    /// It was delivered before the connection was cut.
    Duplicate,
    /// It comes behind this one, which was later.
    StepBack(Position),
}

impl Order {
    /// Everything behind `start` is new.
    pub(crate) fn starting_at(start: Option<Position>) -> Order {
        Order { last: start, advanced: false }
    }

    /// Where to resume.
    pub(crate) fn position(&self) -> Option<Position> {
        self.last
    }

    /// A new connection begins. `start` is where the server says that it begins; it counts only while nothing better
    /// is known.
    pub(crate) fn connected(&mut self, start: Option<Position>) {
        self.last = self.last.or(start);
        self.advanced = false;
    }

    /// Nothing up to this offset comes any more, of the epoch that holds.
    pub(crate) fn pass(&mut self, offset: u64) {
        if let Some(last) = &mut self.last {
            last.offset = last.offset.max(offset);
        }
    }

    /// Judges the next event.
    pub(crate) fn judge(&mut self, got: Position) -> Judgement {
        match self.last {
            // Offsets go on upward over a change of epoch, but it is the epoch that decides.
            Some(last) if (got.epoch, got.offset) <= (last.epoch, last.offset) => {
                if self.advanced {
                    Judgement::StepBack(last)
                } else {
                    Judgement::Duplicate
                }
            }
            _ => {
                self.last = Some(got);
                self.advanced = true;
                Judgement::New
            }
        }
    }
}

/// The position that an event carries, without looking into its data.
pub(crate) fn position_of(event: &str) -> Option<Position> {
    #[derive(Deserialize)]
    struct Extensions<'a> {
        #[serde(borrow)]
        epoch: Cow<'a, str>,
        #[serde(borrow)]
        sequence: Cow<'a, str>,
    }
    let found: Extensions<'_> = serde_json::from_str(event).ok()?;
    Some(Position { epoch: found.epoch.parse().ok()?, offset: found.sequence.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(epoch: u64, offset: u64) -> Position {
        Position { epoch, offset }
    }

    #[test]
    fn what_comes_again_after_a_resume_is_dropped() {
        let mut order = Order::default();
        assert_eq!(order.judge(at(1, 5)), Judgement::New);
        assert_eq!(order.judge(at(1, 9)), Judgement::New);
        order.connected(None);
        assert_eq!(order.judge(at(1, 5)), Judgement::Duplicate);
        assert_eq!(order.judge(at(1, 9)), Judgement::Duplicate);
        assert_eq!(order.judge(at(1, 10)), Judgement::New);
        assert_eq!(order.position(), Some(at(1, 10)));
    }

    #[test]
    fn a_step_back_on_one_connection_is_no_duplicate() {
        let mut order = Order::default();
        order.judge(at(1, 5));
        assert_eq!(order.judge(at(1, 4)), Judgement::StepBack(at(1, 5)));
        assert_eq!(order.judge(at(1, 5)), Judgement::StepBack(at(1, 5)));
    }

    #[test]
    fn a_later_epoch_goes_on_and_an_earlier_one_does_not() {
        let mut order = Order::starting_at(Some(at(1, 100)));
        assert_eq!(order.judge(at(2, 3)), Judgement::New);
        assert_eq!(order.judge(at(1, 101)), Judgement::StepBack(at(2, 3)));
    }

    #[test]
    fn the_servers_start_counts_until_something_was_delivered() {
        let mut order = Order::default();
        order.connected(Some(at(1, 7)));
        assert_eq!(order.position(), Some(at(1, 7)));
        order.judge(at(1, 8));
        order.connected(Some(at(1, 20)));
        assert_eq!(order.position(), Some(at(1, 8)), "an announced start never skips what was not delivered");
    }

    #[test]
    fn what_was_passed_is_not_asked_for_again() {
        let mut order = Order::default();
        order.pass(3);
        assert_eq!(order.position(), None);
        order.judge(at(1, 5));
        order.pass(4);
        assert_eq!(order.position(), Some(at(1, 5)));
        order.pass(9);
        assert_eq!(order.position(), Some(at(1, 9)));
        assert_eq!(order.judge(at(1, 8)), Judgement::StepBack(at(1, 9)));
    }

    #[test]
    fn positions_are_read_from_the_event_alone() {
        let event = r#"{"epoch":"3","sequence":"00000000000000012345","data":{"epoch":"9","sequence":"1"}}"#;
        assert_eq!(position_of(event), Some(at(3, 12_345)));
        for none in [
            "",
            "[]",
            "{}",
            r#"{"epoch":"1"}"#,
            r#"{"epoch":1,"sequence":2}"#,
            r#"{"data":{"epoch":"1","sequence":"2"}}"#,
        ] {
            assert_eq!(position_of(none), None, "{none}");
        }
    }
}
