//! Schedules: kept as rows, each fired once however many processes look.
//!
//! Whoever fires passes over the rows that another one holds, decides by `schedules::due` what fires, and enqueues in the
//! same transaction. Whoever puts several locks them in the order of their names; nobody else locks more than one and
//! waits for it.

use super::PgStore;
use super::session::{Session, Work};
use crate::error::QueueError;
use crate::metrics::{JOBS_ENQUEUED, count_jobs};
use crate::schedules::{
    self, Schedule, ScheduleFilter, SchedulePage, Schedules, Stored, due, request_text, too_many,
};
use crate::store::Enqueued;
use async_trait::async_trait;
use jiff::Timestamp;
use minium_protocol::{EnqueueRequest, ScheduleView};
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::watch;
use tokio_postgres::Row;
use tracing::warn;

/// So many schedules are looked at in one transaction, and no more are begun with after so many jobs.
const ROUND_MAX: i64 = 100;
const ROUND_JOBS_MAX: usize = 1_000;

/// What `stored` reads. What is due in the far past was put there by a program of before: nobody has seen it.
macro_rules! columns {
    () => {
        columns!("clock_timestamp()")
    };
    ($clock:literal) => {
        concat!(
            "name, request, every_us, cron, zone, missed, paused, configured, ",
            "case when due > '-infinity' then due end as due, fired, job, ",
            $clock,
            " as now"
        )
    };
}

/// Rows that are not there yet are made. Sorted, so that two of us wait for each other in one direction only.
const MAKE: &str = "insert into minium.schedule (name, due) select n, '-infinity' from unnest($1::text[]) n order by n \
                    on conflict do nothing";

/// Index: the key. Locks: the row.
const LOCK: &str = concat!("select ", columns!(), " from minium.schedule where name = $1 for no key update");

/// All of them. Locks: the rows, in the order of their names; the clock is read behind the last one.
const LOCK_ALL: &str =
    concat!("select ", columns!(), " from minium.schedule order by name for no key update");

/// Index: the key. Locks: the row, held already.
const PUT: &str = "
update minium.schedule
   set request = $2, every_us = $3, cron = $4, zone = $5, missed = $6, configured = $7, due = $8
 where name = $1";

/// What the configuration had and has no more, and times without a definition. Locks: the rows, held already.
const DROP_CONFIGURED: &str = "
delete from minium.schedule where (configured or request is null) and name <> all ($1::text[])";

/// Index: the key. Locks: the row.
const REMOVE: &str = "delete from minium.schedule where name = $1";

/// Index: schedule_due; schedules by interval that are due too far away, as after a clock that was put right, are found by
/// reading the few thousand that there may be. Locks: the rows that are due, passing over what others hold: these fire them.
const DUE: &str = concat!(
    "select ",
    columns!("now()"),
    " from minium.schedule
     where request is not null and not paused
       and (due <= now() or due > now() + every_us * interval '1 microsecond')
     order by due, name collate \"C\" limit $1 for no key update skip locked"
);

/// Index: the key. Locks: the row, held already.
const FIRED: &str = "
update minium.schedule set due = $2, fired = case when $3 then now() else fired end, job = coalesce($4, job) where name = $1";

/// How long until the next is due, but for these. Index: schedule_due.
const NEXT: &str = "
select (extract(epoch from greatest(min(due), now()) - now()) * 1000000)::bigint from minium.schedule
 where request is not null and not paused and name <> all ($1::text[]) having min(due) is not null";

/// Index: the key. Locks: the row.
const PAUSE: &str = "update minium.schedule set paused = true where name = $1 and request is not null";

/// Index: the key. Locks: the row, held already.
const RESUME: &str = "update minium.schedule set paused = false, due = $2 where name = $1";

/// Index: the key.
const GET: &str =
    concat!("select ", columns!(), " from minium.schedule where name = $1 and request is not null");

/// All of them are read and sorted: there are few, and names are ordered by the database's own rules in the key.
const LIST: &str = concat!(
    "select ",
    columns!(),
    " from minium.schedule
     where request is not null and name collate \"C\" > $1 order by name collate \"C\" limit $2"
);

