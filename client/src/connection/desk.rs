//! The books of one socket: what is subscribed and how far, what was said and not yet answered, what is worked on.
//! Pure: no socket, no clock.
//!
//! What must hold: after any cut, [`Desk::connected`] says everything again that makes the next socket go on where the
//! last one was cut, and nothing that could do harm twice. A durable message is handed out once: only what stands
//! behind the last one that was.

use super::frames::{Answered, Heard};
use super::payload::Payload;
use super::places::{Place, Role, Stage};
use super::pull::Word;
use crate::error::ClientError;
use jiff::Timestamp;
use minium_protocol::{
    After, ErrorCode, Filter, FrameMembers as Frame, LeaseToken, Position, Problem, Topic, TraceContext,
};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet, VecDeque};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// Names a place at the desk.
pub(super) type Key = u64;
/// Told once whether a place was opened, and where it begins.
pub(super) type Opened = oneshot::Sender<Result<Option<Position>, ClientError>>;
/// Told once what was answered.
pub(super) type Answers = oneshot::Sender<Result<Answered, ClientError>>;

/// Topics of which it is remembered that they keep nothing.
const EPHEMERAL_COUNT_MAX: usize = 1_024;

/// What handles ask for.
#[derive(Debug)]
pub(super) enum Command {
    /// A place for what comes.
    Open { key: Key, filter: Filter, role: Role, out: mpsc::Sender<Item>, opened: Opened },
    /// A lost subscription begins anew.
    Begin { key: Key, from: After, opened: Opened },
    /// Something that is answered.
    Call { call: Call, answers: Answers },
    /// To the other peers.
    Send { key: Key, data: Box<RawValue> },
    /// Nothing more will be asked: it ends when everything has been answered.
    Finish,
}

/// What a handle that was dropped leaves behind.
#[derive(Debug, Clone, Copy)]
pub(super) enum Left {
    /// Its place.
    Place(Key),
    /// A job about which nothing was said.
    Job(Key, LeaseToken),
}

/// Something that is answered.
#[derive(Debug)]
pub(super) enum Call {
    Publish { topic: Topic, data: Box<RawValue>, id: String },
    Push { topic: Topic, data: Box<RawValue>, options: Option<serde_json::Map<String, serde_json::Value>> },
    Word { key: Key, word: Word },
}

/// What comes, for one handle.
#[derive(Debug)]
pub(super) enum Item {
    Message {
        topic: Topic,
        position: Option<Position>,
        payload: Payload,
    },
    Gap {
        from: Option<u64>,
        to: Option<u64>,
    },
    CaughtUp {
        offset: u64,
    },
    Lost(Box<Problem>),
    Job(Box<Given>),
    /// One of its own messages was refused; it goes on.
    Refused(ClientError),
    /// The last one.
    Failed(ClientError),
}

/// A job that was given to a puller.
#[derive(Debug)]
pub(super) struct Given {
    pub(super) topic: Topic,
    pub(super) snapshot: Box<RawValue>,
    pub(super) lease: LeaseToken,
    pub(super) expires: Option<Timestamp>,
    pub(super) trace: Option<TraceContext>,
    pub(super) cancelled: CancellationToken,
}

/// Said, not yet answered.
#[derive(Debug)]
struct Pending {
    what: What,
    /// To be said again over the next socket; nothing where that could do harm.
    again: Option<String>,
}

#[derive(Debug)]
enum What {
    /// A place was asked for, or more credit.
    Place(Key),
    /// A message to a topic that may keep it.
    Publish(Topic, Answers),
    Call(Answers),
    Word {
        key: Key,
        lease: LeaseToken,
        ends: bool,
        answers: Answers,
    },
    Send(Key),
    Nothing,
}

#[derive(Debug, Default)]
pub(super) struct Desk {
    places: BTreeMap<Key, Place>,
    pending: BTreeMap<u64, Pending>,
    reference: u64,
    /// For the socket, in order.
    out: VecDeque<String>,
    /// For handles, in order.
    items: VecDeque<(Key, Item)>,
    online: bool,
    /// Something was answered over this socket, or came.
    alive: bool,
    finishing: bool,
    /// A puller left, which has no word for it: this socket would be given jobs that nobody takes.
    stale: bool,
    /// The server cannot do now what it was asked: everything is to be said again, later and in order.
    refused: Option<ClientError>,
    ephemeral: HashSet<Topic>,
}

