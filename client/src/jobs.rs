//! Jobs over HTTP: enqueue, look at, call off, wait for.

use crate::client::Client;
use crate::error::ClientError;
use crate::http::Request;
use http::Method;
use minium_protocol::{EnqueueRequest, ErrorCode, Job, JobResult, Phase, State};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use std::time::Duration;
use tokio::time::Instant;

/// One long poll. Longer ones would meet the time-outs of proxies.
const POLL: Duration = Duration::from_secs(25);
/// How much longer than a poll its answer may take.
const POLL_SLACK: Duration = Duration::from_secs(10);

/// A job as the server told it.
#[derive(Debug, Clone)]
pub struct JobInfo {
    /// The snapshot.
    pub job: Job,
    /// Why it waits, if it is inactive and was asked for alone.
    pub phase: Option<Phase>,
    /// Jobs that wait for it, if it was asked for alone.
    pub children: Vec<i64>,
    /// The JSON text, for passing on unchanged.
    pub raw: Box<RawValue>,
}

/// An enqueued job.
#[derive(Debug, Clone)]
pub struct EnqueuedJob {
    /// Its number.
    pub id: i64,
    /// It was there already: a living job of the same task has the same key.
    pub existing: bool,
    /// What the server answered.
    pub raw: Box<RawValue>,
}

/// Which jobs to list. Empty means any.
#[derive(Debug, Clone, Default)]
pub struct JobQuery {
    /// Any of these states.
    pub states: Vec<State>,
    /// Waits for any of these reasons.
    pub phases: Vec<Phase>,
    /// Any of these tasks.
    pub tasks: Vec<String>,
    /// Any of these queues.
    pub queues: Vec<String>,
    /// Has all of these notes: a name, or a name and its value as `rack=3`.
    pub notes: Vec<String>,
    /// Has all of these values in its arguments, as `/0/serial=ABC`.
    pub args: Vec<String>,
    /// Has this text in its task, arguments, notes or error.
    pub text: Option<String>,
    /// Any of these jobs.
    pub ids: Vec<i64>,
    /// Was enqueued by this job.
    pub origin: Option<i64>,
    /// Only ids below this one.
    pub before: Option<i64>,
    /// At most so many; the server has a usual number and a limit.
    pub limit: Option<u32>,
}

/// One page of jobs, newest first.
#[derive(Debug, Clone)]
pub struct JobList {
    /// The jobs.
    pub jobs: Vec<JobInfo>,
    /// `before` of the next page, if there may be more: a short or empty page is not the last for that.
    pub next: Option<i64>,
    /// What the server answered.
    pub raw: Box<RawValue>,
}

/// What the parents of a job have brought, as many as one answer holds.
#[derive(Debug, Clone, Deserialize)]
pub struct ParentPage {
    /// In the order in which they were named. One without a state is gone.
    pub parents: Vec<JobResult>,
    /// The place of the first on the next page, if there is one.
    #[serde(default)]
    pub next: Option<usize>,
}

/// What a manual retry may change.
#[derive(Debug, Clone, Default, Serialize)]
pub struct RetryRequest {
    /// Not before so long from now.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "seconds")]
    pub delay: Option<Duration>,
    /// A new priority.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    /// Another queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// How many runs it may have in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<i32>,
    /// Removed if it has not been started within this time; only for a job that never ran.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "seconds")]
    pub expire: Option<Duration>,
    /// Do failed and cancelled parents let it run too?
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lax: Option<bool>,
    /// Jobs that it waits for from now on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parents: Option<Vec<i64>>,
}

/// What may be changed of a job that waits.
#[derive(Debug, Clone, Default, Serialize)]
pub struct AmendRequest {
    /// Not before so long from now.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "seconds")]
    pub delay: Option<Duration>,
    /// A new priority.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    /// Another queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// Merged into the job's notes member by member; `null` deletes one.
    #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
    pub notes: serde_json::Map<String, Value>,
}

