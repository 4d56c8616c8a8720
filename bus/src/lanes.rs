//! Push and pull: each message goes to one puller of its very topic, strictly in turns of joining.
//!
//! A topic has one lane for all shards, so that the turns hold across them. What nobody can take waits in the lane,
//! bounded, and goes to the first puller that joins or has room again, in order. Whoever takes its turn is decided
//! by [`Turns`], which is pure.

use crate::channels::NO_CHANNEL;
use crate::hub::Hub;
use crate::inbox::{Assignment, Item};
use crate::message::Message;
use crate::options::Options;
use dashmap::DashMap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::task::Waker;

/// Members in order of joining, and whose turn it is.
#[derive(Debug)]
struct Turns<M> {
    members: Vec<M>,
    next: usize,
}

impl<M> Turns<M> {
    fn join(&mut self, member: M) {
        self.members.push(member);
    }

    /// The turn stays with whom it was; when that one left, it is the next one's.
    fn leave(&mut self, gone: impl Fn(&M) -> bool) {
        let Some(i) = self.members.iter().position(gone) else { return };
        self.members.remove(i);
        if i < self.next {
            self.next -= 1;
        }
        if self.next >= self.members.len() {
            self.next = 0;
        }
    }

    /// Who takes the next message: the first from whose turn it is that has room.
    fn pick(&mut self, has_room: impl Fn(&M) -> bool) -> Option<&M> {
        let n = self.members.len();
        let i = (0..n).map(|k| (self.next + k) % n).find(|i| has_room(&self.members[*i]))?;
        self.next = (i + 1) % n;
        Some(&self.members[i])
    }
}

/// What is on its way to one puller: the lane, or whoever gives it jobs, adds; the puller's shard takes off.
#[derive(Debug, Default)]
pub(crate) struct Load {
    bytes: AtomicUsize,
    /// It was passed by: it shall say when there is room.
    starved: AtomicBool,
}

impl Load {
    /// Written, or given back. True: somebody waits to hear of it ([`Lanes::refill`]).
    pub(crate) fn take_off(&self, bytes: usize, bytes_max: usize) -> bool {
        let left = self.bytes.fetch_sub(bytes, SeqCst) - bytes;
        left < bytes_max && self.starved.swap(false, SeqCst)
    }

    /// On its way.
    pub(crate) fn put_on(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, SeqCst);
    }

    /// How many bytes there is room for. When for none, whoever takes off hears that somebody waits.
    pub(crate) fn room(&self, bytes_max: usize) -> usize {
        let room = || bytes_max.saturating_sub(self.bytes.load(SeqCst));
        match room() {
            0 => {
                self.starved.store(true, SeqCst);
                room() // or its word was said just before the flag was set
            }
            room => room,
        }
    }
}

/// What a message weighs on its way, an empty one too.
pub(crate) fn weight(message: &Message) -> usize {
    message.bytes().len() + 64
}

/// A puller as its lane knows it.
#[derive(Debug)]
pub(crate) struct Puller {
    pub(crate) id: u64,
    pub(crate) shard: usize,
    pub(crate) load: Arc<Load>,
}

/// A message and its place in its lane, which it keeps wherever it is on its way: handed back, it finds it again.
#[derive(Debug)]
pub(crate) struct Work {
    place: u64,
    pub(crate) message: Message,
}

#[derive(Debug)]
struct Lane {
    turns: Turns<Puller>,
    /// In the order of places.
    waiting: VecDeque<Work>,
    bytes: usize,
    /// Pushers that wait for room.
    pushers: Vec<Waker>,
}

/// Why a message was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Nobody pulls, and the lane is full.
    NoPuller,
    /// There are pullers, but none has room: the waker is woken when one has.
    Busy,
}

/// All lanes.
pub(crate) struct Lanes {
    lanes: DashMap<Arc<str>, Lane>,
    count_max: usize,
    bytes_max: usize,
    total_max: usize,
    puller_bytes_max: usize,
    /// What waits in all of them.
    total: AtomicUsize,
    /// The next place. One count for all lanes: a lane that comes again must not begin below what is on its way.
    places: AtomicU64,
}

impl Lanes {
    pub(crate) fn new(options: &Options) -> Lanes {
        Lanes {
            lanes: DashMap::new(),
            count_max: options.waiting_count_max,
            bytes_max: options.waiting_bytes_max,
            total_max: options.waiting_total_bytes_max,
            puller_bytes_max: options.puller_bytes_max,
            total: AtomicUsize::new(0),
            places: AtomicU64::new(0),
        }
    }

