//! The flat form of a job to be on the wire, and jobs that bring others along.
//!
//! A job may name those that follow it (`on_success`, `on_failure`), each of which may name others in turn. Reading makes
//! one list of them, in which parents stand before those that wait for them.

use super::{EnqueueRequest, JobOptions, Unique};
use crate::amount;
use crate::trace::{TraceContext, looks_like_traceparent};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use std::time::Duration;

/// Followers of followers, so deep.
const LEVELS_MAX: usize = 32;

/// Unknown members are refused: a misspelt option must not vanish.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    task: String,
    #[serde(default, deserialize_with = "given")]
    args: Option<Box<RawValue>>,
    attempts: Option<i32>,
    #[serde(default, deserialize_with = "amount::duration")]
    delay: Option<Duration>,
    #[serde(default, deserialize_with = "amount::duration")]
    expire: Option<Duration>,
    lax: Option<bool>,
    when: Option<When>,
    notes: Option<serde_json::Map<String, serde_json::Value>>,
    parents: Option<Vec<i64>>,
    after: Option<Vec<usize>>,
    priority: Option<i32>,
    queue: Option<String>,
    key: Option<String>,
    unique: Option<WireUnique>,
    partition: Option<String>,
    #[serde(default, deserialize_with = "amount::duration")]
    timeout: Option<Duration>,
    #[serde(default, deserialize_with = "amount::duration")]
    backoff: Option<Duration>,
    origin: Option<i64>,
    traceparent: Option<String>,
    tracestate: Option<String>,
    on_success: Option<Box<RawValue>>,
    on_failure: Option<Box<RawValue>>,
}

/// What is there, `null` too: it is JSON like any other.
fn given<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(d).map(Some)
}

/// When parents let a job run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum When {
    /// All have finished.
    Success,
    /// All have ended, however.
    Ended,
    /// One has failed.
    Failure,
}

/// `"alive"`, `"waiting"`, or a span.
struct WireUnique(Unique);

impl<'de> Deserialize<'de> for WireUnique {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<WireUnique, D::Error> {
        let value = serde_json::Value::deserialize(d)?;
        let unique = match &value {
            serde_json::Value::String(word) if word == "alive" => Unique::Alive,
            serde_json::Value::String(word) if word == "waiting" => Unique::Waiting,
            serde_json::Value::String(text) => for_so_long(text)?,
            serde_json::Value::Number(number) => for_so_long(&number.to_string())?,
            _ => return Err(D::Error::custom(UNIQUE)),
        };
        Ok(WireUnique(unique))
    }
}

const UNIQUE: &str = "unique is \"alive\", \"waiting\" or a duration above 0, as in \"5m\"";

fn for_so_long<E: serde::de::Error>(text: &str) -> Result<Unique, E> {
    let span = amount::parse_duration(text).ok().filter(|span| *span >= Duration::from_micros(1));
    span.map(Unique::For).ok_or_else(|| E::custom(UNIQUE))
}

/// One job, or an array of them.
fn one_or_many(json: Box<RawValue>) -> Result<Vec<Box<RawValue>>, String> {
    if json.get().starts_with('[') {
        return serde_json::from_str(json.get()).map_err(|e| e.to_string());
    }
    Ok(vec![json])
}

/// A job and those that follow it.
#[derive(Debug)]
pub struct JobTree {
    /// The job.
    pub job: EnqueueRequest,
    /// What it brings along. Their `after` are places among these, from 1; 0 is the job itself.
    pub followers: Vec<EnqueueRequest>,
}

/// Reads one job with those that follow it. At most `jobs_max` together.
///
/// # Errors
/// In words for whoever sent it.
pub fn read_jobs(json: &str, jobs_max: usize) -> Result<JobTree, String> {
    let mut all = Vec::new();
    read_tree(json, None, 0, jobs_max, &mut all)?;
    let job = all.remove(0);
    Ok(JobTree { job, followers: all })
}

fn read_tree(
    json: &str,
    parent: Option<(usize, bool)>,
    level: usize,
    jobs_max: usize,
    all: &mut Vec<EnqueueRequest>,
) -> Result<(), String> {
    if all.len() >= jobs_max {
        return Err(format!("a job and its followers are more than {jobs_max} jobs"));
    }
    if level > LEVELS_MAX {
        return Err(format!("jobs follow each other more than {LEVELS_MAX} levels deep"));
    }
    let mut wire: Wire = serde_json::from_str(json).map_err(|e| e.to_string())?;
    let (success, failure) = (wire.on_success.take(), wire.on_failure.take());
    if let Some((place, fails)) = parent {
        if wire.parents.is_some() || wire.after.is_some() || wire.when.is_some() || wire.lax.is_some() {
            return Err("a job that follows another has no parents, after, when or lax of its own".into());
        }
        wire.after = Some(vec![place]);
        wire.when = fails.then_some(When::Failure);
    }
    let place = all.len();
    all.push(wire.into_request()?);
    for (followers, fails) in [(success, false), (failure, true)] {
        for follower in followers.map_or(Ok(Vec::new()), one_or_many)? {
            read_tree(follower.get(), Some((place, fails)), level + 1, jobs_max, all)?;
        }
    }
    Ok(())
}

