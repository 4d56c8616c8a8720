//! `minium.v1`: many subscriptions, and everything else, on one socket.
//!
//! Frames are done in the order in which they came. What belongs together goes together: a run of messages for one
//! topic is one burst, a run of durable ones one commit, a run of words about jobs one call. While the journal or the
//! queue is asked, the next frame waits, and what is live goes on.

use super::following::Sub;
use super::jobs::{Jobs, Style};
use super::outside::{Answered, Asked, Awaited};
use super::runs::words;
use super::voice::{On, Pending, Reference, refuse};
use super::{Phase, Session, Speech, State};
use crate::channels::Channels;
use crate::encode::Encoding;
use crate::message::Message;
use crate::opening::Mode;
use crate::pattern::Pattern;
use crate::peers::{Own, Sender};
use crate::shard::Shard;
use crate::work::Order;
use minium_protocol::{
    After, Answer, ClientFrame, ClientOp, ErrorCode, Filter, FrameError, Problem, Topic, Verb,
    read_client_frame,
};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

/// Topics of which it is remembered who receives.
const SENDERS_MAX: usize = 64;

pub(crate) struct Talk {
    /// What frames may leave out: the path's topic.
    path: Option<Filter>,
    /// Read, not yet done.
    pub(super) ops: VecDeque<ClientFrame>,
    /// The one that was used last stands first.
    pub(super) senders: VecDeque<Sender>,
}

/// The `ref` of a frame that is refused unread.
pub(super) fn reference_of(message: &Message, encoding: Encoding) -> Reference {
    let text = std::str::from_utf8(message.bytes()).ok().filter(|_| encoding == Encoding::V1)?;
    match read_client_frame(text) {
        Ok(frame) => frame.reference,
        Err(FrameError::Refused { reference, .. }) => reference,
        Err(FrameError::Bad(_)) => None,
    }
}

/// A frame is refused.
type Refused = Problem;

pub(super) fn invalid(words: impl Into<String>) -> Problem {
    Problem::new(ErrorCode::InvalidRequest, words)
}

impl Talk {
    pub(crate) fn new(path: Option<Filter>) -> Talk {
        Talk { path, ops: VecDeque::new(), senders: VecDeque::new() }
    }

    /// Reads a frame; what is wrong with it is answered. An error: whoever sent it does not speak this language.
    pub(super) fn take(&mut self, message: &Message, control: &mut Vec<u8>) -> Result<(), String> {
        let (Message::Text(text) | Message::Json(text)) = message else {
            return Err("minium.v1 is spoken in text frames".into());
        };
        let text = std::str::from_utf8(text).map_err(|e| e.to_string())?;
        match read_client_frame(text) {
            Ok(frame) => self.ops.push_back(frame),
            Err(FrameError::Refused { reference, problem }) => {
                refuse(control, Encoding::V1, &reference, &problem);
            }
            Err(FrameError::Bad(why)) => return Err(why),
        }
        Ok(())
    }

    /// Takes out the messages for the journal that wait; answers their refs.
    pub(super) fn take_durable_messages(&mut self, channels: &Channels) -> Vec<Reference> {
        let Talk { path, ops, .. } = self;
        let durable = |op: &ClientOp| match op {
            ClientOp::Pub { topic, .. } => {
                let topic = topic.clone().or_else(|| path.as_ref()?.as_str().parse().ok());
                topic.is_some_and(|t| channels.governing(Pattern::Sub, &t).is_some_and(|c| c.durable))
            }
            _ => false,
        };
        let (out, left): (Vec<_>, Vec<_>) = std::mem::take(ops).into_iter().partition(|f| durable(&f.op));
        *ops = left.into();
        out.into_iter().map(|f| f.reference).collect()
    }

    /// Is the next frame a subscription?
    pub(super) fn subscribes_next(&self) -> bool {
        self.ops.front().is_some_and(|next| matches!(next.op, ClientOp::Sub { .. }))
    }

