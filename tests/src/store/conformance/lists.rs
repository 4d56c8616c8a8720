//! What is only asked: lists, figures, workers.

use crate::store::fixture::*;
use minium_protocol::{EnqueueRequest, Job, State};
use minium_queue::{
    JobFilter, JobPage, QueueError, RetryOptions, STALE_AFTER, Stats, WorkerInfo, WorkerStatus, rules,
};

fn job_ids(page: &JobPage) -> Vec<i64> {
    let id = |text: &str| serde_json::from_str::<Job>(text).unwrap().id;
    page.jobs.iter().map(|job| id(job.get())).collect()
}

async fn list(f: &Fixture, filter: JobFilter) -> Vec<i64> {
    job_ids(&f.store().list(&filter).await.unwrap())
}

pub(crate) async fn a_list_is_newest_first_and_goes_on_by_cursor(f: &Fixture) {
    let mut all: Vec<_> = f.store().enqueue(&vec![plain(); 7]).await.unwrap().iter().map(|e| e.id).collect();
    all.reverse();
    let mut filter = JobFilter { limit: 3, ..JobFilter::default() };
    let (mut got, mut pages) = (Vec::new(), 0);
    loop {
        let page = f.store().list(&filter).await.unwrap();
        got.extend(job_ids(&page));
        pages += 1;
        // a job that comes meanwhile does not move the pages
        f.enqueue(plain()).await;
        match page.next {
            Some(next) => filter.before = Some(next),
            None => break,
        }
    }
    assert_eq!((got, pages), (all.clone(), 3));
    // exactly one page has no next
    let last = JobFilter { limit: 3, before: Some(all[3]), ..JobFilter::default() };
    let page = f.store().list(&last).await.unwrap();
    assert_eq!((job_ids(&page), page.next), (all[4..].to_vec(), None));
}

