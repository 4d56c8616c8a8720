//! Entries of the journal on their way to the shards.
//!
//! Every shard gets every entry, interested or not, so that each knows to the offset how far its logs have come:
//! that is what a replay joins by. An entry is encoded at most once for all shards, by the first that needs it.

use crate::encode::{self, Encoding};
use crate::history::Relayed;
use crate::hub::Hub;
use crate::inbox::Item;
use crate::metrics::ByChannel;
use crate::pattern::Pattern;
use crate::shard::Shard;
use bytes::Bytes;
use minium_protocol::{CloseCode, Position};
use std::mem;
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use tokio::time::Instant;

/// What is sent to the shards at once.
const PIECE_BYTES: usize = 64 * 1024;
/// What an entry costs besides its bytes.
const ENTRY_BYTES: usize = 64;

/// Some entries in offset order.
#[derive(Debug)]
pub(crate) struct RelayBatch {
    pub(crate) entries: Vec<Entry>,
    /// What it is taken to weigh in memory.
    pub(crate) bytes: usize,
    /// When they came from the journal.
    taken: Instant,
}

impl RelayBatch {
    pub(crate) fn new(entries: Vec<Relayed>) -> RelayBatch {
        // once as it came, and about once as frames
        let weight = |r: &Relayed| 2 * r.event.len() + ENTRY_BYTES;
        let bytes = entries.iter().map(weight).sum();
        let taken = Instant::now();
        RelayBatch { entries: entries.into_iter().map(Entry::new).collect(), bytes, taken }
    }
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) relayed: Relayed,
    encoded: [OnceLock<Bytes>; Encoding::ALL.len()],
}

impl Entry {
    fn new(relayed: Relayed) -> Entry {
        Entry { relayed, encoded: Default::default() }
    }

    /// As bytes for a log or a session; encoded by the first that needs it. `resumable`: an SSE client can come back
    /// to the position. (A browser that cannot, but is told one, would name it when it reconnects, be refused, and never
    /// try again.)
    pub(crate) fn encoded(&self, encoding: Encoding, resumable: bool) -> &[u8] {
        // a task event is the same to the byte in both modes
        let same = encoding == Encoding::CloudEvents && self.relayed.data.is_none();
        let encoding = if same { Encoding::Plain } else { encoding };
        let whole = self.encoded[encoding as usize].get_or_init(|| {
            let mut out = Vec::with_capacity(self.relayed.event.len() + 64);
            encode::durable(&mut out, encoding, &self.relayed, true);
            out.into()
        });
        if encoding != Encoding::Sse || resumable {
            return whole;
        }
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
        let stamp = self.next_stamp();
        let shelf = self.shelf.borrow();
        shelf.matching(Pattern::Sub, &entry.relayed.topic, |log| {
            if log.is_new(stamp) {
                let bytes = entry.encoded(log.encoding, log.kind.resumable);
                log.append(bytes, 1, Some(position.offset), |s| self.lost(s));
                self.mark(log);
            }
        });
        self.relayed.set(Some(position));
    }

    /// A batch, and then those go on who waited for more.
    pub(crate) fn relay_batch(&self, batch: Arc<RelayBatch>) {
        self.note_taken(batch.taken);
        let before = self.relayed.get();
        for entry in &batch.entries {
            self.relay(entry);
        }
        if self.relayed.get() != before {
            self.recent.borrow_mut().push(batch); // not what came before
        }
        self.ahead.take().iter().for_each(Waker::wake_by_ref);
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
                self.recent.borrow_mut().begin(position.epoch, position.offset);
                self.relayed.set(Some(position));
            }
            _ => self.renumber(position),
        }
        self.ahead.take().iter().for_each(Waker::wake_by_ref);
    }

    /// The numbering begins, or begins anew: who was reading the old one must ask again, and so must everybody when
    /// something of the new one was not relayed here.
    fn renumber(&self, position: Position) {
        let missed = self.relayed.get().is_some_and(|p| p.offset != position.offset);
        for log in self.shelf.borrow().iter().filter(|l| l.is_durable()) {
            if missed {
                log.subscribers.borrow().iter().for_each(|s| s.close(CloseCode::FellBehind, "epoch_changed"));
            }
            log.renumber(position.offset);
        }
        for s in self.sessions.borrow().iter() {
            s.renumbered(position.offset);
        }
        self.recent.borrow_mut().begin(position.epoch, position.offset);
        self.relayed.set(Some(position));
    }

    /// Everything up to this offset was appended.
    pub(crate) fn relayed_to(&self) -> u64 {
        self.relayed.get().map_or(0, |p| p.offset)
    }

    /// `waker` hears when more was.
    pub(crate) fn await_relay(&self, waker: &Waker) {
        let mut ahead = self.ahead.borrow_mut();
        if !ahead.iter().any(|w| w.will_wake(waker)) {
            ahead.push(waker.clone());
        }
    }
}

/// Brings entries to every shard, waiting while one is full. Calls must not overlap.
pub(crate) async fn relay(hub: &Hub, entries: Vec<Relayed>) {
    let mut counted = ByChannel::default();
    entries.iter().for_each(|entry| counted.add(hub.channels.label(Pattern::Sub, &entry.topic)));
    counted.count(|channel| crate::metrics::published("relay", channel));
    // a shard appends a batch before it walks: pieces, so that a large one does not run over its rings
    let mut piece = Vec::new();
    let mut bytes = 0;
    for relayed in entries {
        bytes += relayed.event.len() + ENTRY_BYTES;
        piece.push(relayed);
        if bytes >= PIECE_BYTES {
            send(hub, mem::take(&mut piece), mem::take(&mut bytes)).await;
        }
    }
    send(hub, piece, bytes).await;
}

async fn send(hub: &Hub, entries: Vec<Relayed>, bytes: usize) {
    let Some(last) = entries.last().map(|e| e.position) else { return };
    {
        let mut latest = hub.latest();
        if hub.relayed().is_some_and(|p| p.epoch != last.epoch) {
            latest.clear();
        }
        entries.iter().for_each(|e| latest.set(e));
    }
    hub.tallies.count_relayed(entries.iter().map(|e| e.topic.as_str()));
    let batch = Arc::new(RelayBatch::new(entries));
    for inbox in &hub.inboxes {
        inbox.send(|| Item::Relay(batch.clone()), bytes, None).await;
    }
    hub.set_relayed(last);
}

/// Tells every shard how far the numbering is known.
pub(crate) fn relay_from(hub: &Hub, position: Position) {
    hub.latest().clear();
    for inbox in &hub.inboxes {
        if inbox.put(Item::RelayFrom(position)).is_err() {
            return; // the bus ends
        }
    }
    // only now may positions be resolved: an opening lands in the inboxes behind what was put there
    hub.set_relayed(position);
}
