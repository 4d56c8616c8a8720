//! (being written)
use bytes::Bytes;
use futures::Stream;
use std::pin::Pin;
use std::task::{Context, Poll};
/// An SSE subscription: each item is one or more whole events, ready for the wire. Ends when the session is closed.
#[derive(Debug)]
pub struct Subscription(());
impl Stream for Subscription {
    type Item = Bytes;
    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Bytes>> {
        Poll::Ready(None)
    }
}
