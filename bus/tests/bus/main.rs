//! The bus over real sockets: what `docs/protocol.md` promises of it, and what its design must not break.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

/// The same tests run over TLS in `tests/tls`.
const TLS: bool = false;

#[path = "../../examples/broker/acceptor.rs"]
mod acceptor;
mod certificate;
mod client;
mod node;
mod queue;

mod framing;
mod grants;
mod jobs;
mod life;
mod peers;
mod pubsub;
mod replay;
mod replay_merge;
mod slow;
mod v1;
mod work;
