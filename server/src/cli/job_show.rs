//! `minium job ls` and `minium job show`: jobs and their histories, as tables or JSON.

use super::output::{Cell, Colour, Output, Style, clean, one_line, shortened};
use super::remote::{Remote, explain};
use clap::Args;
use jiff::Timestamp;
use minium_client::{Client, ClientError, FailureInfo, JobInfo, JobQuery};
use minium_protocol::{CloudEvent, ErrorCode, EventType, Job, Phase, State};
use serde_json::value::RawValue;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  minium job ls --state failed --task import\n  minium job ls --limit 200 --json \
    | jq '.jobs[].id'"
)]
pub(super) struct List {
    /// Only jobs in this state; may be given several times
    #[arg(long, value_delimiter = ',', value_name = "STATE")]
    state: Vec<State>,
    /// Only jobs that wait for this reason; may be given several times
    #[arg(long, value_delimiter = ',', value_name = "PHASE")]
    phase: Vec<Phase>,
    /// Only jobs of this task; may be given several times
    #[arg(long, value_delimiter = ',', value_name = "TASK")]
    task: Vec<String>,
    /// Only jobs of this queue; may be given several times
    #[arg(long, value_delimiter = ',', value_name = "QUEUE")]
    queue: Vec<String>,
    /// Only jobs that have this note, or this value in it; may be given several times
    #[arg(long, value_name = "NAME[=VALUE]")]
    note: Vec<String>,
    /// Only jobs that have this value in their arguments, as /0/serial=ABC; may be given several times
    #[arg(long, value_name = "POINTER=VALUE")]
    arg: Vec<String>,
    /// Only jobs that have this text in their task, arguments, notes or error
    #[arg(long, short = 'q', value_name = "TEXT")]
    text: Option<String>,
    /// Only this job; may be given several times
    #[arg(long, value_delimiter = ',', value_name = "ID")]
    id: Vec<i64>,
    /// Only jobs that this one has enqueued: the next step of a cascade
    #[arg(long, value_name = "ID")]
    origin: Option<i64>,
    /// Only jobs with lower numbers: the next page
    #[arg(long, value_name = "ID")]
    before: Option<i64>,
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
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let output = Output::new(self.json);
        let query = JobQuery {
            states: self.state,
            phases: self.phase,
            tasks: self.task,
            queues: self.queue,
            notes: self.note,
            args: self.arg,
            text: self.text,
            ids: self.id,
            origin: self.origin,
            before: self.before,
            limit: self.limit,
        };
        let page = self.remote.client()?.list(&query).await.map_err(explain)?;
        if output.is_json() {
            return output.json(&page.raw);
        }
        let now = Timestamp::now();
        let rows: Vec<_> = page.jobs.iter().map(|info| row(&info.job, now)).collect();
        let nothing = if page.next.is_some() { "None among the newest." } else { "No jobs." };
        let next = page.next.map(|next| format!("--before {next}"));
        output.page(&["ID", "STATE", "TASK", "QUEUE", "PRIO", "RUN", "AGE", ""], &rows, nothing, next)
    }
}

fn row(job: &Job, now: Timestamp) -> Vec<Cell> {
    const REMARK_CHARACTERS_MAX: usize = 60;
    let remark = match (job.state, &job.error, &job.result, &job.progress) {
        (State::Finished, _, Some(result), _) => one_line(result.get()),
        (State::Active, _, _, Some(p)) => format!("{}% {}", p.percent, p.text.as_deref().unwrap_or("")),
        (State::Finished, ..) => String::new(),
        (_, Some(error), ..) => error.clone(),
        _ => String::new(),
    };
    vec![
        Cell::new(job.id.to_string()),
        Cell::painted(job.state.as_str(), colour(job.state)),
        Cell::new(&job.task),
        Cell::new(&job.queue),
        Cell::new(job.priority.to_string()),
        Cell::new(format!("{}/{}", job.attempt, job.attempts)),
        Cell::new(age(job.created, now)),
        Cell::new(shortened(remark.trim(), REMARK_CHARACTERS_MAX)),
    ]
}

