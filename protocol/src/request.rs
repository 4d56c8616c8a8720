//! What it takes to enqueue a job, as it stands in `POST /api/v1/jobs` and in `minium.enqueue`.

mod wire;

pub use wire::{JobTree, read_jobs};

use crate::frame::ID_BYTES_MAX;
use crate::{Topic, TraceContext};
use serde_json::value::RawValue;
use std::time::Duration;

/// Priorities outside of this make no sense and would make claims slower.
const PRIORITY_MAX: i32 = 1_000;
/// More runs than this are a loop, not a retry.
const ATTEMPTS_MAX: i32 = 1_000;
/// Longer names of partitions are mistakes.
const PARTITION_BYTES_MAX: usize = 255;

/// A job to be.
#[derive(Debug, Clone)]
pub struct EnqueueRequest {
    /// What to run: a topic of at most 14 segments, since `task/<task>/<id>` must be one too.
    pub task: String,
    /// What to run it with: any JSON, by custom an array.
    pub args: Box<RawValue>,
    /// The rest.
    pub options: JobOptions,
}

/// For how long a key keeps a second job of its task away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unique {
    /// While its job lives, that is waits or runs.
    #[default]
    Alive,
    /// While its job waits to be started: one that runs does not keep the next away.
    Waiting,
    /// For so long from the enqueue, whatever becomes of its job, and longer if that still lives.
    For(Duration),
}

/// Enqueue options; Minion's, and a few more.
#[derive(Debug, Clone)]
pub struct JobOptions {
    /// How many runs it may have, from 1.
    pub attempts: i32,
    /// Not before so long from now.
    pub delay: Duration,
    /// Removed if it has not been started within this time.
    pub expire: Option<Duration>,
    /// Do failed and cancelled parents let it run too?
    pub lax: bool,
    /// Run it once one of its parents has failed, and call it off once all have ended and none did. Not with `lax`.
    pub on_failure: bool,
    /// First notes; a JSON object.
    pub notes: serde_json::Map<String, serde_json::Value>,
    /// Jobs it waits for. Unknown ones count as finished, as in Minion.
    pub parents: Vec<i64>,
    /// Jobs of the same call that it waits for besides, by their places from 0. No circles.
    pub after: Vec<usize>,
    /// Higher runs first; -1,000 to 1,000.
    pub priority: i32,
    /// Where it waits.
    pub queue: String,
    /// Unique among the jobs of its task: a second one is not enqueued.
    pub key: Option<String>,
    /// For how long the key is held.
    pub unique: Unique,
    /// Which of those that a limit of its task counts apart, such as a tenant.
    pub partition: Option<String>,
    /// How long one run may take.
    pub timeout: Option<Duration>,
    /// Pause before an automatic retry; without it Minion's n⁴ + 15 s.
    pub backoff: Option<Duration>,
    /// The schedule that enqueues it.
    pub schedule: Option<String>,
    /// The job that enqueues it.
    pub origin: Option<i64>,
    /// W3C trace context.
    pub trace: Option<TraceContext>,
}

impl Default for JobOptions {
    fn default() -> JobOptions {
        JobOptions {
            attempts: 1,
            delay: Duration::ZERO,
            expire: None,
            lax: false,
            on_failure: false,
            notes: serde_json::Map::new(),
            parents: Vec::new(),
            after: Vec::new(),
            priority: 0,
            queue: "default".into(),
            key: None,
            unique: Unique::Alive,
            partition: None,
            timeout: None,
            backoff: None,
            schedule: None,
            origin: None,
            trace: None,
        }
    }
}

fn empty_args() -> Box<RawValue> {
    RawValue::from_string("[]".into()).expect("an empty array is JSON")
}

impl EnqueueRequest {
    /// A job without options.
    pub fn new(task: impl Into<String>, args: Box<RawValue>) -> EnqueueRequest {
        EnqueueRequest { task: task.into(), args, options: JobOptions::default() }
    }

