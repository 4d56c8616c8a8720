//! Entries of the journal on their way to the shards.
//!
//! Every shard gets every entry, interested or not, so that each knows to the offset how far its logs have come:
//! that is what a replay joins by. An entry is encoded at most once for all shards, by the first that needs it.

use crate::encode;
use crate::history::Relayed;
use crate::hub::Hub;
use crate::inbox::Item;
use bytes::Bytes;
use minium_protocol::Position;
use std::sync::{Arc, OnceLock};

/// Some entries in offset order.
#[derive(Debug)]
pub(crate) struct RelayBatch {
    pub(crate) entries: Vec<Entry>,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) relayed: Relayed,
    frame: OnceLock<Bytes>,
    sse: OnceLock<Bytes>,
}

impl Entry {
    /// As a WebSocket frame, the same in both modes.
    pub(crate) fn frame(&self) -> &[u8] {
        self.frame.get_or_init(|| {
            let mut out = Vec::with_capacity(self.relayed.event.len() + 10);
            encode::durable_frame(&mut out, &self.relayed.event);
            out.into()
        })
    }

    /// As a server-sent event.
    pub(crate) fn sse(&self) -> &[u8] {
        self.sse.get_or_init(|| {
            let mut out = Vec::with_capacity(self.relayed.event.len() + 64);
            encode::durable_sse(&mut out, self.relayed.position, &self.relayed.event);
            out.into()
        })
    }
}

/// Brings entries to every shard, waiting while one is full. Calls must not overlap.
pub(crate) async fn relay(hub: &Hub, entries: Vec<Relayed>) {
    let Some(last) = entries.last().map(|e| e.position) else { return };
    let bytes = entries.iter().map(|e| e.event.len() + 64).sum();
    crate::metrics::published("relay").increment(entries.len() as u64);
    let entry = |relayed| Entry { relayed, frame: OnceLock::new(), sse: OnceLock::new() };
    let batch = Arc::new(RelayBatch { entries: entries.into_iter().map(entry).collect() });
    for inbox in &hub.inboxes {
        inbox.send(|| Item::Relay(batch.clone()), bytes, false).await;
    }
    hub.set_relayed(last);
}

/// Tells every shard how far the numbering is known.
pub(crate) fn relay_from(hub: &Hub, position: Position) {
    for inbox in &hub.inboxes {
        if inbox.put(Item::RelayFrom(position)).is_err() {
            return; // the bus ends
        }
    }
    // only now may positions be resolved: an opening lands in the inboxes behind what was put there
    hub.set_relayed(position);
}
