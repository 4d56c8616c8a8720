//! `minium job log`: what a job has said, and with `--follow` what it goes on to say.
//!
//! The log is read by the page and heard by the job's events, and the numbers of the lines join the two: an event that
//! goes on where the last line was is shown as it is, one that leaves a gap makes the log be read again from there, and
//! one that repeats what was read adds nothing.

use super::output::{Colour, Output, Style, clean};
use super::remote::{Remote, explain};
use super::stream::{Told, stopped, subscribe};
use clap::Args;
use futures::StreamExt;
use minium_client::{Client, ClientError, ConnectOptions, Event, LogList, Received};
use minium_protocol::{After, ErrorCode, EventType, Filter, KeptLine, LOG_LINES_MAX, LogLevel, Topic};
use std::time::Duration;
use tokio::time::Instant;

#[derive(Debug, Args)]
#[command(
    after_help = "Of each job the newest lines are kept, and as long as the job. In a pipe, and with --follow --json, each \
    line is a line of JSON. Lines have the times of whoever said them.

Examples:
  minium job log 42
  minium job log 42 --follow
  minium job log 42 --json | jq -r '.lines[] | select(.level == \"step\") | .text'"
)]
pub(super) struct Log {
    /// The job's number
    id: i64,
    /// Go on with what it says, until it has ended
    #[arg(long, short)]
    follow: bool,
    /// Print one JSON document; with --follow one per line
    #[arg(long, display_order = 800)]
    json: bool,
    #[command(flatten)]
    remote: Remote,
}

impl Log {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let output = Output::new(self.json);
        let client = self.remote.client()?;
        if self.follow {
            let followed = follow(&client, self.id, output).await;
            client.close().await;
            return followed;
        }
        let mut reader = Reader::new(&client, self.id, output);
        if !output.is_json() {
            return reader.catch_up().await.map(drop);
        }
        let (mut lines, mut dropped) = (Vec::new(), 0);
        loop {
            let page = reader.page().await.map_err(explain)?;
            dropped = page.dropped.max(dropped);
            reader.last = page.next.unwrap_or(reader.last);
            lines.extend(page.lines);
            if page.next.is_none() {
                return output.line(&serde_json::json!({ "lines": lines, "dropped": dropped }).to_string());
            }
        }
    }
}

/// Shows the log and what is added to it, until the job has ended or is gone, or somebody says stop.
async fn follow(client: &Client, id: i64, output: Output) -> anyhow::Result<()> {
    let task = client.get(id).await.map_err(explain)?.job.task;
    let connection = client.connect(ConnectOptions::default()).map_err(explain)?;
    let topic: Topic = format!("task/{task}/{id}").parse()?;
    let filter = Filter::from(topic);
    let mut events = subscribe(&connection, &filter, After::Latest, output).await.map_err(explain)?;
    let mut reader = Reader::new(client, id, output);
    let mut state = Told::new(&connection);
    let mut stop = std::pin::pin!(stopped());
    // what was said before the subscription
    let mut over = reader.catch_up_to_end().await?;
    while !over {
        let event = tokio::select! {
            biased;
            () = &mut stop => break,
            () = state.changed(output) => continue,
            event = events.next() => match event {
                None => break,
                Some(event) => event.map_err(explain)?,
            },
        };
        over = match event {
            Event::Message(message) => reader.hear(&message).await?,
            Event::Lost(_) => {
                events.begin(After::Latest).await.map_err(explain)?;
                reader.catch_up_to_end().await?
            }
            Event::Gap { .. } => reader.catch_up_to_end().await?,
            _ => false,
        };
    }
    Ok(())
}

/// What an event's lines are to somebody who has seen the log up to a line.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    /// So many of them were seen; the others go on from there.
    Fresh(usize),
    /// There are lines between, which must be read.
    Gap,
}

fn heard(last: i64, lines: &[KeptLine]) -> Heard {
    match lines.first() {
        Some(first) if first.n > last + 1 => Heard::Gap,
        _ => Heard::Fresh(lines.iter().filter(|line| line.n <= last).count()),
    }
}

/// Shows a log, each line once.
struct Reader<'a> {
    client: &'a Client,
    id: i64,
    output: Output,
    /// The last line that was shown.
    last: i64,
}