impl Wire {
    fn into_request(self) -> Result<EnqueueRequest, String> {
        if self.on_success.is_some() || self.on_failure.is_some() {
            return Err("on_success and on_failure are for jobs that are enqueued over the API".into());
        }
        let usual = JobOptions::default();
        let lax = match (self.lax, self.when) {
            (Some(true), Some(When::Success | When::Failure)) | (Some(false), Some(When::Ended)) => {
                return Err("lax and when contradict each other; give one of them".into());
            }
            (lax, when) => lax.unwrap_or(when == Some(When::Ended)),
        };
        if self.traceparent.as_deref().is_some_and(|text| !looks_like_traceparent(text)) {
            return Err("traceparent is no trace context as W3C has it, version 00".into());
        }
        let request = EnqueueRequest {
            task: self.task,
            args: self.args.unwrap_or_else(super::empty_args),
            options: JobOptions {
                attempts: self.attempts.unwrap_or(usual.attempts),
                delay: self.delay.unwrap_or_default(),
                expire: self.expire,
                lax,
                on_failure: self.when == Some(When::Failure),
                notes: self.notes.unwrap_or_default(),
                parents: self.parents.unwrap_or_default(),
                after: self.after.unwrap_or_default(),
                priority: self.priority.unwrap_or_default(),
                queue: self.queue.unwrap_or(usual.queue),
                key: self.key,
                unique: self.unique.map_or(Unique::Alive, |unique| unique.0),
                partition: self.partition,
                timeout: self.timeout,
                backoff: self.backoff,
                origin: self.origin,
                schedule: None,
                trace: self.traceparent.and_then(|text| TraceContext::new(&text, self.tracestate.as_deref())),
            },
        };
        request.check()?;
        Ok(request)
    }
}

impl<'de> Deserialize<'de> for EnqueueRequest {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<EnqueueRequest, D::Error> {
        Wire::deserialize(d)?.into_request().map_err(D::Error::custom)
    }
}

