//! `minium.v1`: the frames that clients send, and the server's answers to them.
//!
//! A frame is one JSON object in a text frame; `op` says what it asks for. What a client may leave out (`topic` on a
//! path that names one) is still missing here: whoever reads it knows the path. What goes to many (`msg`) is written
//! by the broker, byte for byte the same for all; here is what goes to one.

#![allow(
    clippy::result_large_err,
    reason = "a problem is made when something is refused, not on the way of what passes"
)]

use crate::job::{LeaseToken, Progress};
use crate::log::{LogLine, check_log};
use crate::position::{After, Position};
use crate::problem::{ErrorCode, Problem};
use crate::request::{EnqueueRequest, JobOptions, check_queue};
use crate::topic::{Filter, Topic};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;

mod members;

pub use members::FrameMembers;

/// The longest `ref`: it is given back with the answer.
pub const REF_BYTES_MAX: usize = 128;
/// The longest `id` of a message, `key` of a job and `Idempotency-Key`, which is one of them.
pub const ID_BYTES_MAX: usize = 255;
/// The most further tasks in one `pull`.
pub const TASKS_MAX: usize = 64;
/// The most credit at once.
pub const CREDIT_MAX: u32 = 10_000;

/// What a client sent, understood.
#[derive(Debug, Clone)]
pub struct ClientFrame {
    /// Repeated by the answer.
    pub reference: Option<Box<str>>,
    /// What it asks for.
    pub op: ClientOp,
}

/// What a frame asks for.
#[derive(Debug, Clone)]
pub enum ClientOp {
    /// Subscribe.
    Sub {
        /// To what this matches; the path's when it is left out.
        filter: Option<Filter>,
        /// From where on.
        after: After,
    },
    /// No longer.
    Unsub {
        /// The filter that was subscribed.
        filter: Option<Filter>,
    },
    /// Publish.
    Pub {
        /// Where.
        topic: Option<Topic>,
        /// The message.
        data: Box<RawValue>,
        /// Makes a retry harmless.
        id: Option<Box<str>>,
    },
    /// Hand out work.
    Push {
        /// Where.
        topic: Option<Topic>,
        /// The message, or the job's arguments.
        data: Box<RawValue>,
        /// How a job is enqueued.
        options: Option<Box<JobOptions>>,
    },
    /// Take work.
    Pull {
        /// The channel.
        topic: Option<Topic>,
        /// So many more.
        credit: u32,
        /// The queue.
        queue: Option<Box<str>>,
        /// Further channels.
        tasks: Vec<Topic>,
    },
    /// A job ended well.
    Ack {
        /// Which.
        job: i64,
        /// Under which lease.
        lease: LeaseToken,
        /// What it brought.
        result: Option<Box<RawValue>>,
    },
    /// A job ended badly.
    Nack {
        /// Which.
        job: i64,
        /// Under which lease.
        lease: LeaseToken,
        /// Why.
        error: String,
        /// May it be tried again by itself?
        retry: bool,
    },
    /// Notes for a running job.
    Note {
        /// Which.
        job: i64,
        /// Under which lease.
        lease: LeaseToken,
        /// Merged into its notes.
        notes: serde_json::Map<String, serde_json::Value>,
        /// How far it has come.
        progress: Option<Progress>,
        /// Lines for its log.
        log: Vec<LogLine>,
    },
    /// More time for a running job.
    Extend {
        /// Which.
        job: i64,
        /// Under which lease.
        lease: LeaseToken,
    },
    /// Be a peer.
    Bus {
        /// Of this topic.
        topic: Option<Topic>,
    },
    /// To the other peers.
    Send {
        /// Of this topic.
        topic: Option<Topic>,
        /// The message.
        data: Box<RawValue>,
    },
    /// Is anybody there?
    Ping,
}

/// The words of `op`, in the order of the enum.
pub const CLIENT_OPS: [&str; 12] =
    ["sub", "unsub", "pub", "push", "pull", "ack", "nack", "note", "extend", "bus", "send", "ping"];