/// Figures of the whole queue. A newer server may tell more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Statistics {
    /// Waiting, whatever for.
    pub inactive: i64,
    /// Of these, waiting for their time.
    pub delayed: i64,
    /// Of these, waiting for parents.
    pub blocked: i64,
    /// Running.
    pub active: i64,
    /// Ended well.
    pub finished: i64,
    /// Ended badly.
    pub failed: i64,
    /// Called off.
    pub cancelled: i64,
    /// Jobs that were ever enqueued, roughly.
    pub enqueued: i64,
    /// Workers whose heartbeat is fresh.
    pub workers: i64,
    /// Of these, running jobs.
    pub active_workers: i64,
    /// Of these, waiting for jobs.
    pub inactive_workers: i64,
    /// Workers that were not heard of lately.
    pub stale_workers: i64,
    /// Workers that do a node's own tasks alone: they are not among the others.
    pub own_workers: i64,
    /// Holds of named locks.
    pub active_locks: i64,
    /// Schedules, whether they are paused or not.
    pub schedules: i64,
    /// Of these, paused.
    pub inactive_schedules: i64,
    /// For so many seconds the node that answered has been running.
    pub uptime: u64,
    /// Sessions of that node.
    pub sessions: u64,
    /// Up to where it has relayed the journal, if it has relayed anything.
    pub position: Option<String>,
}

#[expect(clippy::ref_option, reason = "the shape that serde calls")]
fn seconds<S: serde::Serializer>(span: &Option<Duration>, s: S) -> Result<S::Ok, S::Error> {
    span.map(|d| d.as_secs_f64()).serialize(s)
}

impl Client {
    /// Enqueues one job.
    ///
    /// # Errors
    /// The server's problem, or that it cannot be reached; then it is not known whether the job was enqueued, and a
    /// `key` makes trying again harmless.
    pub async fn enqueue(&self, request: &EnqueueRequest) -> Result<EnqueuedJob, ClientError> {
        let answer = self.request(Request::new(Method::POST, "api/v1/jobs").json(text(request)?)).await?;
        EnqueuedJob::read("POST /api/v1/jobs", &answer.body)
    }

    /// Enqueues all or none. Answers their ids in order.
    ///
    /// # Errors
    /// As [`Client::enqueue`].
    pub async fn enqueue_all(&self, requests: &[EnqueueRequest]) -> Result<Vec<i64>, ClientError> {
        #[derive(Deserialize)]
        struct Wire {
            ids: Vec<i64>,
        }
        let answer = self.request(Request::new(Method::POST, "api/v1/jobs").json(text(requests)?)).await?;
        read::<Wire>("POST /api/v1/jobs", &answer.body).map(|w| w.ids)
    }

    /// One job.
    ///
    /// # Errors
    /// `not_found`, or that the server cannot be reached.
    pub async fn get(&self, id: i64) -> Result<JobInfo, ClientError> {
        let path = format!("api/v1/jobs/{id}");
        let answer = self.request(Request::new(Method::GET, &path)).await?;
        JobInfo::read(&path, &answer.body)
    }

    /// A page of jobs, newest first.
    ///
    /// # Errors
    /// The server's problem, or that it cannot be reached.
    pub async fn list(&self, query: &JobQuery) -> Result<JobList, ClientError> {
        #[derive(Deserialize)]
        struct Wire {
            jobs: Vec<Box<RawValue>>,
            #[serde(default)]
            next: Option<i64>,
        }
        let request = Request { query: query.pairs(), ..Request::new(Method::GET, "api/v1/jobs") };
        let answer = self.request(request).await?;
        let raw: Box<RawValue> = read("GET /api/v1/jobs", &answer.body)?;
        let wire: Wire = read("GET /api/v1/jobs", raw.get().as_bytes())?;
        let jobs = wire.jobs.iter().map(|j| JobInfo::read("GET /api/v1/jobs", j.get().as_bytes()));
        Ok(JobList { jobs: jobs.collect::<Result<_, _>>()?, next: wire.next, raw })
    }

    /// What each of a job's parents has brought.
    ///
    /// # Errors
    /// `not_found`, or that the server cannot be reached.
    pub async fn parents(&self, id: i64) -> Result<Vec<JobResult>, ClientError> {
        let (mut parents, mut from) = (Vec::new(), Some(0));
        let path = format!("api/v1/jobs/{id}/parents");
        while let Some(place) = from {
            let query = vec![("from", usize::to_string(&place))];
            let answer = self.request(Request { query, ..Request::new(Method::GET, &path) }).await?;
            let page: ParentPage = read(&path, &answer.body)?;
            parents.extend(page.parents);
            from = page.next;
        }
        Ok(parents)
    }

