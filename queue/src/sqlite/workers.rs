//! The register of workers and their inboxes.

use super::SqliteStore;
use super::change::{Change, now_micros};
use super::failure::failure;
use super::row::timestamp;
use crate::commands::Command;
use crate::error::QueueError;
use crate::rules;
use crate::workers::{
    COMMAND_KEPT, INBOX_MAX, KIND_OWN, STALE_AFTER, WorkerFilter, WorkerInfo, WorkerPage, WorkerState,
    WorkerStatus, WorkerView, Workers,
};
use async_trait::async_trait;
use minium_protocol::WorkerRef;
use rusqlite::{Connection, Row, params};
use std::time::Duration;
use tokio::sync::watch;

#[async_trait]
impl Workers for SqliteStore {
    async fn register_worker(&self, worker: &WorkerInfo) -> Result<WorkerRef, QueueError> {
        let worker = worker.clone();
        self.change("register a worker", move |change| register(change, &worker)).await
    }

    async fn heartbeat(&self, worker: i64, status: &WorkerStatus) -> Result<(), QueueError> {
        let status = status.bounded();
        self.change("note a heartbeat", move |change| beat(change, worker, &status)).await
    }

    async fn unregister_worker(&self, worker: i64) -> Result<(), QueueError> {
        self.change("unregister a worker", move |change| {
            change.execute("delete from command where worker = ?1", [worker])?;
            change.execute("delete from worker where id = ?1", [worker])?;
            Ok(())
        })
        .await
    }

    async fn workers(&self, filter: &WorkerFilter) -> Result<WorkerPage, QueueError> {
        let filter = filter.clone();
        self.read(move |conn| list(conn, &filter)).await?
    }

    async fn send_command(&self, to: Option<&[i64]>, command: &Command) -> Result<u64, QueueError> {
        let (to, command) = (to.map(<[i64]>::to_vec), command.clone());
        self.change("tell workers something", move |change| send(change, to.as_deref(), &command)).await
    }

    async fn take_commands(&self, worker: i64) -> Result<Vec<Command>, QueueError> {
        // most looks find nothing, and must not cost a commit
        let any = self.read(move |conn| waits(conn, worker)).await??;
        if !any {
            return Ok(Vec::new());
        }
        self.change("take what a worker is told", move |change| take(change, worker)).await
    }

    fn controls(&self) -> watch::Receiver<u64> {
        self.signals.controls()
    }
}

/// Gives a worker its number.
fn register(change: &mut Change<'_>, worker: &WorkerInfo) -> Result<WorkerRef, QueueError> {
    let sql = "insert into worker (host, pid, started, heartbeat, kind, version, running, status)
               values (?1, ?2, ?3, ?3, ?4, ?5, ?6, ?7) returning id";
    let host = rules::storable(&worker.host).into_owned();
    let (kind, version) = (rules::storable(&worker.kind), rules::storable(&worker.version));
    let status = worker.status.bounded();
    let id = change.first(
        sql,
        params![host, worker.pid, change.now, kind, version, status.running, status.to_json()],
        |row| row.get(0),
    )?;
    let id = id.expect("an insert that returns answers one row");
    Ok(WorkerRef { id, host, pid: worker.pid })
}

/// A worker is alive. One that was forgotten meanwhile stays so: it registers anew.
fn beat(change: &mut Change<'_>, worker: i64, status: &WorkerStatus) -> Result<(), QueueError> {
    let sql = "update worker set heartbeat = ?2, running = ?3, status = ?4 where id = ?1";
    if change.execute(sql, params![worker, change.now, status.running, status.to_json()])? == 0 {
        return Err(QueueError::Unregistered(worker));
    }
    Ok(())
}

