//! Children and their parents: makes the edges say what the parents' states say, in pieces of a bounded number of edges.
//!
//! What a transaction cannot see to itself is done right after its commit, and what is missed there by upkeep: it walks
//! the open edges for those that should be closed (`SWEEP` in `upkeep`), and goes on with parents that were left because
//! they have very many children (`minium.unsettled`). The SQL functions stand in `migrations/postgres/0006_repairs.sql`.

use super::PgStore;
use super::session::Session;
use crate::error::QueueError;

/// Edges that one transaction settles beside what it does, for each that goes into a piece.
const AT_ONCE_PIECES: usize = 10;

/// $1 parents, $2 $3 the edge to begin behind, $4 at most so many.
const SOME: &str = "select released, parent, child from minium.settle_some($1, $2, $3, $4)";
const LEFT: &str = "select minium.settle_left($1)";

impl PgStore {
    /// Makes the edges below these parents say what the parents' states say. The operation that calls it has been
    /// committed and must not fail for this: what is missed here, upkeep does.
    pub(super) async fn settle(&self, mut parents: Vec<i64>) {
        parents.sort_unstable();
        parents.dedup();
        for batch in parents.chunks(self.options.batch_max) {
            if let Err(error) = self.settle_batch(batch).await {
                tracing::debug!(%error, "Children are left to upkeep.");
            }
        }
    }

    async fn settle_batch(&self, parents: &[i64]) -> Result<(), QueueError> {
        let mut behind = Some((0_i64, 0_i64));
        while let Some((parent, child)) = behind {
            let piece = self.piece();
            let settle = |client: Session| async move {
                let statement = client.prepare_cached(SOME).await?;
                client.query_one(&statement, &[&parents, &parent, &child, &piece]).await
            };
            let row = self.connections.run("release jobs whose parents have ended", settle).await?;
            if row.get::<_, i64>(0) > 0 {
                self.wake(true);
            }
            behind = row.get::<_, Option<i64>>(1).zip(row.get(2));
        }
        Ok(())
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
        let piece = self.piece();
        let settle = |client: Session| async move {
            let statement = client.prepare_cached(LEFT).await?;
            client.query_one(&statement, &[&piece]).await
        };
        let row = self.connections.run("go on with the children of a parent of many", settle).await?;
        Ok(row.get::<_, Option<i64>>(0).map(|n| u64::try_from(n).unwrap_or(0)))
    }

    fn piece(&self) -> i32 {
        i32::try_from(self.options.batch_max).unwrap_or(i32::MAX)
    }

    /// So many edges a transaction settles itself; it leaves more than that on record.
    pub(super) fn edges_at_once(&self) -> i32 {
        i32::try_from(self.options.batch_max.saturating_mul(AT_ONCE_PIECES)).unwrap_or(i32::MAX - 1)
    }
}
