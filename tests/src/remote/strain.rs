//! Many pullers, and a database that goes away.

use super::desk::{Client, Desk, LEASE, of, options, snapshot};
use super::on_each_store;
use crate::store::fixture::Fixture;
use crate::support::postgres::{Cluster, ClusterOptions};
use crate::support::wait;
use minium_bus::Said;
use minium_notifier::WorkOptions;
use minium_protocol::ErrorCode;
use minium_queue::Backend;
use minium_queue::postgres::PgOptions;
use std::sync::atomic::Ordering;
use std::time::Duration;

on_each_store! {
    a_thousand_images_cost_a_bounded_number_of_claims
    a_poll_finds_what_nobody_was_woken_for
    what_one_puller_asks_for_keeps_no_jobs_from_others
}

fn pulls(desk: &Desk) -> usize {
    desk.calls.pulls.load(Ordering::SeqCst)
}

/// Waits until nobody is looked for any more: the last claim that is to come has been made.
async fn settled(desk: &Desk, f: &Fixture, probe: &mut Client) {
    // one claim is under way at a time, and this puller stands behind all others in the queue
    let id = f.enqueue(of("probe")).await;
    probe.credit(1);
    assert_eq!(probe.job().await.id, id);
    assert!(pulls(desk) > 0);
}

async fn a_thousand_images_cost_a_bounded_number_of_claims(f: Fixture) {
    let desk = Desk::of(&f);
    let tasks: Vec<String> = (0..1_000).map(|n| format!("livesys/{n}")).collect();
    let mut images: Vec<Client> = tasks.iter().map(|task| desk.puller(task, &[task], 10)).collect();
    let mut probe = desk.puller("probe", &["probe"], 0);
    settled(&desk, &f, &mut probe).await;

    let before = pulls(&desk);
    let id = f.enqueue(of("livesys/700")).await;
    assert_eq!(images[700].job().await.id, id);
    settled(&desk, &f, &mut probe).await;
    let cost = pulls(&desk) - before;
    assert!(cost <= 10, "one job for one of a thousand images cost {cost} claims");

    let before = pulls(&desk);
    f.store().enqueue(&tasks.iter().map(|task| of(task)).collect::<Vec<_>>()).await.unwrap();
    for (image, task) in images.iter_mut().zip(&tasks) {
        let job = image.job().await;
        assert_eq!(job.task.as_str(), task);
        assert_eq!(snapshot(&job).worker.unwrap().host, *task);
    }
    settled(&desk, &f, &mut probe).await;
    let cost = pulls(&desk) - before;
    assert!(cost <= 20, "a job for each of a thousand images cost {cost} claims");
    desk.close().await;
}

async fn a_poll_finds_what_nobody_was_woken_for(f: Fixture) {
    let desk = Desk::deaf(&f, WorkOptions { poll: Duration::from_millis(20), ..options() });
    let mut puller = desk.puller("p", &["t"], 1);
    let looked = || desk.calls.pulled.load(Ordering::SeqCst) > 0;
    wait::until("a look in vain", async || looked().then_some(())).await;
    let id = f.enqueue(of("t")).await;
    assert_eq!(puller.job().await.id, id);
    desk.close().await;
}

/// Sockets check the names of queues; what the store refuses for whatever reason is whose it is all the same.
async fn what_one_puller_asks_for_keeps_no_jobs_from_others(f: Fixture) {
    let desk = Desk::of(&f);
    let ids = f.store().enqueue(&[of("t"), of("t")]).await.unwrap();
    let mut bad = desk.puller_of("bad", Some("a\0b"), &["t"], 5, LEASE);
    let mut good = desk.puller("good", &["t"], 2);
    for enqueued in ids {
        assert_eq!(good.job().await.id, enqueued.id);
    }
    bad.credit(5);
    good.credit(1);
    let id = f.enqueue(of("t")).await;
    assert_eq!(good.job().await.id, id);
    assert!(bad.try_job().is_none());
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_goes_away_is_waited_for() {
    let mut cluster = Cluster::start(ClusterOptions { fsync: false, ..ClusterOptions::default() }).await;
    let url = cluster.create_database("work").await;
    let quick = PgOptions { connections: 4, wait_timeout: Duration::from_secs(1), ..PgOptions::default() };
    let backend = Backend::open_postgres(&url, quick).unwrap();
    backend.migrate().await.unwrap();
    let desk = Desk::on(backend.store(), WorkOptions { poll: Duration::from_millis(50), ..options() });
    let mut puller = desk.puller("p", &["t"], 2);
    let first = desk.push("t", "[1]").await.unwrap();
    let job = puller.job().await;
    assert_eq!(job.id, first);
    cluster.stop_immediately();
    let problem = desk.push("t", "[2]").await.unwrap_err();
    assert_eq!((problem.code, problem.retryable), (ErrorCode::Unavailable, true));
    assert_eq!(desk.ack(&job, "1").await, Err(ErrorCode::Unavailable), "it may be said again");
    cluster.restart().await;
    let second = wait::until("the database", async || desk.push("t", "[2]").await.ok()).await;
    assert_eq!(puller.job().await.id, second, "its credit was not lost");
    assert_eq!(desk.ack(&job, "1").await, Ok(Said::Done));
    desk.close().await;
}
