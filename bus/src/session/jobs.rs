//! Pullers of durable channels: the jobs that are given to them, and what they say about them.
//!
//! In `minium.v1` every word is a frame of its own ([`super::talk`]). In the other modes a puller says `ack` or
//! `nack` to one job at a time, or says nothing, and a job counts as done when it was written: at most once.

use super::outside::{Answered, Asked, AskedWord, Awaited};
use super::voice::On;
use super::{Phase, Session, Speech, State};
use crate::encode::{self, Encoding};
use crate::hub::Hub;
use crate::inbox::Item;
use crate::lanes::Load;
use crate::message::Message;
use crate::metrics::ByChannel;
use crate::pattern::Pattern;
use crate::ring::SEGMENT_BYTES;
use crate::shard::Shard;
use crate::work::{LeasedJob, Order, Puller, Pulling, Saying, Word};
use minium_protocol::{Answer, ErrorCode, LeaseToken, Problem};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::Instant;

/// Jobs that are written before anybody acknowledged them, where that counts as done.
const WRITTEN_CREDIT: u32 = 64;

/// How a puller acknowledges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// By frames of `minium.v1`, and it says itself how many it can take.
    Frames,
    /// By `{"ack"}` and `{"nack"}`, one job at a time.
    Words,
    /// Not at all: written is done.
    Written,
}

/// A session's part in the queue.
pub(crate) struct Jobs {
    /// Its name in its shard.
    pub(crate) id: u64,
    style: Style,
    source: Arc<str>,
    hub: Arc<Hub>,
    /// How long leases hold, as it was said last.
    lease: Duration,
    places: Vec<Place>,
    /// Not yet encoded. Its bytes, and what is on its way here, are in `load`.
    queue: VecDeque<Waiting>,
    load: Arc<Load>,
    /// What `load` may be.
    bytes_max: usize,
    /// Waited for longer than their leases hold, to be given back.
    late: Vec<(i64, LeaseToken)>,
    /// Stand in `control`, to be acknowledged when they are written.
    going: Vec<Word>,
    /// Were written, to be acknowledged.
    gone: Vec<Word>,
}

/// One order, and who serves it.
struct Place {
    tasks: Vec<minium_protocol::Topic>,
    queue: Option<String>,
    lease: Duration,
    pulling: Box<dyn Pulling>,
}

/// A job whose turn is to come.
struct Waiting {
    job: LeasedJob,
    /// Which of the places it was claimed for.
    place: usize,
    /// At the latest: it was claimed before it came.
    lease_over: Instant,
}

impl Jobs {
    pub(crate) fn new(id: u64, style: Style, sh: &Shard) -> Jobs {
        Jobs {
            id,
            style,
            source: sh.source.clone(),
            hub: sh.hub.clone(),
            lease: Duration::from_secs(30),
            places: Vec::new(),
            queue: VecDeque::new(),
            load: Arc::default(),
            bytes_max: sh.hub.options.puller_bytes_max,
            late: Vec::new(),
            going: Vec::new(),
            gone: Vec::new(),
        }
    }

    /// All tasks whose jobs it takes; one of several orders comes more than once.
    pub(crate) fn tasks(&self) -> impl Iterator<Item = &minium_protocol::Topic> {
        self.places.iter().flat_map(|place| &place.tasks)
    }

    /// How long leases hold.
    pub(super) fn lease(&self) -> Duration {
        self.lease
    }

    /// Does it acknowledge nothing by words?
    pub(super) fn is_silent(&self) -> bool {
        self.style == Style::Written
    }

    /// It can take so many more of these.
    pub(crate) fn pull(&mut self, order: Order, credit: u32, sh: &Shard) -> Result<(), Problem> {
        self.lease = order.lease;
        let same = |p: &&mut Place| p.tasks == order.tasks && p.queue == order.queue;
        if let Some(place) = self.places.iter_mut().find(same) {
            place.pulling.credit(credit);
            return Ok(());
        }
        let max = sh.hub.options.session_pulls_max;
        if self.places.len() >= max {
            let words = format!("one session pulls at most {max} different orders");
            return Err(Problem::new(ErrorCode::InvalidRequest, words));
        }
        let puller = Wire {
            hub: Arc::downgrade(&sh.hub),
            shard: sh.id,
            id: self.id,
            place: self.places.len(),
            load: self.load.clone(),
        };
        let (tasks, queue, lease) = (order.tasks.clone(), order.queue.clone(), order.lease);
        let pulling = sh.hub.outside.work()?.join(order, Arc::new(puller));
        pulling.credit(credit);
        self.places.push(Place { tasks, queue, lease, pulling });
        Ok(())
    }

