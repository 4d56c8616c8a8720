//! The frames of `minium.v1` as a client reads them; what it writes is the protocol's [`FrameMembers`]. What is not known here is
//! ignored: a newer server may say more.
//!
//! [`FrameMembers`]: minium_protocol::FrameMembers

use super::payload::Payload;
use crate::error::ClientError;
use crate::message::excerpt;
use jiff::Timestamp;
use minium_protocol::{LeaseToken, Position, Problem, Topic, TraceContext};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// What a server says.
#[derive(Debug)]
pub(super) enum Heard {
    /// The answer to the frame with this `ref`.
    Answer(u64, Result<Answered, ClientError>),
    /// A message.
    Message { topic: Topic, position: Option<Position>, payload: Payload },
    /// Messages of this filter were missed.
    Gap { filter: String, from: Option<u64>, to: Option<u64> },
    /// Everything of this filter up to there was delivered.
    CaughtUp { filter: String, offset: u64 },
    /// Work, under a lease.
    Job {
        topic: Topic,
        snapshot: Box<RawValue>,
        lease: LeaseToken,
        expires: Option<Timestamp>,
        trace: Option<TraceContext>,
    },
    /// Stop working on this.
    Cancel { job: i64 },
    /// The node goes down.
    Drain,
    /// Nothing that concerns us.
    Nothing,
}

/// An answer that is no refusal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Answered {
    pub(super) position: Option<Position>,
    pub(super) job: Option<i64>,
    pub(super) lease_expires: Option<Timestamp>,
    pub(super) cancelled: bool,
}

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow)]
    op: Cow<'a, str>,
    #[serde(borrow, rename = "ref")]
    reference: Option<Cow<'a, str>>,
    #[serde(borrow)]
    topic: Option<Cow<'a, str>>,
    epoch: Option<u64>,
    offset: Option<u64>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    data_base64: Option<Cow<'a, str>>,
    #[serde(borrow)]
    job: Option<&'a RawValue>,
    lease: Option<LeaseToken>,
    lease_expires: Option<Timestamp>,
    #[serde(borrow)]
    traceparent: Option<Cow<'a, str>>,
    #[serde(borrow)]
    tracestate: Option<Cow<'a, str>>,
    #[serde(borrow)]
    problem: Option<&'a RawValue>,
    from: Option<u64>,
    to: Option<u64>,
}

/// Reads a server's frame.
///
/// # Errors
/// [`ClientError::Answer`] for what is no frame.
pub(super) fn read(text: &str) -> Result<Heard, ClientError> {
    let fault = |reason: String| ClientError::Answer { what: "a frame".into(), reason };
    let wire: Wire<'_> = serde_json::from_str(text).map_err(|e| fault(e.to_string()))?;
    let missing = |name: &str| fault(format!("{} without {name}: {}", wire.op, excerpt(text)));
    let topic = || {
        let topic = wire.topic.as_deref().ok_or_else(|| missing("topic"))?;
        topic.parse().map_err(|e| fault(format!("{e}")))
    };
    let filter = || wire.topic.as_deref().map(str::to_owned).ok_or_else(|| missing("topic"));
    let job = || {
        let number = wire.job.and_then(|j| j.get().parse().ok());
        number.ok_or_else(|| missing("the number of a job"))
    };
    let position = wire.epoch.zip(wire.offset).map(|(epoch, offset)| Position { epoch, offset });
    Ok(match &*wire.op {
        "msg" => {
            let payload = Payload::read(wire.data, wire.data_base64.as_deref()).map_err(fault)?;
            Heard::Message { topic: topic()?, position, payload }
        }
        "ok" | "pong" | "cancelled" => {
            let job = wire.job.and_then(|j| j.get().parse().ok());
            let cancelled = wire.op == "cancelled";
            answer(&wire, Ok(Answered { position, job, lease_expires: wire.lease_expires, cancelled }))
        }
        "error" => answer(&wire, Err(refused(wire.problem))),
        "gap" => Heard::Gap { filter: filter()?, from: wire.from, to: wire.to },
        "caught_up" => {
            let offset = wire.offset.ok_or_else(|| missing("offset"))?;
            Heard::CaughtUp { filter: filter()?, offset }
        }
        "job" => Heard::Job {
            topic: topic()?,
            snapshot: wire.job.ok_or_else(|| missing("job"))?.to_owned(),
            lease: wire.lease.ok_or_else(|| missing("lease"))?,
            expires: wire.lease_expires,
            trace: wire
                .traceparent
                .as_deref()
                .and_then(|parent| TraceContext::new(parent, wire.tracestate.as_deref())),
        },
        "cancel" => Heard::Cancel { job: job()? },
        "drain" => Heard::Drain,
        _ => Heard::Nothing,
    })
}

