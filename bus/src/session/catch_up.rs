//! Reading history into a session, until it has caught up with what comes live.
//!
//! Subscriptions that can match the same message, directly or by way of others, read together, by rising offsets
//! ([`crate::merge`]); none of them is live meanwhile. All others read by themselves, and what is live goes on. Pages are
//! read one after the other, each when the last one was written. The newest entries come from the shard's memory; when
//! all that the shard was relayed fits into one piece, it is written and those who read together join what is live
//! in the same turn. Nothing lies between the two, so nothing is lost and nothing comes twice. A subscriber that falls
//! behind its log comes here too, and reads on.

use super::following::Sub;
use super::{Phase, Session, State};
use crate::encode::{self, Encoding};
use crate::history::{HistoryError, Page};
use crate::merge::{Group, Wants};
use crate::options::Slow;
use crate::pattern::Pattern;
use crate::shard::Shard;
use minium_protocol::{Answer, CloseCode, Filter, Position};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// A session that reads history.
#[derive(Default)]
pub(crate) struct CatchingUp {
    /// It lost its place in the log.
    parked: Option<Parked>,
    /// What reads, the one first whose turn it is.
    groups: VecDeque<Group>,
    /// It was given something: until then it waits for what is subscribed in the same breath.
    begun: bool,
    /// Of the task that reads.
    waker: Option<Waker>,
}

/// What is known of a place that was lost.
#[derive(Debug, Clone, Copy)]
struct Parked {
    /// The last offset that was delivered; nothing when there are none in its log.
    cursor: Option<u64>,
}

impl CatchingUp {
    pub(super) fn wake(&mut self) {
        self.waker.take().inspect(Waker::wake_by_ref);
    }

    /// Does this filter meet one that reads?
    pub(super) fn meets(&self, filter: &Filter) -> bool {
        self.groups.iter().any(|g| g.meets(filter))
    }

    /// A filter reads from here on, together with those that it meets.
    fn add(&mut self, filter: &Filter, cursor: u64) {
        let mut group = Group::default();
        group.add(filter.clone(), cursor);
        for other in std::mem::take(&mut self.groups) {
            if other.meets(filter) {
                group.absorb(other);
            } else {
                self.groups.push_back(other);
            }
        }
        self.groups.push_back(group);
    }

    /// A filter reads no more.
    pub(super) fn forget(&mut self, filter: &Filter) {
        self.groups.retain_mut(|g| !g.forget(filter));
        self.wake();
    }
}

impl State {
    /// Has it lost its place in the log, and is this not yet settled?
    pub(super) fn is_parked(&self) -> bool {
        self.catching_up.as_ref().is_some_and(|c| c.parked.is_some())
    }

    /// From now on nothing is taken from the log. True: nobody is at work on it yet.
    pub(super) fn park(&mut self, cursor: Option<u64>) -> bool {
        let new = self.catching_up.is_none();
        let catching = self.catching_up.get_or_insert_default();
        catching.parked = Some(Parked { cursor });
        catching.wake();
        new
    }

    /// These read, each behind an offset, and with them all durable ones that are live and can match the same messages,
    /// directly or by way of others: those from where the node is. True if there were any; then its log is another one.
    pub(super) fn read_from(&mut self, first: Vec<(usize, u64)>, relayed: u64) -> bool {
        let State { subs, catching_up, .. } = self;
        let catching = catching_up.get_or_insert_default();
        let mut todo = first;
        todo.iter().for_each(|(n, _)| subs[*n].reads = true);
        let mut held = false;
        while let Some((n, cursor)) = todo.pop() {
            let filter = subs[n].follow.filter.clone();
            catching.add(&filter, cursor);
            let meets = |s: &Sub| s.durable && !s.reads && s.follow.filter.meets(&filter);
            for (i, s) in subs.iter_mut().enumerate().filter(|(_, s)| meets(s)) {
                s.reads = true;
                held = true;
                todo.push((i, relayed.max(s.since)));
            }
        }
        catching.wake();
        held
    }
}

/// What to do next.
enum Step {
    /// Read what follows an offset.
    Read(Filter, u64),
    /// Something was done in this turn; look again.
    Again,
    /// Some that read together are live now; look again.
    Joins,
    /// Everything follows live, or the session ends.
    Done,
}

impl Shard {
    /// A session has something to catch up with.
    pub(crate) fn catch_up(&self, s: &Rc<Session>) {
        let mut st = s.state.borrow_mut();
        if st.catching_up.is_none() {
            st.catching_up = Some(Box::default());
            drop(st);
            self.lost(s);
        } else if let Some(catching) = &mut st.catching_up {
            catching.wake();
        }
    }

    /// A session lost its place: its log had to go on without it.
    pub(crate) fn lost(&self, s: &Rc<Session>) {
        if let Some(me) = self.me.upgrade() {
            tokio::task::spawn_local(read_on(Rc::downgrade(s), me));
        }
    }
}

