//! Readers of a journal in memory: whatever they ask for and whenever, each gets what it wants once and in order.

use super::*;
use minium_protocol::{Position, Topic};
use proptest::prelude::*;
use std::collections::VecDeque;

fn relayed(offset: u64, topic: &str) -> Relayed {
    let position = Position { epoch: 1, offset };
    Relayed { position, topic: topic.parse().unwrap(), event: "{}".into(), data: None }
}

fn filter(text: &str) -> Filter {
    text.parse().unwrap()
}

/// Of a journal, from the first offset on.
fn journal(topics: &[&str]) -> Vec<Relayed> {
    (1..).zip(topics).map(|(offset, topic)| relayed(offset, topic)).collect()
}

/// What a store answers: at most `count` entries.
fn read(journal: &[Relayed], filter: &Filter, after: u64, count: usize) -> Arc<Page> {
    let behind = &journal[after as usize..];
    let mut matching = behind.iter().filter(|e| filter.matches(&e.topic));
    let entries: Vec<_> = matching.by_ref().take(count).cloned().collect();
    let scanned_to = matching.next().map_or(journal.len() as u64, |e| e.position.offset - 1);
    Arc::new(Page { entries, scanned_to })
}

fn group(filters: &[(&str, u64)]) -> Group {
    let mut group = Group::default();
    filters.iter().for_each(|(f, cursor)| group.add(filter(f), *cursor));
    group
}

/// Reads until everything is known, keeping each page; answers the offsets that came and what was read.
fn all(group: &mut Group, journal: &[Relayed], count: usize) -> (Vec<u64>, Vec<(String, u64)>) {
    let (mut came, mut reads, mut pages) = (Vec::new(), Vec::new(), Vec::new());
    let end = journal.len() as u64;
    loop {
        assert!(group.give(|e| {
            came.push(e.position.offset);
            true
        }));
        match group.wants(|after| after >= end) {
            Wants::Page(filter, after) => {
                let page = read(journal, &filter, after, count);
                assert!(group.came(&filter, after, &page, page.scanned_to));
                reads.push((filter.to_string(), after));
                pages.push(page);
            }
            Wants::Memory => return (came, reads),
            Wants::Room => {}
        }
    }
}

const TOPICS: [&str; 8] = ["a/b", "a/c", "a", "a/b/d", "x", "a/c/d", "a/b", "a"];

#[test]
fn filters_that_overlap_are_given_each_message_once_and_in_order() {
    let journal = journal(&TOPICS);
    let mut group = group(&[("a/+/d", 0), ("a/b", 0)]);
    assert_eq!(all(&mut group, &journal, 1).0, [1, 4, 6, 7]);
}

#[test]
fn who_begins_further_on_is_given_nothing_from_before() {
    let journal = journal(&TOPICS);
    let mut group = group(&[("a/+/d", 0), ("a/b", 3)]);
    assert_eq!(all(&mut group, &journal, 10).0, [4, 6, 7]);
}

#[test]
fn what_another_one_covers_is_not_read() {
    let journal = journal(&TOPICS);
    let mut covered = group(&[("a/b", 0), ("a/+", 2), ("a", 0)]);
    let (came, reads) = all(&mut covered, &journal, 4);
    assert_eq!(came, [1, 2, 3, 4, 6, 7, 8]);
    assert_eq!(reads, [("a".into(), 0), ("a".into(), 5)]);
    // it is read by itself up to where the wider one begins, and again when that one is gone
    let mut further = group(&[("a/b", 0), ("a", 5)]);
    let (came, reads) = all(&mut further, &journal, 1);
    assert_eq!(came, [1, 4, 6, 7, 8]);
    let (narrow, wide): (Vec<_>, Vec<_>) = reads.iter().partition(|(f, _)| f == "a/b");
    assert!(narrow.iter().all(|(_, after)| *after < 5) && !wide.is_empty(), "{reads:?}");
    let mut left = group(&[("a/b", 0), ("a", 0)]);
    let page = read(&journal, &filter("a"), 0, 1);
    assert_eq!(left.wants(|_| false), Wants::Page(filter("a"), 0));
    assert!(left.came(&filter("a"), 0, &page, page.scanned_to));
    assert!(left.give(|_| true) && !left.forget(&filter("a")));
    assert_eq!(all(&mut left, &journal, 10).0, [4, 7]);
    assert!(left.forget(&filter("a/b")));
}