/// What is shown of the arguments of tasks, where that is not all of them.
const SHOWN: &str = "
select minium.args_shown(u.task, u.args::json)::text
  from unnest($1::text[], $2::text[]) with ordinality u (task, args, place) order by u.place";

type Answer<T> = Result<Result<T, QueueError>, tokio_postgres::Error>;

#[async_trait]
impl Schedules for PgStore {
    async fn put_schedule(&self, schedule: &Schedule) -> Result<bool, QueueError> {
        schedule.check()?;
        let created = self.connections.run("put a schedule", |client| put_one(client, schedule)).await??;
        self.tell_schedules();
        Ok(created)
    }

    async fn put_configured_schedules(&self, all: &[Schedule]) -> Result<(), QueueError> {
        schedules::check_all(all)?;
        self.connections.run("put the configured schedules", |client| put_all(client, all)).await?;
        self.tell_schedules();
        Ok(())
    }

    async fn remove_schedule(&self, name: &str) -> Result<(), QueueError> {
        self.connections.run("remove a schedule", |client| remove(client, name)).await??;
        self.tell_schedules();
        Ok(())
    }

    async fn schedule(&self, name: &str) -> Result<Option<ScheduleView>, QueueError> {
        let rows = self.rows("look at a schedule", GET, &[&storable(name)]).await?;
        Ok(self.views(&rows).await?.pop())
    }

    async fn schedules(&self, filter: &ScheduleFilter) -> Result<SchedulePage, QueueError> {
        let after = storable(filter.after.as_deref().unwrap_or_default());
        let rows = self.rows("list schedules", LIST, &[&after, &filter.rows()]).await?;
        Ok(SchedulePage::new(self.views(&rows).await?, filter))
    }

    async fn pause_schedule(&self, name: &str, paused: bool) -> Result<(), QueueError> {
        self.connections.run("pause a schedule", |client| pause(client, name, paused)).await??;
        self.tell_schedules();
        Ok(())
    }

    async fn run_schedule(&self, name: &str) -> Result<Enqueued, QueueError> {
        let run = |client: Session| self.run_locked(client, name);
        let (request, enqueued) = self.connections.run("run a schedule", run).await??;
        if !enqueued.existing {
            count_jobs(JOBS_ENQUEUED, &request.options.queue, &request.task, None, 1);
        }
        self.wake(true);
        Ok(enqueued)
    }

    async fn fire_schedules(&self) -> Result<Option<Duration>, QueueError> {
        let fire = |client: Session| self.fire_locked(client);
        let (fired, next) = self.connections.run("fire schedules", fire).await??;
        for (request, jobs) in &fired {
            count_jobs(JOBS_ENQUEUED, &request.options.queue, &request.task, None, *jobs);
        }
        if !fired.is_empty() {
            self.wake(true);
        }
        Ok(next)
    }

    fn schedule_changes(&self) -> watch::Receiver<u64> {
        self.schedules.subscribe()
    }
}

