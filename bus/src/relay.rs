//! Entries of the journal on their way to the shards.
//!
//! Every shard gets every entry, interested or not, so that each knows to the offset how far its logs have come:
//! that is what a replay joins by. An entry is encoded at most once for all shards, by the first that needs it.

use crate::encode::{self, Encoding};
use crate::history::Relayed;
use crate::hub::Hub;
use crate::inbox::Item;
use crate::pattern::Pattern;
use crate::shard::Shard;
use bytes::Bytes;
use minium_protocol::{CloseCode, Position};
use std::mem;
use std::sync::{Arc, OnceLock};
use std::task::Waker;

/// What is sent to the shards at once.
const PIECE_BYTES: usize = 64 * 1024;
/// What an entry costs besides its bytes.
const ENTRY_BYTES: usize = 64;

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

    /// The same for those who cannot come back to a position: a browser would name it when it reconnects, be refused,
    /// and never try again.
    fn sse_without_position(&self) -> &[u8] {
        let whole = self.sse();
        let id = whole.iter().position(|b| *b == b'\n').expect("the id is a line");
        &whole[id + 1..]
    }
}

impl Shard {
    pub(crate) fn relay(&self, entry: &Entry) {
        let position = entry.relayed.position;
        match self.relayed.get() {
            Some(p) if p.epoch == position.epoch && position.offset <= p.offset => return, // it came before
            Some(p) if p.epoch == position.epoch => {}
            _ => self.renumber(Position { offset: position.offset.saturating_sub(1), ..position }),
        }
        let shelf = self.shelf.borrow();
        shelf.matching(Pattern::Sub, &entry.relayed.topic, |logs| {
            for log in logs.iter().flatten() {
                let frames = match log.encoding {
                    Encoding::Sse if log.is_durable() => entry.sse(),
                    Encoding::Sse => entry.sse_without_position(),
                    Encoding::Plain | Encoding::CloudEvents => entry.frame(),
                };
                log.append(frames, 1, Some(position.offset), |s| self.begin_replay(s));
                self.mark(log);
            }
        });
        self.relayed.set(Some(position));
    }

    pub(crate) fn relay_from(&self, position: Position) {
        match self.relayed.get() {
            Some(p) if p.epoch == position.epoch && position.offset <= p.offset => {}
            Some(p) if p.epoch == position.epoch => {
                // what lies between was never relayed, and nobody may miss it in silence
                for log in self.shelf.borrow().iter().filter(|l| l.is_durable()) {
                    let subscribers = log.subscribers.borrow();
                    subscribers.iter().for_each(|s| s.close(CloseCode::FellBehind, "the relay went ahead"));
                    log.renumber(position.offset);
                }
                self.relayed.set(Some(position));
            }
            _ => self.renumber(position),
        }
        self.ahead.take().iter().for_each(Waker::wake_by_ref);
    }

    /// The numbering begins, or begins anew: who was reading the old one must ask again.
    fn renumber(&self, position: Position) {
        for log in self.shelf.borrow().iter().filter(|l| l.is_durable()) {
            log.renumber(position.offset);
            log.subscribers.borrow().iter().for_each(|s| s.renumbered());
        }
        self.relayed.set(Some(position));
    }

    /// Everything up to this offset was appended.
    pub(crate) fn relayed_to(&self) -> u64 {
        self.relayed.get().map_or(0, |p| p.offset)
    }

    /// `waker` hears when more was.
    pub(crate) fn await_relay(&self, waker: &Waker) {
        self.ahead.borrow_mut().push(waker.clone());
    }
}

/// Brings entries to every shard, waiting while one is full. Calls must not overlap.
pub(crate) async fn relay(hub: &Hub, entries: Vec<Relayed>) {
    crate::metrics::published("relay").increment(entries.len() as u64);
    // a shard appends a batch before it walks: pieces, so that a large one does not run over its rings
    let mut piece = Vec::new();
    let mut bytes = 0;
    for relayed in entries {
        bytes += relayed.event.len() + ENTRY_BYTES;
        piece.push(Entry { relayed, frame: OnceLock::new(), sse: OnceLock::new() });
        if bytes >= PIECE_BYTES {
            send(hub, mem::take(&mut piece), mem::take(&mut bytes)).await;
        }
    }
    send(hub, piece, bytes).await;
}

async fn send(hub: &Hub, entries: Vec<Entry>, bytes: usize) {
    let Some(last) = entries.last().map(|e| e.relayed.position) else { return };
    let batch = Arc::new(RelayBatch { entries });
    for inbox in &hub.inboxes {
        inbox.send(|| Item::Relay(batch.clone()), bytes, None).await;
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
