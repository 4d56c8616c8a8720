//! What a session tells of itself, for lists.

use super::{Phase, Session, Speech};
use crate::encode::Encoding;
use crate::pattern::Pattern;
use crate::peers::Sender;
use minium_protocol::Verb;
use std::collections::BTreeSet;

/// A session at one moment.
pub(crate) struct Told {
    pub(crate) filters: Vec<(Verb, String)>,
    pub(crate) more_filters: usize,
    pub(crate) behind: bool,
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

impl Session {
    /// Can it still be told something?
    pub(crate) fn is_open(&self) -> bool {
        self.state.borrow().phase == Phase::Open
    }

    /// Shows the topics that it pulls as the puller with this name: the channel, or the tasks of all its orders.
    pub(crate) fn pulled(&self, puller: u64, mut show: impl FnMut(&str)) {
        let st = self.state.borrow();
        st.pulls.iter().filter(|pull| pull.id == puller).for_each(|pull| show(&pull.topic));
        if let Some(jobs) = st.jobs.as_ref().filter(|jobs| jobs.id == puller) {
            let tasks: BTreeSet<&str> = jobs.tasks().map(|task| task.as_str()).collect();
            tasks.into_iter().for_each(show);
        }
    }

    pub(crate) fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// What it does and how far it is; nothing once it ends.
    pub(crate) fn told(&self, filters_max: usize) -> Option<Told> {
        let st = self.state.borrow();
        if st.phase != Phase::Open {
            return None;
        }
        let mut filters: Vec<(Verb, String)> = Vec::new();
        let mut more_filters = 0;
        let mut add = |verb, name: &str| {
            if filters.iter().any(|(v, n)| (*v, n.as_str()) == (verb, name)) {
                return;
            }
            if filters.len() < filters_max {
                filters.push((verb, name.to_owned()));
            } else {
                more_filters += 1;
            }
        };
        for sub in &st.subs {
            let verb = if sub.follow.pattern == Pattern::Sub { Verb::Sub } else { Verb::Bus };
            add(verb, sub.follow.filter.as_str());
        }
        st.pulls.iter().for_each(|pull| add(Verb::Pull, &pull.topic));
        if let Some(jobs) = &st.jobs {
            jobs.tasks().for_each(|task| add(Verb::Pull, task.as_str()));
        }
        let mut sends = |sender: &Sender| match sender.pattern {
            Pattern::Sub => add(Verb::Pub, sender.topic.as_str()),
            Pattern::Push => add(Verb::Push, sender.topic.as_str()),
            Pattern::Bus => {} // who sends there is a peer, and told already
        };
        match st.voice.as_ref().map(|voice| &voice.speech) {
            Some(Speech::Sender(sender)) => sends(sender),
            Some(Speech::Talk(talk)) => talk.senders.iter().for_each(sends),
            Some(Speech::Acks(_)) | None => {}
        }
        Some(Told {
            filters,
            more_filters,
            behind: st.catching_up.is_some() || st.is_far_behind(),
            sent: st.sent,
            received: st.voice.as_ref().map_or(0, |voice| voice.received),
        })
    }
}
