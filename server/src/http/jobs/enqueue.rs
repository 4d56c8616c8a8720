//! POST `/api/v1/jobs`: one job, or many of which all are enqueued or none.

use super::super::permit::Granted;
use super::super::problem::Refusal;
use super::super::{App, body, json, trace};
use super::{find, parse};
use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;
use http::header::{HeaderMap, HeaderValue, LOCATION};
use http::{HeaderName, StatusCode};
use minium_bus::Schemas;
use minium_protocol::{EnqueueRequest, ErrorCode, Problem, Unique, read_jobs};
use minium_queue::Store;
use serde_json::value::RawValue;
use std::sync::Arc;
use std::time::Duration;
use tracing::{Instrument, debug_span};

/// More jobs than this do not go into one request.
const JOBS_MAX: usize = 10_000;

/// For so long a request with an `Idempotency-Key` is answered by the job of the first.
const IDEMPOTENT: Duration = Duration::from_secs(86_400);

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The handler.
pub(crate) async fn enqueue(
    State(app): State<Arc<App>>,
    Extension(granted): Extension<Granted>,
    request: Request,
) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    let bytes = body::read(body, app.limits.request_bytes, app.limits.patience).await?;
    let many = bytes.trim_ascii_start().first() == Some(&b'[');
    let (mut jobs, count) = if many { read_many(&bytes)? } else { (read_one(&bytes)?, 1) };
    take_key(&parts.headers, &mut jobs[..count], many)?;
    let trace = trace::context(&parts.headers);
    for (i, job) in jobs.iter_mut().enumerate() {
        job.options.trace = job.options.trace.take().or_else(|| trace.clone());
        let named = |refusal: Refusal| if many || i >= count { refusal.within(&place(i)) } else { refusal };
        granted.check_task(&job.task).and_then(|()| check_args(&app.schemas, job)).map_err(named)?;
    }
    let store = app.database.store()?;
    let span = debug_span!("enqueue", jobs = count, task = jobs.first().map(|job| job.task.as_str()));
    let enqueue = async {
        if many { enqueue_many(&*store, &jobs, count).await } else { enqueue_one(&*store, &jobs).await }
    };
    enqueue.instrument(span).await
}

async fn enqueue_one(store: &dyn Store, jobs: &[EnqueueRequest]) -> Result<Response, Refusal> {
    let answers = store.enqueue(jobs).await?;
    let enqueued = answers.first().expect("a store answers each job");
    // It may have run and have been removed already; then its number is all that there is to say.
    let text = match find(store, enqueued.id).await {
        Ok(view) => view.to_json(),
        Err(_) => format!("{{\"id\":{}}}", enqueued.id),
    };
    if enqueued.existing {
        let open = text.strip_suffix('}').unwrap_or(&text);
        return Ok(json(StatusCode::OK, format!("{open},\"existing\":true}}")));
    }
    let mut response = json(StatusCode::CREATED, text);
    let location = format!("/api/v1/jobs/{}", enqueued.id);
    response
        .headers_mut()
        .insert(LOCATION, HeaderValue::from_str(&location).expect("a number is a header's text"));
    Ok(response)
}

/// Answers those that stand in the array; what they bring along is found as their children.
async fn enqueue_many(store: &dyn Store, jobs: &[EnqueueRequest], count: usize) -> Result<Response, Refusal> {
    let answers = if jobs.is_empty() { Vec::new() } else { store.enqueue(jobs).await? };
    let ids: Vec<i64> = answers.iter().take(count).map(|a| a.id).collect();
    Ok(json(StatusCode::CREATED, serde_json::json!({ "ids": ids }).to_string()))
}

/// A job and those that follow it.
fn read_one(bytes: &[u8]) -> Result<Vec<EnqueueRequest>, Refusal> {
    let json: &RawValue = parse(bytes)?;
    let tree = read_jobs(json.get(), JOBS_MAX).map_err(Refusal::invalid)?;
    Ok(std::iter::once(tree.job).chain(tree.followers).collect())
}

/// All jobs, those of the array first, and how many these are.
fn read_many(bytes: &[u8]) -> Result<(Vec<EnqueueRequest>, usize), Refusal> {
    let items: Vec<&RawValue> = parse(bytes)?;
    if items.len() > JOBS_MAX {
        return Err(Refusal::invalid(format!(
            "{} jobs in one request; at most {JOBS_MAX} are taken",
            items.len()
        )));
    }
    let count = items.len();
    let (mut jobs, mut followers) = (Vec::with_capacity(count), Vec::new());
    for (i, item) in items.iter().enumerate() {
        let room = JOBS_MAX - count + 1 - followers.len();
        let tree = read_jobs(item.get(), room).map_err(|why| Refusal::invalid(why).within(&place(i)))?;
        jobs.push(tree.job);
        // their places are told from their own tree; here they stand behind all of the array
        let first = count + followers.len();
        followers.extend(tree.followers.into_iter().map(|mut follower| {
            for after in &mut follower.options.after {
                *after = if *after == 0 { i } else { first + *after - 1 };
            }
            follower
        }));
    }
    jobs.extend(followers);
    Ok((jobs, count))
}

