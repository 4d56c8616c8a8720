//! Who waits for whom: edges, their counters, and the races around them.

use crate::store::fixture::*;
use crate::support::wait;
use minium_protocol::{Phase, State};
use minium_queue::RetryOptions;

async fn is_blocked(f: &Fixture, id: i64) -> bool {
    match f.phase(id).await {
        Some(Phase::Blocked) => true,
        Some(Phase::Ready) => false,
        other => panic!("{other:?}"),
    }
}

async fn retry(f: &Fixture, id: i64) {
    f.store().retry(id, &RetryOptions::default()).await.unwrap();
}

pub(crate) async fn a_child_waits_for_all_of_its_parents(f: &Fixture) {
    let one = f.running(plain()).await;
    let two = f.running(plain()).await;
    let child = f.enqueue(after(&[one.id, two.id])).await;
    assert_eq!(f.job(child).await.parents, [one.id, two.id]);
    assert!(is_blocked(f, child).await);
    f.nothing_to_claim().await;
    f.accepted(finish(&two, "1")).await;
    assert!(is_blocked(f, child).await);
    f.nothing_to_claim().await;
    f.entries().await;
    f.accepted(finish(&one, "1")).await;
    f.wrote(&[(one.id, "task.finished")]).await;
    assert!(!is_blocked(f, child).await);
    assert_eq!(f.claim_one().await.id, child);
}

pub(crate) async fn a_missing_parent_counts_as_finished(f: &Fixture) {
    let removed = f.cancelled(plain()).await;
    f.store().remove(removed).await.unwrap();
    let child = f.enqueue(after(&[removed, -1, 0, i64::MAX])).await;
    assert_eq!(f.job(child).await.parents, [removed, -1, 0, i64::MAX], "they are named all the same");
    assert_eq!(f.claim_one().await.id, child);
}

pub(crate) async fn an_ended_parent_is_judged_at_once(f: &Fixture) {
    let finished = f.finished(plain()).await;
    let failed = f.failed(plain()).await;
    let cancelled = f.cancelled(plain()).await;
    let ready = f.enqueue(after(&[finished])).await;
    let blocked = [f.enqueue(after(&[finished, failed])).await, f.enqueue(after(&[cancelled])).await];
    let lax = f.enqueue(lax_after(&[finished, failed, cancelled])).await;
    assert!(is_blocked(f, blocked[0]).await && is_blocked(f, blocked[1]).await);
    assert_eq!(ids(&f.claim(10).await), [ready, lax]);
}

pub(crate) async fn a_failed_parent_blocks_until_it_is_retried(f: &Fixture) {
    let parent = f.running(plain()).await;
    let child = f.enqueue(after(&[parent.id])).await;
    f.accepted(fail(&parent, "no")).await;
    assert!(is_blocked(f, child).await);
    retry(f, parent.id).await;
    assert!(is_blocked(f, child).await);
    let again = f.claim_one().await;
    assert_eq!(again.id, parent.id);
    f.accepted(finish(&again, "1")).await;
    assert_eq!(f.claim_one().await.id, child);
}

pub(crate) async fn a_cancelled_parent_lets_a_lax_child_run(f: &Fixture) {
    let parent = f.enqueue(plain()).await;
    let lax = f.enqueue(lax_after(&[parent])).await;
    let strict = f.enqueue(after(&[parent])).await;
    assert!(is_blocked(f, lax).await);
    f.store().cancel(parent).await.unwrap();
    assert!(is_blocked(f, strict).await);
    assert_eq!(f.claim_one().await.id, lax);
}

pub(crate) async fn a_failed_parent_lets_a_lax_child_run(f: &Fixture) {
    let parent = f.running(plain()).await;
    let lax = f.enqueue(lax_after(&[parent.id])).await;
    assert!(is_blocked(f, lax).await);
    f.accepted(fail(&parent, "no")).await;
    assert_eq!(f.claim_one().await.id, lax);
}

pub(crate) async fn a_parent_that_is_retried_by_itself_still_blocks(f: &Fixture) {
    let parent = f.running(with(|o| (o.attempts, o.backoff) = (2, Some(seconds(0))))).await;
    let lax = f.enqueue(lax_after(&[parent.id])).await;
    let strict = f.enqueue(after(&[parent.id])).await;
    f.accepted(fail(&parent, "no")).await;
    assert!(is_blocked(f, lax).await && is_blocked(f, strict).await);
    let again = f.claim_one().await;
    f.accepted(finish(&again, "1")).await;
    assert_eq!(ids(&f.claim(10).await), [lax, strict]);
}

