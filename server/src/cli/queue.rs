//! `minium queue`: where jobs wait, what holds them back, and what the last day brought.

use super::output::{Cell, Colour, Output, quietly};
use super::remote::{Remote, explain};
use clap::{Args, Subcommand};
use serde_json::json;

/// Arguments of `minium queue`.
#[derive(Debug, Args)]
pub(crate) struct Queue {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List queues in which jobs are ready, and those that are paused
    Ls(Plain),
    /// Let nothing be claimed from queues any more; what runs runs on
    Pause(Names),
    /// Let jobs be claimed from queues again
    Resume(Names),
    /// List limits of tasks, and how many run under them
    Limits(Plain),
    /// Tell what each of the last 24 hours brought
    History(Plain),
    /// Tell the figures of the whole queue
    Stats(Plain),
}

#[derive(Debug, Args)]
struct Plain {
    /// Print one JSON document
    #[arg(long, display_order = 800)]
    json: bool,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Debug, Args)]
struct Names {
    /// Names of the queues
    #[arg(required = true, value_name = "QUEUE")]
    queues: Vec<String>,
    #[command(flatten)]
    plain: Plain,
}

impl Queue {
    /// Does it.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        quietly(match self.action {
            Action::Ls(plain) => plain.list().await,
            Action::Pause(names) => names.turn(true).await,
            Action::Resume(names) => names.turn(false).await,
            Action::Limits(plain) => plain.limits().await,
            Action::History(plain) => plain.history().await,
            Action::Stats(plain) => plain.stats().await,
        })
    }
}

impl Plain {
    async fn list(self) -> anyhow::Result<()> {
        let output = Output::new(self.json);
        let queues = self.remote.client()?.queues().await.map_err(explain)?;
        if output.is_json() {
            return output.line(&json!({ "queues": queues }).to_string());
        }
        let row = |queue: &minium_client::QueueInfo| {
            let paused = queue.paused.map_or(String::new(), |since| format!("paused since {since}"));
            vec![
                Cell::new(&queue.name),
                Cell::new(queue.ready.to_string()),
                Cell::painted(paused, Some(Colour::Yellow)),
            ]
        };
        let rows: Vec<_> = queues.iter().map(row).collect();
        output.page(&["QUEUE", "READY", ""], &rows, "No jobs wait, and no queue is paused.", None)
    }

    async fn limits(self) -> anyhow::Result<()> {
        let output = Output::new(self.json);
        let limits = self.remote.client()?.limits().await.map_err(explain)?;
        if output.is_json() {
            return output.line(&json!({ "limits": limits }).to_string());
        }
        let number = |n: Option<u32>| Cell::new(n.map_or_else(|| "-".to_owned(), |n| n.to_string()));
        let row = |limit: &minium_client::LimitInfo| {
            let rate = limit
                .rate
                .zip(limit.per)
                .map_or_else(|| "-".to_owned(), |(n, per)| format!("{n} in {per} s"));
            vec![
                Cell::new(&limit.task),
                Cell::new(limit.active.to_string()),
                number(limit.running),
                number(limit.per_partition),
                Cell::new(rate),
            ]
        };
        let rows: Vec<_> = limits.iter().map(row).collect();
        output.page(&["TASK", "ACTIVE", "RUNNING", "PER PARTITION", "RATE"], &rows, "No limits.", None)
    }

    async fn history(self) -> anyhow::Result<()> {
        let output = Output::new(self.json);
        let hours = self.remote.client()?.history().await.map_err(explain)?;
        if output.is_json() {
            return output.line(&json!({ "hours": hours }).to_string());
        }
        let row = |hour: &minium_client::HourInfo| {
            let number = |n: i64, colour| Cell::painted(n.to_string(), (n > 0).then_some(colour));
            vec![
                Cell::new(hour.hour.strftime("%Y-%m-%dT%H:%MZ").to_string()),
                number(hour.finished, Colour::Green),
                number(hour.failed, Colour::Red),
                number(hour.cancelled, Colour::Yellow),
            ]
        };
        let rows: Vec<_> = hours.iter().map(row).collect();
        output.page(&["HOUR", "FINISHED", "FAILED", "CANCELLED"], &rows, "No hours.", None)
    }
}

impl Plain {
    async fn stats(self) -> anyhow::Result<()> {
        let output = Output::new(self.json);
        let figures = json!(self.remote.client()?.stats().await.map_err(explain)?);
        if output.is_json() {
            return output.line(&figures.to_string());
        }
        let members = figures.as_object().into_iter().flatten();
        let rows: Vec<_> = members
            .map(|(name, n)| {
                vec![Cell::new(name), Cell::new(n.as_str().map_or_else(|| n.to_string(), str::to_owned))]
            })
            .collect();
        output.page(&["FIGURE", ""], &rows, "No figures.", None)
    }
}

impl Names {
    async fn turn(self, pause: bool) -> anyhow::Result<()> {
        let output = Output::new(self.plain.json);
        let client = self.plain.remote.client()?;
        let word = if pause { "paused" } else { "resumed" };
        let mut changed = Vec::new();
        for queue in self.queues {
            let turned =
                if pause { client.pause_queue(&queue).await } else { client.resume_queue(&queue).await };
            if turned.map_err(explain)? {
                if !output.is_json() {
                    output.line(&format!("{queue} {word}"))?;
                }
                changed.push(queue);
            } else {
                output.notice(&format!("{queue} was {word} already."));
            }
        }
        if output.is_json() {
            output.line(&json!({ word: changed }).to_string())?;
        }
        Ok(())
    }
}
