//! What a session that may speak keeps: how it speaks, and what of its last words has found no room yet.
//!
//! A client is not read while its words wait (for room in another shard, for a puller, for the journal or the queue):
//! so it is slowed by its own socket, and what it said keeps its order.

use super::jobs::Acks;
use super::outside::Awaited;
use super::read::HandOn;
use super::talk::Talk;
use super::write::say;
use super::{Session, State};
use crate::allowance::{Allowance, Rate};
use crate::channels::NO_CHANNEL;
use crate::encode::{self, Encoding};
use crate::grant::Grant;
use crate::lanes::Refusal;
use crate::message::Message;
use crate::pattern::Pattern;
use crate::peers::Sender;
use crate::publish::{Batch, shards};
use crate::shard::Shard;
use bytes::Bytes;
use minium_protocol::{Answer, ErrorCode, Problem};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

pub(crate) struct Voice {
    /// What this session may send; nothing where that has no bound.
    allowance: Option<Allowance>,
    /// Messages in a row that were more than it may send.
    refused: u32,
    /// Messages and words so far.
    pub(super) received: u64,
    pub(super) pending: Pending,
    pub(super) speech: Speech,
}

/// How a session speaks.
pub(crate) enum Speech {
    /// Messages for one topic.
    Sender(Sender),
    /// `minium.v1`.
    Talk(Talk),
    /// A puller of a durable channel, in another mode.
    Acks(Acks),
}

/// It sent more than it may: so it is told.
pub(super) enum Limited {
    Refuse(String),
    Close(String),
}

/// Refusals in a row before a session that sends too much is closed with 4029.
const REFUSED_MAX: u32 = 100;

/// What has found no room yet.
#[derive(Default)]
pub(super) enum Pending {
    #[default]
    Nothing,
    /// For these shards.
    Frames(u64, Arc<Batch>),
    /// For pullers of this topic.
    Lane(Arc<str>, VecDeque<Handed>),
    /// The journal's or the queue's answer is awaited.
    Awaited(Awaited),
}

/// A message for a puller, and how to answer about it.
pub(super) struct Handed {
    pub(super) message: Message,
    pub(super) reference: Reference,
}

/// The `ref` of a frame, if it had one.
pub(super) type Reference = Option<Box<str>>;

impl Voice {
    pub(crate) fn new(speech: Speech, rate: Option<Rate>) -> Box<Voice> {
        let allowance = rate.map(Allowance::new);
        Box::new(Voice { allowance, refused: 0, received: 0, pending: Pending::Nothing, speech })
    }

    /// Is a subscription the next thing that is done, or being done?
    pub(super) fn is_subscribing(&self) -> bool {
        match (&self.pending, &self.speech) {
            (Pending::Awaited(awaited), _) => awaited.is_sub(),
            (Pending::Nothing, Speech::Talk(talk)) => talk.subscribes_next(),
            _ => false,
        }
    }

    /// May it send one message more? Who goes on in spite of many refusals is not answered any more.
    pub(super) fn take_allowance(&mut self, grant: Option<&Grant>) -> Result<(), Limited> {
        let shared = grant.and_then(|g| g.allowance.as_deref());
        let taken = [self.allowance.as_ref(), shared].into_iter().flatten().try_for_each(|a| a.take(1));
        let Err(wait) = taken else {
            self.refused = 0;
            return Ok(());
        };
        self.refused += 1;
        let words = format!("too many messages; there is room for one more in {:.3} s", wait.as_secs_f64());
        if self.refused > REFUSED_MAX { Err(Limited::Close(words)) } else { Err(Limited::Refuse(words)) }
    }
}

impl Session {
    /// Brings what is pending where there is room, and goes on with what else was said.
    pub(super) fn hand_on(self: &Rc<Self>, sh: &Shard, waker: &Waker) -> HandOn {
        loop {
            let on = self.settle_pending(sh, waker);
            if on != HandOn::Done {
                return on;
            }
            let kind = match &self.state.borrow().voice {
                None => return HandOn::Done,
                Some(voice) => match &voice.speech {
                    Speech::Sender(sender) => {
                        let crowded = sh.is_crowded(sender.pattern, &sender.topic, waker);
                        return if crowded { HandOn::Waits } else { HandOn::Done };
                    }
                    Speech::Talk(_) => Kind::Talk,
                    Speech::Acks(_) => Kind::Acks,
                },
            };
            let on = match kind {
                Kind::Talk => self.talk_on(sh, waker),
                Kind::Acks => self.ack_on(sh),
            };
            match on {
                On::Again => {}
                On::Idle => return HandOn::Done,
                On::Waits => return HandOn::Waits,
                On::Unheard => return HandOn::Unheard,
            }
        }
    }