pub(crate) async fn a_retried_parent_blocks_children_that_wait(f: &Fixture) {
    let parent = f.finished(plain()).await;
    let child = f.enqueue(after(&[parent])).await;
    assert!(!is_blocked(f, child).await);
    f.entries().await;
    retry(f, parent).await;
    f.wrote(&[(parent, "task.retry")]).await;
    assert!(is_blocked(f, child).await);
    let again = f.claim_one().await;
    assert_eq!(again.id, parent);
    f.accepted(finish(&again, "1")).await;
    assert_eq!(f.claim_one().await.id, child);
}

pub(crate) async fn a_retried_parent_blocks_a_child_that_comes_back(f: &Fixture) {
    let parent = f.finished(plain()).await;
    let running = f.running({
        let mut child = after(&[parent]);
        (child.options.attempts, child.options.backoff) = (3, Some(seconds(0)));
        child
    });
    let child = running.await;
    let ended = f.finished(after(&[parent])).await;
    retry(f, parent).await;
    assert_eq!(f.job(child.id).await.state, State::Active, "who runs is left alone");
    f.accepted(fail(&child, "no")).await;
    retry(f, ended).await;
    assert!(is_blocked(f, child.id).await && is_blocked(f, ended).await);
    let again = f.claim_one().await;
    assert_eq!(again.id, parent);
    f.accepted(finish(&again, "1")).await;
    assert_eq!(ids(&f.claim(10).await), [child.id, ended]);
}

pub(crate) async fn a_removed_parent_counts_as_finished(f: &Fixture) {
    let waiting = f.enqueue(with(|o| o.delay = seconds(100))).await;
    let failed = f.failed(plain()).await;
    let child = f.enqueue(after(&[waiting, failed])).await;
    f.store().remove(waiting).await.unwrap();
    assert!(is_blocked(f, child).await);
    f.entries().await;
    f.store().remove(failed).await.unwrap();
    f.wrote(&[(failed, "task.removed")]).await;
    assert_eq!(f.claim_one().await.id, child);
    assert_eq!(f.job(child).await.parents, [waiting, failed]);
}

pub(crate) async fn an_expired_parent_counts_as_finished(f: &Fixture) {
    let parent = f.enqueue(with(|o| (o.expire, o.delay) = (Some(seconds(10)), seconds(100)))).await;
    let child = f.enqueue(after(&[parent])).await;
    f.pass(seconds(20)).await;
    assert_eq!(f.upkeep().await.expired, 1);
    assert_eq!(f.claim_one().await.id, child);
}

pub(crate) async fn a_lost_parent_without_attempts_lets_a_lax_child_run(f: &Fixture) {
    let parent = f.running(plain()).await;
    let lax = f.enqueue(lax_after(&[parent.id])).await;
    let strict = f.enqueue(after(&[parent.id])).await;
    f.pass(LEASE).await;
    assert_eq!(f.upkeep().await.rescued, 1);
    assert!(is_blocked(f, strict).await);
    assert_eq!(f.claim_one().await.id, lax);
}

pub(crate) async fn a_parent_named_twice_counts_once(f: &Fixture) {
    let one = f.running(plain()).await;
    let two = f.running(plain()).await;
    let child = f.enqueue(after(&[two.id, one.id, two.id, one.id, two.id])).await;
    assert_eq!(f.job(child).await.parents, [two.id, one.id]);
    let verdicts = f.hand_in(&[finish(&one, "1"), finish(&two, "1")]).await;
    assert_eq!(verdicts, [minium_queue::Verdict::Accepted; 2]);
    assert_eq!(f.claim_one().await.id, child);
}

pub(crate) async fn a_job_never_waits_for_one_of_its_own_call(f: &Fixture) {
    let first = f.enqueue(plain()).await;
    let guesses: Vec<i64> = (first + 1..first + 10).collect();
    let enqueued = f.store().enqueue(&[after(&guesses), after(&guesses)]).await.unwrap();
    let mut all = vec![first];
    all.extend(enqueued.iter().map(|e| e.id));
    assert_eq!(ids(&f.claim(10).await), all);
}

