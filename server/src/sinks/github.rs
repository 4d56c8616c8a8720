//! Statuses of commits, as GitHub has them (and others after it).
//!
//! A status is what the job is now, not what an event once said: deliveries may come late and in any order, so each looks at
//! the job right before it says anything, and again afterwards. Whoever speaks last has looked last. A job that is gone
//! cannot be looked at: then only its end is told, as its event has it.

use super::outbound::{Answer, Road, Target};
use super::told::{Terms, Told};
use super::verdict::{Verdict, retry_after, shown, words};
use bytes::Bytes;
use http::StatusCode;
use http::header::{ACCEPT, AUTHORIZATION, HeaderName, HeaderValue};
use jiff::Timestamp;
use minium_notifier::{Rule, SinkEvent};
use minium_protocol::{EnqueueRequest, EventType, Job, State};
use minium_queue::Store;
use serde_json::{Value, json};
use std::time::Duration;

/// A description has no more characters.
const DESCRIPTION_CHARS_MAX: usize = 140;
/// A job that changes again and again while it is told of is told by its next event.
const ROUNDS_MAX: usize = 5;
/// When we are told to wait, but not for how long.
const PAUSE: Duration = Duration::from_secs(60);

/// Where a job says which commit it is about.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) repository: String,
    pub(super) sha: String,
}

/// A commit, in words that can be put into a path.
#[derive(Debug, PartialEq, Eq)]
struct Commit {
    owner: String,
    repository: String,
    sha: String,
}

impl Place {
    /// The commit of a snapshot, if it names one, and in good form.
    fn commit(&self, snapshot: &Value) -> Option<Commit> {
        let text = |pointer: &str| snapshot.pointer(pointer)?.as_str();
        let (owner, repository) = text(&self.repository)?.split_once('/')?;
        let sha = text(&self.sha)?;
        let word = |text: &str| {
            let good = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
            (1..=100).contains(&text.len()) && text.bytes().all(good) && ![".", ".."].contains(&text)
        };
        let hex = [40, 64].contains(&sha.len()) && sha.bytes().all(|b| b.is_ascii_hexdigit());
        let commit = || Commit { owner: owner.into(), repository: repository.into(), sha: sha.into() };
        (word(owner) && word(repository) && hex).then(commit)
    }
}

/// Which events become deliveries: the first, each end, and each new beginning. What lies between is pending as before.
pub(super) struct StatusRule {
    pub(super) terms: Terms,
    pub(super) place: Place,
}

impl Rule for StatusRule {
    fn delivery(&self, event: &SinkEvent<'_>) -> Option<EnqueueRequest> {
        let told = Told::read(event.event)?;
        if !is_told(told.transition()?, told.state()?) {
            return None;
        }
        let snapshot: Value = serde_json::from_str(told.data.get()).ok()?;
        self.place.commit(&snapshot)?;
        self.terms.request(event)
    }
}

/// Does a transition change the status?
fn is_told(transition: EventType, state: State) -> bool {
    match transition {
        EventType::Enqueue
        | EventType::Retry
        | EventType::Finished
        | EventType::Failed
        | EventType::Cancelled => true,
        // a job that ended was told of; that it goes later is no news of it
        EventType::Expired | EventType::Removed => !state.is_ended(),
        // without attempts left it is the end
        EventType::Lost => state.is_ended(),
        _ => false,
    }
}

/// GitHub's words for states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Pending,
    Success,
    Failure,
    Error,
}

impl Status {
    fn of(state: State) -> Status {
        match state {
            State::Inactive | State::Active => Status::Pending,
            State::Finished => Status::Success,
            State::Failed => Status::Failure,
            State::Cancelled => Status::Error,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Status::Pending => "pending",
            Status::Success => "success",
            Status::Failure => "failure",
            Status::Error => "error",
        }
    }
}

/// What is to be said.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Say {
    status: Status,
    description: String,
}

/// Of a job as it is now.
fn of_job(job: &Job) -> Say {
    let status = Status::of(job.state);
    let words = match job.state {
        State::Inactive => "waiting".into(),
        State::Active => "running".into(),
        State::Finished => "finished".into(),
        State::Failed => job.error.as_deref().map_or("failed".into(), shown),
        State::Cancelled => "cancelled".into(),
    };
    let cut = |text: String| text.chars().take(DESCRIPTION_CHARS_MAX).collect();
    Say { status, description: cut(words) }
}

/// Of a job that is gone: its end, or nothing.
fn of_event(told: &Told, job: &Job) -> Option<Say> {
    match told.transition()? {
        EventType::Expired => Some(Say { status: Status::Error, description: "expired".into() }),
        EventType::Removed if !job.state.is_ended() => {
            Some(Say { status: Status::Error, description: "removed".into() })
        }
        _ if job.state.is_ended() => Some(of_job(job)),
        _ => None,
    }
}

