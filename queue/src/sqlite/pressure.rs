//! What nodes say when they cannot follow the journal.

use super::SqliteStore;
use super::change::now_micros;
use super::failure::failure;
use crate::error::QueueError;
use crate::pressure::{PRESSURE_LIFE, Pressure, Pressured};
use crate::rules::micros;
use async_trait::async_trait;
use rusqlite::params;
use uuid::Uuid;

#[async_trait]
impl Pressured for SqliteStore {
    async fn press(&self, node: Uuid, pressure: Option<Pressure>) -> Result<(), QueueError> {
        let node = node.to_string();
        self.change("tell how far the journal is relayed", move |change| {
            match pressure {
                Some(pressure) => change.execute(
                    "insert into pressure (node, at, rising) values (?1, ?2, ?3)
                       on conflict (node) do update set at = excluded.at, rising = excluded.rising",
                    params![node, change.now, pressure == Pressure::Rising],
                ),
                None => change.execute(
                    "delete from pressure where node = ?1 or at < ?2",
                    params![node, change.now - 60_000_000],
                ),
            }
            .map(drop)
        })
        .await
    }

    async fn pressure(&self) -> Result<Option<Pressure>, QueueError> {
        const WHAT: &str = "look whether the journal is relayed";
        let worst = |conn: &rusqlite::Connection| {
            let sql = "select max(rising) from pressure where at > ?1";
            conn.prepare_cached(sql)?
                .query_row([now_micros() - micros(PRESSURE_LIFE)], |row| row.get::<_, Option<bool>>(0))
        };
        let rising = self.read(worst).await?.map_err(|e| failure(WHAT, e))?;
        Ok(rising.map(|rising| if rising { Pressure::Rising } else { Pressure::Easing }))
    }
}
