//! Claims that take at most so many of a task.

use crate::store::fixture::*;
use minium_protocol::EnqueueRequest;
use minium_queue::{Claim, QueueError, Verdict};

fn of(task: &str, priority: i32) -> EnqueueRequest {
    let mut request = EnqueueRequest::new(task, json("[]"));
    request.options.priority = priority;
    request
}

fn capped(limit: u32, caps: &[(&str, u32)]) -> Claim {
    Claim {
        tasks: Some(vec!["a".into(), "b".into(), "c".into()]),
        caps: caps.iter().map(|(task, n)| ((*task).to_owned(), *n)).collect(),
        ..claim(limit)
    }
}

async fn names(f: &Fixture, claim: Claim) -> Vec<String> {
    f.exchange(&[], claim).await.jobs.into_iter().map(|job| job.task).collect()
}

pub(crate) async fn no_more_of_a_task_is_claimed_than_asked(f: &Fixture) {
    for _ in 0..3 {
        f.store().enqueue(&[of("a", 0), of("b", 0)]).await.unwrap();
    }
    let mut got = names(f, capped(10, &[("a", 1)])).await;
    got.sort();
    assert_eq!(got, ["a", "b", "b", "b"], "the others fill the rest");
    assert_eq!(names(f, capped(10, &[("a", 0)])).await, [""; 0], "none of it at all");
    assert_eq!(names(f, capped(1, &[("a", 5)])).await, ["a"], "the limit counts as well");
    f.entries().await;
    assert_eq!(names(f, capped(10, &[("a", 5)])).await, ["a"]);
    let [entry] = &f.entries().await[..] else { panic!("one event") };
    assert_eq!(entry.kind, "task.dequeue");
    f.agree(std::slice::from_ref(entry)).await;
    let stats = f.store().stats().await.unwrap();
    assert_eq!((stats.inactive, stats.active), (0, 6));
}

pub(crate) async fn a_bound_holds_over_all_queues_and_priorities(f: &Fixture) {
    for queue in ["x", "y"] {
        for priority in [0, 5, 9] {
            let mut request = of("a", priority);
            request.options.queue = queue.into();
            f.enqueue(request).await;
        }
    }
    let asked = Claim { queues: vec!["x".into(), "y".into()], ..capped(10, &[("a", 3)]) };
    let jobs = f.exchange(&[], asked).await.jobs;
    let mut priorities = Vec::new();
    for job in &jobs {
        priorities.push(f.job(job.id).await.priority);
    }
    assert_eq!(priorities, [9, 9, 5]);
}

pub(crate) async fn a_claim_with_bounds_keeps_the_order_of_priorities(f: &Fixture) {
    for (task, priority) in [("a", 1), ("b", 9), ("a", 9), ("c", 5), ("b", 1), ("a", 5)] {
        f.enqueue(of(task, priority)).await;
    }
    let mut got = Vec::new();
    for job in f.exchange(&[], capped(5, &[("c", 1)])).await.jobs {
        let priority = f.job(job.id).await.priority;
        got.push((priority, job.task));
    }
    let priorities: Vec<_> = got.iter().map(|(priority, _)| *priority).collect();
    assert_eq!(priorities, [9, 9, 5, 5, 1]);
    f.enqueue(of("b", 3)).await;
    let least = Claim { min_priority: Some(2), ..capped(5, &[("a", 1)]) };
    assert_eq!(names(f, least).await, ["b"]);
}

pub(crate) async fn a_claim_with_bounds_hands_outcomes_in_too(f: &Fixture) {
    let leased = f.running(of("a", 0)).await;
    f.store().enqueue(&[of("a", 0), of("a", 0)]).await.unwrap();
    let exchanged = f.exchange(&[finish(&leased, "1")], capped(2, &[("a", 1)])).await;
    assert_eq!((exchanged.verdicts, exchanged.jobs.len()), (vec![Verdict::Accepted], 1));
}

pub(crate) async fn a_claim_with_bounds_must_name_its_tasks(f: &Fixture) {
    let asked = Claim { tasks: None, ..capped(1, &[("a", 1)]) };
    let refused = f.store().exchange(&[], &asked).await;
    assert!(matches!(refused, Err(QueueError::Invalid(_))), "{refused:?}");
}

pub(crate) async fn two_who_claim_with_bounds_never_share_a_job(f: &Fixture) {
    const JOBS: usize = 200;
    let jobs: Vec<_> = (0..JOBS).map(|n| of(if n % 2 == 0 { "a" } else { "b" }, 0)).collect();
    f.store().enqueue(&jobs).await.unwrap();
    let other = f.second().await;
    let mut ids = Vec::new();
    while ids.len() < JOBS {
        let (one, two) = (capped(7, &[("a", 3)]), capped(7, &[("b", 2)]));
        let (one, two) = tokio::join!(f.store().exchange(&[], &one), other.exchange(&[], &two));
        let got: Vec<_> = one.unwrap().jobs.into_iter().chain(two.unwrap().jobs).map(|job| job.id).collect();
        assert!(!got.is_empty(), "nobody is kept from a job that nobody takes");
        ids.extend(got);
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), JOBS);
}