    fn filter(&self, given: Option<Filter>) -> Result<Filter, Refused> {
        given.or_else(|| self.path.clone()).ok_or_else(|| invalid("topic is missing"))
    }

    pub(super) fn topic(&self, given: Option<Topic>) -> Result<Topic, Refused> {
        match (given, &self.path) {
            (Some(topic), _) => Ok(topic),
            (None, Some(path)) => {
                path.as_str().parse().map_err(|_| invalid("topic is missing, and the path's has a + in it"))
            }
            (None, None) => Err(invalid("topic is missing")),
        }
    }

    /// What is kept for a topic that is sent to, brought to the front.
    pub(super) fn sender(
        &mut self,
        session: &Session,
        pattern: Pattern,
        topic: &Topic,
        sh: &Shard,
    ) -> Result<&mut Sender, Refused> {
        let is = |s: &Sender| s.pattern == pattern && s.topic == *topic;
        match self.senders.iter().position(is) {
            Some(0) => {}
            Some(i) => self.senders.swap(0, i),
            None => {
                let verb = match pattern {
                    Pattern::Sub => Verb::Pub,
                    Pattern::Push => Verb::Push,
                    Pattern::Bus => Verb::Bus,
                };
                session.check(verb, &topic.clone().into())?;
                self.senders.truncate(SENDERS_MAX - 1);
                self.senders.push_front(Sender::new(pattern, topic.clone(), Mode::V1));
            }
        }
        let sender = &mut self.senders[0];
        sender.refresh(&sh.hub);
        Ok(sender)
    }
}

impl Session {
    /// May it do this?
    pub(super) fn check(&self, verb: Verb, filter: &Filter) -> Result<(), Refused> {
        self.grant.as_ref().map_or(Ok(()), |grant| grant.check(verb, filter))
    }

    /// Does the next thing that was said.
    pub(super) fn talk_on(self: &Rc<Self>, sh: &Shard, waker: &Waker) -> On {
        let mut st = self.state.borrow_mut();
        if st.control.len() > sh.hub.options.control_bytes_max {
            return On::Unheard;
        }
        let State { voice: Some(voice), jobs, .. } = &mut *st else { return On::Idle };
        let Speech::Talk(talk) = &mut voice.speech else { return On::Idle };
        let Some(next) = talk.ops.front() else { return On::Idle };
        match &next.op {
            ClientOp::Pub { .. } => {
                drop(st);
                self.publish_some(sh, waker)
            }
            ClientOp::Push { .. } => {
                drop(st);
                self.push_some(sh)
            }
            ClientOp::Ack { .. }
            | ClientOp::Nack { .. }
            | ClientOp::Note { .. }
            | ClientOp::Extend { .. } => {
                let ops = &mut talk.ops;
                let lease = jobs.as_ref().map_or(Duration::from_secs(30), |jobs| jobs.lease());
                let words = words(ops, lease, sh.hub.options.run_count_max);
                drop(st);
                self.say(words, sh);
                On::Again
            }
            ClientOp::Sub { .. } | ClientOp::Unsub { .. } | ClientOp::Bus { .. } => {
                drop(st);
                let behind = self.is_far_behind();
                self.state.borrow_mut().waits_behind = behind;
                if behind {
                    return On::Waits; // who writes to it wakes it
                }
                self.next_alone(sh);
                On::Again
            }
            ClientOp::Send { .. } => {
                drop(st);
                self.send_some(sh, waker)
            }
            ClientOp::Pull { .. } | ClientOp::Ping => {
                drop(st);
                self.next_alone(sh);
                On::Again
            }
        }
    }

    pub(super) fn pop(&self) -> Option<ClientFrame> {
        let mut st = self.state.borrow_mut();
        match st.voice.as_mut().map(|v| &mut v.speech) {
            Some(Speech::Talk(talk)) => talk.ops.pop_front(),
            _ => None,
        }
    }

