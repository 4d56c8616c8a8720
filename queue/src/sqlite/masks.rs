//! Masks of arguments: kept in a table, since several processes may enqueue into one file.

use super::change::Change;
use crate::error::QueueError;
use crate::mask;
use crate::store::ArgsMask;
use minium_protocol::levels;
use rusqlite::params;

/// Puts masks in force.
pub(super) fn put(change: &mut Change<'_>, masks: &[ArgsMask]) -> Result<(), QueueError> {
    let sql = "insert into mask (task, paths) values (?1, ?2)
               on conflict (task) do update set paths = excluded.paths where paths <> excluded.paths";
    for (task, paths) in mask::one_each(masks) {
        change.execute(sql, params![task, paths])?;
    }
    Ok(())
}

/// What is shown of a task's arguments; `None` when that is all of them. The nearest mask at or above the task counts.
pub(super) fn shown(change: &Change<'_>, task: &str, args: &str) -> Result<Option<String>, QueueError> {
    if change.first("select 1 from mask limit 1", [], |_| Ok(()))?.is_none() {
        return Ok(None);
    }
    for level in levels(task) {
        let paths: Option<String> =
            change.first("select paths from mask where task = ?1", [level], |row| row.get(0))?;
        if let Some(paths) = paths {
            return Ok(mask::shown(args, &mask::read_paths(&paths)));
        }
    }
    Ok(None)
}
