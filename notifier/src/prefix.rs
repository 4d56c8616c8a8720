//! The rule that nothing is skipped: a position moves only over a gapless prefix.
//!
//! Pure. What was passed already is dropped, what continues the prefix is admitted, and behind a gap nothing is: the
//! caller reads what is missing first.

/// How far everything is known without a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Prefix {
    last: u64,
}

impl Prefix {
    /// Everything up to `last` is behind us.
    pub(crate) fn behind(last: u64) -> Prefix {
        Prefix { last }
    }

    /// The last offset of the prefix.
    pub(crate) fn last(self) -> u64 {
        self.last
    }

    /// The offset that continues it.
    pub(crate) fn next(self) -> u64 {
        self.last + 1
    }

    /// Takes from `batch`, which is in offset order, what continues the prefix.
    pub(crate) fn admit<T>(&mut self, batch: Vec<T>, offset: impl Fn(&T) -> u64) -> Vec<T> {
        let mut admitted = batch;
        admitted.retain(|item| {
            let continues = offset(item) == self.last + 1;
            if continues {
                self.last += 1;
            }
            continues
        });
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_was_passed_is_dropped_and_what_is_behind_a_gap_stays_out() {
        let mut prefix = Prefix::behind(3);
        assert_eq!(prefix.admit(vec![2, 3, 4, 5, 7, 8], |o| *o), [4, 5]);
        assert_eq!((prefix.last(), prefix.next()), (5, 6));
        assert_eq!(prefix.admit(vec![7], |o| *o), [] as [u64; 0]);
        assert_eq!(prefix.admit(vec![6, 7], |o| *o), [6, 7]);
    }

    /// Ranges of offsets as a sequencer, a gap read and a late duplicate would bring them.
    fn batches() -> impl Strategy<Value = Vec<(u64, u64)>> {
        prop::collection::vec((0u64..60, 0u64..20), 0..40)
    }

    proptest! {
        /// Whatever comes, in whatever order: what is admitted is 1, 2, 3, … without a hole or a double.
        #[test]
        fn what_is_admitted_is_dense(batches in batches()) {
            let mut prefix = Prefix::behind(0);
            let mut seen = Vec::new();
            for (first, count) in batches {
                seen.extend(prefix.admit((first..first + count).collect(), |o| *o));
                prop_assert_eq!(prefix.last(), seen.len() as u64);
            }
            prop_assert_eq!(&seen, &(1..=seen.len() as u64).collect::<Vec<_>>());
        }

        /// A reader that fills each gap before it goes on gets everything, exactly once.
        #[test]
        fn filling_gaps_loses_nothing(batches in batches()) {
            let mut prefix = Prefix::behind(0);
            let mut seen = Vec::new();
            let end = batches.iter().map(|(first, count)| first + count).max().unwrap_or(0);
            for (first, count) in batches {
                if first > prefix.next() {
                    seen.extend(prefix.admit((prefix.next()..first).collect(), |o| *o));
                }
                seen.extend(prefix.admit((first..first + count).collect(), |o| *o));
            }
            seen.extend(prefix.admit((prefix.next()..end).collect(), |o| *o));
            prop_assert_eq!(seen, (1..end.max(1)).collect::<Vec<_>>());
        }
    }
}
