//! The register of workers: who there is, how they fare, and what they are told.

use crate::store::fixture::*;
use crate::support::wait;
use minium_queue::{
    COMMAND_KEPT, Command, INBOX_MAX, JobSignal, KIND_OWN, QueueError, STALE_AFTER, WorkerFilter, WorkerInfo,
    WorkerState, WorkerStatus, WorkerView,
};
use std::time::Duration;

async fn register(f: &Fixture, pid: u32) -> i64 {
    f.store().register_worker(&WorkerInfo::new("rack3", pid)).await.unwrap().id
}

async fn all(f: &Fixture) -> Vec<WorkerView> {
    f.store().workers(&WorkerFilter::default()).await.unwrap().workers
}

fn busy() -> WorkerStatus {
    WorkerStatus { running: 2, jobs: vec![3, 5], performed: 9, ..WorkerStatus::default() }
}

pub(crate) async fn a_worker_is_shown_as_it_said(f: &Fixture) {
    let status = WorkerStatus {
        queues: vec!["a".into(), "b".into()],
        tasks: vec!["t".into()],
        concurrency: 4,
        spare: 1,
        spare_min_priority: 7,
        limits: [("t".to_owned(), 2)].into(),
        paused: true,
        ..busy()
    };
    let info = WorkerInfo {
        kind: "other".into(),
        version: "1.2".into(),
        status: status.clone(),
        ..WorkerInfo::new("rack3", 411)
    };
    let id = f.store().register_worker(&info).await.unwrap().id;
    let [shown] = &all(f).await[..] else { panic!("one worker") };
    assert_eq!((shown.id, shown.host.as_str(), shown.pid), (id, "rack3", 411));
    assert_eq!((shown.kind.as_str(), shown.version.as_str()), ("other", "1.2"));
    assert_eq!((shown.state, &shown.status), (WorkerState::Processing, &status));
    assert_eq!(shown.started, shown.heartbeat);
    let idle = WorkerStatus::default();
    f.store().heartbeat(id, &idle).await.unwrap();
    let [shown] = &all(f).await[..] else { panic!("one worker") };
    assert_eq!((shown.state, &shown.status), (WorkerState::Idle, &idle));
    assert!(shown.heartbeat > shown.started);
}

pub(crate) async fn a_worker_that_is_not_heard_of_is_stale_until_it_is_forgotten(f: &Fixture) {
    let gone = register(f, 1).await;
    f.store().heartbeat(gone, &busy()).await.unwrap();
    f.pass(STALE_AFTER + seconds(1)).await;
    let (idle, working) = (register(f, 2).await, register(f, 3).await);
    f.store().heartbeat(working, &busy()).await.unwrap();
    let states: Vec<_> = all(f).await.iter().map(|w| (w.id, w.state)).collect();
    let expected =
        [(working, WorkerState::Processing), (idle, WorkerState::Idle), (gone, WorkerState::Stale)];
    assert_eq!(states, expected, "the newest first");
    let stats = f.store().stats().await.unwrap();
    assert_eq!(
        (stats.workers, stats.active_workers, stats.inactive_workers, stats.stale_workers),
        (2, 1, 1, 1)
    );
    f.store().heartbeat(gone, &busy()).await.unwrap();
    assert_eq!(f.store().stats().await.unwrap().active_workers, 2, "it was only slow");
    f.pass(Duration::from_secs(31 * 60)).await;
    f.upkeep().await;
    assert!(all(f).await.is_empty());
    assert_eq!(f.store().stats().await.unwrap().stale_workers, 0);
}

pub(crate) async fn workers_for_a_nodes_own_tasks_are_counted_apart(f: &Fixture) {
    let own = WorkerInfo { kind: KIND_OWN.into(), ..WorkerInfo::new("rack3", 1) };
    let id = f.store().register_worker(&own).await.unwrap().id;
    let figures = async || {
        let s = f.store().stats().await.unwrap();
        (s.workers, s.active_workers, s.inactive_workers, s.stale_workers, s.own_workers)
    };
    assert_eq!(figures().await, (0, 0, 0, 0, 1));
    f.store().heartbeat(id, &busy()).await.unwrap();
    register(f, 2).await;
    assert_eq!(figures().await, (1, 0, 1, 0, 1));
    f.pass(STALE_AFTER + seconds(1)).await;
    assert_eq!(figures().await, (0, 0, 0, 1, 0));
}

pub(crate) async fn workers_are_listed_by_page_id_and_state(f: &Fixture) {
    let mut ids = Vec::new();
    for pid in 0..5 {
        ids.push(register(f, pid).await);
    }
    f.store().heartbeat(ids[1], &busy()).await.unwrap();
    let list = async |filter: WorkerFilter| {
        let page = f.store().workers(&filter).await.unwrap();
        (page.workers.iter().map(|w| w.id).collect::<Vec<_>>(), page.next)
    };
    let usual = WorkerFilter::default;
    assert_eq!(list(WorkerFilter { limit: 2, ..usual() }).await, (vec![ids[4], ids[3]], Some(ids[3])));
    let behind = WorkerFilter { limit: 3, before: Some(ids[3]), ..usual() };
    assert_eq!(list(behind).await, (vec![ids[2], ids[1], ids[0]], None));
    let two = WorkerFilter { ids: vec![ids[0], ids[2], -1], ..usual() };
    assert_eq!(list(two).await, (vec![ids[2], ids[0]], None));
    let busy = WorkerFilter { states: vec![WorkerState::Processing], ..usual() };
    assert_eq!(list(busy).await, (vec![ids[1]], None));
    let rest = WorkerFilter { states: vec![WorkerState::Idle, WorkerState::Stale], ..usual() };
    assert_eq!(list(rest).await.0.len(), 4);
}

