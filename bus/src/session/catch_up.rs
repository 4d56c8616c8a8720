//! Reading history into a session, until it has caught up with what comes live.
//!
//! Each subscription reads by itself: page by page, each when the last one was written. The newest entries come from
//! the shard's memory; when all that the shard was relayed fits into one piece, it is written and the subscription
//! joins what is live in the same turn. Nothing lies between the two, so nothing is lost and nothing comes twice. A
//! subscriber that falls behind its log comes here too, and reads on.

use super::{Phase, Session, State};
use crate::encode;
use crate::history::{HistoryError, Page};
use crate::options::Slow;
use crate::shard::Shard;
use minium_protocol::{Answer, CloseCode, Filter, Position};
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};

/// A session that reads history.
#[derive(Default)]
pub(crate) struct CatchingUp {
    /// It lost its place in the log.
    parked: Option<Parked>,
    /// Whose turn it is to read.
    next: usize,
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
}

/// What to do next.
enum Step {
    /// Read what follows an offset.
    Read(Filter, u64),
    /// Something was done in this turn; look again.
    Again,
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
            Step::Again => continue,
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
        let mut st = self.state.borrow_mut();
        let State { phase: Phase::Open, catching_up: Some(catching), .. } = &mut *st else {
            return Poll::Ready(Step::Done);
        };
        catching.waker = Some(cx.waker().clone());
        let (parked, next) = (catching.parked, catching.next);
        if !st.control.is_empty() {
            return Poll::Pending; // what it is told is bounded by what it reads
        }
        if let Some(parked) = parked {
            drop(st);
            self.settle(parked, sh);
            return Poll::Ready(Step::Again);
        }
        if st.is_far_behind() {
            return Poll::Pending; // joining changes its log
        }
        let reading = |i: &usize| st.subs[*i].cursor.is_some();
        let Some(n) = (next..st.subs.len()).chain(0..next.min(st.subs.len())).find(reading) else {
            st.catching_up = None;
            return Poll::Ready(Step::Done);
        };
        let after = st.subs[n].cursor.expect("it reads");
        if sh.relayed_to() < after {
            // it knows more than this node was told yet: what is relayed up to there is skipped
            sh.await_relay(cx.waker());
            return Poll::Pending;
        }
        if !sh.recent.borrow().covers(after) {
            let filter = &st.subs[n].follow.filter;
            if self.knows_last(filter, after, sh) {
                drop(st);
                self.take_last(n, after, sh);
                return Poll::Ready(Step::Again);
            }
            return Poll::Ready(Step::Read(filter.clone(), after));
        }
        let joins = self.take_recent(&mut st, n, sh);
        drop(st);
        if joins {
            sh.follow(self);
        }
        self.push_on(sh);
        Poll::Ready(Step::Again)
    }

    /// Is all that a filter matches behind an offset its last message, and that in memory?
    fn knows_last(&self, filter: &Filter, after: u64, sh: &Shard) -> bool {
        let Some(relayed) = sh.relayed.get() else { return false };
        let last =
            |p: Position| p.epoch == relayed.epoch && p.offset == after + 1 && p.offset <= relayed.offset;
        sh.hub.latest().of(filter).is_some_and(|e| last(e.position))
    }

    /// That message, and with it all that was relayed.
    fn take_last(&self, n: usize, after: u64, sh: &Shard) {
        let filter = self.state.borrow().subs[n].follow.filter.clone();
        let Some(entry) = sh.hub.latest().of(&filter).cloned() else { return };
        if entry.position.offset != after + 1 {
            return; // a newer one came in between: it is read
        }
        let page = Page { entries: vec![entry], scanned_to: sh.relayed_to() };
        self.take_page(&filter, &page, after, sh);
    }

    /// What is in memory behind a subscription's cursor, as far as one piece goes. True: that was all, it is live now.
    fn take_recent(&self, st: &mut State, n: usize, sh: &Shard) -> bool {
        let after = st.subs[n].cursor.unwrap_or(0);
        let recent = sh.recent.borrow();
        let (mut cursor, mut messages) = (after, 0);
        let mut whole = true;
        for entry in recent.behind(after) {
            if st.control.len() >= sh.hub.options.page_bytes_max {
                whole = false;
                break;
            }
            cursor = entry.relayed.position.offset;
            let topic = &entry.relayed.topic;
            if st.subs[n].follow.filter.matches(topic) && !Session::has_otherwise(&st.subs, n, topic, cursor)
            {
                st.control.extend_from_slice(entry.encoded(self.encoding, true));
                messages += 1;
            }
        }
        sh.count_delivered(messages);
        let sub = &mut st.subs[n];
        if !whole {
            sub.cursor = Some(cursor);
            return false;
        }
        sub.cursor = None;
        if std::mem::take(&mut sub.announce) && self.encoding == crate::encode::Encoding::V1 {
            let topic = sub.follow.filter.clone();
            let up = Answer::CaughtUp { topic: topic.as_str(), offset: sh.relayed_to() };
            encode::answer(&mut st.control, &up);
        }
        true
    }

    /// Says what a page holds.
    fn take_page(&self, filter: &Filter, page: &Page, after: u64, sh: &Shard) {
        {
            let mut st = self.state.borrow_mut();
            let st = &mut *st;
            let (Phase::Open, Some(catching)) = (st.phase, &mut st.catching_up) else { return };
            let wanted = |s: &super::Sub| s.follow.filter == *filter && s.cursor == Some(after);
            let Some(n) = st.subs.iter().position(wanted) else { return }; // unsubscribed meanwhile
            catching.next = n + 1; // then the others
            let mut messages = 0;
            // what this shard was not relayed yet comes live: to other subscriptions of this session, too
            let to = page.scanned_to.min(sh.relayed_to()).max(after);
            let within = |o: u64| o > after && o <= to;
            for entry in page.entries.iter().filter(|e| within(e.position.offset)) {
                if !Session::has_otherwise(&st.subs, n, &entry.topic, entry.position.offset) {
                    encode::durable(&mut st.control, self.encoding, entry, true);
                    messages += 1;
                }
            }
            sh.count_delivered(messages);
            st.subs[n].cursor = Some(to);
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
        if self.left_to_live(parked) {
            // what the one that reads has left to the one that was live is in nobody's hands
            return self.close(CloseCode::FellBehind, "fell behind");
        }
        {
            let mut st = self.state.borrow_mut();
            let st = &mut *st;
            for sub in st.subs.iter_mut().filter(|s| s.cursor.is_none()) {
                let from = parked.cursor.filter(|_| sub.durable);
                match sub.slow {
                    Slow::Replay => {
                        sub.cursor = from.map(|c| c.max(sub.since));
                        sub.announce = true;
                    }
                    Slow::Gap | Slow::Close => {
                        let topic = sub.follow.filter.as_str();
                        let first = from.map(|c| c.max(sub.since) + 1);
                        let gap = Answer::Gap { topic, from: first, to: from.map(|_| relayed) };
                        encode::answer(&mut st.control, &gap);
                        sub.since = relayed;
                    }
                }
            }
        }
        sh.follow(self);
        self.unpark();
    }

    /// Has a subscription that reads come further than the place that was lost, and left something to those that were live?
    fn left_to_live(&self, parked: Parked) -> bool {
        let st = self.state.borrow();
        let lost = || st.subs.iter().filter(|s| s.durable && s.cursor.is_none());
        let reads = st.subs.iter().filter(|s| s.cursor.is_some_and(|c| parked.cursor.is_some_and(|p| c > p)));
        reads.into_iter().any(|r| lost().any(|l| l.follow.filter.meets(&r.follow.filter)))
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
            st.is_parked() || st.subs.iter().any(|s| s.cursor.is_some())
        };
        if reads {
            self.close(CloseCode::FellBehind, "epoch_changed");
            return;
        }
        let mut st = self.state.borrow_mut();
        st.subs.iter_mut().filter(|s| s.durable).for_each(|s| s.since = offset);
    }
}