/// Index: the key of worker, from its end.
fn list(conn: &Connection, filter: &WorkerFilter) -> Result<WorkerPage, QueueError> {
    const LIST: &str =
        "select id, host, pid, kind, version, running, heartbeat < ?4, started, heartbeat, status
          from worker
         where id < ?1 and (?2 is null or id in (select value from json_each(?2)))
           and (?3 is null or iif(heartbeat < ?4, 'stale', iif(running > 0, 'processing', 'idle'))
                              in (select value from json_each(?3)))
         order by id desc limit ?5";
    let limit = filter.limit.clamp(1, rules::PAGE_MAX);
    let ids = (!filter.ids.is_empty()).then(|| json(&filter.ids));
    let states = (!filter.states.is_empty()).then(|| json(&filter.states));
    let before = filter.before.unwrap_or(i64::MAX);
    let fresh = now_micros() - rules::micros(STALE_AFTER);
    let run = || {
        let mut statement = conn.prepare_cached(LIST)?;
        let rows = statement.query_map(params![before, ids, states, fresh, limit + 1], view)?;
        rows.collect::<rusqlite::Result<Vec<_>>>()
    };
    let workers = run().map_err(|e| failure("list workers", e))?;
    Ok(WorkerPage::of(workers, limit as usize))
}

fn json(words: &impl serde::Serialize) -> String {
    serde_json::to_string(words).expect("words always serialise")
}

fn view(row: &Row<'_>) -> rusqlite::Result<WorkerView> {
    let status: String = row.get(9)?;
    Ok(WorkerView {
        id: row.get(0)?,
        host: row.get(1)?,
        pid: row.get(2)?,
        kind: row.get(3)?,
        version: row.get(4)?,
        state: WorkerState::of(row.get(5)?, row.get(6)?),
        started: timestamp(row.get(7)?),
        heartbeat: timestamp(row.get(8)?),
        status: WorkerStatus::from_json(&status),
    })
}

/// Indexes: the key of worker, command_worker.
fn send(change: &mut Change<'_>, to: Option<&[i64]>, command: &Command) -> Result<u64, QueueError> {
    let sent = change.execute(
        "insert into command (worker, sent, name, args)
         select id, ?1, ?2, ?3 from worker
          where (?4 is null or id in (select value from json_each(?4)))
            and (select count(*) from (select 1 from command where worker = worker.id limit ?5)) < ?5
          order by id",
        params![change.now, command.name(), command.args_json(), to.map(|ids| json(&ids)), INBOX_MAX],
    )?;
    if sent > 0 {
        change.control()?;
    }
    Ok(sent as u64)
}

fn waits(conn: &Connection, worker: i64) -> Result<bool, QueueError> {
    let sql = "select exists (select 1 from command where worker = ?1)";
    let run = || conn.prepare_cached(sql)?.query_row([worker], |row| row.get(0));
    run().map_err(|e| failure("look what a worker is told", e))
}

fn take(change: &mut Change<'_>, worker: i64) -> Result<Vec<Command>, QueueError> {
    let rows =
        change.all("select name, args from command where worker = ?1 order by id", [worker], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
        })?;
    change.execute("delete from command where worker = ?1", [worker])?;
    let read = |(name, args): (String, String)| {
        let command = Command::from_row(&name, &args);
        if command.is_none() {
            tracing::warn!(worker, command = name, "A command cannot be read and is passed over.");
        }
        command
    };
    Ok(rows.into_iter().filter_map(read).collect())
}

/// Forgets workers that were not heard of for so long, and what was told to nobody who takes it.
pub(super) fn forget(change: &Change<'_>, missing: Duration) -> Result<(), QueueError> {
    let missing = change.now.saturating_sub(rules::micros(missing));
    let old = change.now.saturating_sub(rules::micros(COMMAND_KEPT));
    change.execute("delete from worker where heartbeat <= ?1", [missing])?;
    change.execute(
        "delete from command where sent <= ?1 or not exists (select 1 from worker where id = command.worker)",
        [old],
    )?;
    Ok(())
}

/// How many workers run jobs, wait for them, and were not heard of lately; and apart from these, how many do a node's own tasks.
pub(super) fn count(conn: &Connection) -> rusqlite::Result<[i64; 4]> {
    let sql = "select coalesce(sum(kind <> ?2 and heartbeat >= ?1 and running > 0), 0),
                      coalesce(sum(kind <> ?2 and heartbeat >= ?1 and running = 0), 0),
                      coalesce(sum(kind <> ?2 and heartbeat < ?1), 0), coalesce(sum(kind = ?2 and heartbeat >= ?1), 0)
                 from worker";
    let fresh = now_micros() - rules::micros(STALE_AFTER);
    let read = |row: &Row<'_>| Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?]);
    conn.prepare_cached(sql)?.query_row(params![fresh, KIND_OWN], read)
}