    /// Hands on one message, or keeps it until somebody can take it.
    pub(crate) fn push(
        &self,
        hub: &Hub,
        topic: &Arc<str>,
        message: Message,
        waker: &Waker,
    ) -> Result<(), (Refusal, Message)> {
        let mut entry = self.lanes.entry(topic.clone()).or_insert_with(Lane::new);
        let lane = entry.value_mut();
        let more = weight(&message);
        let fits = lane.waiting.len() < self.count_max && lane.bytes + more <= self.bytes_max;
        let fits_all = self.total.load(Relaxed) + more <= self.total_max;
        let idle = lane.waiting.is_empty() && lane.turns.members.iter().any(|p| self.has_room(p));
        if !(idle || fits && fits_all) {
            if !lane.turns.members.is_empty() {
                if !lane.pushers.iter().any(|w| w.will_wake(waker)) {
                    lane.pushers.push(waker.clone());
                }
                return Err((Refusal::Busy, message));
            }
            let empty = lane.waiting.is_empty();
            drop(entry);
            if empty {
                self.lanes.remove_if(topic, |_, lane| lane.is_idle());
            }
            return Err((Refusal::NoPuller, message));
        }
        // drawn under the lane's lock, so its places only rise
        let place = self.places.fetch_add(1, Relaxed);
        lane.waiting.push_back(Work { place, message });
        lane.bytes += more;
        self.total.fetch_add(more, Relaxed);
        self.flow(hub, topic, lane);
        Ok(())
    }

    /// A puller is there; what waits flows to it. Its shard must know it already.
    pub(crate) fn join(&self, hub: &Hub, topic: &Arc<str>, puller: Puller) {
        let mut lane = self.lanes.entry(topic.clone()).or_insert_with(Lane::new);
        lane.turns.join(puller);
        self.flow(hub, topic, &mut lane);
        lane.pushers.drain(..).for_each(Waker::wake);
    }

    /// A puller is gone.
    pub(crate) fn leave(&self, topic: &Arc<str>, id: u64) {
        let Some(mut lane) = self.lanes.get_mut(topic) else { return };
        lane.turns.leave(|p| p.id == id);
        // those who wait find out that nobody pulls any more
        lane.pushers.drain(..).for_each(Waker::wake);
        drop(lane);
        self.lanes.remove_if(topic, |_, lane| lane.is_idle());
    }

    /// A puller that was passed by has room.
    pub(crate) fn refill(&self, hub: &Hub, topic: &Arc<str>) {
        let Some(mut lane) = self.lanes.get_mut(topic) else { return };
        self.flow(hub, topic, &mut lane);
        lane.pushers.drain(..).for_each(Waker::wake);
    }

    /// What a puller that left had not begun to receive goes to others: before what waits, in the order in which it was
    /// pushed, though it comes back in pieces, from the session first and then from its shard's inbox.
    pub(crate) fn give_back(&self, hub: &Hub, topic: &Arc<str>, returned: impl Iterator<Item = Work>) {
        let mut lane = self.lanes.entry(topic.clone()).or_insert_with(Lane::new);
        for work in returned {
            let more = weight(&work.message);
            lane.bytes += more;
            self.total.fetch_add(more, Relaxed);
            let i = lane.waiting.partition_point(|w| w.place < work.place);
            lane.waiting.insert(i, work);
        }
        self.flow(hub, topic, &mut lane);
        drop(lane);
        self.lanes.remove_if(topic, |_, lane| lane.is_idle());
    }

    fn has_room(&self, puller: &Puller) -> bool {
        puller.load.room(self.puller_bytes_max) > 0
    }

    /// What waits goes out in turns, as long as somebody has room.
    fn flow(&self, hub: &Hub, topic: &Arc<str>, lane: &mut Lane) {
        while !lane.waiting.is_empty() {
            let Some(puller) = lane.turns.pick(|p| self.has_room(p)) else { return };
            let Some(work) = lane.waiting.pop_front() else { return };
            let less = weight(&work.message);
            puller.load.put_on(less);
            let item = Item::Work(Assignment { topic: topic.clone(), puller: puller.id, work });
            if hub.inboxes[puller.shard].put(item).is_err() {
                crate::metrics::dropped(NO_CHANNEL.into(), "shutdown");
            }
            lane.bytes -= less;
            self.total.fetch_sub(less, Relaxed);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.lanes.len()
    }

    /// Shows the topic of each.
    pub(crate) fn each(&self, mut show: impl FnMut(&str)) {
        self.lanes.iter().for_each(|lane| show(lane.key()));
    }

    pub(crate) fn names(&self, max: usize) -> Vec<String> {
        self.lanes.iter().take(max).map(|lane| lane.key().to_string()).collect()
    }
}

impl Lane {
    fn new() -> Lane {
        Lane {
            turns: Turns { members: Vec::new(), next: 0 },
            waiting: VecDeque::new(),
            bytes: 0,
            pushers: Vec::new(),
        }
    }

