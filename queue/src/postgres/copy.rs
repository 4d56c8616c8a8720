//! Enqueues a stream of jobs by COPY into `minium.bulk`: one statement, one commit, however many there are.
//!
//! A line is a call of `minium.enqueue`, so a job gets what that can say: neither a place in the same call (`after`) nor a
//! schedule. Nobody is told the numbers of the jobs.

use super::PgStore;
use super::connection::failed;
use crate::error::QueueError;
use crate::metrics::{JOBS_ENQUEUED, count_jobs};
use crate::rules;
use futures::{SinkExt, Stream, StreamExt};
use minium_protocol::{EnqueueRequest, JobOptions, TraceContext, Unique};
use std::collections::HashMap;
use std::fmt::Write;
use std::io::Cursor;
use std::pin::pin;
use std::time::Duration;
use tokio_postgres::{CopyInSink, Error};

const WHAT: &str = "enqueue jobs by copy";
const COPY: &str = "copy minium.bulk (task, args, options) from stdin";
/// So much is sent at once, and no more than this and one job is held here.
const PIECE_BYTES: usize = 64 * 1024;
/// Jobs are counted for so many kinds at most; more are no kinds, but names that somebody makes up.
const KINDS_MAX: usize = 1_000;

/// Lines that were not sent yet, and what was counted of those that were.
#[derive(Default)]
struct Lines {
    text: String,
    count: u64,
    kinds: HashMap<(String, String), u64>,
}

impl PgStore {
    /// Enqueues all jobs of a stream or none, in one statement; the stream is asked for the next one as the database takes
    /// them. Answers how many lines there were: one whose key is held enqueues nothing. Arguments are kept as `jsonb` has them.
    /// Children of parents that end meanwhile are released by upkeep. Two that copy the same keys in other orders may wait for each
    /// other: the database ends one of them, and it is not run again.
    ///
    /// # Errors
    /// [`QueueError::Invalid`] for a job that breaks a rule, with its line, from 1: nothing was enqueued then.
    pub async fn copy(&self, jobs: impl Stream<Item = EnqueueRequest> + Send) -> Result<u64, QueueError> {
        let mut client = self.connections.get(WHAT).await?;
        let transaction = client.transaction().await.map_err(|e| failed(WHAT, e))?;
        // it takes as long as the stream does
        transaction.batch_execute("set local statement_timeout = 0").await.map_err(|e| failed(WHAT, e))?;
        let sink: CopyInSink<Cursor<Vec<u8>>> =
            transaction.copy_in(COPY).await.map_err(|e| failed(WHAT, e))?;
        let (mut sink, mut jobs) = (pin!(sink), pin!(jobs));
        let mut lines = Lines::default();
        while let Some(job) = jobs.next().await {
            lines.push(&job)?;
            if lines.text.len() >= PIECE_BYTES {
                self.connections.guard(WHAT, sink.send(lines.take())).await?.map_err(|e| failed(WHAT, e))?;
            }
        }
        let end = async {
            sink.send(lines.take()).await.map_err(|e| failed(WHAT, e))?;
            let copied = sink.finish().await.map_err(with_line)?;
            transaction.commit().await.map_err(|e| failed(WHAT, e))?;
            Ok(copied)
        };
        let copied = self.connections.guard(WHAT, end).await??;
        for ((queue, task), n) in lines.kinds {
            count_jobs(JOBS_ENQUEUED, &queue, &task, None, n);
        }
        self.wake(true);
        Ok(copied)
    }
}

/// What the database refused, with the line that it names besides its words (which would show what stands in it).
fn with_line(error: Error) -> QueueError {
    let line = error.as_db_error().and_then(|db| line_of(db.where_()?));
    match (failed(WHAT, error), line) {
        (QueueError::Invalid(words), Some(line)) if !words.starts_with("line ") => {
            QueueError::Invalid(format!("line {line}: {words}"))
        }
        (error, _) => error,
    }
}

/// The number in `COPY bulk, line 7, column args: …`.
fn line_of(place: &str) -> Option<u64> {
    let (_, rest) = place.split_once("COPY bulk, line ")?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

impl Lines {
    fn push(&mut self, job: &EnqueueRequest) -> Result<(), QueueError> {
        self.count += 1;
        let line = self.count;
        let refuse = |words: &str| QueueError::Invalid(format!("line {line}: {words}"));
        let o = &job.options;
        if !o.after.is_empty() || o.schedule.is_some() {
            return Err(refuse("a job that is copied has neither after nor a schedule"));
        }
        rules::check_requests(std::slice::from_ref(job)).map_err(|error| match error {
            QueueError::Invalid(words) => refuse(&words),
            error => error,
        })?;
        escape(&mut self.text, &job.task);
        self.text.push('\t');
        escape(&mut self.text, job.args.get());
        self.text.push('\t');
        escape(&mut self.text, &options(o));
        self.text.push('\n');
        let kind = (o.queue.clone(), job.task.clone());
        if self.kinds.len() < KINDS_MAX || self.kinds.contains_key(&kind) {
            *self.kinds.entry(kind).or_default() += 1;
        }
        Ok(())
    }

    fn take(&mut self) -> Cursor<Vec<u8>> {
        let room = String::with_capacity(self.text.capacity());
        Cursor::new(std::mem::replace(&mut self.text, room).into_bytes())
    }
}

/// As the text form of COPY has it.
fn escape(line: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '\\' => line.push_str("\\\\"),
            '\t' => line.push_str("\\t"),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            c => line.push(c),
        }
    }
}

