//! A bus: everyone gets what the others send.

use super::desk::{Command, Item};
use super::payload::Payload;
use super::{Received, Seat, json_of};
use crate::error::ClientError;
use futures::Stream;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::mpsc;

/// One among the peers of a bus: a stream of what the others send. Comes back by itself.
///
/// A message of one's own that the server refused is an `Err` in the stream, and the stream goes on; an `Err` that
/// ends it is the last item.
#[derive(Debug)]
pub struct Peer {
    pub(super) items: mpsc::Receiver<Item>,
    pub(super) seat: Arc<Seat>,
    pub(super) told: bool,
}

/// The speaking half of a peer; cheap to clone.
#[derive(Debug, Clone)]
pub struct PeerSender {
    seat: Arc<Seat>,
}

/// What a peer hears.
#[derive(Debug)]
#[non_exhaustive]
pub enum PeerEvent {
    /// What another peer sent.
    Message(Received),
    /// The connection was cut. What was said meanwhile, by others or by this peer, may be lost.
    Gap,
}

impl Peer {
    /// For speaking while listening.
    pub fn sender(&self) -> PeerSender {
        PeerSender { seat: self.seat.clone() }
    }
}

impl PeerSender {
    /// Sends a message to the others, at most once. Waits while too many are on their way: whoever sends a lot must
    /// read meanwhile, since a server that cannot write does not read either.
    ///
    /// # Errors
    /// When the connection is over: why. A refusal stands in the peer's stream.
    pub async fn send(&self, payload: impl Into<Payload>) -> Result<(), ClientError> {
        let data = json_of(payload.into())?;
        self.seat.line.ask(Command::Send { key: self.seat.key, data }).await
    }

    /// Nothing more is to be sent: the peer leaves when the server has judged all that was. Its stream yields what
    /// still comes, then ends.
    pub async fn finish(&self) {
        // a line that is over has nothing left to do
        self.seat.line.ask(Command::Finish).await.ok();
    }
}

impl Stream for Peer {
    type Item = Result<PeerEvent, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let event = match std::task::ready!(self.items.poll_recv(cx)) {
                None => {
                    return Poll::Ready(
                        self.seat.last_word().filter(|_| !std::mem::replace(&mut self.told, true)).map(Err),
                    );
                }
                Some(Item::Message { topic, position, payload }) => {
                    Ok(PeerEvent::Message(Received { topic, position, payload }))
                }
                Some(Item::Gap { .. }) => Ok(PeerEvent::Gap),
                Some(Item::Refused(error) | Item::Failed(error)) => Err(error),
                Some(Item::CaughtUp { .. } | Item::Lost(_) | Item::Job(_)) => continue,
            };
            return Poll::Ready(Some(event));
        }
    }
}
