//! `minium audit show`, `export` and `replay`: what an archive holds, for people, for programs, and for a bus.

use super::audit::{passed, told};
use super::audit_place::Whence;
use super::output::{Output, Style};
use super::remote::{Remote, explain};
use super::stream::stopped;
use super::stream_render::write;
use crate::exit::{Exit, fault};
use clap::{Args, ValueEnum};
use jiff::{SignedDuration, Timestamp};
use minium_audit::{AuditError, Entry, Fact, ReplayOptions, Selection, read, read_with_facts, replay};
use minium_client::{ConnectOptions, Message};
use minium_protocol::{Filter, Topic, parse_duration};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Which events.
#[derive(Debug, Args)]
struct Which {
    #[command(flatten)]
    whence: Whence,
    /// Of this job
    #[arg(long, value_name = "ID")]
    job: Option<i64>,
    /// Of jobs of this task
    #[arg(long, value_name = "NAME")]
    task: Option<String>,
    /// That a subscriber of this topic would have got
    #[arg(long, value_name = "TOPIC")]
    topic: Option<Filter>,
    /// Not before this time (2026-11-22T02:00:00Z), or so long ago (90s, 2h, 7d)
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Timestamp>,
    /// Before this time, or so long ago
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<Timestamp>,
}

/// A time, or how long ago it was.
fn moment(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let ago = parse_duration(text)
        .map_err(|_| "it is neither a time in RFC 3339 nor as 90s, 2h or 7d".to_owned())?;
    let ago = SignedDuration::try_from(ago).map_err(|e| e.to_string())?;
    Timestamp::now().checked_sub(ago).map_err(|e| e.to_string())
}

impl Which {
    fn selection(&self) -> Selection {
        Selection {
            job: self.job,
            task: self.task.clone(),
            topic: self.topic.clone(),
            since: self.since,
            until: self.until,
        }
    }
}

/// Arguments of `minium audit show`.
#[derive(Debug, Args)]
#[command(after_help = "In a pipe each event is a line, as it came on the wire.

Examples:
  minium audit show archive --job 42
  minium audit show archive --topic task/livesys/7 --since 7d | jq .type")]
pub(crate) struct Show {
    #[command(flatten)]
    which: Which,
    /// One event a line, on a terminal too
    #[arg(long)]
    json: bool,
}

/// What to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// As it came on the wire, one event a line
    Ndjson,
    /// A table with a head, RFC 4180
    Csv,
    /// Columns, for DuckDB, Spark and their like
    #[cfg(feature = "parquet")]
    Parquet,
}

/// Arguments of `minium audit export`.
#[derive(Debug, Args)]
pub(crate) struct Export {
    #[command(flatten)]
    which: Which,
    /// What to write
    #[arg(long, value_enum)]
    format: Format,
    /// Write to this file, which must not be there, and is there when it is whole; without it to stdout
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
}

/// Arguments of `minium audit replay`.
#[derive(Debug, Args)]
#[command(after_help = "What is published is the data of each event, on its topic below --topic-prefix.

Examples:
  minium audit replay archive --url http://127.0.0.1:3000 --since 2h --speed 10
  minium sub replay/task/import --topic")]
pub(crate) struct Replay {
    #[command(flatten)]
    which: Which,
    /// So many times as fast as it happened
    #[arg(long, value_name = "N", default_value_t = 1.0, conflicts_with = "fast", value_parser = speed)]
    speed: f64,
    /// As fast as the server takes it
    #[arg(long)]
    fast: bool,
    /// Goes before each topic
    #[arg(long, value_name = "TOPIC", default_value = "replay")]
    topic_prefix: Topic,
    #[command(flatten)]
    remote: Remote,
}

fn speed(text: &str) -> Result<f64, String> {
    let speed = text.parse().ok().filter(|speed: &f64| speed.is_finite() && *speed > 0.0);
    speed.ok_or_else(|| "it is a number above 0".into())
}

/// Tells people how far it is, now and then.
struct Ticker {
    output: Output,
    last: Option<Instant>,
}

impl Ticker {
    fn new(output: Output) -> Ticker {
        Ticker { output, last: None }
    }

