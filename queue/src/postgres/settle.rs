//! Children and their parents: makes the edges say what the parents' states say, in pieces of a bounded number of edges.
//!
//! What a transaction cannot see to itself is done right after its commit, and what is missed there by upkeep: it walks
//! the open edges for those that should be closed (`SWEEP` in `upkeep`), and goes on with parents that were left because
//! they have very many children (`minium.unsettled`). The SQL functions stand in `migrations/postgres/0006_repairs.sql`.
//!
//! A statement that ends a job sees the children that were there when it began. One that is committed while it runs is seen
//! neither by it nor, as the parent's end is not committed yet, by whoever enqueued the child. So behind each commit that ends
//! jobs their children are looked for once more, by a task of its own: nobody waits for it, least of all the jobs that were
//! claimed by the same commit.

use super::PgStore;
use super::connection::Connections;
use super::listener::Ears;
use super::session::Session;
use crate::error::QueueError;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::RwLock;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Edges that one transaction settles beside what it does, for each that goes into a piece.
const AT_ONCE_PIECES: usize = 10;
/// So many pieces are settled while whoever ended the parents, and has claimed others, still waits for the answer.
const PIECES_BESIDE: usize = 2;
/// Between two looks; what ends meanwhile goes together.
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);
/// So many parents may wait for the next look. Those beyond are left to upkeep.
const AGAIN_MAX: usize = 100_000;

/// $1 parents, $2 $3 the edge to begin behind, $4 at most so many.
const SOME: &str = "select released, parent, child from minium.settle_some($1, $2, $3, $4)";
const LEFT: &str = "select minium.settle_left($1)";
/// $1 parents. Those of them that have ended and that somebody still waits for. Indexes: edge_open, the key of job.
const WAITED_FOR: &str = "
select p from unnest($1::bigint[]) p
 where exists (select from minium.edge e where e.open and e.parent = p)
   and not exists (select from minium.job j where j.id = p and j.state in ('inactive', 'active'))";

/// The edge of some parents to go on behind.
type Next = Option<(i64, i64)>;

/// Who settles edges; also behind the backs of callers.
#[derive(Debug, Clone)]
pub(super) struct Settler {
    connections: Arc<Connections>,
    ears: Ears,
    batch_max: usize,
    again: Arc<Mutex<Again>>,
    /// Looks settle a piece alone: one that had begun before somebody settled the same children would hold them behind that, when
    /// they are ready and claims, which pass over what is held, come for them.
    pieces: Arc<RwLock<()>>,
}

/// Who settles a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Somebody waits for the answer.
    Awaited,
    /// A look, behind the backs of all.
    Look,
}

/// Parents that are looked at once more.
#[derive(Debug, Default)]
struct Again {
    parents: Vec<i64>,
    /// A task is at it.
    looking: bool,
}

impl Settler {
    pub(super) fn new(connections: Arc<Connections>, ears: Ears, batch_max: usize) -> Settler {
        Settler { connections, ears, batch_max, again: Arc::default(), pieces: Arc::default() }
    }

    fn again(&self) -> MutexGuard<'_, Again> {
        self.again.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Settles all, or so many pieces.
    async fn settle(&self, turn: Turn, parents: &[i64], pieces_max: usize) {
        let mut pieces = 0;
        for batch in parents.chunks(self.batch_max) {
            let mut next = Some((0_i64, 0_i64));
            while let Some(from) = next
                && pieces < pieces_max
            {
                pieces += 1;
                next = self.settle_piece(turn, batch, from).await.unwrap_or_else(|error| {
                    tracing::debug!(%error, "Children are left to upkeep.");
                    None
                });
            }
        }
    }

    async fn settle_piece(
        &self,
        turn: Turn,
        parents: &[i64],
        (parent, child): (i64, i64),
    ) -> Result<Next, QueueError> {
        let (_alone, _beside);
        match turn {
            Turn::Look => _alone = self.pieces.write().await,
            Turn::Awaited => _beside = self.pieces.read().await,
        }
        let piece = self.piece();
        let settle = |client: Session| async move {
            let statement = client.prepare_cached(SOME).await?;
            client.query_one(&statement, &[&parents, &parent, &child, &piece]).await
        };
        let row = self.connections.run("release jobs whose parents have ended", settle).await?;
        if row.get::<_, i64>(0) > 0 {
            self.ears.tell_written(true);
        }
        Ok(row.get::<_, Option<i64>>(1).zip(row.get(2)))
    }

