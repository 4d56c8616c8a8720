//! What is let go: the oldest first, in batches, only what has an offset. And the partitions of the days.

use super::{Fixture, Node, everything, number_all, offsets, write};
use crate::support::wait;
use minium_notifier::{Policy, RelayOptions, Retention, Retentions};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

/// One step of letting go, of what belongs to no channel, after everything was counted.
async fn trim(client: &Client, before: &str, count: i64, batch: i32) -> i32 {
    trim_to(client, before, count, batch, i64::MAX).await
}

async fn trim_to(client: &Client, before: &str, count: i64, batch: i32, to: i64) -> i32 {
    client.execute("select minium.journal_count(1000)", &[]).await.unwrap();
    let sql =
        format!("select gone from minium.journal_trim('', {before}, $1, 1000000000, 'infinity', $3, $2)");
    let gone = client.query_one(&sql, &[&count, &batch, &to]).await.unwrap().get(0);
    client.execute("select minium.journal_sweep()", &[]).await.unwrap();
    gone
}

/// As if it were noon, so that the test does not depend on when it runs.
const NOON: &str = "(date_trunc('day', now(), 'UTC') + interval '12 hours')";

async fn days(client: &Client, ahead: i32, before: &str) -> (i32, i32) {
    let sql = format!("select * from minium.journal_days($1, {before}, {NOON})");
    let row = client.query_one(&sql, &[&ahead]).await.unwrap();
    (row.get(0), row.get(1))
}

