//! What only SQLite has to promise: one connection that writes, commits that calls share, other processes on one file.

use super::fixture::*;
use crate::support::wait;
use minium_protocol::State;
use minium_queue::sqlite::{SqliteOptions, SqliteStore};
use minium_queue::{QueueError, RetryOptions, SqlitePlace, Store};
use rusqlite::types::FromSql;
use rusqlite::{Connection, TransactionBehavior};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tempfile::TempDir;

/// A store in a file of its own.
struct File {
    dir: TempDir,
    store: Arc<SqliteStore>,
}

impl File {
    async fn open() -> File {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(SqliteStore::open(&place(&dir)).await.unwrap());
        store.migrate().await.unwrap();
        File { dir, store }
    }

    /// A second process, as far as SQLite can tell: other connections, other threads.
    async fn other(&self, options: SqliteOptions) -> SqliteStore {
        SqliteStore::open_with(&place(&self.dir), options).await.unwrap()
    }

    async fn enqueue(&self) -> i64 {
        self.store.enqueue(&[plain()]).await.unwrap()[0].id
    }

    /// Keeps the connection that writes busy until what comes back is dropped.
    async fn hold(&self) -> std::sync::mpsc::Sender<()> {
        let (release, held) = std::sync::mpsc::channel::<()>();
        let (began, beginning) = tokio::sync::oneshot::channel();
        let store = self.store.clone();
        tokio::spawn(async move {
            let wait_there = move |_: &mut Connection| {
                began.send(()).unwrap();
                // ends when the sender is dropped
                held.recv().unwrap_err();
            };
            store.call(wait_there).await.unwrap();
        });
        beginning.await.unwrap();
        release
    }
}

fn place(dir: &TempDir) -> SqlitePlace {
    SqlitePlace::File(dir.path().join("queue.db"))
}

/// The one value that a query answers.
fn one<T: FromSql>(conn: &Connection, sql: &str) -> T {
    conn.query_row(sql, [], |row| row.get(0)).unwrap()
}

/// Lets everybody who was spawned before reach the store's channel.
async fn all_wait() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn calls_that_come_at_once_share_a_commit() {
    const CALLS: usize = 50;
    let file = File::open().await;
    let commits = Arc::new(AtomicUsize::new(0));
    let counter = commits.clone();
    let counting = move || {
        counter.fetch_add(1, Ordering::Relaxed);
        false
    };
    file.store.call(move |conn| conn.commit_hook(Some(counting)).unwrap()).await.unwrap();
    let held = file.hold().await;
    let calls: Vec<_> = (0..CALLS)
        .map(|_| {
            let store = file.store.clone();
            tokio::spawn(async move { store.enqueue(&[plain()]).await.unwrap()[0].id })
        })
        .collect();
    all_wait().await;
    assert!(calls.iter().all(|call| !call.is_finished()), "nobody is answered before the commit");
    drop(held);
    let mut ids = Vec::new();
    for call in calls {
        ids.push(call.await.unwrap());
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), CALLS);
    assert_eq!(commits.load(Ordering::Relaxed), 1);
}

/// Makes the database refuse jobs of the task `refused`, in one of SQLite's ways.
async fn refuse(file: &File, way: &str) {
    let sql = format!(
        "create trigger refuse before insert on job when new.task = 'refused'
         begin select raise({way}, 'refused'); end"
    );
    file.store.call(move |conn| conn.execute_batch(&sql).unwrap()).await.unwrap();
}

/// Enqueues a good job, a good one with a refused one behind it, and a good one, in one commit; says which succeeded.
async fn share_a_commit_with_a_refused_one(file: &File) -> Vec<bool> {
    let refused = minium_protocol::EnqueueRequest::new("refused", json("[]"));
    let held = file.hold().await;
    let mut calls = Vec::new();
    for requests in [vec![plain()], vec![plain(), refused], vec![plain()]] {
        let store = file.store.clone();
        calls.push(tokio::spawn(async move { store.enqueue(&requests).await.is_ok() }));
        all_wait().await;
    }
    drop(held);
    let mut answers = Vec::new();
    for call in calls {
        answers.push(call.await.unwrap());
    }
    answers
}

