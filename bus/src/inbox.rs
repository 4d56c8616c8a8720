//! The only way into a shard from outside its thread: a bounded queue of items.
//!
//! What publishers bring waits with them when there is no room, so that they are slowed and nothing is dropped. What
//! the bus itself says (openings, work that was assigned, the end) always has room: other bounds hold it.

use crate::follow::Follow;
use crate::grant::{Grant, Review};
use crate::lanes::Work;
use crate::opening::{Opening, Permit, Start};
use crate::pattern::Pattern;
use crate::publish::Batch;
use crate::relay::RelayBatch;
use crate::shard::Shard;
use crate::subscription::Pipe;
use crate::work::LeasedJob;
use minium_protocol::{Filter, Position, Topic};
use std::future::poll_fn;
use std::mem;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::sync::oneshot;

/// What reaches a shard.
pub(crate) enum Item {
    /// A checked upgrade.
    Open(Box<Opening>),
    /// An SSE subscription.
    Subscribe(Box<StreamOpening>),
    /// Messages of one sender.
    Frames(Arc<Batch>),
    /// Entries of the journal, in offset order.
    Relay(Arc<RelayBatch>),
    /// The numbering is known up to here.
    RelayFrom(Position),
    /// A message for one puller of this shard.
    Work(Assignment),
    /// A job for one puller of this shard, and for which of its places.
    Job(u64, usize, Box<LeasedJob>),
    /// A job of this puller was cancelled.
    Cancelled(u64, i64),
    /// What it has is asked.
    Ask(Question),
    /// Grants are to be judged anew.
    Review(Arc<Review>),
    /// Close all sessions, and end after so long at the latest.
    Shutdown(Duration),
}

/// Asks a shard something, on its own thread.
pub(crate) type Question = Box<dyn FnOnce(&Shard) + Send>;

/// All that a shard needs to begin an SSE subscription.
pub(crate) struct StreamOpening {
    pub(crate) filter: Filter,
    pub(crate) start: Option<Start>,
    pub(crate) grant: Option<Arc<Grant>>,
    pub(crate) permit: Permit,
    pub(crate) remote: Option<SocketAddr>,
    pub(crate) pipe: Arc<Pipe>,
    /// Told once the session is registered.
    pub(crate) ready: oneshot::Sender<()>,
}

/// Work for one puller.
pub(crate) struct Assignment {
    pub(crate) topic: Arc<str>,
    pub(crate) puller: u64,
    pub(crate) work: Work,
}

/// One shard's queue.
#[derive(Default)]
pub(crate) struct Inbox {
    queue: Mutex<Queue>,
    bytes_max: usize,
}

#[derive(Default)]
struct Queue {
    items: Vec<Item>,
    bytes: usize,
    /// What has subscribers in the shard that cannot keep up.
    crowded: Vec<Follow>,
    /// Nobody takes anything any more.
    closed: bool,
    shard: Option<Waker>,
    waiting: Vec<Waker>,
}

/// What the bus pays for an item besides its bytes.
const ITEM_BYTES: usize = 64;

