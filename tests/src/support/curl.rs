//! Server-sent events as curl gets them.

use super::wait;
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// One event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) id: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) data: String,
}

/// A running `curl -N`.
pub(crate) struct Stream {
    /// Of the answer.
    pub(crate) status: u16,
    /// Its header lines, as they came.
    pub(crate) headers: Vec<String>,
    lines: Lines<BufReader<ChildStdout>>,
    // killed with this value
    _process: Child,
}

impl Stream {
    /// Subscribes, and waits for the head of the answer.
    pub(crate) async fn open(url: &str, headers: &[(&str, &str)]) -> Stream {
        Stream::try_open(url, headers).await.unwrap_or_else(|| panic!("{url}: curl got no answer"))
    }

    /// The same for a server that may be down.
    pub(crate) async fn try_open(url: &str, headers: &[(&str, &str)]) -> Option<Stream> {
        let mut command = Command::new("curl");
        command.args([
            "--silent",
            "--no-buffer",
            "--include",
            "--globoff",
            "--header",
            "Accept: text/event-stream",
        ]);
        for (name, value) in headers {
            command.arg("--header").arg(format!("{name}: {value}"));
        }
        command.arg(url).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().unwrap_or_else(|e| panic!("curl cannot be started: {e}"));
        let mut lines = BufReader::new(process.stdout.take().expect("stdout is piped")).lines();
        let mut head = Vec::new();
        loop {
            let line = wait::within("the head of an SSE answer", lines.next_line()).await.unwrap()?;
            if line.is_empty() {
                break;
            }
            head.push(line);
        }
        let status = head[0].split(' ').nth(1).unwrap().parse().unwrap();
        Some(Stream { status, headers: head.split_off(1), lines, _process: process })
    }

    async fn line(&mut self) -> Option<String> {
        wait::within("a line of an SSE answer", self.lines.next_line()).await.unwrap()
    }

    /// The next event; `None` when the answer has ended.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        let mut event = Event::default();
        let mut data: Vec<String> = Vec::new();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                if data.is_empty() {
                    // a block without data is no event, by the standard; it may still carry `retry:`
                    event = Event::default();
                    continue;
                }
                event.data = data.join("\n");
                return Some(event);
            }
            let (field, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
            match field {
                "data" => data.push(value),
                "id" => event.id = Some(value),
                "event" => event.name = Some(value),
                "" | "retry" => {}
                other => panic!("an SSE stream has no field {other:?}"),
            }
        }
    }

    /// The next event, which must come.
    pub(crate) async fn event(&mut self) -> Event {
        self.next().await.expect("the stream goes on")
    }

    /// The rest of the answer, as text; for one that is no stream.
    pub(crate) async fn rest(&mut self) -> String {
        let mut text = String::new();
        while let Some(line) = self.line().await {
            text.push_str(&line);
        }
        text
    }
}
