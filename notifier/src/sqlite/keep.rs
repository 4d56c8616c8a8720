//! Writing messages into the journal on SQLite: one transaction, in which each gets its offset.

use crate::journal::{ID_WINDOW, Kept, MESSAGE, Stored};
use jiff::Timestamp;
use minium_protocol::Position;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

/// A message on its way to the thread that writes.
pub(super) struct Row {
    topic: Box<str>,
    id: Option<Box<str>>,
    entry: String,
    data: Box<str>,
}

impl From<&Kept> for Row {
    fn from(kept: &Kept) -> Row {
        Row {
            topic: kept.topic.as_str().into(),
            id: kept.id.clone(),
            entry: kept.entry.to_string(),
            data: kept.data.clone(),
        }
    }
}

/// Writes messages, all or none.
pub(super) fn keep(conn: &mut Connection, rows: &[Row]) -> rusqlite::Result<Vec<Stored>> {
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let epoch: i64 =
        transaction.prepare_cached("select epoch from journal_cursor")?.query_row([], |r| r.get(0))?;
    let now = Timestamp::now().as_microsecond();
    let mut stored = Vec::with_capacity(rows.len());
    for row in rows {
        let seq = match known(&transaction, row, now)? {
            Some(seq) => seq,
            None => write(&transaction, row, now)?,
        };
        stored.push(Stored::Numbered(Position { epoch: epoch as u64, offset: seq as u64 }));
    }
    transaction.commit()?;
    Ok(stored)
}

/// The first message of the same id, by the key of `message_id`.
fn known(conn: &Connection, row: &Row, now: i64) -> rusqlite::Result<Option<i64>> {
    let Some(id) = &row.id else { return Ok(None) };
    conn.prepare_cached("select seq from message_id where topic = ?1 and id = ?2 and until > ?3")?
        .query_row(params![row.topic, id, now], |r| r.get(0))
        .optional()
}

fn write(conn: &Connection, row: &Row, now: i64) -> rusqlite::Result<i64> {
    let sql = "insert into entry (at, id, topic, type, subject, data) values (?1, ?2, ?3, ?4, ?3, ?5)";
    conn.prepare_cached(sql)?.execute(params![now, row.entry, row.topic, MESSAGE, row.data])?;
    let seq = conn.last_insert_rowid();
    if let Some(id) = &row.id {
        let until = now.saturating_add(i64::try_from(ID_WINDOW.as_micros()).unwrap_or(i64::MAX));
        let sql = "insert or replace into message_id (topic, id, seq, until) values (?1, ?2, ?3, ?4)";
        conn.prepare_cached(sql)?.execute(params![row.topic, id, seq, until])?;
    }
    Ok(seq)
}

/// Forgets ids whose time is over, at most `batch`.
pub(super) fn forget_ids(conn: &mut Connection, batch: u32) -> rusqlite::Result<u64> {
    // index: message_id_until
    let sql = "delete from message_id where (topic, id) in
                 (select topic, id from message_id where until <= ?1 order by until limit ?2)";
    let now = Timestamp::now().as_microsecond();
    conn.prepare_cached(sql)?.execute(params![now, batch]).map(|n| n as u64)
}
