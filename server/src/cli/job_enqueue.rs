//! `minium job enqueue`.

use super::job::wait;
use super::output::Output;
use super::remote::{Remote, explain};
use super::stream_input::{Input, whole};
use crate::exit::{Exit, fault};
use clap::Args;
use minium_protocol::{EnqueueRequest, JobOptions, TraceContext, Unique, parse_duration};
use serde_json::Value;
use serde_json::value::RawValue;
use std::time::Duration;

#[derive(Debug, Args)]
#[command(after_help = "The job's number goes to stdout; with --wait, its result does.

Examples:
  minium job enqueue livesys/inventory
  minium job enqueue import '[\"rack3.csv\"]' --attempts 3 --note owner=ops
  minium job enqueue report @args.json --queue slow --delay 5m --key nightly
  echo '[1,2]' | minium job enqueue add - --wait=30s")]
pub(super) struct Enqueue {
    /// What to run
    task: String,
    /// What to run it with: JSON, @FILE, or - for stdin
    #[arg(value_name = "ARGS", default_value = "[]", allow_hyphen_values = true)]
    args: String,
    /// Where it waits
    #[arg(long)]
    queue: Option<String>,
    /// -1000 to 1000; higher runs first
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    priority: Option<i32>,
    /// Not before so long from now, as 90s or 5m
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    delay: Option<Duration>,
    /// Remove it if it has not been started within this time
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    expire: Option<Duration>,
    /// How many runs it may have
    #[arg(long, value_name = "N")]
    attempts: Option<i32>,
    /// Pause before an automatic retry
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    backoff: Option<Duration>,
    /// How long one run may take
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    timeout: Option<Duration>,
    /// A job that must have finished before; may be given several times
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    parent: Vec<i64>,
    /// Let it run after failed and cancelled parents too
    #[arg(long)]
    lax: bool,
    /// Let it run when a parent has failed, and call it off when none did
    #[arg(long, conflicts_with = "lax", requires = "parent")]
    on_failure: bool,
    /// Unique among the living jobs of its task: a second one is not enqueued
    #[arg(long)]
    key: Option<String>,
    /// For how long the key is held: alive, waiting, or a time as 5m, from now on
    #[arg(long, value_name = "HOW", value_parser = unique, requires = "key")]
    unique: Option<Unique>,
    /// Which of those that a limit of its task counts apart, such as a tenant
    #[arg(long, value_name = "NAME")]
    partition: Option<String>,
    /// The job that enqueues it; within a job's command it is that job
    #[arg(long, value_name = "ID", env = "MINIUM_JOB_ID", hide_env_values = true)]
    origin: Option<i64>,
    /// The trace that it belongs to, as W3C has it; within a job's command it is that job's. One that cannot be read counts for nothing
    #[arg(long, value_name = "CONTEXT", env = "TRACEPARENT", hide_env_values = true)]
    traceparent: Option<String>,
    /// What vendors say besides, within that trace, as W3C has it; within a job's command it is that job's
    // read by hand: what the environment says belongs to the trace of the environment, not to another that is named
    #[arg(long, value_name = "STATE", requires = "traceparent")]
    tracestate: Option<String>,
    /// A note; the value is JSON if it reads as such, else text
    #[arg(long, value_name = "NAME=VALUE", value_parser = note)]
    note: Vec<(String, Value)>,
    /// Wait until it has ended, at most so long
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, value_parser = parse_duration)]
    wait: Option<Option<Duration>>,
    /// Print one JSON document
    #[arg(long, display_order = 800)]
    json: bool,
    #[command(flatten)]
    remote: Remote,
}

/// Reads for how long a key is held.
fn unique(text: &str) -> Result<Unique, String> {
    match text {
        "alive" => Ok(Unique::Alive),
        "waiting" => Ok(Unique::Waiting),
        span => {
            parse_duration(span).map(Unique::For).map_err(|_| "it is alive, waiting, or a time as 5m".into())
        }
    }
}

/// Reads `NAME=VALUE`.
pub(super) fn note(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("a note looks like NAME=VALUE")?;
    if name.is_empty() {
        return Err("the note has no name".into());
    }
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.into()));
    Ok((name.into(), value))
}

