//! One action on jobs: on those that are named, or on all that a filter finds.

use super::job::Word;
use super::output::Output;
use super::remote::{Remote, explain};
use crate::exit::{Exit, fault};
use clap::Args;
use minium_client::{BulkDone, Client, JobQuery};
use minium_protocol::State;
use serde_json::json;

/// Jobs to act on.
#[derive(Debug, Args)]
pub(super) struct Targets {
    /// Numbers of the jobs
    #[arg(value_name = "ID", required_unless_present_any = ["state", "task", "from_queue", "note"])]
    ids: Vec<i64>,
    /// All jobs in this state; may be given several times
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "STATE",
        conflicts_with = "ids",
        help_heading = "Which jobs"
    )]
    state: Vec<State>,
    /// All jobs of this task; may be given several times
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "TASK",
        conflicts_with = "ids",
        help_heading = "Which jobs"
    )]
    task: Vec<String>,
    /// All jobs of this queue; may be given several times
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "QUEUE",
        conflicts_with = "ids",
        help_heading = "Which jobs"
    )]
    from_queue: Vec<String>,
    /// All jobs that have this note; may be given several times
    #[arg(long, value_name = "NAME", conflicts_with = "ids", help_heading = "Which jobs")]
    note: Vec<String>,
    /// Only tell how many it would be
    #[arg(long, conflicts_with = "ids", help_heading = "Which jobs")]
    dry_run: bool,
    /// Really do it to all that are found
    #[arg(long, short = 'y', conflicts_with_all = ["ids", "dry_run"], help_heading = "Which jobs")]
    yes: bool,
    /// Print one JSON document
    #[arg(long, display_order = 800)]
    json: bool,
    #[command(flatten)]
    remote: Remote,
}

impl Targets {
    pub(super) async fn run(self, word: Word) -> anyhow::Result<()> {
        if self.ids.is_empty() { self.all(&word).await } else { self.each(&word).await }
    }

    /// Acts on those that are named; one that cannot be acted on does not keep the others from it. The first error decides
    /// the exit code.
    async fn each(self, word: &Word) -> anyhow::Result<()> {
        let output = Output::new(self.json);
        let client = self.remote.client()?;
        let (mut done, mut failed, mut first) = (Vec::new(), Vec::new(), None);
        for id in self.ids {
            match word.act(&client, id).await {
                Ok(()) => {
                    if !output.is_json() {
                        output.line(&format!("{id} {}", word.done()))?;
                    }
                    done.push(id);
                }
                // Without a server the others fail for the same reason.
                Err(error) if error.is_connection() => return Err(explain(error)),
                Err(error) => {
                    failed.push(json!({ "id": id, "code": error.code(), "detail": error.to_string() }));
                    let error = explain(error).context(format!("Job {id}"));
                    match &first {
                        None => first = Some(error),
                        Some(_) => output.notice(&format!("minium: {error:#}")),
                    }
                }
            }
        }
        if output.is_json() {
            output.line(&json!({ word.done(): done, "failed": failed }).to_string())?;
        }
        first.map_or(Ok(()), Err)
    }

    /// Acts on all that the filter finds, piece by piece.
    async fn all(self, word: &Word) -> anyhow::Result<()> {
        let output = Output::new(self.json);
        let client = self.remote.client()?;
        let query = JobQuery {
            states: self.state,
            tasks: self.task,
            queues: self.from_queue,
            notes: self.note,
            ..JobQuery::default()
        };
        let dry_run = !self.yes;
        let all = pieces(&client, word, query, dry_run).await?;
        if !self.dry_run && dry_run {
            let words =
                format!("{} of {} jobs would be {}: say --yes", all.changed, all.matched, word.done());
            return Err(fault(Exit::Usage, words));
        }
        if output.is_json() {
            let mut told = json!(all);
            told["dry_run"] = json!(dry_run);
            return output.line(&told.to_string());
        }
        let would = if dry_run { " would be" } else { "" };
        output.line(&format!("{} of {}{would} {}", all.changed, all.matched, word.done()))
    }
}

async fn pieces(
    client: &Client,
    word: &Word,
    mut query: JobQuery,
    dry_run: bool,
) -> anyhow::Result<BulkDone> {
    let Some(action) = word.bulk() else {
        return Err(fault(Exit::Usage, "a cascade begins with jobs that are named"));
    };
    let mut all = BulkDone::default();
    loop {
        let piece = client.bulk(&action, &query, dry_run).await.map_err(explain)?;
        all.matched += piece.matched;
        all.changed += piece.changed;
        all.refused += piece.refused;
        match piece.next {
            Some(next) => query.before = Some(next),
            None => return Ok(all),
        }
    }
}