    /// The first credit in modes that have no word for it.
    pub(crate) fn first_credit(&self) -> u32 {
        if self.style == Style::Words { 1 } else { WRITTEN_CREDIT }
    }

    /// One of its jobs has ended.
    pub(super) fn ended(&self) {
        if let (Style::Words | Style::Written, [place]) = (self.style, &*self.places) {
            place.pulling.credit(1);
        }
    }

    /// Takes out a job that was not encoded yet; there is room for another then.
    fn forget(&mut self, job: i64) -> bool {
        let Some(i) = self.queue.iter().position(|waiting| waiting.job.id == job) else { return false };
        let Some(unseen) = self.queue.remove(i) else { return false };
        self.take_off(unseen.job.bytes());
        self.give_credit_back(unseen.place);
        true
    }

    /// It got a job for one of its places.
    fn take(&mut self, place: usize, job: LeasedJob) {
        let lease = self.places.get(place).map_or(self.lease, |place| place.lease);
        self.queue.push_back(Waiting { job, place, lease_over: Instant::now() + lease });
    }

    /// The next that is still its own. One that waited for longer than its lease holds was given away, or will be: what
    /// its puller said about it would count for nothing.
    fn next(&mut self) -> Option<LeasedJob> {
        let now = Instant::now();
        while let Some(Waiting { job, place, lease_over }) = self.queue.pop_front() {
            self.take_off(job.bytes());
            if now < lease_over {
                return Some(job);
            }
            self.late.push((job.id, job.lease));
            self.give_credit_back(place);
        }
        None
    }

    fn give_credit_back(&self, place: usize) {
        self.places.get(place).inspect(|place| place.pulling.credit(1));
    }

    fn take_off(&self, bytes: usize) {
        if self.load.take_off(bytes, self.bytes_max) {
            self.places.iter().for_each(|place| place.pulling.credit(0));
        }
    }

    /// What nobody has begun in time.
    pub(super) fn take_late(&mut self) -> Vec<(i64, LeaseToken)> {
        std::mem::take(&mut self.late)
    }

    /// What was written, or may have been, and is not acknowledged yet: at most once means that it counts.
    pub(crate) fn take_written(&mut self) -> Vec<Word> {
        let mut written = std::mem::take(&mut self.gone);
        written.append(&mut self.going);
        written
    }

    /// What its session never began to write, when it ends.
    #[expect(clippy::boxed_local, reason = "it comes out of a session's state in its box")]
    pub(crate) fn into_unwritten(self: Box<Self>) -> Vec<(i64, LeaseToken)> {
        let waiting = self.queue.into_iter().map(|waiting| (waiting.job.id, waiting.job.lease));
        self.late.into_iter().chain(waiting).collect()
    }

    /// What stood in `control` is written.
    pub(super) fn written(&mut self) {
        self.gone.append(&mut self.going);
    }

    /// Is there something to acknowledge?
    pub(super) fn has_written(&self) -> bool {
        !self.gone.is_empty()
    }

