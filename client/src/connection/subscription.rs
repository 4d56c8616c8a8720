//! A subscription: a stream of events that comes back by itself and resumes by position.

use super::desk::{Command, Item};
use super::{Received, Seat};
use crate::error::ClientError;
use futures::Stream;
use minium_protocol::{After, Filter, Position, Problem};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::{mpsc, oneshot};

/// A stream of what matches a filter. Dropped, it unsubscribes. It ends after [`Connection::close`](super::Connection::close), when the server
/// says that nothing more is to come, or with an error as its last item.
#[derive(Debug)]
pub struct Subscription {
    pub(super) items: mpsc::Receiver<Item>,
    pub(super) seat: Seat,
    pub(super) filter: Filter,
    pub(super) position: Option<Position>,
    pub(super) told: bool,
}

/// What a subscription tells.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A message.
    Message(Received),
    /// Messages were missed: the connection was cut on a channel that keeps nothing, or the channel's policy for slow
    /// readers left some out (then with their offsets).
    Gap {
        /// The first offset that may be missing.
        from: Option<u64>,
        /// The last one.
        to: Option<u64>,
    },
    /// Everything up to this offset was delivered; what follows is live.
    CaughtUp {
        /// The offset.
        offset: u64,
    },
    /// The position is gone (`offset_expired`, `epoch_changed`): nothing more comes until [`Subscription::begin`]
    /// says where to begin anew.
    Lost(Box<Problem>),
}

impl Subscription {
    /// What was subscribed.
    pub fn filter(&self) -> &Filter {
        &self.filter
    }

    /// Where it stands: behind the last message that the program has taken, at first where it began. A later
    /// subscription that begins there misses nothing. `None` on channels that keep nothing.
    pub fn position(&self) -> Option<Position> {
        self.position
    }

    /// Begins anew after [`Event::Lost`]. When this returns, delivery is certain from there on.
    ///
    /// # Errors
    /// The server's problem; `conflict` when nothing is lost. Then it may be called again.
    pub async fn begin(&mut self, from: After) -> Result<(), ClientError> {
        let (opened, answer) = oneshot::channel();
        self.seat.line.ask(Command::Begin { key: self.seat.key, from, opened }).await?;
        self.position = answer.await.unwrap_or_else(|_| Err(self.seat.line.why()))?;
        Ok(())
    }
}

impl Stream for Subscription {
    type Item = Result<Event, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let event = match std::task::ready!(self.items.poll_recv(cx)) {
                None => {
                    return Poll::Ready(
                        self.seat.last_word().filter(|_| !std::mem::replace(&mut self.told, true)).map(Err),
                    );
                }
                Some(Item::Message { topic, position, payload }) => {
                    // positions mean something only where one can resume
                    if self.position.is_some() {
                        self.position = position.or(self.position);
                    }
                    Ok(Event::Message(Received { topic, position, payload }))
                }
                Some(Item::Gap { from, to }) => {
                    self.pass(to);
                    Ok(Event::Gap { from, to })
                }
                Some(Item::CaughtUp { offset }) => {
                    self.pass(Some(offset));
                    Ok(Event::CaughtUp { offset })
                }
                Some(Item::Lost(problem)) => Ok(Event::Lost(problem)),
                Some(Item::Refused(error) | Item::Failed(error)) => {
                    self.told = true;
                    Err(error)
                }
                Some(Item::Job(_)) => continue,
            };
            return Poll::Ready(Some(event));
        }
    }
}

impl Subscription {
    fn pass(&mut self, offset: Option<u64>) {
        if let (Some(position), Some(offset)) = (&mut self.position, offset) {
            position.offset = position.offset.max(offset);
        }
    }
}