    fn is_idle(&self) -> bool {
        self.turns.members.is_empty() && self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::task::Context;

    fn turns(names: &str) -> Turns<char> {
        Turns { members: names.chars().collect(), next: 0 }
    }

    fn pick(turns: &mut Turns<char>) -> char {
        *turns.pick(|_| true).unwrap()
    }

    #[test]
    fn turns_go_round_in_order_of_joining() {
        let mut t = turns("abc");
        let seven: String = (0..7).map(|_| pick(&mut t)).collect();
        assert_eq!(seven, "abcabca");
        t.join('d');
        let five: String = (0..5).map(|_| pick(&mut t)).collect();
        assert_eq!(five, "bcdab");
    }

    #[test]
    fn the_turn_survives_whoever_leaves() {
        // Mercury lost every message after this: A, B; one to A; A leaves
        let mut t = turns("ab");
        assert_eq!(pick(&mut t), 'a');
        t.leave(|m| *m == 'a');
        assert_eq!((pick(&mut t), pick(&mut t)), ('b', 'b'));
        t.leave(|m| *m == 'b');
        assert!(t.pick(|_| true).is_none());
        t.join('c');
        assert_eq!(pick(&mut t), 'c');
    }

    #[test]
    fn who_has_no_room_is_passed_by() {
        let mut t = turns("abc");
        assert_eq!(t.pick(|m| *m != 'a'), Some(&'b'));
        assert_eq!(t.pick(|m| *m != 'a'), Some(&'c'));
        assert_eq!(t.pick(|_| false), None);
        assert_eq!(pick(&mut t), 'a');
    }

    proptest! {
        /// Against the plain definition: the turn is somebody's. When it was taken it is the next one's, in order of
        /// joining and round again; when whose it is leaves, too.
        #[test]
        fn the_turn_is_always_whose_it_must_be(steps in prop::collection::vec((0u8..4, any::<u16>()), 1..80)) {
            let mut turns: Turns<u32> = Turns { members: Vec::new(), next: 0 };
            let (mut members, mut whose, mut born): (Vec<u32>, Option<u32>, u32) = (Vec::new(), None, 0);
            let after = |members: &[u32], m: u32| {
                let i = members.iter().position(|x| *x == m).unwrap();
                members[(i + 1) % members.len()]
            };
            for (what, which) in steps {
                match (what, whose) {
                    (0, _) | (_, None) => {
                        born += 1;
                        turns.join(born);
                        members.push(born);
                        whose = whose.or(Some(born));
                    }
                    (1, Some(turn)) => {
                        let gone = members[usize::from(which) % members.len()];
                        if gone == turn {
                            whose = Some(after(&members, turn)).filter(|m| *m != gone);
                        }
                        turns.leave(|m| *m == gone);
                        members.retain(|m| *m != gone);
                    }
                    (_, Some(turn)) => {
                        prop_assert_eq!(turns.pick(|_| true), Some(&turn));
                        whose = Some(after(&members, turn));
                    }
                }
                prop_assert_eq!(&turns.members, &members);
            }
        }
    }

    fn hub(options: Options) -> Arc<Hub> {
        Hub::alone(Options { shards: 2, ..options })
    }

    fn text(n: usize) -> Message {
        Message::from(n.to_string())
    }

    fn push(hub: &Hub, topic: &Arc<str>, n: usize) -> Result<(), Refusal> {
        hub.lanes.push(hub, topic, text(n), Waker::noop()).map_err(|(why, _)| why)
    }

    /// Everything that reached a shard.
    fn assigned(hub: &Hub, shard: usize) -> Vec<Assignment> {
        let mut items = Vec::new();
        let taken = hub.inboxes[shard].poll_take(&mut Context::from_waker(Waker::noop()), &mut items);
        assert_eq!(taken.is_ready(), !items.is_empty());
        let work = items.into_iter().map(|i| match i {
            Item::Work(assignment) => assignment,
            _ => panic!("only work was sent"),
        });
        work.collect()
    }

    /// The same, as (puller, text).
    fn came(hub: &Hub, shard: usize) -> Vec<(u64, String)> {
        let text = |a: &Assignment| String::from_utf8(a.work.message.bytes().to_vec()).unwrap();
        assigned(hub, shard).iter().map(|a| (a.puller, text(a))).collect()
    }

    fn join(hub: &Hub, topic: &Arc<str>, id: u64, shard: usize) -> Arc<Load> {
        let load = Arc::new(Load::default());
        hub.lanes.join(hub, topic, Puller { id, shard, load: load.clone() });
        load
    }

    #[test]
    fn what_waits_goes_to_the_first_who_joins_in_order_and_is_bounded() {
        let hub = hub(Options { waiting_count_max: 2, ..Options::default() });
        let topic: Arc<str> = "w".into();
        assert_eq!(push(&hub, &topic, 0), Ok(()));
        assert_eq!(push(&hub, &topic, 1), Ok(()));
        assert_eq!(push(&hub, &topic, 2), Err(Refusal::NoPuller));
        join(&hub, &topic, 7, 1);
        assert_eq!(came(&hub, 1), [(7, "0".into()), (7, "1".into())]);
        assert_eq!(hub.lanes.total.load(Relaxed), 0);
        hub.lanes.leave(&topic, 7);
        assert_eq!(hub.lanes.len(), 0);
    }

    #[test]
    fn a_refused_topic_leaves_nothing_behind() {
        let hub = hub(Options { waiting_count_max: 0, ..Options::default() });
        assert_eq!(push(&hub, &"x".into(), 0), Err(Refusal::NoPuller));
        assert_eq!(hub.lanes.len(), 0);
    }

    #[test]
    fn all_lanes_together_are_bounded() {
        let hub = hub(Options { waiting_total_bytes_max: 3 * 65, ..Options::default() });
        let refused = (0..5).filter(|n| push(&hub, &format!("t/{n}").into(), *n).is_err()).count();
        assert_eq!(refused, 2);
    }

    #[test]
    fn a_full_puller_is_passed_by_and_gets_more_when_it_has_room() {
        let hub = hub(Options { puller_bytes_max: 60, waiting_count_max: 1, ..Options::default() });
        let topic: Arc<str> = "w".into();
        let (a, _b) = (join(&hub, &topic, 1, 0), join(&hub, &topic, 2, 1));
        assert_eq!(push(&hub, &topic, 0), Ok(()));
        assert_eq!(push(&hub, &topic, 1), Ok(()));
        assert_eq!(push(&hub, &topic, 2), Ok(())); // both are full: it waits
        assert_eq!(push(&hub, &topic, 3), Err(Refusal::Busy));
        assert_eq!((came(&hub, 0), came(&hub, 1)), (vec![(1, "0".into())], vec![(2, "1".into())]));
        assert!(a.take_off(65, 60), "it was passed by");
        hub.lanes.refill(&hub, &topic);
        assert_eq!(came(&hub, 0), [(1, "2".into())]);
    }

    #[test]
    fn what_was_not_begun_goes_to_the_others_first() {
        let hub = hub(Options { puller_bytes_max: 60, ..Options::default() });
        let topic: Arc<str> = "w".into();
        join(&hub, &topic, 1, 0);
        (0..3).for_each(|n| push(&hub, &topic, n).unwrap());
        let begun = assigned(&hub, 0);
        assert_eq!(begun.len(), 1);
        hub.lanes.leave(&topic, 1);
        hub.lanes.give_back(&hub, &topic, begun.into_iter().map(|a| a.work));
        let b = join(&hub, &topic, 2, 1);
        for n in 0..3 {
            assert_eq!(came(&hub, 1), [(2, n.to_string())]);
            b.take_off(65, 60);
            hub.lanes.refill(&hub, &topic);
        }
    }

    #[test]
    fn what_comes_back_in_pieces_keeps_its_order() {
        let hub = hub(Options::default());
        let topic: Arc<str> = "w".into();
        join(&hub, &topic, 1, 0);
        (0..4).for_each(|n| push(&hub, &topic, n).unwrap());
        // two stand in the session, two are still in the inbox of its shard when it leaves, and one comes after that
        let mut queued = assigned(&hub, 0).into_iter().map(|a| a.work);
        let session = [queued.next().unwrap(), queued.next().unwrap()];
        hub.lanes.leave(&topic, 1);
        push(&hub, &topic, 4).unwrap();
        hub.lanes.give_back(&hub, &topic, session.into_iter());
        queued.for_each(|refused| hub.lanes.give_back(&hub, &topic, std::iter::once(refused)));
        join(&hub, &topic, 2, 1);
        let texts: String = came(&hub, 1).into_iter().map(|(_, text)| text).collect();
        assert_eq!(texts, "01234");
    }

    #[test]
    fn a_lane_that_comes_again_does_not_overtake_what_was_on_its_way() {
        let hub = hub(Options::default());
        let topic: Arc<str> = "w".into();
        join(&hub, &topic, 1, 0);
        (0..2).for_each(|n| push(&hub, &topic, n).unwrap());
        let on_the_way = assigned(&hub, 0);
        hub.lanes.leave(&topic, 1);
        assert_eq!(hub.lanes.len(), 0);
        push(&hub, &topic, 2).unwrap();
        hub.lanes.give_back(&hub, &topic, on_the_way.into_iter().map(|a| a.work));
        join(&hub, &topic, 2, 1);
        let texts: String = came(&hub, 1).into_iter().map(|(_, text)| text).collect();
        assert_eq!(texts, "012");
    }
}
