//! Named locks on SQLite: one writer, so whoever judges a lock has it to himself.

use super::SqliteStore;
use super::change::{Change, now_micros};
use super::failure::failure;
use super::row::timestamp;
use crate::error::QueueError;
use crate::locks::{self, LockFilter, LockHeld, LockPage, Locks};
use crate::rules;
use async_trait::async_trait;
use jiff::Timestamp;
use minium_protocol::{LockToken, LockView};
use rusqlite::{Connection, Row, params, params_from_iter};
use std::time::Duration;

#[async_trait]
impl Locks for SqliteStore {
    async fn lock(
        &self,
        name: &str,
        owner: &str,
        span: Duration,
        limit: u32,
    ) -> Result<Option<LockHeld>, QueueError> {
        locks::check_lock(name, owner, span, limit)?;
        let (name, owner) = (name.to_owned(), rules::storable(owner).into_owned());
        self.change("take a lock", move |change| take(change, &name, &owner, rules::micros(span), limit))
            .await
    }

    async fn extend_lock(
        &self,
        name: &str,
        token: LockToken,
        span: Duration,
    ) -> Result<Option<Timestamp>, QueueError> {
        locks::check_extension(name, span)?;
        let name = name.to_owned();
        let extend = move |change: &mut Change<'_>| {
            let until = change.now.saturating_add(rules::micros(span));
            let sql = "update lock set until = ?3 where token = ?1 and name = ?2 and until > ?4";
            let extended = change.execute(sql, params![token.to_string(), name, until, change.now])?;
            Ok((extended > 0).then(|| timestamp(until)))
        };
        self.change("extend a lock", extend).await
    }

    async fn unlock(&self, name: &str, token: LockToken) -> Result<bool, QueueError> {
        locks::check_name("lock", name)?;
        let name = name.to_owned();
        let unlock = move |change: &mut Change<'_>| {
            let sql = "delete from lock where token = ?1 and name = ?2 returning until > ?3";
            let held = change.first(sql, params![token.to_string(), name, change.now], |row| row.get(0))?;
            Ok(held.unwrap_or(false))
        };
        self.change("let a lock go", unlock).await
    }

    async fn unlock_any(&self, name: &str) -> Result<u64, QueueError> {
        locks::check_name("lock", name)?;
        let name = name.to_owned();
        let end = move |change: &mut Change<'_>| {
            let sql = "delete from lock where name = ?1 and until <= ?2";
            change.execute(sql, params![name, change.now])?;
            Ok(change.execute("delete from lock where name = ?1", [name])? as u64)
        };
        self.change("end a lock", end).await
    }

    async fn locks(&self, filter: &LockFilter) -> Result<LockPage, QueueError> {
        locks::check_filter(filter)?;
        let filter = filter.clone();
        self.read(move |conn| list(conn, &filter).map_err(|e| failure("list locks", e))).await?
    }
}

fn take(
    change: &mut Change<'_>,
    name: &str,
    owner: &str,
    span_us: i64,
    limit: u32,
) -> Result<Option<LockHeld>, QueueError> {
    let now = change.now;
    let sql = "select count(*) from (select 1 from lock where name = ?1 and until > ?2 limit ?3)";
    let held: u32 = change.first(sql, params![name, now, limit], |row| row.get(0))?.unwrap_or(0);
    if held >= limit {
        return Ok(None);
    }
    if span_us == 0 {
        return Ok(Some(LockHeld { token: LockToken(uuid::Uuid::nil()), until: timestamp(now) }));
    }
    // whoever comes late to extend one of these finds it gone, whatever the clock does
    change.execute("delete from lock where name = ?1 and until <= ?2", params![name, now])?;
    let (token, until) = (LockToken::fresh(), now.saturating_add(span_us));
    change.execute(
        "insert into lock (token, name, owner, limit_n, taken, until) values (?1, ?2, ?3, ?4, ?5, ?6)",
        params![token.to_string(), name, owner, limit, now, until],
    )?;
    Ok(Some(LockHeld { token, until: timestamp(until) }))
}

fn list(conn: &Connection, filter: &LockFilter) -> rusqlite::Result<LockPage> {
    let marks = vec!["?"; filter.names.len()].join(", ");
    let named = if filter.names.is_empty() { String::new() } else { format!("and name in ({marks})") };
    let sql = format!(
        "select id, name, owner, limit_n, taken, until from lock
          where id > ? and until > ? {named} order by id limit ?"
    );
    let (after, rows) = (filter.after.unwrap_or(0), locks::rows_of_page(filter));
    let mut values: Vec<rusqlite::types::Value> = vec![after.into(), now_micros().into()];
    values.extend(filter.names.iter().map(|name| name.clone().into()));
    values.push(rows.into());
    let mut statement = conn.prepare_cached(&sql)?;
    let rows = statement.query_map(params_from_iter(values), view)?.collect::<Result<Vec<_>, _>>()?;
    Ok(locks::page(rows, filter))
}

fn view(row: &Row<'_>) -> rusqlite::Result<(i64, LockView)> {
    let view = LockView {
        name: row.get(1)?,
        owner: row.get(2)?,
        limit: row.get(3)?,
        taken: timestamp(row.get(4)?),
        until: timestamp(row.get(5)?),
    };
    Ok((row.get(0)?, view))
}

/// Deletes holds that have ended, a bounded number of them: a part of upkeep.
pub(super) fn purge(change: &Change<'_>, batch: u32) -> Result<(), QueueError> {
    let sql = "delete from lock where id in (select id from lock where until <= ?1 order by until limit ?2)";
    change.execute(sql, params![change.now, batch]).map(drop)
}
