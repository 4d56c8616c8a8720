//! How far recorders really are: behind what one has confirmed there may be nothing that it follows, and that is as good
//! as confirmed. Without this a recorder of one quiet task would hold all the others of its channel.
//!
//! What was looked at is remembered while a recorder stays where it is, and each round looks a bounded way further. Who
//! is not looked at to the end counts as less far than it is: more is kept, never less.

use crate::error::NotifierError;
use crate::journal::{JournalStore, Range};
use crate::recorders::Recorder;
use jiff::Timestamp;
use minium_protocol::Filter;
use serde::Deserialize;
use std::collections::HashMap;

/// Pages of the journal that one round looks at, of all recorders together.
const PAGES_MAX: usize = 200;

/// Up to where there is nothing that a recorder has not confirmed.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    /// By recorder and filter: where it was then, and how far nothing was found behind that.
    seen: HashMap<(String, Filter), (u64, u64)>,
}

impl Reach {
    /// Moves each recorder to the entry before the next one that it follows, as far as `to`. Answers when the oldest of those
    /// was written.
    pub(crate) async fn stretch(
        &mut self,
        store: &dyn JournalStore,
        recorders: &mut [Recorder],
        to: u64,
    ) -> Result<Option<Timestamp>, NotifierError> {
        let mut oldest: Option<Timestamp> = None;
        let (mut seen, mut pages) = (HashMap::new(), PAGES_MAX);
        for recorder in recorders.iter_mut().filter(|recorder| recorder.offset < to) {
            let mut reached = to;
            for topic in &recorder.topics {
                let key = (recorder.name.clone(), topic.clone());
                let before = self.seen.get(&key).filter(|(at, _)| *at == recorder.offset);
                let from = before.map_or(recorder.offset, |(_, end)| *end);
                let (end, written) = look(store, topic, from, to, &mut pages).await?;
                oldest = [oldest, written].into_iter().flatten().min();
                seen.insert(key, (recorder.offset, end));
                reached = reached.min(end);
            }
            recorder.offset = recorder.offset.max(reached);
        }
        self.seen = seen;
        Ok(oldest)
    }
}

/// From one offset to the entry before the next that a filter matches, as far as `to` and the pages reach; and when that was written.
async fn look(
    store: &dyn JournalStore,
    topic: &Filter,
    mut from: u64,
    to: u64,
    pages: &mut usize,
) -> Result<(u64, Option<Timestamp>), NotifierError> {
    while from < to && *pages > 0 {
        *pages -= 1;
        let found = store.read(next(topic, from, to)).await?;
        if let Some(first) = found.entries.first() {
            return Ok((from.max(first.position.offset - 1), written(&first.event)));
        }
        if found.scanned_to <= from {
            break;
        }
        from = found.scanned_to;
    }
    Ok((from, None))
}

/// When an entry was written, as its event says.
fn written(event: &[u8]) -> Option<Timestamp> {
    #[derive(Deserialize)]
    struct Written {
        time: Timestamp,
    }
    serde_json::from_slice::<Written>(event).ok().map(|event| event.time)
}

/// The first entry of a filter.
fn next(topic: &Filter, after: u64, to: u64) -> Range {
    Range { filter: topic.clone(), after, to, count_max: 1, bytes_max: 1 }
}
