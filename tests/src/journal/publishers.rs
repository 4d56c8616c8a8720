//! Publishers and a PostgreSQL that does what it can to lose their messages between the commit and the number.

use super::home::{draft, keep};
use super::{Fixture, Node, assert_dense, number_all, open, read_all, step};
use crate::support::postgres::{Cluster, ClusterOptions, connect};
use crate::support::wait;
use futures::future::join_all;
use minium_bus::History;
use minium_notifier::{EnvelopeOptions, Journal, JournalOptions, KeepOptions};
use minium_protocol::{ErrorCode, Position};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio_postgres::Client;

fn impatient(journal: KeepOptions, fixture: &Fixture) -> Journal {
    let options = JournalOptions { keep: journal, ..JournalOptions::default() };
    Journal::open_with(&fixture.backend, EnvelopeOptions::default(), options)
}

async fn entries(client: &Client) -> i64 {
    client.query_one("select count(*) from minium.entry", &[]).await.unwrap().get(0)
}

async fn until_written(client: &Client, count: i64) {
    wait::until("the message to be committed", async || (entries(client).await == count).then_some(())).await;
}

/// Keeps a message in the background, with the usual id.
fn publishing(history: &Arc<dyn History>) -> tokio::task::JoinHandle<Position> {
    let history = history.clone();
    tokio::spawn(async move { keep(&history, "t", Some("x"), "1").await.unwrap() })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_acknowledged_is_there_whatever_happens_to_connections() {
    const CALLERS: usize = 8;
    const MESSAGES: usize = 120;
    let fixture = Fixture::new().await;
    let other = fixture.another().await;
    let (one, two) = (Node::start(&fixture.journal), Node::start(&other));
    let histories = [fixture.journal.history(), other.history()];
    let killer = fixture.client().await;
    let (acked, failed) = (AtomicU64::new(0), AtomicU64::new(0));
    let callers = (0..CALLERS).map(|caller| {
        let (history, acked, failed) = (histories[caller % 2].clone(), &acked, &failed);
        async move {
            let mut positions = Vec::new();
            while positions.len() < MESSAGES {
                // the same ids again until they are acknowledged; some calls have several messages
                let next = positions.len()..(positions.len() + 1 + caller % 3).min(MESSAGES);
                let drafts = next.map(|n| {
                    let name = format!("{caller}-{n}");
                    draft("t", Some(&name), format!("\"{name}\""))
                });
                match history.keep(drafts.collect()).await {
                    Ok(kept) => {
                        acked.fetch_add(kept.len() as u64, Relaxed);
                        positions.extend(kept);
                    }
                    Err(problem) => {
                        assert!(problem.retryable, "{problem:?}");
                        failed.fetch_add(1, Relaxed);
                    }
                }
            }
            positions
        }
    });
    let killing = async {
        let total = (CALLERS * MESSAGES) as u64;
        for round in 1..=12 {
            // evenly over the run
            wait::until("some messages", async || (acked.load(Relaxed) >= total * round / 13).then_some(()))
                .await;
            let sql = "select count(pg_terminate_backend(pid)) from pg_stat_activity
                        where datname = current_database() and application_name = 'minium'";
            killer.query_one(sql, &[]).await.unwrap();
        }
    };
    let (positions, ()) = tokio::join!(wait::within("all callers", join_all(callers)), killing);
    eprintln!("{} calls failed and were tried again", failed.load(Relaxed));

    let read = read_all(&*histories[0], "t", 1_000).await;
    let by_offset: BTreeMap<u64, String> =
        read.iter().map(|r| (r.position.offset, String::from_utf8(r.message().to_vec()).unwrap())).collect();
    assert_eq!(by_offset.len(), CALLERS * MESSAGES, "each message once, whatever was tried again");
    for (caller, positions) in positions.iter().enumerate() {
        for (n, position) in positions.iter().enumerate() {
            assert_eq!(by_offset.get(&position.offset), Some(&format!("\"{caller}-{n}\"")));
        }
        assert!(positions.is_sorted_by_key(|p| p.offset), "in the order of their caller");
    }
    assert_dense(&killer).await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_message_that_the_database_refuses_takes_no_other_down() {
    let fixture = Fixture::new().await;
    let node = Node::start(&fixture.journal);
    node.begun().await;
    let (history, client) = (fixture.journal.history(), fixture.client().await);
    // the first holds the writer up, so that the others share the next commit
    let blocker = fixture.client().await;
    blocker.batch_execute("begin; lock table minium.entry in exclusive mode").await.unwrap();
    let call = |n: i32| {
        let history = history.clone();
        // the bus would not let it through
        let data = if n == 7 { "{nonsense".to_owned() } else { n.to_string() };
        let drafts = vec![draft("t", Some(&format!("a{n}")), "0"), draft("t", Some(&format!("b{n}")), data)];
        async move { history.keep(drafts).await }
    };
    let release = async {
        let sql = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'
                    and datname = current_database() and query like '%journal_keep%'";
        wait::until("the writer to wait", async || {
            (client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 1).then_some(())
        })
        .await;
        blocker.batch_execute("rollback").await.unwrap();
    };
    let (kept, ()) = tokio::join!(join_all((0..20).map(call)), release);
    for (n, kept) in kept.iter().enumerate() {
        match kept {
            Ok(positions) => assert!(n != 7 && positions.len() == 2),
            Err(problem) => assert_eq!((n, problem.code), (7, ErrorCode::InvalidRequest)),
        }
    }
    assert_eq!(read_all(&*history, "t", 100).await.len(), 38, "nothing of the refused call");
    assert_dense(&client).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_is_the_same_message_while_its_first_commit_is_under_way() {
    let fixture = Fixture::new().await;
    let other = fixture.another().await;
    let (one, two) = (Node::start(&fixture.journal), Node::start(&other));
    one.begun().await;
    two.begun().await;
    let client = fixture.client().await;
    // the first has taken the id and cannot commit; the second, of another node, waits for it
    let blocker = fixture.client().await;
    blocker.batch_execute("begin; lock table minium.entry in exclusive mode").await.unwrap();
    let waiting = async |count: i64| {
        let sql = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'
                    and datname = current_database() and query like '%journal_keep%'";
        wait::until("the writers to wait", async || {
            (client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == count).then_some(())
        })
        .await;
    };
    let first = publishing(&fixture.journal.history());
    waiting(1).await;
    let of_other = publishing(&other.history());
    waiting(2).await;
    let of_same = publishing(&fixture.journal.history());
    blocker.batch_execute("rollback").await.unwrap();
    let first = first.await.unwrap();
    assert_eq!((of_other.await.unwrap(), of_same.await.unwrap()), (first, first));
    assert_eq!(read_all(&*other.history(), "t", 100).await.len(), 1);
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_is_the_same_message_between_commit_and_number() {
    let fixture = Fixture::new().await;
    let other = fixture.another().await;
    let client = fixture.client().await;
    // nobody relays and nobody numbers: what brings the number is looking for it
    let first = publishing(&fixture.journal.history());
    until_written(&client, 1).await;
    let (of_same, of_other) = (publishing(&fixture.journal.history()), publishing(&other.history()));
    wait::until("both to have looked", async || {
        let sql = "select count(*) from pg_stat_activity where datname = current_database()
                    and application_name = 'minium' and query like '%journal_find%'";
        (client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) >= 2).then_some(())
    })
    .await;
    assert!(!first.is_finished() && !of_same.is_finished() && !of_other.is_finished());
    number_all(&client).await;
    let first = first.await.unwrap();
    assert_eq!((first.epoch, first.offset), (1, 1));
    assert_eq!((of_same.await.unwrap(), of_other.await.unwrap()), (first, first));
    assert_eq!(entries(&client).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_does_not_number_answers_what_another_numbers() {
    let fixture = Fixture::new().await;
    let other = fixture.another().await;
    let node = Node::start(&other);
    node.begun().await;
    let history = fixture.journal.history();
    for n in 1..=3 {
        assert_eq!(keep(&history, "t", None, "1").await.unwrap().offset, n);
    }
    // and one that follows, with a relay of its own
    let follower = Node::start(&fixture.journal);
    follower.begun().await;
    let calls = (0..100).map(|n| {
        let history = if n % 2 == 0 { history.clone() } else { other.history() };
        async move { keep(&history, "t", None, "1").await.unwrap().offset }
    });
    let mut offsets = join_all(calls).await;
    offsets.sort_unstable();
    assert_eq!(offsets, (4..=103).collect::<Vec<_>>());
    node.stop().await;
    follower.stop().await;
}

#[tokio::test]
async fn a_message_that_nobody_numbers_is_answered_in_time_and_found_by_its_id() {
    let fixture = Fixture::new().await;
    let client = fixture.client().await;
    let options = KeepOptions { patience: Duration::from_millis(300), ..KeepOptions::default() };
    let history = impatient(options, &fixture).history();
    for _ in 0..2 {
        let problem = keep(&history, "t", Some("x"), "1").await.unwrap_err();
        assert_eq!((problem.code, problem.retryable), (ErrorCode::Unavailable, true));
    }
    assert_eq!(step(&client, 10).await.unwrap().last, 1);
    assert_eq!(keep(&history, "t", Some("x"), "1").await.unwrap().offset, 1);
    assert_eq!(entries(&client).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_number_that_comes_with_a_new_epoch_is_one_of_that() {
    let fixture = Fixture::new().await;
    let client = fixture.client().await;
    let history = fixture.journal.history();
    let first = publishing(&history);
    until_written(&client, 1).await;
    client.batch_execute("update minium.journal_cursor set timeline = timeline + 1").await.unwrap();
    // its relay begins behind the message: it will never bring it
    let another = Node::start(&fixture.another().await);
    another.relayed(1).await;
    let node = Node::start(&fixture.journal);
    let first = first.await.unwrap();
    assert_eq!(first, Position { epoch: 2, offset: 1 });
    assert_eq!(keep(&history, "t", Some("x"), "1").await.unwrap(), first);
    node.stop().await;
    another.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_of_the_database_between_commit_and_number_loses_nothing() {
    let mut cluster = Cluster::start(ClusterOptions { fsync: true, ..ClusterOptions::default() }).await;
    let url = cluster.create_database("kept").await;
    let (_backend, journal) = open(&url).await;
    let client = connect(&url).await.unwrap();
    let history = journal.history();
    let caught = {
        let history = history.clone();
        tokio::spawn(async move { keep(&history, "t", Some("x"), "1").await })
    };
    until_written(&client, 1).await;
    cluster.stop_immediately();
    let away = keep(&history, "t", Some("y"), "2").await.unwrap_err();
    assert_eq!((away.code, away.retryable), (ErrorCode::Unavailable, true), "it says so, and soon");
    cluster.restart().await;

    let node = Node::start(&journal);
    // until it is known that the database is back, it is refused at once
    let again =
        wait::until("the same message to be taken", async || keep(&history, "t", Some("x"), "1").await.ok())
            .await;
    assert_eq!((again.epoch, again.offset), (1, 1), "the number came after the restart");
    // it waited through all of it, unless the restart took longer than its patience
    match caught.await.unwrap() {
        Ok(position) => assert_eq!(position, again),
        Err(problem) => assert_eq!(problem.code, ErrorCode::Unavailable),
    }
    assert_eq!(keep(&history, "t", Some("y"), "2").await.unwrap().offset, 2);
    assert_eq!(read_all(&*history, "t", 100).await.len(), 2);
    node.stop().await;
}
