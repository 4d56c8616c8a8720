//! `/api/v1/bulk`: bulk actions that the node runs behind their requests, on all that a filter finds.
//!
//! Each goes on piece by piece as one that is asked for by hand does, tells after every piece how far it is on a topic of its
//! own, and can be stopped between two pieces. It lives in the memory of its node and ends with it: what was done stays done, and
//! asking again goes on, since what has changed passes the filter no more.

use super::super::problem::Refusal;
use super::super::{App, json};
use axum::extract::{Path, State};
use axum::response::Response;
use http::StatusCode;
use http::header::{HeaderValue, LOCATION};
use jiff::Timestamp;
use minium_bus::{Bus, Message};
use minium_protocol::{ErrorCode, Topic};
use minium_queue::{BulkAction, BulkDone, JobFilter, QueueError, Store};
use serde::Serialize;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};
use uuid::Uuid;

/// So many run at once on a node: each keeps a connection of the database busy.
const RUNNING_MAX: usize = 4;
/// So many that have ended are remembered.
const ENDED_MAX: usize = 64;
/// A piece that failed for a reason that passes is tried so often in all, with pauses that double.
const TRIES_MAX: u32 = 5;
const PAUSE_FIRST: Duration = Duration::from_millis(250);

/// How far one is.
#[derive(Debug, Clone, Serialize)]
struct Progress {
    id: Uuid,
    topic: String,
    action: &'static str,
    dry_run: bool,
    started: Timestamp,
    matched: u64,
    changed: u64,
    refused: u64,
    /// It goes on no more, for whatever reason.
    done: bool,
    /// Somebody stopped it, or its node goes down.
    stopped: bool,
    /// Why it ended early, if it is not that.
    error: Option<String>,
}

impl Progress {
    fn add(&mut self, piece: BulkDone) {
        self.matched += piece.matched;
        self.changed += piece.changed;
        self.refused += piece.refused;
    }

    fn text(&self) -> String {
        serde_json::to_string(self).expect("progress is plain JSON")
    }
}

/// One of them.
struct Run {
    id: Uuid,
    progress: Mutex<Progress>,
    stop: CancellationToken,
}

impl Run {
    fn now(&self) -> Progress {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes what is told, and gives it.
    fn change(&self, change: impl FnOnce(&mut Progress)) -> Progress {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut progress);
        progress.clone()
    }
}

/// Held by the task of a run: one that ends without a word, by a mistake of ours, must not count as running for ever.
struct Ends(Arc<Run>);

impl Drop for Ends {
    fn drop(&mut self) {
        if self.0.now().done {
            return;
        }
        self.0.change(|p| {
            p.done = true;
            p.error = Some("the node failed to go on; ask again, and what is left is done".into());
        });
        error!(bulk = %self.0.id, "A bulk action ended without a word.");
    }
}

/// Those of this node.
pub(crate) struct Bulks {
    /// The oldest first.
    runs: Mutex<VecDeque<Arc<Run>>>,
    /// The node ends when these have.
    tasks: TaskTracker,
}

/// What is to be done, with whom.
pub(super) struct Order {
    pub(super) action: BulkAction,
    pub(super) filter: JobFilter,
    pub(super) dry_run: bool,
}

impl Bulks {
    /// None yet.
    pub(crate) fn new(tasks: TaskTracker) -> Bulks {
        Bulks { runs: Mutex::default(), tasks }
    }

    /// Takes one in, unless too many run.
    fn admit(&self, order: &Order, closing: &CancellationToken) -> Result<Arc<Run>, Refusal> {
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        if runs.iter().filter(|run| !run.now().done).count() >= RUNNING_MAX {
            let detail = format!("{RUNNING_MAX} bulk actions run on this node already");
            let wait = HeaderValue::from_static("2");
            return Err(
                Refusal::new(ErrorCode::RateLimited, detail).with_header(http::header::RETRY_AFTER, wait)
            );
        }
        let id = Uuid::new_v4();
        let progress = Progress {
            id,
            topic: format!("bulk/{id}"),
            action: word(&order.action),
            dry_run: order.dry_run,
            started: Timestamp::now(),
            matched: 0,
            changed: 0,
            refused: 0,
            done: false,
            stopped: false,
            error: None,
        };
        let run = Arc::new(Run { id, progress: Mutex::new(progress), stop: closing.child_token() });
        runs.push_back(run.clone());
        let ended = runs.iter().filter(|run| run.now().done).count();
        if ended > ENDED_MAX
            && let Some(oldest) = runs.iter().position(|run| run.now().done)
        {
            runs.remove(oldest);
        }
        Ok(run)
    }

    fn find(&self, id: &str) -> Result<Arc<Run>, Refusal> {
        let runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        let id: Option<Uuid> = id.parse().ok();
        let run = runs.iter().find(|run| Some(run.id) == id).cloned();
        run.ok_or_else(|| {
            Refusal::new(ErrorCode::NotFound, "this node knows no such bulk action; it may have restarted")
        })
    }

    fn all(&self) -> Vec<Progress> {
        let runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        runs.iter().rev().map(|run| run.now()).collect()
    }
}

fn word(action: &BulkAction) -> &'static str {
    match action {
        BulkAction::Retry(_) => "retry",
        BulkAction::Cancel => "cancel",
        BulkAction::Remove => "remove",
    }
}