pub(crate) async fn filters_narrow_a_list(f: &Fixture) {
    let request = |task: &str, queue: &str, notes: &str| {
        let mut request = EnqueueRequest::new(task, json("[]"));
        request.options.queue = queue.into();
        request.options.notes = serde_json::from_str(notes).unwrap();
        request
    };
    let a = f.enqueue(request("a", "q", r#"{"x":1,"y":null}"#)).await;
    let b = f.enqueue(request("b", "q", r#"{"x":{"z":1}}"#)).await;
    let c = f.enqueue(request("a", "r", r#"{"z":1,"it's \"x\"":0}"#)).await;
    f.store().cancel(b).await.unwrap();
    let all = JobFilter::default;
    assert_eq!(list(f, all()).await, [c, b, a]);
    assert_eq!(list(f, JobFilter { states: vec![State::Inactive], ..all() }).await, [c, a]);
    let two = vec![State::Cancelled, State::Failed];
    assert_eq!(list(f, JobFilter { states: two, ..all() }).await, [b]);
    assert_eq!(list(f, JobFilter { tasks: vec!["a".into()], ..all() }).await, [c, a]);
    assert_eq!(list(f, JobFilter { tasks: vec!["b".into(), "none".into()], ..all() }).await, [b]);
    assert_eq!(list(f, JobFilter { queues: vec!["q".into()], ..all() }).await, [b, a]);
    assert_eq!(list(f, JobFilter { notes: vec!["x".into()], ..all() }).await, [b, a]);
    assert_eq!(list(f, JobFilter { notes: vec!["x".into(), "y".into()], ..all() }).await, [a]);
    assert_eq!(list(f, JobFilter { notes: vec!["z".into()], ..all() }).await, [c], "top level only");
    assert_eq!(list(f, JobFilter { notes: vec!["it's \"x\"".into()], ..all() }).await, [c]);
    let both = JobFilter { tasks: vec!["a".into()], queues: vec!["q".into()], ..all() };
    assert_eq!(list(f, both).await, [a]);
    let none = JobFilter { states: vec![State::Active], ..all() };
    assert!(list(f, none).await.is_empty());
    assert_eq!(list(f, JobFilter { before: Some(b), ..all() }).await, [a]);
    // filters hold over pages
    let first = JobFilter { tasks: vec!["a".into()], limit: 1, ..all() };
    let page = f.store().list(&first).await.unwrap();
    assert_eq!((job_ids(&page), page.next), (vec![c], Some(c)));
    assert_eq!(list(f, JobFilter { before: page.next, ..first }).await, [a]);
}

pub(crate) async fn a_list_is_narrowed_by_so_many_names(f: &Fixture) {
    let id = f.enqueue(with(|o| o.notes = serde_json::from_str(r#"{"x":1}"#).unwrap())).await;
    let names = |count| vec!["x".to_owned(); count];
    let all = JobFilter::default;
    assert_eq!(list(f, JobFilter { notes: names(rules::FILTER_NAMES_MAX), ..all() }).await, [id]);
    let over = rules::FILTER_NAMES_MAX + 1;
    for (filter, word) in [
        (JobFilter { states: vec![State::Active; over], ..all() }, "state"),
        (JobFilter { tasks: names(over), ..all() }, "task"),
        (JobFilter { queues: names(over), ..all() }, "queue"),
        (JobFilter { notes: names(5_000), ..all() }, "note"),
    ] {
        let refused = f.store().list(&filter).await;
        assert!(matches!(&refused, Err(QueueError::Invalid(w)) if w.contains(word)), "{refused:?}");
    }
}

pub(crate) async fn a_page_has_a_bound(f: &Fixture) {
    let bound = rules::PAGE_MAX as usize;
    f.store().enqueue(&vec![plain(); bound + 1]).await.unwrap();
    let page = f.store().list(&JobFilter { limit: u32::MAX, ..JobFilter::default() }).await.unwrap();
    assert_eq!(page.jobs.len(), bound);
    assert!(page.next.is_some());
    let page = f.store().list(&JobFilter { limit: 0, ..JobFilter::default() }).await.unwrap();
    assert_eq!(page.jobs.len(), 1);
}

pub(crate) async fn what_a_job_has_enqueued_is_a_list(f: &Fixture) {
    let root = f.enqueue(plain()).await;
    let of = |origin: i64, task: &str| {
        let mut request = with(|o| o.origin = Some(origin));
        request.task = task.into();
        request
    };
    let mut children = Vec::new();
    for n in 0..5 {
        children.push(f.enqueue(of(root, if n % 2 == 0 { "even" } else { "odd" })).await);
        f.enqueue(of(children[0], "even")).await;
        f.enqueue(plain()).await;
    }
    children.reverse();
    let born = || JobFilter { origin: Some(root), ..JobFilter::default() };
    assert_eq!(list(f, born()).await, children);
    assert_eq!(list(f, JobFilter { origin: Some(children[0]), ..born() }).await, [0; 0]);
    assert_eq!(list(f, JobFilter { tasks: vec!["odd".into()], ..born() }).await, [children[1], children[3]]);
    assert_eq!(list(f, JobFilter { ids: vec![root, children[2]], ..born() }).await, [children[2]]);
    f.store().cancel(children[3]).await.unwrap();
    assert_eq!(list(f, JobFilter { states: vec![State::Cancelled], ..born() }).await, [children[3]]);
    assert_eq!(list(f, JobFilter { states: vec![State::Failed], ..born() }).await, [0; 0]);
    // by cursor, too
    let page = f.store().list(&JobFilter { limit: 2, ..born() }).await.unwrap();
    assert_eq!((job_ids(&page), page.next), (children[..2].to_vec(), Some(children[1])));
    let rest = JobFilter { before: page.next, ..born() };
    assert_eq!(list(f, rest).await, children[2..]);
}

pub(crate) async fn a_page_ends_with_the_job_that_fills_its_bytes(f: &Fixture) {
    let mut ids = Vec::new();
    for size in [10, 5_000, 10, 5_000, 10] {
        let args = format!("[\"{}\"]", "x".repeat(size));
        ids.push(f.enqueue(EnqueueRequest::new("big", json(&args))).await);
    }
    ids.reverse();
    let mut filter = JobFilter { limit: 5, bytes_max: 5_000, ..JobFilter::default() };
    let mut pages = Vec::new();
    loop {
        let page = f.store().list(&filter).await.unwrap();
        pages.push(job_ids(&page));
        filter.before = page.next;
        if page.next.is_none() {
            break;
        }
    }
    assert_eq!(pages, [&ids[..2], &ids[2..4], &ids[4..]]);
    // one at least, and no next behind the last, however full the page
    let page = f.store().list(&JobFilter { bytes_max: 0, ..JobFilter::default() }).await.unwrap();
    assert_eq!((job_ids(&page), page.next), (ids[..1].to_vec(), Some(ids[0])));
    let last = JobFilter { bytes_max: 0, before: Some(ids[3]), ..JobFilter::default() };
    let page = f.store().list(&last).await.unwrap();
    assert_eq!((job_ids(&page), page.next), (ids[4..].to_vec(), None));
}

pub(crate) async fn a_list_holds_snapshots(f: &Fixture) {
    let done = f.finished(plain()).await;
    let waiting = f.enqueue(after(&[done])).await;
    let page = f.store().list(&JobFilter::default()).await.unwrap();
    for (id, listed) in [waiting, done].into_iter().zip(&page.jobs) {
        assert_eq!(listed.get(), f.view(id).await.snapshot.get());
    }
}

pub(crate) async fn figures_count_every_state(f: &Fixture) {
    assert_eq!(f.store().stats().await.unwrap(), Stats::default());
    let failed = f.failed(plain()).await;
    f.finished(plain()).await;
    f.finished(plain()).await;
    f.cancelled(plain()).await;
    let running = f.running(plain()).await;
    f.enqueue(plain()).await;
    f.enqueue(with(|o| o.delay = seconds(100))).await;
    f.enqueue(after(&[failed])).await;
    f.enqueue(after(&[running.id])).await;
    // held back by both counts as blocked
    let mut both = after(&[failed]);
    both.options.delay = seconds(100);
    f.enqueue(both).await;
    let expected = Stats {
        inactive: 5,
        delayed: 1,
        blocked: 3,
        active: 1,
        finished: 2,
        failed: 1,
        cancelled: 1,
        enqueued: 10,
        ..Stats::default()
    };
    assert_eq!(f.store().stats().await.unwrap(), expected);
}

pub(crate) async fn figures_count_locks_and_schedules(f: &Fixture) {
    for name in ["a", "b", "b"] {
        f.store().lock(name, "me", seconds(60), 2).await.unwrap().unwrap();
    }
    f.store().lock("short", "me", seconds(5), 1).await.unwrap().unwrap();
    for name in ["x", "y"] {
        f.store().put_schedule(&every(name, plain(), 60)).await.unwrap();
    }
    f.store().pause_schedule("x", true).await.unwrap();
    let figures = async || {
        let s = f.store().stats().await.unwrap();
        (s.active_locks, s.schedules, s.inactive_schedules)
    };
    assert_eq!(figures().await, (4, 2, 1));
    f.pass(seconds(10)).await;
    assert_eq!(figures().await, (3, 2, 1), "one has ended");
}

pub(crate) async fn jobs_are_listed_by_their_ids(f: &Fixture) {
    let all: Vec<_> = f.store().enqueue(&vec![plain(); 5]).await.unwrap().iter().map(|e| e.id).collect();
    let of = |ids: &[i64]| JobFilter { ids: ids.to_vec(), ..JobFilter::default() };
    assert_eq!(list(f, of(&[all[0], all[3], 999_999, all[1]])).await, [all[3], all[1], all[0]]);
    f.store().cancel(all[1]).await.unwrap();
    let cancelled = JobFilter { states: vec![State::Cancelled], ..of(&all) };
    assert_eq!(list(f, cancelled).await, [all[1]]);
    let mut filter = JobFilter { limit: 2, ..of(&all[1..]) };
    let page = f.store().list(&filter).await.unwrap();
    assert_eq!((job_ids(&page), page.next), (vec![all[4], all[3]], Some(all[3])));
    filter.before = page.next;
    assert_eq!(list(f, filter).await, [all[2], all[1]]);
    let many = of(&vec![1; rules::FILTER_NAMES_MAX + 1]);
    assert!(matches!(f.store().list(&many).await, Err(QueueError::Invalid(_))));
}

pub(crate) async fn figures_stay_right_over_a_whole_life(f: &Fixture) {
    let request = with(|o| (o.attempts, o.backoff) = (3, Some(seconds(0))));
    let figures = async || {
        let s = f.store().stats().await.unwrap();
        [s.inactive, s.active, s.finished, s.failed, s.cancelled]
    };
    let leased = f.running(request).await;
    assert_eq!(figures().await, [0, 1, 0, 0, 0]);
    f.accepted(fail(&leased, "no")).await;
    assert_eq!(figures().await, [1, 0, 0, 0, 0]);
    f.claim_one().await;
    f.pass(LEASE).await;
    f.upkeep().await;
    assert_eq!(figures().await, [1, 0, 0, 0, 0]);
    let leased = f.claim_one().await;
    f.accepted(fail(&leased, "no")).await;
    assert_eq!(figures().await, [0, 0, 0, 1, 0]);
    f.store().retry(leased.id, &RetryOptions::default()).await.unwrap();
    assert_eq!(figures().await, [1, 0, 0, 0, 0]);
    f.store().cancel(leased.id).await.unwrap();
    assert_eq!(figures().await, [0, 0, 0, 0, 1]);
    f.store().remove(leased.id).await.unwrap();
    f.enqueue(with(|o| o.expire = Some(seconds(10)))).await;
    f.pass(seconds(20)).await;
    f.upkeep().await;
    assert_eq!(figures().await, [0; 5]);
}

pub(crate) async fn workers_count_while_their_heartbeat_is_fresh(f: &Fixture) {
    let count = async || f.store().stats().await.unwrap().workers;
    let one = f.store().register_worker(&WorkerInfo::new("rack3", 411)).await.unwrap();
    let two = f.store().register_worker(&WorkerInfo::new("rack3", 411)).await.unwrap();
    assert_eq!((one.host.as_str(), one.pid), ("rack3", 411));
    assert_ne!(one.id, two.id);
    assert_eq!(count().await, 2);
    f.pass(STALE_AFTER + seconds(1)).await;
    assert_eq!(count().await, 0);
    f.store().heartbeat(two.id, &WorkerStatus::default()).await.unwrap();
    assert_eq!(count().await, 1);
    f.store().unregister_worker(two.id).await.unwrap();
    assert_eq!(count().await, 0);
    // whoever is not there is told so, and may leave all the same: it may have been forgotten meanwhile
    let told = f.store().heartbeat(two.id, &WorkerStatus::default()).await;
    assert!(matches!(told, Err(QueueError::Unregistered(id)) if id == two.id), "{told:?}");
    f.store().unregister_worker(two.id).await.unwrap();
    assert_eq!(count().await, 0);
    f.wrote(&[]).await;
}

pub(crate) async fn the_store_answers(f: &Fixture) {
    f.store().ping().await.unwrap();
    f.second().await.ping().await.unwrap();
}
