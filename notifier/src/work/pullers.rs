//! Who takes how many jobs of what: pullers by what they ask for, each group in a strict turn.
//!
//! Pure but for the mutex around it: no clock, no await, no database. Pullers that ask for the same tasks of the same
//! queue under the same lease are one group, and one pull. Credit that is asked with leaves the puller until the
//! claim is back, so that nobody gets more than he gave.

use minium_bus::{Order, Puller};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// What a group asks for.
#[derive(Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Wish {
    pub(super) queue: String,
    pub(super) tasks: Vec<String>,
    pub(super) lease: Duration,
}

impl Wish {
    fn of(order: &Order) -> Wish {
        let mut tasks: Vec<String> = order.tasks.iter().map(|task| task.as_str().to_owned()).collect();
        tasks.sort_unstable();
        tasks.dedup();
        let queue = order.queue.clone().unwrap_or_else(|| minium_protocol::JobOptions::default().queue);
        Wish { queue, tasks, lease: order.lease }
    }
}

#[derive(Debug)]
struct Member {
    name: String,
    credit: u32,
    puller: Arc<dyn Puller>,
}

impl Member {
    /// How many jobs of so many bytes he takes now. Who has room takes one of any size.
    fn takes(&self, job_bytes: usize) -> u32 {
        if self.credit == 0 {
            return 0;
        }
        match self.puller.room() {
            0 => 0,
            room => u32::try_from(room / job_bytes.max(1)).unwrap_or(u32::MAX).clamp(1, self.credit),
        }
    }
}

#[derive(Debug, Default)]
struct Group {
    /// By when they joined.
    members: BTreeMap<u64, Member>,
    /// Of all members together.
    credit: u64,
    /// Who was served last.
    served: u64,
    /// It stands in the queue of those to be looked for.
    queued: bool,
    /// Counts pulls, so that each task comes first in its turn.
    turn: usize,
}

/// One pull that is under way.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) wish: Arc<Wish>,
    /// The tasks, in the order of this turn.
    pub(super) tasks: Vec<String>,
    /// Who gets the first job, the second, and so on, with the name that the job bears.
    pub(super) takers: Vec<(u64, String)>,
}

/// All who pull here.
#[derive(Debug, Default)]
pub(super) struct Pullers {
    groups: HashMap<Arc<Wish>, Group>,
    wishes: HashMap<u64, Arc<Wish>>,
    /// Groups for which there may be work.
    queue: VecDeque<Arc<Wish>>,
    last_id: u64,
}

impl Pullers {
    /// A puller joins, without credit.
    pub(super) fn join(&mut self, order: &Order, puller: Arc<dyn Puller>) -> u64 {
        self.last_id += 1;
        let wish = Wish::of(order);
        let known = self.groups.get_key_value(&wish).map(|(known, _)| known.clone());
        let wish = known.unwrap_or_else(|| Arc::new(wish));
        let member = Member { name: order.name.clone(), credit: 0, puller };
        self.groups.entry(wish.clone()).or_default().members.insert(self.last_id, member);
        self.wishes.insert(self.last_id, wish);
        self.last_id
    }

    /// A puller is gone.
    pub(super) fn leave(&mut self, id: u64) {
        let Some(wish) = self.wishes.remove(&id) else { return };
        let Some(group) = self.groups.get_mut(&wish) else { return };
        if let Some(member) = group.members.remove(&id) {
            group.credit -= u64::from(member.credit);
        }
        if group.members.is_empty() {
            self.groups.remove(&wish);
            self.queue.retain(|queued| *queued != wish);
        }
    }

    /// A puller can take so many more.
    pub(super) fn credit(&mut self, id: u64, more: u32, max: u32) {
        let Some(wish) = self.wishes.get(&id).cloned() else { return };
        let Some(group) = self.groups.get_mut(&wish) else { return };
        let Some(member) = group.members.get_mut(&id) else { return };
        let before = member.credit;
        member.credit = before.saturating_add(more).min(max).max(before);
        group.credit += u64::from(member.credit - before);
        self.enqueue(wish);
    }

    /// There may be work for anybody.
    pub(super) fn wake(&mut self) {
        let wanting = self.groups.iter().filter(|(_, group)| !group.queued && group.credit > 0);
        let wanting: Vec<_> = wanting.map(|(wish, _)| wish.clone()).collect();
        wanting.into_iter().for_each(|wish| self.enqueue(wish));
    }

