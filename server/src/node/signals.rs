//! Signals: TERM and INT end the node orderly, a second one at once, HUP reads schemas and rules again.

use crate::exit::SAME_WORD;
use anyhow::Context;
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};
use tokio::time::Instant;

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// Read the schemas, and who may do what, again.
    Reload,
    /// Go down.
    End,
}

/// The signals that a node listens to.
pub(crate) struct Signals {
    terminate: Stream,
    interrupt: Stream,
    hangup: Stream,
}

impl Signals {
    /// From now on these signals do not end the process by themselves.
    pub(crate) fn listen() -> anyhow::Result<Signals> {
        let open = |kind| signal(kind).context("Listening to signals");
        Ok(Signals {
            terminate: open(SignalKind::terminate())?,
            interrupt: open(SignalKind::interrupt())?,
            hangup: open(SignalKind::hangup())?,
        })
    }

    /// The next one.
    pub(crate) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::End,
            _ = self.interrupt.recv() => Signal::End,
            _ = self.hangup.recv() => Signal::Reload,
        }
    }

    /// Somebody wants the node to end, and said so before: once more, and later.
    pub(crate) async fn insist(&mut self) {
        let asked = Instant::now();
        while self.next().await != Signal::End || asked.elapsed() < SAME_WORD {}
    }
}
