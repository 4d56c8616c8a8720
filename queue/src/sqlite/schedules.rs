//! Schedules: kept as rows, each fired once however many processes look at the file.

use super::SqliteStore;
use super::change::Change;
use super::enqueue::enqueue;
use super::masks;
use crate::error::QueueError;
use crate::schedules::{
    self, Schedule, ScheduleFilter, SchedulePage, Schedules, Stored, due, request_text, too_many,
};
use crate::store::Enqueued;
use async_trait::async_trait;
use minium_protocol::ScheduleView;
use rusqlite::{Row, params};
use std::time::Duration;
use tokio::sync::watch;
use tracing::warn;

/// So many schedules are looked at in one transaction, and no more are begun with after so many jobs.
const ROUND_MAX: i64 = 100;
const ROUND_JOBS_MAX: usize = 1_000;

/// What [`stored`] reads, in its order.
const COLUMNS: &str = "name, request, every_us, cron, zone, missed, paused, configured, due, fired, job";

#[async_trait]
impl Schedules for SqliteStore {
    async fn put_schedule(&self, schedule: &Schedule) -> Result<bool, QueueError> {
        schedule.check()?;
        let schedule = schedule.clone();
        let created = self.change("put a schedule", move |change| put_one(change, &schedule)).await?;
        self.tell_schedules();
        Ok(created)
    }

    async fn put_configured_schedules(&self, all: &[Schedule]) -> Result<(), QueueError> {
        schedules::check_all(all)?;
        let all = all.to_vec();
        self.change("put the configured schedules", move |change| put_all(change, &all)).await?;
        self.tell_schedules();
        Ok(())
    }

    async fn remove_schedule(&self, name: &str) -> Result<(), QueueError> {
        let name = name.to_owned();
        let remove = move |change: &mut Change<'_>| {
            if find(change, &name)?.configured {
                return Err(QueueError::Configured(name));
            }
            change.execute("delete from schedule where name = ?1", [&name]).map(drop)
        };
        self.change("remove a schedule", remove).await?;
        self.tell_schedules();
        Ok(())
    }

    async fn schedule(&self, name: &str) -> Result<Option<ScheduleView>, QueueError> {
        let name = name.to_owned();
        let look = move |change: &mut Change<'_>| match row(change, &name)? {
            Some(stored) => view(change, &stored),
            None => Ok(None),
        };
        self.change("look at a schedule", look).await
    }

    async fn schedules(&self, filter: &ScheduleFilter) -> Result<SchedulePage, QueueError> {
        let filter = filter.clone();
        self.change("list schedules", move |change| list(change, &filter)).await
    }

    async fn pause_schedule(&self, name: &str, paused: bool) -> Result<(), QueueError> {
        let name = name.to_owned();
        self.change("pause a schedule", move |change| pause(change, &name, paused)).await?;
        self.tell_schedules();
        Ok(())
    }

    async fn run_schedule(&self, name: &str) -> Result<Enqueued, QueueError> {
        let name = name.to_owned();
        let run = move |change: &mut Change<'_>| {
            let schedule = find(change, &name)?.schedule().map_err(|why| unreadable(&name, &why))?;
            let enqueued = enqueue(change, &[schedule.job()])?[0];
            let sql = "update schedule set fired = ?2, job = ?3 where name = ?1";
            change.execute(sql, params![name, change.now, enqueued.id])?;
            Ok(enqueued)
        };
        self.change("run a schedule", run).await
    }

    async fn fire_schedules(&self) -> Result<Option<Duration>, QueueError> {
        self.change("fire schedules", fire).await
    }

    fn schedule_changes(&self) -> watch::Receiver<u64> {
        self.schedules.subscribe()
    }
}

impl SqliteStore {
    fn tell_schedules(&self) {
        self.schedules.send_modify(|n| *n = n.wrapping_add(1));
    }
}

/// Fires what is due; how long until the next is.
fn fire(change: &mut Change<'_>) -> Result<Option<Duration>, QueueError> {
    let sql = format!(
        "select {COLUMNS} from schedule
          where request is not null and not paused and (due <= ?1 or due > ?1 + every_us)
          order by due, name limit ?2"
    );
    let (mut unread, mut jobs) = (Vec::new(), 0);
    for stored in change.all(&sql, params![change.now, ROUND_MAX], stored)? {
        let schedule = match stored.schedule() {
            Ok(schedule) => schedule,
            Err(why) => {
                warn!(schedule = stored.name, why, "A schedule cannot be read here; it is left to others.");
                unread.push(stored.name);
                continue;
            }
        };
        let firing = due::firing(&schedule.timing, schedule.missed, stored.due, change.now);
        if jobs > 0 && jobs + firing.jobs > ROUND_JOBS_MAX {
            break; // the next round is at once
        }
        jobs += firing.jobs;
        fire_one(change, &schedule, firing)?;
    }
    let sql = "select min(due) from schedule
                where request is not null and not paused and name not in (select value from json_each(?1))";
    let unread = serde_json::Value::from(unread).to_string();
    let next: Option<i64> = change.first(sql, [unread], |row| row.get(0))?.flatten();
    Ok(next.map(|at| Duration::from_micros(at.saturating_sub(change.now).max(0).unsigned_abs())))
}

