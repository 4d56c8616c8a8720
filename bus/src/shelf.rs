//! The logs of one shard, found by what is sent, or by what is followed.

use crate::encode::Encoding;
use crate::follow::Follow;
use crate::log::{Kind, Log};
use crate::pattern::Pattern;
use crate::routing::Routes;
use minium_protocol::Topic;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

/// What tells the log of a set from all others.
type SetKey = (Encoding, Kind, Box<[Follow]>);

/// The logs that a filter is part of.
type Logs = Vec<Rc<Log>>;

#[derive(Default)]
pub(crate) struct Shelf {
    subscribers: Routes<Logs>,
    peers: HashMap<Arc<str>, Logs>,
    /// Those of more than one filter, by the whole set. (One filter's own log is found through the filter.)
    sets: HashMap<SetKey, Rc<Log>>,
}

impl Shelf {
    /// Shows the logs that a message on `topic` belongs into; one of several filters may be shown more than once.
    pub(crate) fn matching<'a>(
        &'a self,
        pattern: Pattern,
        topic: &'a Topic,
        mut show: impl FnMut(&'a Rc<Log>),
    ) {
        match pattern {
            Pattern::Sub => self.subscribers.matching(topic, |logs| logs.iter().for_each(&mut show)),
            Pattern::Bus | Pattern::Push => {
                self.peers.get(topic.as_str()).into_iter().flatten().for_each(show);
            }
        }
    }

    fn logs_of(&self, follow: &Follow) -> Option<&Logs> {
        match follow.pattern {
            Pattern::Sub => self.subscribers.get(&follow.filter),
            Pattern::Bus | Pattern::Push => self.peers.get(follow.filter.as_str()),
        }
    }

    /// The log of this very set, kind and encoding.
    pub(crate) fn find(&self, encoding: Encoding, follows: &[Follow], kind: Kind) -> Option<&Rc<Log>> {
        match follows {
            [one] => {
                let logs = self.logs_of(one)?;
                logs.iter()
                    .find(|log| log.encoding == encoding && log.kind == kind && *log.follows == *follows)
            }
            // a key must be owned: sets are changed rarely
            _ => self.sets.get(&(encoding, kind, follows.into())),
        }
    }

    /// Takes a new log in.
    pub(crate) fn insert(&mut self, log: &Rc<Log>) {
        for follow in &log.follows {
            let logs = match follow.pattern {
                Pattern::Sub => self.subscribers.entry(&follow.filter, Logs::default),
                Pattern::Bus | Pattern::Push => self.peers.entry(follow.filter.as_str().into()).or_default(),
            };
            logs.push(log.clone());
        }
        if log.follows.len() > 1 {
            self.sets.insert((log.encoding, log.kind, log.follows.clone()), log.clone());
        }
    }

    /// Nobody receives this log any more.
    pub(crate) fn remove(&mut self, log: &Rc<Log>) {
        for follow in &log.follows {
            let empty = |logs: &mut Logs| {
                logs.retain(|l| !Rc::ptr_eq(l, log));
                logs.is_empty()
            };
            match follow.pattern {
                Pattern::Sub => {
                    if empty(self.subscribers.entry(&follow.filter, Logs::default)) {
                        self.subscribers.remove(&follow.filter);
                    }
                }
                Pattern::Bus | Pattern::Push => {
                    if self.peers.get_mut(follow.filter.as_str()).is_some_and(empty) {
                        self.peers.remove(follow.filter.as_str());
                    }
                }
            }
        }
        if log.follows.len() > 1 {
            self.sets.remove(&(log.encoding, log.kind, log.follows.clone()));
        }
    }

    /// Does anybody here receive this filter in this encoding?
    pub(crate) fn wants(&self, follow: &Follow, encoding: Encoding) -> bool {
        self.logs_of(follow).is_some_and(|logs| logs.iter().any(|log| log.encoding == encoding))
    }

    /// All logs, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Rc<Log>> {
        let single = self.subscribers.iter().map(|(_, logs)| logs).chain(self.peers.values()).flatten();
        single.filter(|log| log.follows.len() == 1).chain(self.sets.values())
    }
}
