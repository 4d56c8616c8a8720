//! The same where there is no screen: one look, as text or as JSON.

use super::draw::{count, seconds};
use super::look::Look;
use crate::cli::output::{Cell, Colour, Output};

/// Writes it.
pub(super) fn write(output: Output, url: &str, look: &Look) -> anyhow::Result<()> {
    if output.is_json() {
        return output.line(&serde_json::to_string(look)?);
    }
    let stats = &look.stats;
    let state = look.down.as_deref().unwrap_or("ready");
    let lag = look.lag.map_or_else(String::new, |lag| {
        format!(", notifier {} events and {} behind", lag.events, seconds(lag.seconds))
    });
    output.line(&format!("{url}: {state}, {} sessions{lag}", stats.sessions))?;
    for (part, why) in &look.missing {
        output.notice(&format!("{part}: {why}"));
    }
    let row = |word: &str, n: i64| vec![Cell::new(word), Cell::new(count(n))];
    let rows = [
        row("ready", look.ready()),
        row("delayed", stats.delayed),
        row("blocked", stats.blocked),
        row("active", stats.active),
        row("finished", stats.finished),
        row("failed", stats.failed),
        row("cancelled", stats.cancelled),
    ];
    output.line("")?;
    output.table(&["JOBS", ""], &rows)?;
    if !look.queues.is_empty() {
        let paused =
            |at: Option<jiff::Timestamp>| at.map_or(String::new(), |since| format!("paused since {since}"));
        let rows: Vec<_> = look
            .queues
            .iter()
            .map(|queue| {
                vec![
                    Cell::new(&queue.name),
                    Cell::new(count(queue.ready)),
                    Cell::painted(paused(queue.paused), Some(Colour::Yellow)),
                ]
            })
            .collect();
        output.line("")?;
        output.table(&["QUEUE", "READY", ""], &rows)?;
    }
    if !look.workers.is_empty() {
        let rows: Vec<_> = look
            .workers
            .iter()
            .map(|worker| {
                vec![
                    Cell::new(format!("{} #{}", worker.host, worker.id)),
                    Cell::new(if worker.paused { "paused" } else { &worker.state }),
                    Cell::new(format!("{}/{}", worker.running, worker.concurrency)),
                    Cell::new(&worker.runs),
                ]
            })
            .collect();
        output.line("")?;
        output.table(&["WORKER", "STATE", "RUNS", ""], &rows)?;
    }
    if !look.failures.is_empty() {
        let rows: Vec<_> = look
            .failures
            .iter()
            .take(10)
            .map(|job| {
                vec![
                    Cell::new(format!("#{}", job.job)),
                    Cell::new(&job.task),
                    Cell::painted(&job.error, Some(Colour::Red)),
                ]
            })
            .collect();
        output.line("")?;
        output.table(&["FAILED", "TASK", "ERROR"], &rows)?;
    }
    Ok(())
}