/// Where statuses go.
pub(super) struct Statuses {
    pub(super) place: Place,
    /// The API's URL, without a slash at its end.
    pub(super) base: String,
    pub(super) authorization: HeaderValue,
    pub(super) context: Option<String>,
    pub(super) target_url: Option<String>,
    pub(super) road: Road,
}

impl Statuses {
    /// One attempt. `ours` says whether the job is one of this database's queue.
    pub(super) async fn deliver(
        &self,
        told: &Told,
        ours: bool,
        store: &dyn Store,
        now: Timestamp,
    ) -> Verdict {
        let Some((snapshot, job)) = serde_json::from_str::<Value>(told.data.get()).ok().zip(told.job())
        else {
            return Verdict::Refused("the event has no job".into());
        };
        let Some(commit) = self.place.commit(&snapshot) else {
            return Verdict::Skipped("the job names no commit where this sink looks for it now");
        };
        let mut last: Option<(Say, Verdict)> = None;
        for _ in 0..ROUNDS_MAX {
            let say = match self.present(told, &job, ours, store).await {
                Ok(say) => say,
                Err(verdict) => return verdict,
            };
            let said = last.as_ref().map(|(said, _)| said.status);
            let Some(say) = say.filter(|say| said != Some(say.status)) else { break };
            let verdict = self.say(&commit, &job, &say, now).await;
            let delivered = matches!(verdict, Verdict::Delivered(_));
            last = Some((say, verdict));
            if !delivered {
                break;
            }
        }
        last.map_or(
            Verdict::Skipped("the job is gone, and its end had an event of its own"),
            |(_, verdict)| verdict,
        )
    }

    /// What there is to say now.
    async fn present(
        &self,
        told: &Told,
        job: &Job,
        ours: bool,
        store: &dyn Store,
    ) -> Result<Option<Say>, Verdict> {
        if !ours {
            return Ok(Some(of_event(told, job).unwrap_or_else(|| of_job(job))));
        }
        let failed = |why: String| Verdict::Failed(format!("the job cannot be looked at: {why}"));
        let view = store.get(job.id).await.map_err(|e| failed(e.to_string()))?;
        match view {
            Some(view) => Ok(Some(of_job(&view.job().map_err(|e| failed(e.to_string()))?))),
            None => Ok(of_event(told, job)),
        }
    }

    async fn say(&self, commit: &Commit, job: &Job, say: &Say, now: Timestamp) -> Verdict {
        let Commit { owner, repository, sha } = commit;
        let url = format!("{}/repos/{owner}/{repository}/statuses/{sha}", self.base);
        let target: Target = match super::parse_url(&url) {
            Ok(target) => target,
            Err(why) => return Verdict::Refused(format!("the URL {why}")),
        };
        let mut body = json!({
            "state": say.status.word(),
            "context": self.context.as_deref().unwrap_or(&job.task),
            "description": say.description,
        });
        if let Some(template) = &self.target_url {
            body["target_url"] = template.replace("{job}", &job.id.to_string()).into();
        }
        let headers = vec![
            (AUTHORIZATION, self.authorization.clone()),
            (ACCEPT, HeaderValue::from_static("application/vnd.github+json")),
            (HeaderName::from_static("x-github-api-version"), HeaderValue::from_static("2022-11-28")),
        ];
        match self.road.post(&target, headers, Bytes::from(body.to_string())).await {
            Ok(answer) => judge(&answer, say.status, now),
            Err(error) => Verdict::Failed(error.to_string()),
        }
    }
}

/// What the API's answer means.
fn judge(answer: &Answer, said: Status, now: Timestamp) -> Verdict {
    let status = answer.status;
    match status {
        _ if status.is_success() => {
            Verdict::Delivered(json!({ "status": status.as_u16(), "state": said.word() }))
        }
        _ if status.is_redirection() => Verdict::Failed(format!("{status}: redirects are not followed")),
        StatusCode::NOT_FOUND | StatusCode::UNPROCESSABLE_ENTITY => Verdict::Refused(words(answer)),
        StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS => match pause(answer, now) {
            Some(pause) => Verdict::Later(pause, words(answer)),
            None if status == StatusCode::TOO_MANY_REQUESTS => Verdict::Later(PAUSE, words(answer)),
            None => Verdict::Failed(words(answer)),
        },
        _ => Verdict::Failed(words(answer)),
    }
}

/// How long a rate that was exceeded holds: `Retry-After`, or when nothing is left until when.
fn pause(answer: &Answer, now: Timestamp) -> Option<Duration> {
    if let Some(pause) = retry_after(&answer.headers, now) {
        return Some(pause);
    }
    let number = |name: &str| answer.headers.get(name)?.to_str().ok()?.trim().parse::<i64>().ok();
    if number("x-ratelimit-remaining")? > 0 {
        return None;
    }
    let reset = number("x-ratelimit-reset")?.saturating_sub(now.as_second());
    Some(Duration::from_secs(u64::try_from(reset).unwrap_or(0).max(1)))
}

#[cfg(test)]
mod tests;
