//! Work: jobs under a lease from durable channels, bare messages from others.

use super::desk::{Call, Given, Item, Key, Left};
use super::frames::Answered;
use super::line::Handle;
use super::{Received, Seat, call};
use crate::error::ClientError;
use futures::Stream;
use jiff::Timestamp;
use minium_protocol::{FrameMembers as Frame, Job, LeaseToken, LogLine, Progress, Topic, TraceContext};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// What to pull.
#[derive(Debug, Clone)]
pub struct PullOptions {
    /// Further channels, durable ones as the first.
    pub tasks: Vec<Topic>,
    /// The queue; nothing means the usual one.
    pub queue: Option<String>,
    /// So many jobs at once, in hand and on their way.
    pub credit: u32,
}

impl Default for PullOptions {
    fn default() -> PullOptions {
        PullOptions { tasks: Vec::new(), queue: None, credit: 1 }
    }
}

/// A stream of work. Dropped, it takes no more; jobs that are in hand stay so, and can be told of.
#[derive(Debug)]
pub struct Puller {
    pub(super) items: mpsc::Receiver<Item>,
    pub(super) seat: Seat,
    pub(super) told: bool,
}

/// What a puller gets.
#[derive(Debug)]
#[non_exhaustive]
pub enum Work {
    /// A job of a durable channel: it wants a word when it has ended.
    Job(Box<LeasedJob>),
    /// A message of another channel: taken is done.
    Message(Received),
    /// The connection was cut, and messages that were on their way are lost.
    Gap,
}

/// A job that is ours while its lease holds. Dropped without a word it is given to somebody else when its lease has
/// expired.
#[derive(Debug)]
pub struct LeasedJob {
    /// The job, as it was when it was given.
    pub job: Job,
    /// The same as JSON text.
    pub snapshot: Box<RawValue>,
    /// The channel.
    pub topic: Topic,
    /// Until when the lease holds, unless it is extended.
    pub lease_expires: Option<Timestamp>,
    /// W3C trace context of who enqueued it.
    pub trace: Option<TraceContext>,
    lease: LeaseToken,
    cancelled: CancellationToken,
    line: Arc<Handle>,
    key: Key,
    ended: bool,
}

impl Puller {
    fn work(&self, given: Given) -> Result<Work, ClientError> {
        let Given { topic, snapshot, lease, expires, trace, cancelled } = given;
        let fault =
            |e: serde_json::Error| ClientError::Answer { what: "a job".into(), reason: e.to_string() };
        let job = serde_json::from_str(snapshot.get()).map_err(fault)?;
        let (line, key) = (self.seat.line.clone(), self.seat.key);
        let leased = LeasedJob {
            job,
            snapshot,
            topic,
            lease_expires: expires,
            trace,
            lease,
            cancelled,
            line,
            key,
            ended: false,
        };
        Ok(Work::Job(Box::new(leased)))
    }
}

impl Stream for Puller {
    type Item = Result<Work, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let work = match std::task::ready!(self.items.poll_recv(cx)) {
                None => {
                    return Poll::Ready(
                        self.seat.last_word().filter(|_| !std::mem::replace(&mut self.told, true)).map(Err),
                    );
                }
                Some(Item::Job(given)) => self.work(*given),
                Some(Item::Message { topic, position, payload }) => {
                    Ok(Work::Message(Received { topic, position, payload }))
                }
                Some(Item::Gap { .. }) => Ok(Work::Gap),
                Some(Item::Refused(error) | Item::Failed(error)) => Err(error),
                Some(Item::CaughtUp { .. } | Item::Lost(_)) => continue,
            };
            return Poll::Ready(Some(work));
        }
    }
}

impl LeasedJob {
    /// It ended well. The same word again is harmless, so it is said again when the connection is cut.
    ///
    /// # Errors
    /// The server's problem: `lease_lost` when somebody else has the job.
    pub async fn ack(mut self, result: Option<Box<RawValue>>) -> Result<(), ClientError> {
        self.ended = true;
        self.say(Word::Ack { job: self.job.id, lease: self.lease, result }).await.map(drop)
    }

    /// It ended badly. With `retry` it may be tried again while attempts are left.
    ///
    /// # Errors
    /// As [`LeasedJob::ack`].
    pub async fn nack(mut self, error: impl Into<String>, retry: bool) -> Result<(), ClientError> {
        self.ended = true;
        self.say(Word::Nack { job: self.job.id, lease: self.lease, error: error.into(), retry })
            .await
            .map(drop)
    }

