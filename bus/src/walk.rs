//! The fan-out: each subscriber gets the bytes from its cursor to the log's end, in as few writes as possible.
//!
//! What arrives during one walk leaves with the next: batching by turn is the whole game, since a write costs fifty
//! times what a further message in the same write does.

use crate::log::Log;
use crate::peers::Turn;
use crate::session::Session;
use crate::shard::Shard;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

/// So many sessions are written to before the shard's other tasks get a turn.
const STRIDE: usize = 128;

/// What a walk found.
struct Found {
    /// Everybody has what lies before.
    min: u64,
    /// So many are far behind.
    behind: usize,
}

impl Shard {
    /// Offers a log to all its subscribers.
    pub(crate) async fn walk(&self, log: &Rc<Log>) {
        log.dirty.set(false);
        log.moved.set(false);
        let mut found = Found { min: u64::MAX, behind: 0 };
        if log.echoers.get() > 0 {
            self.pass(log, Turn::First, &mut found).await;
            found = Found { min: u64::MAX, behind: 0 };
        }
        self.pass(log, Turn::Last, &mut found).await;
        log.count();
        if log.moved.get() {
            self.mark(log); // one may have been missed
        } else {
            log.forget(found.min);
        }
        self.judge_crowd(log, found.behind);
    }

    async fn pass(&self, log: &Rc<Log>, turn: Turn, found: &mut Found) {
        let mut next = 0;
        loop {
            let stop = next + STRIDE;
            let at = Cell::new(next);
            let stride = AssertUnwindSafe(|| offer(log, turn, &at, stop, found));
            let Ok(more) = catch_unwind(stride) else {
                let broken = log.subscribers.borrow().get(at.get()).cloned();
                if let Some(s) = broken {
                    // what made it panic may do so again: then it only goes
                    let fault = AssertUnwindSafe(|| s.fault());
                    if catch_unwind(fault).is_err() {
                        s.cut();
                    }
                }
                next = at.get() + 1;
                continue;
            };
            if !more {
                return;
            }
            next = stop;
            tokio::task::yield_now().await;
        }
    }

    /// Publishers wait while most subscribers are far behind: then it is too much, not one slow client.
    fn judge_crowd(&self, log: &Rc<Log>, behind: usize) {
        let full = log.is_full();
        if !full {
            log.impatient.set(false);
        }
        if log.crowded.get() && (!full || behind * 2 <= log.subscribers.borrow().len()) {
            self.disperse(log);
        }
    }
}

/// One stride. True: there are more.
fn offer(log: &Log, turn: Turn, at: &Cell<usize>, stop: usize, found: &mut Found) -> bool {
    let (subscribers, ring) = (log.subscribers.borrow(), log.ring.borrow());
    let crowded = log.crowded.get();
    let stride: &[Rc<Session>] = subscribers.get(at.get()..stop.min(subscribers.len())).unwrap_or_default();
    for s in stride {
        let pos = s.offer(log, &ring, turn);
        found.min = found.min.min(pos);
        found.behind += usize::from(crowded && log.is_behind(pos, ring.end()));
        at.set(at.get() + 1);
    }
    stop < subscribers.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::Hub;
    use crate::inbox::StreamOpening;
    use crate::opening::Permit;
    use crate::options::Options;
    use crate::subscription::{Pipe, Subscription};
    use futures::{FutureExt, StreamExt};
    use std::sync::Arc;
    use tokio::runtime::{Builder, LocalOptions};

    fn subscribe(shard: &Rc<Shard>) -> Subscription {
        let pipe = Arc::new(Pipe::new(1 << 20));
        let subscription = Subscription::new(pipe.clone());
        let permit = Permit::take(&shard.hub, usize::MAX).unwrap();
        let (ready, _registered) = tokio::sync::oneshot::channel();
        shard.subscribe(StreamOpening {
            filter: "x".parse().unwrap(),
            start: None,
            grant: None,
            permit,
            remote: None,
            pipe,
            ready,
        });
        subscription
    }

    #[test]
    fn who_takes_the_place_of_one_that_left_during_a_walk_is_not_missed() {
        let runtime =
            Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
        runtime.block_on(async {
            let hub = Hub::alone(Options { shards: 1, ..Options::default() });
            let shard = Shard::new(0, hub, None);
            let mut subscriptions: Vec<_> = (0..2 * STRIDE).map(|_| subscribe(&shard)).collect();
            let log = shard.shelf.borrow().iter().next().cloned().unwrap();
            log.append(b"data: 1\n\n", 1, None, |_| {});
            let mut walk = Box::pin(shard.walk(&log));
            assert!(futures::poll!(&mut walk).is_pending(), "it yields after a stride");
            // one that was served leaves, and the last one, which was not, takes its place
            drop(subscriptions.remove(0));
            while log.subscribers.borrow().len() == 2 * STRIDE {
                tokio::task::yield_now().await;
            }
            walk.await;
            while log.dirty.get() {
                shard.walk(&log).await;
            }
            for s in &mut subscriptions {
                assert_eq!(s.next().now_or_never().flatten().as_deref(), Some(&b"data: 1\n\n"[..]));
            }
        });
    }
}
