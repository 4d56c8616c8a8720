//! Schedules: each firing enqueues once, however many processes call.

use super::change::Change;
use super::enqueue::enqueue;
use crate::error::QueueError;
use crate::rules;
use crate::store::Schedule;
use rusqlite::params;
use std::time::Duration;

/// Fires what is due; how long until the next is.
pub(super) fn fire(change: &mut Change<'_>, schedules: &[Schedule]) -> Result<Option<Duration>, QueueError> {
    let mut next = None;
    for schedule in schedules {
        let due = fire_one(change, schedule)?;
        next = Some(next.map_or(due, |n: i64| n.min(due)));
    }
    Ok(next.map(|at| Duration::from_micros(at.saturating_sub(change.now).max(0).unsigned_abs())))
}

fn fire_one(change: &mut Change<'_>, schedule: &Schedule) -> Result<i64, QueueError> {
    let sql = "select due from schedule where name = ?1";
    let planned: Option<i64> = change.first(sql, [&schedule.name], |row| row.get(0))?;
    let firing = rules::firing(planned, rules::micros(schedule.every), change.now);
    if firing.fires {
        let mut request = schedule.request.clone();
        request.options.schedule = Some(schedule.name.clone());
        enqueue(change, std::slice::from_ref(&request))?;
    }
    if planned != Some(firing.next) {
        change.execute(
            "insert into schedule (name, due) values (?1, ?2) on conflict (name) do update set due = excluded.due",
            params![schedule.name, firing.next],
        )?;
    }
    Ok(firing.next)
}
