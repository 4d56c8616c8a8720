//! Applies the migrations: all that are missing in one transaction, under one advisory lock, so that two servers that
//! start at once do not race, and a failed migration leaves nothing behind.

use super::PgStore;
use super::connection::failed;
use crate::error::QueueError;
use crate::migrations::{Applied, Migration, MigrationStatus, POSTGRES, pending, status};
use tokio_postgres::GenericClient;

/// `minium` in ASCII: nobody else's advisory lock.
const LOCK: i64 = 0x6d69_6e69_756d;

/// The table must be there before the first migration. The function is the oldest way to ask without an error. A role that owns
/// the schema and may make none needs not ask for it again, which PostgreSQL would refuse.
const BOOK: &str = "do $$ begin
      if to_regnamespace('minium') is null then create schema minium; end if;
    end $$;
    create table if not exists minium.migration (
      number   int primary key,
      name     text not null,
      checksum text not null,
      applied  timestamptz not null default now()
    )";

impl PgStore {
    /// Brings the schema up to date. See [`crate::Backend::migrate`].
    ///
    /// # Errors
    /// [`QueueError::Schema`] when the schema is newer than this program, or not what it was made by.
    pub async fn migrate(&self) -> Result<usize, QueueError> {
        const WHAT: &str = "migrate the database";
        // whoever migrates may have to wait for long, but not for a server that has gone
        self.connections.guard(WHAT, Box::pin(self.migrate_in_time(WHAT))).await?
    }

    async fn migrate_in_time(&self, what: &'static str) -> Result<usize, QueueError> {
        let mut client = self.connections.get(what).await?;
        let fault = |e| failed(what, e);
        let transaction = client.transaction().await.map_err(fault)?;
        // The lock goes alone. In one batch with it, the book would be looked for in the catalogue as it was before the wait,
        // and whoever came second would make the schema that the first has made meanwhile.
        let lock = format!("set local statement_timeout = 0; select pg_advisory_xact_lock({LOCK})");
        transaction.batch_execute(&lock).await.map_err(fault)?;
        // what is there already is no news at each start
        let book = format!("set local client_min_messages = warning; {BOOK}");
        transaction.batch_execute(&book).await.map_err(fault)?;
        let missing = pending(POSTGRES, &applied(&*transaction).await?)?;
        for migration in &missing {
            transaction.batch_execute(migration.sql).await.map_err(fault)?;
            let row = "insert into minium.migration (number, name, checksum) values ($1, $2, $3)";
            let checksum = migration.checksum();
            transaction
                .execute(row, &[&migration.number, &migration.name, &checksum])
                .await
                .map_err(fault)?;
        }
        transaction.commit().await.map_err(fault)?;
        Ok(missing.len())
    }

    /// Every migration that this program knows. See [`crate::Backend::migration_status`].
    ///
    /// # Errors
    /// As [`PgStore::migrate`].
    pub async fn migration_status(&self) -> Result<Vec<MigrationStatus>, QueueError> {
        status(POSTGRES, &self.applied().await?)
    }

    /// What [`PgStore::migrate`] would run.
    ///
    /// # Errors
    /// As [`PgStore::migrate`].
    pub async fn pending_sql(&self) -> Result<Vec<Migration>, QueueError> {
        pending(POSTGRES, &self.applied().await?)
    }

    async fn applied(&self) -> Result<Vec<Applied>, QueueError> {
        const WHAT: &str = "read which migrations were applied";
        let mut client = self.connections.get(WHAT).await?;
        // one session for both questions, whatever stands between
        let transaction = client.transaction().await.map_err(|e| failed(WHAT, e))?;
        applied(&*transaction).await
    }
}

async fn applied(client: &impl GenericClient) -> Result<Vec<Applied>, QueueError> {
    const WHAT: &str = "read which migrations were applied";
    let fault = |e| failed(WHAT, e);
    let there = "select to_regclass('minium.migration') is not null";
    if !client.query_one(there, &[]).await.map_err(fault)?.get::<_, bool>(0) {
        return Ok(Vec::new());
    }
    let rows = "select number, checksum, applied from minium.migration order by number";
    let rows = client.query(rows, &[]).await.map_err(fault)?;
    Ok(rows.iter().map(|r| Applied { number: r.get(0), checksum: r.get(1), at: r.get(2) }).collect())
}