    fn enqueue(&mut self, wish: Arc<Wish>) {
        let Some(group) = self.groups.get_mut(&wish) else { return };
        if !group.queued && group.credit > 0 {
            group.queued = true;
            self.queue.push_back(wish);
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.wishes.len()
    }

    /// From which queues they take which tasks, so many of each at most.
    pub(super) fn names(&self, max: usize) -> (Vec<String>, Vec<String>) {
        let queues: BTreeSet<&String> = self.groups.keys().map(|wish| &wish.queue).collect();
        let tasks: BTreeSet<&String> = self.groups.keys().flat_map(|wish| &wish.tasks).collect();
        let first = |names: BTreeSet<&String>| names.into_iter().take(max).cloned().collect();
        (first(queues), first(tasks))
    }

    /// Does anybody want anything?
    pub(super) fn is_wanting(&self) -> bool {
        self.groups.values().any(|group| group.credit > 0)
    }

    /// The pulls of the groups whose turn it is, together for at most `jobs_max` jobs. They all get about the same.
    /// A job is expected to take `job_bytes`; nobody is asked for more than he has room for, but for one.
    pub(super) fn ask(&mut self, jobs_max: usize, job_bytes: usize) -> Vec<Asked> {
        let mut left = jobs_max.max(1);
        let share = (left / self.queue.len().max(1)).max(1);
        let mut asked = Vec::new();
        while left > 0
            && let Some(wish) = self.queue.pop_front()
        {
            let Some(group) = self.groups.get_mut(&wish) else { continue };
            group.queued = false;
            let takers = group.take_credit(share.min(left), job_bytes);
            if takers.is_empty() {
                continue;
            }
            left -= takers.len();
            group.turn = group.turn.wrapping_add(1);
            let mut tasks = wish.tasks.clone();
            if !tasks.is_empty() {
                let by = group.turn % tasks.len();
                tasks.rotate_left(by);
            }
            asked.push(Asked { wish, tasks, takers });
        }
        asked
    }

    /// A pull is back: it brought so many jobs. Whoever was asked for and got nothing has his credit again; a group that
    /// got all it asked for may find more.
    pub(super) fn answered(&mut self, asked: &Asked, got: usize) {
        let Some(group) = self.groups.get_mut(&asked.wish) else { return };
        for (id, _) in &asked.takers[got..] {
            if let Some(member) = group.members.get_mut(id) {
                member.credit += 1;
                group.credit += 1;
            }
        }
        if let Some(last) = got.checked_sub(1) {
            group.served = asked.takers[last].0;
        }
        if got == asked.takers.len() {
            self.enqueue(asked.wish.clone());
        }
    }

    /// A pull has failed: it is to be made again.
    pub(super) fn failed(&mut self, asked: &Asked) {
        self.answered(asked, 0);
        self.enqueue(asked.wish.clone());
    }

    /// What this group asks for was refused, and would be again: its members are forgotten. Answers how many they are.
    pub(super) fn refused(&mut self, asked: &Asked) -> usize {
        let Some(group) = self.groups.remove(&asked.wish) else { return 0 };
        self.queue.retain(|queued| *queued != asked.wish);
        group.members.keys().for_each(|id| drop(self.wishes.remove(id)));
        group.members.len()
    }

    /// Whose number this is, if he is still there.
    pub(super) fn puller(&self, id: u64) -> Option<Arc<dyn Puller>> {
        let member = self.groups.get(self.wishes.get(&id)?)?.members.get(&id)?;
        Some(member.puller.clone())
    }
}

impl Group {
    /// Takes up to `count` of the members' credit: round by round, beginning behind who was served last.
    fn take_credit(&mut self, count: usize, job_bytes: usize) -> Vec<(u64, String)> {
        let behind = self.served + 1;
        let all = self.members.range(behind..).chain(self.members.range(..behind));
        let takes = all.map(|(id, member)| (*id, member.takes(job_bytes))).filter(|(_, takes)| *takes > 0);
        let mut takes: Vec<(u64, u32)> = takes.collect();
        let mut takers = Vec::new();
        loop {
            let before = takers.len();
            for (id, left) in takes.iter_mut().filter(|(_, left)| *left > 0) {
                if takers.len() == count {
                    return takers;
                }
                let member = self.members.get_mut(id).expect("nobody left meanwhile");
                *left -= 1;
                member.credit -= 1;
                self.credit -= 1;
                takers.push((*id, member.name.clone()));
            }
            if takers.len() == before {
                return takers;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use minium_bus::LeasedJob;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Takes nothing, with room for so many bytes.
    #[derive(Debug)]
    struct Nobody(AtomicUsize);

    impl Puller for Nobody {
        fn take(&self, job: LeasedJob) -> Result<(), Box<LeasedJob>> {
            Err(Box::new(job))
        }

        fn room(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }

        fn cancelled(&self, _: i64) {}
    }

    fn join(pullers: &mut Pullers, tasks: &[&str], credit: u32) -> u64 {
        join_with(pullers, tasks, credit, usize::MAX).0
    }

    fn join_with(pullers: &mut Pullers, tasks: &[&str], credit: u32, room: usize) -> (u64, Arc<Nobody>) {
        let order = Order {
            tasks: tasks.iter().map(|t| t.parse().unwrap()).collect(),
            queue: None,
            lease: Duration::from_secs(30),
            name: tasks.join(","),
        };
        let puller = Arc::new(Nobody(AtomicUsize::new(room)));
        let id = pullers.join(&order, puller.clone());
        pullers.credit(id, credit, 100);
        (id, puller)
    }

    fn takers(asked: &Asked) -> Vec<u64> {
        asked.takers.iter().map(|(id, _)| *id).collect()
    }

    #[test]
    fn pullers_of_the_same_are_one_pull_and_served_in_turn() {
        let mut pullers = Pullers::default();
        let (a, b) = (join(&mut pullers, &["x", "y"], 2), join(&mut pullers, &["y", "x", "y"], 3));
        let idle = join(&mut pullers, &["x", "y"], 0);
        let asked = pullers.ask(100, 1);
        assert_eq!(asked.len(), 1);
        assert_eq!(takers(&asked[0]), [a, b, a, b, b]);
        let first_task = asked[0].tasks[0].clone();
        pullers.answered(&asked[0], 1);
        assert!(pullers.ask(100, 1).is_empty(), "it got less than it asked for");
        pullers.credit(idle, 1, 100);
        let asked = pullers.ask(100, 1);
        assert_eq!(takers(&asked[0]), [b, idle, a, b, b], "the turn goes on behind who was served");
        assert_ne!(asked[0].tasks[0], first_task, "each task comes first in its turn");
    }

    #[test]
    fn credit_is_never_exceeded_and_comes_back_when_it_was_not_used() {
        let mut pullers = Pullers::default();
        let a = join(&mut pullers, &["x"], 3);
        pullers.credit(a, 1_000, 5);
        let asked = pullers.ask(100, 1);
        assert_eq!(asked[0].takers.len(), 5, "it adds up to its bound");
        pullers.wake();
        assert!(pullers.ask(100, 1).is_empty(), "all of it is asked with");
        pullers.answered(&asked[0], 3);
        pullers.wake();
        let asked = pullers.ask(100, 1);
        assert_eq!(asked[0].takers.len(), 2);
        pullers.failed(&asked[0]);
        assert_eq!(pullers.ask(100, 1)[0].takers.len(), 2, "a failed pull is made again");
    }

    #[test]
    fn who_got_all_is_looked_for_again_and_all_groups_share() {
        let mut pullers = Pullers::default();
        let ids: Vec<u64> = (0..4).map(|n| join(&mut pullers, &[["a", "b", "c", "d"][n]], 10)).collect();
        let asked = pullers.ask(8, 1);
        assert_eq!(asked.iter().map(|a| a.takers.len()).collect::<Vec<_>>(), [2, 2, 2, 2]);
        asked.iter().for_each(|a| pullers.answered(a, if a.wish.tasks == ["b"] { 2 } else { 0 }));
        let asked = pullers.ask(8, 1);
        assert_eq!(asked.iter().flat_map(takers).collect::<Vec<_>>(), [ids[1]; 8]);
    }

    #[test]
    fn more_groups_than_jobs_come_round_by_round() {
        let mut pullers = Pullers::default();
        let all: Vec<u64> = (0..5).map(|n| join(&mut pullers, &[["a", "b", "c", "d", "e"][n]], 1)).collect();
        let mut seen = Vec::new();
        for _ in 0..3 {
            seen.extend(pullers.ask(2, 1).iter().flat_map(takers));
        }
        assert_eq!(seen, all);
    }

    #[test]
    fn nobody_is_asked_for_more_than_there_is_room_for() {
        let mut pullers = Pullers::default();
        let (a, full) = join_with(&mut pullers, &["x"], 9, 0);
        let (b, _) = join_with(&mut pullers, &["x"], 9, 350);
        assert_eq!(takers(&pullers.ask(100, 100)[0]), [b, b, b], "as many as there is room for");
        full.0.store(1, Ordering::Relaxed);
        pullers.leave(b);
        pullers.credit(a, 0, 100);
        assert_eq!(
            takers(&pullers.ask(100, 100)[0]),
            [a],
            "one at least, when it says that it has room again"
        );
    }

    #[test]
    fn who_is_refused_is_forgotten_and_nobody_else() {
        let mut pullers = Pullers::default();
        let (a, b) = (join(&mut pullers, &["x"], 2), join(&mut pullers, &["x"], 2));
        let c = join(&mut pullers, &["y"], 1);
        let asked = pullers.ask(9, 1);
        assert_eq!(pullers.refused(&asked[0]), 2);
        pullers.failed(&asked[1]);
        pullers.credit(a, 1, 9);
        pullers.leave(b);
        let asked = pullers.ask(9, 1);
        assert_eq!(asked.iter().flat_map(takers).collect::<Vec<_>>(), [c]);
        assert_eq!((pullers.len(), pullers.groups.len()), (1, 1));
    }

    #[test]
    fn who_leaves_is_forgotten() {
        let mut pullers = Pullers::default();
        let (a, b) = (join(&mut pullers, &["x"], 1), join(&mut pullers, &["x"], 1));
        let asked = pullers.ask(1, 1);
        pullers.leave(a);
        assert!(pullers.puller(a).is_none() && pullers.puller(b).is_some());
        pullers.answered(&asked[0], 0);
        pullers.wake();
        assert_eq!(takers(&pullers.ask(9, 1)[0]), [b]);
        pullers.credit(b, 1, 9);
        pullers.leave(b);
        assert!(pullers.ask(9, 1).is_empty() && !pullers.is_wanting());
        assert_eq!((pullers.len(), pullers.groups.len(), pullers.queue.len()), (0, 0, 0));
        pullers.leave(b);
        pullers.credit(b, 1, 9);
    }
}
