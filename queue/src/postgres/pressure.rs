//! What nodes say when they cannot follow the journal.

use super::PgStore;
use crate::error::QueueError;
use crate::pressure::{PRESSURE_LIFE, Pressure, Pressured};
use crate::rules::micros;
use async_trait::async_trait;
use uuid::Uuid;

/// $1 node, $2 rising. Index: the key.
const PRESS: &str = "
insert into minium.pressure (node, at, rising) values ($1, clock_timestamp(), $2)
    on conflict (node) do update set at = excluded.at, rising = excluded.rising";

/// $1 node. Those of nodes that were killed go with it: there are never more rows than nodes.
const RELIEVE: &str = "
delete from minium.pressure where node = $1 or at < clock_timestamp() - interval '1 minute'";

/// $1 how long a word counts, in microseconds. A handful of rows at most, mostly none.
const WORST: &str = "
select bool_or(rising) from minium.pressure where at > clock_timestamp() - $1::bigint * interval '1 microsecond'";

#[async_trait]
impl Pressured for PgStore {
    async fn press(&self, node: Uuid, pressure: Option<Pressure>) -> Result<(), QueueError> {
        const WHAT: &str = "tell how far the journal is relayed";
        match pressure {
            Some(pressure) => self.execute(WHAT, PRESS, &[&node, &(pressure == Pressure::Rising)]).await,
            None => self.execute(WHAT, RELIEVE, &[&node]).await,
        }
        .map(drop)
    }

    async fn pressure(&self) -> Result<Option<Pressure>, QueueError> {
        let life_us = micros(PRESSURE_LIFE);
        let row = self.step("look whether the journal is relayed", WORST, &[&life_us]).await?;
        let rising: Option<bool> = row.get(0);
        Ok(rising.map(|rising| if rising { Pressure::Rising } else { Pressure::Easing }))
    }
}
