//! What shards ask of the journal and the queue runs where the bus was started: their own runtimes never wait for a
//! database.

use crate::history::{Draft, History};
use crate::work::{Pushed, Said, Word, Work};
use minium_protocol::{ErrorCode, Position, Problem, Topic};
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

/// The journal, the queue, and where their futures run.
pub(crate) struct Outside {
    runtime: Option<Handle>,
    tasks: TaskTracker,
    history: Option<Arc<dyn History>>,
    work: Option<Arc<dyn Work>>,
    patience: Duration,
}

impl fmt::Debug for Outside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outside").field("patience", &self.patience).finish_non_exhaustive()
    }
}

/// Words of those who cannot repeat them are repeated so often, with pauses.
const SAY_TRIES_MAX: u32 = 300;
const SAY_PAUSE: Duration = Duration::from_secs(1);

fn unavailable(words: &str) -> Problem {
    Problem::new(ErrorCode::Unavailable, words)
}

impl Outside {
    pub(crate) fn new(
        runtime: Option<Handle>,
        history: Option<Arc<dyn History>>,
        work: Option<Arc<dyn Work>>,
        patience: Duration,
    ) -> Outside {
        Outside { runtime, tasks: TaskTracker::new(), history, work, patience }
    }

    pub(crate) fn history(&self) -> Option<&Arc<dyn History>> {
        self.history.as_ref()
    }

    /// The queue behind durable push/pull channels.
    ///
    /// # Errors
    /// `unavailable` when there is none.
    pub(crate) fn work(&self) -> Result<&Arc<dyn Work>, Problem> {
        self.work.as_ref().ok_or_else(|| unavailable("this node has no queue"))
    }

    /// Runs there; nothing on a bus that was made for a test of its parts.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<JoinHandle<T>> {
        self.runtime.as_ref().map(|runtime| self.tasks.spawn_on(work, runtime))
    }

    /// Keeps messages in the journal, in bounded time.
    pub(crate) fn keep(
        &self,
        drafts: Vec<Draft>,
    ) -> impl Future<Output = Result<Vec<Position>, Problem>> + Send + 'static {
        let (history, patience) = (self.history.clone(), self.patience);
        async move {
            let history = history.ok_or_else(|| unavailable("this node has no journal"))?;
            let count = drafts.len();
            let kept = tokio::time::timeout(patience, history.keep(drafts)).await;
            let positions = kept.map_err(|_| unavailable("the journal did not answer in time"))??;
            if positions.len() != count {
                return Err(Problem::new(ErrorCode::Internal, "the journal answered for another number"));
            }
            Ok(positions)
        }
    }

    /// Enqueues jobs, in bounded time.
    pub(crate) fn push(
        &self,
        task: Topic,
        pushed: Vec<Pushed>,
    ) -> impl Future<Output = Result<Vec<i64>, Problem>> + Send + 'static {
        let (work, patience) = (self.work.clone(), self.patience);
        async move {
            let work = work.ok_or_else(|| unavailable("this node has no queue"))?;
            let count = pushed.len();
            let done = tokio::time::timeout(patience, work.push(&task, pushed)).await;
            let ids = done.map_err(|_| unavailable("the queue did not answer in time"))??;
            if ids.len() != count {
                return Err(Problem::new(ErrorCode::Internal, "the queue answered for another number"));
            }
            Ok(ids)
        }
    }

    /// As [`Outside::say`], again and again while the queue is away; in the end it is given up.
    pub(crate) async fn say_until_judged(&self, words: Vec<Word>) -> Vec<Result<Said, Problem>> {
        let mut tries = 0;
        loop {
            let said = self.say(words.clone()).await;
            let away = said.iter().any(|s| s.as_ref().is_err_and(|p| p.retryable));
            tries += 1;
            if !away || tries == SAY_TRIES_MAX {
                return said;
            }
            tokio::time::sleep(SAY_PAUSE).await;
        }
    }

    /// Passes on what a puller says, in bounded time.
    pub(crate) fn say(
        &self,
        words: Vec<Word>,
    ) -> impl Future<Output = Vec<Result<Said, Problem>>> + Send + 'static {
        let (work, patience) = (self.work.clone(), self.patience);
        async move {
            let count = words.len();
            let nobody = |why: &str| vec![Err(unavailable(why)); count];
            let Some(work) = work else { return nobody("this node has no queue") };
            match tokio::time::timeout(patience, work.say(words)).await {
                Ok(said) if said.len() == count => said,
                Ok(_) => nobody("the queue answered for another number"),
                Err(_) => nobody("the queue did not answer in time"),
            }
        }
    }
}
