//! Senders of one topic, in plain and CloudEvents mode: each frame is a message.

use super::outside::{Answered, Asked, Awaited};
use super::voice::{Handed, Pending, own, refuse, tell_refused};
use super::{Session, State};
use crate::encode::Encoding;
use crate::history::Draft;
use crate::message::Message;
use crate::pattern::Pattern;
use crate::peers::Sender;
use crate::publish::Burst;
use crate::shard::Shard;
use crate::work::Pushed;
use minium_protocol::{JobOptions, Topic};
use std::collections::VecDeque;

/// What one read brought for one topic.
#[derive(Default)]
pub(super) struct Said {
    /// For pullers.
    lane: VecDeque<Handed>,
    /// For the journal.
    drafts: Vec<Draft>,
    /// For the queue.
    pushed: Vec<Pushed>,
}

impl Said {
    /// Judges a message and puts it where it belongs; what goes to subscribers and peers goes into the burst.
    pub(super) fn take(
        &mut self,
        sender: &Sender,
        message: Message,
        burst: &mut Burst,
        (control, encoding, source): (&mut Vec<u8>, Encoding, &str),
    ) {
        let message = match sender.judge(message) {
            Ok(message) => message,
            Err(problem) => return tell_refused(control, encoding, &None, &problem),
        };
        match (sender.pattern, sender.is_durable()) {
            (Pattern::Push, true) => {
                let data = own(&message).bytes().clone();
                self.pushed.push(Pushed { data, options: JobOptions::default() });
            }
            (Pattern::Push, false) => {
                self.lane.push_back(Handed { message: own(&message), reference: None });
            }
            (Pattern::Sub, true) => {
                let data = own(&message).bytes().clone();
                self.drafts.push(Draft { topic: sender.topic.clone(), id: None, data });
            }
            (Pattern::Sub | Pattern::Bus, _) => burst.add(source, sender.topic.as_str(), &message),
        }
    }
}

impl Session {
    /// Hands on what one read brought.
    pub(super) fn send(&self, said: Said, burst: &Burst, sh: &Shard) {
        let (pattern, topic) = {
            let mut st = self.state.borrow_mut();
            let speech = st.voice.as_mut().map(|v| &mut v.speech);
            let Some(super::Speech::Sender(sender)) = speech else { return };
            // what is kept is counted when the journal relays it
            let taken = burst.messages() as usize + said.lane.len() + said.pushed.len();
            sender.count(&sh.hub, taken);
            sender.count_taken(taken + said.drafts.len());
            (sender.pattern, sender.topic.clone())
        };
        let count = said.lane.len() + said.drafts.len() + said.pushed.len();
        if burst.messages() > 0 {
            self.send_burst(burst, pattern, &topic, sh);
        } else if !said.lane.is_empty() {
            self.set_pending(Pending::Lane(topic.shared(), said.lane));
        } else if count > 0 {
            self.send_outside(said, topic, sh);
        }
    }

    fn send_outside(&self, said: Said, topic: Topic, sh: &Shard) {
        let outside = &sh.hub.outside;
        let references = vec![None; said.drafts.len() + said.pushed.len()];
        let task = if said.drafts.is_empty() {
            let work = outside.push(topic, said.pushed);
            outside.spawn(async move { Answered::Pushed(work.await) })
        } else {
            let work = outside.keep(said.drafts);
            outside.spawn(async move { Answered::Kept(work.await) })
        };
        self.await_outside(Awaited::new(task, Asked::Messages(references)));
    }

    /// Waits for what was asked; what could not be asked is told.
    pub(super) fn await_outside(&self, awaited: Result<Awaited, minium_protocol::Problem>) {
        match awaited {
            Ok(awaited) => self.set_pending(Pending::Awaited(awaited)),
            Err(problem) => refuse(&mut self.state.borrow_mut().control, self.encoding, &None, &problem),
        }
    }

    /// To the logs of this shard now; to the others by their inboxes.
    pub(super) fn send_burst(&self, burst: &Burst, pattern: Pattern, topic: &Topic, sh: &Shard) {
        let bits = burst.targets().shards();
        let others = bits & !(1 << sh.id);
        let mut place = None;
        if bits != others {
            let own = self.state.borrow().log.clone();
            sh.note_taken_now();
            place = sh.append(pattern, topic, burst.messages(), |e| burst.frames(e), own.as_ref());
        }
        let mut st = self.state.borrow_mut();
        let State { own, voice, .. } = &mut *st;
        if let (Some(own), Pattern::Bus) = (own, pattern) {
            own.places.extend(place);
        }
        if let (Some(voice), true) = (voice, others != 0) {
            voice.pending = Pending::Frames(others, burst.batch(pattern, topic));
        }
    }
}
