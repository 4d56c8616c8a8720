//! The task of a session: waits for its socket, and ends the session when that ends.

use super::read::HandOn;
use super::{Phase, Session};
use crate::shard::Shard;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

/// Bursts read in one turn before other sessions have theirs.
const BURSTS_MAX: u32 = 5;

/// Two pointers: ten thousand of these wait. Dropping it takes the session out of everything, after a panic too.
pub(crate) struct Serve(pub(crate) Rc<Session>, pub(crate) Rc<Shard>);

impl Future for Serve {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // unwinding gives back all borrows, and a session that panicked only says goodbye
        let turn = catch_unwind(AssertUnwindSafe(|| self.turn(cx)));
        turn.unwrap_or_else(|_| {
            self.0.fault();
            cx.waker().wake_by_ref();
            Poll::Pending
        })
    }
}

impl Serve {
    fn turn(&self, cx: &mut Context<'_>) -> Poll<()> {
        let (s, sh) = (&self.0, &*self.1);
        s.state.borrow_mut().waker.get_or_insert_with(|| cx.waker().clone());
        for burst in 0.. {
            let mut on = s.hand_on(sh, cx.waker());
            while self.write(cx) != Phase::Gone && s.may_go_on(on, sh) {
                on = s.hand_on(sh, cx.waker());
            }
            if s.state.borrow().phase == Phase::Gone {
                return Poll::Ready(());
            }
            if !s.may_read(on, sh) || s.sink.poll_read_ready(cx).is_pending() && !s.has_unread() {
                return Poll::Pending;
            }
            if burst == BURSTS_MAX {
                cx.waker().wake_by_ref(); // others first
                return Poll::Pending;
            }
            if s.has_unread() {
                s.feed(&[], sh, cx.waker());
            } else {
                s.pull(sh, cx.waker());
            }
        }
        Poll::Pending
    }

    /// Writes what is there to say, and asks to be woken when the socket takes more.
    fn write(&self, cx: &mut Context<'_>) -> Phase {
        let (s, sh) = (&*self.0, &*self.1);
        loop {
            let (blocked, unsaid) = s.unsaid();
            if blocked && s.sink.poll_write_ready(cx).is_pending() || !blocked && !unsaid {
                break;
            }
            s.push(sh);
            if s.unsaid() == (false, false) {
                break;
            }
        }
        let mut st = s.state.borrow_mut();
        let ending = st.phase == Phase::Closing || st.phase == Phase::Closed;
        if ending && !std::mem::replace(&mut st.lingers, true) {
            sh.linger(&self.0);
            let (pulls, jobs) = (std::mem::take(&mut st.pulls), st.jobs.take());
            sh.retire(pulls, jobs);
        }
        st.phase
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        self.1.ended(&self.0);
    }
}

impl Session {
    /// Is it waiting for the socket, and is there something to say?
    fn unsaid(&self) -> (bool, bool) {
        let st = self.state.borrow();
        let work = st.pulls.iter().any(|p| !p.queue.is_empty() || p.gone > 0)
            || st.jobs.as_ref().is_some_and(|jobs| jobs.has_queued());
        let open = st.phase == Phase::Open || st.phase == Phase::Closing;
        let unsaid = !st.control.is_empty() || st.phase == Phase::Closing || work;
        (st.blocked && open, unsaid && open)
    }

    /// Did writing make room for what had to wait?
    fn may_go_on(&self, on: HandOn, sh: &Shard) -> bool {
        match on {
            HandOn::Unheard => !self.is_full(sh),
            HandOn::Waits => self.state.borrow().waits_behind && !self.is_far_behind(),
            HandOn::Done => self.state.borrow().jobs.as_ref().is_some_and(|jobs| jobs.has_written()),
        }
    }

    /// A client is not read while its last messages wait, or while it doesn't read what it is told.
    fn may_read(&self, on: HandOn, sh: &Shard) -> bool {
        // only who waits for us is held back by us: one that does not read its answers must still answer pings
        self.state.borrow_mut().held_back = on == HandOn::Waits;
        on == HandOn::Done && !self.is_full(sh)
    }

    /// Is more waiting to be read by the client than it may leave?
    fn is_full(&self, sh: &Shard) -> bool {
        self.state.borrow().control.len() > sh.hub.options.control_bytes_max
    }
}