/// `Idempotency-Key` is the key of a job that brings none, held for a day: the same request again, in that time, is answered
/// by the same job, whatever has become of it.
fn take_key(headers: &HeaderMap, jobs: &mut [EnqueueRequest], many: bool) -> Result<(), Refusal> {
    let Some(given) = headers.get(IDEMPOTENCY_KEY) else { return Ok(()) };
    if many {
        return Err(Refusal::invalid("Idempotency-Key goes with one job; give each of many its own key"));
    }
    let text = given.to_str().map_err(|_| Refusal::invalid("Idempotency-Key is not plain text"))?;
    // The header's draft makes it a quoted string, most senders do not.
    let key = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).unwrap_or(text);
    for job in jobs.iter_mut().filter(|job| job.options.key.is_none()) {
        job.options.key = Some(key.to_owned());
        job.options.unique = Unique::For(IDEMPOTENT);
        job.check().map_err(|why| Refusal::invalid(format!("Idempotency-Key: {why}")))?;
    }
    Ok(())
}

/// The whole `args` against the schema of the task.
pub(in super::super) fn check_args(schemas: &Schemas, job: &EnqueueRequest) -> Result<(), Refusal> {
    let Some(schema) = schemas.for_task(&job.task) else { return Ok(()) };
    let args = serde_json::from_str(job.args.get())
        .map_err(|e| Refusal::new(ErrorCode::InvalidJson, format!("the arguments cannot be read: {e}")))?;
    schema.check(&args).map_err(|faults| {
        let detail = format!("the arguments do not fit /schemas/{}", schema.path());
        Problem { errors: faults, ..Problem::new(ErrorCode::SchemaViolation, detail) }.into()
    })
}

/// Which one of many it is, by the numbers that `after` and the queue's own words have: from 0, followers behind all of
/// the array.
fn place(index: usize) -> String {
    format!("job {index}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_many_that_is_wrong_is_named() {
        let read = |text: &str| read_many(text.as_bytes()).map(|(jobs, _)| jobs.len());
        assert_eq!(read(r#"[{"task":"a"},{"task":"b","args":[1]}]"#).unwrap(), 2);
        let refusal = read(r#"[{"task":"a"},{"task":"b","colour":1}]"#).unwrap_err();
        let words = format!("{refusal:?}");
        assert!(words.contains("job 1: ") && words.contains("colour"), "{words}");
        assert!(format!("{:?}", read("[{]").unwrap_err()).contains("InvalidJson"));
    }

    #[test]
    fn the_idempotency_key_is_the_key_of_a_job_without_one() {
        let mut headers = HeaderMap::new();
        headers.insert(IDEMPOTENCY_KEY, "\"abc\"".parse().unwrap());
        let mut jobs =
            [read_one(br#"{"task":"a"}"#).unwrap(), read_one(br#"{"task":"a","key":"own"}"#).unwrap()]
                .concat();
        take_key(&headers, &mut jobs, false).unwrap();
        assert_eq!(jobs[0].options.key.as_deref(), Some("abc"));
        assert_eq!(jobs[1].options.key.as_deref(), Some("own"));
        assert!(take_key(&headers, &mut jobs, true).is_err());
        headers.insert(IDEMPOTENCY_KEY, "".parse().unwrap());
        assert!(take_key(&headers, &mut read_one(br#"{"task":"a"}"#).unwrap(), false).is_err());
    }

    #[test]
    fn followers_of_an_array_stand_behind_it() {
        let (jobs, count) = read_many(
            br#"[{"task":"a","on_success":{"task":"c","on_failure":{"task":"d"}}},
                 {"task":"b","after":[0],"on_success":[{"task":"e"}]}]"#,
        )
        .unwrap();
        let seen: Vec<_> = jobs.iter().map(|j| (j.task.as_str(), j.options.after.clone())).collect();
        assert_eq!(count, 2);
        assert_eq!(seen, [("a", vec![]), ("b", vec![0]), ("c", vec![0]), ("d", vec![2]), ("e", vec![1])]);
    }
}
