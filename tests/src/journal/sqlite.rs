//! SQLite: one writer, so the order of numbers is the order of commits; what is rolled back gives its numbers back.

use super::{Node, everything, read_all};
use crate::support::wait;
use minium_bus::HistoryError;
use minium_notifier::{EnvelopeOptions, Journal, Policy, RelayOptions, Retention, Retentions};
use minium_protocol::EnqueueRequest;
use minium_queue::sqlite::SqliteStore;
use minium_queue::{Backend, QueueError, Store};
use std::sync::Arc;
use std::time::Duration;

fn request(task: &str) -> EnqueueRequest {
    EnqueueRequest::new(task, serde_json::value::to_raw_value(&[1]).unwrap())
}

async fn open(url: &str) -> (Arc<SqliteStore>, Journal) {
    let backend = Backend::open(&url.parse().unwrap()).await.unwrap();
    backend.migrate().await.unwrap();
    let journal = Journal::open(&backend, EnvelopeOptions::default());
    match backend {
        Backend::Sqlite(store) => (store, journal),
        Backend::Postgres(_) => panic!("{url} is SQLite"),
    }
}

async fn in_file() -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", dir.path().join("journal.db").display());
    (dir, url)
}

#[tokio::test]
async fn offsets_stay_dense_when_transactions_are_rolled_back() {
    let (_dir, url) = in_file().await;
    let (store, journal) = open(&url).await;
    let mut kept = 0;
    for n in 0..30 {
        let rolled_back = n % 3 == 0;
        let done = store
            .call(move |conn| {
                let transaction = conn.transaction().unwrap();
                SqliteStore::enqueue_in(&transaction, &[request("t"), request("t")])?;
                if rolled_back {
                    transaction.rollback().unwrap()
                } else {
                    transaction.commit().unwrap()
                }
                Ok::<(), QueueError>(())
            })
            .await
            .unwrap();
        done.unwrap();
        kept += if rolled_back { 0 } else { 2 };
        // refused as a whole, and alone: its savepoint shares a commit with others
        let (bad, good) = ([request("t"), request("")], [request("t")]);
        let (refused, taken) = tokio::join!(store.enqueue(&bad), store.enqueue(&good));
        assert!(refused.is_err());
        taken.unwrap();
        kept += 1;
    }
    let relayed = read_all(&*journal.history(), "task", 7).await;
    let offsets: Vec<u64> = relayed.iter().map(|r| r.position.offset).collect();
    assert_eq!(offsets, (1..=kept).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_entry_wakes_the_relay_and_reads_back_the_same_after_a_restart() {
    let (_dir, url) = in_file().await;
    let (store, journal) = open(&url).await;
    // no poll comes to the rescue: only the wake-up can bring it
    let wake = minium_notifier::WakeOptions { slow_poll: Duration::from_secs(3_600), ..Default::default() };
    let node = Node::start_with(&journal, RelayOptions { wake, ..RelayOptions::default() });
    let epoch = node.begun().await.epoch;
    for n in 1..=5 {
        store.enqueue(&[request("t")]).await.unwrap();
        node.relayed(n).await;
    }
    let before = read_all(&*journal.history(), "task", 100).await;
    node.stop().await;
    drop((store, journal));
    let (_store, journal) = open(&url).await;
    let after = read_all(&*journal.history(), "task", 100).await;
    let node = Node::start(&journal);
    assert_eq!(node.begun().await.epoch, epoch, "a file keeps its epoch");
    assert_eq!(
        after.iter().map(|r| &r.event).collect::<Vec<_>>(),
        before.iter().map(|r| &r.event).collect::<Vec<_>>()
    );
    node.stop().await;
}

#[tokio::test]
async fn a_journal_in_memory_begins_an_epoch_with_each_start() {
    let mut epochs = Vec::new();
    for _ in 0..2 {
        let (store, journal) = open("sqlite::memory:").await;
        let node = Node::start(&journal);
        store.enqueue(&[request("t")]).await.unwrap();
        epochs.push(node.relayed(1).await.epoch);
        let history = journal.history();
        assert_eq!(history.bounds(&everything()).await.unwrap().epoch, epochs[epochs.len() - 1]);
        node.stop().await;
        // the clock's next millisecond
        wait::until("a later epoch", async || {
            (jiff::Timestamp::now().as_millisecond() as u64 > epochs[epochs.len() - 1]).then_some(())
        })
        .await;
    }
    assert!(epochs[0] < epochs[1], "{epochs:?}");
    assert!(epochs[0] > 1_700_000_000_000, "milliseconds since 1970: {epochs:?}");
}

#[tokio::test]
async fn filters_and_the_last_entries_are_found_as_on_postgres() {
    let (_dir, url) = in_file().await;
    let (store, journal) = open(&url).await;
    for _ in 0..1_100 {
        store.enqueue(&[request("many"), request("many"), request("many")]).await.unwrap();
    }
    store.enqueue(&[request("rare"), request("rare/sub"), request("rarely")]).await.unwrap();
    let history = journal.history();
    let all = read_all(&*history, "+", 500).await;
    assert_eq!(all.len(), 3_303);
    for text in
        ["task", "task/rare", "task/many", "task/many/7", "task/+/7", "task/rare/sub", "+/rare", "task/no"]
    {
        let filter: minium_protocol::Filter = text.parse().unwrap();
        let due: Vec<_> = all.iter().filter(|r| filter.matches(&r.topic)).map(|r| &r.event).collect();
        let found = read_all(&*history, text, 300).await;
        assert_eq!(found.iter().map(|r| &r.event).collect::<Vec<_>>(), due, "{text}");
    }
    let before = |text: &str, count| {
        let (history, filter) = (history.clone(), text.parse::<minium_protocol::Filter>().unwrap());
        async move { history.before_last(&filter, count).await.unwrap() }
    };
    assert_eq!(before("task", 3).await, 3_300);
    assert_eq!(before("task/rare", 2).await, 3_300);
    assert_eq!(before("task/rare", 9).await, 0);
    assert_eq!(before("task/many", 1).await, 3_299);
    assert_eq!(before("task", 0).await, 3_303);
}

#[tokio::test]
async fn retention_lets_the_oldest_go_and_their_numbers_never_come_back() {
    let (_dir, url) = in_file().await;
    let (store, journal) = open(&url).await;
    let three = Retention { count: 3, ..Retention::default() };
    let options = RelayOptions {
        retention: Some(Retentions::new(Policy { others: three, ..Policy::default() })),
        retention_interval: Duration::from_millis(20),
        retention_batch: 4,
        ..RelayOptions::default()
    };
    let node = Node::start_with(&journal, options);
    for _ in 0..10 {
        store.enqueue(&[request("t")]).await.unwrap();
    }
    node.relayed(10).await;
    let history = journal.history();
    wait::until("the oldest to be let go", async || {
        (history.bounds(&everything()).await.unwrap().first == 8).then_some(())
    })
    .await;
    let filter = "task".parse().unwrap();
    let expired = history.read(&filter, 6, u64::MAX, 10, 1 << 20).await;
    assert!(matches!(expired, Err(HistoryError::Expired { first: 8 })));
    store.call(|conn| conn.execute("delete from entry", [])).await.unwrap().unwrap();
    store.enqueue(&[request("t")]).await.unwrap();
    assert_eq!(node.relayed(11).await.offset, 11);
    node.stop().await;
}
