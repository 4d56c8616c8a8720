//! `minium schema ls`: which schemas a node has in force, and what they govern.

use super::output::{Cell, Output, quietly};
use super::remote::{Remote, explain};
use clap::Args;
use minium_client::SchemaInfo;

/// Arguments of `minium schema ls`.
#[derive(Debug, Args)]
pub(crate) struct SchemaList {
    /// Print one JSON document
    #[arg(long, display_order = 800)]
    json: bool,
    #[command(flatten)]
    remote: Remote,
}

impl SchemaList {
    /// Does it.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        quietly(self.list().await)
    }

    async fn list(self) -> anyhow::Result<()> {
        let output = Output::new(self.json);
        let (schemas, raw) = self.remote.client()?.schemas().await.map_err(explain)?;
        if output.is_json() {
            return output.json(&raw);
        }
        let rows: Vec<_> = schemas.iter().map(row).collect();
        output.table(&["PATH", "GOVERNS", "FROM", "TITLE"], &rows)
    }
}

fn row(schema: &SchemaInfo) -> Vec<Cell> {
    let governs = match (&schema.pattern, &schema.topic, &schema.task) {
        (Some(pattern), Some(topic), _) => format!("{pattern} {topic}"),
        (_, _, Some(task)) => format!("arguments of {task}"),
        _ => "-".to_owned(),
    };
    vec![
        Cell::new(&schema.path),
        Cell::new(governs),
        Cell::new(if schema.built_in { "minium" } else { "a file" }),
        Cell::new(schema.title.as_deref().unwrap_or_default()),
    ]
}
