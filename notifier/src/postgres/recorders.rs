//! Recorders, in PostgreSQL's table of them.

use super::{Parameter, PgJournal, failed};
use crate::error::NotifierError;
use crate::recorders::{Confirmation, Confirmed, RECORDERS_MAX, RECORDERS_OF_ONE_MAX, Recorder};
use jiff::Timestamp;
use minium_protocol::Filter;
use std::time::Duration;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

/// All of them, by name. Index: the key. Locks nothing.
const ALL: &str = r#"
select r.name, r.owner, r.topics, r."offset", r.registered, r.confirmed,
       greatest(extract(epoch from clock_timestamp() - r.confirmed), 0)::float8
  from minium.recorder r order by r.name"#;

impl PgJournal {
    pub(super) async fn confirm_recorder(&self, said: &Confirmation) -> Result<Confirmed, NotifierError> {
        const WHAT: &str = "confirm what a recorder has";
        let topics: Vec<&str> = said.topics.iter().map(Filter::as_str).collect();
        let (epoch, offset) = (signed(said.position.epoch), signed(said.position.offset));
        let parameters: [Parameter<'_>; 8] = [
            (&said.name, Type::TEXT),
            (&said.owner, Type::TEXT),
            (&said.for_anyone, Type::BOOL),
            (&topics, Type::TEXT_ARRAY),
            (&epoch, Type::INT8),
            (&offset, Type::INT8),
            (&signed(RECORDERS_MAX.into()), Type::INT8),
            (&signed(RECORDERS_OF_ONE_MAX.into()), Type::INT8),
        ];
        let sql = "select minium.recorder_confirm($1, $2, $3, $4, $5, $6, $7, $8)";
        let rows = self.query(WHAT, sql, &parameters).await?;
        let answer: Option<&str> = match rows.first() {
            Some(row) => row.try_get(0).map_err(|e| failed(WHAT, e))?,
            None => None,
        };
        match answer {
            Some("new") => Ok(Confirmed::New),
            Some("known") => Ok(Confirmed::Known),
            Some("epoch") => Ok(Confirmed::OtherEpoch),
            Some("ahead") => Ok(Confirmed::Ahead),
            Some("foreign") => Ok(Confirmed::Foreign),
            Some("many") => Ok(Confirmed::TooMany),
            other => Err(NotifierError::Schema(format!("a confirmation was answered {other:?}"))),
        }
    }

    pub(super) async fn all_recorders(&self) -> Result<Vec<Recorder>, NotifierError> {
        const WHAT: &str = "look which recorders there are";
        let rows = self.query(WHAT, ALL, &[]).await?;
        rows.iter().map(|row| read(row).map_err(|e| failed(WHAT, e))).collect()
    }

    pub(super) async fn forget_one_recorder(&self, name: &str) -> Result<bool, NotifierError> {
        let sql = "delete from minium.recorder where name = $1 returning true";
        let rows = self.query("forget a recorder", sql, &[(&name, Type::TEXT)]).await?;
        Ok(!rows.is_empty())
    }
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn read(row: &Row) -> Result<Recorder, tokio_postgres::Error> {
    let topics: Vec<String> = row.try_get(2)?;
    let (offset, silence): (i64, f64) = (row.try_get(3)?, row.try_get(6)?);
    let (registered, confirmed): (Timestamp, Timestamp) = (row.try_get(4)?, row.try_get(5)?);
    Ok(Recorder {
        name: row.try_get(0)?,
        owner: row.try_get(1)?,
        // they were filters when they were written
        topics: topics.iter().filter_map(|topic| topic.parse().ok()).collect(),
        offset: u64::try_from(offset).unwrap_or(0),
        registered,
        confirmed,
        silence: Duration::try_from_secs_f64(silence).unwrap_or_default(),
    })
}
