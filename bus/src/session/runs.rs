//! Runs of `minium.v1` frames that go together: messages of one topic in one burst, durable ones in one commit, work of
//! one channel in one enqueue, words about jobs in one call.

use super::Session;
use super::following::Sub;
use super::outside::{Answered, Asked, Awaited};
use super::talk::{Talk, invalid};
use super::voice::{Handed, On, Pending, Reference, refuse, tell_refused};
use crate::encode::{self, Encoding};
use crate::history::Draft;
use crate::message::Message;
use crate::pattern::Pattern;
use crate::publish::Burst;
use crate::shard::Shard;
use crate::work::{Pushed, Saying, Word};
use bytes::Bytes;
use minium_protocol::{Answer, ClientFrame, ClientOp, JobOptions, Problem, Topic};
use serde_json::value::RawValue;
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

impl Session {
    /// A run of messages: one burst for the subscribers of one topic, or one commit.
    pub(super) fn publish_some(self: &Rc<Self>, sh: &Shard, waker: &Waker) -> On {
        let mut burst = sh.burst.borrow_mut();
        let first = self.with_talk(|talk, _| {
            let Some(ClientFrame { op: ClientOp::Pub { topic, .. }, .. }) = talk.ops.front() else {
                return Err(invalid("no pub"));
            };
            let topic = talk.topic(topic.clone())?;
            let sender = talk.sender(self, Pattern::Sub, &topic, sh)?;
            if !sender.is_durable() {
                sender.begin(&sh.hub, &mut burst);
            }
            Ok((topic, sender.is_durable()))
        });
        match first {
            Some(Ok((_, true))) => {
                drop(burst);
                self.keep_some(sh)
            }
            Some(Ok((topic, false))) => self.burst_some(Pattern::Sub, &topic, &mut burst, sh, waker),
            Some(Err(problem)) => self.refuse_next(&problem),
            None => On::Idle,
        }
    }

    /// A run of messages for peers of one topic.
    pub(super) fn send_some(self: &Rc<Self>, sh: &Shard, waker: &Waker) -> On {
        let mut burst = sh.burst.borrow_mut();
        let subs = self.state.borrow().subs.clone();
        let first = self.with_talk(|talk, _| {
            let Some(ClientFrame { op: ClientOp::Send { topic, .. }, .. }) = talk.ops.front() else {
                return Err(invalid("no send"));
            };
            let topic = talk.topic(topic.clone())?;
            let is = |s: &Sub| s.follow.pattern == Pattern::Bus && s.follow.filter.as_str() == topic.as_str();
            if !subs.iter().any(is) {
                return Err(invalid(format!("this session is no peer of {topic}: say bus first")));
            }
            talk.sender(self, Pattern::Bus, &topic, sh)?.begin(&sh.hub, &mut burst);
            Ok(topic)
        });
        match first {
            Some(Ok(topic)) => self.burst_some(Pattern::Bus, &topic, &mut burst, sh, waker),
            Some(Err(problem)) => self.refuse_next(&problem),
            None => On::Idle,
        }
    }

    fn refuse_next(&self, problem: &Problem) -> On {
        if let Some(frame) = self.pop() {
            self.refuse(&frame.reference, problem);
        }
        On::Again
    }

    /// The sender stands in front, and the burst is begun for it.
    fn burst_some(
        self: &Rc<Self>,
        pattern: Pattern,
        topic: &Topic,
        burst: &mut Burst,
        sh: &Shard,
        waker: &Waker,
    ) -> On {
        if sh.is_crowded(pattern, topic, waker) {
            return On::Waits;
        }
        let max = sh.hub.options.control_bytes_max;
        self.with_talk(|talk, control| {
            while control.len() <= max
                && let Some((reference, data)) = talk.pop_message(pattern, topic)
            {
                let sender = &talk.senders[0];
                match sender.judge(message_of(data, sender.wants_json())) {
                    Ok(message) => {
                        burst.add(&sh.source, topic.as_str(), &message);
                        encode::answer(control, &Answer::ok(reference.as_deref()));
                    }
                    Err(problem) => tell_refused(control, Encoding::V1, &reference, &problem),
                }
            }
            talk.senders[0].count(&sh.hub, burst.messages() as usize);
            talk.senders[0].count_taken(burst.messages() as usize);
        });
        if burst.messages() > 0 {
            self.send_burst(burst, pattern, topic, sh);
        }
        On::Again
    }

    /// A run of messages for the journal, whatever their topics.
    fn keep_some(self: &Rc<Self>, sh: &Shard) -> On {
        let mut drafts = Vec::new();
        let mut references = Vec::new();
        self.with_talk(|talk, control| {
            while drafts.len() < sh.hub.options.run_count_max {
                let Some(ClientFrame { op: ClientOp::Pub { topic, .. }, .. }) = talk.ops.front() else {
                    break;
                };
                let sender = talk.topic(topic.clone());
                let sender =
                    sender.and_then(|t| talk.sender(self, Pattern::Sub, &t, sh).map(|s| s.is_durable()));
                if !matches!(sender, Ok(true)) {
                    break; // it is next, and is told itself
                }
                let Some(ClientFrame { reference, op: ClientOp::Pub { data, id, .. } }) =
                    talk.ops.pop_front()
                else {
                    break;
                };
                let sender = &talk.senders[0];
                match sender.judge(message_of(data, true)) {
                    Ok(message) => {
                        let data = message.bytes().clone();
                        sender.count_taken(1);
                        drafts.push(Draft { topic: sender.topic.clone(), id, data });
                        references.push(reference);
                    }
                    Err(problem) => tell_refused(control, Encoding::V1, &reference, &problem),
                }
            }
        });
        if drafts.is_empty() {
            return On::Again;
        }
        let kept = sh.hub.outside.keep(drafts);
        let task = sh.hub.outside.spawn(async move { Answered::Kept(kept.await) });
        self.await_outside(Awaited::new(task, Asked::Messages(references)));
        On::Again
    }

