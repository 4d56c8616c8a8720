//! Low-water marks: where a worker's claims begin to look.
//!
//! Jobs that were claimed leave dead index entries, and a transaction that stays open keeps them from being cleaned
//! up. A claim that had to pass over all of them would slow down for as long (measured: to 30 % after 20 s; with marks
//! 92 %). So a worker that gets all it asks for looks next time only behind what it got. A job that was committed late
//! may lie below the mark; so a claim that gets fewer looks again from the beginning, and besides every so often.

use crate::store::Claim;
use dashmap::DashMap;
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

/// So often a worker looks from the beginning, whatever it gets.
const RESCAN: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub(super) struct Marks {
    workers: DashMap<i64, WorkerMarks>,
    workers_max: usize,
}

#[derive(Debug)]
struct WorkerMarks {
    lanes: HashMap<(String, i32), i64>,
    /// The marks hold for what these tasks left behind.
    tasks: Option<Vec<String>>,
    rescanned: Instant,
    /// Counts claims, so that each queue comes first in its turn.
    turn: usize,
}

/// Where one claim looks.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Look {
    /// The queues, in this turn's order.
    pub(super) queues: Vec<String>,
    pub(super) mark_queues: Vec<String>,
    pub(super) mark_priorities: Vec<i32>,
    pub(super) marks: Vec<i64>,
}

impl Look {
    /// Does it look at everything?
    pub(super) fn is_whole(&self) -> bool {
        self.marks.is_empty()
    }

    /// The same queues, from the beginning.
    pub(super) fn whole(self) -> Look {
        Look { queues: self.queues, ..Look::default() }
    }
}

/// What a claim got from one place, for the marks.
pub(super) struct Got<'a> {
    pub(super) queue: &'a str,
    pub(super) priority: i32,
    pub(super) seq: i64,
}

impl Marks {
    pub(super) fn new(workers_max: usize) -> Marks {
        Marks { workers: DashMap::new(), workers_max }
    }

    /// Where the next claim of a worker looks.
    pub(super) fn look(&self, claim: &Claim, now: Instant) -> Look {
        let mut queues = claim.queues.clone();
        let Some(mut worker) = self.workers.get_mut(&claim.worker.id) else {
            return Look { queues, ..Look::default() };
        };
        worker.turn = worker.turn.wrapping_add(1);
        if !queues.is_empty() {
            let by = worker.turn % queues.len();
            queues.rotate_left(by);
        }
        if now.duration_since(worker.rescanned) >= RESCAN || worker.tasks != claim.tasks {
            worker.rescanned = now;
            worker.tasks.clone_from(&claim.tasks);
            worker.lanes.clear();
        }
        let mut look = Look { queues, ..Look::default() };
        for ((queue, priority), mark) in &worker.lanes {
            look.mark_queues.push(queue.clone());
            look.mark_priorities.push(*priority);
            look.marks.push(*mark);
        }
        look
    }

    /// Learns from a claim. Only one that got all it asked for leaves marks behind.
    pub(super) fn learn<'a>(
        &self,
        claim: &Claim,
        full: bool,
        got: impl Iterator<Item = Got<'a>>,
        now: Instant,
    ) {
        if !self.workers.contains_key(&claim.worker.id) && self.workers.len() >= self.workers_max {
            // marks only save work; whoever still claims has new ones soon
            self.workers.clear();
        }
        let mut worker = self.workers.entry(claim.worker.id).or_insert_with(|| WorkerMarks {
            lanes: HashMap::new(),
            tasks: claim.tasks.clone(),
            rescanned: now,
            turn: 0,
        });
        if !full {
            worker.lanes.clear();
            return;
        }
        let mut highest: HashMap<(&str, i32), i64> = HashMap::new();
        for g in got {
            let mark = highest.entry((g.queue, g.priority)).or_insert(g.seq);
            *mark = g.seq.max(*mark);
        }
        for ((queue, priority), mark) in highest {
            worker.lanes.insert((queue.to_owned(), priority), mark);
        }
    }

    /// The worker is gone.
    pub(super) fn forget(&self, worker: i64) {
        self.workers.remove(&worker);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use minium_protocol::WorkerRef;

    fn claim(worker: i64, queues: &[&str]) -> Claim {
        Claim {
            worker: WorkerRef { id: worker, host: "h".into(), pid: 1 },
            queues: queues.iter().map(|q| (*q).into()).collect(),
            tasks: None,
            limit: 2,
            lease: Duration::from_secs(1),
            min_priority: None,
            aged: None,
            caps: std::collections::BTreeMap::new(),
        }
    }

    fn got(seqs: &[i64]) -> impl Iterator<Item = Got<'static>> + '_ {
        seqs.iter().map(|seq| Got { queue: "a", priority: 0, seq: *seq })
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_claim_leaves_marks_and_a_short_one_takes_them_back() {
        let (marks, claim, now) = (Marks::new(10), claim(1, &["a"]), Instant::now());
        assert!(marks.look(&claim, now).is_whole());
        marks.learn(&claim, true, got(&[3, 7, 5]), now);
        let look = marks.look(&claim, now);
        assert_eq!(
            (look.mark_queues, look.mark_priorities, look.marks),
            (vec!["a".into()], vec![0], vec![7])
        );
        marks.learn(&claim, false, got(&[8]), now);
        assert!(marks.look(&claim, now).is_whole());
    }

    #[tokio::test(start_paused = true)]
    async fn marks_do_not_outlive_their_time_or_another_choice_of_tasks() {
        let (marks, mut claim, now) = (Marks::new(10), claim(1, &["a"]), Instant::now());
        marks.learn(&claim, true, got(&[3]), now);
        assert!(!marks.look(&claim, now + RESCAN / 2).is_whole());
        assert!(marks.look(&claim, now + RESCAN).is_whole());
        marks.learn(&claim, true, got(&[3]), now);
        claim.tasks = Some(vec!["t".into()]);
        assert!(marks.look(&claim, now).is_whole());
    }

    #[tokio::test(start_paused = true)]
    async fn each_queue_comes_first_in_its_turn() {
        let (marks, claim, now) = (Marks::new(10), claim(1, &["a", "b", "c"]), Instant::now());
        marks.learn(&claim, false, got(&[]), now);
        let mut first: Vec<_> = (0..3).map(|_| marks.look(&claim, now).queues[0].clone()).collect();
        first.sort();
        assert_eq!(first, ["a", "b", "c"]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_number_of_workers_is_bounded() {
        let (marks, now) = (Marks::new(3), Instant::now());
        for worker in 0..100 {
            marks.learn(&claim(worker, &["a"]), true, got(&[1]), now);
            assert!(marks.workers.len() <= 3);
        }
        marks.forget(99);
        assert!(marks.look(&claim(99, &["a"]), now).is_whole());
    }
}
