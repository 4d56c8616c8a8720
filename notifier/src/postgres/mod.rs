//! The journal on PostgreSQL: numbered by snapshot difference, one leader among the nodes.
//!
//! The statements are functions of the schema (`migrations/postgres/0002_journal.sql`): their plans are kept by each
//! session of the server, not by prepared statements of ours, so that everything works behind a pooler that gives
//! each transaction another session. For the same reason nothing here relies on a session: no session lock, no LISTEN
//! (the queue's listener only wakes).

mod keep;
mod lag;
mod read;
mod recorders;
mod retention;
mod sequencer;

use crate::error::NotifierError;
use crate::journal::{
    Entry, EnvelopeOptions, Found, JournalOptions, JournalStore, Kept, Lag, Place, Range, Step, Stored,
};
use crate::recorders::{Confirmation, Confirmed, Recorder};
use crate::retention::{Retention, Trim, Trimmed};
use async_trait::async_trait;
use deadpool_postgres::Object;
use minium_bus::Bounds;
use minium_protocol::{Filter, Position};
use minium_queue::postgres::{PgStore, discreet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, watch};
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};

pub(crate) struct PgJournal {
    queue: Arc<PgStore>,
    events: watch::Receiver<u64>,
    envelope: EnvelopeOptions,
    options: JournalOptions,
    /// The relay's own connection: numbering must not wait for one behind everybody else.
    relay: Mutex<Option<Object>>,
}

type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

impl PgJournal {
    pub(crate) fn new(queue: Arc<PgStore>, envelope: EnvelopeOptions, options: JournalOptions) -> PgJournal {
        PgJournal { events: queue.events(), queue, envelope, options, relay: Mutex::new(None) }
    }

    async fn connection(&self, attempted: &'static str) -> Result<Object, NotifierError> {
        Ok(self.queue.connection(attempted).await?)
    }