impl Reader<'_> {
    fn new(client: &Client, id: i64, output: Output) -> Reader<'_> {
        Reader { client, id, output, last: 0 }
    }

    async fn page(&self) -> Result<LogList, ClientError> {
        self.client.log(self.id, self.last, Some(LOG_LINES_MAX as u32)).await
    }

    /// Shows what is there. Answers whether the job is.
    async fn catch_up(&mut self) -> anyhow::Result<bool> {
        loop {
            let page = match patiently(|| self.page()).await {
                Ok(page) => page,
                // one that is gone while it is looked at has no more to say
                Err(error) if error.code() == Some(ErrorCode::NotFound) && self.last > 0 => return Ok(false),
                Err(error) => return Err(explain(error)),
            };
            let missing = page.dropped - self.last;
            if missing > 0 {
                self.output.notice(&format!("minium: {missing} lines are kept no more."));
            }
            self.show(&page.lines)?;
            if page.next.is_none() {
                return Ok(true);
            }
        }
    }

    /// Shows what is there. Answers whether it was all: the job has ended, or is gone.
    async fn catch_up_to_end(&mut self) -> anyhow::Result<bool> {
        if !self.catch_up().await? {
            return Ok(true);
        }
        match patiently(|| self.client.get(self.id)).await {
            Ok(info) if !info.job.state.is_ended() => Ok(false),
            // its last words came before its end, and after they were looked for
            Ok(_) => self.catch_up().await.map(|_| true),
            Err(error) if error.code() == Some(ErrorCode::NotFound) => Ok(true),
            Err(error) => Err(explain(error)),
        }
    }

    /// Shows what an event brings. Answers whether it was the last.
    async fn hear(&mut self, message: &Received) -> anyhow::Result<bool> {
        let Some(event) = message.task_event().map_err(explain)? else { return Ok(false) };
        match heard(self.last, &event.log) {
            Heard::Fresh(seen) => self.show(&event.log[seen..])?,
            Heard::Gap => drop(self.catch_up().await?),
        }
        match event.kind {
            EventType::Removed | EventType::Expired => Ok(true),
            // a failure may be followed by another attempt at once
            _ if event.job.state.is_ended() => self.catch_up_to_end().await,
            _ => Ok(false),
        }
    }

    fn show(&mut self, lines: &[KeptLine]) -> anyhow::Result<()> {
        for line in lines {
            match self.output.style() {
                Style::Json | Style::Plain => self.output.line(&serde_json::json!(line).to_string())?,
                Style::People { .. } => self.output.line(&for_people(self.output, line))?,
            }
            self.last = line.n;
        }
        Ok(())
    }
}

fn for_people(output: Output, line: &KeptLine) -> String {
    let (word, colour) = match line.level {
        LogLevel::Step => ("STEP ", Some(Colour::Green)),
        LogLevel::Debug => ("DEBUG", Some(Colour::Grey)),
        LogLevel::Info => ("INFO ", None),
        LogLevel::Warn => ("WARN ", Some(Colour::Yellow)),
        LogLevel::Error => ("ERROR", Some(Colour::Red)),
    };
    let time = output.paint(Colour::Grey, &format!("{:.3}", line.at));
    let word = colour.map_or_else(|| word.to_owned(), |colour| output.paint(colour, word));
    format!("{time} {word} {}", clean(&line.text))
}

/// Asks again for a while: the node may come back.
async fn patiently<T, F: Future<Output = Result<T, ClientError>>>(
    mut ask: impl FnMut() -> F,
) -> Result<T, ClientError> {
    const PATIENCE: Duration = Duration::from_secs(30);
    const PAUSE: Duration = Duration::from_millis(250);
    let deadline = Instant::now() + PATIENCE;
    loop {
        match ask().await {
            Err(error) if error.is_away() && Instant::now() < deadline => tokio::time::sleep(PAUSE).await,
            answer => return answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_shown_once_and_none_is_left_out() {
        let line = |n| KeptLine {
            n,
            at: jiff::Timestamp::UNIX_EPOCH,
            attempt: 1,
            level: LogLevel::Info,
            text: String::new(),
        };
        let lines = [line(4), line(5), line(6)];
        assert_eq!(heard(3, &lines), Heard::Fresh(0));
        assert_eq!(heard(5, &lines), Heard::Fresh(2), "two of them were read before");
        assert_eq!(heard(9, &lines), Heard::Fresh(3));
        assert_eq!(heard(2, &lines), Heard::Gap);
        assert_eq!(heard(9, &[]), Heard::Fresh(0));
    }
}
