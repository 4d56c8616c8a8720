//! When schedules are due, and what a firing brings: pure decisions. Times are whole microseconds since 1970.

use super::Timing;
use crate::rules::micros;
use jiff::Timestamp;
use minium_protocol::Missed;

/// One firing makes up for no more missed ones by a job each; what is beyond is let go. (The jobs of one schedule are
/// alike, so that nobody can tell which.)
pub const CAUGHT_UP_MAX: usize = 1_000;
/// What has no next time waits for the end of all times.
pub const NEVER: i64 = 253_402_200_000_000_000;

/// What a schedule is to do now, and when it is due next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Firing {
    /// So many jobs it is to enqueue.
    pub jobs: usize,
    /// More firings were missed than are made up.
    pub let_go: bool,
    /// When it is due next.
    pub next: i64,
}

/// Judges one schedule, which was to fire at `planned`. Those that follow a late firing stay in step.
pub fn firing(timing: &Timing, missed: Missed, planned: i64, now: i64) -> Firing {
    let planned = nearer(timing, planned, now);
    if planned > now {
        return Firing { jobs: 0, let_go: false, next: planned };
    }
    let (times, let_go) = match missed {
        Missed::Fold => (1, false),
        Missed::All => missed_times(timing, planned, now),
    };
    Firing { jobs: times, let_go, next: next_behind(timing, planned, now) }
}

/// When a schedule is due that was just put. `before` is how it was until then, and when it was due.
pub fn at_put(before: Option<(&Timing, i64)>, timing: &Timing, now: i64) -> i64 {
    match (before, timing) {
        (Some((before, planned)), timing) if before == timing => nearer(timing, planned, now),
        // another interval keeps the step, and what was missed
        (Some((Timing::Every(_), planned)), Timing::Every(_)) => nearer(timing, planned, now),
        (_, Timing::Every(_)) => now,
        (_, Timing::Cron { .. }) => next_behind(timing, now, now),
    }
}

/// When a schedule is due that is fired again after a pause: what it would have fired meanwhile is no firing.
pub fn at_resume(timing: &Timing, planned: i64, now: i64) -> i64 {
    let planned = nearer(timing, planned, now);
    if planned > now { planned } else { next_behind(timing, planned, now) }
}

/// What repeats is never further away than its interval: a shorter one counts at once, and so does a clock put right.
fn nearer(timing: &Timing, planned: i64, now: i64) -> i64 {
    match timing {
        Timing::Every(every) => planned.min(now.saturating_add(micros(*every))),
        Timing::Cron { .. } => planned,
    }
}

/// The first due time after `now`, in step with `planned`, which is not after it.
fn next_behind(timing: &Timing, planned: i64, now: i64) -> i64 {
    match timing {
        Timing::Every(every) => {
            let every = micros(*every).max(1);
            planned.saturating_add(((now - planned) / every + 1).saturating_mul(every))
        }
        Timing::Cron { .. } => after(timing, now).unwrap_or(NEVER),
    }
}

/// How many firings there were from `planned` up to now, that one among them; and were there more than are made up?
fn missed_times(timing: &Timing, planned: i64, now: i64) -> (usize, bool) {
    match timing {
        Timing::Every(every) => {
            let times = usize::try_from((now - planned) / micros(*every).max(1)).unwrap_or(usize::MAX);
            (times.saturating_add(1).min(CAUGHT_UP_MAX), times >= CAUGHT_UP_MAX)
        }
        Timing::Cron { .. } => {
            let (mut times, mut at) = (1, planned);
            // one more than is made up is all that needs to be known
            while times <= CAUGHT_UP_MAX {
                match after(timing, at).filter(|next| *next <= now) {
                    Some(next) => (times, at) = (times + 1, next),
                    None => return (times, false),
                }
            }
            (CAUGHT_UP_MAX, true)
        }
    }
}