    /// Runs one statement on a connection of the pool.
    async fn query(
        &self,
        attempted: &'static str,
        sql: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, NotifierError> {
        let client = self.connection(attempted).await?;
        let answer = self.patiently(attempted, client.query_typed(sql, parameters)).await;
        settle(client, answer)
    }

    /// Runs one statement on the relay's own connection.
    async fn relay_query(
        &self,
        attempted: &'static str,
        sql: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, NotifierError> {
        let mut relay = self.relay.lock().await;
        let client = match relay.take() {
            Some(client) => client,
            None => self.connection(attempted).await?,
        };
        let answer = self.patiently(attempted, client.query_typed(sql, parameters)).await;
        // a connection that failed is not kept, and neither is one whose statement was given up half-way
        match answer {
            Ok(rows) => {
                *relay = Some(client);
                Ok(rows)
            }
            Err(error) => settle(client, Err(error)),
        }
    }

    /// Waits for the server, but not for ever: a network that is gone says nothing.
    async fn patiently<T>(
        &self,
        attempted: &'static str,
        work: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, NotifierError> {
        let work = tokio::time::timeout(self.options.patience, work);
        match self.queue.guard(attempted, work).await? {
            Ok(answer) => answer.map_err(|e| failed(attempted, e)),
            Err(elapsed) => Err(NotifierError::unavailable(attempted, elapsed)),
        }
    }
}

/// Gives a connection back, unless what it did failed: what state it is in is then not known.
fn settle<T>(client: Object, answer: Result<T, NotifierError>) -> Result<T, NotifierError> {
    if answer.is_err() {
        drop(Object::take(client));
    }
    answer
}

/// What an error of the database means.
pub(crate) fn failed(attempted: &'static str, error: tokio_postgres::Error) -> NotifierError {
    let Some(db) = error.as_db_error() else {
        return NotifierError::unavailable(attempted, error);
    };
    let code = db.code().code();
    match code {
        // no such table, function or schema: nobody has migrated
        "42P01" | "42883" | "3F000" => NotifierError::Schema(format!("{}: run minium migrate", db.message())),
        // shutdown, start-up, too many connections, a standby, cancelled
        "57P01" | "57P02" | "57P03" | "25006" | "57014" => {
            NotifierError::Unavailable { attempted, source: discreet(error) }
        }
        "53100" => NotifierError::StorageFull { attempted, source: discreet(error) },
        _ => match code.get(..2) {
            // no connection, or no resources: memory, connections, a limit that was set
            Some("08" | "53") => NotifierError::Unavailable { attempted, source: discreet(error) },
            // what was given: its data, a limit of the program
            Some("22" | "54") => NotifierError::Refused { attempted, source: discreet(error) },
            _ => NotifierError::Database { attempted, source: discreet(error) },
        },
    }
}

/// Did a statement give way to another node's?
fn gave_way(error: &tokio_postgres::Error) -> bool {
    [SqlState::T_R_SERIALIZATION_FAILURE, SqlState::UNIQUE_VIOLATION].iter().any(|c| error.code() == Some(c))
}

#[async_trait]
impl JournalStore for PgJournal {
    async fn open(&self, known: Option<Position>) -> Result<Bounds, NotifierError> {
        const WHAT: &str = "open the journal";
        self.relay_query(WHAT, "select minium.journal_adopt(false)", &[]).await?;
        let bounds = self.bounds().await?;
        if known.is_some_and(|k| k.epoch == bounds.epoch && k.offset > bounds.last) {
            // we have relayed offsets that this database never gave: an older copy of it has come in its place
            self.relay_query(WHAT, "select minium.journal_adopt(true)", &[]).await?;
            return self.bounds().await;
        }
        Ok(bounds)
    }

    async fn step(&self, patience: Duration) -> Result<Step, NotifierError> {
        self.number(patience).await
    }

    async fn bounds(&self) -> Result<Bounds, NotifierError> {
        let rows = self.query("look at the journal", "select * from minium.journal_bounds()", &[]).await?;
        rows.first()
            .ok_or_else(|| NotifierError::Schema("the journal has no cursor".into()))
            .and_then(|row| read::bounds(row, 0))
    }

    async fn page(&self, epoch: u64, after: u64) -> Result<Vec<Entry>, NotifierError> {
        self.next_page(epoch, after).await
    }

    async fn bounds_of(&self, filter: Filter) -> Result<Bounds, NotifierError> {
        self.find_bounds(&filter).await
    }

    async fn read(&self, range: Range) -> Result<Found, NotifierError> {
        self.find(&range).await
    }

    async fn before_last(&self, filter: Filter, count: u32) -> Result<u64, NotifierError> {
        self.find_before_last(&filter, count).await
    }

    async fn keep(&self, messages: &[Kept]) -> Result<Vec<Stored>, NotifierError> {
        self.keep_messages(messages).await
    }

    async fn find(&self, places: &[Place]) -> Result<Vec<Option<Position>>, NotifierError> {
        self.find_offsets(places).await
    }

    async fn forget_ids(&self, batch: u32) -> Result<u64, NotifierError> {
        self.forget_some_ids(batch).await
    }

    async fn arm(&self, armed: bool) -> Result<(), NotifierError> {
        // it is asked for again and again while nothing happens, and rarely writes
        let sql = "update minium.wake set armed = $1, until = case when $1 then now() + interval '60 seconds' else until end
                    where name = 'journal' and (armed <> $1 or $1 and until < now() + interval '30 seconds')";
        self.relay_query("set the journal's flag", sql, &[(&armed, Type::BOOL)]).await.map(drop)
    }

    async fn assign(&self, prefixes: &[String]) -> Result<(), NotifierError> {
        self.assign_channels(prefixes).await
    }

    async fn count(&self, batch: u32) -> Result<u64, NotifierError> {
        self.count_entries(batch).await
    }

    async fn trim(&self, prefix: &str, retention: &Retention, trim: Trim) -> Result<Trimmed, NotifierError> {
        self.trim_channel(prefix, retention, trim).await
    }

    async fn sweep(&self) -> Result<(), NotifierError> {
        self.query("sweep the journal", "select minium.journal_sweep()", &[]).await.map(drop)
    }

    async fn confirm(&self, confirmation: &Confirmation) -> Result<Confirmed, NotifierError> {
        self.confirm_recorder(confirmation).await
    }

    async fn recorders(&self) -> Result<Vec<Recorder>, NotifierError> {
        self.all_recorders().await
    }

    async fn forget_recorder(&self, name: &str) -> Result<bool, NotifierError> {
        self.forget_one_recorder(name).await
    }

    async fn lag(&self, relayed: Option<u64>, count_max: u64) -> Result<Lag, NotifierError> {
        self.find_lag(relayed, count_max).await
    }

    async fn tend(&self) -> Result<(), NotifierError> {
        // a day is over when it is, whoever keeps something of it
        let sql = "select * from minium.journal_days($1, now(), now())";
        let days = i32::try_from(self.options.days_ahead).unwrap_or(i32::MAX);
        self.query("tend the journal's days", sql, &[(&days, Type::INT4)]).await.map(drop)
    }

    fn events(&self) -> watch::Receiver<u64> {
        self.events.clone()
    }

    /// Writers notify only while the flag is armed, and not at all through a pooler.
    fn signalled(&self) -> bool {
        false
    }

    async fn retention(&self) -> Result<Retention, NotifierError> {
        Ok(Retention::default())
    }
}