    /// A run of work for one channel: jobs of one enqueue, or messages for pullers.
    pub(super) fn push_some(self: &Rc<Self>, sh: &Shard) -> On {
        let mut handed = VecDeque::new();
        let mut pushed = Vec::new();
        let mut references = Vec::new();
        let run = self.with_talk(|talk, control| {
            let Some(ClientFrame { op: ClientOp::Push { topic, .. }, .. }) = talk.ops.front() else {
                return Err(invalid("no push"));
            };
            let topic = talk.topic(topic.clone())?;
            let durable = talk.sender(self, Pattern::Push, &topic, sh)?.is_durable();
            while handed.len() + pushed.len() < sh.hub.options.run_count_max {
                let Some((reference, data, options)) = talk.pop_work(&topic) else { break };
                let sender = &talk.senders[0];
                match sender.judge(message_of(data, sender.wants_json())) {
                    Err(problem) => tell_refused(control, Encoding::V1, &reference, &problem),
                    Ok(message) if durable => {
                        let options = options.map_or_else(JobOptions::default, |o| *o);
                        pushed.push(Pushed { data: message.bytes().clone(), options });
                        references.push(reference);
                    }
                    Ok(_) if options.is_some() => {
                        let problem = invalid(format!("{topic} is not durable: options mean nothing there"));
                        refuse(control, Encoding::V1, &reference, &problem);
                    }
                    Ok(message) => handed.push_back(Handed { message, reference }),
                }
            }
            talk.senders[0].count(&sh.hub, handed.len() + pushed.len());
            talk.senders[0].count_taken(handed.len() + pushed.len());
            Ok(topic)
        });
        let topic = match run {
            Some(Ok(topic)) => topic,
            Some(Err(problem)) => return self.refuse_next(&problem),
            None => return On::Idle,
        };
        if !handed.is_empty() {
            self.set_pending(Pending::Lane(topic.shared(), handed));
        } else if !pushed.is_empty() {
            let ids = sh.hub.outside.push(topic, pushed);
            let task = sh.hub.outside.spawn(async move { Answered::Pushed(ids.await) });
            self.await_outside(Awaited::new(task, Asked::Messages(references)));
        }
        On::Again
    }
}

impl Talk {
    /// The next frame, if it is a message for this topic.
    fn pop_message(&mut self, pattern: Pattern, topic: &Topic) -> Option<(Reference, Box<RawValue>)> {
        let given = match (&self.ops.front()?.op, pattern) {
            (ClientOp::Pub { topic, .. }, Pattern::Sub) | (ClientOp::Send { topic, .. }, Pattern::Bus) => {
                topic.clone()
            }
            _ => return None,
        };
        if self.topic(given).ok()? != *topic {
            return None;
        }
        let ClientFrame { reference, op } = self.ops.pop_front()?;
        match op {
            ClientOp::Pub { data, .. } | ClientOp::Send { data, .. } => Some((reference, data)),
            _ => None,
        }
    }

    /// The next frame, if it is work for this channel.
    fn pop_work(&mut self, topic: &Topic) -> Option<(Reference, Box<RawValue>, Option<Box<JobOptions>>)> {
        let ClientOp::Push { topic: given, .. } = &self.ops.front()?.op else { return None };
        if self.topic(given.clone()).ok()? != *topic {
            return None;
        }
        let ClientFrame { reference, op } = self.ops.pop_front()?;
        match op {
            ClientOp::Push { data, options, .. } => Some((reference, data, options)),
            _ => None,
        }
    }
}

/// The next frames, as long as they are words about jobs.
pub(super) fn words(
    ops: &mut VecDeque<ClientFrame>,
    lease_time: Duration,
    count_max: usize,
) -> Vec<(Reference, Word)> {
    let mut words = Vec::new();
    let is_word = |f: &mut ClientFrame| {
        use ClientOp::{Ack, Extend, Nack, Note};
        matches!(f.op, Ack { .. } | Nack { .. } | Note { .. } | Extend { .. })
    };
    while words.len() < count_max
        && let Some(ClientFrame { reference, op }) = ops.pop_front_if(is_word)
    {
        let (job, lease, saying) = match op {
            ClientOp::Ack { job, lease, result } => (job, lease, Saying::Ack { result }),
            ClientOp::Nack { job, lease, error, retry } => (job, lease, Saying::Nack { error, retry }),
            ClientOp::Note { job, lease, notes, progress, log } => {
                (job, lease, Saying::Note { notes, progress, log })
            }
            ClientOp::Extend { job, lease } => (job, lease, Saying::Extend { lease: lease_time }),
            _ => continue,
        };
        words.push((reference, Word { job, lease, saying }));
    }
    words
}

/// What was said, as a message: a JSON string is text, as it is in CloudEvents, unless its channel takes only JSON.
fn message_of(data: Box<RawValue>, wants_json: bool) -> Message {
    if !wants_json
        && data.get().starts_with('"')
        && let Ok(text) = serde_json::from_str::<String>(data.get())
    {
        return Message::Text(text.into());
    }
    let text: Box<str> = data.into();
    let bytes = Bytes::from(String::from(text));
    // where only JSON goes it is looked at closely
    if wants_json { Message::Text(bytes) } else { Message::Json(bytes) }
}
