//! The journal on SQLite. One writer commits in the order of `seq`, so `seq` is the offset and there is nothing to
//! number: what remains is reading, and a new epoch at each start for a journal in memory.

mod keep;
mod read;
mod recorders;
mod retention;

use crate::error::NotifierError;
use crate::journal::{
    Entry, EnvelopeOptions, Found, JournalOptions, JournalStore, Kept, Lag, Outcome, Place, Range, Step,
    Stored,
};
use crate::recorders::{Confirmation, Confirmed, Recorder};
use crate::retention::{Retention, Trim, Trimmed};
use async_trait::async_trait;
use jiff::Timestamp;
use minium_bus::Bounds;
use minium_protocol::{Filter, Position};
use minium_queue::sqlite::{SqliteStore, failure};
use read::Reader;
use rusqlite::{Connection, params};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OnceCell, watch};

/// A walk reads whole rows here, and in memory it does so on the thread that writes.
const WALK_COUNT_MAX: u32 = 2_000;

/// Entries that are let go in one transaction: writers wait for it.
const TRIM_BATCH_MAX: u32 = 1_000;

pub(crate) struct SqliteJournal {
    store: Arc<SqliteStore>,
    reader: Arc<Reader>,
    /// Set once the epoch of a journal in memory is; true when it is one.
    in_memory: OnceCell<bool>,
}

impl SqliteJournal {
    pub(crate) fn new(
        store: Arc<SqliteStore>,
        envelope: EnvelopeOptions,
        options: &JournalOptions,
    ) -> SqliteJournal {
        let walk_count_max = options.walk_count_max.min(WALK_COUNT_MAX);
        let reader =
            Arc::new(Reader { envelope, options: JournalOptions { walk_count_max, ..options.clone() } });
        SqliteJournal { store, reader, in_memory: OnceCell::new() }
    }

    /// Is it in memory? Its epoch is begun by whoever asks first.
    async fn in_memory(&self) -> Result<bool, NotifierError> {
        let begin = || self.write("begin the journal's epoch", begin_epoch);
        self.in_memory.get_or_try_init(begin).await.copied()
    }

    async fn read<T: Send + 'static>(
        &self,
        attempted: &'static str,
        work: impl FnOnce(&Reader, &Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, NotifierError> {
        let reader = self.reader.clone();
        let done = self.store.read(move |conn| {
            // several statements that see the same: what is let go of meanwhile must not be missed in silence
            let snapshot = conn.unchecked_transaction()?;
            work(&reader, &snapshot)
        });
        let done = done.await?;
        done.map_err(|e| failure(attempted, e).into())
    }

    async fn write<T: Send + 'static>(
        &self,
        attempted: &'static str,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, NotifierError> {
        let done = self.store.call(work).await?;
        done.map_err(|e| failure(attempted, e).into())
    }
}

/// A database that has no file is in memory. Its numbers begin anew with each process, so its epoch must too.
fn begin_epoch(conn: &mut Connection) -> rusqlite::Result<bool> {
    let file: Option<String> =
        conn.query_row("select file from pragma_database_list where name = 'main'", [], |r| r.get(0))?;
    let in_memory = file.is_none_or(|path| path.is_empty());
    if in_memory {
        let epoch = Timestamp::now().as_millisecond();
        conn.execute("update journal_cursor set epoch = ?1", params![epoch])?;
    }
    Ok(in_memory)
}

#[async_trait]
impl JournalStore for SqliteJournal {
    async fn open(&self, known: Option<Position>) -> Result<Bounds, NotifierError> {
        const WHAT: &str = "open the journal";
        self.in_memory().await?;
        let bounds = self.bounds().await?;
        if known.is_some_and(|k| k.epoch == bounds.epoch && k.offset > bounds.last) {
            // somebody put an older file in its place: the numbers behind its end will be given again
            self.write(WHAT, |conn| conn.execute("update journal_cursor set epoch = epoch + 1", [])).await?;
            return self.bounds().await;
        }
        Ok(bounds)
    }

    async fn step(&self, _patience: Duration) -> Result<Step, NotifierError> {
        let Bounds { epoch, last, .. } = self.bounds().await?;
        Ok(Step { outcome: Outcome::Idle, epoch, last, numbered: 0, more: false, entries: Vec::new() })
    }