/// A frame that is refused.
#[derive(Debug, Clone)]
pub enum FrameError {
    /// Not a JSON object at all: whoever sent it does not speak this language.
    Bad(String),
    /// It is understood so far that it can be answered.
    Refused {
        /// The frame's `ref`, if it could be read.
        reference: Option<Box<str>>,
        /// What is wrong.
        problem: Problem,
    },
}

/// Reads a client's frame.
///
/// # Errors
/// [`FrameError::Bad`] when it is no JSON object; else a problem that says which member is wrong.
pub fn read_client_frame(text: &str) -> Result<ClientFrame, FrameError> {
    let members: FrameMembers<'_> = serde_json::from_str(text).map_err(|e| unreadable(text, &e))?;
    let reference = members.reference.as_deref().map(Box::from);
    members.op().map(|op| ClientFrame { reference: reference.clone(), op }).map_err(|problem| {
        // a `ref` that is too long is not given back
        let reference = reference.filter(|r| r.len() <= REF_BYTES_MAX);
        FrameError::Refused { reference, problem }
    })
}

/// Finds out how much of it can be answered.
fn unreadable(text: &str, error: &serde_json::Error) -> FrameError {
    #[derive(Deserialize)]
    struct Any {
        #[serde(rename = "ref")]
        reference: Option<serde_json::Value>,
    }
    let words = error.to_string();
    match serde_json::from_str::<Any>(text) {
        Ok(any) if text.trim_start().starts_with('{') => {
            let reference = any.reference.as_ref().and_then(|r| r.as_str());
            let reference = reference.filter(|r| r.len() <= REF_BYTES_MAX).map(Box::from);
            FrameError::Refused { reference, problem: invalid(words) }
        }
        Ok(_) => FrameError::Bad("a frame is a JSON object with a member op".into()),
        Err(_) => FrameError::Bad(words),
    }
}

fn invalid(words: impl Into<String>) -> Problem {
    Problem::new(ErrorCode::InvalidRequest, words)
}