#[test]
fn a_page_that_is_gone_is_read_again_from_where_it_was_needed() {
    let journal = journal(&["a/b", "a/x/d", "a/b", "a/b"]);
    let mut group = group(&[("a/b", 0), ("a/+/d", 0)]);
    let page = read(&journal, &filter("a/b"), 0, 10);
    assert!(group.came(&filter("a/b"), 0, &page, page.scanned_to));
    let mut came = Vec::new();
    // the first stands right behind what is known of both, the third does not
    assert!(group.give(|e| {
        came.push(e.position.offset);
        true
    }));
    assert_eq!(came, [1]);
    drop(page);
    assert!(group.give(|_| panic!("it is gone")));
    assert_eq!(group.wants(|_| false), Wants::Page(filter("a/+/d"), 1));
    assert_eq!(all(&mut group, &journal, 10).0, [2, 3, 4]);
}

/// A client of one socket, as careful as it may be: each message is for those that it matches and that stand before it.
#[derive(Default)]
struct Careful {
    /// Filter, where it began, where it is now, what it took.
    subs: Vec<(Filter, u64, u64, Vec<u64>)>,
    last: u64,
}

impl Careful {
    fn hears(&mut self, offset: u64, topic: &Topic) {
        let mut new = false;
        for (filter, _, position, took) in &mut self.subs {
            if filter.matches(topic) && *position < offset {
                *position = offset;
                took.push(offset);
                new = true;
            }
        }
        assert!(new, "{offset} came for nobody");
        assert!(offset > self.last, "{offset} came after {}", self.last);
        self.last = offset;
    }
}

#[derive(Debug, Clone, Copy)]
enum Move {
    Subscribe(usize, u64),
    Leave(usize),
    /// Gives and reads, with pages of so many entries and room for so many.
    Read {
        entries: usize,
        room: usize,
    },
    /// The oldest pages are gone.
    Forget(usize),
    /// More is relayed.
    Relay(u64),
    /// What lies behind this far from the end is in memory, and so many of it are taken.
    Memory {
        reach: u64,
        room: usize,
    },
}

fn moves() -> impl Strategy<Value = Move> {
    prop_oneof![
        3 => (0..FILTERS.len(), any::<u64>()).prop_map(|(f, at)| Move::Subscribe(f, at)),
        1 => (0..FILTERS.len()).prop_map(Move::Leave),
        8 => (1..6usize, 1..9usize).prop_map(|(entries, room)| Move::Read { entries, room }),
        2 => (0..4usize).prop_map(Move::Forget),
        2 => (0..9u64).prop_map(Move::Relay),
        1 => (0..9u64, 0..9usize).prop_map(|(reach, room)| Move::Memory { reach, room }),
    ]
}

const FILTERS: [&str; 8] = ["a", "a/+", "a/b", "a/+/d", "a/c", "a/b/+", "a/+/e", "a/c/e"];

/// A group, who listens, and the store.
struct Play {
    group: Group,
    client: Careful,
    journal: Vec<Relayed>,
    relayed: u64,
    pages: VecDeque<Arc<Page>>,
}

impl Play {
    fn step(&mut self, entries: usize, mut room: usize, memory: u64) -> bool {
        let Play { group, client, .. } = self;
        let all = group.give(|e| {
            client.hears(e.position.offset, &e.topic);
            room -= 1;
            room > 0
        });
        if !all {
            return true;
        }
        let relayed = self.relayed;
        match self.group.wants(|after| after >= memory) {
            Wants::Page(filter, after) => {
                assert!(after < relayed, "there is nothing behind {after}");
                let page = read(&self.journal, &filter, after, entries);
                assert!(self.group.came(&filter, after, &page, page.scanned_to.min(relayed)));
                self.pages.push_back(page);
                true
            }
            Wants::Room => true,
            Wants::Memory => false,
        }
    }