/// What a client sends; the inverse of reading one.
impl Serialize for EnqueueRequest {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let o = &self.options;
        let mut map = s.serialize_map(None)?;
        map.serialize_entry("task", &self.task)?;
        map.serialize_entry("args", &self.args)?;
        map.serialize_entry("attempts", &o.attempts)?;
        map.serialize_entry("delay", &o.delay.as_secs_f64())?;
        map.serialize_entry("lax", &o.lax)?;
        map.serialize_entry("notes", &o.notes)?;
        map.serialize_entry("parents", &o.parents)?;
        map.serialize_entry("priority", &o.priority)?;
        map.serialize_entry("queue", &o.queue)?;
        if o.on_failure {
            map.serialize_entry("when", "failure")?;
        }
        if !o.after.is_empty() {
            map.serialize_entry("after", &o.after)?;
        }
        match o.unique {
            Unique::Alive => {}
            Unique::Waiting => map.serialize_entry("unique", "waiting")?,
            Unique::For(span) => map.serialize_entry("unique", &span.as_secs_f64())?,
        }
        for (name, span) in [("expire", o.expire), ("timeout", o.timeout), ("backoff", o.backoff)] {
            if let Some(span) = span {
                map.serialize_entry(name, &span.as_secs_f64())?;
            }
        }
        let trace = o.trace.as_ref();
        let texts = [
            ("key", o.key.as_deref()),
            ("partition", o.partition.as_deref()),
            ("traceparent", trace.map(TraceContext::traceparent)),
            ("tracestate", trace.and_then(TraceContext::tracestate)),
        ];
        for (name, text) in texts {
            if let Some(text) = text {
                map.serialize_entry(name, text)?;
            }
        }
        if let Some(origin) = o.origin {
            map.serialize_entry("origin", &origin)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<EnqueueRequest, String> {
        serde_json::from_str(json).map_err(|e| e.to_string())
    }

    #[test]
    fn what_is_sent_reads_back_with_all_its_options() {
        let mut request = EnqueueRequest::new("a/b", RawValue::from_string("[1]".into()).unwrap());
        request.options = JobOptions {
            on_failure: true,
            after: vec![0, 2],
            key: Some("k".into()),
            unique: Unique::For(Duration::from_millis(1_500)),
            partition: Some("tenant 7".into()),
            trace: TraceContext::new("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", Some("a=1")),
            ..JobOptions::default()
        };
        let back = read(&serde_json::to_string(&request).unwrap()).unwrap();
        assert_eq!(format!("{back:?}"), format!("{request:?}"));
    }

    #[test]
    fn a_trace_context_is_whole_or_refused() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let trace = |text: &str| {
            let read = read(&format!(r#"{{"task":"x","traceparent":"{text}","tracestate":"a=1"}}"#))?;
            Ok::<_, String>(read.options.trace)
        };
        assert_eq!(trace(good), Ok(TraceContext::new(good, Some("a=1"))));
        let of = |json: &str| read(json).map(|r| r.options.trace);
        assert_eq!(
            of(&format!(r#"{{"task":"x","traceparent":"{good}","tracestate":"A B"}}"#)),
            Ok(TraceContext::new(good, None))
        );
        assert_eq!(of(r#"{"task":"x","tracestate":"a=1"}"#), Ok(None));
        for bad in [
            "",
            "00",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
        ] {
            assert!(trace(bad).is_err(), "{bad}");
        }
        for nothing in [
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        ] {
            assert_eq!(trace(nothing), Ok(None));
        }
    }

    #[test]
    fn a_key_is_unique_for_as_long_as_is_said() {
        let unique = |json: &str| read(json).map(|r| r.options.unique);
        assert_eq!(unique(r#"{"task":"x","key":"k"}"#), Ok(Unique::Alive));
        assert_eq!(unique(r#"{"task":"x","key":"k","unique":"waiting"}"#), Ok(Unique::Waiting));
        let minutes = Unique::For(Duration::from_secs(300));
        assert_eq!(unique(r#"{"task":"x","key":"k","unique":"5m"}"#), Ok(minutes));
        assert_eq!(unique(r#"{"task":"x","key":"k","unique":300}"#), Ok(minutes));
        for bad in [r#""soon""#, "0", "true", "-1"] {
            assert!(unique(&format!(r#"{{"task":"x","key":"k","unique":{bad}}}"#)).is_err(), "{bad}");
        }
        assert!(unique(r#"{"task":"x","unique":"waiting"}"#).unwrap_err().contains("key"));
    }

    #[test]
    fn null_is_told_from_what_is_left_out() {
        let args = |json: &str| read(json).unwrap().args.get().to_owned();
        assert_eq!(
            (args(r#"{"task":"x"}"#), args(r#"{"task":"x","args":null}"#)),
            ("[]".into(), "null".into())
        );
    }

    #[test]
    fn when_and_lax_say_one_thing() {
        let flags = |json: &str| read(json).map(|r| (r.options.lax, r.options.on_failure));
        assert_eq!(flags(r#"{"task":"x","parents":[1],"when":"ended"}"#), Ok((true, false)));
        assert_eq!(flags(r#"{"task":"x","parents":[1],"when":"success"}"#), Ok((false, false)));
        assert_eq!(flags(r#"{"task":"x","parents":[1],"when":"failure"}"#), Ok((false, true)));
        assert!(flags(r#"{"task":"x","parents":[1],"when":"failure","lax":true}"#).is_err());
        assert!(flags(r#"{"task":"x","when":"failure"}"#).unwrap_err().contains("parent"));
        assert!(flags(r#"{"task":"x","when":"never"}"#).is_err());
    }

    #[test]
    fn followers_stand_behind_whom_they_follow() {
        let tree = read_jobs(
            r#"{"task":"a","on_success":{"task":"b","on_success":[{"task":"c"},{"task":"d"}]},
                "on_failure":[{"task":"e"}]}"#,
            10,
        )
        .unwrap();
        assert_eq!((tree.job.task.as_str(), tree.job.options.after.len()), ("a", 0));
        let seen: Vec<_> = tree
            .followers
            .iter()
            .map(|f| (f.task.as_str(), f.options.after.clone(), f.options.on_failure))
            .collect();
        let expected =
            [("b", vec![0], false), ("c", vec![1], false), ("d", vec![1], false), ("e", vec![0], true)];
        assert_eq!(seen, expected);
        assert!(read_jobs(r#"{"task":"a","on_success":[{"task":"b"},{"task":"c"}]}"#, 2).is_err());
        let deep = (0..40)
            .fold(r#"{"task":"z"}"#.to_owned(), |inner, _| format!(r#"{{"task":"z","on_success":{inner}}}"#));
        assert!(read_jobs(&deep, 100).unwrap_err().contains("levels"));
        assert!(read_jobs(r#"{"task":"a","on_success":{"task":"b","parents":[1]}}"#, 9).is_err());
        assert!(read(r#"{"task":"a","on_failure":{"task":"b"}}"#).unwrap_err().contains("API"));
    }
}