pub(crate) async fn commands_are_taken_once_and_in_order(f: &Fixture) {
    let (one, two) = (register(f, 1).await, register(f, 2).await);
    let own = Command::Own { name: "my/own".into(), args: vec!["a\0b".into(), 1.5.into()] };
    let sent = [Command::Pause, Command::Concurrency(3), own.clone(), Command::Signal(7, JobSignal::Usr1)];
    for command in &sent {
        assert_eq!(f.store().send_command(Some(&[one]), command).await.unwrap(), 1);
    }
    assert_eq!(f.store().send_command(None, &Command::Stop(4)).await.unwrap(), 2, "to all");
    assert_eq!(f.store().send_command(Some(&[one + 1_000]), &own).await.unwrap(), 0, "to nobody");
    let taken = f.store().take_commands(one).await.unwrap();
    assert_eq!(taken[..4], sent);
    assert_eq!(taken[4..], [Command::Stop(4)]);
    assert_eq!(f.store().take_commands(one).await.unwrap(), []);
    assert_eq!(f.store().take_commands(two).await.unwrap(), [Command::Stop(4)]);
    f.wrote(&[]).await;
}

pub(crate) async fn two_who_take_at_once_get_each_command_once(f: &Fixture) {
    let worker = register(f, 1).await;
    let other = f.second().await;
    let mut seen = Vec::new();
    for round in 0..20 {
        f.store().send_command(None, &Command::Stop(round + 1)).await.unwrap();
        let (a, b) = tokio::join!(f.store().take_commands(worker), other.take_commands(worker));
        seen.extend(a.unwrap());
        seen.extend(b.unwrap());
    }
    seen.extend(f.store().take_commands(worker).await.unwrap());
    assert_eq!(seen, (0..20).map(|round| Command::Stop(round + 1)).collect::<Vec<_>>());
}

pub(crate) async fn an_inbox_has_a_bound(f: &Fixture) {
    let (full, free) = (register(f, 1).await, register(f, 2).await);
    for _ in 0..INBOX_MAX {
        assert_eq!(f.store().send_command(Some(&[full]), &Command::Pause).await.unwrap(), 1);
    }
    assert_eq!(f.store().send_command(None, &Command::Resume).await.unwrap(), 1, "the other one");
    assert_eq!(f.store().take_commands(full).await.unwrap().len(), INBOX_MAX as usize);
    assert_eq!(f.store().take_commands(free).await.unwrap(), [Command::Resume]);
    assert_eq!(f.store().send_command(Some(&[full]), &Command::Pause).await.unwrap(), 1);
}

pub(crate) async fn what_nobody_takes_goes_with_its_worker_or_with_time(f: &Fixture) {
    let worker = register(f, 1).await;
    f.store().send_command(None, &Command::Pause).await.unwrap();
    f.pass(COMMAND_KEPT / 2).await;
    f.store().heartbeat(worker, &WorkerStatus::default()).await.unwrap();
    f.upkeep().await;
    f.store().send_command(None, &Command::Resume).await.unwrap();
    f.pass(COMMAND_KEPT / 2).await;
    f.store().heartbeat(worker, &WorkerStatus::default()).await.unwrap();
    f.upkeep().await;
    assert_eq!(f.store().take_commands(worker).await.unwrap(), [Command::Resume]);
    f.store().send_command(None, &Command::Pause).await.unwrap();
    f.store().unregister_worker(worker).await.unwrap();
    assert_eq!(f.store().take_commands(worker).await.unwrap(), [], "its inbox went with it");
    let told = f.store().heartbeat(worker, &busy()).await;
    assert!(matches!(told, Err(QueueError::Unregistered(id)) if id == worker), "{told:?}");
}

/// In this process, and in another one on the same database.
pub(crate) async fn commands_and_cancelled_runs_wake_workers(f: &Fixture) {
    register(f, 1).await;
    let other = f.second().await;
    let (mut here, mut there) = (f.store().controls(), other.controls());
    // what opening them brought
    let listens = async || {
        f.store().send_command(None, &Command::Pause).await.unwrap();
        there.has_changed().unwrap().then_some(())
    };
    wait::until("the other one listens", listens).await;
    let mut heard = async |what: &str| {
        for controls in [&mut here, &mut there] {
            wait::until(what, async || controls.has_changed().unwrap().then_some(())).await;
            controls.mark_unchanged();
        }
    };
    heard("a command").await;
    let leased = f.running(plain()).await;
    f.store().cancel(leased.id).await.unwrap();
    heard("a run that was cancelled").await;
}