/// Reads until everything follows live. A session that ends meanwhile is gone at once, with its socket, however long
/// a read takes.
async fn read_on(session: Weak<Session>, sh: Rc<Shard>) {
    loop {
        let step = poll_fn(|cx| session.upgrade().map_or(Poll::Ready(Step::Done), |s| s.poll_step(&sh, cx)));
        let (filter, after) = match step.await {
            Step::Read(filter, after) => (filter, after),
            Step::Again | Step::Joins => continue,
            Step::Done => return,
        };
        let page = match &sh.reads {
            Some(reads) => reads.page(&filter, after, &sh).await,
            None => Err(HistoryError::Unavailable("there is none".into())),
        };
        let Some(s) = session.upgrade() else { return };
        match page {
            Ok(page) => s.take_page(&filter, &page, after, &sh),
            Err(e @ HistoryError::Expired { .. }) => {
                return s.close(CloseCode::FellBehind, &format!("offset_expired: {e}"));
            }
            Err(HistoryError::Unavailable(why)) => {
                tracing::warn!(why, "A replay ended: the journal cannot be read.");
                return s.close(CloseCode::ServerFault, "the journal cannot be read now");
            }
        }
    }
}

impl Session {
    /// Ready when the last page was written: with the next thing to do.
    fn poll_step(self: &Rc<Self>, sh: &Shard, cx: &mut Context<'_>) -> Poll<Step> {
        let mut state = self.state.borrow_mut();
        let st = &mut *state;
        let (Phase::Open, Some(catching)) = (st.phase, &mut st.catching_up) else {
            return Poll::Ready(Step::Done);
        };
        catching.waker = Some(cx.waker().clone());
        if !st.control.is_empty() {
            return Poll::Pending; // what it is told is bounded by what it reads
        }
        if let Some(parked) = catching.parked {
            drop(state);
            self.settle(parked, sh);
            return Poll::Ready(Step::Again);
        }
        if !catching.begun && st.voice.as_ref().is_some_and(|voice| voice.is_subscribing()) {
            return Poll::Pending; // those that go together read together: each answer, once written, wakes it
        }
        if st.is_far_behind() {
            return Poll::Pending; // joining changes its log
        }
        let Some(catching) = &mut st.catching_up else { return Poll::Ready(Step::Done) };
        catching.begun = true;
        let mut groups = std::mem::take(&mut catching.groups);
        if groups.is_empty() {
            st.catching_up = None;
            return Poll::Ready(Step::Done);
        }
        // others have a turn while one waits for the relay
        let step = (0..groups.len()).find_map(|_| {
            let mut group = groups.pop_front()?;
            let step = self.step(st, &mut group, sh);
            if !matches!(step, Some(Step::Joins)) {
                groups.push_back(group);
            }
            step
        });
        if let Some(catching) = &mut st.catching_up {
            catching.groups = groups;
        }
        drop(state);
        let Some(step) = step else {
            sh.await_relay(cx.waker());
            return Poll::Pending;
        };
        if let Step::Joins = step {
            sh.follow(self);
        }
        if !matches!(step, Step::Read(..)) {
            self.push_on(sh);
        }
        Poll::Ready(step)
    }

    /// The next thing to do for some that read together; nothing while the relay has not come as far as they have.
    fn step(&self, st: &mut State, group: &mut Group, sh: &Shard) -> Option<Step> {
        let State { subs, control, sent, .. } = st;
        let mut given = Given { control, messages: 0, sent, session: self, sh };
        if !given.pages(group) || given.messages > 0 {
            return Some(Step::Again);
        }
        let recent = sh.recent.borrow();
        match group.wants(|after| recent.covers(after)) {
            Wants::Room => Some(Step::Again),
            Wants::Page(filter, after) => match last(&filter, after, sh) {
                Some(page) => {
                    group.came(&filter, after, &page, page.scanned_to);
                    given.pages(group);
                    Some(Step::Again)
                }
                None => Some(Step::Read(filter, after)),
            },
            Wants::Memory if !given.memory(group) => Some(Step::Again),
            Wants::Memory if group.is_ahead_of(sh.relayed_to()) => {
                (given.messages > 0).then_some(Step::Again)
            }
            Wants::Memory => {
                given.join(group, subs);
                Some(Step::Joins)
            }
        }
    }

    /// Says what a page holds, as far as its turn has come.
    fn take_page(&self, filter: &Filter, page: &Arc<Page>, after: u64, sh: &Shard) {
        {
            let mut st = self.state.borrow_mut();
            let State { phase: Phase::Open, catching_up: Some(catching), control, sent, .. } = &mut *st
            else {
                return;
            };
            // what this shard was not relayed yet comes live
            let to = page.scanned_to.min(sh.relayed_to()).max(after);
            let Some(group) =
                catching.groups.iter_mut().find_map(|g| g.came(filter, after, page, to).then_some(g))
            else {
                return; // unsubscribed meanwhile
            };
            Given { control, messages: 0, sent, session: self, sh }.pages(group);
        }
        self.push_on(sh);
    }

    fn push_on(&self, sh: &Shard) {
        self.push(sh);
        let st = self.state.borrow();
        if st.blocked || st.phase != Phase::Open || !st.control.is_empty() {
            st.wake();
        }
    }

