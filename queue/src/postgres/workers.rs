//! The register of workers and their inboxes. Small tables that no hot statement touches.

use super::PgStore;
use crate::commands::Command;
use crate::error::QueueError;
use crate::rules;
use crate::workers::{
    COMMAND_KEPT, INBOX_MAX, STALE_AFTER, WorkerFilter, WorkerInfo, WorkerPage, WorkerState, WorkerStatus,
    WorkerView, Workers,
};
use async_trait::async_trait;
use minium_protocol::WorkerRef;
use tokio::sync::watch;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

const REGISTER: &str = "
insert into minium.worker (host, pid, kind, version, running, status)
values ($1::text, $2::bigint, $3::text, $4::text, $5::int, $6::text::json) returning id";

/// Index: the key of worker. Locks: the worker.
const BEAT: &str = "
update minium.worker set heartbeat = now(), running = $2::int, status = $3::text::json where id = $1::bigint
returning id";

/// Indexes: the key of worker, command_worker.
const UNREGISTER: &str = "
with inbox as (delete from minium.command where worker = $1::bigint)
delete from minium.worker where id = $1::bigint";

/// $1 ids or null, $2 states or null, $3 below which id, $4 at most so many, $5 microseconds after which a worker is stale.
/// Index: the key of worker, from its end.
const LIST: &str = "
select w.id, w.host, w.pid, w.kind, w.version, w.running, s.stale, w.started, w.heartbeat, w.status::text
  from minium.worker w,
       lateral (select w.heartbeat < now() - $5::bigint * interval '1 microsecond' as stale) s
 where w.id < $3::bigint and ($1::bigint[] is null or w.id = any ($1::bigint[]))
   and ($2::text[] is null
        or case when s.stale then 'stale' when w.running > 0 then 'processing' else 'idle' end = any ($2::text[]))
 order by w.id desc limit $4::bigint";

/// $1 ids or null, $2 the command, $3 its arguments, $4 what an inbox holds. Indexes: the key of worker, command_worker.
/// The NOTIFY is of the same transaction: whoever hears it finds the command.
const SEND: &str = "
with sent as (
  insert into minium.command (worker, name, args)
  select w.id, $2::text, $3::text::json from minium.worker w
   where ($1::bigint[] is null or w.id = any ($1::bigint[]))
     and (select count(*) from (select from minium.command c where c.worker = w.id limit $4::bigint) few) < $4::bigint
   order by w.id
  returning worker)
select n.sent, case when n.sent > 0 then pg_notify('minium_control', '')::text end
  from (select count(*) as sent from sent) n";

/// Index: command_worker. Locks: the commands; of two who take at once, one gets them.
const TAKE: &str = "
with taken as (delete from minium.command where worker = $1::bigint returning id, name, args::text as args)
select name, args from taken order by id";

/// $1 microseconds after which a worker is forgotten, $2 after which a command is. Indexes: none, the tables are small.
const FORGET: &str = "
with gone as (
  delete from minium.worker where heartbeat <= now() - $1::bigint * interval '1 microsecond' returning id)
delete from minium.command
 where sent <= now() - $2::bigint * interval '1 microsecond' or worker in (select id from gone)
returning id";

#[async_trait]
impl Workers for PgStore {
    async fn register_worker(&self, worker: &WorkerInfo) -> Result<WorkerRef, QueueError> {
        let (host, kind) = (rules::storable(&worker.host), rules::storable(&worker.kind));
        let (version, status) = (rules::storable(&worker.version), worker.status.bounded());
        let (running, pid) = (running(&status), i64::from(worker.pid));
        let params: [&(dyn ToSql + Sync); 6] =
            [&host.as_ref(), &pid, &kind.as_ref(), &version.as_ref(), &running, &status.to_json()];
        let row = self.step("register a worker", REGISTER, &params).await?;
        Ok(WorkerRef { id: row.get(0), host: host.into(), pid: worker.pid })
    }

    async fn heartbeat(&self, worker: i64, status: &WorkerStatus) -> Result<(), QueueError> {
        let status = status.bounded();
        let params: [&(dyn ToSql + Sync); 3] = [&worker, &running(&status), &status.to_json()];
        let told = self.rows("tell that a worker is alive", BEAT, &params).await?;
        if told.is_empty() { Err(QueueError::Unregistered(worker)) } else { Ok(()) }
    }

    async fn unregister_worker(&self, worker: i64) -> Result<(), QueueError> {
        self.marks.forget(worker);
        self.rows("unregister a worker", UNREGISTER, &[&worker]).await.map(drop)
    }

    async fn workers(&self, filter: &WorkerFilter) -> Result<WorkerPage, QueueError> {
        let limit = filter.limit.clamp(1, rules::PAGE_MAX);
        let ids = Some(&filter.ids).filter(|ids| !ids.is_empty());
        let states: Vec<&str> = filter.states.iter().map(|state| state.as_str()).collect();
        let states = Some(states).filter(|states| !states.is_empty());
        let (before, rows) = (filter.before.unwrap_or(i64::MAX), i64::from(limit) + 1);
        let stale_us = rules::micros(STALE_AFTER);
        let params: [&(dyn ToSql + Sync); 5] = [&ids, &states, &before, &rows, &stale_us];
        let rows = self.rows("list workers", LIST, &params).await?;
        Ok(WorkerPage::of(rows.iter().map(view).collect(), limit as usize))
    }

    async fn send_command(&self, to: Option<&[i64]>, command: &Command) -> Result<u64, QueueError> {
        let (name, args, room) = (command.name(), command.args_json(), i64::from(INBOX_MAX));
        let params: [&(dyn ToSql + Sync); 4] = [&to, &name, &args, &room];
        let sent: i64 = self.step("tell workers something", SEND, &params).await?.get(0);
        if sent > 0 {
            self.ears.tell_controls();
        }
        Ok(u64::try_from(sent).unwrap_or(0))
    }

    async fn take_commands(&self, worker: i64) -> Result<Vec<Command>, QueueError> {
        let rows = self.rows("take what a worker is told", TAKE, &[&worker]).await?;
        let read = |row: &Row| {
            let (name, args): (&str, &str) = (row.get(0), row.get(1));
            let command = Command::from_row(name, args);
            if command.is_none() {
                tracing::warn!(worker, command = name, "A command cannot be read and is passed over.");
            }
            command
        };
        Ok(rows.iter().filter_map(read).collect())
    }

    fn controls(&self) -> watch::Receiver<u64> {
        self.ears.controls.subscribe()
    }
}

impl PgStore {
    /// Forgets workers that were not heard of for so long, and what was told to nobody who takes it.
    pub(super) async fn forget_workers(&self, missing: std::time::Duration) -> Result<(), QueueError> {
        let (missing_us, kept_us) = (rules::micros(missing), rules::micros(COMMAND_KEPT));
        self.rows("forget workers", FORGET, &[&missing_us, &kept_us]).await.map(drop)
    }
}

fn running(status: &WorkerStatus) -> i32 {
    i32::try_from(status.running).unwrap_or(i32::MAX)
}

fn view(row: &Row) -> WorkerView {
    let running = u32::try_from(row.get::<_, i32>(5)).unwrap_or(0);
    WorkerView {
        id: row.get(0),
        host: row.get(1),
        pid: u32::try_from(row.get::<_, i64>(2)).unwrap_or(0),
        kind: row.get(3),
        version: row.get(4),
        state: WorkerState::of(running, row.get(6)),
        started: row.get(7),
        heartbeat: row.get(8),
        status: WorkerStatus::from_json(row.get(9)),
    }
}
