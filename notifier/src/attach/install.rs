//! Making and removing the functions and triggers. Each is one transaction, under an advisory lock of ours.

use super::look::Place;
use super::{AttachError, VERSION};
use crate::postgres::failed;
use deadpool_postgres::{Object, Transaction};
use std::time::Duration;
use tokio_postgres::error::SqlState;

/// Makes the functions and triggers.
const INSTALL: &str = include_str!("install.sql");
/// The one place that makes a snapshot.
const SNAPSHOT: &str = include_str!("snapshot.sql");
/// Takes them off.
const REMOVE: &str = include_str!("remove.sql");

/// `attach` in ASCII, so that two of us come one after the other. Whoever waits for Minion's table makes all its writers
/// wait behind, so it gives up soon and comes again.
const FIRST: &str = "set local client_min_messages = warning;
    set local lock_timeout = '2s';
    select pg_advisory_xact_lock(107152796640104)";

/// So often is it tried.
const TRIES: u32 = 10;
/// Between two attempts, so that those who waited behind the last one get on.
const PAUSE: Duration = Duration::from_millis(500);

/// Makes them, or makes them anew.
pub(super) async fn install(client: &mut Object, place: &Place, source: &str) -> Result<(), AttachError> {
    const WHAT: &str = "attach Minion";
    let sql = filled(place, source);
    let book = "insert into minium.attached as a (system, jobs, source, version) values ('minion', $1::text::regclass, $2, $3)
                on conflict (system) do update set jobs = excluded.jobs, source = excluded.source,
                                                   version = excluded.version";
    for _ in 0..TRIES {
        let transaction = begin(client, WHAT).await?;
        let done = async {
            transaction.batch_execute(FIRST).await?;
            transaction.execute(book, &[&place.jobs, &source, &VERSION]).await?;
            transaction.batch_execute(&sql).await
        };
        if ended(done.await, transaction, WHAT).await? {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(AttachError::Busy { jobs: place.jobs.clone(), tries: TRIES })
}

/// Takes them off, and says whether there were any.
pub(super) async fn remove(client: &mut Object) -> Result<bool, AttachError> {
    const WHAT: &str = "detach Minion";
    for _ in 0..TRIES {
        let transaction = begin(client, WHAT).await?;
        let mut gone = 0;
        let done = async {
            transaction.batch_execute(FIRST).await?;
            let book = "select to_regclass('minium.attached') is not null";
            if transaction.query_one(book, &[]).await?.get(0) {
                gone =
                    transaction.execute("delete from minium.attached where system = 'minion'", &[]).await?;
            }
            transaction.batch_execute(REMOVE).await
        };
        if ended(done.await, transaction, WHAT).await? {
            return Ok(gone > 0);
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(AttachError::Busy { jobs: "minion_jobs".into(), tries: TRIES })
}

async fn begin<'a>(client: &'a mut Object, what: &'static str) -> Result<Transaction<'a>, AttachError> {
    client.transaction().await.map_err(|e| AttachError::Journal(failed(what, e)))
}

/// Commits what was done; false when a lock was not to be had, and nothing is done.
async fn ended(
    done: Result<(), tokio_postgres::Error>,
    transaction: Transaction<'_>,
    what: &'static str,
) -> Result<bool, AttachError> {
    let fault = |e| AttachError::Journal(failed(what, e));
    match done {
        Ok(()) => transaction.commit().await.map(|()| true).map_err(fault),
        Err(error) => {
            transaction.rollback().await.map_err(fault)?;
            let gave_way = [SqlState::LOCK_NOT_AVAILABLE, SqlState::T_R_DEADLOCK_DETECTED];
            if gave_way.iter().any(|code| error.code() == Some(code)) { Ok(false) } else { Err(fault(error)) }
        }
    }
}

/// The SQL for one Minion. Names come quoted from the database, and a source has no character that SQL would mind.
fn filled(place: &Place, source: &str) -> String {
    let filled = INSTALL
        .replace("{snapshot}", SNAPSHOT)
        .replace("{jobs}", &place.jobs)
        .replace("{workers}", &place.workers)
        .replace("{source}", &format!("'{source}'"));
    format!("{REMOVE}\n{filled}")
}
