//! What is said between a worker and a long-lived process: one JSON object a line, each with one member that names it.
//! docs/protocol.md, "Long-lived commands", has it for those who write one.

use crate::context::JobContext;
use crate::task::Failure;
use minium_protocol::{LogLevel, Progress};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// What a process says.
#[derive(Debug)]
pub(super) enum Word {
    /// It takes jobs from now on.
    Ready,
    /// How far this job is.
    Progress(i64, Progress),
    /// Notes of this job.
    Notes(i64, Map<String, Value>),
    /// A line of this job's log.
    Log(i64, LogLevel, String),
    /// This job is over.
    Over(i64, Result<Box<RawValue>, Failure>),
}

/// As it is written. A misspelt member is told rather than passed over: `"retries":false` would be a job that is retried.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Written {
    Ready {},
    Progress { id: i64, percent: f64, text: Option<String> },
    Note { id: i64, notes: Map<String, Value> },
    Log { id: i64, level: Option<LogLevel>, text: String },
    Step { id: i64, name: String },
    Finished { id: i64, result: Option<Box<RawValue>> },
    Failed { id: i64, error: String, retry: Option<bool>, backtrace: Option<String> },
}

impl Word {
    /// Understands a line, or says what is wrong with it.
    pub(super) fn read(line: &[u8]) -> Result<Word, String> {
        let wrong =
            |e: &dyn std::fmt::Display| format!("its process wrote a line that is no word of ours: {e}");
        let text = std::str::from_utf8(line).map_err(|e| wrong(&e))?;
        let written: Written = serde_json::from_str(text).map_err(|e| wrong(&e))?;
        Ok(match written {
            Written::Ready {} => Word::Ready,
            Written::Progress { id, percent, text } => {
                let text = text.filter(|text| !text.is_empty());
                Word::Progress(id, Progress { percent: percent.clamp(0.0, 100.0), text })
            }
            Written::Note { id, notes } => Word::Notes(id, notes),
            Written::Log { id, level, text } => Word::Log(id, level.unwrap_or(LogLevel::Info), text),
            Written::Step { id, name } => Word::Log(id, LogLevel::Step, name),
            Written::Finished { id, result } => {
                let result = result.unwrap_or_else(|| RawValue::NULL.to_owned());
                // a value refuses nesting without bound and half characters, which a raw value lets pass
                serde_json::from_str::<Value>(result.get()).map_err(|e| wrong(&e))?;
                Word::Over(id, Ok(result))
            }
            Written::Failed { id, error, retry, backtrace } => {
                let failure =
                    Failure { retry: retry.unwrap_or(true), backtrace, ..Failure::retryable(error) };
                Word::Over(id, Err(failure))
            }
        })
    }
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Told<'a> {
    Job {
        id: i64,
        task: &'a str,
        queue: &'a str,
        attempt: i32,
        attempts: i32,
        args: &'a RawValue,
        #[serde(skip_serializing_if = "Map::is_empty")]
        notes: &'a Map<String, Value>,
        #[serde(skip_serializing_if = "<[i64]>::is_empty")]
        parents: &'a [i64],
        #[serde(skip_serializing_if = "Option::is_none")]
        trace: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        tracestate: Option<&'a str>,
    },
    Cancel {
        id: i64,
    },
}

impl Told<'_> {
    fn line(&self) -> String {
        let text = serde_json::to_string(self).expect("it is JSON");
        // line ends can only stand between the arguments' values: within texts JSON escapes them
        text.replace(['\n', '\r'], " ") + "\n"
    }
}

/// Here is a job.
pub(super) fn job(context: &JobContext, args: &RawValue) -> String {
    let told = Told::Job {
        id: context.id(),
        task: context.task(),
        queue: context.queue(),
        attempt: context.attempt(),
        attempts: context.attempts(),
        args,
        notes: context.notes(),
        parents: context.parents(),
        trace: context.trace(),
        tracestate: context.tracestate(),
    };
    told.line()
}

/// End this job now.
pub(super) fn cancel(id: i64) -> String {
    Told::Cancel { id }.line()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn over(line: &str) -> (i64, Result<String, Failure>) {
        match Word::read(line.as_bytes()) {
            Ok(Word::Over(id, ending)) => (id, ending.map(|raw| raw.get().to_owned())),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn an_outcome_is_kept_to_the_letter() {
        assert_eq!(over(r#"{"finished":{"id":7,"result":{"a":1.50}}}"#), (7, Ok(r#"{"a":1.50}"#.into())));
        assert_eq!(over(r#"{"finished":{"id":7}}"#), (7, Ok("null".into())));
        assert_eq!(over(r#"{"finished":{"id":7,"result":null}}"#), (7, Ok("null".into())));
        assert_eq!(over(r#"{"failed":{"id":7,"error":"no disk"}}"#), (7, Err(Failure::retryable("no disk"))));
        let failed = over(r#"{"failed":{"id":7,"error":"x","retry":false,"backtrace":"at y"}}"#);
        assert_eq!(failed, (7, Err(Failure::permanent("x").with_backtrace("at y"))));
    }

    #[test]
    fn nonsense_is_refused() {
        let deep = format!(r#"{{"finished":{{"id":7,"result":{}1{}}}}}"#, "[".repeat(500), "]".repeat(500));
        let lines = [
            "",
            "hello",
            "7",
            r#""ready""#,
            r#"{"finished":{"id":7}} {}"#,
            r#"{"finished":{"id":7},"failed":{"id":7,"error":"x"}}"#,
            r#"{"finished":{"result":1}}"#,
            r#"{"failed":{"id":7}}"#,
            r#"{"failed":{"id":7,"error":"x","retries":false}}"#,
            r#"{"finished":{"id":7,"result":"\ud800"}}"#,
            r#"{"progress":{"id":7}}"#,
            r#"{"log":{"id":7,"level":"loud","text":"x"}}"#,
            r#"{"step":{"id":7}}"#,
            &deep,
        ];
        for line in lines {
            assert!(Word::read(line.as_bytes()).is_err(), "{line}");
        }
        assert!(Word::read(b"{\"finished\":{\"id\":7,\"result\":\"\xff\"}}").is_err());
    }

    #[test]
    fn arguments_of_many_lines_are_one_line() {
        let args = RawValue::from_string("[1,\r\n \"a\\nb\"]".into()).unwrap();
        let told = Told::Job {
            id: 7,
            task: "x",
            queue: "q",
            attempt: 1,
            attempts: 2,
            args: &args,
            notes: &Map::new(),
            parents: &[3],
            trace: None,
            tracestate: None,
        };
        let line = told.line();
        assert_eq!(line.matches('\n').count(), 1);
        let read: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["job"]["args"], serde_json::json!([1, "a\nb"]));
        assert_eq!((&read["job"]["parents"], read["job"].get("notes")), (&serde_json::json!([3]), None));
    }
}