    async fn bounds(&self) -> Result<Bounds, NotifierError> {
        self.read("look at the journal", |_, conn| read::bounds(conn)).await
    }

    async fn bounds_of(&self, filter: Filter) -> Result<Bounds, NotifierError> {
        self.read("look at the journal", move |_, conn| read::bounds_of(conn, &filter)).await
    }

    async fn page(&self, epoch: u64, after: u64) -> Result<Vec<Entry>, NotifierError> {
        self.read("read the journal", move |reader, conn| reader.page(conn, epoch, after)).await
    }

    async fn read(&self, range: Range) -> Result<Found, NotifierError> {
        self.read("read the journal", move |reader, conn| reader.read(conn, &range)).await
    }

    async fn before_last(&self, filter: Filter, count: u32) -> Result<u64, NotifierError> {
        self.read("read the journal", move |reader, conn| reader.before_last(conn, &filter, count)).await
    }

    async fn keep(&self, messages: &[Kept]) -> Result<Vec<Stored>, NotifierError> {
        self.in_memory().await?;
        let rows: Vec<keep::Row> = messages.iter().map(keep::Row::from).collect();
        self.write("keep messages", move |conn| keep::keep(conn, &rows)).await
    }

    /// What is committed has its number.
    async fn find(&self, places: &[Place]) -> Result<Vec<Option<Position>>, NotifierError> {
        Ok(vec![None; places.len()])
    }

    async fn forget_ids(&self, batch: u32) -> Result<u64, NotifierError> {
        self.write("forget the ids of messages", move |conn| keep::forget_ids(conn, batch)).await
    }

    /// Every commit is signalled: there is no flag.
    async fn arm(&self, _armed: bool) -> Result<(), NotifierError> {
        Ok(())
    }

    async fn assign(&self, prefixes: &[String]) -> Result<(), NotifierError> {
        let prefixes = prefixes.to_vec();
        self.write("set the journal's channels", move |conn| retention::assign(conn, &prefixes)).await
    }

    async fn count(&self, batch: u32) -> Result<u64, NotifierError> {
        let piece = batch.min(TRIM_BATCH_MAX);
        let mut counted = 0;
        // in pieces, between which writers get their turn
        while counted < u64::from(batch) {
            let more = self.write("count the journal", move |conn| retention::count(conn, piece)).await?;
            counted += more;
            if more < u64::from(piece) {
                break;
            }
        }
        Ok(counted)
    }

    async fn trim(&self, prefix: &str, retention: &Retention, trim: Trim) -> Result<Trimmed, NotifierError> {
        let trim = Trim { batch: trim.batch.min(TRIM_BATCH_MAX), ..trim };
        let (prefix, retention) = (prefix.to_owned(), retention.clone());
        self.write("trim the journal", move |conn| retention::trim(conn, &prefix, &retention, trim)).await
    }

    async fn sweep(&self) -> Result<(), NotifierError> {
        self.write("sweep the journal", retention::sweep).await
    }

    async fn confirm(&self, confirmation: &Confirmation) -> Result<Confirmed, NotifierError> {
        self.in_memory().await?;
        let said = confirmation.clone();
        self.write("confirm what a recorder has", move |conn| recorders::confirm(conn, &said)).await
    }

    async fn recorders(&self) -> Result<Vec<Recorder>, NotifierError> {
        self.read("look which recorders there are", |_, conn| recorders::all(conn)).await
    }

    async fn forget_recorder(&self, name: &str) -> Result<bool, NotifierError> {
        let name = name.to_owned();
        self.write("forget a recorder", move |conn| recorders::forget(conn, &name)).await
    }

    async fn lag(&self, relayed: Option<u64>, _count_max: u64) -> Result<Lag, NotifierError> {
        self.read("look how far the journal is relayed", move |_, conn| read::lag(conn, relayed)).await
    }

    async fn tend(&self) -> Result<(), NotifierError> {
        Ok(())
    }

    fn events(&self) -> watch::Receiver<u64> {
        self.store.events()
    }

    fn signalled(&self) -> bool {
        true
    }

    async fn retention(&self) -> Result<Retention, NotifierError> {
        Ok(if self.in_memory().await? { Retention::in_memory() } else { Retention::default() })
    }
}