impl Desk {
    /// A socket is there: says everything that the one before it knew.
    pub(super) fn connected(&mut self) {
        self.online = true;
        let keys: Vec<Key> = self.places.keys().copied().collect();
        for key in keys {
            let Some(place) = self.places.get_mut(&key) else { continue };
            if place.reconnected() {
                self.items.push_back((key, Item::Gap { from: None, to: None }));
            }
            self.ask(key);
        }
        self.out.extend(self.pending.values().filter_map(|p| p.again.clone()));
    }

    /// The socket is gone.
    pub(super) fn cut(&mut self, why: &ClientError) {
        (self.online, self.alive, self.stale, self.refused) = (false, false, false, None);
        self.out.clear();
        for place in self.places.values_mut() {
            place.cut();
        }
        let may_come_twice = |p: &Pending| match &p.what {
            // where nothing is kept, twice is worse than an error that says so
            What::Publish(topic, _) => !self.ephemeral.contains(topic),
            _ => p.again.is_some(),
        };
        let (again, over) =
            std::mem::take(&mut self.pending).into_iter().partition(|(_, p)| may_come_twice(p));
        self.pending = again;
        for (_, pending) in over {
            pending.what.fail(why);
        }
    }

    /// No socket comes any more.
    pub(super) fn end(&mut self, why: &ClientError) {
        self.cut(why);
        for pending in std::mem::take(&mut self.pending).into_values() {
            pending.what.fail(why);
        }
        for place in std::mem::take(&mut self.places).into_values() {
            if let Some(opened) = place.opened {
                opened.send(Err(why.again())).ok();
            }
        }
    }

    /// Nothing more will be asked, all has been answered, and what has come has been taken.
    pub(super) fn is_done(&self) -> bool {
        self.finishing && self.pending.is_empty() && self.items.is_empty()
    }

    /// Does this socket bring what nobody wants any more?
    pub(super) fn is_stale(&self) -> bool {
        self.stale
    }

    /// What the server cannot do now, if it said so.
    pub(super) fn take_refused(&mut self) -> Option<ClientError> {
        self.refused.take()
    }

    /// Has something come over this socket that shows that it works?
    pub(super) fn is_alive(&self) -> bool {
        self.alive
    }

    /// How many answers are awaited.
    pub(super) fn unanswered(&self) -> usize {
        self.pending.len()
    }

    /// The next frame to write.
    pub(super) fn next_frame(&mut self) -> Option<String> {
        self.out.pop_front()
    }

