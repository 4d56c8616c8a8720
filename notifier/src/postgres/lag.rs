//! How far the journal goes beyond what is on the bus.

use super::{Parameter, PgJournal, failed};
use crate::error::NotifierError;
use crate::journal::Lag;
use std::time::Duration;
use tokio_postgres::types::Type;

const WHAT: &str = "look how far the journal is relayed";

/// $1 what was relayed, if anything; $2 so many that wait for a number are counted. What waits is what the next step would see
/// first (`minium.journal_step`); those few that were running at the last one are left out. Indexes: entry_xid_seq, and the keys
/// of journal_cursor and entry_offset. Locks nothing.
const LAG: &str = r#"
with c as materialized (
  select snapshot, target_seq, next_offset, least(coalesce($1, next_offset - 1), next_offset - 1) as relayed
    from minium.journal_cursor order by epoch desc, next_offset desc limit 1),
waiting as materialized (
  select e.at from c, lateral (
    select e.at from minium.entry e
     where e.xid >= pg_snapshot_xmax(c.snapshot) and e.seq > c.target_seq order by e.xid, e.seq limit $2) e)
select c.next_offset - 1 - c.relayed + (select count(*) from waiting),
       extract(epoch from clock_timestamp() - least(
         (select min(at) from waiting),
         (select o.at from minium.entry_offset o where o."offset" > c.relayed order by o."offset" limit 1)))::float8
  from c"#;

impl PgJournal {
    pub(super) async fn find_lag(&self, relayed: Option<u64>, count_max: u64) -> Result<Lag, NotifierError> {
        let relayed = relayed.and_then(|offset| i64::try_from(offset).ok());
        let count = i64::try_from(count_max).unwrap_or(i64::MAX);
        let parameters: [Parameter<'_>; 2] = [(&relayed, Type::INT8), (&count, Type::INT8)];
        let rows = self.query(WHAT, LAG, &parameters).await?;
        let Some(row) = rows.first() else { return Ok(Lag::default()) };
        let events: i64 = row.try_get(0).map_err(|e| failed(WHAT, e))?;
        let age: Option<f64> = row.try_get(1).map_err(|e| failed(WHAT, e))?;
        let age = Duration::try_from_secs_f64(age.unwrap_or(0.0)).unwrap_or_default();
        Ok(Lag { events: u64::try_from(events).unwrap_or(0), age })
    }
}
