//! The bus over real sockets: what `docs/protocol.md` promises of it, and what its design must not break.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../../examples/broker/acceptor.rs"]
mod acceptor;
mod client;
mod node;
mod queue;

mod framing;
mod jobs;
mod life;
mod peers;
mod pubsub;
mod replay;
mod slow;
mod v1;
mod work;
