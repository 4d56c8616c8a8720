//! What a node tells its supervisor, and when.
//!
//! It is up when `/readyz` would say so. While the database is awaited or migrated the supervisor is asked for patience; a
//! database that stays away does not keep a node from being up for ever, since everything that needs none works. That it is
//! alive is said when every shard of the bus has been through its loop, on the runtime that serves HTTP: a timer alone
//! would go on in a node that hangs. The database does not matter for that: no restart of a node brings it back.

use crate::database::Database;
use crate::supervisor::Supervisor;
use minium_bus::Bus;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Between looks whether the node is ready.
const LOOK: Duration = Duration::from_millis(50);
/// A node whose database is not there after so many looks is up without it. Less than what systemd waits for.
const LOOKS: u32 = 1_200;
/// Between looks whether what is durable still reaches the bus.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Whoever reads the configuration again takes no longer, or it counts as read.
const RELOAD_PATIENCE: Duration = Duration::from_secs(30);

/// A node as its supervisor sees it.
pub(super) struct Supervised {
    supervisor: Supervisor,
    url: String,
    database: Database,
    bus: Bus,
    migrating: Arc<AtomicBool>,
    /// It has said that it is up.
    up: AtomicBool,
}

impl Supervised {
    pub(super) fn new(url: &str, database: Database, bus: &Bus, migrating: Arc<AtomicBool>) -> Supervised {
        let supervisor = Supervisor::of_environment();
        let (url, bus) = (url.to_owned(), bus.clone());
        Supervised { supervisor, url, database, bus, migrating, up: AtomicBool::new(false) }
    }

    pub(super) fn supervisor(&self) -> &Supervisor {
        &self.supervisor
    }

    /// Until the node goes down.
    pub(super) async fn run(self: Arc<Self>, closing: CancellationToken) {
        if !self.supervisor.is_there() {
            return;
        }
        let telling = async {
            self.supervisor.status(&self.words());
            if !self.supervisor.patiently(self.until_ready()).await {
                warn!(
                    "The database is not there yet; the supervisor is told that the node is up without it."
                );
            }
            self.up.store(true, Relaxed);
            self.supervisor.ready(&self.words());
            let turn = || {
                let bus = self.bus.clone();
                async move { bus.turn().await }
            };
            let alive = self.supervisor.keep_alive(turn);
            tokio::join!(alive, self.follow());
        };
        closing.run_until_cancelled(telling).await;
    }

    /// False: it is not, and has been waited for long enough.
    async fn until_ready(&self) -> bool {
        let mut looks = 0;
        loop {
            if self.database.check().await.is_ok() && self.database.is_relaying() {
                return true;
            }
            // a migration takes as long as it takes
            looks += u32::from(!self.migrating.load(Relaxed));
            if looks > LOOKS {
                return false;
            }
            sleep(LOOK).await;
        }
    }

    /// Keeps the status up to date.
    async fn follow(&self) {
        let mut told = self.database.is_relaying();
        loop {
            sleep(LOOK_AGAIN).await;
            let now = self.database.is_relaying();
            if now != told {
                told = now;
                self.supervisor.status(&self.words());
            }
        }
    }

    fn words(&self) -> String {
        match self.database.is_relaying() {
            true => format!("Ready on {}", self.url),
            false => format!("On {}, waiting for the database; what needs none works", self.url),
        }
    }

    /// It is about to read its configuration again. One that is not up has nothing to take back.
    pub(super) fn reloading(&self) {
        if self.up.load(Relaxed) {
            self.supervisor.reloading();
        }
    }

    /// It has, when `done` ends.
    pub(super) async fn reload(self: Arc<Self>, done: impl Future<Output = ()>, closing: CancellationToken) {
        let waiting = tokio::time::timeout(RELOAD_PATIENCE, done);
        // what takes longer goes on, and is told of by the log
        if closing.run_until_cancelled(waiting).await.is_some() && self.up.load(Relaxed) {
            self.supervisor.ready(&self.words());
        }
    }
}