impl PgStore {
    fn tell_schedules(&self) {
        self.schedules.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// Schedules as everybody may see them.
    async fn views(&self, rows: &[Row]) -> Result<Vec<ScheduleView>, QueueError> {
        let readable = |row: &Row| {
            let stored = stored(row).0;
            stored.task_and_args().map(|(task, args)| (stored, task, args))
        };
        let (mut all, mut tasks, mut args) = (Vec::new(), Vec::new(), Vec::new());
        for (stored, task, text) in rows.iter().filter_map(readable) {
            all.push(stored);
            tasks.push(task);
            args.push(text);
        }
        let shown = self.rows("hide arguments of schedules", SHOWN, &[&tasks, &args]).await?;
        Ok(all.iter().zip(&shown).filter_map(|(stored, shown)| stored.view(shown.get(0))).collect())
    }

    async fn run_locked(&self, mut client: Session, name: &str) -> Answer<(EnqueueRequest, Enqueued)> {
        let transaction = client.transaction().await?;
        let Some(row) = transaction.query_opt(LOCK, &[&storable(name)]).await? else { return missing(name) };
        let (stored, _) = stored(&row);
        if stored.request.is_none() {
            return missing(name);
        }
        let schedule = match stored.schedule() {
            Ok(schedule) => schedule,
            Err(why) => return Ok(Err(unreadable(name, &why))),
        };
        let enqueued = match self.enqueue_in(&*transaction, &[schedule.job()]).await {
            Ok(enqueued) => enqueued[0],
            Err(refusal) => return Ok(Err(refusal)),
        };
        let due = at(stored.due);
        transaction.execute(FIRED, &[&name, &due, &true, &Some(enqueued.id)]).await?;
        transaction.commit().await?;
        Ok(Ok((schedule.request, enqueued)))
    }

    /// What was enqueued, and how long until the next.
    async fn fire_locked(
        &self,
        mut client: Session,
    ) -> Answer<(Vec<(EnqueueRequest, u64)>, Option<Duration>)> {
        let mut transaction = client.transaction().await?;
        let (mut fired, mut unread, mut jobs) = (Vec::new(), Vec::new(), 0);
        for row in transaction.query(DUE, &[&ROUND_MAX]).await? {
            let (stored, now) = stored(&row);
            let schedule = match stored.schedule() {
                Ok(schedule) => schedule,
                Err(why) => {
                    // another node may know its zone, or its options
                    warn!(
                        schedule = stored.name,
                        why, "A schedule cannot be read here; it is left to others."
                    );
                    unread.push(stored.name);
                    continue;
                }
            };
            let firing = due::firing(&schedule.timing, schedule.missed, stored.due, now);
            if jobs > 0 && jobs + firing.jobs > ROUND_JOBS_MAX {
                break; // the next round is at once
            }
            jobs += firing.jobs;
            match self.fire_one(&mut transaction, &schedule, firing).await? {
                Ok(0) => {}
                Ok(enqueued) => fired.push((schedule.request, enqueued)),
                Err(refusal) => return Ok(Err(refusal)),
            }
        }
        let next = transaction.query_opt(NEXT, &[&unread]).await?.map(|row| row.get::<_, i64>(0));
        transaction.commit().await?;
        Ok(Ok((fired, next.map(|us| Duration::from_micros(u64::try_from(us).unwrap_or(0))))))
    }

    /// Enqueues what one firing brings and moves what is due. What is refused holds up no other schedule.
    async fn fire_one(
        &self,
        transaction: &mut Work<'_>,
        schedule: &Schedule,
        firing: due::Firing,
    ) -> Answer<u64> {
        let name = &schedule.name;
        if firing.let_go {
            warn!(schedule = name, made_up = firing.jobs, "More firings were missed than are made up.");
        }
        let (mut last, mut new) = (None, 0);
        let attempt = transaction.transaction().await?;
        match self.enqueue_in(&*attempt, &vec![schedule.job(); firing.jobs]).await {
            Ok(enqueued) => {
                attempt.commit().await?;
                last = enqueued.last().map(|e| e.id);
                new = enqueued.iter().filter(|e| !e.existing).count() as u64;
            }
            Err(refusal) if refusal.is_refusal() => {
                attempt.rollback().await?;
                warn!(schedule = name, error = %refusal, "What a schedule enqueues was refused.");
            }
            Err(fault) => return Ok(Err(fault)),
        }
        transaction.execute(FIRED, &[name, &at(firing.next), &last.is_some(), &last]).await?;
        Ok(Ok(new))
    }
}

async fn put_one(mut client: Session, schedule: &Schedule) -> Answer<bool> {
    let transaction = client.transaction().await?;
    transaction.execute(MAKE, &[&[&schedule.name].as_slice()]).await?;
    let (stored, now) = stored(&transaction.query_one(LOCK, &[&schedule.name]).await?);
    if stored.configured {
        return Ok(Err(QueueError::Configured(schedule.name.clone())));
    }
    let created = stored.request.is_none();
    if created {
        let count: i64 = transaction.query_one("select count(*) from minium.schedule", &[]).await?.get(0);
        if usize::try_from(count).is_ok_and(|n| n > schedules::SCHEDULES_MAX) {
            return Ok(Err(QueueError::Invalid(too_many())));
        }
    }
    put(&transaction, schedule, false, Some(&stored), now).await?;
    transaction.commit().await?;
    Ok(Ok(created))
}

async fn put_all(mut client: Session, all: &[Schedule]) -> Result<(), tokio_postgres::Error> {
    let transaction = client.transaction().await?;
    let names: Vec<&str> = all.iter().map(|s| s.name.as_str()).collect();
    transaction.execute(MAKE, &[&names]).await?;
    let rows = transaction.query(LOCK_ALL, &[]).await?;
    // the clock as it was behind the last lock
    let now = rows.last().map_or(0, |row| stored(row).1);
    let rows: HashMap<String, Stored> =
        rows.iter().map(|row| stored(row).0).map(|stored| (stored.name.clone(), stored)).collect();
    for schedule in all {
        put(&transaction, schedule, true, rows.get(&schedule.name), now).await?;
    }
    transaction.execute(DROP_CONFIGURED, &[&names]).await?;
    transaction.commit().await
}

async fn put(
    transaction: &Work<'_>,
    schedule: &Schedule,
    configured: bool,
    stored: Option<&Stored>,
    now: i64,
) -> Result<(), tokio_postgres::Error> {
    let timing = &schedule.timing;
    let due =
        at(stored.map_or_else(|| due::at_put(None, timing, now), |stored| stored.due_when_put(timing, now)));
    let (columns, request) = (schedule.timing.columns(), request_text(&schedule.request));
    let (every_us, cron, zone) = (columns.every_us, columns.cron, columns.zone);
    let missed = schedule.missed.as_str();
    transaction
        .execute(PUT, &[&schedule.name, &request, &every_us, &cron, &zone, &missed, &configured, &due])
        .await
        .map(drop)
}

async fn remove(mut client: Session, name: &str) -> Answer<()> {
    let transaction = client.transaction().await?;
    let row = transaction.query_opt(LOCK, &[&storable(name)]).await?;
    match row.as_ref().map(|row| stored(row).0) {
        Some(stored) if stored.configured => return Ok(Err(QueueError::Configured(name.into()))),
        Some(stored) if stored.request.is_some() => {}
        _ => return missing(name),
    }
    transaction.execute(REMOVE, &[&name]).await?;
    transaction.commit().await?;
    Ok(Ok(()))
}

async fn pause(mut client: Session, name: &str, paused: bool) -> Answer<()> {
    let transaction = client.transaction().await?;
    let row = transaction.query_opt(LOCK, &[&storable(name)]).await?;
    let Some((stored, now)) = row.as_ref().map(stored).filter(|(s, _)| s.request.is_some()) else {
        return missing(name);
    };
    if paused {
        transaction.execute(PAUSE, &[&name]).await?;
    } else if stored.paused {
        let due = match stored.timing() {
            Ok(timing) => due::at_resume(&timing, stored.due, now),
            Err(why) => return Ok(Err(unreadable(name, &why))),
        };
        transaction.execute(RESUME, &[&name, &at(due)]).await?;
    }
    transaction.commit().await?;
    Ok(Ok(()))
}

/// A row, and the database's clock.
fn stored(row: &Row) -> (Stored, i64) {
    let micros = |at: Timestamp| at.as_microsecond();
    let (due, now): (Option<Timestamp>, _) = (row.get("due"), micros(row.get("now")));
    let stored = Stored {
        name: row.get("name"),
        request: row.get("request"),
        every_us: row.get("every_us"),
        cron: row.get("cron"),
        zone: row.get("zone"),
        missed: row.get("missed"),
        paused: row.get("paused"),
        configured: row.get("configured"),
        due: due.map_or(now, micros),
        is_due_known: due.is_some(),
        fired: row.get::<_, Option<Timestamp>>("fired").map(micros),
        job: row.get("job"),
    };
    (stored, now)
}

fn at(us: i64) -> Timestamp {
    Timestamp::from_microsecond(us).unwrap_or(Timestamp::MAX)
}

/// No schedule has a name with a NUL character in it.
fn storable(name: &str) -> String {
    crate::rules::storable(name).into_owned()
}

fn missing<T>(name: &str) -> Answer<T> {
    Ok(Err(QueueError::NoSchedule(name.into())))
}

fn unreadable(name: &str, why: &str) -> QueueError {
    QueueError::Invalid(format!("the schedule {name:?} cannot be read here: {why}"))
}
