//! Recorders, in SQLite's table of them: as `minium.recorder_confirm` does it (`migrations/postgres/0016_recorders.sql`).

use super::read;
use crate::recorders::{Confirmation, Confirmed, RECORDERS_MAX, RECORDERS_OF_ONE_MAX, Recorder};
use jiff::Timestamp;
use minium_protocol::Filter;
use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};
use std::time::Duration;

pub(super) fn confirm(conn: &mut Connection, said: &Confirmation) -> rusqlite::Result<Confirmed> {
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let bounds = read::bounds(&transaction)?;
    if said.position.epoch != bounds.epoch {
        return Ok(Confirmed::OtherEpoch);
    }
    if said.position.offset > bounds.last {
        return Ok(Confirmed::Ahead);
    }
    let topics: Vec<&str> = said.topics.iter().map(Filter::as_str).collect();
    let topics =
        serde_json::to_string(&topics).map_err(|e| rusqlite::Error::ToSqlConversionFailure(e.into()))?;
    let (offset, now) = (read::offset(said.position.offset), Timestamp::now().as_microsecond());
    let sql = "select owner from recorder where name = ?1";
    let owner: Option<String> =
        transaction.query_row(sql, params![said.name], |row| row.get(0)).optional()?;
    let answer = match owner {
        Some(owner) if owner != said.owner && !said.for_anyone => return Ok(Confirmed::Foreign),
        Some(_) => {
            let sql = r#"update recorder set topics = ?2, "offset" = ?3, confirmed = ?4 where name = ?1"#;
            transaction.execute(sql, params![said.name, topics, offset, now])?;
            Confirmed::Known
        }
        None => {
            let count: u32 = transaction.query_row("select count(*) from recorder", [], |row| row.get(0))?;
            let sql = "select count(*) from recorder where owner = ?1 and owner <> ''";
            let own: u32 = transaction.query_row(sql, params![said.owner], |row| row.get(0))?;
            if count >= RECORDERS_MAX || own >= RECORDERS_OF_ONE_MAX {
                return Ok(Confirmed::TooMany);
            }
            let sql = "insert into recorder values (?1, ?2, ?3, ?4, ?5, ?5)";
            transaction.execute(sql, params![said.name, said.owner, topics, offset, now])?;
            Confirmed::New
        }
    };
    transaction.commit()?;
    Ok(answer)
}

pub(super) fn all(conn: &Connection) -> rusqlite::Result<Vec<Recorder>> {
    let now = Timestamp::now().as_microsecond();
    let sql = r#"select name, owner, topics, "offset", registered, confirmed from recorder order by name"#;
    let mut query = conn.prepare_cached(sql)?;
    let recorder = |row: &Row<'_>| {
        let (offset, confirmed): (i64, i64) = (row.get(3)?, row.get(5)?);
        Ok(Recorder {
            name: row.get(0)?,
            owner: row.get(1)?,
            // they were filters when they were written
            topics: serde_json::from_str(row.get_ref(2)?.as_str()?).unwrap_or_default(),
            offset: u64::try_from(offset).unwrap_or(0),
            registered: time(row.get(4)?),
            confirmed: time(confirmed),
            silence: Duration::from_micros(u64::try_from(now.saturating_sub(confirmed)).unwrap_or(0)),
        })
    };
    query.query_map([], recorder)?.collect()
}

pub(super) fn forget(conn: &Connection, name: &str) -> rusqlite::Result<bool> {
    Ok(conn.execute("delete from recorder where name = ?1", params![name])? > 0)
}

fn time(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(micros).unwrap_or(Timestamp::UNIX_EPOCH)
}