    /// Hands over what has come, as far as there is room. Answers who must make room first.
    pub(super) fn deliver(&mut self) -> Option<mpsc::Sender<Item>> {
        while let Some((key, item)) = self.items.pop_front() {
            // who left wants nothing any more
            let Some(place) = self.places.get(&key) else { continue };
            let last = matches!(item, Item::Failed(_));
            match place.out.try_send(item) {
                Ok(()) if last => drop(self.places.remove(&key)),
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(item)) => {
                    self.items.push_front((key, item));
                    return Some(place.out.clone());
                }
                Err(mpsc::error::TrySendError::Closed(_)) => self.leave(key),
            }
        }
        None
    }

    /// Does what a handle asks for. Only while a socket is there.
    pub(super) fn take(&mut self, command: Command) {
        match command {
            Command::Open { key, filter, role, out, opened } => {
                self.places.insert(key, Place::new(filter, role, out, opened));
                self.ask(key);
            }
            Command::Begin { key, from, opened } => {
                let begun = self.places.get_mut(&key).is_some_and(|place| place.begin(from));
                match self.places.get_mut(&key) {
                    Some(place) if begun => {
                        place.opened = Some(opened);
                        self.ask(key);
                    }
                    _ => {
                        let words = "the subscription goes on: there is nothing to begin anew";
                        opened.send(Err(Problem::new(ErrorCode::Conflict, words).into())).ok();
                    }
                }
            }
            Command::Call { call, answers } => self.call(call, answers),
            Command::Send { key, data } => {
                let Some(place) = self.places.get(&key) else { return };
                let topic = place.filter.as_str();
                let data = Some(Cow::Borrowed(&*data));
                let text = Frame { data, ..Frame::about("send", topic) }.text(self.reference + 1);
                // at most once, as everything that peers say
                self.say(text, What::Send(key), false);
            }
            Command::Finish => self.finishing = true,
        }
    }

    /// A handle was dropped.
    pub(super) fn left(&mut self, left: Left) {
        match left {
            Left::Place(key) => self.leave(key),
            Left::Job(key, lease) => self.job_ended(key, lease),
        }
    }

    /// Asks once more for what was refused for the moment.
    pub(super) fn ask_again(&mut self) {
        let waiting = |(key, place): (&Key, &Place)| (place.stage == Stage::Waiting).then_some(*key);
        let keys: Vec<Key> = self.places.iter().filter_map(waiting).collect();
        keys.into_iter().for_each(|key| self.ask(key));
    }

    /// Is something to be asked for once more, a little later?
    pub(super) fn is_waiting(&self) -> bool {
        self.online && self.places.values().any(|p| p.stage == Stage::Waiting)
    }

    fn call(&mut self, call: Call, answers: Answers) {
        let reference = self.reference + 1;
        match call {
            Call::Publish { topic, data, id } => {
                let (data, id) = (Some(Cow::Borrowed(&*data)), Some(Cow::Borrowed(&*id)));
                let text = Frame { data, id, ..Frame::about("pub", topic.as_str()) }.text(reference);
                self.say(text, What::Publish(topic, answers), true);
            }
            Call::Push { topic, data, options } => {
                // a living job with the same key is not enqueued twice
                let again = options.as_ref().is_some_and(|o| o.contains_key("key"));
                let (data, options) = (Some(Cow::Borrowed(&*data)), options.as_ref().map(Cow::Borrowed));
                let text = Frame { data, options, ..Frame::about("push", topic.as_str()) }.text(reference);
                self.say(text, What::Call(answers), again);
            }
            Call::Word { key, word } => {
                let text = word.frame().text(reference);
                let (lease, ends) = (word.lease(), word.ends());
                self.say(text, What::Word { key, lease, ends, answers }, true);
            }
        }
    }

    /// Says a frame, which must have the next reference.
    fn say(&mut self, text: String, what: What, again: bool) {
        self.reference += 1;
        let copy = again.then(|| text.clone());
        self.out.push_back(text);
        self.pending.insert(self.reference, Pending { what, again: copy });
    }

    /// Asks for what a place is for.
    fn ask(&mut self, key: Key) {
        let reference = self.reference + 1;
        let Some(place) = self.places.get_mut(&key).filter(|_| self.online) else { return };
        if let Some(text) = place.ask(reference) {
            self.say(text, What::Place(key), false);
        }
    }

    fn leave(&mut self, key: Key) {
        let Some(place) = self.places.remove(&key) else { return };
        self.stale |= self.online && place.is_puller();
        let text = place.goodbye(self.reference + 1).filter(|_| self.online);
        if let Some(text) = text {
            self.say(text, What::Nothing, false);
        }
    }

    fn job_ended(&mut self, key: Key, lease: LeaseToken) {
        if self.places.get_mut(&key).is_some_and(|place| place.job_ended(lease)) {
            self.ask(key);
        }
    }

    /// Acts on what the server says. False: it wants us to go elsewhere.
    pub(super) fn hear(&mut self, heard: Heard) -> bool {
        match heard {
            Heard::Answer(reference, answer) => self.answered(reference, answer),
            Heard::Message { topic, position, payload } => {
                self.alive = true;
                let place = self.places.iter_mut().find(|(_, place)| place.takes(&topic));
                // what was on its way when somebody left belongs to nobody
                let Some((&key, place)) = place else { return true };
                match place.judge(position) {
                    Ok(true) => self.items.push_back((key, Item::Message { topic, position, payload })),
                    Ok(false) => {}
                    Err(error) => self.fail(key, error),
                }
            }
            Heard::Gap { filter, from, to } => self.passed(&filter, to, Item::Gap { from, to }),
            Heard::CaughtUp { filter, offset } => {
                self.passed(&filter, Some(offset), Item::CaughtUp { offset })
            }
            Heard::Job { topic, snapshot, lease, expires, trace } => {
                self.alive = true;
                let place = self
                    .places
                    .iter_mut()
                    .find_map(|(key, p)| p.given(&topic, lease, &snapshot).map(|c| (*key, c)));
                let Some((key, cancelled)) = place else { return true };
                let given = Given { topic, snapshot, lease, expires, trace, cancelled };
                self.items.push_back((key, Item::Job(Box::new(given))));
            }
            Heard::Cancel { job } => self.places.values().for_each(|p| p.cancel(job)),
            Heard::Drain => return false,
            Heard::Nothing => {}
        }
        true
    }

    /// A filter has passed this offset.
    fn passed(&mut self, filter: &str, offset: Option<u64>, item: Item) {
        self.alive = true;
        let place =
            self.places.iter_mut().find(|(_, p)| p.stage == Stage::Open && p.filter.as_str() == filter);
        if let Some((&key, place)) = place {
            place.passed(offset);
            self.items.push_back((key, item));
        }
    }

    fn answered(&mut self, reference: u64, answer: Result<Answered, ClientError>) {
        self.alive |= !answer.as_ref().is_err_and(ClientError::is_passing);
        let Some(Pending { what, again }) = self.pending.remove(&reference) else { return };
        if let (Err(error), Some(text)) = (&answer, &again)
            && matches!(error.code(), Some(ErrorCode::Unavailable | ErrorCode::RateLimited))
        {
            self.refused = Some(error.again());
            self.pending.insert(reference, Pending { what, again: Some(text.clone()) });
            return;
        }
        match what {
            What::Place(key) => match answer {
                Ok(answered) => {
                    if let Some(place) = self.places.get_mut(&key) {
                        place.is_open(answered.position);
                    }
                }
                Err(error) => self.place_refused(key, error),
            },
            // whoever asked may have gone; a message is said all the same
            What::Publish(topic, answers) => {
                if answer.as_ref().is_ok_and(|a| a.position.is_none()) {
                    if self.ephemeral.len() >= EPHEMERAL_COUNT_MAX {
                        self.ephemeral.clear();
                    }
                    self.ephemeral.insert(topic);
                }
                answers.send(answer).ok();
            }
            What::Call(answers) => drop(answers.send(answer)),
            What::Word { key, lease, ends, answers } => {
                if answer.as_ref().is_ok_and(|a| a.cancelled)
                    && let Some(place) = self.places.get(&key)
                {
                    place.cancel_lease(lease);
                }
                let judged = !answer.as_ref().is_err_and(ClientError::is_passing);
                if ends && judged {
                    self.job_ended(key, lease);
                }
                answers.send(answer).ok();
            }
            What::Send(key) => {
                if let Err(error) = answer {
                    self.items.push_back((key, Item::Refused(error)));
                }
            }
            What::Nothing => {}
        }
    }

    fn place_refused(&mut self, key: Key, error: ClientError) {
        let Some(place) = self.places.get_mut(&key) else { return };
        if let Some(opened) = place.opened.take() {
            // nobody has it yet
            if place.is_lost_before() {
                place.stage = Stage::Lost;
            } else {
                self.places.remove(&key);
            }
            opened.send(Err(error)).ok();
            return;
        }
        match error {
            ClientError::Problem(problem)
                if matches!(problem.code, ErrorCode::OffsetExpired | ErrorCode::EpochChanged) =>
            {
                place.stage = Stage::Lost;
                self.items.push_back((key, Item::Lost(problem)));
            }
            error if error.is_passing() => place.stage = Stage::Waiting,
            error => {
                place.stage = Stage::Lost;
                self.items.push_back((key, Item::Failed(error)));
            }
        }
    }

    /// A subscription that cannot go on.
    fn fail(&mut self, key: Key, error: ClientError) {
        let reference = self.reference + 1;
        let Some(place) = self.places.get_mut(&key) else { return };
        let text = place.goodbye(reference);
        place.stage = Stage::Lost;
        if let Some(text) = text {
            self.say(text, What::Nothing, false);
        }
        self.items.push_back((key, Item::Failed(error)));
    }
}

impl What {
    fn fail(self, why: &ClientError) {
        match self {
            What::Publish(_, answers) | What::Call(answers) | What::Word { answers, .. } => {
                answers.send(Err(why.again())).ok();
            }
            What::Place(_) | What::Send(_) | What::Nothing => {}
        }
    }
}

#[cfg(test)]
mod tests;
