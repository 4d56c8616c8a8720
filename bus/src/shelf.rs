//! The logs of one shard, by pattern, filter and encoding.

use crate::encode::Encoding;
use crate::log::Log;
use crate::pattern::Pattern;
use crate::routing::Routes;
use minium_protocol::{Filter, Topic};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

/// The logs of one filter: one for each encoding that somebody receives.
pub(crate) type Logs = [Option<Rc<Log>>; Encoding::ALL.len()];

#[derive(Default)]
pub(crate) struct Shelf {
    subscribers: Routes<Logs>,
    peers: HashMap<Arc<str>, Logs>,
}

impl Shelf {
    /// Shows the logs that a message on `topic` belongs into.
    pub(crate) fn matching<'a>(&'a self, pattern: Pattern, topic: &'a Topic, show: impl FnMut(&'a Logs)) {
        match pattern {
            Pattern::Sub => self.subscribers.matching(topic, show),
            Pattern::Bus | Pattern::Push => self.peers.get(topic.as_str()).into_iter().for_each(show),
        }
    }

    /// The log for this very filter and encoding, made if there is none; true: it was made.
    pub(crate) fn log(
        &mut self,
        pattern: Pattern,
        filter: &Filter,
        encoding: Encoding,
        make: impl FnOnce() -> Log,
    ) -> (Rc<Log>, bool) {
        let logs = match pattern {
            Pattern::Sub => self.subscribers.entry(filter, Logs::default),
            Pattern::Bus | Pattern::Push => self.peers.entry(filter.as_str().into()).or_default(),
        };
        let place = &mut logs[encoding as usize];
        if let Some(log) = place {
            return (log.clone(), false);
        }
        let log = Rc::new(make());
        *place = Some(log.clone());
        (log, true)
    }

    /// Nobody receives this log any more.
    pub(crate) fn remove(&mut self, log: &Log) {
        let (filter, at) = (&log.filter, log.encoding as usize);
        match log.pattern {
            Pattern::Sub => {
                let logs = self.subscribers.entry(filter, Logs::default);
                logs[at] = None;
                if logs.iter().all(Option::is_none) {
                    self.subscribers.remove(filter);
                }
            }
            Pattern::Bus | Pattern::Push => {
                let Some(logs) = self.peers.get_mut(filter.as_str()) else { return };
                logs[at] = None;
                if logs.iter().all(Option::is_none) {
                    self.peers.remove(filter.as_str());
                }
            }
        }
    }

    /// All logs, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Rc<Log>> {
        let subscribers = self.subscribers.iter().map(|(_, logs)| logs);
        subscribers.chain(self.peers.values()).flatten().flatten()
    }
}