impl Inbox {
    pub(crate) fn new(bytes_max: usize) -> Inbox {
        Inbox { queue: Mutex::default(), bytes_max }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // nothing panics while it is held, and a queue is whole after every statement
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings what always has room. An item for a shard that has ended is handed back.
    pub(crate) fn put(&self, item: Item) -> Result<(), Item> {
        let mut q = self.lock();
        if q.closed {
            return Err(item);
        }
        q.items.push(item);
        let wake = q.shard.take();
        drop(q);
        wake.inspect(Waker::wake_by_ref);
        Ok(())
    }

    /// Brings `bytes` of a sender. False: no room, or `to` has subscribers that cannot keep up; `waker` is woken
    /// when it may be tried again. What the journal relays is to nobody: who is slow reads it again later.
    pub(crate) fn offer(
        &self,
        make: impl FnOnce() -> Item,
        bytes: usize,
        to: Option<(Pattern, &Topic)>,
        waker: &Waker,
    ) -> bool {
        let mut q = self.lock();
        if q.closed {
            return true;
        }
        if q.bytes > self.bytes_max || to.is_some_and(|(pattern, topic)| q.is_crowded(pattern, topic)) {
            if !q.waiting.iter().any(|w| w.will_wake(waker)) {
                q.waiting.push(waker.clone());
            }
            return false;
        }
        q.items.push(make());
        q.bytes += bytes + ITEM_BYTES;
        let wake = q.shard.take();
        drop(q);
        wake.inspect(Waker::wake_by_ref);
        true
    }

    /// As [`Inbox::offer`], awaiting room.
    pub(crate) async fn send(&self, make: impl Fn() -> Item, bytes: usize, to: Option<(Pattern, &Topic)>) {
        poll_fn(|cx| match self.offer(&make, bytes, to, cx.waker()) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
    }

    /// For the shard: everything that came, in order.
    pub(crate) fn poll_take(&self, cx: &mut Context<'_>, into: &mut Vec<Item>) -> Poll<()> {
        let mut q = self.lock();
        if q.items.is_empty() {
            q.shard = Some(cx.waker().clone());
            return Poll::Pending;
        }
        mem::swap(&mut q.items, into);
        q.bytes = 0;
        let waiting = mem::take(&mut q.waiting);
        drop(q);
        waiting.iter().for_each(Waker::wake_by_ref);
        Poll::Ready(())
    }

    /// For the shard: who sends to what these receive shall wait, and nobody else.
    pub(crate) fn set_crowded(&self, crowded: Vec<Follow>) {
        let mut q = self.lock();
        q.crowded = crowded;
        let waiting = mem::take(&mut q.waiting);
        drop(q);
        waiting.iter().for_each(Waker::wake_by_ref);
    }

    /// For the shard: it ends. What is left is dropped, which closes its sockets.
    pub(crate) fn close(&self) {
        let mut q = self.lock();
        q.closed = true;
        let left = mem::take(&mut q.items);
        let waiting = mem::take(&mut q.waiting);
        drop(q);
        drop(left);
        waiting.iter().for_each(Waker::wake_by_ref);
    }
}

impl Queue {
    fn is_crowded(&self, pattern: Pattern, topic: &Topic) -> bool {
        self.crowded.iter().any(|f| f.concerns(pattern, topic))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item() -> Item {
        Item::RelayFrom(Position { epoch: 1, offset: 0 })
    }

    fn take(inbox: &Inbox) -> usize {
        let mut items = Vec::new();
        let taken = inbox.poll_take(&mut Context::from_waker(Waker::noop()), &mut items);
        assert_eq!(taken.is_ready(), !items.is_empty());
        items.len()
    }

    #[test]
    fn a_sender_waits_when_there_is_no_room_and_the_bus_never_does() {
        let inbox = Inbox::new(100);
        assert!(inbox.offer(item, 50, None, Waker::noop()));
        assert!(!inbox.offer(item, 50, None, Waker::noop()));
        assert!(inbox.put(item()).is_ok());
        assert_eq!(take(&inbox), 2);
        assert!(inbox.offer(item, 50, None, Waker::noop()));
    }

    #[test]
    fn only_senders_to_what_is_crowded_wait() {
        let inbox = Inbox::new(1_000);
        let (slow, other): (Topic, Topic) = ("slow/x".parse().unwrap(), "other".parse().unwrap());
        let offer = |pattern, topic| inbox.offer(item, 1, Some((pattern, topic)), Waker::noop());
        inbox.set_crowded(vec![Follow::new(Pattern::Sub, "slow".parse().unwrap())]);
        assert!(!offer(Pattern::Sub, &slow));
        assert!(offer(Pattern::Sub, &other) && offer(Pattern::Bus, &slow));
        assert!(inbox.offer(item, 1, None, Waker::noop()), "the journal");
        inbox.set_crowded(Vec::new());
        assert!(offer(Pattern::Sub, &slow));
    }

    #[test]
    fn nobody_waits_for_a_shard_that_has_ended() {
        let inbox = Inbox::new(0);
        assert!(inbox.offer(item, 1, None, Waker::noop()));
        inbox.close();
        assert!(inbox.offer(item, 1, None, Waker::noop()));
        assert!(inbox.put(item()).is_err());
        assert_eq!(take(&inbox), 0);
    }
}