#[tokio::test]
async fn a_call_that_fails_takes_nobody_along() {
    let file = File::open().await;
    // leaves what the statement and the call did before
    refuse(&file, "fail").await;
    assert_eq!(share_a_commit_with_a_refused_one(&file).await, [true, false, true]);
    let (entries, jobs) = file
        .store
        .read(|conn| {
            (one::<i64>(conn, "select count(*) from entry"), one::<i64>(conn, "select count(*) from job"))
        })
        .await
        .unwrap();
    assert_eq!((entries, jobs), (2, 2));
    assert_eq!(file.store.stats().await.unwrap().inactive, 2);
}

#[tokio::test]
async fn a_transaction_that_sqlite_rolled_back_was_nobodys() {
    let file = File::open().await;
    refuse(&file, "rollback").await;
    assert_eq!(
        share_a_commit_with_a_refused_one(&file).await,
        [false; 3],
        "nobody is told of a commit that was none"
    );
    assert_eq!(file.store.stats().await.unwrap().inactive, 0);
    file.enqueue().await;
    assert_eq!(file.store.stats().await.unwrap().inactive, 1);
}

#[tokio::test]
async fn a_call_that_panics_is_rolled_back_and_the_store_lives_on() {
    let file = File::open().await;
    let answer = file
        .store
        .call(|conn| {
            conn.execute_batch("begin immediate; delete from tally").unwrap();
            assert!(conn.is_autocommit(), "on purpose");
        })
        .await;
    assert!(matches!(answer, Err(QueueError::Database { .. })), "{answer:?}");
    let words = format!("{:?}", answer.unwrap_err());
    assert!(words.contains("on purpose"), "{words}");
    let id = file.enqueue().await;
    assert!(file.store.get(id).await.unwrap().is_some());
    assert_eq!(file.store.stats().await.unwrap().inactive, 1);
}

#[tokio::test]
async fn a_transaction_that_a_call_leaves_open_is_rolled_back() {
    let file = File::open().await;
    file.store.call(|conn| conn.execute_batch("begin immediate; delete from tally").unwrap()).await.unwrap();
    file.enqueue().await;
    assert_eq!(file.store.stats().await.unwrap().inactive, 1);
}

#[tokio::test]
async fn jobs_are_enqueued_inside_of_the_callers_transaction() {
    let file = File::open().await;
    let mut wakeups = file.store.wakeups();
    let mut events = file.store.events();
    for commit in [false, true] {
        let enqueue = move |conn: &mut Connection| {
            let transaction = conn.transaction().unwrap();
            transaction.execute_batch("create table if not exists mine (n)").unwrap();
            let enqueued = SqliteStore::enqueue_in(&transaction, &[plain(), keyed("k")]).unwrap();
            let bad = SqliteStore::enqueue_in(&transaction, &[with(|o| o.attempts = 0)]);
            assert!(matches!(bad, Err(QueueError::Invalid(_))));
            if commit { transaction.commit() } else { transaction.rollback() }.unwrap();
            enqueued[0].id
        };
        wakeups.mark_unchanged();
        events.mark_unchanged();
        let id = file.store.call(enqueue).await.unwrap();
        assert_eq!(wakeups.has_changed().unwrap(), commit, "workers are woken by the commit");
        assert_eq!(events.has_changed().unwrap(), commit);
        assert_eq!(file.store.get(id).await.unwrap().is_some(), commit);
        assert_eq!(file.store.stats().await.unwrap().inactive, if commit { 2 } else { 0 });
        let mine = "select count(*) from sqlite_schema where name = 'mine'";
        let tables: i64 =
            file.store.read(|conn| conn.query_row(mine, [], |row| row.get(0)).unwrap()).await.unwrap();
        assert_eq!(tables, i64::from(commit));
    }
}