    /// Is it time to say something?
    fn is_due(&mut self) -> bool {
        const EVERY: Duration = Duration::from_millis(200);
        let due = self.last.is_none_or(|last| last.elapsed() >= EVERY);
        if due {
            self.last = Some(Instant::now());
        }
        due
    }

    fn tell(&mut self, done: u64, all: u64, words: &str) {
        if self.is_due() {
            self.output.progress(done, all, words);
        }
    }
}

impl Show {
    /// Does it.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let output = Output::new(self.json);
        let mut count = 0_u64;
        let (place, selection) = (self.which.whence.place()?, self.which.selection());
        let mut each = |entry: &Entry<'_>| {
            count += 1;
            let written = match output.style() {
                Style::People { .. } => write(output, &Message::Text(entry.text.to_owned())),
                Style::Plain | Style::Json => output.line(entry.text),
            };
            written.map(|()| ControlFlow::Continue(())).map_err(passed)
        };
        // a pipe gets events alone
        let mut fact = |fact: Fact| {
            output.notice(&format!("on record: {} at byte {}: {}", fact.file, fact.offset, fact.what));
        };
        let shown = tokio::task::block_in_place(|| read_with_facts(place, &selection, &mut fact, &mut each));
        super::output::quietly(shown.map_err(told))?;
        if count == 0 {
            output.hint("No such event is in the archive.");
        }
        Ok(())
    }
}

impl Export {
    /// Does it.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let output = Output::new(false);
        match &self.to {
            None => super::output::quietly(self.write(&mut BufWriter::new(Out(output)), None)),
            Some(path) => {
                let part = Part::begin(path)?;
                let mut file = BufWriter::new(&part.file);
                let written = self.write(&mut file, Some(Ticker::new(output)));
                // whoever reads an error next reads it on a line of its own
                output.progress_ended();
                written?;
                file.flush().map_err(|e| failed(path, &e))?;
                drop(file);
                part.finish()
            }
        }
    }

    fn write(&self, to: &mut (dyn Write + Send), ticker: Option<Ticker>) -> anyhow::Result<()> {
        let path = self.to.as_deref().unwrap_or(Path::new("stdout"));
        let lost = |e: std::io::Error| match e.downcast::<Lost>() {
            Ok(lost) => passed(lost.0),
            Err(e) => passed(failed(path, &e)),
        };
        match self.format {
            Format::Ndjson => self.each(ticker, &mut |entry| {
                to.write_all(entry.text.as_bytes()).and_then(|()| to.write_all(b"\n")).map_err(lost)
            })?,
            Format::Csv => {
                to.write_all(HEAD.as_bytes()).map_err(|e| told(lost(e)))?;
                self.each(ticker, &mut |entry| to.write_all(row(entry).as_bytes()).map_err(lost))?;
            }
            #[cfg(feature = "parquet")]
            Format::Parquet => {
                let mut columns = minium_audit::ParquetWriter::new(&mut *to).map_err(told)?;
                self.each(ticker, &mut |entry| columns.push(entry))?;
                columns.finish().map_err(told)?;
            }
        }
        to.flush().map_err(|e| told(lost(e)))
    }

    /// Gives the events that were asked for, one after another.
    fn each(
        &self,
        mut ticker: Option<Ticker>,
        write: &mut dyn FnMut(&Entry<'_>) -> Result<(), AuditError>,
    ) -> anyhow::Result<()> {
        let mut tell = |done, all| {
            if let Some(ticker) = &mut ticker {
                ticker.tell(done, all, "exported");
            }
        };
        let (place, selection) = (self.which.whence.place()?, self.which.selection());
        let mut each = |entry: &Entry<'_>| write(entry).map(|()| ControlFlow::Continue(()));
        tokio::task::block_in_place(|| read(place, &selection, &mut tell, &mut each)).map_err(told)
    }
}

/// A file beside the one that is asked for, which it becomes when it is whole. Until then it goes with its owner.
struct Part<'a> {
    path: &'a Path,
    beside: PathBuf,
    file: File,
    whole: bool,
}