    fn memory(&mut self, reach: u64, room: usize) {
        let from = self.relayed.saturating_sub(reach);
        if self.group.wants(|after| after >= from) != Wants::Memory {
            return;
        }
        let wanted = self.group.wanted();
        let mut last = self.group.lowest().min(self.relayed);
        for e in self.journal[last as usize..self.relayed as usize].iter().take(room) {
            last = e.position.offset;
            let mut is_wanted = false;
            wanted.matching(&e.topic, |cursor| is_wanted |= *cursor < last);
            if is_wanted {
                self.client.hears(last, &e.topic);
            }
        }
        self.group.took(last);
    }

    fn play(&mut self, step: Move) {
        match step {
            Move::Subscribe(n, at) => {
                let (filter, after) = (filter(FILTERS[n]), at % (self.relayed + 1));
                if self.client.subs.iter().all(|s| s.0 != filter) {
                    self.group.add(filter.clone(), after);
                    self.client.subs.push((filter, after, after, Vec::new()));
                    self.client.last = self.client.last.min(after);
                }
            }
            Move::Leave(n) => {
                let filter = filter(FILTERS[n]);
                if let Some(i) = self.client.subs.iter().position(|s| s.0 == filter) {
                    self.judge(&self.client.subs[i], false);
                    self.group.forget(&filter);
                    self.client.subs.remove(i);
                }
            }
            Move::Read { entries, room } if !self.client.subs.is_empty() => {
                self.step(entries, room, self.relayed);
            }
            Move::Memory { reach, room } if !self.client.subs.is_empty() => {
                while self.step(3, 99, self.relayed.saturating_sub(reach)) {}
                self.memory(reach, room);
            }
            Move::Read { .. } | Move::Memory { .. } => {}
            Move::Forget(n) => drop(self.pages.drain(..n.min(self.pages.len()))),
            Move::Relay(more) => self.relayed = (self.relayed + more).min(self.journal.len() as u64),
        }
    }

    /// It took all that matches, from where it began to where it is, or to the end.
    fn judge(&self, (filter, began, position, took): &(Filter, u64, u64, Vec<u64>), to_the_end: bool) {
        let end = if to_the_end { self.relayed } else { *position };
        let stands = self.journal.iter().filter(|e| filter.matches(&e.topic)).map(|e| e.position.offset);
        let wants: Vec<_> = stands.filter(|o| *o > *began && *o <= end).collect();
        assert_eq!(took, &wants, "{filter} from {began} to {end}");
    }
}

proptest! {
    /// Whoever subscribes, leaves, or begins further back, whatever pages are gone, and however far the relay is: each
    /// filter gets all that it wants once and by rising offsets, nothing comes for nobody, and what comes rises, but
    /// for the first that is given to one that began further back.
    #[test]
    fn each_filter_gets_all_that_it_wants_in_order(
        topics in prop::collection::vec("a(/[bc](/[de])?)?|x", 1..60),
        known in 0..60u64,
        steps in prop::collection::vec(moves(), 1..80),
    ) {
        let topics: Vec<&str> = topics.iter().map(|t| &**t).collect();
        let journal = journal(&topics);
        let relayed = known.min(journal.len() as u64);
        let (group, client) = (Group::default(), Careful::default());
        let mut play = Play { group, client, journal, relayed, pages: VecDeque::new() };
        steps.into_iter().for_each(|step| play.play(step));
        if !play.client.subs.is_empty() {
            let mut steps = 0;
            // pages are gone as soon as the next one is there
            while play.step(2, 3, play.relayed) {
                play.pages.drain(..play.pages.len().saturating_sub(1));
                steps += 1;
                assert!(steps < 10_000, "it goes on for ever");
            }
        }
        play.client.subs.iter().for_each(|sub| play.judge(sub, true));
    }
}
