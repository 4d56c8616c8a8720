//! Schedules as they go over the wire: what is put, and what is shown.

use crate::amount;
use crate::request::EnqueueRequest;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// What becomes of firings that nobody was there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missed {
    /// One job makes up for all of them.
    #[default]
    Fold,
    /// Each has its job.
    All,
}

impl Missed {
    /// The word on the wire and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Missed::Fold => "fold",
            Missed::All => "all",
        }
    }
}

impl fmt::Display for Missed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Missed {
    type Err = String;

    fn from_str(text: &str) -> Result<Missed, String> {
        let found = [Missed::Fold, Missed::All].into_iter().find(|word| word.as_str() == text);
        found.ok_or_else(|| format!("{text:?} is none of fold, all"))
    }
}

/// The body of `PUT /api/v1/schedules/{name}`: what to enqueue, and when, in one object.
#[derive(Debug, Clone)]
pub struct ScheduleRequest {
    /// What it enqueues.
    pub request: EnqueueRequest,
    /// How often; or `cron` says when.
    pub every: Option<Duration>,
    /// Five fields.
    pub cron: Option<String>,
    /// In whose clock time; an IANA name, UTC when nothing is said. Goes with `cron`.
    pub zone: Option<String>,
    /// What becomes of firings that nobody was there for.
    pub missed: Missed,
}

/// What an enqueue takes is read by the enqueue's own rules, whatever these are.
impl<'de> Deserialize<'de> for ScheduleRequest {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<ScheduleRequest, D::Error> {
        use serde::de::Error;
        #[derive(Deserialize)]
        struct Span(#[serde(deserialize_with = "amount::duration")] Option<Duration>);
        fn taken<T: serde::de::DeserializeOwned + Default, E: Error>(
            members: &mut BTreeMap<String, Box<RawValue>>,
            name: &str,
        ) -> Result<T, E> {
            let Some(raw) = members.remove(name) else { return Ok(T::default()) };
            serde_json::from_str(raw.get()).map_err(|e| E::custom(format!("{name}: {}", words(&e))))
        }
        /// Without the place: it is one in a part that nobody has sent like that.
        fn words(error: &serde_json::Error) -> String {
            let words = error.to_string();
            words.split(" at line ").next().unwrap_or_default().to_owned()
        }
        let mut members = BTreeMap::<String, Box<RawValue>>::deserialize(d)?;
        let every: Option<Span> = taken(&mut members, "every")?;
        let (cron, zone) = (taken(&mut members, "cron")?, taken(&mut members, "zone")?);
        let missed: Option<Missed> = taken(&mut members, "missed")?;
        let rest = serde_json::to_string(&members).map_err(D::Error::custom)?;
        let request = serde_json::from_str(&rest).map_err(|e| D::Error::custom(words(&e)))?;
        let (every, missed) = (every.and_then(|span| span.0), missed.unwrap_or_default());
        Ok(ScheduleRequest { request, every, cron, zone, missed })
    }
}

/// What a client sends; the inverse of reading one.
impl Serialize for ScheduleRequest {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        use serde::ser::Error;
        let request = serde_json::to_string(&self.request).map_err(S::Error::custom)?;
        let mut members: BTreeMap<String, Box<RawValue>> =
            serde_json::from_str(&request).map_err(S::Error::custom)?;
        let more = [
            ("every", self.every.map(|every| every.as_secs_f64().into())),
            ("cron", self.cron.clone().map(serde_json::Value::from)),
            ("zone", self.zone.clone().map(serde_json::Value::from)),
            ("missed", Some(self.missed.as_str().into())),
        ];
        for (name, value) in more {
            if let Some(value) = value {
                let raw = serde_json::value::to_raw_value(&value).map_err(S::Error::custom)?;
                members.insert(name.into(), raw);
            }
        }
        members.serialize(s)
    }
}

/// A schedule as everybody may see it.
#[derive(Debug, Clone)]
pub struct ScheduleView {
    /// Its name.
    pub name: String,
    /// What it enqueues: an object of `task`, `args` as they may be seen, and options.
    pub request: Box<RawValue>,
    /// How often.
    pub every: Option<Duration>,
    /// When, in five fields.
    pub cron: Option<String>,
    /// In whose clock time.
    pub zone: String,
    /// What becomes of firings that nobody was there for.
    pub missed: Missed,
    /// It does not fire.
    pub paused: bool,
    /// It comes from the configuration, and is changed there.
    pub configured: bool,
    /// When it fires next, or would if it were not paused.
    pub due: Timestamp,
    /// When it fired last, by itself or by hand.
    pub fired: Option<Timestamp>,
    /// The job that it enqueued last.
    pub job: Option<i64>,
}

impl ScheduleView {
    /// All of it in one object, as JSON text.
    pub fn to_json(&self) -> String {
        let own = serde_json::json!({
            "every": self.every.map(|every| every.as_secs_f64()),
            "cron": self.cron,
            "zone": self.zone,
            "missed": self.missed,
            "paused": self.paused,
            "configured": self.configured,
            "due": self.due,
            "fired": self.fired,
            "job": self.job,
        });
        let (name, own) = (serde_json::Value::from(self.name.as_str()), own.to_string());
        let request = self.request.get().trim();
        let inner = request.strip_prefix('{').and_then(|r| r.strip_suffix('}')).unwrap_or_default();
        let comma = if inner.trim().is_empty() { "" } else { "," };
        format!("{{\"name\":{name}{comma}{inner},{}", own.strip_prefix('{').unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<ScheduleRequest, String> {
        serde_json::from_str(json).map_err(|e| e.to_string())
    }

    #[test]
    fn what_is_sent_reads_back() {
        for text in [
            r#"{"task":"a","args":[123456789012345678901234567890],"every":"90s","queue":"q","missed":"all"}"#,
            r#"{"task":"a","cron":"0 3 * * *","zone":"Europe/Berlin","priority":-1,"notes":{"n":1}}"#,
        ] {
            let request = read(text).unwrap();
            let back = read(&serde_json::to_string(&request).unwrap()).unwrap();
            assert_eq!(format!("{back:?}"), format!("{request:?}"));
        }
        let usual = read(r#"{"task":"a","every":1.5}"#).unwrap();
        assert_eq!((usual.every, usual.missed), (Some(Duration::from_millis(1_500)), Missed::Fold));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, word) in [
            (r#"{"every":1}"#, "task"),
            (r#"{"task":"a","every":"soon"}"#, "every"),
            (r#"{"task":"a","cron":5}"#, "cron"),
            (r#"{"task":"a","missed":"some"}"#, "missed"),
            (r#"{"task":"a","evry":1}"#, "evry"),
            (r#"{"task":"a","attempts":0}"#, "attempts"),
            ("[]", "map"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn a_view_is_one_flat_object() {
        let view = ScheduleView {
            name: "a \"b\"".into(),
            request: RawValue::from_string(r#"{"task":"t","args":[1e400]}"#.into()).unwrap(),
            every: Some(Duration::from_secs(90)),
            cron: None,
            zone: "UTC".into(),
            missed: Missed::Fold,
            paused: false,
            configured: true,
            due: Timestamp::UNIX_EPOCH,
            fired: None,
            job: Some(7),
        };
        let text = view.to_json();
        assert!(text.starts_with(r#"{"name":"a \"b\"","task":"t","args":[1e400],"#), "{text}");
        let members: BTreeMap<String, Box<RawValue>> = serde_json::from_str(&text).unwrap();
        assert_eq!((members.len(), members["every"].get(), members["job"].get()), (12, "90.0", "7"));
    }
}
