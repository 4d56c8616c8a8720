//! `minium session`: who is connected to a node, and how somebody is sent away.

use super::output::{Cell, Colour, Output, quietly, shortened};
use super::remote::{Remote, explain};
use clap::{Args, Subcommand};
use minium_client::SessionInfo;
use serde_json::json;

/// Subcommands of `minium session`.
#[derive(Debug, Subcommand)]
pub(crate) enum Session {
    /// List sessions, those that were opened first first
    Ls(List),
    /// Close sessions
    Close(Close),
}

impl Session {
    /// Does it.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        quietly(match self {
            Session::Ls(list) => list.run().await,
            Session::Close(close) => close.run().await,
        })
    }
}

/// Arguments of `minium session ls`.
#[derive(Debug, Args)]
#[command(after_help = "Addresses and subjects are shown to tokens with the scope admin.\n\nExample:\n  \
    minium session ls --json | jq '.sessions[] | select(.behind)'")]
pub(crate) struct List {
    /// Only sessions with higher numbers: the next page
    #[arg(long, value_name = "ID")]
    after: Option<u64>,
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
        let page = self.remote.client()?.sessions(self.after, self.limit).await.map_err(explain)?;
        if output.is_json() {
            return output.json(&page.raw);
        }
        let rows: Vec<_> = page.sessions.iter().map(row).collect();
        let head = ["ID", "MODE", "PATTERN", "FILTERS", "REMOTE", "SUBJECT", "SINCE", "SENT", "RECEIVED", ""];
        output.page(&head, &rows, "No sessions.", page.next.map(|next| format!("--after {next}")))
    }
}

fn row(session: &SessionInfo) -> Vec<Cell> {
    let more = if session.more_filters > 0 { format!(" +{}", session.more_filters) } else { String::new() };
    let word = |word: &Option<String>| word.clone().unwrap_or_else(|| "-".to_owned());
    vec![
        Cell::new(session.id.to_string()),
        Cell::new(&session.mode),
        Cell::new(word(&session.pattern)),
        Cell::new(shortened(&session.filters.join(" "), 60) + &more),
        Cell::new(word(&session.remote)),
        Cell::new(word(&session.subject)),
        Cell::new(session.since.to_string()),
        Cell::new(session.sent.to_string()),
        Cell::new(session.received.to_string()),
        Cell::painted(if session.behind { "behind" } else { "" }, Some(Colour::Yellow)),
    ]
}

/// Arguments of `minium session close`.
#[derive(Debug, Args)]
#[command(
    after_help = "Clients come back by themselves (the close code is 1012). With --for-good they are told not to \
    (1008), but nobody keeps them from it: for that, take away their token."
)]
pub(crate) struct Close {
    /// Numbers of the sessions
    #[arg(required = true, value_name = "ID")]
    ids: Vec<u64>,
    /// Tell the client not to come back
    #[arg(long)]
    for_good: bool,
    /// Print one JSON document
    #[arg(long, display_order = 800)]
    json: bool,
    #[command(flatten)]
    remote: Remote,
}

impl Close {
    async fn run(self) -> anyhow::Result<()> {
        let output = Output::new(self.json);
        let client = self.remote.client()?;
        for id in &self.ids {
            client.close_session(*id, !self.for_good).await.map_err(explain)?;
            if !output.is_json() {
                output.line(&format!("session {id} closed"))?;
            }
        }
        if output.is_json() {
            return output.line(&json!({ "closed": self.ids }).to_string());
        }
        Ok(())
    }
}
