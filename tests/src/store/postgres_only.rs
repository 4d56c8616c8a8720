//! What only PostgreSQL has to promise: strangers' transactions, SQL callers, other processes, a server that goes away.

use super::fixture::*;
use super::postgres_sql::enqueue_by_sql;
use crate::support::postgres::{Cluster, ClusterOptions, Database, connect};
use crate::support::wait;
use minium_protocol::{EnqueueRequest, Phase, State};
use minium_queue::postgres::{PgOptions, PgStore};
use minium_queue::{Backend, Claim, Pull, QueueError, Store, UpkeepRules, Verdict, WorkerInfo};
use std::sync::Arc;
use std::time::Duration;

pub(super) fn postgres(f: &Fixture) -> Arc<PgStore> {
    match &f.backend {
        Backend::Postgres(store) => store.clone(),
        Backend::Sqlite(_) => panic!("this fixture is on PostgreSQL"),
    }
}

#[tokio::test]
async fn a_child_that_is_committed_after_its_parent_ended_is_released_by_upkeep() {
    let f = Fixture::postgres().await;
    let parent = f.running(plain()).await;
    let client = f.client().await;
    client.batch_execute("begin").await.unwrap();
    let child = enqueue_by_sql(&client, "child", &format!(r#"{{"parents":[{}]}}"#, parent.id)).await.unwrap();
    // the open transaction that names the parent holds nobody up
    wait::within("a finish beside an open transaction", f.accepted(finish(&parent, "1"))).await;
    client.batch_execute("commit").await.unwrap();
    // the look behind the finish has been before or behind this commit; upkeep comes for certain
    f.upkeep().await;
    assert_eq!(f.phase(child).await, Some(Phase::Ready));
    assert_eq!(f.upkeep().await.released, 0, "once");
    assert_eq!(f.claim_one().await.id, child);
}

#[tokio::test]
async fn a_child_that_is_enqueued_before_its_parents_end_is_committed_is_released_by_upkeep() {
    let f = Fixture::postgres().await;
    let parent = f.running(plain()).await;
    let client = f.client().await;
    client.batch_execute("begin").await.unwrap();
    // stands for a finish between its statement and its commit
    let end = "update minium.job set state = 'finished', finished = now() where id = $1";
    client.execute(end, &[&parent.id]).await.unwrap();
    let child = wait::within("an enqueue beside a finish", f.enqueue(after(&[parent.id]))).await;
    client.batch_execute("commit").await.unwrap();
    assert_eq!(f.phase(child).await, Some(Phase::Blocked), "the enqueue could not see the end");
    assert_eq!(f.upkeep().await.released, 1);
    assert_eq!(f.claim_one().await.id, child);
}

#[tokio::test]
async fn every_open_edge_is_looked_at_however_many_there_are() {
    let f = Fixture::postgres().await;
    let waiting = f.running(plain()).await;
    for _ in 0..5 {
        f.enqueue(after(&[waiting.id])).await;
    }
    let parent = f.running(plain()).await;
    let child = f.enqueue(after(&[parent.id])).await;
    let end = "update minium.job set state = 'finished', finished = now() where id = $1";
    f.client().await.execute(end, &[&parent.id]).await.unwrap();
    let rules = UpkeepRules { batch: 2, ..upkeep_rules() };
    let mut released = 0;
    for _ in 0..4 {
        released += f.store().upkeep(&rules).await.unwrap().released;
    }
    assert_eq!(released, 1);
    assert_eq!(f.claim_one().await.id, child);
}

#[tokio::test]
async fn what_was_committed_late_below_the_low_water_mark_is_claimed() {
    let f = Fixture::postgres().await;
    let client = f.client().await;
    client.batch_execute("begin").await.unwrap();
    let late = enqueue_by_sql(&client, "task", "{}").await.unwrap();
    f.store().enqueue(&vec![plain(); 6]).await.unwrap();
    // full claims leave a mark behind the job that nobody can see yet
    assert_eq!(f.claim(2).await.len(), 2);
    assert_eq!(f.claim(2).await.len(), 2);
    client.batch_execute("commit").await.unwrap();
    let mut claimed = ids(&f.claim(2).await);
    claimed.extend(ids(&f.claim(2).await));
    assert!(claimed.contains(&late), "{claimed:?} has {late}");
    f.nothing_to_claim().await;
}

/// Makes the database fail where the condition holds.
async fn sabotage(client: &tokio_postgres::Client, table: &str, event: &str, when: &str) {
    let sql = format!(
        "create function sabotage() returns trigger language plpgsql as $$ begin raise 'sabotage'; end $$;
         create trigger sabotage before {event} on minium.{table} for each row when ({when}) execute function sabotage()"
    );
    client.batch_execute(&sql).await.unwrap();
}

#[tokio::test]
async fn jobs_that_were_claimed_go_out_though_an_outcome_beside_them_could_not_be_judged() {
    let f = Fixture::postgres().await;
    let lost = f.running(plain()).await;
    f.store().cancel(lost.id).await.unwrap();
    let waiting = f.enqueue(plain()).await;
    let client = f.client().await;
    sabotage(&client, "entry", "insert", "new.type = 'task.late_result'").await;
    let late = [finish(&lost, "1")];
    let exchanged = f.store().exchange(&late, &claim(1)).await.unwrap();
    assert_eq!(ids(&exchanged.jobs), [waiting]);
    assert_eq!(exchanged.verdicts, [Verdict::Unjudged]);
    f.store().exchange(&late, &claim(0)).await.expect_err("nothing was claimed beside it");
    client.batch_execute("drop trigger sabotage on minium.entry").await.unwrap();
    assert_eq!(f.hand_in(&late).await, [Verdict::LeaseLost], "asked again, it is judged");
}

#[tokio::test]
async fn jobs_that_were_claimed_go_out_though_the_second_look_failed() {
    let f = Fixture::postgres().await;
    let client = f.client().await;
    client.batch_execute("begin").await.unwrap();
    let hidden = enqueue_by_sql(&client, "hidden", "{}").await.unwrap();
    f.store().enqueue(&vec![plain(); 3]).await.unwrap();
    // a full claim leaves a mark behind the job that nobody can see yet
    assert_eq!(f.claim(2).await.len(), 2);
    client.batch_execute("commit").await.unwrap();
    sabotage(&client, "job", "update", "new.task = 'hidden' and new.state = 'active'").await;
    let claimed = f.store().exchange(&[], &claim(2)).await.unwrap().jobs;
    assert_eq!(claimed.len(), 1, "what the first look found");
    client.batch_execute("drop trigger sabotage on minium.job").await.unwrap();
    assert_eq!(f.claim_one().await.id, hidden);
}

#[tokio::test]
async fn rust_enqueues_inside_of_the_callers_transaction() {
    let f = Fixture::postgres().await;
    let store = postgres(&f);
    let mut client = f.client().await;
    let transaction = client.transaction().await.unwrap();
    store.enqueue_in(&transaction, &[plain()]).await.unwrap();
    transaction.rollback().await.unwrap();
    f.wrote(&[]).await;
    f.nothing_to_claim().await;
    let transaction = client.transaction().await.unwrap();
    let both = store.enqueue_in(&transaction, &[plain(), keyed("k")]).await.unwrap();
    f.nothing_to_claim().await;
    transaction.commit().await.unwrap();
    f.wrote(&[(both[0].id, "task.enqueue"), (both[1].id, "task.enqueue")]).await;
    assert_eq!(ids(&f.claim(5).await), [both[0].id, both[1].id]);
    let bad = EnqueueRequest::new("a b", json("[]"));
    let refused = store.enqueue_in(&client, &[bad]).await;
    assert!(matches!(refused, Err(QueueError::Invalid(_))));
}

#[tokio::test]
async fn a_finish_is_a_hot_update() {
    let mut f = Fixture::postgres().await;
    let leased = f.running(plain()).await;
    f.accepted(finish(&leased, "1")).await;
    // sessions that end tell what they did; before PostgreSQL 15 those that idle keep it to themselves
    f.reopen().await;
    let client = f.client().await;
    let sql = "select n_tup_upd, n_tup_hot_upd from pg_stat_user_tables where schemaname = 'minium' and relname = 'job'";
    let hot = wait::until("statistics of both updates", async || {
        let row = client.query_one(sql, &[]).await.ok()?;
        (row.get::<_, i64>(0) == 2).then(|| row.get::<_, i64>(1))
    });
    assert_eq!(hot.await, 1, "the claim leaves the index of ready jobs, the finish touches no index");
}

/// How often an index was looked into, and how many entries were read there.
async fn index_use(client: &tokio_postgres::Client, index: &str) -> (i64, i64) {
    let sql = "select idx_scan, idx_tup_read from pg_stat_user_indexes where indexrelname = $1";
    let row = client.query_one(sql, &[&index]).await.unwrap();
    (row.get(0), row.get(1))
}

#[tokio::test]
async fn pulling_single_tasks_reads_nothing_of_the_others() {
    let f = Fixture::postgres().await;
    f.store().enqueue(&vec![EnqueueRequest::new("foreign", json("[]")); 5_000]).await.unwrap();
    let pull = |task: String| Pull {
        queue: "default".into(),
        tasks: vec![task],
        lease: LEASE,
        workers: vec![worker()],
    };
    let pulls: Vec<_> = (0..100).map(|n| pull(format!("livesys/{n}"))).collect();
    f.enqueue(EnqueueRequest::new("livesys/7", json("[]"))).await;
    let puller = f.second().await;
    for expected in [1, 0, 0] {
        assert_eq!(puller.pull(&pulls).await.unwrap().len(), expected);
    }
    // sessions that end tell what they did; before PostgreSQL 15 those that idle keep it to themselves
    drop(puller);
    let client = f.client().await;
    let (looks, read) = wait::until("statistics of three rounds", async || {
        let (looks, read) = index_use(&client, "job_ready_task").await;
        (looks >= 300).then_some((looks, read))
    })
    .await;
    assert_eq!(looks, 300, "one look for each task");
    assert!(read <= 3, "{read} entries were read where one job was ready");
    assert_eq!(index_use(&client, "job_ready").await, (0, 0));
}

#[tokio::test]
async fn figures_are_what_counting_would_find_whatever_happened() {
    let f = Fixture::postgres().await;
    f.store().enqueue(&vec![plain(); 60]).await.unwrap();
    for (i, leased) in f.claim(50).await.iter().enumerate() {
        match i % 4 {
            0 => f.accepted(finish(leased, "1")).await,
            1 => f.accepted(fail(leased, "no")).await,
            2 => f.store().cancel(leased.id).await.unwrap(),
            _ => {}
        }
    }
    // each operation has left a row
    f.upkeep().await;
    let client = f.client().await;
    let rows: i64 = client.query_one("select count(*) from minium.tally", &[]).await.unwrap().get(0);
    assert_eq!(rows, 1, "upkeep has added them up");
    let sql = "select count(*) filter (where state = 'inactive'), count(*) filter (where state = 'active'),
                      count(*) filter (where state = 'finished'), count(*) filter (where state = 'failed'),
                      count(*) filter (where state = 'cancelled') from minium.job";
    let row = client.query_one(sql, &[]).await.unwrap();
    let stats = f.store().stats().await.unwrap();
    let counted: Vec<i64> = (0..5).map(|i| row.get(i)).collect();
    assert_eq!(counted, [stats.inactive, stats.active, stats.finished, stats.failed, stats.cancelled]);
}

#[tokio::test]
async fn another_process_wakes_a_worker_that_waits() {
    let f = Fixture::postgres().await;
    let other = f.second().await;
    let mut wakeups = f.store().wakeups();
    // the claim that got nothing has told the database that somebody waits
    f.nothing_to_claim().await;
    let client = f.client().await;
    wait::until("the connection that listens", async || {
        let sql = "select count(*) from pg_stat_activity where datname = current_database() and query like 'listen%'";
        let listening: i64 = client.query_one(sql, &[]).await.ok()?.get(0);
        (listening >= 2).then_some(())
    })
    .await;
    wakeups.mark_unchanged();
    other.enqueue(&[plain()]).await.unwrap();
    wait::within("a wake-up through the database", wakeups.changed()).await.unwrap();
    assert_eq!(f.claim(1).await.len(), 1);
}

#[tokio::test]
async fn a_busy_queue_sends_no_notification() {
    let f = Fixture::postgres().await;
    let client = f.client().await;
    let sql = "update minium.wake set armed = false, until = '-infinity'";
    client.batch_execute(sql).await.unwrap();
    let asked = "select until > now() from minium.wake where name = 'jobs'";
    f.store().enqueue(&vec![plain(); 4]).await.unwrap();
    assert_eq!(f.claim(2).await.len(), 2);
    assert!(!client.query_one(asked, &[]).await.unwrap().get::<_, bool>(0), "it got all it asked for");
    assert_eq!(f.claim(5).await.len(), 2);
    assert!(client.query_one(asked, &[]).await.unwrap().get::<_, bool>(0), "now it waits");
}

#[tokio::test]
async fn leases_have_their_grace_anew_after_a_failover() {
    let f = Fixture::postgres().await;
    let leased = f.running(with(|o| o.attempts = 2)).await;
    f.pass(LEASE).await;
    let client = f.client().await;
    // what the table says of a server that has been up for long, on the timeline before the failover
    let long_up = "update minium.server set timeline = timeline - 1, since = now() - interval '1 day'";
    client.batch_execute(long_up).await.unwrap();
    let rules = UpkeepRules { grace: Duration::from_secs(60), ..upkeep_rules() };
    assert_eq!(f.store().upkeep(&rules).await.unwrap().rescued, 0, "the grace begins with the failover");
    client.batch_execute("update minium.server set since = since - interval '2 minutes'").await.unwrap();
    assert_eq!(f.store().upkeep(&rules).await.unwrap().rescued, 1);
    assert_eq!(f.claim_one().await.id, leased.id);
}

#[tokio::test]
async fn a_server_that_was_away_is_unavailable_and_then_whole_again() {
    let mut cluster = Cluster::start(ClusterOptions::default()).await;
    let url = cluster.create_database("queue").await;
    let options = PgOptions { connect_timeout: Duration::from_secs(2), ..PgOptions::default() };
    let store = PgStore::open(&url, options).unwrap();
    store.migrate().await.unwrap();
    let before = store.enqueue(&[plain()]).await.unwrap()[0].id;
    cluster.kill();
    // the postmaster's children end by themselves a moment later
    let gone = wait::until("the server to be gone", async || store.ping().await.err()).await;
    assert!(matches!(gone, QueueError::Unavailable { .. }), "{gone:?}");
    let refused = store.enqueue(&[plain()]).await.unwrap_err();
    assert!(matches!(refused, QueueError::Unavailable { .. }), "{refused:?}");
    assert!(matches!(store.ping().await, Err(QueueError::Unavailable { .. })));
    // a store may be opened while its database is away
    let early = PgStore::open(&url, PgOptions::default()).unwrap();
    assert!(matches!(early.ping().await, Err(QueueError::Unavailable { .. })));
    cluster.restart().await;
    wait::until("the store to be whole again", async || store.ping().await.ok()).await;
    wait::until("the early store to be whole", async || early.ping().await.ok()).await;
    let claimed = store.exchange(&[], &claim(1)).await.unwrap();
    assert_eq!(ids(&claimed.jobs), [before], "what was answered is kept");
    // leases that ran through the outage are not given away before their grace
    let client = connect(&url).await.unwrap();
    let pass = "update minium.job set lease_until = lease_until - interval '1 day'";
    client.batch_execute(pass).await.unwrap();
    let rules = UpkeepRules { grace: Duration::from_secs(3_600), ..upkeep_rules() };
    assert_eq!(store.upkeep(&rules).await.unwrap().rescued, 0);
    assert_eq!(store.upkeep(&upkeep_rules()).await.unwrap().rescued, 1);
}

#[tokio::test]
async fn a_connection_that_was_ended_costs_one_error_at_most() {
    let f = Fixture::postgres().await;
    f.enqueue(plain()).await;
    let end = "select pg_terminate_backend(pid) from pg_stat_activity
                where datname = current_database() and pid <> pg_backend_pid()";
    f.client().await.batch_execute(end).await.unwrap();
    if let Err(error) = f.store().ping().await {
        assert!(matches!(error, QueueError::Unavailable { .. }), "{error:?}");
    }
    wait::until("a connection", async || f.store().ping().await.ok()).await;
    assert_eq!(f.claim(1).await.len(), 1);
}

#[tokio::test]
async fn a_database_that_nobody_migrated_says_so() {
    let database = Database::create().await;
    let store = PgStore::open(database.url(), PgOptions { listen: false, ..PgOptions::default() }).unwrap();
    let error = store.enqueue(&[plain()]).await.unwrap_err();
    assert!(matches!(&error, QueueError::Schema(words) if words.contains("migrate")), "{error:?}");
    assert!(store.migration_status().await.unwrap().iter().all(|m| m.applied.is_none()));
    assert!(!store.pending_sql().await.unwrap().is_empty());
}

#[tokio::test]
async fn children_that_share_parents_do_not_lock_each_other_out() {
    const PARENTS: usize = 12;
    let f = Fixture::postgres().await;
    f.store().enqueue(&vec![plain(); PARENTS]).await.unwrap();
    let parents = f.claim(PARENTS as u32).await;
    let all: Vec<i64> = ids(&parents);
    let children = f.store().enqueue(&vec![after(&all); 20]).await.unwrap();
    // everybody ends one parent of all children at once
    let mut ends = tokio::task::JoinSet::new();
    for parent in parents {
        let store = f.shared();
        ends.spawn(async move { store.exchange(&[finish(&parent, "1")], &claim(0)).await.unwrap().verdicts });
    }
    let verdicts = ends.join_all().await;
    assert!(verdicts.iter().all(|v| *v == [minium_queue::Verdict::Accepted]));
    let expected: Vec<i64> = children.iter().map(|c| c.id).collect();
    assert_eq!(ids(&f.claim(100).await), expected);
}

#[tokio::test]
async fn every_job_runs_once_however_many_claim() {
    const JOBS: usize = 600;
    let f = Fixture::postgres().await;
    f.store().enqueue(&vec![plain(); JOBS]).await.unwrap();
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let (store, worker) =
            (f.shared(), f.store().register_worker(&WorkerInfo::new("h", 1)).await.unwrap());
        workers.spawn(async move {
            let claim = Claim { worker, ..claim(7) };
            let (mut outcomes, mut ran) = (Vec::new(), Vec::new());
            loop {
                let exchanged = store.exchange(&outcomes, &claim).await.unwrap();
                assert!(exchanged.verdicts.iter().all(|v| *v == minium_queue::Verdict::Accepted));
                if exchanged.jobs.is_empty() {
                    return ran;
                }
                outcomes = exchanged.jobs.iter().map(|job| finish(job, "1")).collect();
                ran.extend(ids(&exchanged.jobs));
            }
        });
    }
    let mut ran: Vec<i64> = workers.join_all().await.into_iter().flatten().collect();
    ran.sort_unstable();
    ran.dedup();
    assert_eq!(ran.len(), JOBS);
    let stats = f.store().stats().await.unwrap();
    assert_eq!((stats.finished, stats.active, stats.inactive), (JOBS as i64, 0, 0));
    assert_eq!(f.entries().await.len(), 3 * JOBS);
    assert!(f.job(ran[0]).await.state == State::Finished);
}

/// PostgreSQL cannot look into some JSON that it keeps; of such arguments nothing is shown, and the worker has them.
#[tokio::test]
async fn arguments_that_cannot_be_looked_into_are_hidden_whole() {
    let f = Fixture::postgres().await;
    let mask = minium_queue::ArgsMask { task: "t".into(), paths: vec![vec!["1".into()]] };
    f.store().put_masks(&[mask]).await.unwrap();
    let args = r#"["\u0000","secret"]"#;
    let leased = f.running(EnqueueRequest::new("t", json(args))).await;
    assert_eq!(leased.args.get(), args);
    assert_eq!(f.job(leased.id).await.args.get(), r#""***""#);
    // of a task without a mask they are shown
    let id = f.enqueue(EnqueueRequest::new("u", json(r#"["\u0000"]"#))).await;
    assert_eq!(f.job(id).await.args.get(), r#"["\u0000"]"#);
}
