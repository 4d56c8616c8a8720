//! A piece of the journal, and the jobs that it makes. Pure.

use super::{Sink, SinkEvent};
use minium_bus::{Page, Relayed};
use minium_protocol::{EnqueueRequest, Unique, is_own_topic};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::time::Duration;
use uuid::Uuid;

/// What was read of each of a sink's filters, put together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// By offset: a filter may find what another has found.
    entries: BTreeMap<u64, Relayed>,
    /// Everything that any filter matches is known up to here.
    pub(super) reached: Option<u64>,
}

impl Batch {
    /// Adds what one filter found.
    pub(super) fn add(&mut self, page: Page) {
        self.reached = Some(self.reached.map_or(page.scanned_to, |reached| reached.min(page.scanned_to)));
        self.entries.extend(page.entries.into_iter().map(|entry| (entry.position.offset, entry)));
    }

    /// What is known of all filters, in order.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Relayed> {
        let reached = self.reached.unwrap_or(0);
        self.entries.range(..=reached).map(|(_, entry)| entry)
    }

    /// The jobs that tell of it. What is read again within `remember` is the same job.
    pub(super) fn deliveries(&self, sink: &Sink, remember: Duration) -> Vec<EnqueueRequest> {
        self.entries().filter_map(|entry| delivery(sink, entry, remember)).collect()
    }
}

/// The job that tells of an event, if anybody is to be told.
fn delivery(sink: &Sink, entry: &Relayed, remember: Duration) -> Option<EnqueueRequest> {
    #[derive(Deserialize)]
    struct Named {
        id: Uuid,
    }
    if is_own_topic(&entry.topic) {
        return None;
    }
    let event = SinkEvent { topic: &entry.topic, position: entry.position, event: &entry.event };
    let mut request = sink.rule.delivery(&event)?;
    let Named { id } = serde_json::from_slice(&entry.event).ok()?;
    request.options.key = Some(format!("{}/{id}", sink.name));
    request.options.unique = Unique::For(remember);
    Some(request)
}

#[cfg(test)]
mod tests {
    use super::super::{Begin, REMEMBER, Rule};
    use super::*;
    use minium_protocol::Position;
    use serde_json::value::RawValue;
    use std::sync::Arc;

    struct All;

    impl Rule for All {
        fn delivery(&self, event: &SinkEvent<'_>) -> Option<EnqueueRequest> {
            let args = RawValue::from_string(format!("[{}]", event.position.offset)).unwrap();
            Some(EnqueueRequest::new("minium/deliver", args))
        }
    }

    fn sink() -> Sink {
        Sink { name: "ops".into(), topics: vec![], begin: Begin::Now, rule: Arc::new(All) }
    }

    fn entry(offset: u64, topic: &str) -> Relayed {
        let event = format!("{{\"id\":\"00000000-0000-0000-0000-{offset:012}\"}}");
        Relayed {
            position: Position { epoch: 1, offset },
            topic: topic.parse().unwrap(),
            event: event.into(),
            data: None,
        }
    }

    fn page(scanned_to: u64, offsets: &[u64]) -> Page {
        Page { entries: offsets.iter().map(|o| entry(*o, "task/import/7")).collect(), scanned_to }
    }

    #[test]
    fn what_one_filter_has_not_looked_at_waits_for_it() {
        let mut batch = Batch::default();
        batch.add(page(9, &[3, 5, 9]));
        batch.add(page(6, &[4, 5, 6]));
        assert_eq!(batch.reached, Some(6));
        let offsets: Vec<_> =
            batch.deliveries(&sink(), REMEMBER).iter().map(|r| r.args.get().to_owned()).collect();
        assert_eq!(offsets, ["[3]", "[4]", "[5]", "[6]"], "in order, once, and nothing beyond");
    }

    #[test]
    fn an_event_has_one_key_whenever_it_is_read() {
        let key = |entry| delivery(&sink(), &entry, REMEMBER).unwrap().options.key.unwrap();
        assert_eq!(key(entry(7, "news")), "ops/00000000-0000-0000-0000-000000000007");
        assert_eq!(key(entry(7, "news")), key(entry(7, "news")));
    }

    #[test]
    fn deliveries_are_not_told_of() {
        assert!(delivery(&sink(), &entry(1, "task/minium/deliver/7"), REMEMBER).is_none());
        assert!(delivery(&sink(), &entry(1, "task/import/7"), REMEMBER).is_some());
    }
}
