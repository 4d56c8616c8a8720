//! All that the bus promises over a plain socket it keeps over TLS: the tests of `tests/bus`, with rustls on both sides,
//! and what TLS alone can break.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

const TLS: bool = true;

#[path = "../../examples/broker/acceptor.rs"]
mod acceptor;
#[path = "../bus/certificate.rs"]
mod certificate;
#[path = "../bus/client.rs"]
mod client;
#[path = "../bus/node.rs"]
mod node;
#[path = "../bus/queue.rs"]
mod queue;

mod wire;

#[path = "../bus/framing.rs"]
mod framing;
#[path = "../bus/jobs.rs"]
mod jobs;
#[path = "../bus/life.rs"]
mod life;
#[path = "../bus/peers.rs"]
mod peers;
#[path = "../bus/pubsub.rs"]
mod pubsub;
#[path = "../bus/replay.rs"]
mod replay;
#[path = "../bus/replay_merge.rs"]
mod replay_merge;
#[path = "../bus/slow.rs"]
mod slow;
#[path = "../bus/v1.rs"]
mod v1;
#[path = "../bus/work.rs"]
mod work;