pub(crate) async fn a_child_waits_for_its_time_too(f: &Fixture) {
    let parents = [f.running(plain()).await, f.running(plain()).await];
    let delayed = |parent: i64| {
        let mut request = after(&[parent]);
        request.options.delay = seconds(100);
        request
    };
    let (a, b) = (f.enqueue(delayed(parents[0].id)).await, f.enqueue(delayed(parents[1].id)).await);
    assert_eq!(f.phase(a).await, Some(Phase::Blocked));
    f.accepted(finish(&parents[0], "1")).await;
    assert_eq!(f.phase(a).await, Some(Phase::Delayed));
    f.nothing_to_claim().await;
    f.pass(seconds(200)).await;
    assert_eq!(f.upkeep().await.staged, 1, "the other still waits for its parent");
    assert_eq!(f.claim_one().await.id, a);
    assert_eq!(f.phase(b).await, Some(Phase::Blocked));
    f.accepted(finish(&parents[1], "1")).await;
    assert_eq!(f.claim_one().await.id, b);
}

pub(crate) async fn children_are_listed(f: &Fixture) {
    let parent = f.finished(plain()).await;
    let one = f.finished(after(&[parent])).await;
    let two = f.enqueue(lax_after(&[parent, one])).await;
    let view = f.view(parent).await;
    assert_eq!(view.children, [one, two], "ended ones too");
    assert!(f.view(two).await.children.is_empty());
    f.store().remove(one).await.unwrap();
    assert_eq!(f.view(parent).await.children, [two]);
}

pub(crate) async fn thousands_of_children_become_ready(f: &Fixture) {
    const CHILDREN: usize = 3_000;
    let parent = f.running(plain()).await;
    let enqueued = f.store().enqueue(&vec![after(&[parent.id]); CHILDREN]).await.unwrap();
    f.nothing_to_claim().await;
    assert_eq!(f.store().stats().await.unwrap().blocked, CHILDREN as i64);
    f.entries().await;
    f.accepted(finish(&parent, "1")).await;
    f.wrote(&[(parent.id, "task.finished")]).await;
    // those of them that are many are seen to behind the answer's back
    let none = async || (f.store().stats().await.unwrap().blocked == 0).then_some(());
    wait::until("all children to be ready", none).await;
    let mut claimed = Vec::new();
    while claimed.len() < CHILDREN {
        let more = ids(&f.claim(CHILDREN as u32).await);
        assert!(!more.is_empty());
        claimed.extend(more);
    }
    assert_eq!(claimed, enqueued.iter().map(|e| e.id).collect::<Vec<_>>(), "in the order of their ids");
}

pub(crate) async fn a_parent_with_many_siblings_opens_the_last_edge(f: &Fixture) {
    const PARENTS: u32 = 500;
    f.store().enqueue(&vec![plain(); PARENTS as usize]).await.unwrap();
    let mut parents = f.claim(PARENTS).await;
    let child = f.enqueue(after(&ids(&parents))).await;
    let last = parents.pop().unwrap();
    let outcomes: Vec<_> = parents.iter().map(|job| finish(job, "1")).collect();
    f.hand_in(&outcomes).await;
    assert!(is_blocked(f, child).await);
    f.accepted(finish(&last, "1")).await;
    assert_eq!(f.claim_one().await.id, child);
}

pub(crate) async fn a_child_enqueued_while_its_parent_finishes_becomes_ready(f: &Fixture) {
    let other = f.second().await;
    for _ in 0..60 {
        let parent = f.running(plain()).await;
        let enqueuing = {
            let (other, id) = (other.clone(), parent.id);
            tokio::spawn(async move { other.enqueue(&[after(&[id])]).await.unwrap()[0].id })
        };
        f.accepted(finish(&parent, "1")).await;
        let child = enqueuing.await.unwrap();
        // the parent's end may have passed it by: a look behind the parent's back sees to it, or upkeep, whichever comes first
        let leased = wait::until("the child to be claimed", async || {
            if is_blocked(f, child).await {
                f.upkeep().await;
            }
            f.claim(1).await.pop()
        });
        let leased = leased.await;
        assert_eq!(leased.id, child);
        f.accepted(finish(&leased, "1")).await;
    }
    assert_eq!(f.store().stats().await.unwrap().blocked, 0);
}

pub(crate) async fn a_child_enqueued_while_its_parent_is_retried_counts_right(f: &Fixture) {
    let other = f.second().await;
    for _ in 0..40 {
        let parent = f.finished(plain()).await;
        let enqueuing = {
            let (other, id) = (other.clone(), parent);
            tokio::spawn(async move { other.enqueue(&[after(&[id])]).await.unwrap()[0].id })
        };
        retry(f, parent).await;
        let child = enqueuing.await.unwrap();
        assert!(is_blocked(f, child).await);
        let again = f.claim_one().await;
        assert_eq!(again.id, parent);
        f.accepted(finish(&again, "1")).await;
        let leased = f.claim_one().await;
        assert_eq!(leased.id, child);
        f.accepted(finish(&leased, "1")).await;
    }
}
