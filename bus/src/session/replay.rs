//! Reading history into a session, and the joint between history and what comes live.
//!
//! The session keeps its place in the log meanwhile: it stands at the log's end of the moment (`hold`), so that the
//! log forgets nothing behind it. It reads the journal up to there, page by page, each when the last one was
//! written; then it follows the log. If the log had to let go of its place (it is bounded), the place moves to the
//! log's new end, and there is more to read. So nothing is lost and nothing comes twice, whatever happens meanwhile.

use super::{Phase, Session};
use crate::encode::{self, Encoding};
use crate::history::{History, HistoryError, Page};
use crate::shard::Shard;
use minium_protocol::{CloseCode, Filter};
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

/// How far a session has come in the journal.
pub(crate) struct Replay {
    /// It was given everything up to this offset.
    cursor: u64,
    /// The last offset that lies before its place in the log.
    pub(super) hold: u64,
    /// Of the task that reads.
    waker: Option<Waker>,
}

impl Replay {
    pub(crate) fn new(cursor: u64, hold: u64) -> Replay {
        Replay { cursor, hold, waker: None }
    }

    pub(super) fn wake(&mut self) {
        self.waker.take().inspect(Waker::wake_by_ref);
    }
}

/// Reads history for all sessions, so many at once. The reads run where the bus was started: the shards' own
/// runtimes never wait for a database.
pub(crate) struct Reads {
    history: Arc<dyn History>,
    runtime: Handle,
    permits: Arc<Semaphore>,
    tasks: TaskTracker,
}

impl Reads {
    pub(crate) fn new(history: Arc<dyn History>, runtime: Handle, at_once: usize) -> Reads {
        Reads { history, runtime, permits: Arc::new(Semaphore::new(at_once)), tasks: TaskTracker::new() }
    }

    async fn page(&self, filter: Filter, after: u64, to: u64, sh: &Shard) -> Result<Page, HistoryError> {
        let options = &sh.hub.options;
        let (count, bytes) = (options.page_count_max, options.page_bytes_max);
        let history = self.history.clone();
        let unavailable = |e: &dyn std::fmt::Display| HistoryError::Unavailable(e.to_string());
        let permit = self.permits.clone().acquire_owned().await.map_err(|e| unavailable(&e))?;
        let read = async move {
            let page = history.read(&filter, after, to, count, bytes).await;
            drop(permit);
            page
        };
        let page = self.tasks.spawn_on(read, &self.runtime).await.map_err(|e| unavailable(&e))??;
        if page.scanned_to <= after {
            return Err(HistoryError::Unavailable(format!("a page behind {after} made no progress")));
        }
        Ok(page)
    }
}

/// What to do next.
enum Step {
    Read(Filter, u64, u64),
    /// It follows the log now, or is gone.
    Done,
}

/// Reads until the session has joined what comes live. A session that ends meanwhile is gone at once, with its
/// socket, however long a read takes.
pub(crate) async fn replay(session: Weak<Session>, sh: Rc<Shard>) {
    loop {
        let step = poll_fn(|cx| session.upgrade().map_or(Poll::Ready(Step::Done), |s| s.poll_step(&sh, cx)));
        let Step::Read(filter, after, to) = step.await else { return };
        let page = match &sh.reads {
            Some(reads) => reads.page(filter, after, to, &sh).await,
            None => Err(HistoryError::Unavailable("there is none".into())),
        };
        let Some(s) = session.upgrade() else { return };
        match page {
            Ok(page) => s.take_page(&page, after, &sh),
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
    /// Begins to read history: everything behind `after`, up to `hold`, where its place in the log is.
    pub(crate) fn begin_replay(&self, after: u64, hold: u64) {
        self.state.borrow_mut().replay = Some(Box::new(Replay::new(after, hold)));
    }

    /// Ready when the last page was written: with the next read, or joined.
    fn poll_step(&self, sh: &Shard, cx: &mut Context<'_>) -> Poll<Step> {
        let mut st = self.state.borrow_mut();
        let st = &mut *st;
        let (Some(log), Phase::Open, Some(replay)) = (&self.log, st.phase, &mut st.replay) else {
            return Poll::Ready(Step::Done);
        };
        if !st.control.is_empty() || st.blocked {
            replay.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if replay.cursor < replay.hold {
            return Poll::Ready(Step::Read(log.filter.clone(), replay.cursor, replay.hold));
        }
        if sh.relayed_to() < replay.cursor {
            // it knows more than this node was told yet: what is relayed up to there is skipped
            sh.await_relay(cx.waker());
            replay.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let pos = log.behind(replay.cursor).max(st.pos);
        (st.pos, st.goal) = (pos, pos);
        st.replay = None;
        sh.mark(log);
        Poll::Ready(Step::Done)
    }

    /// Says what a page holds.
    fn take_page(&self, page: &Page, after: u64, sh: &Shard) {
        {
            let mut st = self.state.borrow_mut();
            let st = &mut *st;
            let (Phase::Open, Some(replay)) = (st.phase, &mut st.replay) else { return };
            let mut messages = 0;
            for entry in page.entries.iter().filter(|e| e.position.offset > after) {
                match self.encoding {
                    Encoding::Sse => encode::durable_sse(&mut st.control, entry.position, &entry.event),
                    Encoding::Plain | Encoding::CloudEvents => {
                        encode::durable_frame(&mut st.control, &entry.event);
                    }
                }
                messages += 1;
            }
            sh.count_delivered(messages);
            replay.cursor = page.scanned_to;
        }
        self.push(sh);
        let st = self.state.borrow();
        if st.blocked || st.phase != Phase::Open {
            st.wake();
        }
    }
}
