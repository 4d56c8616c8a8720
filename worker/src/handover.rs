//! Outcomes on their way back to the source: which go into the next exchange, and what happens when one cannot be
//! stored.
//!
//! Pure: no clock, no await. An outcome leaves only with a verdict. While the source is away they wait, and the
//! worker stops claiming when too many do. If the source is there but refuses a batch, one outcome in it may be what
//! it cannot store (a result with a character that the database does not know, say): batches are halved until the
//! culprit stands alone, and that one is replaced by a failure that says so. Everybody else's work goes in.
//!
//! They wait in memory; with a spool they are on disk before they come here ([`crate::keeping`]). A source over
//! WebSocket takes them over at once and has a spool of its own.

use crate::options::WorkerOptions;
use minium_protocol::LeaseToken;
use minium_queue::{Ending, Outcome};
use std::collections::VecDeque;

/// An outcome that was refused so often on its own is replaced; the replacement is given up after as many.
const REFUSALS_MAX: u32 = 3;

#[derive(Debug)]
struct Waiting {
    outcome: Outcome,
    bytes: usize,
    /// How often it was refused while it stood alone in a batch.
    refusals: u32,
    /// It is no longer what the task said.
    replaced: bool,
}

/// Outcomes that wait.
#[derive(Debug)]
pub(crate) struct Handover {
    waiting: VecDeque<Waiting>,
    /// The first so many of `waiting` are in the exchange that is under way.
    offered: usize,
    bytes: usize,
    /// Halved by each refusal, doubled by each success.
    batch: usize,
    batch_max: usize,
    batch_bytes_max: usize,
    count_max: usize,
    bytes_max: usize,
}

impl Handover {
    pub(crate) fn new(options: &WorkerOptions) -> Handover {
        Handover {
            waiting: VecDeque::new(),
            offered: 0,
            bytes: 0,
            batch: options.batch_max,
            batch_max: options.batch_max,
            batch_bytes_max: options.batch_bytes_max,
            count_max: options.outcomes_max,
            bytes_max: options.outcomes_bytes_max,
        }
    }