    /// Merges notes into it and tells how far it has come; extends the lease, too. True: it was cancelled.
    ///
    /// # Errors
    /// As [`LeasedJob::ack`].
    pub async fn note(
        &mut self,
        notes: serde_json::Map<String, serde_json::Value>,
        progress: Option<Progress>,
    ) -> Result<bool, ClientError> {
        let (job, lease, log) = (self.job.id, self.lease, Vec::new());
        self.go_on(Word::Note { job, lease, notes, progress, log }).await
    }

    /// Adds lines to its log; extends the lease, too. True: it was cancelled.
    ///
    /// # Errors
    /// As [`LeasedJob::ack`].
    pub async fn log(&mut self, log: Vec<LogLine>) -> Result<bool, ClientError> {
        let (job, lease, notes) = (self.job.id, self.lease, serde_json::Map::new());
        self.go_on(Word::Note { job, lease, notes, progress: None, log }).await
    }

    /// Extends the lease. True: it was cancelled.
    ///
    /// # Errors
    /// As [`LeasedJob::ack`].
    pub async fn extend(&mut self) -> Result<bool, ClientError> {
        self.go_on(Word::Extend { job: self.job.id, lease: self.lease }).await
    }

    /// Ready when the job was cancelled: stop working on it. After a cut the next word about it finds out.
    pub fn cancelled(&self) -> WaitForCancellationFutureOwned {
        self.cancelled.clone().cancelled_owned()
    }

    /// Was it cancelled, as far as is known?
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.is_cancelled()
    }

    /// Fences every word about this run.
    pub fn lease(&self) -> LeaseToken {
        self.lease
    }

    async fn go_on(&mut self, word: Word) -> Result<bool, ClientError> {
        let answered = self.say(word).await?;
        self.lease_expires = answered.lease_expires.or(self.lease_expires);
        Ok(answered.cancelled)
    }

    async fn say(&self, word: Word) -> Result<Answered, ClientError> {
        call(&self.line, Call::Word { key: self.key, word }).await?.await
    }
}

impl Drop for LeasedJob {
    fn drop(&mut self) {
        if !self.ended {
            self.line.leave(Left::Job(self.key, self.lease));
        }
    }
}

/// What is said about a job.
#[derive(Debug)]
pub(super) enum Word {
    Ack {
        job: i64,
        lease: LeaseToken,
        result: Option<Box<RawValue>>,
    },
    Nack {
        job: i64,
        lease: LeaseToken,
        error: String,
        retry: bool,
    },
    Note {
        job: i64,
        lease: LeaseToken,
        notes: serde_json::Map<String, serde_json::Value>,
        progress: Option<Progress>,
        log: Vec<LogLine>,
    },
    Extend {
        job: i64,
        lease: LeaseToken,
    },
}

impl Word {
    pub(super) fn lease(&self) -> LeaseToken {
        match self {
            Word::Ack { lease, .. }
            | Word::Nack { lease, .. }
            | Word::Note { lease, .. }
            | Word::Extend { lease, .. } => *lease,
        }
    }

    /// Is it the last one?
    pub(super) fn ends(&self) -> bool {
        matches!(self, Word::Ack { .. } | Word::Nack { .. })
    }

    pub(super) fn frame(&self) -> Frame<'_> {
        let about = |op, job: &i64| Frame { job: Some(*job), lease: Some(self.lease()), ..Frame::new(op) };
        match self {
            Word::Ack { job, result, .. } => {
                Frame { result: result.as_deref().map(Cow::Borrowed), ..about("ack", job) }
            }
            Word::Nack { job, error, retry, .. } => {
                Frame { error: Some(error.into()), retry: Some(*retry), ..about("nack", job) }
            }
            Word::Note { job, notes, progress, log, .. } => {
                let (notes, progress) = (Some(Cow::Borrowed(notes)), progress.as_ref().map(Cow::Borrowed));
                // not said in vain: a node of before has no word for it
                let log = Some(Cow::Borrowed(&log[..])).filter(|log| !log.is_empty());
                Frame { notes, progress, log, ..about("note", job) }
            }
            Word::Extend { job, .. } => about("extend", job),
        }
    }
}
