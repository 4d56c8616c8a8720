//! The store on PostgreSQL.

mod connection;
mod operations;
mod schema;

use crate::error::QueueError;
use deadpool_postgres::Pool;
use std::time::Duration;
use tokio::sync::watch;

/// Bounds of a store, with defaults for a server of middling size.
#[derive(Debug, Clone)]
pub struct PgOptions {
    /// At most so many connections, besides the one that listens.
    pub connections: usize,
    /// So long may connecting take.
    pub connect_timeout: Duration,
    /// So long does an operation wait for a connection that is free.
    pub wait_timeout: Duration,
    /// So long may one statement take.
    pub statement_timeout: Duration,
    /// So often is a transaction run again that gave way to another.
    pub retries_max: u32,
    /// So many jobs go into one statement.
    pub batch_max: usize,
    /// The low-water marks of so many workers are kept.
    pub marked_workers_max: usize,
}

impl Default for PgOptions {
    fn default() -> PgOptions {
        PgOptions {
            connections: 8,
            connect_timeout: Duration::from_secs(5),
            wait_timeout: Duration::from_secs(10),
            statement_timeout: Duration::from_secs(60),
            retries_max: 5,
            batch_max: 1_000,
            marked_workers_max: 10_000,
        }
    }
}

/// The store on PostgreSQL.
#[derive(Debug)]
pub struct PgStore {
    connections: connection::Connections,
    events: watch::Sender<u64>,
}

impl PgStore {
    /// Prepares the store. Nothing is connected yet.
    ///
    /// # Errors
    /// [`QueueError::Invalid`] for a URL that cannot be read.
    pub fn open(url: &str, options: PgOptions) -> Result<PgStore, QueueError> {
        let config = connection::config(url, &options)?;
        let connections = connection::Connections::new(config, &options)?;
        Ok(PgStore { connections, events: watch::Sender::new(0) })
    }

    /// The connections, for the notifier, which keeps its tables in the same database.
    pub fn pool(&self) -> &Pool {
        self.connections.pool()
    }

    /// Changes whenever there may be new entries in the journal. It only wakes.
    pub fn events(&self) -> watch::Receiver<u64> {
        self.events.subscribe()
    }
}