/// Begins one, and answers where to look for it.
pub(super) fn begin(app: &Arc<App>, store: Arc<dyn Store>, order: Order) -> Result<Response, Refusal> {
    let run = app.bulks.admit(&order, &app.closing)?;
    let progress = run.now();
    info!(bulk = %run.id, action = progress.action, dry_run = order.dry_run, "A bulk action begins.");
    app.bulks.tasks.spawn(go(run, store, app.bus.clone(), order));
    let mut response = json(StatusCode::ACCEPTED, progress.text());
    let place = format!("/api/v1/bulk/{}", progress.id);
    let place = HeaderValue::from_str(&place).expect("a UUID is made of digits, letters and hyphens");
    response.headers_mut().insert(LOCATION, place);
    Ok(response)
}

/// Piece by piece to the end.
async fn go(run: Arc<Run>, store: Arc<dyn Store>, bus: Bus, mut order: Order) {
    let _ends = Ends(run.clone());
    let topic: Topic = run.now().topic.parse().expect("a word and a UUID are a topic");
    let ended = loop {
        // what is being done is done to its end
        if run.stop.is_cancelled() {
            break run.change(|p| (p.done, p.stopped) = (true, true));
        }
        let (done, next) = match piece(&*store, &order, &run.stop).await {
            Ok(done) => (done, done.next),
            Err(error) => {
                break run.change(|p| {
                    p.error = Some(error.problem().detail.unwrap_or_else(|| error.code().to_string()));
                    p.done = true;
                });
            }
        };
        let progress = run.change(|p| {
            p.add(done);
            p.done = next.is_none();
        });
        if progress.done {
            break progress;
        }
        tell(&bus, &topic, &progress).await;
        order.filter.before = next;
    };
    let error = ended.error.as_deref().unwrap_or_default();
    let (matched, changed, stopped) = (ended.matched, ended.changed, ended.stopped);
    info!(bulk = %run.id, matched, changed, stopped, error, "A bulk action has ended.");
    tell(&bus, &topic, &ended).await;
}

/// One piece, tried again while the database is away.
async fn piece(store: &dyn Store, order: &Order, stop: &CancellationToken) -> Result<BulkDone, QueueError> {
    let mut pause = PAUSE_FIRST;
    for _ in 1..TRIES_MAX {
        match minium_queue::bulk(store, &order.action, &order.filter, order.dry_run).await {
            Err(error) if error.is_away() && !stop.is_cancelled() => {
                tokio::time::timeout(pause, stop.cancelled()).await.ok();
                pause *= 2;
            }
            other => return other,
        }
    }
    minium_queue::bulk(store, &order.action, &order.filter, order.dry_run).await
}

/// Whoever follows hears how far it is. Nobody may be there, and a schema may be against it: the action goes on.
async fn tell(bus: &Bus, topic: &Topic, progress: &Progress) {
    let message = Message::Text(progress.text().into());
    if let Err(problem) = bus.publish(topic, message, None).await {
        warn!(bulk = %progress.id, code = %problem.code, "The progress of a bulk action was not published.");
    }
}

/// GET `/api/v1/bulk`: those that run, and the last that have ended, the newest first.
pub(crate) async fn list(State(app): State<Arc<App>>) -> Response {
    json(StatusCode::OK, serde_json::json!({ "bulks": app.bulks.all() }).to_string())
}

/// GET `/api/v1/bulk/{id}`: how far it is.
pub(crate) async fn show(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Response, Refusal> {
    Ok(json(StatusCode::OK, app.bulks.find(&id)?.now().text()))
}

/// DELETE `/api/v1/bulk/{id}`: begins no further piece. Answers how far it is.
pub(crate) async fn stop(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Response, Refusal> {
    let run = app.bulks.find(&id)?;
    run.stop.cancel();
    Ok(json(StatusCode::OK, run.now().text()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order() -> Order {
        Order { action: BulkAction::Cancel, filter: JobFilter::default(), dry_run: true }
    }

    #[tokio::test]
    async fn one_whose_task_is_gone_is_done_and_makes_room() {
        let (bulks, closing) = (Bulks::new(TaskTracker::new()), CancellationToken::new());
        let admit = || bulks.admit(&order(), &closing);
        let runs: Vec<_> = (0..RUNNING_MAX).map(|_| admit().unwrap()).collect();
        assert!(admit().is_err());
        let (lost, ended) = (&runs[0], &runs[1]);
        let guard = Ends(lost.clone());
        let task = tokio::spawn(async move {
            let _ends = guard;
            panic!("a mistake");
        });
        assert!(task.await.unwrap_err().is_panic());
        let now = lost.now();
        assert!(now.done && !now.stopped && now.error.is_some(), "{now:?}");
        assert!(admit().is_ok(), "there is room again");
        // one that has said how it ended keeps its word
        ended.change(|p| p.done = true);
        drop(Ends(ended.clone()));
        assert_eq!(ended.now().error, None);
    }

    #[test]
    fn few_run_and_few_are_remembered() {
        let (bulks, closing) = (Bulks::new(TaskTracker::new()), CancellationToken::new());
        let admit = || bulks.admit(&order(), &closing);
        let first = admit().unwrap();
        for _ in 1..RUNNING_MAX {
            admit().unwrap();
        }
        assert!(admit().is_err(), "too many run");
        assert!(bulks.find(&first.id.to_string()).is_ok() && bulks.find("what").is_err());
        first.change(|p| p.done = true);
        let mut last = admit().unwrap();
        for _ in 0..2 * ENDED_MAX {
            last.change(|p| p.done = true);
            last = admit().unwrap();
        }
        let all = bulks.all();
        assert_eq!((all.len(), all[0].id), (RUNNING_MAX + ENDED_MAX, last.id), "the newest first");
        assert!(bulks.find(&first.id.to_string()).is_err(), "the oldest that has ended is forgotten");
        closing.cancel();
        assert!(last.stop.is_cancelled(), "none outlives its node");
    }
}