/// The options of `minium.enqueue`; those that are as usual are left out.
fn options(o: &JobOptions) -> String {
    let mut text = String::from("{");
    let mut member = |name: &str, value: &dyn std::fmt::Display| {
        let comma = if text.len() > 1 { "," } else { "" };
        write!(text, "{comma}\"{name}\":{value}").expect("a string takes every text");
    };
    let seconds = |span: Duration| {
        let micros = rules::micros(span);
        format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
    };
    let json = |text: &str| serde_json::to_string(text).expect("text always serialises");
    let usual = JobOptions::default();
    if o.attempts != usual.attempts {
        member("attempts", &o.attempts);
    }
    if o.priority != usual.priority {
        member("priority", &o.priority);
    }
    if o.queue != usual.queue {
        member("queue", &json(&o.queue));
    }
    if o.delay > Duration::ZERO {
        member("delay", &seconds(o.delay));
    }
    for (name, span) in [("expire", o.expire), ("timeout", o.timeout), ("backoff", o.backoff)] {
        if let Some(span) = span {
            member(name, &seconds(span));
        }
    }
    let trace = o.trace.as_ref();
    let words = [
        ("key", o.key.as_deref()),
        ("partition", o.partition.as_deref()),
        ("traceparent", trace.map(TraceContext::traceparent)),
        ("tracestate", trace.and_then(TraceContext::tracestate)),
    ];
    for (name, word) in words {
        if let Some(word) = word {
            member(name, &json(word));
        }
    }
    match o.unique {
        Unique::Alive => {}
        Unique::Waiting => member("unique", &"\"waiting\""),
        Unique::For(span) => member("unique", &seconds(span)),
    }
    if o.on_failure {
        member("when", &"\"failure\"");
    }
    if o.lax {
        member("lax", &true);
    }
    if !o.parents.is_empty() {
        member("parents", &serde_json::to_string(&o.parents).expect("numbers always serialise"));
    }
    if !o.notes.is_empty() {
        member("notes", &rules::notes_text(&rules::storable_notes(&o.notes)));
    }
    if let Some(origin) = o.origin {
        member("origin", &origin);
    }
    text.push('}');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(args: &str) -> EnqueueRequest {
        EnqueueRequest::new("a/b", serde_json::value::RawValue::from_string(args.into()).unwrap())
    }

    #[test]
    fn a_line_is_as_copy_reads_it() {
        let mut lines = Lines::default();
        lines.push(&job("[\"a\\\\b\\tc\",\n1]")).unwrap();
        let mut full = job("{}");
        full.options = JobOptions {
            attempts: 2,
            delay: Duration::from_millis(1_500),
            key: Some("k\"".into()),
            unique: Unique::Waiting,
            parents: vec![1, 2],
            lax: true,
            ..JobOptions::default()
        };
        lines.push(&full).unwrap();
        assert_eq!(
            String::from_utf8(lines.take().into_inner()).unwrap(),
            concat!(
                "a/b\t[\"a\\\\\\\\b\\\\tc\",\\n1]\t{}\n",
                "a/b\t{}\t{\"attempts\":2,\"delay\":1.500000,\"key\":\"k\\\\\"\",\"unique\":\"waiting\",",
                "\"lax\":true,\"parents\":[1,2]}\n"
            )
        );
    }

    #[test]
    fn what_cannot_be_copied_is_refused_with_its_line() {
        let mut lines = Lines::default();
        lines.push(&job("1")).unwrap();
        let mut fired = job("1");
        fired.options.schedule = Some("nightly".into());
        let refused = lines.push(&fired).unwrap_err();
        assert!(refused.to_string().starts_with("line 2: a job that is copied"), "{refused}");
        let mut wrong = job("1");
        wrong.options.attempts = 0;
        let refused = lines.push(&wrong).unwrap_err();
        assert!(
            refused.to_string().starts_with("line 3: ") && refused.to_string().contains("attempts"),
            "{refused}"
        );
    }

    #[test]
    fn the_line_that_the_database_names_is_told() {
        assert_eq!(line_of("COPY bulk, line 7, column args: \"x\""), Some(7));
        assert_eq!(line_of("PL/pgSQL function x() line 3"), None);
    }
}