fn answer(wire: &Wire<'_>, answered: Result<Answered, ClientError>) -> Heard {
    // all our frames have a ref that is a number: another one answers nothing of ours
    match wire.reference.as_deref().and_then(|r| r.parse().ok()) {
        Some(reference) => Heard::Answer(reference, answered),
        None => Heard::Nothing,
    }
}

/// A problem, whose code may be newer than we are.
fn refused(problem: Option<&RawValue>) -> ClientError {
    let text = problem.map_or("{}", RawValue::get);
    match serde_json::from_str::<Problem>(text) {
        Ok(problem) => problem.into(),
        Err(_) => {
            let known: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
            let status = known["status"].as_u64().and_then(|s| s.try_into().ok()).unwrap_or(500);
            ClientError::Status { status, text: excerpt(known["detail"].as_str().unwrap_or(text)) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use minium_protocol::{After, Answer, ClientOp, ErrorCode, FrameMembers as Frame, read_client_frame};

    #[test]
    fn what_we_write_is_what_a_server_reads() {
        let text = Frame::sub("a/+", After::Position(Position { epoch: 1, offset: 2 })).text(7);
        let frame = read_client_frame(&text).unwrap();
        assert_eq!(frame.reference.as_deref(), Some("7"));
        let ClientOp::Sub { filter, after } = frame.op else { panic!("{text}") };
        assert_eq!((filter.unwrap().as_str(), after.to_owned()), ("a/+", "1:2".parse().unwrap()));
        for (from, after) in [
            (After::Latest, After::Latest),
            (After::Earliest, After::Earliest),
            (After::Offset(3), After::Offset(3)),
            (After::Last(0), After::Last(0)),
        ] {
            let frame = read_client_frame(&Frame::sub("a", from).text(1)).unwrap();
            assert!(matches!(frame.op, ClientOp::Sub { after: read, .. } if read == after), "{from:?}");
        }
        let data = RawValue::from_string("[1]".into()).unwrap();
        let (data, id) = (Some(Cow::Owned(data)), Some("x".into()));
        let text = Frame { data, id, ..Frame::about("pub", "a") }.text(8);
        assert!(matches!(read_client_frame(&text).unwrap().op, ClientOp::Pub { id: Some(_), .. }), "{text}");
    }

    #[test]
    fn what_a_server_writes_is_what_we_read() {
        let at = Position { epoch: 2, offset: 9 };
        let heard = read(&Answer::at(Some("4"), at).text()).unwrap();
        assert!(matches!(heard, Heard::Answer(4, Ok(a)) if a.position == Some(at)), "{heard:?}");
        let problem = Problem::new(ErrorCode::LeaseLost, "late");
        let heard = read(&Answer::Error { reference: Some("5"), problem: &problem }.text()).unwrap();
        let Heard::Answer(5, Err(error)) = heard else { panic!("{heard:?}") };
        assert_eq!(error.code(), Some(ErrorCode::LeaseLost));
        let heard = read(&Answer::Cancelled { reference: Some("6"), job: 3 }.text()).unwrap();
        assert!(matches!(heard, Heard::Answer(6, Ok(a)) if a.cancelled && a.job == Some(3)), "{heard:?}");
        let heard = read(&Answer::CaughtUp { topic: "a/+", offset: 12 }.text()).unwrap();
        assert!(matches!(heard, Heard::CaughtUp { offset: 12, .. }), "{heard:?}");
        assert!(matches!(read(&Answer::Drain.text()).unwrap(), Heard::Drain));
        assert!(matches!(read(&Answer::Cancel { job: 7 }.text()).unwrap(), Heard::Cancel { job: 7 }));
        let heard = read(r#"{"op":"msg","topic":"a","epoch":1,"offset":2,"data":null}"#).unwrap();
        assert!(
            matches!(&heard, Heard::Message { position: Some(_), payload, .. } if payload.to_string() == "null")
        );
    }

    #[test]
    fn what_is_newer_is_ignored_and_what_is_broken_is_an_error() {
        assert!(matches!(read(r#"{"op":"invented","x":1}"#).unwrap(), Heard::Nothing));
        assert!(matches!(read(r#"{"op":"ok","ref":"not ours"}"#).unwrap(), Heard::Nothing));
        let newer =
            r#"{"op":"error","ref":"1","problem":{"code":"moon","status":418,"detail":"it is full"}}"#;
        let Heard::Answer(1, Err(error)) = read(newer).unwrap() else { panic!("{newer}") };
        assert!(error.to_string().contains("it is full"), "{error}");
        for broken in
            ["", "[]", "{}", r#"{"op":"msg"}"#, r#"{"op":"msg","topic":"a//b"}"#, r#"{"op":"cancel"}"#]
        {
            assert!(read(broken).is_err(), "{broken}");
        }
    }
}