impl Enqueue {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let output = Output::new(self.json);
        let client = self.remote.client()?;
        let limit = self.wait;
        let request = self.request().await?;
        let job = client.enqueue(&request).await.map_err(explain)?;
        let (id, task) = (job.id, &request.task);
        if job.existing {
            output.notice(&format!("Job {id} of {task} has this key and lives: nothing was enqueued."));
        }
        match limit {
            Some(limit) => {
                output.hint(&format!("Enqueued job {id}."));
                wait(&client, id, limit, output).await
            }
            None if output.is_json() => output.json(&job.raw),
            None => {
                output.line(&id.to_string())?;
                output.hint(&format!("Watch it: minium sub task/{task}/{id} --after earliest"));
                Ok(())
            }
        }
    }

    async fn request(self) -> anyhow::Result<EnqueueRequest> {
        let usual = JobOptions::default();
        let request = EnqueueRequest {
            args: args(&self.args).await?,
            task: self.task,
            options: JobOptions {
                attempts: self.attempts.unwrap_or(usual.attempts),
                delay: self.delay.unwrap_or(usual.delay),
                expire: self.expire,
                lax: self.lax,
                on_failure: self.on_failure,
                notes: self.note.into_iter().collect(),
                parents: self.parent,
                priority: self.priority.unwrap_or(usual.priority),
                queue: self.queue.unwrap_or(usual.queue),
                key: self.key,
                unique: self.unique.unwrap_or_default(),
                partition: self.partition,
                origin: self.origin,
                trace: trace(self.traceparent, self.tracestate),
                timeout: self.timeout,
                backoff: self.backoff,
                ..JobOptions::default()
            },
        };
        request.check().map_err(|reason| fault(Exit::Usage, reason))?;
        Ok(request)
    }
}

/// The state of the environment goes with the trace of the environment alone.
fn trace(parent: Option<String>, state: Option<String>) -> Option<TraceContext> {
    let parent = parent?;
    let inherited = || {
        let same = std::env::var("TRACEPARENT").is_ok_and(|around| around == parent);
        std::env::var("TRACESTATE").ok().filter(|_| same)
    };
    TraceContext::new(&parent, state.or_else(inherited).as_deref())
}

/// Reads the arguments: JSON, `@FILE` or `-`.
pub(super) async fn args(text: &str) -> anyhow::Result<Box<RawValue>> {
    let (from, json) = match Input::parse(text) {
        Input::Here(json) => ("ARGS", json.into_bytes()),
        Input::File(path) => ("the file", tokio::fs::read(&path).await.map_err(|e| unreadable(&path, &e))?),
        Input::Stdin => ("stdin", whole().await?),
    };
    serde_json::from_slice(&json).map_err(|error| {
        let hint = if from == "ARGS" { "; quote it for the shell, as in '[\"x\"]'" } else { "" };
        fault(Exit::Usage, format!("{from} is not JSON: {error}{hint}"))
    })
}

/// A file that was named and cannot be read.
pub(super) fn unreadable(path: &std::path::Path, error: &std::io::Error) -> anyhow::Error {
    fault(Exit::Usage, format!("cannot read {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn notes_are_json_where_they_can_be() {
        assert_eq!(note("n=5"), Ok(("n".into(), json!(5))));
        assert_eq!(note("owner=ops team"), Ok(("owner".into(), json!("ops team"))));
        assert_eq!(note("x=a=b"), Ok(("x".into(), json!("a=b"))));
        assert!(note("alone").is_err() && note("=x").is_err());
    }

    #[tokio::test]
    async fn arguments_that_are_no_json_are_a_wrong_call() {
        assert_eq!(args(r#"{"a":1}"#).await.unwrap().get(), r#"{"a":1}"#);
        let error = args("[x]").await.unwrap_err().to_string();
        assert!(error.contains("not JSON") && error.contains("quote"), "{error}");
        let error = args("@/no/such/file").await.unwrap_err().to_string();
        assert!(error.contains("/no/such/file"), "{error}");
    }
}
