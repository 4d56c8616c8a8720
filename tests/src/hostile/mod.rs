//! Attacks, by the hundred and by the thousand. `abuse` has the answer to each single piece of bad input; here the same
//! things come in numbers, slowly, or without end, and after each attack three things must hold: somebody else is
//! served, memory and descriptors are as before within a stated bound, and the metrics or the log tell what happened.

mod floods;
mod frames;
mod handshakes;
mod json;
mod schemas;
mod storms;
mod strangers;

use crate::support::foreign::{Foreign, Session};
use crate::support::node::{Node, Options};
use crate::support::raw::Raw;
use crate::support::wait;
use futures::StreamExt;
use std::ops::AsyncFn;

/// Attackers at one moment: more than shards and fewer than a test process may have descriptors.
const AT_ONCE: usize = 64;

/// Descriptors that may come and go by themselves: idle HTTP connections of the tests' own requests.
const DESCRIPTORS_SPARE: usize = 16;

/// A node under attack, and a client that has nothing to do with it.
struct Ward {
    node: Node,
    witness: Session,
    rounds: u32,
    resident_kib: u64,
    descriptors: usize,
    // the witness lives in it
    _client: Foreign,
}

impl Ward {
    /// Starts a node and sees it well.
    async fn start(options: Options) -> Ward {
        let node = Node::start(options).await;
        let client = Foreign::python();
        let witness = client.open(&node.ws("/sub/witness")).await;
        let mut ward = Ward { node, witness, rounds: 0, resident_kib: 0, descriptors: 0, _client: client };
        ward.serves_others().await;
        ward.resident_kib = ward.node.resident_kib();
        ward.descriptors = ward.node.descriptors();
        ward
    }

    /// Somebody else is served, by HTTP and by WebSocket, and heard nothing of the attack.
    async fn serves_others(&mut self) {
        self.rounds += 1;
        let text = format!("round {}", self.rounds);
        assert_eq!(self.node.post("/pub/witness/x", text.clone()).await.status, 200);
        assert_eq!(self.witness.text().await, text, "the witness hears its own, and nothing else");
        self.node.assert_well().await;
    }

    /// After the attack: only the witness is left, others are served, and the node has not grown beyond the bound.
    async fn is_unharmed(&mut self, grown_kib_max: u64) {
        wait::until("the attackers to be gone", async || {
            (self.node.metric("minium_bus_sessions").await == 1.0).then_some(())
        })
        .await;
        self.serves_others().await;
        wait::until("the memory to be given back", async || (self.grown_kib() < grown_kib_max).then_some(()))
            .await;
        let most = self.descriptors + DESCRIPTORS_SPARE;
        wait::until("the descriptors to be given back", async || {
            (self.node.descriptors() <= most).then_some(())
        })
        .await;
    }

    fn grown_kib(&self) -> u64 {
        self.node.resident_kib().saturating_sub(self.resident_kib)
    }

    /// Its memory is within the bound.
    fn has_not_grown(&self, grown_kib_max: u64) {
        let grown = self.grown_kib();
        assert!(grown < grown_kib_max, "the node grew by {grown} KiB; {grown_kib_max} are the bound");
    }

    /// How many sessions ended with this code so far.
    async fn closed(&self, code: u16) -> f64 {
        self.node.metric(&format!("minium_bus_sessions_closed_total{{code=\"{code}\"}}")).await
    }

    /// Waits until so many sessions have ended with this code.
    async fn closed_by(&self, code: u16, count: usize) {
        wait::until(&format!("{count} sessions to be counted under {code}"), async || {
            (self.closed(code).await >= count as f64).then_some(())
        })
        .await;
        assert_eq!(self.closed(code).await, count as f64, "sessions counted under {code}");
    }
}

/// So many attackers, many at once, each with its own number and connection; gives what became of each.
async fn attack<T>(node: &Node, count: usize, attacker: impl AsyncFn(usize, Raw) -> T) -> Vec<T> {
    let attacker = &attacker;
    let one = async |number| attacker(number, Raw::connect(node).await).await;
    futures::stream::iter((0..count).map(one)).buffered(AT_ONCE).collect().await
}
