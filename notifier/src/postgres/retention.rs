//! Counting what is kept, and letting go of the rest: one bounded statement at a time.

use super::{Parameter, PgJournal, failed};
use crate::error::NotifierError;
use crate::retention::{Retention, Trim, Trimmed};
use std::time::Duration;
use tokio_postgres::types::Type;

/// Beyond this is for ever, and no interval of PostgreSQL's.
const AGE_MAX: Duration = Duration::from_secs(100 * 366 * 86_400);

fn whole(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn batch(n: u32) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

impl PgJournal {
    /// Runs a function that answers how many it took.
    async fn counting(&self, what: &'static str, sql: &str, most: u32) -> Result<u64, NotifierError> {
        let rows = self.query(what, sql, &[(&batch(most), Type::INT4)]).await?;
        let count =
            rows.first().map_or(Ok(0), |row| row.try_get::<_, i32>(0)).map_err(|e| failed(what, e))?;
        Ok(u64::try_from(count).unwrap_or(0))
    }

    pub(super) async fn forget_some_ids(&self, most: u32) -> Result<u64, NotifierError> {
        self.counting("forget the ids of messages", "select minium.journal_forget_ids($1)", most).await
    }

    pub(super) async fn count_entries(&self, most: u32) -> Result<u64, NotifierError> {
        self.counting("count the journal", "select minium.journal_count($1)", most).await
    }

    pub(super) async fn assign_channels(&self, prefixes: &[String]) -> Result<(), NotifierError> {
        let sql = "select minium.journal_assign($1)";
        self.query("set the journal's channels", sql, &[(&prefixes, Type::TEXT_ARRAY)]).await.map(drop)
    }

    pub(super) async fn trim_channel(
        &self,
        prefix: &str,
        retention: &Retention,
        trim: Trim,
    ) -> Result<Trimmed, NotifierError> {
        const WHAT: &str = "trim the journal";
        let age = retention.age.min(AGE_MAX);
        let sql =
            "select * from minium.journal_trim($1, clock_timestamp() - $2 * interval '1 second', $3, $4,
                                                     clock_timestamp() - $5 * interval '1 second', $6, $7)";
        let parameters: [Parameter<'_>; 7] = [
            (&prefix, Type::TEXT),
            (&age.as_secs_f64(), Type::FLOAT8),
            (&whole(retention.count), Type::INT8),
            (&whole(retention.bytes), Type::INT8),
            (&trim.grace.min(AGE_MAX).as_secs_f64(), Type::FLOAT8),
            (&whole(trim.to), Type::INT8),
            (&batch(trim.batch), Type::INT4),
        ];
        let rows = self.query(WHAT, sql, &parameters).await?;
        let Some(row) = rows.first() else { return Ok(Trimmed::default()) };
        let read = || Ok((row.try_get::<_, i32>(0)?, row.try_get(1)?));
        let (gone, more) = read().map_err(|e| failed(WHAT, e))?;
        Ok(Trimmed { gone: u64::try_from(gone).unwrap_or(0), more })
    }
}