/// The first firing of an expression after a moment.
fn after(timing: &Timing, moment: i64) -> Option<i64> {
    let Timing::Cron { cron, zone, .. } = timing else { return None };
    let moment = Timestamp::from_microsecond(moment).ok()?;
    cron.next_after(moment, zone).map(Timestamp::as_microsecond).filter(|next| *next < NEVER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    const SECOND: i64 = 1_000_000;
    const HOUR: i64 = 3_600 * SECOND;

    fn every(seconds: u64) -> Timing {
        Timing::Every(Duration::from_secs(seconds))
    }

    fn cron(text: &str) -> Timing {
        Timing::new(None, Some(text), None).unwrap()
    }

    #[test]
    fn a_new_interval_is_due_at_once_and_a_new_expression_at_its_next_time() {
        assert_eq!(at_put(None, &every(10), 7), 7);
        assert_eq!(at_put(None, &cron("0 * * * *"), HOUR + 1), 2 * HOUR);
        assert_eq!(at_put(None, &cron("0 * * * *"), HOUR), 2 * HOUR, "not the time that it is");
    }

    #[test]
    fn what_is_put_again_keeps_its_step() {
        let (ten, twenty, hourly) = (every(10), every(20), cron("0 * * * *"));
        assert_eq!(
            at_put(Some((&twenty, 19 * SECOND)), &ten, 5 * SECOND),
            15 * SECOND,
            "a shorter one comes nearer"
        );
        assert_eq!(at_put(Some((&ten, 9 * SECOND)), &twenty, 5 * SECOND), 9 * SECOND);
        assert_eq!(
            at_put(Some((&ten, 3 * SECOND)), &ten, 50 * SECOND),
            3 * SECOND,
            "what was missed stays missed"
        );
        assert_eq!(at_put(Some((&hourly, HOUR)), &hourly, 5 * HOUR), HOUR);
        assert_eq!(at_put(Some((&hourly, HOUR)), &cron("30 * * * *"), 5 * HOUR), 5 * HOUR + HOUR / 2);
        assert_eq!(at_put(Some((&hourly, 9 * HOUR)), &ten, 5 * HOUR), 5 * HOUR);
        assert_eq!(at_put(Some((&ten, 1)), &hourly, 5 * HOUR), 6 * HOUR);
    }

    #[test]
    fn missed_firings_are_folded_or_made_up_one_by_one() {
        let (ten, hourly) = (every(10), cron("0 * * * *"));
        let fired = |timing, missed, planned, now| {
            let f = firing(timing, missed, planned, now);
            (f.jobs, f.let_go, f.next)
        };
        assert_eq!(fired(&ten, Missed::Fold, 10 * SECOND, 9 * SECOND), (0, false, 10 * SECOND));
        assert_eq!(fired(&ten, Missed::Fold, 10 * SECOND, 35 * SECOND), (1, false, 40 * SECOND));
        assert_eq!(fired(&ten, Missed::All, 10 * SECOND, 35 * SECOND), (3, false, 40 * SECOND));
        assert_eq!(fired(&ten, Missed::All, 0, 10 * 999 * SECOND), (1_000, false, 10_000 * SECOND));
        assert_eq!(fired(&ten, Missed::All, 0, 10 * 1_000 * SECOND), (1_000, true, 10_010 * SECOND));
        assert_eq!(fired(&hourly, Missed::Fold, HOUR, 5 * HOUR), (1, false, 6 * HOUR));
        assert_eq!(fired(&hourly, Missed::All, HOUR, 5 * HOUR + 1), (5, false, 6 * HOUR));
        assert_eq!(fired(&hourly, Missed::All, 0, 999 * HOUR), (1_000, false, 1_000 * HOUR));
        assert_eq!(fired(&hourly, Missed::All, 0, 1_000 * HOUR), (1_000, true, 1_001 * HOUR));
    }

    #[test]
    fn a_pause_makes_nothing_up() {
        assert_eq!(at_resume(&every(10), 10 * SECOND, 35 * SECOND), 40 * SECOND);
        assert_eq!(at_resume(&every(10), 40 * SECOND, 35 * SECOND), 40 * SECOND);
        assert_eq!(at_resume(&cron("0 * * * *"), HOUR, 5 * HOUR), 6 * HOUR);
        assert_eq!(at_resume(&cron("0 * * * *"), 7 * HOUR, 5 * HOUR), 7 * HOUR);
    }

    proptest! {
        #[test]
        fn missed_firings_keep_their_step(planned in 0i64..1_000, span in 1u64..50, late in 0i64..500, all: bool) {
            let (planned, late) = (planned * SECOND, late * SECOND);
            let (missed, now) = (if all { Missed::All } else { Missed::Fold }, planned + late);
            let f = firing(&every(span), missed, planned, now);
            let step = i64::try_from(span).unwrap() * SECOND;
            prop_assert!(f.jobs > 0 && f.next > now && f.next <= now + step);
            prop_assert_eq!((f.next - planned) % step, 0);
            prop_assert_eq!(f.jobs, if all { usize::try_from(late / step + 1).unwrap() } else { 1 });
        }
    }
}
