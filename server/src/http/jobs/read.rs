//! GET: one job, a page of jobs, the figures.

use super::super::problem::Refusal;
use super::super::query::{Pairs, limit, many, one, only, pairs};
use super::super::{App, json, path};
use super::find;
use axum::extract::{Path, State};
use axum::response::Response;
use http::{StatusCode, Uri};
use minium_protocol::State as JobState;
use minium_queue::JobFilter;
use std::sync::Arc;

/// More jobs than this are not on one page.
const PAGE_MAX: u32 = 1_000;

/// GET `/api/v1/jobs/{id}`: the snapshot, and what is derived.
pub(crate) async fn show(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Response, Refusal> {
    let store = app.database.store()?;
    let view = find(&*store, path::job(&id)?).await?;
    Ok(json(StatusCode::OK, view.to_json()))
}

/// GET `/api/v1/jobs/{id}/failures`: why each run failed that did, the first one first.
pub(crate) async fn failures(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    let (store, id) = (app.database.store()?, path::job(&id)?);
    let failures = store.failures(id).await?;
    if failures.is_empty() {
        find(&*store, id).await?;
    }
    Ok(json(StatusCode::OK, serde_json::json!({ "failures": failures }).to_string()))
}

/// GET `/api/v1/jobs`: a page, newest first.
pub(crate) async fn list(State(app): State<Arc<App>>, uri: Uri) -> Result<Response, Refusal> {
    let filter = filter(&pairs(&uri)?)?;
    let page = app.database.store()?.list(&filter).await?;
    let mut text = String::from("{\"jobs\":[");
    for (i, job) in page.jobs.iter().enumerate() {
        if i > 0 {
            text.push(',');
        }
        text.push_str(job.get());
    }
    let next = page.next.map_or("null".into(), |id| id.to_string());
    text.push_str(&format!("],\"next\":{next}}}"));
    Ok(json(StatusCode::OK, text))
}

/// GET `/api/v1/stats`: figures of the whole queue, and of this node's bus.
pub(crate) async fn stats(State(app): State<Arc<App>>) -> Result<Response, Refusal> {
    let stats = app.database.store()?.stats().await?;
    let mut value = serde_json::to_value(&stats).expect("figures are plain JSON");
    if let Some(members) = value.as_object_mut() {
        let bus = app.bus.stats();
        members.insert("sessions".into(), bus.sessions.into());
        members.insert("uptime".into(), app.started.elapsed().as_secs().into());
        members.insert("position".into(), bus.relayed.map(|p| p.to_string()).into());
    }
    Ok(json(StatusCode::OK, value.to_string()))
}

/// What the query asks for. Lists are parameters that are repeated, or parted by commas.
fn filter(pairs: &Pairs) -> Result<JobFilter, Refusal> {
    if pairs.iter().any(|(name, _)| name == "q") {
        return Err(Refusal::invalid(
            "q is not supported by this version; use state, task, queue, note, id and origin",
        ));
    }
    only(pairs, &["state", "task", "queue", "note", "id", "origin", "before", "limit"])?;
    let names = |name| many(pairs, name).map(|all| all.into_iter().map(str::to_owned).collect());
    let states = many(pairs, "state")?.into_iter().map(str::parse::<JobState>).collect::<Result<_, _>>();
    let limit = limit(pairs, JobFilter::default().limit, PAGE_MAX)?;
    Ok(JobFilter {
        states: states.map_err(|why| Refusal::invalid(format!("state: {why}")))?,
        tasks: names("task")?,
        queues: names("queue")?,
        notes: names("note")?,
        ids: many(pairs, "id")?.into_iter().map(path::job).collect::<Result<_, _>>()?,
        origin: one(pairs, "origin")?.map(path::job).transpose()?,
        before: one(pairs, "before")?.map(path::job).transpose()?,
        limit,
        ..JobFilter::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(query: &str) -> Result<JobFilter, Refusal> {
        filter(&pairs(&format!("/api/v1/jobs{query}").parse().unwrap())?)
    }

    #[test]
    fn a_query_becomes_a_filter() {
        let filter =
            asked("?state=active,failed&state=finished&task=a/b&queue=q&note=x&note=y&before=7&limit=1000&id=3,4&id=5&origin=2")
                .unwrap();
        assert_eq!(filter.states, [JobState::Active, JobState::Failed, JobState::Finished]);
        assert_eq!((filter.tasks, filter.queues), (vec!["a/b".to_owned()], vec!["q".to_owned()]));
        assert_eq!((filter.notes.len(), filter.before, filter.limit), (2, Some(7), 1_000));
        assert_eq!((filter.ids, filter.origin), (vec![3, 4, 5], Some(2)));
        assert_eq!(asked("").unwrap().limit, 50);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for bad in [
            "?state=done",
            "?limit=0",
            "?limit=1001",
            "?limit=x",
            "?before=x",
            "?id=x",
            "?task=",
            "?state=failed,",
            "?task=a&queue=",
            "?origin=x",
            "?origin=1&origin=2",
            "?q=x",
            "?colour=red",
            "?limit=1&limit=2",
        ] {
            assert!(asked(bad).is_err(), "{bad}");
        }
    }
}
