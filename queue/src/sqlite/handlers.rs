//! Jobs that run when a parent has failed: ready once one has, called off once all have ended and none did.

use super::change::Change;
use super::operations;
use super::row::state;
use crate::error::QueueError;
use crate::rules::{self, Handler};
use minium_protocol::State;

/// Judges the handlers below every parent that moved in this operation, and below those that are called off by it.
pub(super) fn judge_all(change: &mut Change<'_>) -> Result<(), QueueError> {
    loop {
        let (parents, orphans) = (change.take_moved_parents(), change.take_orphans());
        if parents.is_empty() && orphans.is_empty() {
            return Ok(());
        }
        for child in orphans {
            judge(change, child, false)?;
        }
        for (parent, again) in parents {
            let children = change.all(
                "select id from job where id in (select child from edge where parent = ?1) and on_failure order by id",
                [parent],
                |row| row.get::<_, i64>(0),
            )?;
            for child in children {
                judge(change, child, again)?;
            }
        }
    }
}

/// Judges one, if it still exists, whatever its state. One that was let go already stays so, even when the parent that failed
/// is gone and others go on; only a parent that waits `again`, since it is retried, holds it again.
fn judge(change: &mut Change<'_>, id: i64, again: bool) -> Result<(), QueueError> {
    let parents = change.all(
        "select p.state from job c, json_each(c.parents) e join job p on p.id = e.value where c.id = ?1",
        [id],
        |row| state(row, 0),
    )?;
    match rules::handler(parents) {
        Handler::Waits if again => {
            change.execute("update job set open_edges = 1, ready = 0 where id = ?1", [id])?;
        }
        Handler::Waits => {}
        Handler::Runs => {
            change.execute("update job set open_edges = 0 where id = ?1", [id])?;
            let sql =
                "select id from job where id = ?1 and state = 'inactive' and not ready and later is null";
            if change.first(sql, [id], |row| row.get::<_, i64>(0))?.is_some() {
                let seq = change.draw()?;
                change.execute("update job set ready = 1, seq = ?2 where id = ?1", [id, seq])?;
            }
        }
        Handler::CalledOff => {
            let sql = "update job set open_edges = 0 where id = ?1 and open_edges > 0 returning state";
            if change.first(sql, [id], |row| state(row, 0))? == Some(State::Inactive) {
                operations::call_off(change, id, State::Inactive)?;
            }
        }
    }
    Ok(())
}
