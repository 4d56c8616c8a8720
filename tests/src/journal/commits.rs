//! The order of commits is not the order of numbers drawn: writers that draw early and commit late, roll back, hold
//! transactions open. Nothing may be lost, inverted for one job, or held up by a stranger.

use super::{Fixture, Node, assert_dense, read_all};
use crate::support::wait;
use fastrand::Rng;
use minium_protocol::CloudEvent;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

const WRITERS: u64 = 10;
const JOBS: i64 = 12;
const TRANSACTIONS: usize = 60;

/// A job's version as an event tells it.
type Seen = (i64, i64);

/// The one check for every reader: for each job exactly its committed versions, 1, 2, 3, …, in this order. Rolled back
/// versions are given again, so a reader that lost, doubled or inverted one cannot pass.
fn judge(seen: &[Seen], truth: &BTreeMap<i64, i64>) -> Result<(), String> {
    let mut versions: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for (job, version) in seen {
        versions.entry(*job).or_default().push(*version);
    }
    for (job, last) in truth {
        let got = versions.remove(job).unwrap_or_default();
        let due: Vec<i64> = (1..=*last).collect();
        if got != due {
            return Err(format!("job {job}: {} events are due, in order; got {got:?}", due.len()));
        }
    }
    if versions.is_empty() { Ok(()) } else { Err(format!("events that never were: {versions:?}")) }
}

/// Writes new versions of some jobs and their events in one statement, as the queue does.
async fn change(client: &Client, jobs: &[i64]) -> Result<(), tokio_postgres::Error> {
    let sql = "with picked as (select id from thing where id = any ($1) order by id for update),
                    changed as (update thing set version = version + 1 where id in (select id from picked)
                                returning id, version)
               insert into minium.entry (topic, type, subject, data)
               select 'task/t/' || id, 'task.changed', id::text, json_build_object('id', id, 'version', version)
                 from changed order by id";
    client.execute(sql, &[&jobs]).await.map(drop)
}

async fn pause(rng: &mut Rng, max_ms: u64) {
    tokio::time::sleep(Duration::from_micros(rng.u64(0..=max_ms * 1_000))).await;
}

/// One writer: early transaction ids, sub-transactions that are rolled back, delays, and one rollback in five.
async fn writer(client: Client, mut rng: Rng) {
    for _ in 0..TRANSACTIONS {
        let mut jobs = [rng.i64(1..=JOBS), rng.i64(1..=JOBS)].to_vec();
        jobs.truncate(rng.usize(1..=2));
        client.batch_execute("begin").await.unwrap();
        if rng.bool() {
            client.batch_execute("select pg_current_xact_id()").await.unwrap();
            pause(&mut rng, 6).await;
        }
        let work = async {
            if rng.u8(0..3) == 0 {
                client.batch_execute("savepoint s").await?;
                change(&client, &jobs).await?;
                client.batch_execute("rollback to s").await?;
            }
            if rng.u8(0..3) == 0 {
                client.batch_execute("savepoint s").await?;
            }
            change(&client, &jobs).await?;
            pause(&mut rng, 8).await;
            if rng.u8(0..4) == 0 {
                change(&client, &jobs[..1]).await?;
            }
            Ok::<(), tokio_postgres::Error>(())
        };
        // two writers may lock each other out; the loser's work never was
        let kept = work.await.is_ok() && rng.u8(0..5) > 0;
        client.batch_execute(if kept { "commit" } else { "rollback" }).await.unwrap();
    }
}

/// The reader that everybody writes first. It must fail the check that ours passes.
async fn naive(client: Client, done: CancellationToken) -> Vec<Seen> {
    let mut last = 0_i64;
    let mut seen = Vec::new();
    loop {
        let ending = done.is_cancelled();
        let sql = "select seq, data from minium.entry where seq > $1 order by seq";
        for row in client.query(sql, &[&last]).await.unwrap() {
            last = row.get(0);
            seen.push(seen_in(&row.get::<_, Value>(1)));
        }
        if ending {
            return seen;
        }
        tokio::task::yield_now().await;
    }
}

