//! The queue behind durable push/pull channels: pushes become jobs, jobs go to pullers, their words come back.
//!
//! Three loops, each with one statement under way at a time, so that what comes at once travels together: `push`
//! enqueues, `dispatch` claims for whoever has credit, `words` writes outcomes, notes and leases.
//!
//! **Invariants.** An answer leaves after its commit. No puller gets more jobs than he gave credit for, no job goes to
//! two. A job whose session was gone before it could be handed over is given back with its attempt; one that was handed
//! over stays leased until its puller speaks or the lease ends. One whose arguments break their schema fails before anybody
//! sees it. A store that is away is waited for: pullers wait, pushes
//! and words are `unavailable`.

mod dispatch;
mod held;
mod options;
mod pullers;
mod push;
mod status;
mod words;

pub use options::WorkOptions;

use async_trait::async_trait;
use dispatch::{Counter, Dispatcher, Identity};
use held::Held;
use minium_bus::{Order, Puller, Pulling, Pushed, Said, Word, Work};
use minium_protocol::{ErrorCode, LeaseToken, Problem, Topic};
use minium_queue::{QueueError, Store};
use push::Push;
use serde_json::value::RawValue;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use words::Say;

/// The store, once it is there.
pub type StoreSlot = watch::Receiver<Option<Arc<dyn Store>>>;

/// Judges a job's arguments by its task, before it is enqueued; and before it is handed over, since SQL enqueues unasked.
pub type ArgsCheck = Arc<dyn Fn(&str, &RawValue) -> Result<(), Problem> + Send + Sync>;

/// How long signing off may take.
const FAREWELL: Duration = Duration::from_secs(2);

/// The queue as the bus sees it. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct TaskWork {
    inner: Arc<Inner>,
}

struct Inner {
    store: StoreSlot,
    check: ArgsCheck,
    options: Arc<WorkOptions>,
    counter: Arc<Counter>,
    held: Arc<Held>,
    identity: Arc<Identity>,
    pushes: mpsc::Sender<Push>,
    says: mpsc::Sender<Say>,
    /// Ends what claims.
    stop: CancellationToken,
    /// Ends what is asked.
    end: CancellationToken,
    tasks: TaskTracker,
}

impl TaskWork {
    /// Starts it on the current runtime. When `stop` is cancelled, nothing more is claimed; the rest goes on until
    /// [`TaskWork::close`].
    pub fn start(
        store: &StoreSlot,
        check: ArgsCheck,
        options: WorkOptions,
        stop: &CancellationToken,
    ) -> TaskWork {
        let options = Arc::new(options);
        let (pushes, pushed) = mpsc::channel(options.waiting_max.max(1));
        let (says, said) = mpsc::channel(options.waiting_max.max(1));
        let inner = Inner {
            store: store.clone(),
            check,
            counter: Arc::default(),
            held: Arc::new(Held::new(options.held_max)),
            identity: Arc::default(),
            options,
            pushes,
            says,
            stop: stop.child_token(),
            end: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        inner.spawn(pushed, said);
        TaskWork { inner: Arc::new(inner) }
    }

    /// A run was cancelled: whoever has it here is told.
    pub(crate) fn cancelled(&self, job: i64, attempt: i32) {
        if let Some(puller) = self.inner.held.cancelled(job, attempt) {
            puller.cancelled(job);
        }
    }

    /// Ends everything; what was taken up is finished first. Later pushes and words are `unavailable`.
    pub async fn close(&self) {
        let inner = &self.inner;
        inner.stop.cancel();
        inner.end.cancel();
        inner.tasks.close();
        inner.tasks.wait().await;
        let store = inner.store.borrow().clone();
        if let Some(store) = store
            && let Ok(Err(error)) = tokio::time::timeout(FAREWELL, inner.identity.end(store.as_ref())).await
        {
            tracing::debug!(%error, "This node could not sign off as a worker.");
        }
    }
}

impl Inner {
    fn spawn(&self, pushed: mpsc::Receiver<Push>, said: mpsc::Receiver<Say>) {
        let (store, options) = (&self.store, &self.options);
        let dispatcher = Dispatcher {
            counter: self.counter.clone(),
            held: self.held.clone(),
            identity: self.identity.clone(),
            check: self.check.clone(),
            store: store.clone(),
            options: options.clone(),
            stop: self.stop.clone(),
            end: self.end.clone(),
            job_bytes: 0,
            refused: Vec::new(),
        };
        self.tasks.spawn(dispatcher.run());
        let beats = dispatch::Heartbeat {
            identity: self.identity.clone(),
            counter: self.counter.clone(),
            held: self.held.clone(),
            store: store.clone(),
            options: options.clone(),
        };
        self.tasks.spawn(beats.run(self.end.clone()));
        self.tasks.spawn(push::run(pushed, store.clone(), options.clone(), self.end.clone()));
        self.tasks.spawn(words::run(
            said,
            store.clone(),
            self.held.clone(),
            options.clone(),
            self.end.clone(),
        ));
    }
}

#[async_trait]
impl Work for TaskWork {
    async fn push(&self, task: &Topic, pushed: Vec<Pushed>) -> Result<Vec<i64>, Problem> {
        let requests = push::requests(task, pushed, &self.inner.check)?;
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        // a key may have to wait for a stranger's open transaction; nobody else shall
        if requests.iter().any(|request| request.options.key.is_some()) {
            return push::enqueue(&self.inner.store, &requests).await;
        }
        let (answer, answered) = oneshot::channel();
        self.inner.pushes.send(Push { requests, answer }).await.map_err(|_| unavailable())?;
        answered.await.unwrap_or_else(|_| Err(unavailable()))
    }