impl<'a> Part<'a> {
    fn begin(path: &'a Path) -> anyhow::Result<Part<'a>> {
        let made = |e: std::io::Error| fault(Exit::Failed, format!("{} cannot be made: {e}", path.display()));
        if path.symlink_metadata().is_ok() {
            return Err(made(std::io::ErrorKind::AlreadyExists.into()));
        }
        let mut beside = path.as_os_str().to_owned();
        beside.push(".part");
        // what a process that was killed left behind is nobody's
        let file = File::create(&beside).map_err(made)?;
        Ok(Part { path, beside: beside.into(), file, whole: false })
    }

    fn finish(mut self) -> anyhow::Result<()> {
        let path = self.path;
        let lost = |e: std::io::Error| failed(path, &e);
        self.file.sync_all().map_err(lost)?;
        std::fs::rename(&self.beside, self.path).map_err(lost)?;
        self.whole = true;
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(lost)
    }
}

impl Drop for Part<'_> {
    fn drop(&mut self) {
        if !self.whole {
            std::fs::remove_file(&self.beside).ok();
        }
    }
}

fn failed(path: &Path, error: &std::io::Error) -> anyhow::Error {
    fault(Exit::Failed, format!("{} cannot be written: {error}", path.display()))
}

/// Stdout, by the one place that writes there.
struct Out(Output);

/// What that place said.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Lost(anyhow::Error);

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.whole(bytes).map(|()| bytes.len()).map_err(|e| std::io::Error::other(Lost(e)))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The columns of an export.
const HEAD: &str = "position,time,type,topic,job,task,queue,state,attempt,worker,error,data\r\n";

/// One event as a row. What an event has not stays empty.
fn row(entry: &Entry<'_>) -> String {
    let job = entry.job();
    let job = job.as_ref();
    let text = |value: Option<String>| value.unwrap_or_default();
    let fields = [
        text(entry.position().map(|p| p.to_string())),
        text(entry.time.map(|t| t.to_string())),
        entry.kind.clone().into_owned(),
        entry.topic(),
        text(job.map(|j| j.id.to_string())),
        text(job.map(|j| j.task.clone())),
        text(job.map(|j| j.queue.clone())),
        text(job.map(|j| j.state.to_string())),
        text(job.map(|j| j.attempt.to_string())),
        text(job.and_then(|j| j.worker.as_ref()).map(|w| w.id.to_string())),
        text(job.and_then(|j| j.error.clone())),
        text(entry.data.map(|data| data.get().to_owned())),
    ];
    let quoted = |field: String| match field.contains(['"', ',', '\n', '\r']) {
        true => format!("\"{}\"", field.replace('"', "\"\"")),
        false => field,
    };
    format!("{}\r\n", fields.map(quoted).join(","))
}

impl Replay {
    /// Does it.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let output = Output::new(false);
        let client = self.remote.client()?;
        let connection = client.connect(ConnectOptions::default()).map_err(explain)?;
        let options = ReplayOptions {
            selection: self.which.selection(),
            speed: (!self.fast).then_some(self.speed),
            prefix: self.topic_prefix,
        };
        let place = self.which.whence.place()?;
        let stop = CancellationToken::new();
        let mut ticker = Ticker::new(output);
        let mut tell = |done: minium_audit::Replayed| {
            let at = done.time.map_or_else(String::new, |time| time.to_string());
            ticker.tell(0, 0, &format!("{} events, at {at}", done.events));
        };
        let replaying = Box::pin(replay(&connection, place, options, stop.clone(), &mut tell));
        let ending = async {
            stopped().await;
            stop.cancel();
            std::future::pending().await
        };
        let result = tokio::select! {
            result = replaying => result,
            () = ending => unreachable!("it waits for the end of the replay"),
        };
        output.progress_ended();
        client.close().await;
        let replayed = result.map_err(told)?;
        output.hint(&format!("Replayed {} events.", replayed.events));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_time_or_how_long_ago() {
        assert_eq!(moment("2026-11-22T02:00:00Z").unwrap().as_second(), 1_795_312_800);
        let ago = Timestamp::now().duration_since(moment("2h").unwrap()).as_secs();
        assert!((7_199..7_300).contains(&ago), "{ago}");
        assert!(
            moment("yesterday").is_err()
                && speed("0").is_err()
                && speed("-1").is_err()
                && speed("x").is_err()
        );
        assert_eq!(speed("2.5"), Ok(2.5));
    }
}
