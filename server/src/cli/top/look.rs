//! One look at a node by its public API: figures, queues, workers, sessions, failures, health.
//!
//! What cannot be had (a database that is away, a scope that is missing) is said beside what can.

use crate::cli::output::{clean, shortened};
use crate::cli::remote::told;
use crate::exit::Exit;
use jiff::Timestamp;
use minium_client::{
    Client, ClientError, JobInfo, JobQuery, SessionInfo, Statistics, WorkerInfo, WorkerQuery,
};
use minium_protocol::State;
use serde::Serialize;
use std::collections::BTreeMap;

/// So many of each list are asked for, and shown.
const ROWS_MAX: u32 = 100;
/// Longer texts are cut: no screen is wider.
const TEXT_CHARS_MAX: usize = 400;

/// What a node answered at one time.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Look {
    /// When it was asked, by the clock of this machine.
    pub(super) at: Timestamp,
    /// What the node lacks; nothing while it is whole.
    pub(super) down: Option<String>,
    pub(super) stats: Statistics,
    /// Only where `/metrics` can be had.
    pub(super) lag: Option<Lag>,
    pub(super) queues: Vec<QueueRow>,
    pub(super) workers: Vec<WorkerRow>,
    pub(super) sessions: Vec<SessionRow>,
    pub(super) failures: Vec<FailureRow>,
    /// What could not be had, and why.
    pub(super) missing: BTreeMap<&'static str, String>,
}

