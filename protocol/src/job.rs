//! The job as clients see it: states, phases and the snapshot.
//!
//! Stores make snapshots themselves, as JSON text, and that text goes out unparsed. The [`Job`] here is for those who
//! read one: clients, workers, tests.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::fmt;
use uuid::Uuid;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// All of them.
            pub const ALL: &[$name] = &[$($name::$variant,)*];

            /// The word on the wire and in the database.
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text,)* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<$name, String> {
                let words: Vec<_> = $name::ALL.iter().map(|w| w.as_str()).collect();
                let found = $name::ALL.iter().find(|w| w.as_str() == text);
                found.copied().ok_or_else(|| format!("{text:?} is none of {}", words.join(", ")))
            }
        }
    };
}

pub(crate) use words;

words! {
    /// Where a job is in its life.
    State {
        /// Waiting to be run.
        Inactive = "inactive",
        /// A worker holds a lease on it.
        Active = "active",
        /// Ended well.
        Finished = "finished",
        /// Ended badly.
        Failed = "failed",
        /// Called off.
        Cancelled = "cancelled",
    }
}

words! {
    /// Why an inactive job waits; derived when asked.
    Phase {
        /// The next free worker takes it.
        Ready = "ready",
        /// Its time has not come.
        Delayed = "delayed",
        /// A parent has not ended well.
        Blocked = "blocked",
    }
}

impl State {
    /// Has the job ended?
    pub fn is_ended(self) -> bool {
        matches!(self, State::Finished | State::Failed | State::Cancelled)
    }
}

/// Fences every word about one attempt. One per job and attempt, never per batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LeaseToken(pub Uuid);

impl LeaseToken {
    /// A token that nobody has.
    pub fn fresh() -> LeaseToken {
        LeaseToken(Uuid::new_v4())
    }
}

impl fmt::Display for LeaseToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Who runs a job, or ran it last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerRef {
    /// Number in the worker table.
    pub id: i64,
    /// Name of its machine; empty when an attached Minion does not know it any more.
    #[serde(deserialize_with = "or_default")]
    pub host: String,
    /// Process there; 0 when an attached Minion does not know it any more.
    #[serde(deserialize_with = "or_default")]
    pub pid: u32,
}

/// A null is the empty value.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// The longest text of a progress.
pub const PROGRESS_TEXT_BYTES_MAX: usize = 1024;

/// How far a job has come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// 0 to 100.
    pub percent: f64,
    /// What it is at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

impl Progress {
    /// Says what is wrong with it. Stores call it before they write.
    ///
    /// # Errors
    /// In words for whoever sent it.
    pub fn check(&self) -> Result<(), String> {
        if !(0.0..=100.0).contains(&self.percent) {
            return Err(format!("progress: percent is {}, it must be 0 to 100", self.percent));
        }
        match self.text.as_ref().map_or(0, String::len) {
            bytes if bytes > PROGRESS_TEXT_BYTES_MAX => {
                Err(format!("progress: text has {bytes} bytes, it may have {PROGRESS_TEXT_BYTES_MAX}"))
            }
            _ => Ok(()),
        }
    }
}

/// The snapshot: the whole job at one moment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    /// Its number.
    pub id: i64,
    /// What it runs.
    pub task: String,
    /// Where it waits.
    pub queue: String,
    /// Where it is in its life.
    pub state: State,
    /// Higher runs first.
    pub priority: i32,
    /// What it runs with.
    pub args: Box<RawValue>,
    /// Notes by users and by the task; an object.
    pub notes: serde_json::Map<String, serde_json::Value>,
    /// Number of the current or last run, from 1; 0 before the first.
    pub attempt: i32,
    /// How many runs it may have.
    pub attempts: i32,
    /// How often it was retried, by hand or automatically.
    pub retries: i32,
    /// Jobs it waits for.
    pub parents: Vec<i64>,
    /// Do failed and cancelled parents let it run too?
    pub lax: bool,
    /// Unique among the living jobs of its task.
    pub key: Option<String>,
    /// The schedule that enqueued it.
    pub schedule: Option<String>,
    /// Who runs it, or ran it last.
    pub worker: Option<WorkerRef>,
    /// What it brought.
    pub result: Option<Box<RawValue>>,
    /// Why it failed last.
    pub error: Option<String>,
    /// How far it has come.
    pub progress: Option<Progress>,
    /// The job that enqueued it.
    pub origin: Option<i64>,
    /// When it was enqueued.
    pub created: Timestamp,
    /// When it becomes ready, or became.
    pub delayed: Timestamp,
    /// When it is removed if it has not been started.
    pub expires: Option<Timestamp>,
    /// When the current or last run began.
    pub started: Option<Timestamp>,
    /// When the last run ended.
    pub finished: Option<Timestamp>,
    /// When it was last retried.
    pub retried: Option<Timestamp>,
}

/// A snapshot and what is derived when asked.
#[derive(Debug, Clone)]
pub struct JobView {
    /// The snapshot, as the store made it: the same as the `data` of the job's last event.
    pub snapshot: Box<RawValue>,
    /// Why it waits, if it is inactive.
    pub phase: Option<Phase>,
    /// Jobs that wait for it.
    pub children: Vec<i64>,
}

impl JobView {
    /// The snapshot as a value.
    pub fn job(&self) -> Result<Job, serde_json::Error> {
        serde_json::from_str(self.snapshot.get())
    }

    /// The snapshot with `phase` and `children`, as JSON text.
    pub fn to_json(&self) -> String {
        let body = self.snapshot.get().trim_end();
        let open = body.strip_suffix('}').unwrap_or(body);
        let phase = self.phase.map_or("null".into(), |p| format!("\"{p}\""));
        let children: Vec<_> = self.children.iter().map(i64::to_string).collect();
        format!("{open},\"phase\":{phase},\"children\":[{}]}}", children.join(","))
    }
}

/// What a job has brought, for those that waited for it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JobResult {
    /// The job.
    pub id: i64,
    /// Where it is in its life; `None` when the job is gone, and all that it brought with it.
    pub state: Option<State>,
    /// What it brought, if it has finished.
    pub result: Option<Box<RawValue>>,
    /// Why it failed last.
    pub error: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_what_serde_says() {
        for s in State::ALL {
            assert_eq!(serde_json::to_value(s).unwrap(), s.as_str());
            assert_eq!(s.as_str().parse(), Ok(*s));
        }
        assert!("done".parse::<State>().unwrap_err().contains("inactive, active"));
    }

    #[test]
    fn a_view_adds_what_has_no_event() {
        let snapshot = RawValue::from_string(r#"{"id":1,"args":[]}"#.into()).unwrap();
        let view = JobView { snapshot, phase: Some(Phase::Blocked), children: vec![2, 3] };
        assert_eq!(view.to_json(), r#"{"id":1,"args":[],"phase":"blocked","children":[2,3]}"#);
    }
}
