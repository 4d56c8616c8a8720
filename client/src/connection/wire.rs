//! One open socket, written and read at the same time: a server that waits for us to read, and we for it, would wait
//! for ever.

use crate::socket::Stream;
use futures::{Sink, Stream as _};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio_tungstenite::tungstenite::{Error, Message};

/// Frames that wait to be written, before nothing more is taken from the program.
const WAITING_COUNT_MAX: usize = 64;

pub(super) struct Wire {
    stream: Stream,
    waiting: VecDeque<Message>,
    /// Something was given to the socket, and may not have left.
    unflushed: bool,
}

impl Wire {
    pub(super) fn new(stream: Stream) -> Wire {
        Wire { stream, waiting: VecDeque::new(), unflushed: false }
    }

    /// Writes this when the socket takes it.
    pub(super) fn say(&mut self, message: Message) {
        self.waiting.push_back(message);
    }

    /// Is there room for more?
    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() < WAITING_COUNT_MAX
    }

    /// Has everything left?
    pub(super) fn is_written(&self) -> bool {
        self.waiting.is_empty() && !self.unflushed
    }

    /// Writes what waits, and reads the next frame if `reading`; it ends, too, when all is written.
    /// Nothing is lost when it is dropped before it ends.
    pub(super) async fn turn(&mut self, reading: bool) -> Turn {
        let owed = !self.is_written();
        poll_fn(|cx| {
            if let Poll::Ready(Err(error)) = self.poll_write(cx) {
                // the server's word says why, if there is one
                return match Pin::new(&mut self.stream).poll_next(cx) {
                    Poll::Ready(Some(Ok(frame))) => Poll::Ready(Turn::Heard(frame)),
                    _ => Poll::Ready(Turn::Failed(error)),
                };
            }
            if reading && let Poll::Ready(heard) = Pin::new(&mut self.stream).poll_next(cx) {
                return Poll::Ready(match heard {
                    Some(Ok(frame)) => Turn::Heard(frame),
                    Some(Err(error)) => Turn::Failed(error),
                    None => Turn::Ended,
                });
            }
            if owed && self.is_written() { Poll::Ready(Turn::Written) } else { Poll::Pending }
        })
        .await
    }

    /// Writes until everything has left.
    pub(super) async fn flush(&mut self) -> Result<(), Error> {
        poll_fn(|cx| self.poll_write(cx)).await
    }

    pub(super) fn stream(&mut self) -> &mut Stream {
        &mut self.stream
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        while !self.waiting.is_empty() {
            std::task::ready!(Pin::new(&mut self.stream).poll_ready(cx))?;
            if let Some(message) = self.waiting.pop_front() {
                Pin::new(&mut self.stream).start_send(message)?;
                self.unflushed = true;
            }
        }
        if self.unflushed {
            std::task::ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}

/// What came of a turn.
pub(super) enum Turn {
    Heard(Message),
    Failed(Error),
    Ended,
    Written,
}