fn seen_in(data: &Value) -> Seen {
    (data["id"].as_i64().unwrap(), data["version"].as_i64().unwrap())
}

fn seen_by(event: &[u8]) -> Seen {
    let event: CloudEvent = serde_json::from_slice(event).unwrap();
    seen_in(&serde_json::from_str(event.data.unwrap().get()).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_event_is_lost_inverted_or_held_up_whatever_the_order_of_commits() {
    let seed = std::env::var("MINIUM_TEST_SEED").ok().and_then(|s| s.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| fastrand::u64(..));
    eprintln!("MINIUM_TEST_SEED={seed}");
    let fixture = Fixture::new().await;
    let admin = fixture.client().await;
    let tables = format!(
        "create table thing (id bigint primary key, version bigint not null default 0);
         insert into thing select generate_series(1, {JOBS} + 1);
         create table scratch (n int)"
    );
    admin.batch_execute(&tables).await.unwrap();
    let node = Node::start(&fixture.journal);
    node.begun().await;

    // a stranger with a transaction id of its own, and one of ours that drew the first numbers and commits last
    let stranger = fixture.client().await;
    stranger.batch_execute("begin; insert into scratch values (1)").await.unwrap();
    let slow = fixture.client().await;
    slow.batch_execute("begin").await.unwrap();
    change(&slow, &[JOBS + 1]).await.unwrap();

    let done = CancellationToken::new();
    let planted = tokio::spawn(naive(fixture.client().await, done.clone()));
    let mut writers = JoinSet::new();
    for n in 0..WRITERS {
        writers.spawn(writer(fixture.client().await, Rng::with_seed(seed.wrapping_add(n))));
    }
    wait::within("the writers", writers.join_all()).await;

    // both transactions are still open: all others' events get through
    let count: i64 = admin.query_one("select count(*) from minium.entry", &[]).await.unwrap().get(0);
    assert!(count > 300, "the writers wrote something: {count}");
    node.relayed(count as u64).await;
    slow.batch_execute("commit").await.unwrap();
    node.relayed(count as u64 + 1).await;
    stranger.batch_execute("rollback").await.unwrap();
    done.cancel();
    let naive_saw = wait::within("the planted reader", planted).await.unwrap();

    let rows = admin.query("select id, version from thing", &[]).await.unwrap();
    let truth: BTreeMap<i64, i64> = rows.iter().map(|r| (r.get(0), r.get(1))).collect();
    assert_dense(&admin).await;
    let relayed = read_all(&*fixture.journal.history(), "task", 100).await;
    let offsets: Vec<u64> = relayed.iter().map(|r| r.position.offset).collect();
    assert_eq!(offsets, (1..=count as u64 + 1).collect::<Vec<_>>());
    let seen: Vec<Seen> = relayed.iter().map(|r| seen_by(&r.event)).collect();
    judge(&seen, &truth).unwrap();
    assert_eq!(seen.last(), Some(&(JOBS + 1, 1)), "who committed last comes last, whatever number it drew");

    let fault = judge(&naive_saw, &truth).expect_err("a reader of `id > last` must fail this check");
    eprintln!("the planted reader failed as it must: {} of {} events; {fault}", naive_saw.len(), seen.len());
    assert!(naive_saw.len() < seen.len(), "it lost events");
    node.stop().await;
}

#[test]
fn the_check_itself_finds_each_kind_of_fault() {
    let truth = BTreeMap::from([(1, 2), (2, 1)]);
    assert_eq!(judge(&[(1, 1), (2, 1), (1, 2)], &truth), Ok(()));
    for (fault, seen) in [
        ("lost", vec![(1, 1), (2, 1)]),
        ("inverted", vec![(1, 2), (1, 1), (2, 1)]),
        ("doubled", vec![(1, 1), (1, 1), (1, 2), (2, 1)]),
        ("invented", vec![(1, 1), (1, 2), (2, 1), (3, 1)]),
    ] {
        assert!(judge(&seen, &truth).is_err(), "{fault}");
    }
}