    /// It lost its place in the log: what is durable reads on, the rest is told what it missed.
    fn settle(self: &Rc<Self>, parked: Parked, sh: &Shard) {
        let relayed = sh.relayed_to();
        {
            let mut st = self.state.borrow_mut();
            let st = &mut *st;
            let mut reads = Vec::new();
            for (n, sub) in st.subs.iter_mut().enumerate().filter(|(_, s)| !s.reads) {
                let from = parked.cursor.filter(|_| sub.durable).map(|c| c.max(sub.since));
                match sub.slow {
                    Slow::Replay => {
                        reads.extend(from.map(|from| (n, from)));
                        sub.announce = true;
                    }
                    Slow::Gap | Slow::Close => {
                        let topic = sub.follow.filter.as_str();
                        let gap = Answer::Gap { topic, from: from.map(|f| f + 1), to: from.map(|_| relayed) };
                        encode::answer(&mut st.control, &gap);
                        sub.since = relayed;
                    }
                }
            }
            st.read_from(reads, relayed);
        }
        sh.follow(self);
        self.unpark();
    }

    /// It has a place again: at the end of its log, if it still has the same one.
    fn unpark(&self) {
        let mut st = self.state.borrow_mut();
        if let Some(log) = st.log.clone() {
            st.jump(&log.ring.borrow());
            log.moved.set(true); // a walk that saw it without a place must not forget what it has now
        }
        if let Some(catching) = &mut st.catching_up {
            catching.parked = None;
        }
        st.wake();
    }

    /// The numbering that it may be reading in is no more.
    pub(crate) fn renumbered(&self, offset: u64) {
        let reads = {
            let st = self.state.borrow();
            st.is_parked() || st.subs.iter().any(|s| s.reads)
        };
        if reads {
            self.close(CloseCode::FellBehind, "epoch_changed");
            return;
        }
        let mut st = self.state.borrow_mut();
        st.subs.iter_mut().filter(|s| s.durable).for_each(|s| s.since = offset);
    }
}

/// What a session is given in one turn.
struct Given<'a> {
    control: &'a mut Vec<u8>,
    messages: u64,
    /// By the session, ever.
    sent: &'a mut u64,
    session: &'a Session,
    sh: &'a Shard,
}

impl Given<'_> {
    fn count(&mut self, group: &Group, messages: u64) {
        if messages > 0 {
            *self.sent += messages;
            let filters = group.filters();
            let filters = filters.iter().map(|filter| (Pattern::Sub, filter));
            crate::metrics::delivered(self.sh.hub.channels.label_of(filters)).increment(messages);
        }
    }

    /// What its pages have for a group, as far as one piece goes. True: that was all.
    fn pages(&mut self, group: &mut Group) -> bool {
        let before = self.messages;
        // a page, and what its frames add
        let bytes_max = self.sh.hub.options.page_bytes_max.saturating_mul(2);
        let all = group.give(|entry| {
            encode::durable(self.control, self.session.encoding, entry, true);
            self.messages += 1;
            self.control.len() < bytes_max
        });
        self.count(group, self.messages - before);
        all
    }

    /// What is in memory for a group, as far as one piece goes. True: that was all.
    fn memory(&mut self, group: &mut Group) -> bool {
        let (recent, wanted) = (self.sh.recent.borrow(), group.wanted());
        let (mut last, mut all, before) = (group.lowest(), true, self.messages);
        for entry in recent.behind(last) {
            if self.control.len() >= self.sh.hub.options.page_bytes_max {
                all = false;
                break;
            }
            last = entry.relayed.position.offset;
            let mut is_wanted = false;
            wanted.matching(&entry.relayed.topic, |cursor| is_wanted |= *cursor < last);
            if is_wanted {
                self.control.extend_from_slice(entry.encoded(self.session.encoding, true));
                self.messages += 1;
            }
        }
        group.took(last);
        self.count(group, self.messages - before);
        all
    }

    /// A group is live from here on, and those of it are told that wait to hear so.
    fn join(&mut self, group: &Group, subs: &mut [Sub]) {
        let filters = group.filters();
        for sub in subs.iter_mut().filter(|s| s.reads && filters.contains(&s.follow.filter)) {
            sub.reads = false;
            if std::mem::take(&mut sub.announce) && self.session.encoding == Encoding::V1 {
                let up = Answer::CaughtUp { topic: sub.follow.filter.as_str(), offset: self.sh.relayed_to() };
                encode::answer(self.control, &up);
            }
        }
    }
}

/// All that a filter matches behind an offset, if that is its last message and in memory, and with it all that was
/// relayed.
fn last(filter: &Filter, after: u64, sh: &Shard) -> Option<Arc<Page>> {
    let relayed = sh.relayed.get()?;
    let is_next =
        |p: Position| p.epoch == relayed.epoch && p.offset == after + 1 && p.offset <= relayed.offset;
    let entry = sh.hub.latest().of(filter).filter(|e| is_next(e.position)).cloned()?;
    Some(Arc::new(Page { entries: vec![entry], scanned_to: relayed.offset }))
}