    /// Says what is wrong with the request, in words for whoever sent it. Stores call it before they write.
    pub fn check(&self) -> Result<(), String> {
        let o = &self.options;
        // 19 digits: the longest id
        Topic::of_job(&self.task, i64::MAX).map_err(|e| format!("task {:?}: {e}", self.task))?;
        crate::check_json(self.args.get()).map_err(|e| format!("args: {e}"))?;
        crate::check_members(&o.notes).map_err(|e| format!("notes: {e}"))?;
        check_queue(&o.queue)?;
        if !(1..=ATTEMPTS_MAX).contains(&o.attempts) {
            return Err(format!("attempts is {}, it must be 1 to {ATTEMPTS_MAX}", o.attempts));
        }
        if !(-PRIORITY_MAX..=PRIORITY_MAX).contains(&o.priority) {
            return Err(format!("priority is {}, it must be -{PRIORITY_MAX} to {PRIORITY_MAX}", o.priority));
        }
        if o.on_failure && o.lax {
            return Err("a job that runs on a failure is not lax".into());
        }
        if o.on_failure && o.parents.is_empty() && o.after.is_empty() {
            return Err("a job that runs on a failure has a parent".into());
        }
        if o.unique != Unique::Alive && o.key.is_none() {
            return Err("unique goes with a key".into());
        }
        match &o.partition {
            Some(part) if part.len() > PARTITION_BYTES_MAX || part.contains('\0') => {
                return Err(format!(
                    "partition has {} bytes, it must have at most {PARTITION_BYTES_MAX} and no NUL character",
                    part.len()
                ));
            }
            _ => {}
        }
        match &o.key {
            Some(key) if key.is_empty() || key.len() > ID_BYTES_MAX => {
                Err(format!("key has {} bytes, it must have 1 to {ID_BYTES_MAX}", key.len()))
            }
            Some(key) if key.contains('\0') => Err("key has a NUL character".into()),
            _ => Ok(()),
        }
    }
}

/// Says what is wrong with the name of a queue, wherever one is named: it is one topic segment or several, by the rules
/// of topics.
///
/// # Errors
/// What is wrong, in words for whoever sent it.
pub fn check_queue(name: &str) -> Result<(), String> {
    name.parse::<Topic>().map(drop).map_err(|e| format!("queue {name:?}: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<EnqueueRequest, String> {
        serde_json::from_str(json).map_err(|e| e.to_string())
    }

    #[test]
    fn options_stand_beside_task_and_args() {
        let r = read(r#"{"task":"import","args":["x"],"delay":"90s","expire":60,"key":"k","priority":5}"#)
            .unwrap();
        assert_eq!((r.task.as_str(), r.args.get()), ("import", r#"["x"]"#));
        assert_eq!((r.options.delay.as_secs(), r.options.expire.unwrap().as_secs()), (90, 60));
        assert_eq!((r.options.priority, r.options.key.as_deref()), (5, Some("k")));
    }

    #[test]
    fn what_is_sent_reads_back() {
        let mut r = EnqueueRequest::new("a/b", RawValue::from_string("{\"x\":1}".into()).unwrap());
        r.options = JobOptions {
            attempts: 3,
            backoff: Some(Duration::from_millis(1500)),
            parents: vec![1, 2],
            lax: true,
            ..JobOptions::default()
        };
        let back = read(&serde_json::to_string(&r).unwrap()).unwrap();
        assert_eq!(format!("{back:?}"), format!("{r:?}"));
    }

    #[test]
    fn mistakes_are_named() {
        let says = |json: &str, word: &str| {
            let e = read(json).unwrap_err();
            assert!(e.contains(word), "{json}: {e}");
        };
        says(r#"{"args":[]}"#, "task");
        says(r#"{"task":"a b"}"#, "character");
        says(r#"{"task":"x","prority":1}"#, "prority");
        says(r#"{"task":"x","attempts":0}"#, "attempts");
        says(r#"{"task":"x","priority":5000}"#, "priority");
        says(r#"{"task":"x","delay":"soon"}"#, "duration");
        says(r#"{"task":"x","delay":-1}"#, "duration");
        says(r#"{"task":"x","args":["\ud800"]}"#, "args");
        says(r#"{"task":"x","key":""}"#, "key");
        says(r#"{"task":"x","queue":""}"#, "queue");
        says(r#"{"task":"x","notes":[]}"#, "map");
        says(r#"{"task":"x","parents":["a"]}"#, "i64");
    }
}
