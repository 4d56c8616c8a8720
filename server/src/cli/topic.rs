//! `minium topic`: what the sessions of a node follow, and what is sent on it.

use super::output::{Cell, Colour, Output, quietly};
use super::remote::{Remote, explain};
use clap::{Args, Subcommand};
use minium_client::{TopicInfo, TopicListQuery};

/// Subcommands of `minium topic`.
#[derive(Debug, Subcommand)]
pub(crate) enum Topic {
    /// List topics that somebody follows, or on which something was sent since the node started
    Ls(List),
}

impl Topic {
    /// Does it.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let Topic::Ls(list) = self;
        quietly(list.run().await)
    }
}

/// Arguments of `minium topic ls`.
#[derive(Debug, Args)]
#[command(
    after_help = "Messages are counted from the node's start on, task events by their task. RATE is messages a second \
    over about the last ten.\n\nExamples:\n  minium topic ls livesys\n  minium topic ls --pattern push --json"
)]
pub(crate) struct List {
    /// Only this topic and all below it
    #[arg(value_name = "TOPIC")]
    prefix: Option<String>,
    /// Only of this pattern: sub, push or bus
    #[arg(long, value_name = "PATTERN")]
    pattern: Option<String>,
    /// Go on where the page before ended
    #[arg(long, value_name = "NEXT")]
    after: Option<String>,
    /// How many at most
    #[arg(long, short = 'n', value_name = "N")]
    limit: Option<u32>,
    /// Print one JSON document
    #[arg(long, display_order = 800)]
    json: bool,
    #[command(flatten)]
    remote: Remote,
}

impl List {
    async fn run(self) -> anyhow::Result<()> {
        let output = Output::new(self.json);
        let List { prefix, pattern, after, limit, .. } = self;
        let query = TopicListQuery { pattern, prefix, after, limit };
        let page = self.remote.client()?.topics(&query).await.map_err(explain)?;
        if output.is_json() {
            return output.json(&page.raw);
        }
        let rows: Vec<_> = page.topics.iter().map(row).collect();
        let head = ["TOPIC", "PATTERN", "RECEIVERS", "MESSAGES", "RATE", "LAST", "CHANNEL"];
        output.page(&head, &rows, "No topics.", page.next.map(|next| format!("--after {next}")))
    }
}

fn row(topic: &TopicInfo) -> Vec<Cell> {
    let receivers = topic.subscribers + topic.pullers + topic.peers;
    let durable = if topic.durable { " (durable)" } else { "" };
    let channel = topic.channel.as_deref().unwrap_or("-");
    vec![
        Cell::new(&topic.topic),
        Cell::new(&topic.pattern),
        Cell::new(receivers.to_string()),
        Cell::new(topic.messages.to_string()),
        Cell::painted(format!("{:.2}", topic.rate), (topic.rate > 0.0).then_some(Colour::Cyan)),
        Cell::new(topic.last.map_or_else(|| "-".to_owned(), |last| last.to_string())),
        Cell::new(format!("{channel}{durable}")),
    ]
}