impl FrameMembers<'_> {
    /// A member that means nothing here is refused: it was meant to mean something.
    fn only(&self, allowed: &[&str]) -> Result<(), Problem> {
        match self.present().find(|name| !allowed.contains(name)) {
            Some(name) => Err(invalid(format!("{name} means nothing with op {}", self.op))),
            None => Ok(()),
        }
    }

    fn op(self) -> Result<ClientOp, Problem> {
        if self.reference.as_ref().is_some_and(|r| r.len() > REF_BYTES_MAX) {
            return Err(invalid(format!("ref may have {REF_BYTES_MAX} bytes")));
        }
        match &*self.op {
            "sub" => {
                self.only(&["topic", "after", "last"])?;
                Ok(ClientOp::Sub { filter: self.filter()?, after: self.after()? })
            }
            "unsub" => {
                self.only(&["topic"])?;
                Ok(ClientOp::Unsub { filter: self.filter()? })
            }
            "pub" => {
                self.only(&["topic", "data", "id"])?;
                Ok(ClientOp::Pub { topic: self.topic()?, id: self.id()?, data: self.data()? })
            }
            "push" => {
                self.only(&["topic", "data", "options"])?;
                Ok(ClientOp::Push { topic: self.topic()?, options: self.options()?, data: self.data()? })
            }
            "pull" => self.pull(),
            "ack" | "nack" | "note" | "extend" => self.word(),
            "bus" => {
                self.only(&["topic"])?;
                Ok(ClientOp::Bus { topic: self.topic()? })
            }
            "send" => {
                self.only(&["topic", "data"])?;
                Ok(ClientOp::Send { topic: self.topic()?, data: self.data()? })
            }
            "ping" => {
                self.only(&[])?;
                Ok(ClientOp::Ping)
            }
            other => {
                let other: String = other.chars().take(40).collect();
                Err(invalid(format!("there is no op {other:?}; there are {}", CLIENT_OPS.join(", "))))
            }
        }
    }

    fn pull(self) -> Result<ClientOp, Problem> {
        self.only(&["topic", "credit", "queue", "tasks"])?;
        let credit = self.credit.unwrap_or(1);
        if credit == 0 || credit > CREDIT_MAX {
            return Err(invalid(format!("credit is 1 to {CREDIT_MAX}")));
        }
        let tasks = self.tasks.as_deref().unwrap_or_default();
        if tasks.len() > TASKS_MAX {
            return Err(invalid(format!("tasks names at most {TASKS_MAX} channels")));
        }
        let tasks: Result<Vec<Topic>, _> = tasks.iter().map(|t| t.parse()).collect();
        let tasks = tasks.map_err(|e| Problem::new(ErrorCode::TopicInvalid, format!("tasks: {e}")))?;
        self.queue.as_deref().map_or(Ok(()), check_queue).map_err(invalid)?;
        let queue = self.queue.as_deref().map(Box::from);
        Ok(ClientOp::Pull { topic: self.topic()?, credit, queue, tasks })
    }

    fn word(self) -> Result<ClientOp, Problem> {
        let own: &[&str] = match &*self.op {
            "ack" => &["job", "lease", "result"],
            "nack" => &["job", "lease", "error", "retry"],
            "note" => &["job", "lease", "notes", "progress", "log"],
            _ => &["job", "lease"],
        };
        self.only(own)?;
        let job = self.job.ok_or_else(|| invalid("job is missing"))?;
        let lease = self.lease.ok_or_else(|| invalid("lease is missing"))?;
        Ok(match &*self.op {
            "ack" => ClientOp::Ack { job, lease, result: self.result.map(Cow::into_owned) },
            "nack" => {
                let error = self.error.ok_or_else(|| invalid("error is missing"))?.into_owned();
                ClientOp::Nack { job, lease, error, retry: self.retry.unwrap_or(true) }
            }
            "note" => {
                if self.notes.is_none() && self.progress.is_none() && self.log.is_none() {
                    return Err(invalid("note needs notes, progress or log"));
                }
                self.progress.as_deref().map_or(Ok(()), Progress::check).map_err(invalid)?;
                let notes = self.notes.map(Cow::into_owned).unwrap_or_default();
                let log = self.log.map(Cow::into_owned).unwrap_or_default();
                check_log(&log).map_err(invalid)?;
                ClientOp::Note { job, lease, notes, progress: self.progress.map(Cow::into_owned), log }
            }
            _ => ClientOp::Extend { job, lease },
        })
    }

    fn filter(&self) -> Result<Option<Filter>, Problem> {
        let read = |t: &str| t.parse().map_err(|e| Problem::new(ErrorCode::TopicInvalid, format!("{e}")));
        self.topic.as_deref().map(read).transpose()
    }

    fn topic(&self) -> Result<Option<Topic>, Problem> {
        let read = |t: &str| t.parse().map_err(|e| Problem::new(ErrorCode::TopicInvalid, format!("{e}")));
        self.topic.as_deref().map(read).transpose()
    }

    fn after(&self) -> Result<After, Problem> {
        let Some(raw) = &self.after else { return Ok(self.last.map_or(After::Latest, After::Last)) };
        if self.last.is_some() {
            return Err(invalid("after and last exclude each other"));
        }
        // a bare offset may be a number, too
        let text: Cow<'_, str> = match raw.get().starts_with('"') {
            true => serde_json::from_str(raw.get()).map_err(|e| invalid(format!("after: {e}")))?,
            false => raw.get().into(),
        };
        text.parse().map_err(|e| invalid(format!("after: {e}")))
    }

    fn id(&self) -> Result<Option<Box<str>>, Problem> {
        match self.id.as_deref() {
            Some(id) if id.is_empty() || id.len() > ID_BYTES_MAX => {
                Err(invalid(format!("id has 1 to {ID_BYTES_MAX} bytes")))
            }
            id => Ok(id.map(Box::from)),
        }
    }

    fn data(self) -> Result<Box<RawValue>, Problem> {
        self.data.map(Cow::into_owned).ok_or_else(|| invalid("data is missing"))
    }

    /// By the same rules as the enqueue of the API, whose words about mistakes are good.
    fn options(&self) -> Result<Option<Box<JobOptions>>, Problem> {
        let Some(options) = &self.options else { return Ok(None) };
        let mut flat = options.clone().into_owned();
        for taken in ["task", "args"] {
            if flat.contains_key(taken) {
                return Err(invalid(format!("options: {taken} is said by topic and data")));
            }
        }
        if flat.contains_key("after") {
            // by its place in a request: there is none, and pushes of many travel as one
            return Err(invalid(
                "options: after names jobs of the same request, and each push is one of its own",
            ));
        }
        flat.insert("task".into(), "x".into());
        let text = serde_json::Value::Object(flat).to_string();
        let request: EnqueueRequest =
            serde_json::from_str(&text).map_err(|e| invalid(format!("options: {e}")))?;
        request.check().map_err(|why| invalid(format!("options: {why}")))?;
        Ok(Some(Box::new(request.options)))
    }
}