    /// Is there something to write?
    pub(super) fn has_queued(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Encodes some of what was given to it. Answers how many jobs.
    pub(super) fn fill(&mut self, control: &mut Vec<u8>, encoding: Encoding) -> u64 {
        let (mut jobs, mut counted) = (0, ByChannel::default());
        while control.len() < SEGMENT_BYTES {
            let Some(job) = self.next() else { break };
            jobs += 1;
            counted.add(self.hub.channels.label(Pattern::Push, &job.task));
            match self.style {
                Style::Frames => encode::job(control, &job),
                Style::Words => {
                    let data = String::from_utf8_lossy(&job.args);
                    let text = format!(r#"{{"job":{},"lease":"{}","data":{data}}}"#, job.id, job.lease);
                    let message = Message::Json(text.into());
                    encode::ephemeral(control, encoding, &self.source, job.task.as_str(), &message);
                }
                Style::Written => {
                    let message = Message::Json(job.args.clone());
                    encode::ephemeral(control, encoding, &self.source, job.task.as_str(), &message);
                    let saying = Saying::Ack { result: None };
                    self.going.push(Word { job: job.id, lease: job.lease, saying });
                }
            }
        }
        counted.count(crate::metrics::delivered);
        jobs
    }
}

/// A puller as the queue knows it: its jobs go to the shard's inbox.
#[derive(Debug)]
struct Wire {
    hub: Weak<Hub>,
    shard: usize,
    id: u64,
    /// Which of its session's places.
    place: usize,
    /// Of all its session's places.
    load: Arc<Load>,
}

impl Puller for Wire {
    fn take(&self, job: LeasedJob) -> Result<(), Box<LeasedJob>> {
        let Some(hub) = self.hub.upgrade() else { return Err(Box::new(job)) };
        self.load.put_on(job.bytes());
        match hub.inboxes[self.shard].put(Item::Job(self.id, self.place, Box::new(job))) {
            Ok(()) => Ok(()),
            Err(Item::Job(_, _, job)) => Err(job),
            Err(_) => Ok(()), // it was this very item
        }
    }

    fn room(&self) -> usize {
        self.hub.upgrade().map_or(0, |hub| self.load.room(hub.options.puller_bytes_max))
    }

    fn cancelled(&self, job: i64) {
        if let Some(hub) = self.hub.upgrade() {
            // a shard that has ended has no sessions to tell
            drop(hub.inboxes[self.shard].put(Item::Cancelled(self.id, job)));
        }
    }
}

/// How a puller acknowledges that does not speak `minium.v1`: `{"ack":JOB,"lease":…}` or `{"nack":JOB,"lease":…}`.
#[derive(Debug)]
pub(crate) struct Acks {
    /// Nothing is acknowledged by words: what the client says is ignored.
    deaf: bool,
    said: Vec<Word>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wired {
    ack: Option<i64>,
    nack: Option<i64>,
    lease: LeaseToken,
    result: Option<Box<RawValue>>,
    error: Option<String>,
    retry: Option<bool>,
}

impl Acks {
    /// For a puller that acknowledges, or does not.
    pub(crate) fn new(acks: bool) -> Acks {
        Acks { deaf: !acks, said: Vec::new() }
    }

    /// Reads one.
    pub(super) fn take(&mut self, text: &[u8]) -> Result<(), String> {
        if self.deaf {
            return Ok(());
        }
        let said: Wired = serde_json::from_slice(text).map_err(|e| e.to_string())?;
        let (job, saying) = match (said.ack, said.nack) {
            (Some(job), None) if said.error.is_none() => (job, Saying::Ack { result: said.result }),
            (None, Some(job)) if said.result.is_none() => {
                let error = said.error.ok_or("error is missing")?;
                (job, Saying::Nack { error, retry: said.retry.unwrap_or(true) })
            }
            _ => return Err("say ack with a result, or nack with an error".into()),
        };
        self.said.push(Word { job, lease: said.lease, saying });
        Ok(())
    }
}

impl Session {
    /// A job for one of its places. Answers it when it takes none any more.
    pub(crate) fn give(&self, place: usize, job: LeasedJob) -> Option<LeasedJob> {
        let mut st = self.state.borrow_mut();
        let open = st.phase == Phase::Open;
        match &mut st.jobs {
            Some(jobs) if open => {
                jobs.take(place, job);
                st.wake();
                None
            }
            _ => Some(job),
        }
    }

    /// A job that it has was cancelled.
    pub(crate) fn cancelled(&self, job: i64) {
        if self.state.borrow_mut().jobs.as_mut().is_some_and(|jobs| jobs.forget(job)) {
            return; // it never heard of it
        }
        self.tell(&Answer::Cancel { job });
    }

    /// Passes on what was acknowledged, by a word or by having been written.
    pub(super) fn ack_on(self: &Rc<Self>, sh: &Shard) -> On {
        let words = {
            let mut st = self.state.borrow_mut();
            let State { voice: Some(voice), jobs: Some(jobs), .. } = &mut *st else { return On::Idle };
            let Speech::Acks(acks) = &mut voice.speech else { return On::Idle };
            let mut words = std::mem::take(&mut acks.said);
            words.append(&mut jobs.gone);
            words
        };
        if words.is_empty() {
            return On::Idle;
        }
        self.say(words.into_iter().map(|word| (None, word)).collect(), sh);
        On::Again
    }

    /// Passes words about jobs on.
    pub(super) fn say(&self, words: Vec<(super::voice::Reference, Word)>, sh: &Shard) {
        let ends = |s: &Saying| matches!(s, Saying::Ack { .. } | Saying::Nack { .. });
        let (asked, words): (Vec<_>, Vec<_>) = words
            .into_iter()
            .map(|(reference, word)| (AskedWord { reference, job: word.job, ends: ends(&word.saying) }, word))
            .unzip();
        let outside = sh.hub.clone();
        let silent = self.state.borrow().jobs.as_ref().is_some_and(|jobs| jobs.is_silent());
        // who says nothing by itself cannot say it again
        let said = async move {
            if silent {
                outside.outside.say_until_judged(words).await
            } else {
                outside.outside.say(words).await
            }
        };
        let task = sh.hub.outside.spawn(async move { Answered::Said(said.await) });
        self.await_outside(Awaited::new(task, Asked::Words(asked)));
    }
}
