//! A lock that is held for as long as its guard lives: renewed in time, and let go at the end.
//!
//! What must hold: whoever still has a guard whose [`LockGuard::lost`] is silent has the lock. So the guard reckons from
//! before each call was sent, by a clock that only goes forward, and calls the lock lost no later than the database
//! does. One task a guard; it ends with the guard, or when the lock is lost.

use super::{LockHeld, Locks};
use crate::error::QueueError;
use minium_protocol::LockToken;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

/// The pause after a call that failed, unless the time that is left is shorter.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// A lock that is held. Dropping it lets the lock go in the background.
#[derive(Debug)]
pub struct LockGuard {
    name: String,
    token: LockToken,
    lost: CancellationToken,
    stop: DropGuard,
    keeper: JoinHandle<bool>,
}

/// Takes a lock and keeps it: every third of `span` it is extended to `span` again. `None` when `limit` others have it.
/// Must be called within a tokio runtime.
///
/// # Errors
/// As [`Locks::lock`]; a `span` of zero is [`QueueError::Invalid`].
pub async fn hold(
    store: Arc<dyn Locks>,
    name: &str,
    owner: &str,
    span: Duration,
    limit: u32,
) -> Result<Option<LockGuard>, QueueError> {
    if span.is_zero() {
        return Err(QueueError::Invalid("a lock that is to be kept needs a span".into()));
    }
    let asked = Instant::now();
    let held = store.lock(name, owner, span, limit).await?;
    Ok(held.map(|LockHeld { token, .. }| keep(store, name, token, span, asked)))
}

/// Keeps a lock that was taken for `span` already, by a call that was begun at `asked`. As [`hold`].
pub fn keep(
    store: Arc<dyn Locks>,
    name: &str,
    token: LockToken,
    span: Duration,
    asked: Instant,
) -> LockGuard {
    let (lost, stop) = (CancellationToken::new(), CancellationToken::new());
    let keeper =
        Keeper { store, name: name.into(), token, span, sure_until: asked + span, lost: lost.clone() };
    let task = TaskTracker::new().spawn(keeper.keep(stop.clone()));
    LockGuard { name: name.into(), token, lost, stop: stop.drop_guard(), keeper: task }
}

impl LockGuard {
    /// The lock's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Fences words about it.
    pub fn token(&self) -> LockToken {
        self.token
    }

    /// Is cancelled when the lock is lost: it ran out while the database was away, or somebody ended it. What it
    /// protects must stop then.
    pub fn lost(&self) -> &CancellationToken {
        &self.lost
    }

    /// Lets the lock go, and waits until it is gone. False when it had been lost. While the database is away this takes
    /// at most as long as the lock would have been held.
    pub async fn release(self) -> bool {
        drop(self.stop);
        // a keeper that panicked has let nothing go
        self.keeper.await.unwrap_or(false)
    }
}

/// What keeps one lock.
struct Keeper {
    store: Arc<dyn Locks>,
    name: String,
    token: LockToken,
    span: Duration,
    /// Until then nobody else can have it.
    sure_until: Instant,
    lost: CancellationToken,
}

impl Keeper {
    /// Extends the lock until it is told to stop, then lets it go. Was it held to the end?
    async fn keep(mut self, stop: CancellationToken) -> bool {
        let renewing = async {
            let mut pause = self.span / 3;
            loop {
                sleep(pause).await;
                pause = match self.extend().await {
                    Some(true) => self.span / 3,
                    Some(false) => return,
                    None => Duration::ZERO,
                };
            }
        };
        let held = stop.run_until_cancelled(renewing).await.is_none();
        if !held {
            warn!(name = self.name, "A lock was lost.");
            self.lost.cancel();
            return false;
        }
        self.let_go().await
    }

    /// Does it go on? `None` when the database did not say, and there is time to ask again.
    async fn extend(&mut self) -> Option<bool> {
        let asked = Instant::now();
        match timeout_at(self.sure_until, self.store.extend_lock(&self.name, self.token, self.span)).await {
            Ok(Ok(Some(_))) => {
                self.sure_until = asked + self.span;
                Some(true)
            }
            Ok(Ok(None)) | Err(_) => Some(false),
            Ok(Err(error)) => {
                debug!(name = self.name, %error, "A lock could not be extended.");
                // what is left may be shorter than the pause
                sleep_until(self.sure_until.min(Instant::now() + RETRY_PAUSE.min(self.span / 10))).await;
                (Instant::now() >= self.sure_until).then_some(false)
            }
        }
    }

    /// Unlocks. When the database is away for longer than the lock would have been held, it has ended by itself.
    async fn let_go(self) -> bool {
        let asking = async {
            loop {
                match self.store.unlock(&self.name, self.token).await {
                    Ok(was_held) => return was_held,
                    Err(error) => debug!(name = self.name, %error, "A lock could not be let go."),
                }
                sleep(RETRY_PAUSE).await;
            }
        };
        timeout_at(self.sure_until, asking).await.unwrap_or(false)
    }
}
