//! Where a journal lives, for tests that hold on both databases.

use crate::support::postgres::Database;
use crate::support::wait;
use bytes::Bytes;
use minium_bus::{Draft, History};
use minium_notifier::{EnvelopeOptions, Journal, JournalOptions, KeepOptions};
use minium_protocol::{Position, Problem};
use minium_queue::Backend;
use std::sync::Arc;
use tempfile::TempDir;

/// A message on its way.
pub(crate) fn draft(topic: &str, id: Option<&str>, data: impl Into<String>) -> Draft {
    let data: String = data.into();
    Draft { topic: topic.parse().unwrap(), id: id.map(Into::into), data: Bytes::from(data) }
}

/// Keeps one message.
pub(crate) async fn keep(
    history: &Arc<dyn History>,
    topic: &str,
    id: Option<&str>,
    data: &str,
) -> Result<Position, Problem> {
    let kept = wait::within("a message to be kept", history.keep(vec![draft(topic, id, data)])).await?;
    let [position] = kept[..] else { panic!("one message has one position: {kept:?}") };
    Ok(position)
}

/// Where a journal is kept, for as long as a test needs it.
pub(crate) enum Home {
    Postgres(Database),
    File(TempDir),
}

impl Home {
    pub(crate) async fn postgres() -> Home {
        Home::Postgres(Database::create().await)
    }

    pub(crate) async fn sqlite() -> Home {
        Home::File(tempfile::tempdir().unwrap())
    }

    /// As a node opens it; each time a node of its own.
    pub(crate) async fn open(&self) -> (Backend, Journal) {
        self.open_with(KeepOptions::default()).await
    }

    pub(crate) async fn open_with(&self, keep: KeepOptions) -> (Backend, Journal) {
        let url = match self {
            Home::Postgres(database) => database.url().to_owned(),
            Home::File(dir) => format!("sqlite:{}", dir.path().join("journal.db").display()),
        };
        let backend = Backend::open(&url.parse().unwrap()).await.unwrap();
        backend.migrate().await.unwrap();
        let options = JournalOptions { keep, ..JournalOptions::default() };
        let journal = Journal::open_with(&backend, EnvelopeOptions::default(), options);
        (backend, journal)
    }

    /// As if so many seconds had gone by for the ids of messages.
    pub(crate) async fn age_ids(&self, backend: &Backend, seconds: i64) {
        let postgres = format!("update minium.message_id set until = until - interval '{seconds} seconds'");
        let sqlite = format!("update message_id set until = until - {seconds} * 1000000");
        self.run(backend, postgres, sqlite).await;
    }

    /// As if so many seconds had gone by for the entries of a topic up to an offset.
    pub(crate) async fn age(&self, backend: &Backend, topic: &str, to: u64, seconds: i64) {
        let postgres = format!(
            "update minium.entry_offset set at = at - interval '{seconds} seconds'
               where topic = '{topic}' and \"offset\" <= {to};
             update minium.entry e set at = o.at from minium.entry_offset o where o.seq = e.seq and o.at <> e.at"
        );
        let sqlite =
            format!("update entry set at = at - {seconds} * 1000000 where topic = '{topic}' and seq <= {to}");
        self.run(backend, postgres, sqlite).await;
    }

    async fn run(&self, backend: &Backend, postgres: String, sqlite: String) {
        match (self, backend) {
            (Home::Postgres(database), _) => {
                database.connect().await.batch_execute(&postgres).await.unwrap();
            }
            (Home::File(_), Backend::Sqlite(store)) => {
                store.call(move |conn| conn.execute_batch(&sqlite)).await.unwrap().unwrap();
            }
            (Home::File(_), Backend::Postgres(_)) => panic!("a file is SQLite"),
        }
    }
}

/// Runs each test of a module on both.
macro_rules! on_both {
    ($($test:ident)*) => {
        mod postgres {$(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() { super::$test($crate::journal::home::Home::postgres().await).await }
        )*}
        mod sqlite {$(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() { super::$test($crate::journal::home::Home::sqlite().await).await }
        )*}
    };
}
pub(crate) use on_both;