    /// Makes an ended job wait again, or a waiting one ready.
    ///
    /// # Errors
    /// `not_found`, `conflict` while it runs, or that the server cannot be reached.
    pub async fn retry(&self, id: i64, options: &RetryRequest) -> Result<(), ClientError> {
        let path = format!("api/v1/jobs/{id}/retry");
        self.request(Request::new(Method::POST, &path).json(text(options)?)).await.map(drop)
    }

    /// Calls a job off, waiting or running.
    ///
    /// # Errors
    /// `not_found`, `conflict` when it has ended, or that the server cannot be reached.
    pub async fn cancel(&self, id: i64) -> Result<(), ClientError> {
        self.request(Request::new(Method::POST, &format!("api/v1/jobs/{id}/cancel"))).await.map(drop)
    }

    /// Calls off a job and all that it enqueued, that those enqueued, and so on. Answers how many were called off.
    ///
    /// # Errors
    /// `not_found`, or that the server cannot be reached.
    pub async fn cancel_cascade(&self, id: i64) -> Result<u64, ClientError> {
        #[derive(Deserialize)]
        struct Answer {
            cancelled: u64,
        }
        let path = format!("api/v1/jobs/{id}/cancel");
        let mut request = Request::new(Method::POST, &path);
        request.body = Some(("application/json", r#"{"cascade":true}"#.into()));
        let answer = self.request(request).await?;
        read::<Answer>("POST /api/v1/jobs/{id}/cancel", &answer.body).map(|answer| answer.cancelled)
    }

    /// Deletes a job that does not run.
    ///
    /// # Errors
    /// `not_found`, `conflict` while it runs, or that the server cannot be reached.
    pub async fn remove(&self, id: i64) -> Result<(), ClientError> {
        self.request(Request::new(Method::DELETE, &format!("api/v1/jobs/{id}"))).await.map(drop)
    }

    /// Changes when a job that waits runs, how urgently and where. It queues up anew.
    ///
    /// # Errors
    /// `not_found`, `conflict` when it runs or has ended, `invalid_request`, `payload_too_large`, or that the server cannot be
    /// reached.
    pub async fn amend(&self, id: i64, amendment: &AmendRequest) -> Result<(), ClientError> {
        let path = format!("api/v1/jobs/{id}");
        self.request(Request::new(Method::PATCH, &path).json(text(amendment)?)).await.map(drop)
    }

    /// Merges notes into a job's, member by member; `null` deletes one.
    ///
    /// # Errors
    /// `not_found`, `payload_too_large`, or that the server cannot be reached.
    pub async fn note(&self, id: i64, notes: &serde_json::Map<String, Value>) -> Result<(), ClientError> {
        let path = format!("api/v1/jobs/{id}");
        let body = text(&serde_json::json!({ "notes": notes }))?;
        self.request(Request::new(Method::PATCH, &path).json(body)).await.map(drop)
    }

    /// Waits until a job ends, at most `limit`, and answers it as it then is. Once the server has answered, the wait
    /// outlives its restarts.
    ///
    /// # Errors
    /// [`ClientError::Timeout`] when it has not ended in time; `not_found`, also when it is removed meanwhile.
    pub async fn wait(&self, id: i64, limit: Option<Duration>) -> Result<JobInfo, ClientError> {
        let deadline = limit.map(|l| Instant::now() + l);
        let backoff = crate::backoff::Backoff::default();
        let mut random = fastrand::Rng::new();
        let (mut answered, mut failures) = (false, 0);
        loop {
            let left = deadline.map(|d| d.saturating_duration_since(Instant::now()));
            let poll = left.map_or(POLL, |l| l.min(POLL));
            match self.poll(id, poll).await {
                Ok(Some(info)) => return Ok(info),
                Ok(None) => (answered, failures) = (true, 0),
                Err(error) if answered && error.is_passing_for(answered) => {
                    failures += 1;
                    tokio::time::sleep(
                        backoff.pause(failures, &mut random).min(left.unwrap_or(Duration::MAX)),
                    )
                    .await;
                }
                Err(error) => return Err(error),
            }
            if deadline.is_some_and(|d| Instant::now() >= d) {
                let limit = limit.unwrap_or_default();
                return Err(ClientError::Timeout { what: format!("the end of job {id}"), limit });
            }
        }
    }

    /// The job if it ends within `span`.
    async fn poll(&self, id: i64, span: Duration) -> Result<Option<JobInfo>, ClientError> {
        let path = format!("api/v1/jobs/{id}/wait");
        // Whole milliseconds, as durations are written.
        let query = vec![("timeout", format!("{}ms", span.as_millis()))];
        let request = Request { query, timeout: Some(span + POLL_SLACK), ..Request::new(Method::GET, &path) };
        match self.request(request).await {
            Ok(answer) => JobInfo::read(&path, &answer.body).map(|i| i.job.state.is_ended().then_some(i)),
            Err(ClientError::Problem(p)) if p.code == ErrorCode::Timeout => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A job's history from the journal, oldest first: each event as JSON text. Of a job that was removed, only with
    /// the name of its `task`.
    ///
    /// # Errors
    /// `not_found`, or that the server cannot be reached.
    pub async fn events(&self, id: i64, task: Option<&str>) -> Result<Vec<Box<RawValue>>, ClientError> {
        #[derive(Deserialize)]
        struct Wire {
            events: Vec<Box<RawValue>>,
            /// A node of before has no pages.
            #[serde(default)]
            next: Option<String>,
        }
        let path = format!("api/v1/jobs/{id}/events");
        let (mut events, mut after) = (Vec::new(), None);
        loop {
            let named = task.map(|t| ("task", t.to_owned()));
            let query = named.into_iter().chain(after.map(|a| ("after", a))).collect();
            let answer = self.request(Request { query, ..Request::new(Method::GET, &path) }).await?;
            let page = read::<Wire>(&path, &answer.body)?;
            events.extend(page.events);
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(events),
            }
        }
    }

    /// Figures of the whole queue.
    ///
    /// # Errors
    /// The server's problem, or that it cannot be reached.
    pub async fn stats(&self) -> Result<Statistics, ClientError> {
        let answer = self.request(Request::new(Method::GET, "api/v1/stats")).await?;
        read("GET /api/v1/stats", &answer.body)
    }
}

impl EnqueuedJob {
    pub(crate) fn read(what: &str, body: &[u8]) -> Result<EnqueuedJob, ClientError> {
        #[derive(Deserialize)]
        struct Wire {
            id: i64,
            #[serde(default)]
            existing: bool,
        }
        let raw: Box<RawValue> = read(what, body)?;
        let wire: Wire = read(what, raw.get().as_bytes())?;
        Ok(EnqueuedJob { id: wire.id, existing: wire.existing, raw })
    }
}

impl JobQuery {
    fn pairs(&self) -> Vec<(&'static str, String)> {
        let mut pairs = Vec::new();
        pairs.extend(self.states.iter().map(|s| ("state", s.to_string())));
        pairs.extend(self.phases.iter().map(|p| ("phase", p.to_string())));
        pairs.extend(self.tasks.iter().map(|t| ("task", t.clone())));
        pairs.extend(self.queues.iter().map(|q| ("queue", q.clone())));
        pairs.extend(self.notes.iter().map(|n| ("note", n.clone())));
        pairs.extend(self.args.iter().map(|a| ("arg", a.clone())));
        pairs.extend(self.text.iter().map(|t| ("q", t.clone())));
        pairs.extend(self.ids.iter().map(|id| ("id", id.to_string())));
        pairs.extend(self.origin.map(|o| ("origin", o.to_string())));
        pairs.extend(self.before.map(|b| ("before", b.to_string())));
        pairs.extend(self.limit.map(|l| ("limit", l.to_string())));
        pairs
    }
}

impl JobInfo {
    fn read(what: &str, body: &[u8]) -> Result<JobInfo, ClientError> {
        // RawValue does not go through serde's flatten, so the text is read twice.
        #[derive(Deserialize)]
        struct Derived {
            #[serde(default)]
            phase: Option<Phase>,
            #[serde(default)]
            children: Vec<i64>,
        }
        let raw: Box<RawValue> = read(what, body)?;
        let derived: Derived = read(what, raw.get().as_bytes())?;
        let job = read(what, raw.get().as_bytes())?;
        Ok(JobInfo { job, phase: derived.phase, children: derived.children, raw })
    }
}

pub(crate) fn text<T: Serialize + ?Sized>(value: &T) -> Result<String, ClientError> {
    let fault = |e: serde_json::Error| ClientError::Answer {
        what: "writing the request".into(),
        reason: e.to_string(),
    };
    serde_json::to_string(value).map_err(fault)
}

pub(crate) fn read<T: DeserializeOwned>(what: &str, body: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(body).map_err(|e| ClientError::Answer { what: what.into(), reason: e.to_string() })
}