    /// Has their children looked for, soon, by a task of its own.
    fn look_again(
        &self,
        parents: impl IntoIterator<Item = i64>,
        tasks: &TaskTracker,
        hurry: &CancellationToken,
    ) {
        let mut again = self.again();
        let room = AGAIN_MAX.saturating_sub(again.parents.len());
        again.parents.extend(parents.into_iter().take(room));
        if !std::mem::replace(&mut again.looking, true) {
            tasks.spawn(self.clone().look(hurry.clone()));
        }
    }

    async fn look(self, hurry: CancellationToken) {
        loop {
            let mut parents = {
                let mut again = self.again();
                again.looking = !again.parents.is_empty();
                std::mem::take(&mut again.parents)
            };
            if parents.is_empty() {
                return;
            }
            parents.sort_unstable();
            parents.dedup();
            match self.waited_for(&parents).await {
                Ok(parents) => self.settle(Turn::Look, &parents, usize::MAX).await,
                Err(error) => tracing::debug!(%error, "Children are left to upkeep."),
            }
            tokio::select! {
                () = sleep(BETWEEN_LOOKS) => {}
                () = hurry.cancelled() => {}
            }
        }
    }

    async fn waited_for(&self, parents: &[i64]) -> Result<Vec<i64>, QueueError> {
        let look = |client: Session| async move {
            let statement = client.prepare_cached(WAITED_FOR).await?;
            client.query(&statement, &[&parents]).await
        };
        let rows = self.connections.run("look for jobs that wait for others", look).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    fn piece(&self) -> i32 {
        i32::try_from(self.batch_max).unwrap_or(i32::MAX)
    }
}

impl PgStore {
    /// Makes the edges below these parents say what the parents' states say. The operation that calls it has been
    /// committed and must not fail for this: what is missed here, upkeep does.
    pub(super) async fn settle(&self, mut parents: Vec<i64>) {
        parents.sort_unstable();
        parents.dedup();
        self.settler.settle(Turn::Awaited, &parents, usize::MAX).await;
    }

    /// The same for jobs that an exchange has ended: what takes long, or was not there to be seen, is done behind its back.
    pub(super) async fn settle_beside(&self, parents: Vec<i64>, some_wait: bool) {
        if some_wait {
            self.settler.settle(Turn::Awaited, &parents, PIECES_BESIDE).await;
        }
        self.settler.look_again(parents, &self.behind, &self.closing);
    }

    /// Goes on with parents that were left, so many pieces; how many children became ready.
    pub(super) async fn settle_left(&self, pieces_max: u32) -> u64 {
        let mut released = 0;
        for _ in 0..pieces_max {
            match self.settle_left_piece().await {
                Ok(Some(more)) => released += more,
                Ok(None) => break,
                Err(error) => {
                    tracing::debug!(%error, "Children are left to upkeep.");
                    break;
                }
            }
        }
        if released > 0 {
            self.wake(true);
        }
        released
    }

    async fn settle_left_piece(&self) -> Result<Option<u64>, QueueError> {
        let piece = self.settler.piece();
        let settle = |client: Session| async move {
            let statement = client.prepare_cached(LEFT).await?;
            client.query_one(&statement, &[&piece]).await
        };
        let row = self.connections.run("go on with the children of a parent of many", settle).await?;
        Ok(row.get::<_, Option<i64>>(0).map(|n| u64::try_from(n).unwrap_or(0)))
    }

    /// So many edges a transaction settles itself; it leaves more than that on record.
    pub(super) fn edges_at_once(&self) -> i32 {
        i32::try_from(self.options.batch_max.saturating_mul(AT_ONCE_PIECES)).unwrap_or(i32::MAX - 1)
    }
}