async fn count(client: &Client, sql: &str) -> i64 {
    client.query_one(&format!("select count(*) from {sql}"), &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_running_node_keeps_so_many_entries() {
    let fixture = Fixture::new().await;
    let client = fixture.client().await;
    let others = Retention { count: 25, ..Retention::default() };
    let options = RelayOptions {
        retention: Some(Retentions::new(Policy { others, ..Policy::default() })),
        retention_interval: Duration::from_millis(20),
        retention_batch: 10,
        ..RelayOptions::default()
    };
    let node = Node::start_with(&fixture.journal, options);
    node.begun().await;
    for n in 0..10 {
        write(&client, &(n..n + 10).collect::<Vec<_>>(), "task.enqueue").await;
    }
    node.relayed(100).await;
    let history = fixture.journal.history();
    wait::until("the oldest to be let go", async || {
        (history.bounds(&everything()).await.unwrap().first == 76).then_some(())
    })
    .await;
    assert_eq!(offsets(&client).await, (76..=100).collect::<Vec<_>>());
    assert_eq!(count(&client, "minium.entry").await, 25);
    node.stop().await;
}

#[tokio::test]
async fn age_and_count_let_go_in_batches_and_never_of_what_has_no_offset() {
    let fixture = Fixture::new().await;
    let client = fixture.client().await;
    write(&client, &(0..30).collect::<Vec<_>>(), "task.enqueue").await;
    number_all(&client).await;
    client
        .batch_execute(
            "update minium.entry set at = at - interval '40 days' where subject::int < 12;
        update minium.entry_offset o set at = e.at from minium.entry e where e.seq = o.seq",
        )
        .await
        .unwrap();
    write(&client, &[100], "task.enqueue").await; // not numbered yet
    let before = "now() - interval '30 days'";
    assert_eq!(trim_to(&client, before, 1_000, 5, 3).await, 3, "nothing that this node has not relayed");
    assert_eq!(trim_to(&client, before, 1_000, 5, 3).await, 0);
    assert_eq!(trim(&client, before, 1_000, 2).await, 2);
    assert_eq!(trim(&client, before, 1_000, 5).await, 5);
    assert_eq!(trim(&client, before, 1_000, 5).await, 2, "what is young enough stays");
    assert_eq!(trim(&client, before, 1_000, 5).await, 0);
    assert_eq!(offsets(&client).await, (13..=30).collect::<Vec<_>>());
    assert_eq!(trim(&client, "now() + interval '1 day'", 0, 100).await, 18);
    assert_eq!(offsets(&client).await, [0_i64; 0]);
    assert_eq!(count(&client, "minium.entry").await, 1, "the one without an offset is kept");
    let history = fixture.journal.history();
    let bounds = history.bounds(&everything()).await.unwrap();
    assert_eq!((bounds.first, bounds.last), (31, 30), "empty");
    number_all(&client).await;
    assert_eq!(offsets(&client).await, [31]);
}

#[tokio::test]
async fn an_entry_stays_behind_an_older_one_that_is_kept() {
    // a long transaction: its entry is older than others that were numbered before it
    let fixture = Fixture::new().await;
    let client = fixture.client().await;
    write(&client, &[1, 2, 3], "task.enqueue").await;
    number_all(&client).await;
    client
        .batch_execute(
            "update minium.entry set at = at - interval '40 days' where subject = '2';
        update minium.entry_offset o set at = e.at from minium.entry e where e.seq = o.seq",
        )
        .await
        .unwrap();
    assert_eq!(trim(&client, "now() - interval '30 days'", 1_000, 10).await, 0);
    assert_eq!(offsets(&client).await, [1, 2, 3], "what is kept has no holes");
}

#[tokio::test]
async fn days_are_made_ahead_and_dropped_when_they_are_empty() {
    let fixture = Fixture::new().await;
    let client = fixture.client().await;
    let far = "now() - interval '30 days'";
    assert_eq!(days(&client, 3, far).await, (3, 0), "the days to come; today stays in the DEFAULT partition");
    assert_eq!(days(&client, 3, far).await, (0, 0), "once");
    write(&client, &[1], "task.enqueue").await;
    let tomorrow = format!(
        "insert into minium.entry (at, topic, type, subject, data)
         values ({NOON} + interval '1 day', 'task/t/2', 'task.enqueue', '2', '{{}}')"
    );
    client.batch_execute(&tomorrow).await.unwrap();
    number_all(&client).await;
    assert_eq!(count(&client, "minium.entry_default").await, 1);
    assert_eq!(count(&client, "minium.journal").await, 2);

    // as if a week had gone by
    let later = "now() + interval '7 days'";
    let mut gone = 0;
    for _ in 0..4 {
        gone += days(&client, 0, later).await.1;
    }
    assert_eq!(gone, 2, "one at a time, and the day that has an entry stays");
    assert_eq!(trim(&client, later, 0, 100).await, 2);
    assert_eq!(days(&client, 0, later).await, (0, 1), "now that one as well");
    client.batch_execute(&tomorrow).await.unwrap();
    number_all(&client).await;
    assert_eq!(offsets(&client).await, [3], "a missing partition fails nothing");
}

#[tokio::test]
async fn a_day_that_has_begun_in_the_default_partition_stays_there() {
    let fixture = Fixture::new().await;
    let client = fixture.client().await;
    let tomorrow = format!(
        "insert into minium.entry (at, topic, type, subject, data)
         values ({NOON} + interval '1 day', 'task/t/2', 'task.enqueue', '2', '{{}}')"
    );
    client.batch_execute(&tomorrow).await.unwrap();
    assert_eq!(days(&client, 2, "now() - interval '30 days'").await, (1, 0));
    client.batch_execute(&tomorrow).await.unwrap();
    assert_eq!(count(&client, "minium.entry_default").await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn making_days_never_fails_a_writer() {
    let fixture = Fixture::new().await;
    let (tender, done) = (fixture.client().await, CancellationToken::new());
    let mut writers = JoinSet::new();
    for n in 0..4 {
        let (client, done) = (fixture.client().await, done.clone());
        writers.spawn(async move {
            while !done.is_cancelled() {
                write(&client, &[n], "task.enqueue").await;
            }
        });
    }
    for ahead in 1..=20 {
        wait::until("a day to be made", async || {
            days(&tender, ahead, "'-infinity'").await;
            let sql = "pg_inherits where inhparent = 'minium.entry'::regclass";
            (count(&tender, sql).await == i64::from(ahead) + 1).then_some(())
        })
        .await;
    }
    done.cancel();
    wait::within("the writers", writers.join_all()).await;
}

#[tokio::test]
async fn a_day_into_which_a_transaction_still_writes_is_not_dropped() {
    let fixture = Fixture::new().await;
    let (client, slow) = (fixture.client().await, fixture.client().await);
    assert_eq!(days(&client, 1, "'-infinity'").await, (1, 0));
    let tomorrow = format!(
        "begin; insert into minium.entry (at, topic, type, subject, data)
         values ({NOON} + interval '1 day', 'task/t/1', 'task.enqueue', '1', '{{}}')"
    );
    slow.batch_execute(&tomorrow).await.unwrap();
    let later = "now() + interval '9 days'";
    assert_eq!(days(&client, 0, later).await, (0, 0), "it looks empty, but is locked");
    slow.batch_execute("commit").await.unwrap();
    assert_eq!(days(&client, 0, later).await, (0, 0), "it is not empty");
    number_all(&client).await;
    assert_eq!(offsets(&client).await, [1]);
}