    fn settle_pending(self: &Rc<Self>, sh: &Shard, waker: &Waker) -> HandOn {
        let mut st = self.state.borrow_mut();
        if st.voice.as_ref().is_some_and(|v| matches!(&v.pending, Pending::Awaited(a) if a.is_sub())) {
            // it may change the log of the session
            st.waits_behind = st.is_parked() || st.is_far_behind();
            if st.waits_behind {
                return HandOn::Waits; // who writes to it wakes it
            }
        }
        let State { voice: Some(voice), control, .. } = &mut *st else { return HandOn::Done };
        let on = match &mut voice.pending {
            Pending::Nothing => return HandOn::Done,
            Pending::Frames(left, batch) => {
                for i in shards(*left) {
                    if sh.send_frames(i, batch, waker) {
                        *left &= !(1 << i);
                    }
                }
                if *left == 0 { HandOn::Done } else { HandOn::Waits }
            }
            Pending::Lane(topic, work) => hand_out(topic, work, control, self.encoding, sh, waker),
            Pending::Awaited(awaited) => {
                let Some(answered) = awaited.poll(waker) else { return HandOn::Waits };
                let Pending::Awaited(awaited) = std::mem::take(&mut voice.pending) else {
                    return HandOn::Done;
                };
                drop(st);
                self.answered(awaited, answered, sh);
                return HandOn::Done;
            }
        };
        if on == HandOn::Done {
            voice.pending = Pending::Nothing;
        }
        on
    }

    /// What comes next waits for this.
    pub(super) fn set_pending(&self, pending: Pending) {
        if let Some(voice) = &mut self.state.borrow_mut().voice {
            voice.pending = pending;
        }
    }
}

enum Kind {
    Talk,
    Acks,
}

/// What became of the next thing that was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum On {
    /// Done, or something is pending now.
    Again,
    /// There is nothing.
    Idle,
    /// It has to wait; the waker is woken.
    Waits,
    /// The client has not read its answers yet.
    Unheard,
}

/// Gives messages to the lane of their topic, one by one.
fn hand_out(
    topic: &Arc<str>,
    work: &mut VecDeque<Handed>,
    control: &mut Vec<u8>,
    encoding: Encoding,
    sh: &Shard,
    waker: &Waker,
) -> HandOn {
    while let Some(Handed { message, reference }) = work.pop_front() {
        match sh.hub.lanes.push(&sh.hub, topic, message, waker) {
            Ok(()) if encoding == Encoding::V1 => encode::answer(control, &Answer::ok(reference.as_deref())),
            Ok(()) => {}
            Err((Refusal::Busy, message)) => {
                work.push_front(Handed { message, reference });
                return HandOn::Waits;
            }
            Err((Refusal::NoPuller, _)) => {
                let words = format!("nobody pulls {topic}, and no more can wait for who will");
                let problem = Problem::new(ErrorCode::NoPuller, words);
                let label = topic.parse().map(|topic| sh.hub.channels.label(Pattern::Push, &topic));
                crate::metrics::dropped(label.unwrap_or_else(|_| NO_CHANNEL.into()), problem.code.as_str());
                tell_refused(control, encoding, &reference, &problem);
            }
        }
        if control.len() > sh.hub.options.control_bytes_max && !work.is_empty() {
            return HandOn::Unheard;
        }
    }
    HandOn::Done
}

/// A copy: what waits must not keep the whole burst that it came in.
pub(super) fn own(message: &Message) -> Message {
    let copy = |b: &Bytes| Bytes::copy_from_slice(b);
    match message {
        Message::Text(b) => Message::Text(copy(b)),
        Message::Json(b) => Message::Json(copy(b)),
        Message::Binary(b) => Message::Binary(copy(b)),
    }
}

/// Tells a sender why its message goes nowhere, and counts it for no channel.
pub(super) fn refuse(control: &mut Vec<u8>, encoding: Encoding, reference: &Reference, problem: &Problem) {
    crate::metrics::dropped(NO_CHANNEL.into(), problem.code.as_str());
    tell_refused(control, encoding, reference, problem);
}

/// The same for a message that its channel has counted.
pub(super) fn tell_refused(
    control: &mut Vec<u8>,
    encoding: Encoding,
    reference: &Reference,
    problem: &Problem,
) {
    if encoding == Encoding::V1 {
        encode::answer(control, &Answer::Error { reference: reference.as_deref(), problem });
    } else {
        say(control, &problem.frame());
    }
}