    pub(crate) fn push(&mut self, outcome: Outcome) {
        let bytes = size(&outcome);
        self.bytes += bytes;
        self.waiting.push_back(Waiting { outcome, bytes, refusals: 0, replaced: false });
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// May more be claimed? Not while too much waits, nor while a culprit is looked for: a claim that fails would
    /// look like a refused outcome.
    pub(crate) fn may_claim(&self) -> bool {
        self.waiting.len() < self.count_max && self.bytes < self.bytes_max && self.batch == self.batch_max
    }

    /// The oldest outcomes, as many as go into one exchange.
    pub(crate) fn offer(&mut self) -> Vec<Outcome> {
        let mut bytes = 0;
        let fits = |w: &&Waiting| {
            bytes += w.bytes;
            bytes <= self.batch_bytes_max
        };
        let count = self.waiting.iter().take(self.batch).take_while(fits).count();
        self.offered = count.max(self.waiting.len().min(1));
        self.waiting.iter().take(self.offered).map(|w| w.outcome.clone()).collect()
    }

    /// What was offered is with the source now, but for what it left open, which waits on, in front. Answers one for
    /// each that was offered, in order: `None` for those that wait.
    pub(crate) fn accepted(&mut self, is_open: impl Fn(usize) -> bool) -> Vec<Option<(i64, LeaseToken)>> {
        self.batch = (self.batch * 2).min(self.batch_max);
        let offered = std::mem::take(&mut self.offered);
        let (mut open, mut answer) = (VecDeque::new(), Vec::with_capacity(offered));
        for (i, waiting) in self.waiting.drain(..offered).enumerate() {
            if is_open(i) {
                answer.push(None);
                open.push_back(waiting);
            } else {
                self.bytes -= waiting.bytes;
                answer.push(Some((waiting.outcome.job, waiting.outcome.lease)));
            }
        }
        open.append(&mut self.waiting);
        self.waiting = open;
        self.whole_batches_again();
        answer
    }

    /// The source was not reached: everything stays as it is.
    pub(crate) fn unreached(&mut self) {
        self.offered = 0;
    }

    /// The source was there and refused. Answers what is given up.
    pub(crate) fn refused(&mut self, reason: &str) -> Option<(i64, LeaseToken)> {
        let offered = std::mem::take(&mut self.offered);
        if offered == 0 {
            return None;
        }
        if offered > 1 {
            self.batch = (offered / 2).max(1);
            return None;
        }
        // alone now, and at most one claim beside it is to blame otherwise: none is made in this mode
        let alone_before = self.batch < self.batch_max;
        self.batch = self.batch.min(self.batch_max.saturating_sub(1)).clamp(1, self.batch_max);
        let first = self.waiting.front_mut().expect("what was offered still waits");
        first.refusals += u32::from(alone_before || self.batch_max == 1);
        if first.refusals < REFUSALS_MAX {
            return None;
        }
        if first.replaced {
            return self.give_up_first();
        }
        self.bytes -= first.bytes;
        let error = format!("the outcome could not be stored: {reason}");
        first.outcome.ending = Ending::failed_for_good(error);
        (first.bytes, first.refusals, first.replaced) = (size(&first.outcome), 0, true);
        self.bytes += first.bytes;
        None
    }

    fn give_up_first(&mut self) -> Option<(i64, LeaseToken)> {
        let first = self.waiting.pop_front()?;
        self.bytes -= first.bytes;
        self.whole_batches_again();
        Some((first.outcome.job, first.outcome.lease))
    }

    fn whole_batches_again(&mut self) {
        if self.waiting.is_empty() {
            self.batch = self.batch_max;
        }
    }
}

fn size(outcome: &Outcome) -> usize {
    match &outcome.ending {
        Ending::Finished(result) => result.get().len(),
        Ending::Failed { error, backtrace, .. } => error.len() + backtrace.as_ref().map_or(0, String::len),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::value::RawValue;

    fn outcome(job: i64, result: &str) -> Outcome {
        let result = RawValue::from_string(result.into()).unwrap();
        Outcome { job, lease: LeaseToken::fresh(), ending: Ending::Finished(result) }
    }

    fn options() -> WorkerOptions {
        WorkerOptions { batch_max: 8, batch_bytes_max: 100, outcomes_max: 20, ..WorkerOptions::default() }
    }

    fn ids(outcomes: &[Outcome]) -> Vec<i64> {
        outcomes.iter().map(|o| o.job).collect()
    }

    #[test]
    fn outcomes_go_in_order_and_leave_with_a_verdict_only() {
        let mut h = Handover::new(&options());
        (1..=10).for_each(|i| h.push(outcome(i, "1")));
        assert_eq!(ids(&h.offer()), (1..=8).collect::<Vec<_>>());
        h.unreached();
        assert_eq!(ids(&h.offer()), (1..=8).collect::<Vec<_>>(), "again, all of them");
        h.push(outcome(11, "1"));
        assert_eq!(h.accepted(|_| false).len(), 8);
        assert_eq!(ids(&h.offer()), [9, 10, 11]);
        h.accepted(|_| false);
        assert!(h.is_empty() && h.bytes == 0);
    }

    #[test]
    fn what_the_source_left_open_waits_on_in_front() {
        let mut h = Handover::new(&options());
        (1..=4).for_each(|i| h.push(outcome(i, "1")));
        h.offer();
        h.push(outcome(5, "1"));
        let judged: Vec<_> = h.accepted(|i| i == 0 || i == 2).iter().map(|j| j.map(|(job, _)| job)).collect();
        assert_eq!(judged, [None, Some(2), None, Some(4)]);
        assert_eq!((ids(&h.offer()), h.bytes), (vec![1, 3, 5], 3));
    }

    #[test]
    fn a_batch_is_bounded_in_bytes_but_a_large_one_goes_alone() {
        let mut h = Handover::new(&options());
        let large = format!("\"{}\"", "x".repeat(200));
        [outcome(1, &large), outcome(2, "1"), outcome(3, &large)].into_iter().for_each(|o| h.push(o));
        for expected in [vec![1], vec![2], vec![3]] {
            assert_eq!(ids(&h.offer()), expected);
            h.accepted(|_| false);
        }
    }

    #[test]
    fn too_much_that_waits_stops_claiming() {
        let mut h = Handover::new(&options());
        (0..19).for_each(|i| h.push(outcome(i, "1")));
        assert!(h.may_claim());
        h.push(outcome(20, "1"));
        assert!(!h.may_claim());
        h.offer();
        h.accepted(|_| false);
        assert!(h.may_claim());
        let mut h = Handover::new(&WorkerOptions { outcomes_bytes_max: 10, ..options() });
        h.push(outcome(1, "\"0123456789\""));
        assert!(!h.may_claim());
    }

    /// The source refuses every batch that holds the poisoned job; plays an exchange until nothing waits.
    fn play(h: &mut Handover, poisoned: impl Fn(&Outcome) -> bool) -> (Vec<Outcome>, Vec<i64>) {
        let (mut stored, mut given_up) = (Vec::new(), Vec::new());
        for _ in 0..1_000 {
            let offered = h.offer();
            if offered.is_empty() {
                return (stored, given_up);
            }
            if offered.iter().any(&poisoned) {
                given_up.extend(h.refused("no such character").map(|(job, _)| job));
            } else {
                h.accepted(|_| false);
                stored.extend(offered);
            }
        }
        panic!("it never ends");
    }

    #[test]
    fn one_outcome_that_cannot_be_stored_becomes_a_failure_and_holds_nobody_up() {
        for (count, batch_max) in [(8, 8), (1, 8), (5, 1), (20, 8)] {
            let mut h = Handover::new(&WorkerOptions { batch_max, ..options() });
            (1..=count).for_each(|i| h.push(outcome(i, if i == 1 { "\"\\u0000\"" } else { "1" })));
            let nul = |o: &Outcome| matches!(&o.ending, Ending::Finished(r) if r.get().contains("u0000"));
            let (stored, given_up) = play(&mut h, nul);
            assert_eq!(ids(&stored), (1..=count).collect::<Vec<_>>());
            assert!(given_up.is_empty());
            assert!(
                matches!(&stored[0].ending, Ending::Failed { error, retry: false, .. } if error.contains("character"))
            );
            assert!(stored[1..].iter().all(|o| matches!(o.ending, Ending::Finished(_))));
            assert_eq!(h.bytes, 0);
            assert!(h.may_claim(), "all is well again");
        }
    }

    #[test]
    fn an_outcome_that_is_refused_even_as_a_failure_is_given_up() {
        let mut h = Handover::new(&options());
        (1..=3).for_each(|i| h.push(outcome(i, "1")));
        let (stored, given_up) = play(&mut h, |o| o.job == 2);
        assert_eq!((ids(&stored), given_up), (vec![1, 3], vec![2]));
    }

    #[test]
    fn an_exchange_that_only_claims_blames_nobody() {
        let mut h = Handover::new(&options());
        assert!(h.offer().is_empty());
        assert_eq!(h.refused("no"), None);
        assert!(h.may_claim());
    }
}
