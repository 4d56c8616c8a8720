//! Server-sent events: a subscription whose bytes somebody else writes.
//!
//! A [`Pipe`] stands where a socket would: the shard puts whole events in until it is full, the reader takes them
//! out, on whatever thread it likes. Slow readers are treated as slow sockets are.

use bytes::Bytes;
use futures::Stream;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// An SSE subscription: each item is one or more whole events, ready for the wire. Ends when the session is closed,
/// which an event named `close` says before; dropping it ends the session.
#[derive(Debug)]
pub struct Subscription(Arc<Pipe>);

impl Subscription {
    pub(crate) fn new(pipe: Arc<Pipe>) -> Subscription {
        Subscription(pipe)
    }
}

impl Stream for Subscription {
    type Item = Bytes;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        self.0.poll_take(cx)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// A bounded queue of bytes between a shard and a reader.
#[derive(Debug)]
pub(crate) struct Pipe {
    state: Mutex<State>,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct State {
    chunks: VecDeque<Bytes>,
    bytes: usize,
    /// The shard has said all.
    ended: bool,
    /// The reader is gone.
    left: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Pipe {
    pub(crate) fn new(bytes_max: usize) -> Pipe {
        Pipe { state: Mutex::default(), bytes_max }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes all of `events` or, while more than the bound waits, nothing: events are never cut.
    pub(crate) fn try_write(&self, events: &[u8]) -> io::Result<usize> {
        let mut st = self.lock();
        if st.left || st.ended {
            return Err(ErrorKind::BrokenPipe.into());
        }
        if st.bytes >= self.bytes_max {
            return Err(ErrorKind::WouldBlock.into());
        }
        st.chunks.push_back(Bytes::copy_from_slice(events));
        st.bytes += events.len();
        let reader = st.reader.take();
        drop(st);
        reader.inspect(Waker::wake_by_ref);
        Ok(events.len())
    }

    /// Ready when there is room, or nobody reads any more.
    pub(crate) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut st = self.lock();
        if st.left || st.bytes < self.bytes_max {
            return Poll::Ready(());
        }
        st.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Ready when nobody reads any more.
    pub(crate) fn poll_left(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut st = self.lock();
        if st.left {
            return Poll::Ready(());
        }
        st.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The reader ends when it has taken what is there.
    pub(crate) fn end(&self) {
        let mut st = self.lock();
        st.ended = true;
        let reader = st.reader.take();
        drop(st);
        reader.inspect(Waker::wake_by_ref);
    }

    fn poll_take(&self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut st = self.lock();
        if let Some(chunk) = st.chunks.pop_front() {
            let was_full = st.bytes >= self.bytes_max;
            st.bytes -= chunk.len();
            let writer = if was_full && st.bytes < self.bytes_max { st.writer.take() } else { None };
            drop(st);
            writer.inspect(Waker::wake_by_ref);
            return Poll::Ready(Some(chunk));
        }
        if st.ended {
            return Poll::Ready(None);
        }
        st.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    fn leave(&self) {
        let mut st = self.lock();
        st.left = true;
        st.chunks.clear();
        let writer = st.writer.take();
        drop(st);
        writer.inspect(Waker::wake_by_ref);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(pipe: &Pipe) -> Poll<Option<Bytes>> {
        pipe.poll_take(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn what_is_written_is_read_and_then_it_ends() {
        let pipe = Pipe::new(4);
        assert!(take(&pipe).is_pending());
        assert_eq!(pipe.try_write(b"abc").unwrap(), 3);
        assert_eq!(pipe.try_write(b"defg").unwrap(), 4);
        assert_eq!(pipe.try_write(b"h").unwrap_err().kind(), ErrorKind::WouldBlock);
        assert!(pipe.poll_room(&mut Context::from_waker(Waker::noop())).is_pending());
        assert_eq!(take(&pipe), Poll::Ready(Some("abc".into())));
        pipe.end();
        assert_eq!(take(&pipe), Poll::Ready(Some("defg".into())));
        assert_eq!(take(&pipe), Poll::Ready(None));
    }

    #[test]
    fn a_reader_that_left_is_noticed() {
        let pipe = Arc::new(Pipe::new(1));
        let subscription = Subscription::new(pipe.clone());
        assert!(pipe.poll_left(&mut Context::from_waker(Waker::noop())).is_pending());
        drop(subscription);
        assert!(pipe.poll_left(&mut Context::from_waker(Waker::noop())).is_ready());
        assert_eq!(pipe.try_write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
    }
}