    /// With what is kept for talking, and the bytes for the client.
    pub(super) fn with_talk<T>(&self, work: impl FnOnce(&mut Talk, &mut Vec<u8>) -> T) -> Option<T> {
        let mut st = self.state.borrow_mut();
        let State { voice: Some(voice), control, .. } = &mut *st else { return None };
        match &mut voice.speech {
            Speech::Talk(talk) => Some(work(talk, control)),
            _ => None,
        }
    }

    pub(super) fn refuse(&self, reference: &Reference, problem: &Problem) {
        refuse(&mut self.state.borrow_mut().control, Encoding::V1, reference, problem);
    }

    /// Something that goes by itself.
    fn next_alone(self: &Rc<Self>, sh: &Shard) {
        let Some(ClientFrame { reference, op }) = self.pop() else { return };
        let open = self.state.borrow().phase == Phase::Open;
        if !open {
            return; // it said goodbye behind it: nothing begins any more
        }
        let done = match op {
            ClientOp::Sub { filter, after } => self.subscribe(&reference, filter, after, sh),
            ClientOp::Unsub { filter } => self.unsubscribe(&reference, filter, sh),
            ClientOp::Bus { topic } => self.join_peers(&reference, topic, sh),
            ClientOp::Pull { topic, credit, queue, tasks } => {
                self.pull_more(&reference, (topic, tasks), credit, queue, sh)
            }
            ClientOp::Ping => {
                self.tell(&Answer::Pong { reference: reference.as_deref() });
                Ok(())
            }
            // these come in runs
            _ => Ok(()),
        };
        if let Err(problem) = done {
            self.refuse(&reference, &problem);
        }
    }

    fn subscribe(
        self: &Rc<Self>,
        reference: &Reference,
        filter: Option<Filter>,
        after: After,
        sh: &Shard,
    ) -> Result<(), Refused> {
        let filter =
            self.with_talk(|talk, _| talk.filter(filter)).unwrap_or_else(|| Err(invalid("no talk")))?;
        self.check(Verb::Sub, &filter)?;
        self.check_room(Pattern::Sub, &filter, sh)?;
        if after == After::Latest {
            self.join_live(reference, filter, sh);
            return Ok(());
        }
        let (hub, wanted) = (sh.hub.clone(), filter.clone());
        let task = sh.hub.outside.spawn(async move {
            let patience = hub.options.outside_patience;
            let resolved =
                tokio::time::timeout(patience, crate::resolve::resolve(&hub, &wanted, after)).await;
            let late = |_| Problem::new(ErrorCode::Unavailable, "the journal did not answer in time");
            Answered::Resolved(resolved.map_err(late).and_then(|r| r))
        });
        let awaited = Awaited::new(task, Asked::Sub(reference.clone(), filter))?;
        self.set_pending(Pending::Awaited(awaited));
        Ok(())
    }

    fn check_room(&self, pattern: Pattern, filter: &Filter, sh: &Shard) -> Result<(), Refused> {
        let st = self.state.borrow();
        let max = sh.hub.options.session_subs_max;
        if st.subs.iter().any(|s| s.follow.pattern == pattern && s.follow.filter == *filter) {
            return Err(Problem::new(ErrorCode::Conflict, format!("{filter} is subscribed already")));
        }
        if st.subs.len() >= max {
            return Err(invalid(format!("one session has at most {max} subscriptions")));
        }
        Ok(())
    }

    fn unsubscribe(
        self: &Rc<Self>,
        reference: &Reference,
        filter: Option<Filter>,
        sh: &Shard,
    ) -> Result<(), Refused> {
        let filter =
            self.with_talk(|talk, _| talk.filter(filter)).unwrap_or_else(|| Err(invalid("no talk")))?;
        {
            let mut st = self.state.borrow_mut();
            // a topic among peers is left by the same word, when nothing is subscribed by that name
            let place =
                |p: Pattern| st.subs.iter().position(|s| s.follow.pattern == p && s.follow.filter == filter);
            let Some(n) = place(Pattern::Sub).or_else(|| place(Pattern::Bus)) else {
                return Err(Problem::new(ErrorCode::NotFound, format!("{filter} is not subscribed")));
            };
            let left = st.subs.remove(n);
            if let (true, Some(catching)) = (left.reads, &mut st.catching_up) {
                catching.forget(&left.follow.filter);
            }
        }
        sh.follow(self);
        self.tell(&Answer::ok(reference.as_deref()));
        Ok(())
    }

