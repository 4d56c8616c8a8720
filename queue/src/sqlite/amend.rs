//! A job that waits is amended: one change of its row, and the event of it.

use super::change::Change;
use crate::amend::{self, Amendment};
use crate::error::QueueError;
use crate::rules;
use minium_protocol::EventType;
use rusqlite::params;

/// Changes what is said of a job that waits; it queues up anew.
pub(super) fn amend(change: &mut Change<'_>, id: i64, amendment: &Amendment) -> Result<(), QueueError> {
    let before = change.job(id)?;
    amend::may_amend(id, before.state)?;
    let notes = super::operations::merged_notes(&before, &amendment.notes)?;
    let now = change.now;
    let delayed = amendment.delay.map(|delay| now + rules::micros(delay));
    let later = delayed.filter(|delayed| *delayed > now);
    let ready = later.is_none() && before.open_edges == 0;
    let seq = change.draw()?;
    change
        .update(
            EventType::Changed,
            "priority = coalesce(?2, priority), queue = coalesce(?3, queue), delayed = coalesce(?4, delayed),
             later = case when ?4 is null then later else ?5 end, ready = case when ?4 is null then ready else ?6 end,
             seq = ?7, notes = ?8",
            params![id, amendment.priority, amendment.queue, delayed, later, ready, seq, notes],
        )
        .map(drop)
}
