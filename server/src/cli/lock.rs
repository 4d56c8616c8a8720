//! `minium lock`: named locks, taken, let go and listed; a command under one is `lock_run`.

use super::lock_run::Run;
use super::output::{Cell, Output, quietly};
use super::remote::{Remote, explain};
use crate::exit::{Exit, fault};
use clap::{Args, Subcommand};
use minium_client::Client;
use minium_protocol::{LockHold, LockRequest, LockToken, parse_duration};
use serde_json::json;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Between looks whether a lock can be had; it doubles up to the longest.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Arguments of `minium lock`.
#[derive(Debug, Args)]
pub(crate) struct Lock {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List what is held, in the order in which it was taken
    Ls(List),
    /// Take a lock, and print the token by which it is let go
    Take(Take),
    /// Let a lock go
    Release(Release),
    /// Hold a lock while a command runs
    Run(Run),
}

impl Lock {
    /// Does it.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        quietly(match self.action {
            Action::Ls(list) => list.run().await,
            Action::Take(take) => take.run().await,
            Action::Release(release) => release.run().await,
            Action::Run(run) => run.run().await,
        })
    }
}

/// Which lock, and how it is to be had.
#[derive(Debug, Args)]
pub(super) struct Wanted {
    /// The lock's name
    pub(super) name: String,
    /// How long it is held unless it is extended, as 90s or 5m
    #[arg(long = "for", value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    pub(super) span: Duration,
    /// How many may hold it at once
    #[arg(long, value_name = "N", default_value_t = 1)]
    limit: u32,
    /// Who holds it, for people; this user and machine unless something is said
    #[arg(long, value_name = "TEXT")]
    owner: Option<String>,
    /// Wait until it can be had, at most so long
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    wait: Option<Duration>,
}

impl Wanted {
    /// Takes it, and tells when the call that did was begun.
    ///
    /// # Errors
    /// `conflict` when it cannot be had in time.
    pub(super) async fn take(&self, client: &Client, output: Output) -> anyhow::Result<(LockHold, Instant)> {
        let owner = self.owner.clone().unwrap_or_else(whoever_calls);
        let request = LockRequest { span: self.span, limit: self.limit, owner };
        let deadline = Instant::now() + self.wait.unwrap_or_default();
        let mut pause = PAUSE_MIN;
        loop {
            let asked = Instant::now();
            if let Some(hold) = client.lock(&self.name, &request).await.map_err(explain)? {
                return Ok((hold, asked));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(fault(Exit::Conflict, format!("the lock {:?} is held", self.name)));
            }
            if pause == PAUSE_MIN {
                output.hint("Waiting for the lock.");
            }
            sleep(pause.min(left)).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

/// User, machine and process, as far as they are known.
fn whoever_calls() -> String {
    let user = std::env::var("USER").unwrap_or_else(|_| "somebody".into());
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{user}@{host} process {}", std::process::id())
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  minium lock ls\n  minium lock ls nightly --json | jq '.locks[].owner'")]
struct List {
    /// Only locks of these names
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// What follows this one: the next page
    #[arg(long, value_name = "ID")]
    after: Option<i64>,
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
        let client = self.remote.client()?;
        let page = client.locks(&self.names, self.after, self.limit).await.map_err(explain)?;
        if output.is_json() {
            return output.json(&page.raw);
        }
        let row = |lock: &minium_protocol::LockView| {
            vec![
                Cell::new(&lock.name),
                Cell::new(lock.limit.to_string()),
                Cell::new(format!("{:.0}", lock.taken)),
                Cell::new(format!("{:.0}", lock.until)),
                Cell::new(&lock.owner),
            ]
        };
        let rows: Vec<_> = page.locks.iter().map(row).collect();
        let head = ["NAME", "LIMIT", "TAKEN", "UNTIL", "OWNER"];
        output.page(&head, &rows, "No locks.", page.next.map(|next| format!("--after {next}")))
    }
}

#[derive(Debug, Args)]
#[command(
    after_help = "The token goes to stdout. The exit code is 7 when the lock is held.\n\nExamples:\n  \
    token=$(minium lock take deploy --for 10m) && ./deploy.sh; minium lock release deploy --lock-token \"$token\"\n  \
    minium lock take slots --limit 3 --wait 1m\n  minium lock take deploy --for 0 && echo free"
)]
struct Take {
    #[command(flatten)]
    wanted: Wanted,
    /// Print one JSON document
    #[arg(long, display_order = 800)]
    json: bool,
    #[command(flatten)]
    remote: Remote,
}

impl Take {
    async fn run(self) -> anyhow::Result<()> {
        let output = Output::new(self.json);
        let (hold, _) = self.wanted.take(&self.remote.client()?, output).await?;
        match hold.token {
            _ if output.is_json() => output.line(&json!(hold).to_string()),
            Some(token) => output.line(&token.to_string()),
            None => Ok(()),
        }
    }
}

#[derive(Debug, Args)]
#[command(after_help = "The exit code is 7 when nobody holds the lock by this token.\n\nExamples:\n  \
    minium lock release deploy --lock-token 6d4bb6a5-4b7f-4a59-a9ab-9d7d3f5f3c1e\n  minium lock release deploy --all")]
struct Release {
    /// The lock's name
    name: String,
    /// The token that taking it has printed
    #[arg(long, value_name = "TOKEN", required_unless_present = "all", conflicts_with = "all")]
    lock_token: Option<LockToken>,
    /// Whoever holds it
    #[arg(long)]
    all: bool,
    /// Print one JSON document
    #[arg(long, display_order = 800)]
    json: bool,
    #[command(flatten)]
    remote: Remote,
}

impl Release {
    async fn run(self) -> anyhow::Result<()> {
        let output = Output::new(self.json);
        let released = self.remote.client()?.unlock(&self.name, self.lock_token).await.map_err(explain)?;
        match output.is_json() {
            true => output.line(&json!({ "released": released }).to_string()),
            false => output.line(&format!("{} released", released)),
        }
    }
}