/// An answer to one frame of one client.
#[derive(Debug, Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Answer<'a> {
    /// Done.
    Ok {
        /// The frame's `ref`.
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<&'a str>,
        /// Of the position below.
        #[serde(skip_serializing_if = "Option::is_none")]
        epoch: Option<u64>,
        /// Of `sub`: delivery is certain behind it. Of `pub`: where the message stands.
        #[serde(skip_serializing_if = "Option::is_none")]
        offset: Option<u64>,
        /// Of `push`: the job.
        #[serde(skip_serializing_if = "Option::is_none")]
        job: Option<i64>,
        /// Of `note` and `extend`: until when the lease holds.
        #[serde(skip_serializing_if = "Option::is_none")]
        lease_expires: Option<String>,
    },
    /// Refused.
    Error {
        /// The frame's `ref`.
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<&'a str>,
        /// Why.
        problem: &'a Problem,
    },
    /// The job was cancelled: stop working on it.
    Cancelled {
        /// The frame's `ref`.
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<&'a str>,
        /// The job.
        job: i64,
    },
    /// The answer to `ping`.
    Pong {
        /// The frame's `ref`.
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<&'a str>,
    },
    /// Replay has joined live.
    CaughtUp {
        /// The filter that was subscribed.
        topic: &'a str,
        /// Everything up to here was delivered.
        offset: u64,
    },
    /// Messages were missed.
    Gap {
        /// The filter that was subscribed.
        topic: &'a str,
        /// The first offset that may have been missed; nothing where there are no offsets.
        #[serde(skip_serializing_if = "Option::is_none")]
        from: Option<u64>,
        /// The last one.
        #[serde(skip_serializing_if = "Option::is_none")]
        to: Option<u64>,
    },
    /// Stop working on this job.
    Cancel {
        /// The job.
        job: i64,
    },
    /// The node goes down: reconnect elsewhere.
    Drain,
}

impl<'a> Answer<'a> {
    /// `ok` with nothing but the `ref`.
    pub fn ok(reference: Option<&'a str>) -> Answer<'a> {
        Answer::Ok { reference, epoch: None, offset: None, job: None, lease_expires: None }
    }

    /// `ok` with a position.
    pub fn at(reference: Option<&'a str>, position: Position) -> Answer<'a> {
        let (epoch, offset) = (Some(position.epoch), Some(position.offset));
        Answer::Ok { reference, epoch, offset, job: None, lease_expires: None }
    }

    /// As it goes over the wire.
    pub fn text(&self) -> String {
        serde_json::to_string(self).expect("it is plain JSON")
    }
}

#[cfg(test)]
mod tests;
