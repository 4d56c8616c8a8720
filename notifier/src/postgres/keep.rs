//! Writing messages into the journal, and finding the numbers of those that were written.

use super::{Parameter, PgJournal, failed, settle};
use crate::error::NotifierError;
use crate::journal::{ID_WINDOW, Kept, Place, Stored};
use minium_protocol::Position;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use uuid::Uuid;

const WHAT: &str = "keep messages";

/// So often is a statement run again that gave way to another: nothing of it was kept.
const RETRIES_MAX: u32 = 5;

impl PgJournal {
    /// Writes messages in one statement.
    pub(super) async fn keep_messages(&self, messages: &[Kept]) -> Result<Vec<Stored>, NotifierError> {
        let topics: Vec<&str> = messages.iter().map(|m| m.topic.as_str()).collect();
        let ids: Vec<Option<&str>> = messages.iter().map(|m| m.id.as_deref()).collect();
        let entries: Vec<Uuid> = messages.iter().map(|m| m.entry).collect();
        let data: Vec<&str> = messages.iter().map(|m| &*m.data).collect();
        let remembered = ID_WINDOW.as_secs_f64();
        let parameters: [Parameter<'_>; 5] = [
            (&topics, Type::TEXT_ARRAY),
            (&ids, Type::TEXT_ARRAY),
            (&entries, Type::UUID_ARRAY),
            (&data, Type::TEXT_ARRAY),
            (&remembered, Type::FLOAT8),
        ];
        let sql = "select * from minium.journal_keep($1, $2, $3, $4, $5 * interval '1 second')";
        for again in 0.. {
            let client = self.connection(WHAT).await?;
            let answer = tokio::time::timeout(self.options.patience, client.query_typed(sql, &parameters));
            match self.queue.guard(WHAT, answer).await {
                Err(away) => return settle(client, Err(away.into())),
                Ok(Ok(Ok(rows))) => return rows.iter().map(stored).collect(),
                Ok(Ok(Err(error))) if again < RETRIES_MAX && is_to_repeat(&error) => {}
                Ok(Ok(Err(error))) => return settle(client, Err(failed(WHAT, error))),
                Ok(Err(elapsed)) => return settle(client, Err(NotifierError::unavailable(WHAT, elapsed))),
            }
        }
        unreachable!("the range has no end")
    }

    /// The numbers of entries, as far as they have one.
    pub(super) async fn find_offsets(
        &self,
        places: &[Place],
    ) -> Result<Vec<Option<Position>>, NotifierError> {
        let seqs: Vec<i64> = places.iter().map(|p| p.seq).collect();
        let behinds: Vec<i64> = places.iter().map(|p| p.behind).collect();
        let parameters: [Parameter<'_>; 2] = [(&seqs, Type::INT8_ARRAY), (&behinds, Type::INT8_ARRAY)];
        let what = "find the numbers of messages";
        let rows = self.query(what, "select * from minium.journal_find($1, $2)", &parameters).await?;
        let found = |row: &Row| position(row, 0).map_err(|e| failed(what, e));
        rows.iter().map(found).collect()
    }
}

/// Was nothing kept, for another transaction's sake, so that the statement may be run again?
fn is_to_repeat(error: &tokio_postgres::Error) -> bool {
    [SqlState::T_R_SERIALIZATION_FAILURE, SqlState::T_R_DEADLOCK_DETECTED]
        .iter()
        .any(|c| error.code() == Some(c))
}

fn stored(row: &Row) -> Result<Stored, NotifierError> {
    let read = || {
        if let Some(position) = position(row, 3)? {
            return Ok(Stored::Numbered(position));
        }
        let place = Place { seq: row.try_get(1)?, behind: row.try_get(2)? };
        Ok(Stored::Waiting(row.try_get(0)?, place))
    };
    read().map_err(|e| failed(WHAT, e))
}

/// Epoch and offset from column `from` on, if there is an offset.
fn position(row: &Row, from: usize) -> Result<Option<Position>, tokio_postgres::Error> {
    let epoch = row.try_get::<_, i64>(from)? as u64;
    let offset = row.try_get::<_, Option<i64>>(from + 1)?;
    Ok(offset.map(|offset| Position { epoch, offset: offset as u64 }))
}
