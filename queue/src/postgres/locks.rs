//! Named locks on PostgreSQL: what must be judged in turn is done by SQL functions, under an advisory lock of the name.

use super::PgStore;
use crate::error::QueueError;
use crate::locks::{self, LockFilter, LockHeld, LockPage, Locks};
use crate::rules;
use async_trait::async_trait;
use jiff::Timestamp;
use minium_protocol::{LockToken, LockView};
use std::time::Duration;
use tokio_postgres::Row;

/// Holds of one name are ended so many in one transaction.
const END_BATCH: i32 = 10_000;

/// Locks: the advisory lock of the name.
const TAKE: &str = "select minium.take_lock($1, $2, $3, $4, $5)";

/// Could it be had? Index: lock_name. Locks: none, so the answer is old as soon as it is given.
const ASK: &str = "
select now(), (select count(*) from (select from minium.lock where name = $1 and until > now() limit $2::bigint) held) < $2";

/// Locks: the advisory lock of the name, and the row.
const EXTEND: &str = "select minium.extend_lock($1, $2, $3)";

/// Index: lock_token_key. Locks: the row. Needs no turn: whoever takes the lock sees the row or does not.
const UNLOCK: &str = "
with gone as (delete from minium.lock where token = $2 and name = $1 returning until)
select coalesce(bool_or(until > clock_timestamp()), false) from gone";

/// Locks: the advisory lock of the name, and its rows.
const END: &str = "select living, ended from minium.end_locks($1, $2)";

/// Index: the key.
const LIST: &str = "
select id, name, owner, limit_n, taken, until from minium.lock
 where id > $1 and until > now() order by id limit $2";

/// Index: lock_name.
const LIST_NAMED: &str = "
select id, name, owner, limit_n, taken, until from minium.lock
 where name = any ($3::text[]) and id > $1 and until > now() order by id limit $2";

/// Holds that have ended, the oldest first. Index: lock_until. Locks: their rows, passing over what others hold; a hold that
/// was extended meanwhile is judged anew.
const PURGE: &str = "
with gone as (
  delete from minium.lock where id = any (array(
    select id from minium.lock where until <= now() order by until limit $1::bigint for update skip locked))
  returning 1)
select count(*) from gone";

#[async_trait]
impl Locks for PgStore {
    async fn lock(
        &self,
        name: &str,
        owner: &str,
        span: Duration,
        limit: u32,
    ) -> Result<Option<LockHeld>, QueueError> {
        locks::check_lock(name, owner, span, limit)?;
        if span.is_zero() {
            return self.could_lock(name, limit).await;
        }
        let (token, owner, span_us) = (LockToken::fresh(), rules::storable(owner), rules::micros(span));
        let limit = i32::try_from(limit).unwrap_or(i32::MAX);
        let row = self.step("take a lock", TAKE, &[&name, &token.0, &owner, &span_us, &limit]).await?;
        Ok(row.get::<_, Option<Timestamp>>(0).map(|until| LockHeld { token, until }))
    }

    async fn extend_lock(
        &self,
        name: &str,
        token: LockToken,
        span: Duration,
    ) -> Result<Option<Timestamp>, QueueError> {
        locks::check_extension(name, span)?;
        let span_us = rules::micros(span);
        Ok(self.step("extend a lock", EXTEND, &[&name, &token.0, &span_us]).await?.get(0))
    }

    async fn unlock(&self, name: &str, token: LockToken) -> Result<bool, QueueError> {
        locks::check_name("lock", name)?;
        Ok(self.step("let a lock go", UNLOCK, &[&name, &token.0]).await?.get(0))
    }

    async fn unlock_any(&self, name: &str) -> Result<u64, QueueError> {
        locks::check_name("lock", name)?;
        let mut living = 0;
        // no lock has more holds than its highest limit allows
        for _ in 0..=locks::LOCK_LIMIT_MAX / END_BATCH.unsigned_abs() {
            let row = self.step("end a lock", END, &[&name, &END_BATCH]).await?;
            living += u64::try_from(row.get::<_, i64>(0)).unwrap_or(0);
            if row.get::<_, i64>(1) < i64::from(END_BATCH) {
                break;
            }
        }
        Ok(living)
    }

    async fn locks(&self, filter: &LockFilter) -> Result<LockPage, QueueError> {
        locks::check_filter(filter)?;
        let (after, rows) = (filter.after.unwrap_or(0), locks::rows_of_page(filter));
        let rows = if filter.names.is_empty() {
            self.rows("list locks", LIST, &[&after, &rows]).await?
        } else {
            // no lock has a name with a NUL character in it
            let names: Vec<_> = filter.names.iter().map(|name| rules::storable(name)).collect();
            self.rows("list locks", LIST_NAMED, &[&after, &rows, &names]).await?
        };
        Ok(locks::page(rows.iter().map(view).collect(), filter))
    }
}

impl PgStore {
    async fn could_lock(&self, name: &str, limit: u32) -> Result<Option<LockHeld>, QueueError> {
        let row = self.step("ask for a lock", ASK, &[&name, &i64::from(limit)]).await?;
        let (now, free): (Timestamp, bool) = (row.get(0), row.get(1));
        Ok(free.then_some(LockHeld { token: LockToken(uuid::Uuid::nil()), until: now }))
    }

    /// Deletes holds that have ended, a bounded number of them: a part of upkeep.
    pub(super) async fn purge_locks(&self, batch: i64) -> Result<(), QueueError> {
        self.step("remove locks that have ended", PURGE, &[&batch]).await.map(drop)
    }
}

fn view(row: &Row) -> (i64, LockView) {
    let limit: i32 = row.get(3);
    let view = LockView {
        name: row.get(1),
        owner: row.get(2),
        limit: limit.unsigned_abs(),
        taken: row.get(4),
        until: row.get(5),
    };
    (row.get(0), view)
}