/// How far the node's relay is behind the journal.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Lag {
    pub(super) events: f64,
    pub(super) seconds: f64,
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct QueueRow {
    pub(super) name: String,
    /// Counted up to 10,000.
    pub(super) ready: i64,
    pub(super) paused: Option<Timestamp>,
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct WorkerRow {
    pub(super) id: i64,
    pub(super) host: String,
    pub(super) kind: String,
    pub(super) state: String,
    pub(super) paused: bool,
    pub(super) running: u32,
    pub(super) concurrency: u32,
    pub(super) performed: u64,
    pub(super) heartbeat: Timestamp,
    pub(super) queues: String,
    /// What it runs, as `import #7`.
    pub(super) runs: String,
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct SessionRow {
    pub(super) id: u64,
    pub(super) mode: String,
    pub(super) filters: String,
    pub(super) who: String,
    pub(super) since: Timestamp,
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) behind: bool,
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct FailureRow {
    pub(super) job: i64,
    pub(super) task: String,
    pub(super) queue: String,
    pub(super) at: Option<Timestamp>,
    pub(super) attempt: i32,
    pub(super) attempts: i32,
    pub(super) error: String,
}

impl Look {
    /// Asks the node for the first time.
    ///
    /// # Errors
    /// That it cannot be reached, or tells its figures to others alone.
    pub(super) async fn first(client: &Client) -> Result<Look, ClientError> {
        match Look::ask(client).await? {
            (_, Some(refused)) if refused.exit_code() == Exit::NotAllowed as u8 => Err(refused),
            (look, _) => Ok(look),
        }
    }

    /// Asks the node.
    ///
    /// # Errors
    /// That it cannot be reached.
    pub(super) async fn take(client: &Client) -> Result<Look, ClientError> {
        Ok(Look::ask(client).await?.0)
    }

    /// A look, and why it has no figures.
    async fn ask(client: &Client) -> Result<(Look, Option<ClientError>), ClientError> {
        let limit = Some(ROWS_MAX);
        let jobs = |state| JobQuery { states: vec![state], limit, ..JobQuery::default() };
        let (active, failed) = (jobs(State::Active), jobs(State::Failed));
        let crew = WorkerQuery { limit, ..WorkerQuery::default() };
        let ready = client.readiness().await?;
        let asked = Box::pin(async {
            tokio::join!(
                client.stats(),
                client.queues(),
                client.workers(&crew),
                client.list(&active),
                client.sessions(None, limit),
                client.list(&failed),
                client.metrics(),
            )
        });
        let (stats, queues, workers, active, sessions, failed, metrics) = asked.await;
        let mut missing = BTreeMap::new();
        let mut look =
            Look { at: Timestamp::now(), down: ready.why.map(|why| text(&why)), ..Look::default() };
        let mut refused = None;
        match stats {
            Ok(stats) => look.stats = stats,
            Err(error) => {
                missing.insert("figures", why(&error));
                refused = Some(error);
            }
        }
        look.lag = part(&mut missing, "lag", metrics.map(|metrics| lag(&metrics)));
        let queue = |queue: &minium_client::QueueInfo| QueueRow {
            name: text(&queue.name),
            ready: queue.ready,
            paused: queue.paused,
        };
        look.queues = part(&mut missing, "queues", queues.map(|queues| queues.iter().map(queue).collect()));
        // the fullest first
        look.queues.sort_by(|a, b| b.ready.cmp(&a.ready).then_with(|| a.name.cmp(&b.name)));
        look.queues.truncate(ROWS_MAX as usize);
        let active = active.map(|page| page.jobs).unwrap_or_default();
        let worker = |info: &WorkerInfo| WorkerRow::new(info, &active);
        let workers = workers.map(|page| page.workers.iter().map(worker).collect());
        look.workers = part(&mut missing, "workers", workers);
        let sessions = sessions.map(|page| page.sessions.iter().map(SessionRow::new).collect());
        look.sessions = part(&mut missing, "sessions", sessions);
        let failed = failed.map(|page| page.jobs.iter().map(FailureRow::new).collect());
        look.failures = part(&mut missing, "failures", failed);
        look.missing = missing;
        Ok((look, refused))
    }

    /// Takes what is new in the place of what was there. What could not be had stays as it was.
    pub(super) fn renew(&mut self, new: Look) {
        let old = std::mem::replace(self, new);
        let failed = |part| self.missing.contains_key(part);
        let [figures, queues, workers, sessions, failures] =
            ["figures", "queues", "workers", "sessions", "failures"].map(failed);
        if figures {
            self.stats = old.stats;
        }
        if queues {
            self.queues = old.queues;
        }
        if workers {
            self.workers = old.workers;
        }
        if sessions {
            self.sessions = old.sessions;
        }
        if failures {
            self.failures = old.failures;
        }
    }

    /// Jobs that a free worker would take at once.
    pub(super) fn ready(&self) -> i64 {
        (self.stats.inactive - self.stats.delayed - self.stats.blocked).max(0)
    }
}

impl WorkerRow {
    fn new(info: &WorkerInfo, active: &[JobInfo]) -> WorkerRow {
        let own = |job: &&JobInfo| job.job.worker.as_ref().is_some_and(|worker| worker.id == info.id);
        let mut runs: Vec<_> =
            active.iter().filter(own).map(|job| format!("{} #{}", job.job.task, job.job.id)).collect();
        if runs.is_empty() {
            runs = info.jobs.iter().map(|id| format!("#{id}")).collect();
        }
        WorkerRow {
            id: info.id,
            host: text(&info.host),
            kind: text(&info.kind),
            state: text(&info.state),
            paused: info.paused,
            running: info.running,
            concurrency: info.concurrency,
            performed: info.performed,
            heartbeat: info.heartbeat,
            queues: text(&info.queues.join(" ")),
            runs: text(&runs.join(", ")),
        }
    }
}

impl SessionRow {
    fn new(info: &SessionInfo) -> SessionRow {
        let more = if info.more_filters > 0 { format!(" +{}", info.more_filters) } else { String::new() };
        let pattern = info.pattern.as_ref().map_or_else(String::new, |pattern| format!("{pattern} "));
        let who = [&info.subject, &info.remote].into_iter().flatten().cloned().collect::<Vec<_>>();
        SessionRow {
            id: info.id,
            mode: text(&info.mode),
            filters: text(&format!("{pattern}{}{more}", info.filters.join(" "))),
            who: text(&who.join(" ")),
            since: info.since,
            sent: info.sent,
            received: info.received,
            behind: info.behind,
        }
    }
}

impl FailureRow {
    fn new(info: &JobInfo) -> FailureRow {
        let job = &info.job;
        FailureRow {
            job: job.id,
            task: text(&job.task),
            queue: text(&job.queue),
            at: job.finished,
            attempt: job.attempt,
            attempts: job.attempts,
            error: text(job.error.as_deref().unwrap_or("")),
        }
    }
}

/// What others wrote, fit for a terminal and for a line.
pub(super) fn text(written: &str) -> String {
    clean(&shortened(written, TEXT_CHARS_MAX))
}

/// What was asked for, or nothing and a note why.
fn part<T: Default>(
    missing: &mut BTreeMap<&'static str, String>,
    name: &'static str,
    answer: Result<T, ClientError>,
) -> T {
    answer.unwrap_or_else(|error| {
        missing.insert(name, why(&error));
        T::default()
    })
}

/// Why something could not be had, for a line.
fn why(error: &ClientError) -> String {
    text(&error.problem().map_or_else(|| error.to_string(), told))
}

fn lag(metrics: &str) -> Option<Lag> {
    let gauge = |name: &str| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        line.trim().parse::<f64>().ok()
    };
    let (events, seconds) =
        (gauge("minium_notifier_journal_lag_events")?, gauge("minium_notifier_journal_lag_seconds")?);
    Some(Lag { events, seconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lag_is_read_from_what_prometheus_reads() {
        let metrics =
            "# HELP x\nminium_notifier_journal_lag_events 3\nminium_notifier_journal_lag_seconds 0.25\n";
        assert_eq!(lag(metrics), Some(Lag { events: 3.0, seconds: 0.25 }));
        assert_eq!(lag("minium_notifier_journal_lag_events_total 3\n"), None);
    }

    #[test]
    fn what_cannot_be_had_stays_as_it_was() {
        let queue = |name: &str| QueueRow { name: name.into(), ready: 1, paused: None };
        let mut look = Look { queues: vec![queue("a")], ..Look::default() };
        look.stats.active = 3;
        let mut new = Look { down: Some("not ready: database".into()), ..Look::default() };
        new.missing = [("queues", "unavailable".to_owned()), ("figures", "unavailable".to_owned())].into();
        look.renew(new);
        assert_eq!((look.queues.len(), look.stats.active, look.down.is_some()), (1, 3, true));
        look.renew(Look::default());
        assert!(look.queues.is_empty() && look.down.is_none());
    }
}