#[tokio::test]
async fn another_process_on_the_file_is_noticed() {
    let file = File::open().await;
    let quick = SqliteOptions { watch_every: Duration::from_millis(5), ..SqliteOptions::default() };
    let other = file.other(quick).await;
    let (mut wakeups, mut events) = (other.wakeups(), other.events());
    wakeups.mark_unchanged();
    events.mark_unchanged();
    let id = file.enqueue().await;
    wait::within("the other's workers to wake", wakeups.changed()).await.unwrap();
    wait::within("the other's journal to wake", events.changed()).await.unwrap();
    assert_eq!(ids(&other.exchange(&[], &claim(5)).await.unwrap().jobs), [id]);
}

#[tokio::test]
async fn a_file_that_another_process_holds_is_unavailable_until_it_lets_go() {
    let file = File::open().await;
    let impatient = SqliteOptions { busy_timeout: Duration::from_millis(20), ..SqliteOptions::default() };
    let other = file.other(impatient).await;
    other.enqueue(&[plain()]).await.unwrap();
    let (release, held) = std::sync::mpsc::channel::<()>();
    let (began, beginning) = tokio::sync::oneshot::channel();
    let store = file.store.clone();
    let holding = tokio::spawn(async move {
        let hold = move |conn: &mut Connection| {
            let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
            began.send(()).unwrap();
            held.recv().unwrap_err();
            transaction.commit().unwrap();
        };
        store.call(hold).await.unwrap();
    });
    beginning.await.unwrap();
    let answer = other.enqueue(&[plain()]).await;
    assert!(matches!(answer, Err(QueueError::Unavailable { .. })), "{answer:?}");
    assert!(answer.unwrap_err().problem().retryable);
    assert_eq!(other.stats().await.unwrap().inactive, 1, "readers are not held up");
    drop(release);
    holding.await.unwrap();
    other.enqueue(&[plain()]).await.unwrap();
    assert_eq!(other.stats().await.unwrap().inactive, 2);
}

#[tokio::test]
async fn a_full_disk_is_told_and_leaves_nothing_half_done() {
    let file = File::open().await;
    let id = file.enqueue().await;
    let limit = "select * from pragma_page_count()";
    let set = move |conn: &mut Connection| {
        let pages: i64 = one(conn, limit);
        let _: i64 = one(conn, &format!("pragma max_page_count = {}", pages + 4));
    };
    file.store.call(set).await.unwrap();
    let mut large = plain();
    large.args = json(&format!("\"{}\"", "x".repeat(100_000)));
    let answer = file.store.enqueue(&[plain(), large]).await;
    assert!(matches!(answer, Err(QueueError::StorageFull { .. })), "{answer:?}");
    assert_eq!(answer.unwrap_err().problem().status, 507);
    assert_eq!(file.store.stats().await.unwrap().inactive, 1);
    // what frees room still works, and with room so does the rest
    file.store.remove(id).await.unwrap();
    file.store.call(|conn| one::<i64>(conn, "pragma max_page_count = 1000000")).await.unwrap();
    file.enqueue().await;
    assert_eq!(file.store.stats().await.unwrap().inactive, 1);
}

/// Leaves room for some pages more than there are; without a number for as many as anybody wants.
async fn make_room(file: &File, pages: Option<i64>) {
    let set = move |conn: &mut Connection| {
        let there: i64 = one(conn, "select * from pragma_page_count()");
        let most = pages.map_or(1_000_000, |pages| there + pages);
        one::<i64>(conn, &format!("pragma max_page_count = {most}"))
    };
    file.store.call(set).await.unwrap();
}

#[tokio::test]
async fn a_full_disk_is_told_to_all_whose_commit_it_undid() {
    let file = File::open().await;
    // room for the large job, but not for its event as well: that statement has nothing to go back to but the beginning
    make_room(&file, Some(35)).await;
    let mut large = plain();
    large.args = json(&format!("\"{}\"", "x".repeat(100_000)));
    let held = file.hold().await;
    let mut calls = Vec::new();
    for request in [plain(), large, plain()] {
        let store = file.store.clone();
        calls.push(tokio::spawn(async move { store.enqueue(&[request]).await }));
        all_wait().await;
    }
    drop(held);
    for call in calls {
        let answer = call.await.unwrap();
        assert!(matches!(answer, Err(QueueError::StorageFull { .. })), "{answer:?}");
    }
    assert_eq!(file.store.stats().await.unwrap().inactive, 0, "nobody's change was kept");
    make_room(&file, None).await;
    file.enqueue().await;
}

