//! Migrations: once each, from any number of processes, and never backwards.

use crate::store::fixture::*;
use minium_queue::{Backend, QueueError};

pub(crate) async fn migrating_again_does_nothing(f: &Fixture) {
    let id = f.enqueue(plain()).await;
    assert_eq!(f.backend.migrate().await.unwrap(), 0);
    assert_eq!(f.backend.pending_sql().await.unwrap(), []);
    let status = f.backend.migration_status().await.unwrap();
    assert!(!status.is_empty() && status.iter().all(|m| m.applied.is_some()), "{status:?}");
    assert!(!f.is_gone(id).await);
}

pub(crate) async fn migrating_from_two_processes_applies_each_once(f: &Fixture) {
    // what was made for this test is thrown away, so that both find nothing
    match &f.backend {
        Backend::Postgres(_) => f.client().await.batch_execute("drop schema minium cascade").await.unwrap(),
        Backend::Sqlite(store) => {
            let drop_all = "select 'drop ' || type || ' ' || name from sqlite_schema
                             where type in ('table', 'view') and name not like 'sqlite_%'";
            let dropping = store.call(move |conn| {
                let tables: Vec<String> = {
                    let mut statement = conn.prepare(drop_all).unwrap();
                    let names = statement.query_map([], |row| row.get(0)).unwrap();
                    names.map(Result::unwrap).collect()
                };
                tables.iter().for_each(|table| conn.execute_batch(table).unwrap());
            });
            dropping.await.unwrap();
        }
    }
    let known = f.backend.pending_sql().await.unwrap().len();
    assert!(known > 0);
    let other = f.second_backend().await;
    let (one, two) = tokio::join!(f.backend.migrate(), other.migrate());
    let mut counts = [one.unwrap(), two.unwrap()];
    counts.sort_unstable();
    assert_eq!(counts, [0, known]);
    f.finished(plain()).await;
}

pub(crate) async fn a_newer_schema_is_refused(f: &Fixture) {
    let sql =
        "insert into minium.migration (number, name, checksum, applied) values (999, 'later', 'x', now())";
    match &f.backend {
        Backend::Postgres(_) => f.client().await.batch_execute(sql).await.unwrap(),
        Backend::Sqlite(store) => {
            let sql = sql.replace("minium.", "").replace("now()", "0");
            store.call(move |conn| conn.execute_batch(&sql).unwrap()).await.unwrap();
        }
    }
    for answer in [f.backend.migrate().await.map(drop), f.backend.migration_status().await.map(drop)] {
        assert!(matches!(&answer, Err(QueueError::Schema(w)) if w.contains("newer")), "{answer:?}");
    }
}