fn fire_one(change: &mut Change<'_>, schedule: &Schedule, firing: due::Firing) -> Result<(), QueueError> {
    let name = &schedule.name;
    if firing.let_go {
        warn!(schedule = name, made_up = firing.jobs, "More firings were missed than are made up.");
    }
    let enqueued = enqueue(change, &vec![schedule.job(); firing.jobs])?;
    let last = enqueued.last().map(|e| e.id);
    change.execute(
        "update schedule set due = ?2, fired = iif(?3 is null, fired, ?4), job = coalesce(?3, job) where name = ?1",
        params![name, firing.next, last, change.now],
    )?;
    Ok(())
}

fn put_one(change: &mut Change<'_>, schedule: &Schedule) -> Result<bool, QueueError> {
    let before = row(change, &schedule.name)?;
    if before.as_ref().is_some_and(|stored| stored.configured) {
        return Err(QueueError::Configured(schedule.name.clone()));
    }
    let created = before.as_ref().is_none_or(|stored| stored.request.is_none());
    let count: Option<i64> = change.first("select count(*) from schedule", [], |row| row.get(0))?;
    if before.is_none() && count.and_then(|n| usize::try_from(n).ok()) >= Some(schedules::SCHEDULES_MAX) {
        return Err(QueueError::Invalid(too_many()));
    }
    put(change, schedule, false, before.as_ref())?;
    Ok(created)
}

fn put_all(change: &mut Change<'_>, all: &[Schedule]) -> Result<(), QueueError> {
    for schedule in all {
        let before = row(change, &schedule.name)?;
        put(change, schedule, true, before.as_ref())?;
    }
    let names: Vec<&str> = all.iter().map(|s| s.name.as_str()).collect();
    change.execute(
        "delete from schedule where (configured or request is null) and name not in (select value from json_each(?1))",
        [serde_json::Value::from(names).to_string()],
    )?;
    Ok(())
}

fn put(
    change: &Change<'_>,
    schedule: &Schedule,
    configured: bool,
    before: Option<&Stored>,
) -> Result<(), QueueError> {
    let (timing, now) = (&schedule.timing, change.now);
    let due =
        before.map_or_else(|| due::at_put(None, timing, now), |stored| stored.due_when_put(timing, now));
    let columns = schedule.timing.columns();
    change.execute(
        "insert into schedule (name, request, every_us, cron, zone, missed, configured, due)
         values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         on conflict (name) do update
            set request = excluded.request, every_us = excluded.every_us, cron = excluded.cron, zone = excluded.zone,
                missed = excluded.missed, configured = excluded.configured, due = excluded.due",
        params![
            schedule.name,
            request_text(&schedule.request),
            columns.every_us,
            columns.cron,
            columns.zone,
            schedule.missed.as_str(),
            configured,
            due
        ],
    )?;
    Ok(())
}

fn pause(change: &mut Change<'_>, name: &str, paused: bool) -> Result<(), QueueError> {
    let stored = find(change, name)?;
    if paused {
        change.execute("update schedule set paused = 1 where name = ?1", [name])?;
    } else if stored.paused {
        let timing = stored.timing().map_err(|why| unreadable(name, &why))?;
        let due = due::at_resume(&timing, stored.due, change.now);
        change.execute("update schedule set paused = 0, due = ?2 where name = ?1", params![name, due])?;
    }
    Ok(())
}

fn list(change: &mut Change<'_>, filter: &ScheduleFilter) -> Result<SchedulePage, QueueError> {
    let sql = format!(
        "select {COLUMNS} from schedule where request is not null and name > ?1 order by name limit ?2"
    );
    let after = filter.after.as_deref().unwrap_or_default();
    let rows = change.all(&sql, params![after, filter.rows()], stored)?;
    let mut views = Vec::with_capacity(rows.len());
    for stored in &rows {
        views.extend(view(change, stored)?);
    }
    Ok(SchedulePage::new(views, filter))
}

fn view(change: &Change<'_>, stored: &Stored) -> Result<Option<ScheduleView>, QueueError> {
    let Some((task, args)) = stored.task_and_args() else { return Ok(None) };
    Ok(stored.view(masks::shown(change, &task, &args)?))
}

/// A schedule with a definition, or the error that there is none.
fn find(change: &Change<'_>, name: &str) -> Result<Stored, QueueError> {
    let found = row(change, name)?.filter(|stored| stored.request.is_some());
    found.ok_or_else(|| QueueError::NoSchedule(name.into()))
}

fn row(change: &Change<'_>, name: &str) -> Result<Option<Stored>, QueueError> {
    change.first(&format!("select {COLUMNS} from schedule where name = ?1"), [name], stored)
}

fn stored(row: &Row<'_>) -> rusqlite::Result<Stored> {
    Ok(Stored {
        name: row.get(0)?,
        request: row.get(1)?,
        every_us: row.get(2)?,
        cron: row.get(3)?,
        zone: row.get(4)?,
        missed: row.get(5)?,
        paused: row.get(6)?,
        configured: row.get(7)?,
        due: row.get(8)?,
        is_due_known: true,
        fired: row.get(9)?,
        job: row.get(10)?,
    })
}

fn unreadable(name: &str, why: &str) -> QueueError {
    QueueError::Invalid(format!("the schedule {name:?} cannot be read here: {why}"))
}
