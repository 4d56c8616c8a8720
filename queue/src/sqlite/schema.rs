//! Applies the migrations: all that are missing in one IMMEDIATE transaction, which is the lock as well.

use super::failure::failure;
use super::row::timestamp;
use crate::error::QueueError;
use crate::migrations::{Applied, SQLITE, pending};
use rusqlite::{Connection, TransactionBehavior, params};

const WHAT: &str = "migrate the database";

/// The table must be there before the first migration.
const BOOK: &str = "create table if not exists migration (
      number   integer primary key,
      name     text not null,
      checksum text not null,
      applied  integer not null
    )";

/// Brings the schema up to date; how many migrations that took.
pub(super) fn migrate(conn: &mut Connection, now: i64) -> Result<usize, QueueError> {
    let fault = |e| failure(WHAT, e);
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(fault)?;
    transaction.execute_batch(BOOK).map_err(fault)?;
    let missing = pending(SQLITE, &applied(&transaction)?)?;
    for migration in &missing {
        transaction.execute_batch(migration.sql).map_err(fault)?;
        let sql = "insert into migration (number, name, checksum, applied) values (?1, ?2, ?3, ?4)";
        let row = params![migration.number, migration.name, migration.checksum(), now];
        transaction.execute(sql, row).map_err(fault)?;
    }
    transaction.commit().map_err(fault)?;
    Ok(missing.len())
}

/// What was applied so far.
pub(super) fn applied(conn: &Connection) -> Result<Vec<Applied>, QueueError> {
    let run = || -> rusqlite::Result<Vec<Applied>> {
        let there = "select exists (select 1 from sqlite_schema where type = 'table' and name = 'migration')";
        if !conn.query_row(there, [], |row| row.get(0))? {
            return Ok(Vec::new());
        }
        conn.prepare("select number, checksum, applied from migration order by number")?
            .query_map([], |row| {
                let at = timestamp(row.get(2)?);
                Ok(Applied { number: row.get(0)?, checksum: row.get(1)?, at })
            })?
            .collect()
    };
    run().map_err(|e| failure("read which migrations were applied", e))
}
