//! What is asked for again and again, and when it was done: a reader waits for questions, who asks may wait for the end.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use tokio::sync::{Notify, watch};

/// Asks somebody to do something again.
#[derive(Debug)]
pub(super) struct Asked {
    notify: Notify,
    /// Questions so far.
    asked: AtomicU64,
    /// So many of them were known when the reader last began.
    begun: AtomicU64,
    /// So many are done. Nobody listens: all.
    done: watch::Sender<u64>,
}

impl Default for Asked {
    fn default() -> Asked {
        let done = watch::Sender::new(u64::MAX);
        Asked { notify: Notify::new(), asked: AtomicU64::new(0), begun: AtomicU64::new(0), done }
    }
}

impl Asked {
    /// For the reader: until it is asked. What it was asked before is done when it comes here again.
    pub(super) async fn notified(&self) {
        self.done.send_replace(self.begun.load(SeqCst));
        self.notify.notified().await;
        self.begun.store(self.asked.load(SeqCst), SeqCst);
    }

    /// Asks. What this gives ends when it is done, at once where nobody listens.
    pub(super) fn ask(&self) -> impl Future<Output = ()> + 'static + use<> {
        let number = self.asked.fetch_add(1, SeqCst) + 1;
        let mut done = self.done.subscribe();
        self.notify.notify_one();
        async move {
            // who is gone does nothing more
            done.wait_for(|done| *done >= number).await.ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::poll;
    use std::pin::pin;

    #[tokio::test]
    async fn it_is_done_when_the_reader_comes_back() {
        let asked = Asked::default();
        asked.ask().await;
        let mut reading = pin!(asked.notified());
        assert!(poll!(&mut reading).is_ready(), "what was asked before it came is asked");
        let mut first = pin!(asked.ask());
        assert!(poll!(&mut first).is_pending());
        // asked while the reader was at the one before: one turn more
        let mut next = pin!(asked.notified());
        assert!(poll!(&mut next).is_ready());
        assert!(poll!(&mut first).is_pending(), "it has only begun");
        let mut idle = pin!(asked.notified());
        assert!(poll!(&mut idle).is_pending());
        assert!(poll!(&mut first).is_ready());
    }
}