    fn join_peers(
        self: &Rc<Self>,
        reference: &Reference,
        topic: Option<Topic>,
        sh: &Shard,
    ) -> Result<(), Refused> {
        let topic = self.with_talk(|talk, _| talk.topic(topic)).unwrap_or_else(|| Err(invalid("no talk")))?;
        let filter = Filter::from(topic);
        self.check(Verb::Bus, &filter)?;
        self.check_room(Pattern::Bus, &filter, sh)?;
        self.state.borrow_mut().own.get_or_insert_with(|| Box::new(Own::new(false)));
        self.add_sub(Sub::new(sh, Pattern::Bus, filter, 0));
        sh.follow(self);
        self.tell(&Answer::ok(reference.as_deref()));
        Ok(())
    }

    fn pull_more(
        self: &Rc<Self>,
        reference: &Reference,
        (topic, mut tasks): (Option<Topic>, Vec<Topic>),
        credit: u32,
        queue: Option<Box<str>>,
        sh: &Shard,
    ) -> Result<(), Refused> {
        let topic = self.with_talk(|talk, _| talk.topic(topic)).unwrap_or_else(|| Err(invalid("no talk")))?;
        tasks.insert(0, topic.clone());
        tasks.dedup();
        for task in &tasks {
            self.check(Verb::Pull, &task.clone().into())?;
        }
        let channel = sh.hub.channels.governing(Pattern::Push, &topic).filter(|c| c.durable);
        let Some(channel) = channel else {
            if tasks.len() > 1 || queue.is_some() {
                let words = "it has no jobs to acknowledge, no queue and no further tasks";
                return Err(invalid(format!("{topic} is not durable: {words}")));
            }
            let (has, count) = {
                let st = self.state.borrow();
                (st.pulls.iter().any(|p| *p.topic == *topic.as_str()), st.pulls.len())
            };
            let max = sh.hub.options.session_pulls_max;
            if !has && count >= max {
                return Err(invalid(format!("one session pulls at most {max} channels")));
            }
            if !has {
                sh.pull(self, &topic); // once: it takes its turns for as long as it is there
            }
            self.tell(&Answer::ok(reference.as_deref()));
            return Ok(());
        };
        let other =
            tasks.iter().find(|t| !sh.hub.channels.is_durable(Pattern::Push, &Filter::from((*t).clone())));
        if let Some(other) = other {
            return Err(invalid(format!("{other} is not durable: it is not pulled together with {topic}")));
        }
        let order = Order { tasks, queue: queue.map(String::from), lease: channel.lease, name: self.name() };
        // before the jobs that follow from it
        self.pull_jobs(order, Style::Frames, Some(credit), sh)?;
        self.tell(&Answer::ok(reference.as_deref()));
        Ok(())
    }

    /// Takes jobs from now on. Without a number the mode says how many at once.
    pub(crate) fn pull_jobs(
        self: &Rc<Self>,
        order: Order,
        style: Style,
        credit: Option<u32>,
        sh: &Shard,
    ) -> Result<(), Refused> {
        if self.state.borrow().jobs.is_none() {
            let id = sh.next_puller();
            self.state.borrow_mut().jobs = Some(Box::new(Jobs::new(id, style, sh)));
            sh.know_puller(id, self);
        }
        let mut st = self.state.borrow_mut();
        let Some(jobs) = &mut st.jobs else { return Ok(()) };
        let credit = credit.unwrap_or_else(|| jobs.first_credit());
        jobs.pull(order, credit, sh)
    }

    /// Who it is, for those who look at what it works on.
    pub(crate) fn name(&self) -> String {
        self.grant.as_ref().map_or_else(|| self.sink.peer(), |g| g.subject.clone())
    }
}