#[tokio::test]
async fn readers_do_not_wait_for_the_writer() {
    let file = File::open().await;
    let id = file.enqueue().await;
    let held = file.hold().await;
    let reading = async { file.store.get(id).await.unwrap().unwrap().job().unwrap().state };
    assert_eq!(wait::within("a read while the writer is busy", reading).await, State::Inactive);
    drop(held);
}

#[tokio::test]
async fn what_was_answered_is_there_after_the_file_is_opened_again() {
    let file = File::open().await;
    let leased = {
        file.enqueue().await;
        file.store.exchange(&[], &claim(1)).await.unwrap().jobs.remove(0)
    };
    let before = file.store.get(leased.id).await.unwrap().unwrap();
    let File { dir, store } = file;
    drop(store);
    let store = SqliteStore::open(&place(&dir)).await.unwrap();
    assert_eq!(store.migrate().await.unwrap(), 0);
    let after = store.get(leased.id).await.unwrap().unwrap();
    assert_eq!(after.snapshot.get(), before.snapshot.get());
    let verdicts = store.exchange(&[finish(&leased, "1")], &claim(0)).await.unwrap().verdicts;
    assert_eq!(verdicts, [minium_queue::Verdict::Accepted], "the lease outlives the process");
}

#[tokio::test]
async fn commits_reach_the_disk_by_default() {
    let file = File::open().await;
    let settings = |conn: &mut Connection| {
        let journal: String = one(conn, "pragma journal_mode");
        let synchronous: i64 = one(conn, "pragma synchronous");
        (journal, synchronous)
    };
    assert_eq!(file.store.call(settings).await.unwrap(), ("wal".into(), 2));
    let relaxed = file.other(SqliteOptions { durable: false, ..SqliteOptions::default() }).await;
    assert_eq!(relaxed.call(settings).await.unwrap(), ("wal".into(), 1));
}

#[tokio::test]
async fn what_cannot_be_opened_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let nowhere = SqlitePlace::File(dir.path().join("none").join("queue.db"));
    let answer = SqliteStore::open(&nowhere).await;
    assert!(matches!(answer, Err(QueueError::Unavailable { .. })), "{answer:?}");
    let text = dir.path().join("text.db");
    std::fs::write(&text, "this is no database, but long enough to look at ".repeat(100)).unwrap();
    let answer = SqliteStore::open(&SqlitePlace::File(text)).await;
    assert!(matches!(answer, Err(QueueError::Database { .. })), "{answer:?}");
    // without its schema a store answers, and says what is missing
    let empty = SqliteStore::open(&SqlitePlace::Memory).await.unwrap();
    assert!(matches!(empty.enqueue(&[plain()]).await, Err(QueueError::Database { .. })));
    empty.ping().await.unwrap();
}

#[tokio::test]
async fn figures_are_what_counting_would_find() {
    let fixture = Fixture::sqlite_memory().await;
    fixture.finished(plain()).await;
    fixture.failed(plain()).await;
    let cancelled = fixture.cancelled(plain()).await;
    fixture.store().retry(cancelled, &RetryOptions::default()).await.unwrap();
    fixture.enqueue(keyed("k")).await;
    fixture.store().enqueue(&[keyed("k"), plain()]).await.unwrap();
    fixture.claim(1).await;
    let minium_queue::Backend::Sqlite(store) = &fixture.backend else { panic!() };
    let wrong = "select count(*) from tally where name <> 'drawn'
                    and n <> (select count(*) from job where state = tally.name)";
    assert_eq!(
        store.read(|conn| conn.query_row(wrong, [], |row| row.get::<_, i64>(0)).unwrap()).await.unwrap(),
        0
    );
}