/// The colour of a state, the same in every view.
pub(super) fn colour(state: State) -> Option<Colour> {
    match state {
        State::Inactive => None,
        State::Active => Some(Colour::Cyan),
        State::Finished => Some(Colour::Green),
        State::Failed => Some(Colour::Red),
        State::Cancelled => Some(Colour::Yellow),
    }
}

/// How long ago, in its largest unit.
fn age(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(then).as_secs().max(0);
    match seconds {
        ..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  minium job show 42\n  minium job show 42 --events\n  minium job show 42 --json \
    | jq .result"
)]
pub(super) struct Show {
    /// The job's number
    id: i64,
    /// What happened to it, from the journal
    #[arg(long)]
    events: bool,
    /// Why each of its runs failed that did, with backtraces where they were told
    #[arg(long, conflicts_with = "events")]
    failures: bool,
    /// Its task: with --events, to see the history of a job that has been removed
    #[arg(long, value_name = "TASK", requires = "events")]
    task: Option<String>,
    /// Print one JSON document
    #[arg(long, display_order = 800)]
    json: bool,
    #[command(flatten)]
    remote: Remote,
}

impl Show {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let output = Output::new(self.json);
        let client = self.remote.client()?;
        if self.failures {
            return failures(output, &client.failures(self.id).await.map_err(explain)?);
        }
        if !self.events {
            let info = client.get(self.id).await.map_err(explain)?;
            return match output.style() {
                Style::Json | Style::Plain => output.json(&info.raw),
                Style::People { .. } => sheet(output, &info),
            };
        }
        let (info, events) = history(&client, self.id, self.task.as_deref()).await.map_err(explain)?;
        if events.first().is_none_or(|event| !is_first(event)) {
            output.hint("The journal no longer has how it began.");
        }
        match output.style() {
            Style::Json => {
                let job = info.as_ref().map_or("null".into(), |i| one_line(i.raw.get()));
                let events: Vec<_> = events.iter().map(|e| one_line(e.get())).collect();
                output.line(&format!(r#"{{"job":{job},"events":[{}]}}"#, events.join(",")))
            }
            Style::Plain => events.iter().try_for_each(|event| output.json(event)),
            Style::People { .. } => {
                if let Some(info) = &info {
                    sheet(output, info)?;
                    output.line("")?;
                }
                timeline(output, &events)
            }
        }
    }
}

fn failures(output: Output, failures: &[FailureInfo]) -> anyhow::Result<()> {
    match output.style() {
        Style::Json => output.line(&serde_json::json!({ "failures": failures }).to_string()),
        Style::Plain => {
            failures.iter().try_for_each(|failure| output.line(&serde_json::json!(failure).to_string()))
        }
        Style::People { .. } => {
            if failures.is_empty() {
                output.hint("No run of it has failed.");
            }
            for failure in failures {
                let by =
                    failure.worker.as_ref().map_or(String::new(), |w| format!(" by {} on {}", w.id, w.host));
                output.line(&format!(
                    "run {} at {}{by}: {}",
                    failure.attempt,
                    failure.at,
                    clean(&failure.error)
                ))?;
                if let Some(backtrace) = &failure.backtrace {
                    output.line(&clean(backtrace))?;
                }
            }
            Ok(())
        }
    }
}

/// The job and its events. With its task's name a removed job still has a history.
async fn history(
    client: &Client,
    id: i64,
    task: Option<&str>,
) -> Result<(Option<JobInfo>, Vec<Box<RawValue>>), ClientError> {
    let events = client.events(id, task).await?;
    match client.get(id).await {
        Ok(info) => Ok((Some(info), events)),
        Err(error) if error.code() == Some(ErrorCode::NotFound) => Ok((None, events)),
        Err(error) => Err(error),
    }
}

/// Is this how a job begins?
fn is_first(event: &RawValue) -> bool {
    serde_json::from_str::<CloudEvent>(event.get())
        .is_ok_and(|event| event.kind == EventType::Enqueue.as_str())
}

/// One job for people.
fn sheet(output: Output, info: &JobInfo) -> anyhow::Result<()> {
    let job = &info.job;
    let state = match info.phase {
        Some(phase) => format!("{} ({phase})", job.state),
        None => job.state.to_string(),
    };
    let mut rows = vec![("job", job.id.to_string(), None), ("task", job.task.clone(), None)];
    let mut add = |name, text: Option<String>, colour| rows.extend(text.map(|text| (name, text, colour)));
    let ids =
        |ids: &[i64]| (!ids.is_empty()).then(|| ids.iter().map(i64::to_string).collect::<Vec<_>>().join(" "));
    let time = |t: Option<Timestamp>| t.map(|t| format!("{t:.3}"));
    add("state", Some(state), colour(job.state));
    add("queue", Some(format!("{}, priority {}", job.queue, job.priority)), None);
    add("run", Some(format!("{} of {}", job.attempt, job.attempts)), None);
    add("key", job.key.clone(), None);
    add("schedule", job.schedule.clone(), None);
    add("parents", ids(&job.parents).map(|p| if job.lax { format!("{p} (lax)") } else { p }), None);
    add("children", ids(&info.children), None);
    add("origin", job.origin.map(|o| o.to_string()), None);
    add("worker", job.worker.as_ref().map(|w| format!("{} on {}, process {}", w.id, w.host, w.pid)), None);
    add("created", time(Some(job.created)), None);
    add("delayed", time(Some(job.delayed)).filter(|_| info.phase == Some(Phase::Delayed)), None);
    add("expires", time(job.expires), None);
    add("started", time(job.started), None);
    add("ended", time(job.finished), None);
    add("retried", time(job.retried), None);
    let progress =
        |p: &minium_protocol::Progress| format!("{}% {}", p.percent, p.text.as_deref().unwrap_or(""));
    add("progress", job.progress.as_ref().map(progress), None);
    add("args", Some(one_line(job.args.get())), None);
    add(
        "notes",
        (!job.notes.is_empty()).then(|| serde_json::Value::Object(job.notes.clone()).to_string()),
        None,
    );
    add("result", job.result.as_ref().map(|r| one_line(r.get())), Some(Colour::Green));
    add("error", job.error.clone(), Some(Colour::Red));
    for (name, text, colour) in rows {
        let name = output.paint(Colour::Grey, &format!("{name:<9}"));
        let text = clean(text.trim_end());
        output.line(&format!("{name} {}", colour.map_or(text.clone(), |c| output.paint(c, &text))))?;
    }
    Ok(())
}

/// A job's events for people.
fn timeline(output: Output, events: &[Box<RawValue>]) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for event in events {
        let event: CloudEvent = serde_json::from_str(event.get())
            .map_err(|e| anyhow::Error::new(e).context("Cannot understand the server's answer"))?;
        let job: Option<Job> = event.data.as_ref().and_then(|d| serde_json::from_str(d.get()).ok());
        let position = event.position().map_or_else(String::new, |p| p.to_string());
        let worker = job.as_ref().and_then(|j| j.worker.as_ref());
        rows.push(vec![
            Cell::painted(position, Some(Colour::Grey)),
            Cell::new(event.time.map_or_else(String::new, |t| format!("{t:.3}"))),
            Cell::painted(&event.kind, job.as_ref().and_then(|j| colour(j.state))),
            Cell::new(job.as_ref().map_or_else(String::new, |j| format!("{}/{}", j.attempt, j.attempts))),
            Cell::new(worker.map_or_else(String::new, |w| format!("{} on {}", w.id, w.host))),
        ]);
    }
    output.table(&["POSITION", "TIME", "EVENT", "RUN", "WORKER"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_told_in_their_largest_unit() {
        let at = |s| Timestamp::from_second(s).unwrap();
        let told: Vec<_> = [0, 59, 60, 7_199, 86_399, 200_000].map(|s| age(at(0), at(s))).to_vec();
        assert_eq!(told, ["0s", "59s", "1m", "1h", "23h", "2d"]);
        assert_eq!(age(at(5), at(0)), "0s", "a clock that lags behind the server's");
    }
}