    fn join(&self, order: Order, puller: Arc<dyn Puller>) -> Box<dyn Pulling> {
        let counter = self.inner.counter.clone();
        let id = counter.pullers().join(&order, puller);
        tell_count(&counter);
        Box::new(Place { id, counter, credit_max: self.inner.options.credit_max })
    }

    fn give_back(&self, jobs: Vec<(i64, LeaseToken)>) {
        jobs.iter().for_each(|(job, lease)| self.inner.held.end(*job, *lease));
        self.inner.counter.give_back(jobs);
    }

    async fn say(&self, words: Vec<Word>) -> Vec<Result<Said, Problem>> {
        let count = words.len();
        let none = || (0..count).map(|_| Err(unavailable())).collect();
        let (answer, answered) = oneshot::channel();
        match self.inner.says.send(Say { words, answer }).await {
            Ok(()) => answered.await.unwrap_or_else(|_| none()),
            Err(_) => none(),
        }
    }
}

impl fmt::Debug for TaskWork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskWork")
            .field("pullers", &self.inner.counter.pullers().len())
            .finish_non_exhaustive()
    }
}

/// A puller's place.
struct Place {
    id: u64,
    counter: Arc<Counter>,
    credit_max: u32,
}

impl Pulling for Place {
    fn credit(&self, more: u32) {
        self.counter.pullers().credit(self.id, more, self.credit_max);
        self.counter.news.notify_one();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.counter.pullers().leave(self.id);
        tell_count(&self.counter);
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").field("id", &self.id).finish_non_exhaustive()
    }
}

fn tell_count(counter: &Counter) {
    metrics::gauge!(crate::metrics::PULLERS).set(counter.pullers().len() as f64);
}

/// The next of what waits; nothing when it is the end.
async fn received<T>(waiting: &mut mpsc::Receiver<T>, end: &CancellationToken) -> Option<T> {
    tokio::select! {
        biased;
        next = waiting.recv() => next,
        () = end.cancelled() => None,
    }
}

/// What notes take on their way to the database.
fn notes_bytes(notes: &serde_json::Map<String, serde_json::Value>) -> usize {
    if notes.is_empty() { 0 } else { serde_json::to_string(notes).map_or(0, |text| text.len()) }
}

fn unavailable() -> Problem {
    Problem::new(ErrorCode::Unavailable, "the database is not available now")
}

/// What a caller is told. What the database said is for the log alone.
fn problem(error: &QueueError) -> Problem {
    let problem = error.problem();
    if problem.code == ErrorCode::Internal {
        tracing::error!(error = minium_queue::causes(error), "The database failed.");
    }
    problem
}
